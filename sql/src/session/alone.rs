//! One process per store: a lock on a file in a folder, a lease in a bucket.

use std::path::{Path, PathBuf};

use millstream_engine::clock::Clock;
use millstream_engine::store::{Away, Held, LEASE, Lease, Place, Store};
use millstream_engine::token::token;

use super::Millstream;
use super::batch_memory::SPILL;
use crate::error::{Error, ErrorKind, Result};

/// What keeps a store for this process.
pub(super) enum Hold {
    /// A lock that ends with the process.
    Lock { _file: std::fs::File },
    /// A lease that is renewed.
    Lease(Lease),
}

impl Hold {
    /// Opens the store that `place` names, for this process alone.
    pub(super) async fn take(place: &str) -> Result<(Store, Made, Self)> {
        let (place, name) = (Place::parse(place)?, token()?);
        if let Place::Folder(root) = &place {
            let made = Made::by_opening(root);
            let store = Store::open(root)?;
            let hold = Hold::Lock { _file: lock(root)? };
            store.sweep().await?;
            store.delete_folder(SPILL).await?;
            return Ok((store, made, hold));
        }
        let store = Store::at(&place, &name).await?;
        let lease = Lease::take(&store, &name, LEASE, Clock::default()).await?;
        Ok((store, Made::default(), Hold::Lease(lease)))
    }

    /// Gives it up. Where the store is as it was before it was opened, `nothing_stays` of this.
    pub(super) async fn release(&self, nothing_stays: bool) {
        if let Hold::Lease(lease) = self {
            lease.release(nothing_stays).await;
        }
    }
}

impl Millstream {
    /// Checks that no other process has taken the store.
    ///
    /// Errors with `Fenced`.
    pub(super) fn check_held(&self) -> Result<()> {
        let Hold::Lease(lease) = &self.hold else { return Ok(()) };
        match lease.held() {
            Held::Yes => Ok(()),
            Held::TakenBy(other) => {
                let url = self.store().locate("");
                Err(Error::new(ErrorKind::Fenced, format!("store \"{url}\" was taken over by {other}")).with_hint(
                    "This process was not heard of for too long, and does nothing any more: start it again.",
                ))
            }
        }
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

/// The file that says that a process has the store open.
const LOCK: &str = "LOCK";

/// One process per store.
fn lock(root: &Path) -> Result<std::fs::File> {
    let path = root.join(LOCK);
    loop {
        let file = std::fs::File::options().create(true).append(true).open(&path).map_err(|e| {
            Error::new(ErrorKind::Unavailable, format!("cannot write to store \"{}\": {e}", root.display()))
                .with_hint("Choose another folder with --store, or make this one writable.")
        })?;
        if file.try_lock().is_err() {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("store \"{}\" is open in another process", root.display()),
            )
            .with_hint(
                "End that process, use another --store, or connect to its server with millstream shell --connect.",
            ));
        }
        // A process that leaves an empty store behind may have removed the file in between.
        if is_at(&file, &path) {
            return Ok(file);
        }
    }
}

/// Whether `path` still leads to `file`.
fn is_at(file: &std::fs::File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let id = |of: std::fs::Metadata| (of.dev(), of.ino());
        file.metadata().map(id).ok() == std::fs::metadata(path).map(id).ok()
    }
    #[cfg(not(unix))]
    {
        // an open file cannot be removed here
        let _ = (file, path);
        true
    }
}

/// What opening a store has made of it on the disk, so that a look into a store that is not there leaves none.
#[derive(Default)]
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
        let alone = lock.parent().and_then(|root| std::fs::read_dir(root).ok()).is_some_and(|all| all.count() == 1);
        if alone && std::fs::remove_file(lock).is_ok() {
            // a folder that is not empty stays
            let _ = self.folders.iter().try_for_each(std::fs::remove_dir);
        }
    }
}
