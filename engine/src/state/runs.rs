//! Runs: rows of one key that come one behind the other, as those of one minute do where rows come in the order of time.
//!
//! Where there are few, a key is looked up once per run, and aggregates go through a run's values without looking for
//! the slot of each.

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::take;

use crate::error::Result;

/// Rows `start..end` of a batch, all of slot `slot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The slot.
    pub slot: u32,
    /// The first row.
    pub start: u32,
    /// The row behind the last.
    pub end: u32,
}

impl Run {
    /// How many rows it has.
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.end == self.start
    }
}

/// With fewer rows it does not matter.
const FEW_ROWS: usize = 64;
/// Rows that are looked at first.
const SAMPLE: usize = 256;
/// Runs of this many rows on average are worth it.
const WORTH: usize = 8;

/// The first row of each run of equal `keys`; `None` where there are too many runs, or where keys are not quickly compared.
pub(super) fn heads(keys: &[ArrayRef], rows: usize) -> Result<Option<UInt32Array>> {
    if rows < FEW_ROWS || !keys.iter().all(|k| k.data_type().is_primitive()) {
        return Ok(None);
    }
    let sample = rows.min(SAMPLE);
    if changes(keys, sample)?.count_set_bits() * WORTH > sample {
        return Ok(None);
    }
    let changes = changes(keys, rows)?;
    if changes.count_set_bits() * WORTH > rows {
        return Ok(None);
    }
    Ok(Some(std::iter::once(0).chain(changes.set_indices().map(|row| row as u32 + 1)).collect()))
}

/// For each of the first `rows` rows but the last, whether the next one has another key.
fn changes(keys: &[ArrayRef], rows: usize) -> Result<BooleanBuffer> {
    let mut all = BooleanBuffer::new_unset(rows - 1);
    for key in keys {
        let (one, next) = (key.slice(0, rows - 1), key.slice(1, rows - 1));
        all = &all | distinct(&one, &next)?.values();
    }
    Ok(all)
}

/// The keys of the rows at `heads`.
pub(super) fn keys_at(keys: &[ArrayRef], heads: &UInt32Array) -> Result<Vec<ArrayRef>> {
    Ok(keys.iter().map(|k| take(k, heads, None)).collect::<Result<_, _>>()?)
}

/// The runs that begin at `heads` with `slots`, of `rows` rows, and the slot of each row.
pub(super) fn spread(heads: &UInt32Array, slots: &mut Vec<u32>, rows: usize) -> Vec<Run> {
    let ends = heads.values().iter().skip(1).copied().chain([rows as u32]);
    let runs: Vec<Run> = heads
        .values()
        .iter()
        .zip(ends)
        .zip(&*slots)
        .map(|((start, end), slot)| Run { slot: *slot, start: *start, end })
        .collect();
    slots.clear();
    for run in &runs {
        slots.resize(run.end as usize, run.slot);
    }
    runs
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array, StringViewArray};

    use super::*;

    #[test]
    fn runs_are_found_where_they_are_few() {
        let key: ArrayRef = Arc::new((0..1000).map(|i| (i > 299).then_some(i / 300)).collect::<Int64Array>());
        let found = heads(std::slice::from_ref(&key), 1000).expect("compares").expect("few");
        assert_eq!(found.values().to_vec(), [0, 300, 600, 900]);
        let second: ArrayRef = Arc::new(Float64Array::from_iter_values((0..1000).map(|i| f64::from(i / 500))));
        let found = heads(&[key.clone(), second], 1000).expect("compares").expect("few");
        assert_eq!(found.values().to_vec(), [0, 300, 500, 600, 900]);
        let mut slots = vec![4, 2, 2, 0, 4];
        let runs = spread(&found, &mut slots, 1000);
        assert_eq!(runs[4], Run { slot: 4, start: 900, end: 1000 });
        assert_eq!(runs.iter().map(Run::len).sum::<usize>(), 1000);
        assert_eq!((slots.len(), slots[299], slots[300], slots[600], slots[999]), (1000, 4, 2, 0, 4));
        let many: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        assert_eq!(heads(&[many], 1000).expect("compares"), None);
        // The first rows do not tell.
        let late: ArrayRef = Arc::new(Int64Array::from_iter_values((0..1000).map(|i| if i < 300 { 0 } else { i })));
        assert_eq!(heads(&[late], 1000).expect("compares"), None);
        let text: ArrayRef = Arc::new(StringViewArray::from_iter_values(vec!["a"; 1000]));
        assert_eq!(heads(&[text], 1000).expect("is left alone"), None);
        assert_eq!(heads(&[key], 10).expect("is left alone"), None);
    }
}
