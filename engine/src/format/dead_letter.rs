//! Input that cannot be decoded.

use std::sync::Arc;

/// A piece of input that could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The split.
    pub split: Arc<str>,
    /// Where in the split, in its coordinate.
    pub position: u64,
    /// Which line of a text file (1-based), where known.
    pub line: Option<u64>,
    /// Why, in words.
    pub reason: String,
    /// The bytes as they were.
    pub raw: Vec<u8>,
}
