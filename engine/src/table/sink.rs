//! The sink of stored and derived streams: writes a job's result into its stream's log.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::log::{Committed, FileEntry, StreamLog};
use super::parquet_file::{FileWriter, columns_of};
use crate::changelog::{consolidate, stored, stored_schema};
use crate::changes::Changes;
use crate::checkpoint::Manifest;
use crate::connector::{Commit, Sink, SinkWriter, Staged};
use crate::epoch::EpochMark;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Store, folder_name};
use arrow::datatypes::SchemaRef;
use tokio::sync::OwnedRwLockWriteGuard;

/// Rows kept for followers until the commit, in bytes by task; beyond, followers read the file.
const KEPT_BYTES: usize = 16 << 20;

/// A file that is smaller than this is made longer by the next checkpoint instead of leaving it alone…
const SMALL_BYTES: u64 = 2 << 20;
/// …and so is one that is less than this many times what the checkpoint adds, up to a limit.
const GROWTH: u64 = 16;
/// Files from this size on are left alone.
const LARGE_BYTES: u64 = 32 << 20;

/// The body of a staged file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct StagedFile {
    /// Its name in `pending`.
    pending: String,
    /// Its name in the stream's folder.
    name: String,
    rows: u64,
    bytes: u64,
    /// It takes the place of the log's last file, whose rows it begins with.
    extends: bool,
}

impl StagedFile {
    fn staged(&self) -> Result<Staged> {
        Ok(Staged { kind: "parquet".to_owned(), body: serde_json::to_value(self)? })
    }

    fn of(staged: &Staged) -> Result<Self> {
        Ok(serde_json::from_value(staged.body.clone())?)
    }
}

/// The columns of the files that `manifest`, the last of `job`, has committed of `stream`, with `_op` and `_epoch`
/// where it is a changelog; `None` where there are none.
pub async fn schema_of_files(store: &Store, stream: &str, job: &str, manifest: &Manifest) -> Result<Option<SchemaRef>> {
    let state = manifest.sinks.values().next().cloned();
    let Some(committed) = state.and_then(|s| serde_json::from_value::<Committed>(s).ok()) else { return Ok(None) };
    let folder = format!("streams/{}", folder_name(stream));
    let mut paths: Vec<String> = committed.files.iter().rev().map(|f| format!("{folder}/{}", f.name)).collect();
    // A crash may have kept the last ones from being moved.
    for staged in manifest.staged.values().flatten() {
        paths.extend(StagedFile::of(staged).ok().map(|f| format!("jobs/{job}/pending/{}", f.pending)));
    }
    for path in paths {
        match columns_of(store, &path).await {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            found => return found.map(Some),
        }
    }
    Ok(None)
}

/// See the module's text.
pub struct TableSink {
    log: Arc<StreamLog>,
    job: String,
    /// The columns that identify a row, for pairing updates.
    key: Option<Vec<usize>>,
    /// Held from the decision to replace a file until it is done or given up.
    replacing: parking_lot::Mutex<Option<OwnedRwLockWriteGuard<()>>>,
}

impl TableSink {
    /// Job `job` writes into `log`. `key` are the columns that identify a row, where known.
    pub fn new(log: Arc<StreamLog>, job: impl Into<String>, key: Option<Vec<usize>>) -> Self {
        TableSink { log, job: job.into(), key, replacing: parking_lot::Mutex::new(None) }
    }

    fn pending(&self, file: &str) -> String {
        format!("jobs/{}/pending/{file}", self.job)
    }

    fn after(&self, commit: &Commit<'_>) -> Result<Committed> {
        let mut committed = self.log.committed();
        for staged in commit.staged {
            let file = StagedFile::of(staged)?;
            let start = match committed.files.pop_if(|_| file.extends) {
                Some(before) => before.start,
                None => committed.rows,
            };
            committed.files.push(FileEntry { name: file.name, start, rows: file.rows, bytes: file.bytes });
            committed.rows = start + file.rows;
        }
        committed.watermark = Some(commit.watermark);
        committed.end = commit.end;
        Ok(committed)
    }

    async fn publish(&self, staged: &[Staged]) -> Result<()> {
        let store = self.log.store();
        for s in staged {
            let file = StagedFile::of(s)?;
            let path = self.log.path(&file.name);
            store.rename(&self.pending(&file.pending), &path).await?;
            // That the file is there does not say that it was moved: it may be the one that was to be replaced.
            let found = store.size(&path).await?;
            if found != file.bytes {
                return Err(Error::data(format!(
                    "file \"{}\" has {found} bytes, {} were committed",
                    store.locate(&path),
                    file.bytes
                )));
            }
        }
        Ok(())
    }
}

impl TableSink {
    /// One file of the log's last file, if it is small, and of all that was staged: the number of files
    /// stays low however often there is a checkpoint, and who reads the folder sees the old file or the
    /// new one, never both.
    async fn join(&self, checkpoint: u64, parts: &[StagedFile]) -> Result<Option<StagedFile>> {
        let (rows, bytes) = parts.iter().fold((0, 0), |(r, b), p| (r + p.rows, b + p.bytes));
        let last = self.log.committed().files.pop();
        let last = last.filter(|l| l.bytes < SMALL_BYTES.max(GROWTH * bytes).min(LARGE_BYTES));
        let guard = last.as_ref().and_then(|_| self.log.try_replace());
        let last = last.filter(|_| guard.is_some());
        if rows == 0 || (last.is_none() && (parts.len() < 2 || bytes > SMALL_BYTES)) {
            return Ok(None);
        }
        let mut file = FileWriter::new(&self.file_schema())?;
        if let Some(last) = &last {
            file.append_file(self.log.store(), &self.log.path(&last.name)).await?;
        }
        for part in parts {
            file.append_file(self.log.store(), &self.pending(&part.pending)).await?;
        }
        let (rows, bytes) = file.finish()?;
        let pending = format!("{checkpoint:010}-all.parquet");
        let size = bytes.len() as u64;
        self.log.store().put(&self.pending(&pending), bytes).await?;
        for part in parts {
            self.log.store().delete(&self.pending(&part.pending)).await?;
        }
        *self.replacing.lock() = guard;
        let extends = last.is_some();
        let name = last.map_or_else(|| format!("{checkpoint:010}.parquet"), |l| l.name);
        Ok(Some(StagedFile { pending, name, rows, bytes: size, extends }))
    }

    fn file_schema(&self) -> SchemaRef {
        let schema = self.log.schema();
        if self.log.is_changelog() { stored_schema(schema) } else { schema.clone() }
    }
}

#[async_trait]
impl Sink for TableSink {
    async fn start(&self, committed: &[Staged]) -> Result<()> {
        self.publish(committed).await?;
        self.log.store().delete_folder(self.pending("").trim_end_matches('/')).await
    }

    fn restore(&self, state: &serde_json::Value) -> Result<()> {
        self.log.load(serde_json::from_value(state.clone())?);
        Ok(())
    }

    async fn gather(&self, checkpoint: u64, staged: Vec<Staged>) -> Result<Vec<Staged>> {
        let parts = staged.iter().map(StagedFile::of).collect::<Result<Vec<_>>>()?;
        match self.join(checkpoint, &parts).await? {
            Some(all) => Ok(vec![all.staged()?]),
            None => Ok(staged),
        }
    }

    fn state_after(&self, commit: &Commit<'_>) -> serde_json::Value {
        // What was staged is plain data of this sink: it reads and writes.
        self.after(commit).ok().and_then(|c| serde_json::to_value(c).ok()).unwrap_or_default()
    }

    fn open(&self, task: usize) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(Writer {
            log: self.log.clone(),
            job: self.job.clone(),
            key: self.key.clone(),
            task,
            epoch: vec![],
            file: None,
            kept: vec![],
            kept_bytes: 0,
        }))
    }

    async fn commit(&self, commit: &Commit<'_>) -> Result<()> {
        self.publish(commit.staged).await?;
        self.log.commit(commit.checkpoint, self.after(commit)?);
        Ok(())
    }

    fn release(&self) {
        self.replacing.lock().take();
    }

    fn takes_retractions(&self) -> bool {
        self.log.is_changelog()
    }

    fn describe(&self) -> String {
        format!("parquet {}", self.log.store().locate(&self.log.folder()))
    }
}

struct Writer {
    log: Arc<StreamLog>,
    job: String,
    key: Option<Vec<usize>>,
    task: usize,
    /// The changes of the present epoch, for a changelog.
    epoch: Vec<Changes>,
    file: Option<FileWriter>,
    kept: Vec<Changes>,
    kept_bytes: usize,
}

impl Writer {
    fn append(&mut self, rows: &arrow::array::RecordBatch, changes: Changes) -> Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let schema = self.log.schema();
                let schema = if self.log.is_changelog() { stored_schema(schema) } else { schema.clone() };
                none.insert(FileWriter::new(&schema)?)
            }
        };
        file.write(rows)?;
        self.kept_bytes += changes.bytes();
        if self.kept_bytes <= KEPT_BYTES {
            self.kept.push(changes);
        } else {
            self.kept.clear();
        }
        Ok(())
    }
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, changes: Changes) -> Result<()> {
        if self.log.is_changelog() {
            self.epoch.push(changes);
            return Ok(());
        }
        if changes.weights().is_some() {
            return Err(Error::internal(format!(
                "stream \"{}\" only grows and was given a retraction",
                self.log.name()
            )));
        }
        self.append(changes.rows(), changes.clone())
    }

    async fn epoch(&mut self, mark: &EpochMark) -> Result<()> {
        let parts = std::mem::take(&mut self.epoch);
        if parts.is_empty() {
            return Ok(());
        }
        let (changes, ops) = consolidate(self.log.schema(), &parts, self.key.as_deref())?;
        if changes.is_empty() {
            return Ok(());
        }
        let rows = stored(changes.rows(), &ops, mark.epoch)?;
        self.append(&rows, changes)
    }

    async fn stage(&mut self, checkpoint: u64) -> Result<Vec<Staged>> {
        let kept = std::mem::take(&mut self.kept);
        self.kept_bytes = 0;
        let Some(file) = self.file.take() else { return Ok(vec![]) };
        self.log.stage(checkpoint, self.task, kept);
        let (rows, bytes) = file.finish()?;
        let name = format!("{checkpoint:010}-{:03}.parquet", self.task);
        let size = bytes.len() as u64;
        self.log.store().put(&format!("jobs/{}/pending/{name}", self.job), bytes).await?;
        let file = StagedFile { pending: name.clone(), name, rows, bytes: size, extends: false };
        Ok(vec![file.staged()?])
    }
}
