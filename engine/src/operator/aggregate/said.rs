//! What was last emitted of an aggregate, so that exactly that is taken back.
//!
//! Some of DataFusion's accumulators do not give the same value twice: those with a hash set inside give its
//! members in another order, or add floats in another order, after they went through their state. An old row
//! that is computed again would then not be the row that was emitted.

use arrow::array::{Array, ArrayRef, new_empty_array, new_null_array};
use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;

use super::boxed::own_value;
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
                self.set(*slot, own_value(values, i)?);
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
            self.set(*slot, own_value(values, i)?);
            // A null may stand for a value that did not fit: it is computed anew.
            self.slots[*slot as usize].stale = values.is_null(i);
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.inner.bytes() + self.bytes + self.slots.capacity() * size_of::<Slot>()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{StringViewArray, StructArray};
    use arrow::datatypes::{Field, Fields, Schema};
    use datafusion_functions_aggregate::first_last::last_value_udaf;
    use datafusion_physical_expr::aggregate::AggregateExprBuilder;
    use datafusion_physical_expr::expressions::Column;

    use super::*;
    use crate::operator::aggregate::boxed::Boxed;

    #[test]
    fn what_was_said_of_one_group_keeps_nothing_of_others() {
        let fields = Fields::from(vec![Field::new("text", DataType::Utf8View, true)]);
        let nested = DataType::Struct(fields.clone());
        let schema = Arc::new(Schema::new(vec![Field::new("s", nested.clone(), true)]));
        let builder = AggregateExprBuilder::new(last_value_udaf(), vec![Arc::new(Column::new("s", 0))]);
        let function = Arc::new(builder.schema(schema).alias("l").build().expect("an aggregate"));
        let mut said = Said::new(Box::new(Boxed::new(function)), nested);
        let slots: Vec<u32> = (0..50).collect();
        said.grow(slots.len());
        let mut bytes = vec![];
        for epoch in 0..12 {
            let texts = StringViewArray::from_iter_values(slots.iter().map(|s| format!("{epoch} {s} and more text")));
            let rows: ArrayRef = Arc::new(StructArray::new(fields.clone(), vec![Arc::new(texts)], None));
            let touch = Touch { slots: &slots, ..Touch::default() };
            said.update(&touch, std::slice::from_ref(&rows)).expect("taken in");
            let values = said.values(&slots, &mut Failures::default()).expect("values");
            assert_eq!(values[0].len(), 50);
            bytes.push(said.bytes());
        }
        assert!(bytes[11] < bytes[1] * 2, "{bytes:?}");
        assert!(bytes[11] < 50 * 2_000, "{bytes:?}");
    }
}
