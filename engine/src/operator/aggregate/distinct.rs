//! `count(DISTINCT x)`, possibly several over the same `x` with a filter each.
//!
//! One index holds the distinct (slot, value) pairs with how often each occurs, so rows can be taken
//! back; the counts by slot are kept up to date and reading them costs nothing.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, UInt32Array, new_empty_array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, UInt32Type};

use crate::error::Result;
use crate::expr::Failures;
use crate::state::accumulate::{Accumulate, Touch};
use crate::state::key_index::KeyIndex;

pub(crate) struct CountDistinct {
    item: DataType,
    pairs: KeyIndex,
    /// How often each pair occurs.
    occurrences: Vec<i64>,
    /// The pairs of each slot, in order of arrival, for the state; those that no longer occur included.
    counts: Vec<i64>,
    scratch: Vec<u32>,
}

impl CountDistinct {
    pub(crate) fn new(item: DataType) -> Result<Self> {
        let fields = vec![Field::new("slot", DataType::UInt32, false), Field::new("value", item.clone(), false)];
        let pairs = KeyIndex::new(&Schema::new(fields))?;
        Ok(CountDistinct { item, pairs, occurrences: vec![], counts: vec![], scratch: vec![] })
    }

    /// The fields of its state: the values and how often each occurs.
    pub(crate) fn state_types(item: &DataType) -> Vec<DataType> {
        vec![DataType::List(list_field(item.clone())), DataType::List(list_field(DataType::Int64))]
    }

    fn add(&mut self, slots: ArrayRef, values: ArrayRef, weight: impl Fn(usize) -> i64) -> Result<()> {
        let mut pairs = std::mem::take(&mut self.scratch);
        self.pairs.intern(&[slots.clone(), values], slots.len(), &mut pairs)?;
        self.occurrences.resize(self.pairs.len(), 0);
        let slots = slots.as_primitive::<UInt32Type>().values();
        for (row, pair) in pairs.iter().enumerate() {
            let have = &mut self.occurrences[*pair as usize];
            let before = *have;
            *have += weight(row);
            self.counts[slots[row] as usize] += i64::from(*have > 0) - i64::from(before > 0);
        }
        self.scratch = pairs;
        Ok(())
    }
}

fn list_field(item: DataType) -> FieldRef {
    Arc::new(Field::new("item", item, true))
}

impl Accumulate for CountDistinct {
    fn grow(&mut self, slots: usize) {
        self.counts.resize(slots, 0);
    }

    fn update(&mut self, touch: &Touch<'_>, args: &[ArrayRef]) -> Result<()> {
        let value = &args[0];
        let all = touch.keep.is_none() && value.logical_null_count() == 0;
        if all {
            let slots = Arc::new(UInt32Array::from(touch.slots.to_vec()));
            return match touch.weights {
                None => self.add(slots, value.clone(), |_| 1),
                Some(w) => self.add(slots, value.clone(), |row| w[row]),
            };
        }
        let nulls = value.logical_nulls();
        let mut rows: Vec<u32> = Vec::with_capacity(touch.slots.len());
        touch.each(|row, _, _| {
            if nulls.as_ref().is_none_or(|n| n.is_valid(row)) {
                rows.push(row as u32);
            }
        });
        let slots = Arc::new(UInt32Array::from_iter_values(rows.iter().map(|r| touch.slots[*r as usize])));
        let weights: Option<Vec<i64>> = touch.weights.map(|w| rows.iter().map(|r| w[*r as usize]).collect());
        let values = take(value, &UInt32Array::from(rows), None)?;
        self.add(slots, values, |row| weights.as_ref().map_or(1, |w| w[row]))
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        let (values, times) = (state[0].as_list::<i32>(), state[1].as_list::<i32>());
        let mut rows: Vec<u32> = Vec::with_capacity(values.values().len());
        for (i, slot) in slots.iter().enumerate() {
            rows.extend(std::iter::repeat_n(*slot, values.value_length(i) as usize));
        }
        // Lists lie one behind the other from the first offset on.
        let start = values.value_offsets().first().copied().unwrap_or(0) as usize;
        let n = rows.len();
        let at = times.value_offsets().first().copied().unwrap_or(0) as usize;
        let times = times.values().slice(at, n);
        let times = times.as_primitive::<Int64Type>().clone();
        self.add(Arc::new(UInt32Array::from(rows)), values.values().slice(start, n), |row| times.value(row))
    }

    fn values(&mut self, slots: &[u32], _failures: &mut Failures) -> Result<Vec<ArrayRef>> {
        Ok(vec![Arc::new(Int64Array::from_iter_values(slots.iter().map(|s| self.counts[*s as usize])))])
    }

    fn state(&mut self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        if self.pairs.is_empty() {
            let empty = OffsetBuffer::from_repeated_length(0, slots.len());
            let values =
                ListArray::try_new(list_field(self.item.clone()), empty.clone(), new_empty_array(&self.item), None)?;
            let times = Int64Array::from(Vec::<i64>::new());
            let times = ListArray::try_new(list_field(DataType::Int64), empty, Arc::new(times), None)?;
            return Ok(vec![Arc::new(values), Arc::new(times)]);
        }
        // A counting sort of the live pairs by the place of their slot in `slots`.
        let mut place = vec![u32::MAX; self.counts.len()];
        for (i, s) in slots.iter().enumerate() {
            place[*s as usize] = i as u32;
        }
        let all: Vec<u32> = (0..self.pairs.len() as u32).collect();
        let mut columns = self.pairs.gather(&all)?;
        let (values, owners) = (columns.swap_remove(1), columns.swap_remove(0));
        let owners = owners.as_primitive::<UInt32Type>().values();
        let mut lengths = vec![0usize; slots.len()];
        let live = |pair: usize| self.occurrences[pair] != 0 && place[owners[pair] as usize] != u32::MAX;
        for pair in (0..owners.len()).filter(|p| live(*p)) {
            lengths[place[owners[pair] as usize] as usize] += 1;
        }
        let offsets = OffsetBuffer::<i32>::from_lengths(lengths);
        let mut next: Vec<usize> = offsets.iter().map(|o| *o as usize).collect();
        let mut order = vec![0u32; offsets.last().copied().unwrap_or(0) as usize];
        for pair in (0..owners.len()).filter(|p| live(*p)) {
            let at = &mut next[place[owners[pair] as usize] as usize];
            order[*at] = pair as u32;
            *at += 1;
        }
        let times = Int64Array::from_iter_values(order.iter().map(|p| self.occurrences[*p as usize]));
        let values = take(&values, &UInt32Array::from(order), None)?;
        let values = ListArray::try_new(list_field(self.item.clone()), offsets.clone(), values, None)?;
        let times = ListArray::try_new(list_field(DataType::Int64), offsets, Arc::new(times), None)?;
        Ok(vec![Arc::new(values), Arc::new(times)])
    }

    fn clear(&mut self, slots: &[u32]) {
        let mut gone = vec![false; self.counts.len()];
        for s in slots {
            self.counts[*s as usize] = 0;
            gone[*s as usize] = true;
        }
        let all: Vec<u32> = (0..self.pairs.len() as u32).collect();
        if let Ok(columns) = self.pairs.gather(&all) {
            for (pair, slot) in columns[0].as_primitive::<UInt32Type>().values().iter().enumerate() {
                if gone[*slot as usize] {
                    self.occurrences[pair] = 0;
                }
            }
        }
    }

    fn bytes(&self) -> usize {
        self.pairs.bytes() + (self.occurrences.capacity() + self.counts.capacity()) * 8
    }
}
