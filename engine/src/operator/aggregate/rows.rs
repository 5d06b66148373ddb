//! Any DataFusion aggregate over changing input: keeps the group's rows and computes it anew when read.
//!
//! Also what an aggregate uses whose result depends on order (`nth_value(… ORDER BY …)`): the kept rows
//! are sorted before they are fed.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, StructArray, UInt32Array, new_empty_array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{SortColumn, lexsort_to_indices, take};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Int64Type};
use arrow::row::{RowConverter, SortField};
use datafusion_common::ScalarValue;
use datafusion_physical_expr::aggregate::AggregateFunctionExpr;
use hashbrown::HashMap;

use super::boxed::value_or_failure;
use crate::error::{Error, Result};
use crate::expr::Failures;
use crate::state::accumulate::{Accumulate, Touch};

/// The rows of one group: how often each occurs, and when it first came.
type Multiset = HashMap<Box<[u8]>, (i64, u64), foldhash::fast::FixedState>;

pub(crate) struct KeptRows {
    function: Arc<AggregateFunctionExpr>,
    types: Vec<DataType>,
    converter: RowConverter,
    slots: Vec<Multiset>,
    arrivals: u64,
    bytes: usize,
}

impl KeptRows {
    /// `types` are those of the arguments followed by those of the `ORDER BY` expressions.
    pub(crate) fn new(function: Arc<AggregateFunctionExpr>, types: Vec<DataType>) -> Result<Self> {
        let fields = types.iter().map(|t| SortField::new(t.clone())).collect();
        let converter = RowConverter::new(fields)?;
        Ok(KeptRows { function, types, converter, slots: vec![], arrivals: 0, bytes: 0 })
    }

    /// The fields of its state: the rows, in order of arrival, and how often each occurs.
    pub(crate) fn state_types(types: &[DataType]) -> Vec<DataType> {
        vec![DataType::List(item(DataType::Struct(row_fields(types)))), DataType::List(item(DataType::Int64))]
    }

    fn add(&mut self, slot: usize, row: &[u8], weight: i64) {
        let rows = &mut self.slots[slot];
        self.arrivals += 1;
        if let Some((count, _)) = rows.get_mut(row) {
            *count += weight;
            if *count == 0 {
                rows.remove(row);
                self.bytes = self.bytes.saturating_sub(row.len() + 56);
            }
        } else {
            rows.insert(row.into(), (weight, self.arrivals));
            self.bytes += row.len() + 56;
        }
    }

    /// The rows of `slot` in order of arrival, with their counts.
    fn rows_of(&self, slot: usize) -> Vec<(&[u8], i64)> {
        let mut rows: Vec<_> = self.slots[slot].iter().map(|(row, (n, at))| (*at, &**row, *n)).collect();
        rows.sort_unstable_by_key(|r| r.0);
        rows.into_iter().map(|(_, row, n)| (row, n)).collect()
    }

    fn decode<'a>(&self, rows: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let parser = self.converter.parser();
        Ok(self.converter.convert_rows(rows.into_iter().map(|r| parser.parse(r)))?)
    }

    fn evaluate(&self, slot: usize, place: usize, failures: &mut Failures) -> Result<ScalarValue> {
        let rows = self.rows_of(slot);
        let repeated = rows.iter().flat_map(|(row, n)| std::iter::repeat_n(*row, (*n).max(0) as usize));
        let mut columns = self.decode(repeated)?;
        if columns.first().is_none_or(|c| c.is_empty()) {
            columns = self.types.iter().map(new_empty_array).collect();
        }
        let order_by = self.function.order_bys();
        if !order_by.is_empty() && !columns.is_empty() {
            let first = columns.len() - order_by.len();
            let keys: Vec<_> = columns[first..]
                .iter()
                .zip(order_by)
                .map(|(c, o)| SortColumn { values: c.clone(), options: Some(o.options) })
                .collect();
            let order: UInt32Array = lexsort_to_indices(&keys, None)?;
            columns = columns.iter().map(|c| take(c, &order, None)).collect::<Result<_, _>>()?;
        }
        let mut accumulator = self.function.create_accumulator()?;
        let value = accumulator.update_batch(&columns).and_then(|()| accumulator.evaluate());
        value_or_failure(&self.function, value, place, failures)
    }
}

fn item(data_type: DataType) -> FieldRef {
    Arc::new(Field::new("item", data_type, true))
}

fn row_fields(types: &[DataType]) -> Fields {
    types.iter().enumerate().map(|(i, t)| Field::new(format!("c{i}"), t.clone(), true)).collect()
}

impl Accumulate for KeptRows {
    fn grow(&mut self, slots: usize) {
        self.slots.resize_with(slots, Multiset::default);
    }

    fn update(&mut self, touch: &Touch<'_>, args: &[ArrayRef]) -> Result<()> {
        let rows = self.converter.convert_columns(args)?;
        let mut changes = Vec::with_capacity(touch.slots.len());
        touch.each(|row, slot, w| changes.push((row, slot, w)));
        for (row, slot, w) in changes {
            self.add(slot, rows.row(row).as_ref(), w);
        }
        Ok(())
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        let (lists, times) = (state[0].as_list::<i32>(), state[1].as_list::<i32>());
        for (i, slot) in slots.iter().enumerate() {
            let (rows, times) = (lists.value(i), times.value(i));
            let rows = self.converter.convert_columns(rows.as_struct().columns())?;
            for (row, w) in rows.iter().zip(times.as_primitive::<Int64Type>().values()) {
                self.add(*slot as usize, row.as_ref(), *w);
            }
        }
        Ok(())
    }

    fn values(&mut self, slots: &[u32], failures: &mut Failures) -> Result<Vec<ArrayRef>> {
        let value = |(place, slot): (usize, &u32)| self.evaluate(*slot as usize, place, failures);
        let values = slots.iter().enumerate().map(value).collect::<Result<Vec<_>>>()?;
        let array = ScalarValue::iter_to_array(values)?;
        let declared = self.function.field();
        if array.data_type() == declared.data_type() {
            Ok(vec![array])
        } else {
            Ok(vec![arrow::compute::cast(&array, declared.data_type())?])
        }
    }

    fn state(&mut self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let mut lengths = Vec::with_capacity(slots.len());
        let mut rows: Vec<&[u8]> = vec![];
        let mut times = vec![];
        for slot in slots {
            let of = self.rows_of(*slot as usize);
            lengths.push(of.len());
            for (row, n) in of {
                rows.push(row);
                times.push(n);
            }
        }
        let mut columns = self.decode(rows)?;
        if columns.is_empty() || columns[0].len() != times.len() {
            columns = self.types.iter().map(new_empty_array).collect();
        }
        let fields = row_fields(&self.types);
        let rows = StructArray::try_new(fields.clone(), columns, None)
            .map_err(|e| Error::internal("kept rows do not fit their types").with_source(e))?;
        let offsets = OffsetBuffer::<i32>::from_lengths(lengths);
        let rows = ListArray::try_new(item(DataType::Struct(fields)), offsets.clone(), Arc::new(rows), None)?;
        let times = ListArray::try_new(item(DataType::Int64), offsets, Arc::new(Int64Array::from(times)), None)?;
        Ok(vec![Arc::new(rows), Arc::new(times)])
    }

    fn clear(&mut self, slots: &[u32]) {
        for s in slots {
            let gone = std::mem::take(&mut self.slots[*s as usize]);
            let bytes: usize = gone.keys().map(|k| k.len() + 56).sum();
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    fn bytes(&self) -> usize {
        self.bytes + self.slots.capacity() * size_of::<Multiset>()
    }
}
