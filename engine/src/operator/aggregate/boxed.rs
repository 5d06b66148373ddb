//! Any DataFusion aggregate, for input that only grows: one of its accumulators per slot.
//!
//! A batch is sorted by slot once, so that only the slots it touches are called, each with a slice.

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StructArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::DataType;
use datafusion_common::{DataFusionError, ScalarValue};
use datafusion_expr::Accumulator;
use datafusion_physical_expr::aggregate::AggregateFunctionExpr;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::expr::{Failure, Failures};
use crate::state::accumulate::{Accumulate, Touch};

pub(crate) struct Boxed {
    function: Arc<AggregateFunctionExpr>,
    slots: Vec<Option<Box<dyn Accumulator>>>,
    bytes: usize,
}

impl Boxed {
    pub(crate) fn new(function: Arc<AggregateFunctionExpr>) -> Self {
        Boxed { function, slots: vec![], bytes: 0 }
    }

    fn slot(&mut self, slot: u32) -> Result<&mut Box<dyn Accumulator>> {
        let place = &mut self.slots[slot as usize];
        if place.is_none() {
            *place = Some(self.function.create_accumulator()?);
        }
        place.as_mut().ok_or_else(|| Error::internal("an accumulator that was just made"))
    }

    /// Calls `f` for each touched slot with its rows of `columns`.
    fn by_slot(
        &mut self,
        slots: &[u32],
        rows: Option<Vec<u32>>,
        columns: &[ArrayRef],
        f: impl Fn(&mut dyn Accumulator, &[ArrayRef]) -> Result<()>,
    ) -> Result<()> {
        let mut order = rows.unwrap_or_else(|| (0..slots.len() as u32).collect());
        order.sort_by_key(|r| slots[*r as usize]);
        let indices = UInt32Array::from(order.clone());
        let columns = columns.iter().map(|c| take(c, &indices, None)).collect::<Result<Vec<_>, _>>()?;
        let mut start = 0;
        for run in order.chunk_by(|a, b| slots[*a as usize] == slots[*b as usize]) {
            let slice: Vec<_> = columns.iter().map(|c| own(c.slice(start, run.len()))).collect::<Result<_>>()?;
            start += run.len();
            let accumulator = self.slot(slots[run[0] as usize])?;
            let before = accumulator.size();
            f(accumulator.as_mut(), &slice)?;
            let after = accumulator.size();
            self.bytes = (self.bytes + after).saturating_sub(before);
        }
        Ok(())
    }
}

/// A nested array that keeps no more alive than its own rows: a value that an accumulator remembers is a slice of what it was given.
fn own(array: ArrayRef) -> Result<ArrayRef> {
    if !array.data_type().is_nested() {
        return Ok(array);
    }
    let all = UInt32Array::from_iter_values(0..array.len() as u32);
    Ok(without_rest(&take(&array, &all, None)?))
}

/// Row `i` of `array` as a value that keeps no other row alive.
pub(super) fn own_value(array: &ArrayRef, i: usize) -> Result<ScalarValue> {
    if !array.data_type().is_nested() {
        return Ok(ScalarValue::try_from_array(array, i)?);
    }
    Ok(ScalarValue::try_from_array(&own(array.slice(i, 1))?, 0)?)
}

/// `array`, which begins at its first row, without bytes of text that belong to other rows.
fn without_rest(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Utf8View => Arc::new(array.as_string_view().gc()),
        DataType::BinaryView => Arc::new(array.as_binary_view().gc()),
        DataType::Struct(fields) => {
            let all = array.as_struct();
            let columns = all.columns().iter().map(without_rest).collect();
            StructArray::try_new(fields.clone(), columns, all.nulls().cloned())
                .map_or_else(|_| array.clone(), |a| Arc::new(a) as ArrayRef)
        }
        DataType::List(field) => {
            let list = array.as_list::<i32>();
            let (offsets, values) = (list.offsets().clone(), without_rest(list.values()));
            ListArray::try_new(field.clone(), offsets, values, list.nulls().cloned())
                .map_or_else(|_| array.clone(), |a| Arc::new(a) as ArrayRef)
        }
        _ => array.clone(),
    }
}

/// The value that an accumulator gave; one that it could not give is the failure of the slot at `place`.
pub(super) fn value_or_failure(
    function: &AggregateFunctionExpr,
    value: datafusion_common::Result<ScalarValue>,
    place: usize,
    failures: &mut Failures,
) -> Result<ScalarValue> {
    match value {
        Ok(value) => Ok(value),
        Err(e) if is_of_data(&e) => {
            let text = e.find_root().strip_backtrace();
            // Ours name the call.
            let named = text.starts_with(&format!("{}(", function.fun().name()));
            let (expression, reason) =
                text.split_once(": ").filter(|_| named).unwrap_or((function.name(), text.as_str()));
            failures.push(place as u32, Failure { expression: expression.into(), reason: reason.into() });
            Ok(ScalarValue::try_from(function.field().data_type())?)
        }
        Err(e) => Err(e.into()),
    }
}

/// Whether an error is the data's fault.
fn is_of_data(e: &DataFusionError) -> bool {
    use DataFusionError::{Internal, NotImplemented, ResourcesExhausted};
    !matches!(e.find_root(), Internal(_) | NotImplemented(_) | ResourcesExhausted(_))
}

impl Accumulate for Boxed {
    fn grow(&mut self, slots: usize) {
        self.slots.resize_with(slots, || None);
    }

    fn update(&mut self, touch: &Touch<'_>, args: &[ArrayRef]) -> Result<()> {
        self.by_slot(touch.slots, touch.kept(), args, |a, slice| Ok(a.update_batch(slice)?))
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        self.by_slot(slots, None, state, |a, slice| Ok(a.merge_batch(slice)?))
    }

    fn values(&mut self, slots: &[u32], failures: &mut Failures) -> Result<Vec<ArrayRef>> {
        let mut values = Vec::with_capacity(slots.len());
        for (place, slot) in slots.iter().enumerate() {
            let value = self.slot(*slot)?.evaluate();
            values.push(value_or_failure(&self.function, value, place, failures)?);
        }
        let values = ScalarValue::iter_to_array(values)?;
        // An accumulator may answer in a narrower form of its declared type (a null without a type).
        let declared = self.function.field();
        if values.data_type() == declared.data_type() {
            Ok(vec![values])
        } else {
            Ok(vec![arrow::compute::cast(&values, declared.data_type())?])
        }
    }

    fn state(&mut self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let fields = self.function.state_fields()?;
        let mut columns: Vec<Vec<ScalarValue>> = fields.iter().map(|_| Vec::with_capacity(slots.len())).collect();
        for slot in slots {
            // Taking the state consumes the accumulator: a new one is made from what it gave.
            let state = self.slot(*slot)?.state()?;
            let arrays = state.iter().map(|v| v.to_array()).collect::<Result<Vec<_>, _>>()?;
            let mut again = self.function.create_accumulator()?;
            again.merge_batch(&arrays)?;
            let after = again.size();
            let before = self.slots[*slot as usize].replace(again).map_or(0, |a| a.size());
            self.bytes = (self.bytes + after).saturating_sub(before);
            for (column, value) in columns.iter_mut().zip(state) {
                column.push(value);
            }
        }
        let array = |(values, field): (Vec<ScalarValue>, &arrow::datatypes::FieldRef)| -> Result<ArrayRef> {
            if values.is_empty() {
                return Ok(arrow::array::new_empty_array(field.data_type()));
            }
            let array = ScalarValue::iter_to_array(values)?;
            if array.data_type() == field.data_type() {
                return Ok(array);
            }
            Ok(arrow::compute::cast(&array, field.data_type())?)
        };
        columns.into_iter().zip(&fields).map(array).collect()
    }

    fn clear(&mut self, slots: &[u32]) {
        for s in slots {
            let gone = self.slots[*s as usize].take().map_or(0, |a| a.size());
            self.bytes = self.bytes.saturating_sub(gone);
        }
    }

    fn bytes(&self) -> usize {
        self.bytes + self.slots.capacity() * 16
    }
}
