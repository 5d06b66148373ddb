//! The sink of stored and derived streams: writes a job's result into its stream's log.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::log::{Committed, FileEntry, StreamLog};
use super::parquet_file::FileWriter;
use crate::changelog::{consolidate, stored, stored_schema};
use crate::changes::Changes;
use crate::connector::{Commit, Sink, SinkWriter, Staged};
use crate::epoch::EpochMark;
use crate::error::{Error, Result};

/// Rows kept for followers until the commit, in bytes by task; beyond, followers read the file.
const KEPT_BYTES: usize = 16 << 20;

/// The body of a staged file.
#[derive(Debug, Serialize, Deserialize)]
struct StagedFile {
    name: String,
    rows: u64,
    bytes: u64,
}

/// See the module's text.
pub struct TableSink {
    log: Arc<StreamLog>,
    job: String,
    /// The columns that identify a row, for pairing updates.
    key: Option<Vec<usize>>,
}

impl TableSink {
    /// Job `job` writes into `log`. `key` are the columns that identify a row, where known.
    pub fn new(log: Arc<StreamLog>, job: impl Into<String>, key: Option<Vec<usize>>) -> Self {
        TableSink { log, job: job.into(), key }
    }

    fn pending(&self, file: &str) -> String {
        format!("jobs/{}/pending/{file}", self.job)
    }

    fn after(&self, commit: &Commit<'_>) -> Result<Committed> {
        let mut committed = self.log.committed();
        for staged in commit.staged {
            let file: StagedFile = serde_json::from_value(staged.body.clone())?;
            committed.files.push(FileEntry {
                name: file.name,
                start: committed.rows,
                rows: file.rows,
                bytes: file.bytes,
            });
            committed.rows += file.rows;
        }
        committed.watermark = Some(commit.watermark);
        committed.end = commit.end;
        Ok(committed)
    }

    async fn publish(&self, staged: &[Staged]) -> Result<()> {
        for s in staged {
            let file: StagedFile = serde_json::from_value(s.body.clone())?;
            self.log.store().rename(&self.pending(&file.name), &self.log.path(&file.name)).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Sink for TableSink {
    async fn start(&self, committed: &[Staged]) -> Result<()> {
        self.publish(committed).await?;
        self.log.store().delete_folder(&self.pending("").trim_end_matches('/').to_owned()).await
    }

    fn restore(&self, state: &serde_json::Value) -> Result<()> {
        self.log.load(serde_json::from_value(state.clone())?);
        Ok(())
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
            return Err(Error::internal(format!("stream \"{}\" only grows and was given a retraction", self.log.name())));
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
        let body = serde_json::to_value(StagedFile { name, rows, bytes: size })?;
        Ok(vec![Staged { kind: "parquet".to_owned(), body }])
    }
}
