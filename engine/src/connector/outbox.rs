//! Rows on their way to somebody who cannot take them back: they leave when their checkpoint is committed, and again
//! after a crash.
//!
//! A writer packs bytes, in memory while they are few. A checkpoint makes a file of them, a [`Parcel`], which its manifest
//! notes. Once that is written the parcel may be sent; one that has been sent is taken out. So those that are there at a
//! start and were committed have not been sent for certain, and those that were not committed go.
//!
//! Where the store is a bucket a parcel is sealed when its object is there. It is sent from a file on this machine all the same; a start
//! fetches those that an earlier process has left.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::Staged;
use super::lag::Lag;
use crate::error::{Error, Result};
use crate::store::{Fetched, Store};
use crate::token::token;

/// What the manifest calls a parcel.
const KIND: &str = "parcel";
/// What is kept in memory before it goes to the file.
const HELD_BYTES: usize = 1 << 20;

/// What a task has written between two checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parcel {
    name: String,
    /// Its bytes.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
}

impl Parcel {
    /// The checkpoint that it was sealed for, and in which run of the job: a word that no other run has, whatever copy of the
    /// store it begins with.
    pub fn sealed_for(&self) -> (u64, &str) {
        let mut words = self.name.splitn(4, '-').skip(1);
        let checkpoint = words.next().and_then(|n| n.parse().ok()).unwrap_or_default();
        (checkpoint, words.nth(1).unwrap_or_default())
    }

    /// It as something staged.
    pub fn staged(&self) -> Result<Staged> {
        Ok(Staged { kind: KIND.to_owned(), body: serde_json::to_value(self)? })
    }

    /// What `parcels` hold that were not sent.
    pub fn lag<'a>(parcels: impl IntoIterator<Item = &'a Parcel>) -> Lag {
        let sum = parcels.into_iter().fold((0, 0), |(rows, bytes), p| (rows + p.rows, bytes + p.bytes));
        Lag { rows: Some(sum.0), bytes: Some(sum.1), ..Lag::default() }
    }

    /// Those among what was staged.
    pub fn among(staged: &[Staged]) -> Result<Vec<Parcel>> {
        let read = |s: &Staged| Ok(serde_json::from_value(s.body.clone())?);
        staged.iter().filter(|s| s.kind == KIND).map(read).collect()
    }
}

/// Where a sink keeps what must outlast the process: a folder, and where that does not, objects of a store besides.
#[derive(Clone, Debug)]
pub struct SinkPlace {
    folder: PathBuf,
    objects: Option<(Store, String)>,
}

impl SinkPlace {
    /// `folder` is on this machine, and what is in it goes with the process. `below` is the way to what stays in `store`.
    pub(crate) fn in_bucket(folder: PathBuf, store: Store, below: String) -> Self {
        SinkPlace { folder, objects: Some((store, below)) }
    }

    /// The names of the parcels that outlast the process.
    async fn names(&self) -> Result<Vec<String>> {
        if let Some((store, below)) = &self.objects {
            return store.list(below).await;
        }
        let folder = self.folder.clone();
        let names = move || {
            let entries = fs::read_dir(&folder).map_err(|e| failed(&folder, e))?;
            let name = |entry: io::Result<fs::DirEntry>| {
                entry.map(|e| e.file_name().to_string_lossy().into_owned()).map_err(|e| failed(&folder, e))
            };
            entries.map(name).collect()
        };
        blocking(names).await
    }

    /// Puts what another process has left as an object into the folder, unless it is there.
    async fn fetch(&self, name: &str) -> Result<()> {
        let (Some((store, below)), path) = (&self.objects, self.folder.join(name)) else { return Ok(()) };
        if tokio::fs::try_exists(&path).await.map_err(|e| failed(&path, e))? {
            return Ok(());
        }
        let fetched = store.fetch(&format!("{below}/{name}")).await?;
        blocking(move || {
            let written = match fetched {
                Fetched::Bytes(bytes) => fs::write(&path, bytes),
                Fetched::File(mut file) => {
                    file.rewind().and_then(|()| io::copy(&mut file, &mut File::create(&path)?)).map(drop)
                }
            };
            written.map_err(|e| failed(&path, e))
        })
        .await
    }

    async fn remove(&self, name: &str) -> Result<()> {
        let path = self.folder.join(name);
        blocking(move || match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(&path, e)),
            _ => Ok(()),
        })
        .await?;
        match &self.objects {
            Some((store, below)) => store.delete(&format!("{below}/{name}")).await,
            None => Ok(()),
        }
    }
}

impl From<PathBuf> for SinkPlace {
    fn from(folder: PathBuf) -> Self {
        SinkPlace { folder, objects: None }
    }
}

/// A place of parcels.
#[derive(Debug)]
pub struct Outbox {
    place: SinkPlace,
    generation: u64,
    /// What tells this run from others.
    run: String,
}

impl Outbox {
    /// The outbox in `place`, of a job's start number `generation`. Gives those of `committed` that are still there,
    /// in order; what earlier starts have left besides goes.
    pub async fn open(
        place: impl Into<SinkPlace>,
        generation: u64,
        committed: Vec<Parcel>,
    ) -> Result<(Arc<Self>, Vec<Parcel>)> {
        let outbox = Outbox { place: place.into(), generation, run: token()? };
        let folder = outbox.place.folder.clone();
        blocking(move || fs::create_dir_all(&folder).map_err(|e| failed(&folder, e))).await?;
        let names = outbox.place.names().await?;
        for name in &names {
            let of = name.strip_prefix('g').and_then(|n| n.split('-').next()?.parse::<u64>().ok());
            let kept = committed.iter().any(|parcel| parcel.name == *name);
            if !kept && of.is_some_and(|of| of < generation) {
                outbox.place.remove(name).await?;
            }
        }
        let there: Vec<Parcel> = committed.into_iter().filter(|parcel| names.contains(&parcel.name)).collect();
        for parcel in &there {
            outbox.place.fetch(&parcel.name).await?;
        }
        Ok((Arc::new(outbox), there))
    }

    /// The file of `parcel`.
    pub fn path(&self, parcel: &Parcel) -> PathBuf {
        self.place.folder.join(&parcel.name)
    }

    /// `parcel` has been sent. May be said twice.
    pub async fn take_out(&self, parcel: &Parcel) -> Result<()> {
        self.place.remove(&parcel.name).await
    }
}

/// What one task packs for the next checkpoint.
pub struct Packing {
    outbox: Arc<Outbox>,
    task: usize,
    held: Vec<u8>,
    file: Option<File>,
    /// All bytes and rows, those in the file among them.
    bytes: u64,
    rows: u64,
}

impl Packing {
    /// For `task`.
    pub fn new(outbox: Arc<Outbox>, task: usize) -> Self {
        Packing { outbox, task, held: vec![], file: None, bytes: 0, rows: 0 }
    }

    /// Packs what `write` appends, which is `rows` rows.
    pub fn add(&mut self, rows: usize, write: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
        let before = self.held.len();
        write(&mut self.held)?;
        self.bytes += (self.held.len() - before) as u64;
        self.rows += rows as u64;
        Ok(())
    }

    /// Bytes in memory.
    pub fn held(&self) -> usize {
        self.held.capacity()
    }

    /// All bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Puts what is in memory into the file if that is much.
    pub async fn ease(&mut self) -> Result<()> {
        if self.held.len() > HELD_BYTES { self.spill().await } else { Ok(()) }
    }

    /// Puts what is in memory into the file.
    pub async fn spill(&mut self) -> Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let (held, file, path) = (std::mem::take(&mut self.held), self.file.take(), self.open_path());
        let write = move || {
            let mut file = match file {
                Some(file) => file,
                None => {
                    let mut options = OpenOptions::new();
                    options.write(true).create(true).truncate(true).open(&path).map_err(|e| failed(&path, e))?
                }
            };
            file.write_all(&held).map_err(|e| failed(&path, e))?;
            Ok(file)
        };
        self.file = Some(blocking(write).await?);
        Ok(())
    }

    /// Makes a durable parcel for `checkpoint` of all that was packed; none of nothing.
    pub async fn seal(&mut self, checkpoint: u64) -> Result<Option<Parcel>> {
        self.spill().await?;
        let Some(file) = self.file.take() else { return Ok(None) };
        let Outbox { generation, run, .. } = &*self.outbox;
        let name = format!("g{generation}-{checkpoint}-{}-{run}", self.task);
        let parcel = Parcel { name, bytes: std::mem::take(&mut self.bytes), rows: std::mem::take(&mut self.rows) };
        let (from, to, folder) = (self.open_path(), self.outbox.path(&parcel), self.outbox.place.folder.clone());
        let seal = move || {
            file.sync_all().map_err(|e| failed(&from, e))?;
            fs::rename(&from, &to).map_err(|e| failed(&to, e))?;
            File::open(&folder).and_then(|folder| folder.sync_all()).map_err(|e| failed(&folder, e))
        };
        blocking(seal).await?;
        if let Some((store, below)) = &self.outbox.place.objects {
            let path = self.outbox.path(&parcel);
            let file = blocking(move || File::open(&path).map_err(|e| failed(&path, e))).await?;
            store.put_draft(&format!("{below}/{}", parcel.name), file).await?;
        }
        Ok(Some(parcel))
    }

    fn open_path(&self) -> PathBuf {
        self.outbox.place.folder.join(format!("g{}-open-{}", self.outbox.generation, self.task))
    }
}

fn failed(path: &Path, e: io::Error) -> Error {
    Error::from(e).context(format!("file \"{}\"", path.display()))
}

async fn blocking<T: Send + 'static>(run: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let ended = |e| Error::internal(format!("a writing thread ended early: {e}")).with_source(e);
    spawn_blocking(run).await.map_err(ended)?
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn packed(outbox: &Arc<Outbox>, checkpoint: u64, text: &str) -> Parcel {
        let mut packing = Packing::new(outbox.clone(), 0);
        for line in text.lines() {
            let write = |out: &mut Vec<u8>| {
                out.extend_from_slice(line.as_bytes());
                Ok(())
            };
            packing.add(1, write).expect("packs");
            packing.spill().await.expect("a disk");
        }
        packing.seal(checkpoint).await.expect("a disk").expect("something was packed")
    }

    fn content(outbox: &Outbox, parcel: &Parcel) -> Option<String> {
        fs::read_to_string(outbox.path(parcel)).ok()
    }

    #[tokio::test]
    async fn what_was_committed_and_not_sent_is_there_after_a_crash() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().join("sinks/0");
        let (outbox, none) = Outbox::open(at.clone(), 1, vec![]).await.expect("opens");
        assert!(none.is_empty());
        let parcels = [packed(&outbox, 1, "a\nb").await, packed(&outbox, 2, "c").await, packed(&outbox, 3, "d").await];
        assert_eq!((parcels[0].rows, parcels[0].bytes), (2, 2));
        assert_eq!(parcels[2].sealed_for(), (3, outbox.run.as_str()));
        assert_eq!(
            Parcel { name: "g1-7-0".to_owned(), bytes: 1, rows: 1 }.sealed_for(),
            (7, ""),
            "of an earlier build"
        );
        outbox.take_out(&parcels[0]).await.expect("was there");
        outbox.take_out(&parcels[0]).await.expect("twice does nothing");
        // The third was never committed.
        let staged: Vec<Staged> = parcels[..2].iter().map(|p| p.staged().expect("is plain")).collect();
        let committed = Parcel::among(&staged).expect("reads back");
        let (outbox, there) = Outbox::open(at.clone(), 2, committed).await.expect("opens");
        assert_eq!(there, parcels[1..2]);
        assert_eq!(content(&outbox, &parcels[1]).as_deref(), Some("c"));
        assert_eq!(content(&outbox, &parcels[2]), None);
        // What a later start has staged is none of an earlier one's business.
        let later = packed(&outbox, 4, "e").await;
        Outbox::open(at, 1, vec![]).await.expect("opens");
        assert_eq!(content(&outbox, &later).as_deref(), Some("e"));
    }

    #[tokio::test]
    async fn nothing_makes_no_parcel() {
        let folder = tempfile::tempdir().expect("a folder");
        let (outbox, _) = Outbox::open(folder.path().to_owned(), 1, vec![]).await.expect("opens");
        let mut packing = Packing::new(outbox.clone(), 0);
        assert_eq!(packing.seal(1).await.expect("a disk"), None);
        let write = |out: &mut Vec<u8>| {
            out.resize(HELD_BYTES + 1, b'x');
            Ok(())
        };
        packing.add(1, write).expect("packs");
        packing.ease().await.expect("a disk");
        assert_eq!((packing.held(), packing.bytes()), (0, HELD_BYTES as u64 + 1));
        let parcel = packing.seal(2).await.expect("a disk").expect("something");
        assert_eq!((packing.bytes(), parcel.bytes), (0, HELD_BYTES as u64 + 1));
    }
}
