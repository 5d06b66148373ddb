//! One process has a store open: by a lock on a file in a folder, by a lease in a bucket. Of nodes that share one it is the one that
//! leads, by a lease in either.

use std::fs::File;
use std::path::{Path, PathBuf};

use millstream_engine::clock::Clock;
use millstream_engine::store::{Away, Held, LEASE, LOCK, Lease, Place, Store, check_alone, lock, taken};
use millstream_engine::token::token;

use super::Millstream;
use super::batch_memory::SPILL;
use crate::catalog::Catalog;
use crate::error::{Error, ErrorKind, Result};

/// What the nodes of a store know one another by.
pub(super) const CLUSTER: &str = "cluster";

/// What keeps a store for this process.
pub(super) enum Hold {
    /// A lock that ends with the process.
    Lock { _file: File },
    /// A lease that is renewed.
    Lease(Lease),
    /// Nothing does: another has it.
    Not,
}

impl Hold {
    /// Opens the store that `place` names, for this process alone.
    pub(super) async fn take(place: &str) -> Result<(Store, Made, Self)> {
        let Seat { store, name, made } = Seat::at(place).await?;
        let Some(root) = store.root() else {
            let lease = Lease::take(&store, &name, LEASE, Clock::default()).await?;
            return Ok((store, made, Hold::Lease(lease)));
        };
        let Some(file) = lock(root)? else { return Err(taken(&store).await.into()) };
        let hold = Hold::Lock { _file: check_alone(&store, file, &name, Clock::default()).await? };
        clean(&store).await?;
        Ok((store, made, hold))
    }

    /// Gives it up. Where the store is as it was before it was opened, `nothing_stays` of this.
    pub(super) async fn release(&self, nothing_stays: bool) {
        if let Hold::Lease(lease) = self {
            lease.release(nothing_stays).await;
        }
    }

    /// The lease, where there is one.
    pub(super) fn lease(&self) -> Option<&Lease> {
        match self {
            Hold::Lock { .. } | Hold::Not => None,
            Hold::Lease(lease) => Some(lease),
        }
    }
}

/// Removes what another process has left in a folder. Nobody else may be writing.
pub(super) async fn clean(store: &Store) -> Result<()> {
    store.sweep().await?;
    if store.root().is_some() {
        store.delete_folder(SPILL).await?;
    }
    Ok(())
}

/// A store that this process may come to have: it can be looked at, and belongs to whoever holds it.
pub struct Seat {
    store: Store,
    name: String,
    pub(super) made: Made,
}

impl Seat {
    /// In the store at `place`. A folder is made when it does not exist.
    pub async fn at(place: &str) -> Result<Self> {
        let (place, name) = (Place::parse(place)?, token()?);
        let made = match &place {
            Place::Folder(root) => Made::by_opening(root),
            Place::Bucket(_) => Made::default(),
        };
        let store = Store::at(&place, &name).await?;
        Ok(Seat { store, name, made })
    }

    /// The store, in which nothing may be changed without a lease.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// A name that no other process has.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives it up before anything was made of it.
    pub fn leave(self) {
        self.made.remove();
    }

    /// Whether anybody may do all in the store: nobody has made a user.
    pub async fn is_open(&self) -> Result<bool> {
        Ok(Catalog::load(&self.store).await?.access.is_open())
    }
}

impl Millstream {
    /// Checks that no other process has taken the store.
    ///
    /// Errors with `Fenced`.
    pub(super) fn check_held(&self) -> Result<()> {
        let Some(lease) = self.hold.lease() else { return Ok(()) };
        let why = match lease.held() {
            Held::Yes => return Ok(()),
            Held::TakenBy(other) => format!("was taken over by {other}"),
            Held::Resigned => "was given up".to_owned(),
        };
        let hint = match self.config().nodes {
            Some(_) => "This node was not heard of for too long. Send it again: the one that leads now answers.",
            None => "This process was not heard of for too long, and does nothing any more: start it again.",
        };
        Err(Error::new(ErrorKind::Fenced, format!("store \"{}\" {why}", self.store().locate(""))).with_hint(hint))
    }

    /// What jobs wait for where the store is away, or why they go no further.
    pub(super) fn store_trouble(&self) -> Option<String> {
        if let Err(e) = self.check_held() {
            return Some(e.message().to_owned());
        }
        self.store().away().map(|Away { since, why }| {
            format!("waits: the store has not answered for {} s ({why})", since.elapsed().as_secs())
        })
    }
}

/// What opening a store has made of it on the disk, so that a look into a store that is not there leaves none.
#[derive(Clone, Default)]
pub(super) struct Made {
    lock: Option<PathBuf>,
    /// Folders, the innermost first.
    folders: Vec<PathBuf>,
}

impl Made {
    /// What is about to be made.
    pub(super) fn by_opening(root: &Path) -> Self {
        let lock = root.join(LOCK);
        let missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
        Made {
            folders: root.ancestors().take_while(missing).map(Path::to_owned).collect(),
            lock: (!lock.exists()).then_some(lock),
        }
    }

    /// Takes it away again, as far as nothing else lies there.
    pub(super) fn remove(&self) {
        let Some(lock) = &self.lock else { return };
        let entries = lock.parent().and_then(|root| std::fs::read_dir(root).ok());
        if entries.is_some_and(|mut all| all.all(|entry| entry.is_ok_and(|entry| entry.file_name() == LOCK))) {
            // There may be none, and a folder that is not empty stays.
            let _ = std::fs::remove_file(lock);
            let _ = self.folders.iter().try_for_each(std::fs::remove_dir);
        }
    }
}
