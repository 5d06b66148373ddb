//! The committed log of a stream: its files, and the last commits in memory for those that follow it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, watch};

use crate::changes::Changes;
use crate::store::{Store, folder_name};
use crate::time::EventTime;

/// Commits kept in memory, in bytes: followers that lag behind more read files.
const TAIL_BYTES: usize = 32 << 20;
/// Commits whose watermarks are remembered.
const MOST_BOUNDARIES: usize = 4096;

/// A committed file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name in the stream's folder.
    pub name: String,
    /// The number of its first row in the log.
    pub start: u64,
    /// Its rows.
    pub rows: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// What is committed, as a sink keeps it in the manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Committed {
    pub(super) files: Vec<FileEntry>,
    pub(super) rows: u64,
    pub(super) watermark: Option<EventTime>,
    pub(super) end: bool,
}

/// The committed content of a stream at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its files in log order.
    pub files: Vec<FileEntry>,
    /// Rows in all files.
    pub rows: u64,
    /// The watermark of the last commit.
    pub watermark: EventTime,
    /// Whether nothing more will come.
    pub end: bool,
}

/// The log of one stream.
#[derive(Debug)]
pub struct StreamLog {
    name: String,
    schema: SchemaRef,
    changelog: bool,
    store: Store,
    state: Mutex<State>,
    version: watch::Sender<u64>,
    /// Held for reading while a snapshot is read, for writing while a file is replaced by a longer one.
    files: Arc<RwLock<()>>,
}

#[derive(Debug, Default)]
struct State {
    committed: Committed,
    /// (first row, rows) of the batches in memory, the latest last.
    tail: VecDeque<(u64, Changes)>,
    tail_bytes: usize,
    /// What tasks staged for checkpoints that are not committed yet.
    staged: BTreeMap<(u64, usize), Vec<Changes>>,
    /// (end row, watermark) of the last commits.
    boundaries: VecDeque<(u64, EventTime)>,
}

impl StreamLog {
    /// The log of stream `name` with these columns; a `changelog` can take rows back.
    pub fn new(store: Store, name: impl Into<String>, schema: SchemaRef, changelog: bool) -> Arc<Self> {
        let (version, _) = watch::channel(0);
        Arc::new(StreamLog {
            name: name.into(),
            schema,
            changelog,
            store,
            state: Mutex::default(),
            version,
            files: Arc::default(),
        })
    }

    /// The stream's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The stream's columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Whether rows can be taken back.
    pub fn is_changelog(&self) -> bool {
        self.changelog
    }

    /// The store it lies in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Where `file` of the stream lies.
    pub fn path(&self, file: &str) -> String {
        format!("{}/{file}", self.folder())
    }

    /// The stream's folder.
    pub fn folder(&self) -> String {
        format!("streams/{}", folder_name(&self.name))
    }

    /// What is committed now.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.state.lock();
        let c = &state.committed;
        Snapshot { files: c.files.clone(), rows: c.rows, watermark: c.watermark.unwrap_or(EventTime::MIN), end: c.end }
    }

    /// Changes with each commit.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Keeps all files as they are until the guard is dropped.
    pub async fn hold_files(&self) -> OwnedRwLockReadGuard<()> {
        self.files.clone().read_owned().await
    }

    /// The right to replace a file, unless somebody reads.
    pub(super) fn try_replace(&self) -> Option<OwnedRwLockWriteGuard<()>> {
        self.files.clone().try_write_owned().ok()
    }

    pub(super) fn committed(&self) -> Committed {
        self.state.lock().committed.clone()
    }

    /// Sets what is committed, on start.
    pub(super) fn load(&self, committed: Committed) {
        let mut state = self.state.lock();
        let watermark = committed.watermark.unwrap_or(EventTime::MIN);
        *state = State { boundaries: [(committed.rows, watermark)].into(), committed, ..State::default() };
        drop(state);
        self.version.send_modify(|v| *v += 1);
    }

    /// Keeps what `task` staged for followers, until the checkpoint commits.
    pub(super) fn stage(&self, checkpoint: u64, task: usize, changes: Vec<Changes>) {
        self.state.lock().staged.insert((checkpoint, task), changes);
    }

    /// Commits: the log is now `committed`, which `checkpoint` has made of it.
    pub(super) fn commit(&self, checkpoint: u64, committed: Committed) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let mut at = state.committed.rows;
        let later = state.staged.split_off(&(checkpoint + 1, 0));
        let staged = std::mem::replace(&mut state.staged, later);
        let in_memory: usize =
            staged.iter().filter(|(k, _)| k.0 == checkpoint).flat_map(|(_, c)| c).map(Changes::num_rows).sum();
        if in_memory as u64 == committed.rows - at {
            for changes in staged.into_iter().filter(|(k, _)| k.0 == checkpoint).flat_map(|(_, c)| c) {
                let rows = changes.num_rows() as u64;
                state.tail_bytes += changes.bytes();
                state.tail.push_back((at, changes));
                at += rows;
            }
        } else {
            // Too much to keep: followers read the files.
            state.tail.clear();
            state.tail_bytes = 0;
        }
        while state.tail_bytes > TAIL_BYTES {
            let Some((_, old)) = state.tail.pop_front() else { break };
            state.tail_bytes -= old.bytes();
        }
        state.boundaries.push_back((committed.rows, committed.watermark.unwrap_or(EventTime::MIN)));
        while state.boundaries.len() > MOST_BOUNDARIES {
            state.boundaries.pop_front();
        }
        state.committed = committed;
        self.version.send_modify(|v| *v += 1);
    }

    /// The rows `[start, end)` if they are in memory.
    pub(super) fn tail(&self, start: u64, end: u64) -> Option<Vec<Changes>> {
        let state = self.state.lock();
        if state.tail.front()?.0 > start {
            return None;
        }
        let mut found = vec![];
        for (first, changes) in &state.tail {
            let (first, last) = (*first, *first + changes.num_rows() as u64);
            let (from, to) = (start.max(first), end.min(last));
            if from < to {
                found.push(changes.slice((from - first) as usize, (to - from) as usize));
            }
        }
        Some(found)
    }

    /// The watermark of the last commit that ends at or before row `at`, if it is remembered.
    pub(super) fn watermark_at(&self, at: u64) -> Option<EventTime> {
        let state = self.state.lock();
        let found = state.boundaries.iter().rev().find(|(end, _)| *end <= at);
        found.map(|(_, w)| *w).filter(|w| *w > EventTime::MIN)
    }

    /// The end of the first commit that ends after row `at`; of all of history, for what was committed
    /// before this process.
    pub(super) fn next_boundary(&self, at: u64) -> Option<u64> {
        self.state.lock().boundaries.iter().map(|(end, _)| *end).find(|end| *end > at)
    }
}
