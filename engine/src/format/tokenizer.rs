//! Taking lines apart: what a format has to say of where its values stand.

use std::ops::Range;

use crate::error::Result;
use crate::format::spans::Span;

/// Finds the values in a line.
pub(crate) trait Tokenizer: Send {
    /// Called with the block at position 0: how many bytes to skip there (a byte order mark, a header).
    fn begin(&mut self, block: &[u8]) -> Result<usize>;

    /// Where the record that starts at `start` ends: the index of its newline, or the block's length.
    fn record_end(&self, block: &[u8], start: usize) -> usize {
        memchr::memchr(b'\n', &block[start..]).map_or(block.len(), |i| start + i)
    }

    /// The rows that `record`, which is not a line, has in it, in order; otherwise why it cannot be taken apart.
    fn parts(&self, _block: &[u8], record: Range<usize>, parts: &mut Vec<Range<usize>>) -> Result<(), String> {
        parts.push(record);
        Ok(())
    }

    /// Writes the spans of the record in `start..end` (without its line ending) to `row`, where all are
    /// null. False when the line is blank and says nothing; otherwise why it cannot be read.
    fn row(&mut self, block: &[u8], start: usize, end: usize, row: &mut [Span]) -> Result<bool, String>;
}
