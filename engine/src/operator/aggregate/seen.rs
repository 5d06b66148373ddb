//! `count(DISTINCT x)` over input that only grows, for any number of filters over one `x`.
//!
//! A value need not be counted, only remembered: one table holds each (slot, value) pair with a bit per
//! filter, so that a row costs one look-up however many counts share the argument. A checkpoint writes
//! the pairs that got a bit since the last one.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, Int64Array, ListArray, UInt32Array, downcast_primitive,
    new_empty_array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, UInt32Type};
use hashbrown::HashTable;

use crate::error::{Error, Result};
use crate::expr::Failures;
use crate::key::mix;
use crate::state::accumulate::{Accumulate, Touch};
use crate::state::key_index::KeyIndex;

/// Filters that one table may serve: a bit each.
pub(crate) const MOST_FILTERS: usize = 32;

/// One pair with the filters it has passed.
#[derive(Clone, Copy)]
struct Pair {
    value: i64,
    slot: u32,
    bits: u32,
}

/// The pairs: inline for values of up to 8 bytes, else by an index.
enum Pairs {
    Inline(HashTable<Pair>),
    Indexed { index: KeyIndex, bits: Vec<u32>, scratch: Vec<u32> },
}

pub(crate) struct Seen {
    /// The type of the values in states: `Int64` for inline ones.
    stored: DataType,
    filters: usize,
    pairs: Pairs,
    /// By filter, the number of values of each slot.
    counts: Vec<Vec<i64>>,
    /// Inline pairs that got a bit since the last snapshot.
    fresh: Vec<Pair>,
    /// The same for indexed ones.
    fresh_indexed: Vec<u32>,
}

fn is_inline(t: &DataType) -> bool {
    let time = t.is_temporal() && !matches!(t, DataType::Interval(_));
    (t.is_integer() && *t != DataType::UInt64) || (time && t.primitive_width().is_some_and(|w| w <= 8))
}

fn stored_type(t: &DataType) -> DataType {
    if is_inline(t) { DataType::Int64 } else { t.clone() }
}

fn list_field(item: DataType) -> FieldRef {
    Arc::new(Field::new("item", item, true))
}

fn hash(slot: u32, value: i64) -> u64 {
    mix(value as u64 ^ u64::from(slot).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

impl Seen {
    /// For values of `item` and so many filters.
    pub(crate) fn new(item: &DataType, filters: usize) -> Result<Self> {
        let pairs = if is_inline(item) {
            Pairs::Inline(HashTable::new())
        } else {
            let fields = vec![Field::new("slot", DataType::UInt32, false), Field::new("value", item.clone(), false)];
            Pairs::Indexed { index: KeyIndex::new(&Schema::new(fields))?, bits: vec![], scratch: vec![] }
        };
        let counts = vec![vec![]; filters];
        Ok(Seen { stored: stored_type(item), filters, pairs, counts, fresh: vec![], fresh_indexed: vec![] })
    }

    /// The types of its state: the values, and the filters each has passed.
    pub(crate) fn state_types(item: &DataType) -> Vec<DataType> {
        vec![DataType::List(list_field(stored_type(item))), DataType::List(list_field(DataType::UInt32))]
    }

    fn add_inline(&mut self, rows: impl Iterator<Item = (u32, i64, u32)>) -> Result<()> {
        use hashbrown::hash_table::Entry;
        let Pairs::Inline(table) = &mut self.pairs else { return Err(Error::internal("pairs of another form")) };
        for (slot, value, bits) in rows {
            let same = |p: &Pair| p.value == value && p.slot == slot;
            let before = match table.entry(hash(slot, value), same, |p| hash(p.slot, p.value)) {
                Entry::Occupied(mut e) => {
                    let pair = e.get_mut();
                    let before = pair.bits;
                    pair.bits |= bits;
                    before
                }
                Entry::Vacant(e) => {
                    e.insert(Pair { value, slot, bits });
                    0
                }
            };
            let new = bits & !before;
            if new != 0 {
                count(&mut self.counts, slot, new);
                self.fresh.push(Pair { value, slot, bits: before | bits });
            }
        }
        Ok(())
    }

    fn add_indexed(&mut self, slots: ArrayRef, values: ArrayRef, bits: impl Fn(usize) -> u32) -> Result<()> {
        let Pairs::Indexed { index, bits: have, scratch } = &mut self.pairs else {
            return Err(Error::internal("pairs of another form"));
        };
        index.intern(&[slots.clone(), values], slots.len(), scratch)?;
        have.resize(index.len(), 0);
        let slots = slots.as_primitive::<UInt32Type>().values();
        for (row, pair) in scratch.iter().enumerate() {
            let have = &mut have[*pair as usize];
            let new = bits(row) & !*have;
            if new != 0 {
                *have |= new;
                count(&mut self.counts, slots[row], new);
                self.fresh_indexed.push(*pair);
            }
        }
        Ok(())
    }

    fn lists(&self, slots: &[u32], only_fresh: bool) -> Result<Vec<ArrayRef>> {
        let mut place = vec![u32::MAX; self.counts[0].len()];
        for (i, s) in slots.iter().enumerate() {
            place[*s as usize] = i as u32;
        }
        match &self.pairs {
            Pairs::Inline(_) if only_fresh => lists_of(
                slots.len(),
                &place,
                || self.fresh.iter().copied(),
                |values| Arc::new(Int64Array::from(values)),
            ),
            Pairs::Inline(table) => {
                lists_of(slots.len(), &place, || table.iter().copied(), |values| Arc::new(Int64Array::from(values)))
            }
            Pairs::Indexed { index, bits, .. } => {
                let ids: Vec<u32> =
                    if only_fresh { self.fresh_indexed.clone() } else { (0..index.len() as u32).collect() };
                if ids.is_empty() {
                    return lists_of(slots.len(), &place, std::iter::empty, |_| new_empty_array(&self.stored));
                }
                let mut columns = index.gather(&ids)?;
                let (values, owners) = (columns.swap_remove(1), columns.swap_remove(0));
                let owners = owners.as_primitive::<UInt32Type>();
                let pairs = || {
                    ids.iter().enumerate().map(|(at, id)| Pair {
                        value: at as i64,
                        slot: owners.value(at),
                        bits: bits[*id as usize],
                    })
                };
                let mut failed = None;
                let lists = lists_of(slots.len(), &place, pairs, |at| {
                    let at = UInt32Array::from_iter_values(at.into_iter().map(|v| v as u32));
                    take(&values, &at, None).unwrap_or_else(|e| {
                        failed = Some(e);
                        new_empty_array(&self.stored)
                    })
                });
                match failed {
                    Some(e) => Err(e.into()),
                    None => lists,
                }
            }
        }
    }
}

fn count(counts: &mut [Vec<i64>], slot: u32, mut bits: u32) {
    while bits != 0 {
        counts[bits.trailing_zeros() as usize][slot as usize] += 1;
        bits &= bits - 1;
    }
}

/// A list of values and one of bits for each of `n` places; a counting sort of the pairs by place.
fn lists_of<I: Iterator<Item = Pair>>(
    n: usize,
    place: &[u32],
    pairs: impl Fn() -> I,
    values: impl FnOnce(Vec<i64>) -> ArrayRef,
) -> Result<Vec<ArrayRef>> {
    let mut lengths = vec![0usize; n];
    let at = |p: &Pair| place[p.slot as usize];
    for p in pairs().filter(|p| at(p) != u32::MAX) {
        lengths[at(&p) as usize] += 1;
    }
    let offsets = OffsetBuffer::<i32>::from_lengths(lengths);
    let mut next: Vec<usize> = offsets.iter().map(|o| *o as usize).collect();
    let total = offsets.last().copied().unwrap_or(0) as usize;
    let (mut found, mut bits) = (vec![0i64; total], vec![0u32; total]);
    for p in pairs().filter(|p| at(p) != u32::MAX) {
        let next = &mut next[at(&p) as usize];
        (found[*next], bits[*next]) = (p.value, p.bits);
        *next += 1;
    }
    let values = values(found);
    let item = values.data_type().clone();
    let values = ListArray::try_new(list_field(item), offsets.clone(), values, None)?;
    let bits = ListArray::try_new(list_field(DataType::UInt32), offsets, Arc::new(UInt32Array::from(bits)), None)?;
    Ok(vec![Arc::new(values), Arc::new(bits)])
}

/// Values of up to 8 bytes as integers.
fn raw(values: &ArrayRef) -> Result<Int64Array> {
    fn widen<T: ArrowPrimitiveType>(values: &ArrayRef) -> Result<Int64Array>
    where
        T::Native: arrow::datatypes::ArrowNativeType,
    {
        use arrow::datatypes::ArrowNativeType;
        let a = values.as_primitive::<T>();
        Ok(a.unary(|v: T::Native| v.to_isize().map_or(0, |v| v as i64)))
    }
    if let DataType::Int64 = values.data_type() {
        return Ok(values.as_primitive::<Int64Type>().clone());
    }
    macro_rules! widened {
        ($t:ty, $v:expr) => {
            return widen::<$t>($v)
        };
    }
    downcast_primitive! {
        values.data_type() => (widened, values),
        other => Err(Error::internal(format!("{other} has no integer form"))),
    }
}

/// The filters each row has passed: bit `i` for filter `i`.
fn bits_of(filters: &[Option<BooleanBuffer>], rows: usize) -> Vec<u32> {
    let mut bits = vec![0u32; rows];
    for (i, filter) in filters.iter().enumerate() {
        match filter {
            None => bits.iter_mut().for_each(|b| *b |= 1 << i),
            Some(mask) => bits.iter_mut().zip(mask.iter()).for_each(|(b, keep)| *b |= u32::from(keep) << i),
        }
    }
    bits
}

impl Accumulate for Seen {
    fn grow(&mut self, slots: usize) {
        for counts in &mut self.counts {
            counts.resize(slots, 0);
        }
    }

    fn update(&mut self, touch: &Touch<'_>, args: &[ArrayRef]) -> Result<()> {
        let rows = touch.slots.len();
        let mut bits = bits_of(touch.filters, rows);
        if let Some(nulls) = args[0].logical_nulls().filter(|n: &NullBuffer| n.null_count() > 0) {
            bits.iter_mut().zip(nulls.iter()).for_each(|(b, valid)| *b *= u32::from(valid));
        }
        if let Pairs::Inline(_) = self.pairs {
            let values = raw(&args[0])?;
            let rows = touch.slots.iter().zip(values.values()).zip(&bits).filter(|(_, b)| **b != 0);
            return self.add_inline(rows.map(|((s, v), b)| (*s, *v, *b)));
        }
        let rows: Vec<u32> = (0..rows as u32).filter(|r| bits[*r as usize] != 0).collect();
        let slots = Arc::new(UInt32Array::from_iter_values(rows.iter().map(|r| touch.slots[*r as usize])));
        let bits: Vec<u32> = rows.iter().map(|r| bits[*r as usize]).collect();
        let values = take(&args[0], &UInt32Array::from(rows), None)?;
        self.add_indexed(slots, values, |row| bits[row])
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        let (values, bits) = (state[0].as_list::<i32>(), state[1].as_list::<i32>());
        let owner = |i: usize| std::iter::repeat_n(slots[i], values.value_length(i) as usize);
        let owners: Vec<u32> = (0..slots.len()).flat_map(owner).collect();
        // Lists lie one behind the other from the first offset on.
        let start = |l: &ListArray| l.value_offsets().first().copied().unwrap_or(0) as usize;
        let found = values.values().slice(start(values), owners.len());
        let bits = bits.values().slice(start(bits), owners.len());
        let bits = bits.as_primitive::<UInt32Type>();
        if let Pairs::Inline(_) = self.pairs {
            let found = found.as_primitive::<Int64Type>();
            let rows = owners.iter().zip(found.values()).zip(bits.values());
            return self.add_inline(rows.map(|((s, v), b)| (*s, *v, *b)));
        }
        self.add_indexed(Arc::new(UInt32Array::from(owners)), found, |row| bits.value(row))
    }

    fn values(&mut self, slots: &[u32], _failures: &mut Failures) -> Result<Vec<ArrayRef>> {
        let column = |counts: &Vec<i64>| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(slots.iter().map(|s| counts[*s as usize])))
        };
        debug_assert_eq!(self.counts.len(), self.filters);
        Ok(self.counts.iter().map(column).collect())
    }

    fn state(&mut self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        self.lists(slots, false)
    }

    fn snapshot(&mut self, slots: &[u32], full: bool) -> Result<Vec<ArrayRef>> {
        let lists = self.lists(slots, !full)?;
        self.fresh.clear();
        self.fresh_indexed.clear();
        Ok(lists)
    }

    fn restore(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        // A later part only adds bits to what earlier ones said.
        self.merge(slots, state)
    }

    fn bytes(&self) -> usize {
        let pairs = match &self.pairs {
            Pairs::Inline(table) => table.capacity() * 17,
            Pairs::Indexed { index, bits, scratch } => index.bytes() + (bits.capacity() + scratch.capacity()) * 4,
        };
        let counts: usize = self.counts.iter().map(|c| c.capacity() * 8).sum();
        pairs + counts + self.fresh.capacity() * 16 + self.fresh_indexed.capacity() * 4
    }
}
