//! What the sink of a stream notes in the manifest of a file that it has staged.

use serde::{Deserialize, Serialize};

use crate::connector::Staged;
use crate::error::Result;

/// The kind of a staged file.
const FILE: &str = "parquet";

/// The body of a staged file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct StagedFile {
    /// Its name among the stream's files.
    pub(super) name: String,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// The neighbours in the log whose rows it has; none for one that adds rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) replaces: Vec<String>,
    /// Of a base in their place: how many rows of the log it stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) upto: Option<u64>,
    /// When the last of its rows were written, in microseconds since 1970.
    #[serde(default)]
    pub(super) at: i64,
    /// Where an older build staged it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pending: Option<String>,
}

impl StagedFile {
    pub(super) fn staged(&self) -> Result<Staged> {
        Ok(Staged { kind: FILE.to_owned(), body: serde_json::to_value(self)? })
    }

    pub(super) fn of(staged: &Staged) -> Result<Self> {
        Ok(serde_json::from_value(staged.body.clone())?)
    }
}
