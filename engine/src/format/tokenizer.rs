//! Taking lines apart: what a format has to say of where its values stand.

use std::ops::Range;

use arrow::array::ArrayRef;
use arrow::datatypes::FieldRef;

use crate::error::Result;
use crate::format::spans::{BadRows, Dialect, Span, Tokens};

/// The rows that were found in a block, before they have types: a span for each wanted column.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) spans: Vec<Span>,
    width: usize,
    rows: usize,
    /// The weight of each row; none where all arrive.
    pub(crate) weights: Vec<i64>,
}

impl Found {
    /// No rows, of so many columns.
    pub(crate) fn clear(&mut self, width: usize) {
        (self.width, self.rows) = (width, 0);
        self.spans.clear();
        self.weights.clear();
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    /// Adds a row in which all is null.
    #[inline]
    pub(crate) fn push(&mut self) -> &mut [Span] {
        let first = self.spans.len();
        self.spans.resize(first + self.width, Span::NULL);
        self.rows += 1;
        &mut self.spans[first..]
    }

    /// Adds `row` with a weight. Rows have one either all or none.
    pub(crate) fn push_weighted(&mut self, row: &[Span], weight: i64) {
        self.spans.extend_from_slice(row);
        self.weights.push(weight);
        self.rows += 1;
    }

    /// Keeps the first `rows`.
    pub(crate) fn truncate(&mut self, rows: usize) {
        self.rows = rows;
        self.spans.truncate(rows * self.width);
        self.weights.truncate(rows);
    }
}

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

    /// Adds the rows of which the record in `start..end` says something to `found`: mostly it is one. What was added
    /// counts only where it can be read.
    #[inline]
    fn rows(&mut self, block: &[u8], start: usize, end: usize, found: &mut Found) -> Result<(), String> {
        let before = found.len();
        if !self.row(block, start, end, found.push())? {
            found.truncate(before);
        }
        Ok(())
    }

    /// Whether a record without content is none, and not one that cannot be read.
    fn passes_over_empty(&self) -> bool {
        false
    }

    /// Whether what was found last is half of a change, of which the next record most likely tells the rest.
    fn is_half(&self) -> bool {
        false
    }

    /// Called before the rows of another block are found.
    fn forget(&mut self) {}

    /// Builds column `column` of what was found as `field`'s type, where its values are not written as `dialect` has it.
    fn column(
        &self,
        _field: &FieldRef,
        _dialect: &Dialect,
        _tokens: Tokens<'_>,
        _column: usize,
        _bad: &mut BadRows,
    ) -> Result<Option<ArrayRef>> {
        Ok(None)
    }
}
