//! What was last emitted of an aggregate, so that exactly that is taken back.
//!
//! Some of DataFusion's accumulators do not give the same value twice: those with a hash set inside give its
//! members in another order, or add floats in another order, after they went through their state. An old row
//! that is computed again would then not be the row that was emitted.

use arrow::array::{Array, ArrayRef, new_empty_array, new_null_array};
use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;

use crate::error::{Error, Result};
use crate::expr::{Failure, Failures};
use crate::state::accumulate::{Accumulate, Touch};

/// An aggregate of one call with the last value read of each slot. A value is computed anew only for slots
/// that got rows since; the values are part of the state.
pub(crate) struct Said {
    inner: Box<dyn Accumulate>,
    value: DataType,
    slots: Vec<Slot>,
    bytes: usize,
}

#[derive(Clone, Default)]
struct Slot {
    value: Option<ScalarValue>,
    /// Why there is no value, if so.
    failure: Option<Failure>,
    /// Rows came since `value` was read.
    stale: bool,
}

impl Said {
    /// For an aggregate whose values are of type `value`.
    pub(crate) fn new(inner: Box<dyn Accumulate>, value: DataType) -> Self {
        Said { inner, value, slots: vec![], bytes: 0 }
    }

    fn set(&mut self, slot: u32, value: ScalarValue) {
        let place = &mut self.slots[slot as usize];
        self.bytes += value.size();
        if let Some(old) = place.value.replace(value) {
            self.bytes = self.bytes.saturating_sub(old.size());
        }
        (place.failure, place.stale) = (None, false);
    }

    fn soil(&mut self, slots: &[u32]) {
        for slot in slots {
            self.slots[*slot as usize].stale = true;
        }
    }

    /// The values of `slots`, null where none was read.
    fn column(&self, slots: &[u32]) -> Result<ArrayRef> {
        if slots.is_empty() {
            return Ok(new_empty_array(&self.value));
        }
        let null = ScalarValue::try_from(&self.value)?;
        let values = slots.iter().map(|s| self.slots[*s as usize].value.clone().unwrap_or_else(|| null.clone()));
        let values = ScalarValue::iter_to_array(values)?;
        if values.data_type() == &self.value {
            return Ok(values);
        }
        Ok(arrow::compute::cast(&values, &self.value)?)
    }
}

/// The columns of the inner state, and the value.
fn parts(state: &[ArrayRef]) -> Result<(&[ArrayRef], &ArrayRef)> {
    let (value, inner) = state.split_last().ok_or_else(|| Error::internal("a state without columns"))?;
    Ok((inner, value))
}

impl Accumulate for Said {
    fn grow(&mut self, slots: usize) {
        self.inner.grow(slots);
        self.slots.resize(slots, Slot::default());
    }

    fn update(&mut self, touch: &Touch<'_>, args: &[ArrayRef]) -> Result<()> {
        self.soil(touch.slots);
        self.inner.update(touch, args)
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        self.soil(slots);
        self.inner.merge(slots, parts(state)?.0)
    }

    fn values(&mut self, slots: &[u32], failures: &mut Failures) -> Result<Vec<ArrayRef>> {
        let unread = |s: &Slot| s.stale || s.value.is_none();
        let anew: Vec<u32> = slots.iter().copied().filter(|s| unread(&self.slots[*s as usize])).collect();
        if !anew.is_empty() {
            let mut failed = Failures::default();
            let columns = self.inner.values(&anew, &mut failed)?;
            let [values] = &columns[..] else { return Err(Error::internal("an aggregate of several calls")) };
            for (i, slot) in anew.iter().enumerate() {
                self.set(*slot, ScalarValue::try_from_array(values, i)?);
            }
            for (i, failure) in failed.iter() {
                self.slots[anew[i as usize] as usize].failure = Some(failure.clone());
            }
        }
        for (place, slot) in slots.iter().enumerate() {
            if let Some(failure) = &self.slots[*slot as usize].failure {
                failures.push(place as u32, failure.clone());
            }
        }
        Ok(vec![self.column(slots)?])
    }

    fn state(&mut self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let mut columns = self.inner.state(slots)?;
        columns.push(new_null_array(&self.value, slots.len()));
        Ok(columns)
    }

    fn snapshot(&mut self, slots: &[u32], full: bool) -> Result<Vec<ArrayRef>> {
        let mut columns = self.inner.snapshot(slots, full)?;
        columns.push(self.column(slots)?);
        Ok(columns)
    }

    fn restore(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        let (inner, values) = parts(state)?;
        self.inner.restore(slots, inner)?;
        for (i, slot) in slots.iter().enumerate() {
            self.set(*slot, ScalarValue::try_from_array(values, i)?);
            // A null may stand for a value that did not fit: it is computed anew.
            self.slots[*slot as usize].stale = values.is_null(i);
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.inner.bytes() + self.bytes + self.slots.capacity() * size_of::<Slot>()
    }
}
