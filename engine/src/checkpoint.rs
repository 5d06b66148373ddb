//! Checkpoints: the manifest, whose creation is the one commit of a job's state, offsets and results.
//!
//! ```text
//! jobs/<id>/checkpoints/00000000000000000042.json     the manifest, create-if-absent
//! jobs/<id>/state/42-<task>-<n>.arrow                 the states it names
//! jobs/<id>/dead_letters/42.parquet                   rows put aside
//! ```
//! What a manifest does not name does not exist: files of a checkpoint that was never committed are
//! removed at the next start. Two processes that both believe to own a job race for the same number, and
//! the one that loses is fenced.

use std::collections::BTreeMap;
use std::io::Cursor;

use arrow::array::RecordBatch;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::connector::Staged;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::Progress;
use crate::state::StatePart;
use crate::store::Store;
use crate::time::EventTime;

/// The format of manifests: version 3 has wider states than 2, 4 result files in another place, and 5 bases in the place
/// of history, which builds of then would misread.
const VERSION: u32 = 5;
/// The oldest that can be read.
const OLDEST: u32 = 2;
/// How many manifests are kept besides the last.
const KEPT: u64 = 2;

/// What a checkpoint consists of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    version: u32,
    /// Its number: 1, 2, 3….
    pub checkpoint: u64,
    /// The last epoch in it.
    pub epoch: u64,
    /// The watermark at its end.
    pub watermark: EventTime,
    /// Whether the input has ended and the result is complete.
    pub end: bool,
    /// What was read, by source.
    pub sources: Vec<Progress>,
    /// What the sources know besides, by their place among the graph's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub source_states: BTreeMap<usize, serde_json::Value>,
    /// State files in the order in which they are restored.
    pub states: Vec<StateFile>,
    /// What this checkpoint's sinks staged, by their place among the graph's sinks.
    pub staged: BTreeMap<usize, Vec<Staged>>,
    /// The sinks' own state after it, by place.
    pub sinks: BTreeMap<usize, serde_json::Value>,
    /// Files of rows put aside that are kept, oldest first.
    pub dead_letters: Vec<String>,
    /// What is known of them.
    #[serde(default)]
    pub dead: DeadLetterLog,
    /// Rows read so far, by source; empty where an older build did not count them.
    #[serde(default)]
    pub rows: Vec<u64>,
    /// Rows written so far, by sink; empty likewise.
    #[serde(default)]
    pub rows_out: Vec<u64>,
    /// Rows dropped as late so far.
    pub late: u64,
}

/// What every manifest has.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// The dead letters of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterLog {
    /// The files by path; those that an older build wrote are not among them.
    pub files: BTreeMap<String, DeadLetterFile>,
    /// Rows that were counted only.
    pub beyond: u64,
    /// Files that are not named any more, to be removed at the next commit.
    pub retired: Vec<String>,
}

/// A file of dead letters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterFile {
    /// Its rows.
    pub rows: u64,
    /// When the last of them was put aside, in microseconds since 1970.
    pub newest: i64,
}

impl DeadLetterLog {
    /// The rows in all files.
    pub fn rows(&self) -> u64 {
        self.files.values().map(|f| f.rows).sum()
    }
}

/// A file of state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFile {
    /// The state's name.
    pub name: String,
    /// The task that wrote it.
    pub task: usize,
    /// Where it lies.
    pub path: String,
}

impl Manifest {
    /// Before the first checkpoint.
    pub fn start(sources: usize) -> Self {
        Manifest {
            version: VERSION,
            checkpoint: 0,
            epoch: 0,
            watermark: EventTime::MIN,
            end: false,
            sources: vec![Progress::default(); sources],
            source_states: BTreeMap::new(),
            states: vec![],
            staged: BTreeMap::new(),
            sinks: BTreeMap::new(),
            dead_letters: vec![],
            dead: DeadLetterLog::default(),
            rows: vec![0; sources],
            rows_out: vec![],
            late: 0,
        }
    }
}

/// The checkpoints of one job.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    store: Store,
    folder: String,
}

impl Checkpoints {
    /// Of job `id` in `store`.
    pub fn new(store: Store, id: &str) -> Self {
        Checkpoints { store, folder: format!("jobs/{id}") }
    }

    fn path(&self, checkpoint: u64) -> String {
        format!("{}/checkpoints/{checkpoint:020}.json", self.folder)
    }

    /// The last committed manifest.
    pub async fn last(&self) -> Result<Option<Manifest>> {
        let names = self.store.list(&format!("{}/checkpoints", self.folder)).await?;
        let Some(name) = names.iter().rfind(|n| n.ends_with(".json")) else { return Ok(None) };
        let path = format!("{}/checkpoints/{name}", self.folder);
        let bytes = self.store.get(&path).await?;
        let damaged = |e| Error::from(e).context(format!("manifest \"{}\"", self.store.locate(&path)));
        // First, since what another version has is not known.
        let Version { version } = serde_json::from_slice(&bytes).map_err(damaged)?;
        if !(OLDEST..=VERSION).contains(&version) {
            let path = self.store.locate(&path);
            let message = format!("manifest \"{path}\" has format {version}, this build reads {OLDEST} to {VERSION}");
            return Err(Error::unsupported(message).with_hint("Open the store with the build that wrote it."));
        }
        let read: Manifest = serde_json::from_slice(&bytes).map_err(damaged)?;
        // What follows from it is written as this build writes.
        Ok(Some(Manifest { version: VERSION, ..read }))
    }

    /// Writes the states of a checkpoint and gives the files.
    pub async fn put_states(&self, checkpoint: u64, task: usize, parts: &[StatePart]) -> Result<Vec<StateFile>> {
        let mut files = Vec::with_capacity(parts.len());
        for part in parts {
            let slug: String = part.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
            let path = format!("{}/state/{checkpoint}-{slug}-{task}.arrow", self.folder);
            self.store.put(&path, encode(&part.rows)?).await?;
            files.push(StateFile { name: part.name.clone(), task, path });
        }
        Ok(files)
    }

    /// Reads a state file.
    pub async fn get_state(&self, file: &StateFile) -> Result<StatePart> {
        let bytes = self.store.get(&file.path).await?;
        let rows = decode(bytes).map_err(|e| e.context(format!("state \"{}\"", self.store.locate(&file.path))))?;
        Ok(StatePart { name: file.name.clone(), full: false, rows })
    }

    /// Writes rows put aside and gives the file.
    pub async fn put_dead_letters(&self, checkpoint: u64, bytes: Bytes) -> Result<String> {
        let path = format!("{}/dead_letters/{checkpoint}.parquet", self.folder);
        self.store.put(&path, bytes).await?;
        Ok(path)
    }

    /// Reads a file of the job.
    pub async fn read(&self, path: &str) -> Result<Bytes> {
        self.store.get(path).await
    }

    /// Removes a file of the job that no manifest names.
    pub async fn remove(&self, path: &str) -> Result<()> {
        self.store.delete(path).await
    }

    /// Commits `manifest`: from here on it is the truth.
    ///
    /// Errors with `Fenced` when another process has committed this number.
    pub async fn commit(&self, manifest: &Manifest) -> Result<()> {
        let bytes = Bytes::from(serde_json::to_vec(manifest)?);
        match self.store.create(&self.path(manifest.checkpoint), bytes).await {
            Err(e) if e.kind() == ErrorKind::Exists => Err(Error::new(
                ErrorKind::Fenced,
                format!("another process has committed checkpoint {} of {}", manifest.checkpoint, self.folder),
            )
            .with_hint("Run one process per store.")),
            other => other,
        }
    }

    /// Removes manifests that are no longer needed and state files that the last ones do not name.
    pub async fn tidy(&self, last: &Manifest, before: &[StateFile]) -> Result<()> {
        if last.checkpoint > KEPT {
            self.store.delete(&self.path(last.checkpoint - KEPT - 1)).await?;
        }
        for file in before.iter().filter(|f| !last.states.contains(f)) {
            self.store.delete(&file.path).await?;
        }
        Ok(())
    }

    /// Removes the files of checkpoints that were never committed.
    pub async fn sweep(&self, last: Option<&Manifest>) -> Result<()> {
        let named = |path: &str| last.is_some_and(|m| m.states.iter().any(|f| f.path == path));
        let dead = |path: &str| last.is_some_and(|m| m.dead_letters.iter().any(|f| f == path));
        for folder in ["state", "dead_letters"] {
            let folder = format!("{}/{folder}", self.folder);
            for name in self.store.list(&folder).await? {
                let path = format!("{folder}/{name}");
                if !named(&path) && !dead(&path) {
                    self.store.delete(&path).await?;
                }
            }
        }
        Ok(())
    }

    /// Removes everything of the job.
    pub async fn delete(&self) -> Result<()> {
        self.store.delete_folder(&self.folder).await
    }
}

fn encode(rows: &RecordBatch) -> Result<Bytes> {
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let mut writer = FileWriter::try_new_with_options(vec![], &rows.schema(), options)?;
    writer.write(rows)?;
    Ok(Bytes::from(writer.into_inner()?))
}

fn decode(bytes: Bytes) -> Result<RecordBatch> {
    let reader = FileReader::try_new(Cursor::new(bytes), None)?;
    let schema = reader.schema();
    let batches = reader.collect::<Result<Vec<_>, _>>()?;
    Ok(arrow::compute::concat_batches(&schema, &batches)?)
}
