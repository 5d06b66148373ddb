//! What a manifest knows of dead letters.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
