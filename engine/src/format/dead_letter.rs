//! Input that cannot be decoded.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A piece of input that could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The split.
    #[serde(with = "crate::plain::text")]
    pub split: Arc<str>,
    /// Where in the split, in its coordinate.
    pub position: u64,
    /// Which line of a text file (1-based), where known.
    pub line: Option<u64>,
    /// Why, in words.
    pub reason: String,
    /// The bytes as they were.
    #[serde(with = "crate::plain::bytes")]
    pub raw: Vec<u8>,
}
