//! What is committed of a log: its files, and how far they go.

use serde::{Deserialize, Serialize};

use crate::time::EventTime;

/// A committed file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name among the stream's files. What it holds never changes.
    pub name: String,
    /// The number of its first row in the log.
    pub start: u64,
    /// Its rows.
    pub rows: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Of a base in the place of history: how many rows of the log, the first ones, it stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upto: Option<u64>,
    /// The last epoch of the commit that ends with it; `None` where a commit goes on in the next file, and for what older
    /// builds have committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// When the last of its rows were written, in microseconds since 1970.
    #[serde(default)]
    pub at: i64,
}

impl FileEntry {
    /// The number of the log's first row behind it.
    pub fn end(&self) -> u64 {
        self.upto.unwrap_or(self.start + self.rows)
    }
}

/// What is committed, as a sink keeps it in the manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Committed {
    pub(super) files: Vec<FileEntry>,
    pub(super) rows: u64,
    pub(super) watermark: Option<EventTime>,
    pub(super) end: bool,
    /// The checkpoint and the last epoch in it; 0 where an older build committed it.
    #[serde(default)]
    pub(super) checkpoint: u64,
    #[serde(default)]
    pub(super) epoch: u64,
}
