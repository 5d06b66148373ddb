//! Chunks: immutable rows, as they are kept.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{concat, interleave};

use super::layout::Layout;
use crate::changes::array_bytes;
use crate::error::Result;
use crate::key::hash_rows;

/// Rows.
pub(super) struct Chunk {
    /// Their columns, as they are kept.
    pub(super) columns: Vec<ArrayRef>,
    rows: usize,
    /// What they take.
    pub(super) bytes: usize,
    /// The first and the last time at which they expire, where they do.
    times: Option<(i64, i64)>,
}

impl Chunk {
    pub(super) fn new(layout: &Layout, columns: Vec<ArrayRef>, rows: usize) -> Self {
        let times = layout.times(&columns).and_then(|times| times.range());
        let bytes = columns.iter().map(array_bytes).sum();
        Chunk { columns, rows, bytes, times }
    }

    /// The rows of several, one after the other.
    pub(super) fn joined(layout: &Layout, parts: &[Arc<Chunk>]) -> Result<Chunk> {
        let column = |at: usize| {
            let of: Vec<&dyn Array> = parts.iter().map(|part| part.columns[at].as_ref()).collect();
            concat(&of)
        };
        let columns = (0..layout.columns()).map(column).collect::<Result<Vec<_>, _>>()?;
        Ok(Chunk::new(layout, columns, parts.iter().map(|part| part.rows).sum()))
    }

    /// The number of rows.
    pub(super) fn len(&self) -> usize {
        self.rows
    }

    /// Some of them, without a copy.
    pub(super) fn slice(&self, layout: &Layout, from: usize, rows: usize) -> Chunk {
        Chunk::new(layout, self.columns.iter().map(|c| c.slice(from, rows)).collect(), rows)
    }

    /// What the rows are looked up by.
    pub(super) fn orders(&self, layout: &Layout) -> Result<Vec<u64>> {
        let key: Vec<ArrayRef> = layout.key.iter().map(|k| self.columns[*k].clone()).collect();
        orders(layout, &key, self.rows)
    }

    /// The rows as a snapshot has them.
    pub(super) fn snapshot(&self, layout: &Layout, weights: Option<&ScalarBuffer<i64>>) -> Result<RecordBatch> {
        let weights = weights.cloned().unwrap_or_else(|| vec![1; self.rows].into());
        let mut columns = self.columns.clone();
        columns.push(Arc::new(Int64Array::new(weights, None)));
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        Ok(RecordBatch::try_new_with_options(layout.snapshot_schema(), columns, &options)?)
    }

    /// About how many rows have expired when all before `bound` has.
    pub(super) fn expired(&self, bound: i64) -> usize {
        match self.times {
            None => self.rows,
            Some((_, last)) if last < bound => self.rows,
            Some((first, _)) if first >= bound => 0,
            Some((first, last)) => {
                let share = (bound as f64 - first as f64) / (last as f64 - first as f64 + 1.0);
                (self.rows as f64 * share) as usize
            }
        }
    }
}

/// What rows are looked up by whose keys are these, as they are kept.
pub(super) fn orders(layout: &Layout, key: &[ArrayRef], rows: usize) -> Result<Vec<u64>> {
    let key = layout.key.iter().zip(key).map(|(k, column)| layout.given_as(*k, column));
    let mut hashes = vec![];
    hash_rows(&key.collect::<Result<Vec<_>>>()?, rows, &mut hashes)?;
    hashes.iter_mut().for_each(|hash| *hash = order(*hash));
    Ok(hashes)
}

/// The hash of a key as it is looked up by: what says its key group comes first.
pub(super) fn order(hash: u64) -> u64 {
    hash.rotate_right(8)
}

/// The rows at `places` of `sources`, a column each.
pub(super) fn gather(layout: &Layout, sources: &[Arc<Chunk>], places: &[(usize, usize)]) -> Result<Chunk> {
    let columns = (0..layout.columns()).map(|column| gather_column(layout, sources, places, column));
    Ok(Chunk::new(layout, columns.collect::<Result<Vec<_>>>()?, places.len()))
}

/// One column of them.
pub(super) fn gather_column(
    layout: &Layout,
    sources: &[Arc<Chunk>],
    places: &[(usize, usize)],
    column: usize,
) -> Result<ArrayRef> {
    if places.is_empty() {
        return Ok(layout.none(column));
    }
    let arrays: Vec<&dyn Array> = sources.iter().map(|s| s.columns[column].as_ref()).collect();
    Ok(interleave(&arrays, places)?)
}
