//! One aggregate over the slots of a group table.

use arrow::array::{ArrayRef, BooleanArray};
use arrow::buffer::BooleanBuffer;

use crate::error::Result;
use crate::expr::Failures;
use crate::state::runs::Run;

/// The rows of one update: for each its slot and weight, and which of them count.
#[derive(Clone, Copy, Default)]
pub struct Touch<'a> {
    /// The slot of each row.
    pub slots: &'a [u32],
    /// The weight of each row; all `+1` when absent.
    pub weights: Option<&'a [i64]>,
    /// The rows to take (`FILTER (WHERE …)`); all when absent.
    pub keep: Option<&'a BooleanBuffer>,
    /// The same for each of the calls that share the aggregate, where several do.
    pub filters: &'a [Option<BooleanBuffer>],
    /// The same rows as runs of one slot each, where they are known to be few; else none.
    pub runs: &'a [Run],
}

impl Touch<'_> {
    /// The rows as runs, where these are few and each row counts once.
    pub fn runs(&self) -> Option<&[Run]> {
        let all = self.weights.is_none() && self.keep.is_none();
        (all && !self.runs.is_empty()).then_some(self.runs)
    }

    /// Calls `f(row, slot, weight)` for each row that counts.
    #[inline]
    pub fn each(&self, mut f: impl FnMut(usize, usize, i64)) {
        match (self.weights, self.keep) {
            (None, None) => {
                for (row, slot) in self.slots.iter().enumerate() {
                    f(row, *slot as usize, 1);
                }
            }
            (Some(w), None) => {
                for (row, (slot, w)) in self.slots.iter().zip(w).enumerate() {
                    f(row, *slot as usize, *w);
                }
            }
            (None, Some(keep)) => {
                for row in keep.set_indices() {
                    f(row, self.slots[row] as usize, 1);
                }
            }
            (Some(w), Some(keep)) => {
                for row in keep.set_indices() {
                    f(row, self.slots[row] as usize, w[row]);
                }
            }
        }
    }

    /// The indices of the rows that count, or `None` when all do.
    pub fn kept(&self) -> Option<Vec<u32>> {
        self.keep.map(|k| k.set_indices().map(|i| i as u32).collect())
    }
}

/// The rows for which `mask` is true, null counting as false.
pub fn true_rows(mask: &BooleanArray) -> BooleanBuffer {
    match mask.nulls_buffer() {
        Some(nulls) => mask.values() & nulls.inner(),
        None => mask.values().clone(),
    }
}

trait NullsBuffer {
    fn nulls_buffer(&self) -> Option<&arrow::buffer::NullBuffer>;
}

impl NullsBuffer for BooleanArray {
    fn nulls_buffer(&self) -> Option<&arrow::buffer::NullBuffer> {
        arrow::array::Array::nulls(self)
    }
}

/// The state of one aggregate for all slots of a table. Reading takes nothing away.
pub trait Accumulate: Send {
    /// Makes room for `slots` slots.
    fn grow(&mut self, slots: usize);

    /// Takes memory for `slots` more slots at once, where it would be taken step by step.
    fn reserve(&mut self, _slots: usize) {}

    /// Takes in rows. `args` are the aggregate's arguments, as long as `touch.slots`.
    fn update(&mut self, touch: &Touch<'_>, args: &[ArrayRef]) -> Result<()>;

    /// Adds states that [`Accumulate::state`] gave, one per entry of `slots`.
    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()>;

    /// The aggregate's value for each of `slots`: a column for each of the calls it serves. Where there is none,
    /// because it does not fit its type or cannot be computed, `failures` says why, by place in `slots`.
    fn values(&mut self, slots: &[u32], failures: &mut Failures) -> Result<Vec<ArrayRef>>;

    /// The state of each of `slots`, as the columns of the aggregate's state fields.
    fn state(&mut self, slots: &[u32]) -> Result<Vec<ArrayRef>>;

    /// The state of each of `slots` for a checkpoint: all of it when `full`, else at least what has changed
    /// since the last call.
    fn snapshot(&mut self, slots: &[u32], _full: bool) -> Result<Vec<ArrayRef>> {
        self.state(slots)
    }

    /// Takes in what [`Accumulate::snapshot`] gave, later parts over earlier ones.
    fn restore(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        self.clear(slots);
        self.merge(slots, state)
    }

    /// Forgets what `slots` hold, as before their first row. Only [`Accumulate::restore`] calls it.
    fn clear(&mut self, _slots: &[u32]) {}

    /// Bytes held.
    fn bytes(&self) -> usize;
}
