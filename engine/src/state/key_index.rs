//! From keys to slots: a hash table over columns.
//!
//! A batch is interned column by column, not row by row: hashes are computed once, candidates are found
//! by their 64-bit hash alone, new keys are appended per column, and then every column checks all rows
//! against the slots found. A row that fails the check (two keys with one hash) is looked up again under
//! a salted hash, so the result is exact.

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryViewBuilder, BooleanArray, BooleanBuilder, PrimitiveArray,
    StringViewBuilder, UInt32Array, downcast_primitive,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Schema};
use arrow::row::{OwnedRow, RowConverter, SortField};
use std::sync::Arc;

use super::places::Places;
use super::runs::{self, Run};
use crate::error::{Error, Result};
use crate::float::{canonical_columns, has_floats};
use crate::key::{hash_rows, mix};

/// Distinct keys, numbered 0, 1, 2… in order of arrival.
pub struct KeyIndex {
    places: Places,
    columns: Vec<Box<dyn KeyColumn>>,
    len: usize,
    hashes: Vec<u64>,
    /// The runs of the rows that were interned last, where they are few.
    runs: Vec<Run>,
    /// Whether a column holds floats, which are kept in canonical form.
    floats: bool,
}

impl KeyIndex {
    /// An empty index over keys with the columns of `schema`; with none there is one key, the empty one.
    pub fn new(schema: &Schema) -> Result<Self> {
        let columns = schema.fields().iter().map(|f| key_column(f.data_type())).collect::<Result<_>>()?;
        let floats = schema.fields().iter().any(|f| has_floats(f.data_type()));
        Ok(KeyIndex { places: Places::new(), columns, len: 0, hashes: vec![], runs: vec![], floats })
    }

    /// The number of distinct keys.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.places.bytes() + self.column_bytes()
    }

    /// Of the keys themselves.
    pub fn column_bytes(&self) -> usize {
        self.columns.iter().map(|c| c.bytes()).sum()
    }

    /// What the hash table needs besides, while entries move to where there is more room, if `rows` more keys may come.
    pub fn growth(&self, rows: usize) -> usize {
        self.places.growth(rows)
    }

    /// Makes room for `keys` more keys.
    pub fn reserve(&mut self, keys: usize) {
        self.places.reserve(keys);
        self.columns.iter_mut().for_each(|c| c.reserve(keys));
    }

    /// The slot of each row of `keys`, into `slots` (cleared first); new keys get new slots.
    pub fn intern(&mut self, keys: &[ArrayRef], rows: usize, slots: &mut Vec<u32>) -> Result<()> {
        slots.clear();
        self.runs.clear();
        if self.columns.is_empty() {
            self.len = self.len.max(usize::from(rows > 0));
            slots.resize(rows, 0);
            self.runs.extend((rows > 0).then_some(Run { slot: 0, start: 0, end: rows as u32 }));
            return Ok(());
        }
        let canonical;
        let keys = if self.floats {
            canonical = canonical_columns(keys)?;
            &canonical
        } else {
            keys
        };
        match runs::heads(keys, rows)? {
            None => self.find(keys, rows, slots),
            Some(heads) => {
                self.find(&runs::keys_at(keys, &heads)?, heads.len(), slots)?;
                self.runs = runs::spread(&heads, slots, rows);
                Ok(())
            }
        }
    }

    /// Takes the runs of the rows that were interned last; none where there are many.
    pub fn take_runs(&mut self) -> Vec<Run> {
        std::mem::take(&mut self.runs)
    }

    /// The slot of each row of `keys`, in canonical form.
    fn find(&mut self, keys: &[ArrayRef], rows: usize, slots: &mut Vec<u32>) -> Result<()> {
        let mut hashes = std::mem::take(&mut self.hashes);
        hash_rows(keys, rows, &mut hashes)?;
        let all: Vec<u32> = vec![];
        self.probe(keys, &hashes, &all, slots)?;
        self.resolve_collisions(keys, &hashes, slots)?;
        self.hashes = hashes;
        Ok(())
    }

    /// Finds or makes the slot of every row (of `only`, if not empty), by hash alone.
    fn probe(&mut self, keys: &[ArrayRef], hashes: &[u64], only: &[u32], slots: &mut Vec<u32>) -> Result<()> {
        let mut fresh: Vec<u32> = vec![];
        self.places.make_room(if only.is_empty() { hashes.len() } else { only.len() });
        let (places, len) = (&mut self.places, &mut self.len);
        let mut new = |row: u32| {
            let slot = *len as u32;
            *len += 1;
            fresh.push(row);
            slot
        };
        if only.is_empty() {
            slots.resize(hashes.len(), 0);
            places.find_all(hashes, slots, new);
        } else {
            for row in only {
                let (hash, slot) = (std::slice::from_ref(&hashes[*row as usize]), *row as usize);
                places.find_all(hash, &mut slots[slot..=slot], |_| new(*row));
            }
        }
        if self.len > u32::MAX as usize / 2 {
            return Err(Error::new(crate::ErrorKind::Exhausted, "more than 2147483647 keys in one task")
                .with_hint("Raise the parallelism of the stream."));
        }
        if !fresh.is_empty() {
            for (column, array) in self.columns.iter_mut().zip(keys) {
                column.append(array, &fresh)?;
            }
        }
        Ok(())
    }

    fn resolve_collisions(&mut self, keys: &[ArrayRef], hashes: &[u64], slots: &mut Vec<u32>) -> Result<()> {
        let mut wrong = self.mismatches(keys, slots)?;
        if wrong.is_empty() {
            return Ok(());
        }
        let mut salted = hashes.to_vec();
        while !wrong.is_empty() {
            for row in &wrong {
                salted[*row as usize] = mix(salted[*row as usize] ^ 0x5bd1_e995);
            }
            self.probe(keys, &salted, &wrong, slots)?;
            wrong = self.mismatches(keys, slots)?;
        }
        Ok(())
    }

    fn mismatches(&self, keys: &[ArrayRef], slots: &[u32]) -> Result<Vec<u32>> {
        let mut wrong = vec![];
        for (column, array) in self.columns.iter().zip(keys) {
            column.mismatches(array, slots, &mut wrong)?;
        }
        wrong.sort_unstable();
        wrong.dedup();
        Ok(wrong)
    }

    /// The keys of `slots`, a column each.
    pub fn gather(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        self.columns.iter().map(|c| c.gather(slots)).collect()
    }
}

/// The values of one key column by slot.
trait KeyColumn: Send {
    /// Makes room for `keys` more.
    fn reserve(&mut self, keys: usize);
    fn append(&mut self, array: &ArrayRef, rows: &[u32]) -> Result<()>;
    /// Adds the rows whose value is not that of their slot.
    fn mismatches(&self, array: &ArrayRef, slots: &[u32], wrong: &mut Vec<u32>) -> Result<()>;
    fn gather(&self, slots: &[u32]) -> Result<ArrayRef>;
    fn bytes(&self) -> usize;
}

fn key_column(data_type: &DataType) -> Result<Box<dyn KeyColumn>> {
    macro_rules! fixed {
        ($t:ty, $dt:expr) => {
            return Ok(Box::new(Fixed::<$t> { data_type: $dt.clone(), values: vec![], nulls: vec![] }))
        };
    }
    downcast_primitive! {
        data_type => (fixed, data_type),
        DataType::Boolean => Ok(Box::new(Bools { values: vec![] })),
        DataType::Utf8View => Ok(Box::new(Texts { text: true, offsets: vec![0], data: vec![], nulls: vec![] })),
        DataType::BinaryView => Ok(Box::new(Texts { text: false, offsets: vec![0], data: vec![], nulls: vec![] })),
        other => Ok(Box::new(Encoded {
            converter: RowConverter::new(vec![SortField::new(other.clone())])?,
            rows: vec![],
            bytes: 0,
        })),
    }
}

struct Fixed<T: ArrowPrimitiveType> {
    data_type: DataType,
    values: Vec<T::Native>,
    /// Slots that are null; there is at most one null per combination of the other columns, so this is short
    /// only for single keys: kept as flags.
    nulls: Vec<bool>,
}

impl<T: ArrowPrimitiveType> KeyColumn for Fixed<T> {
    fn reserve(&mut self, keys: usize) {
        self.values.reserve(keys);
    }

    fn append(&mut self, array: &ArrayRef, rows: &[u32]) -> Result<()> {
        let a = array.as_primitive::<T>();
        self.values.extend(rows.iter().map(|r| a.values()[*r as usize]));
        if a.null_count() > 0 || !self.nulls.is_empty() {
            self.nulls.resize(self.values.len() - rows.len(), false);
            self.nulls.extend(rows.iter().map(|r| a.is_null(*r as usize)));
        }
        Ok(())
    }

    fn mismatches(&self, array: &ArrayRef, slots: &[u32], wrong: &mut Vec<u32>) -> Result<()> {
        use arrow::array::ArrowNativeTypeOp;
        let a = array.as_primitive::<T>();
        if a.null_count() == 0 && self.nulls.is_empty() {
            for (row, (v, slot)) in a.values().iter().zip(slots).enumerate() {
                if !self.values[*slot as usize].is_eq(*v) {
                    wrong.push(row as u32);
                }
            }
            return Ok(());
        }
        for (row, slot) in slots.iter().enumerate() {
            let slot = *slot as usize;
            let null = self.nulls.get(slot).copied().unwrap_or(false);
            let equal = match (null, a.is_null(row)) {
                (true, true) => true,
                (false, false) => self.values[slot].is_eq(a.values()[row]),
                _ => false,
            };
            if !equal {
                wrong.push(row as u32);
            }
        }
        Ok(())
    }

    fn gather(&self, slots: &[u32]) -> Result<ArrayRef> {
        let values: ScalarBuffer<T::Native> = slots.iter().map(|s| self.values[*s as usize]).collect();
        let nulls = (!self.nulls.is_empty()).then(|| {
            let valid = |i| !self.nulls.get(slots[i] as usize).copied().unwrap_or(false);
            NullBuffer::new(BooleanBuffer::collect_bool(slots.len(), valid))
        });
        Ok(Arc::new(PrimitiveArray::<T>::new(values, nulls).with_data_type(self.data_type.clone())))
    }

    fn bytes(&self) -> usize {
        self.values.capacity() * size_of::<T::Native>() + self.nulls.capacity()
    }
}

struct Bools {
    values: Vec<Option<bool>>,
}

impl KeyColumn for Bools {
    fn reserve(&mut self, keys: usize) {
        self.values.reserve(keys);
    }

    fn append(&mut self, array: &ArrayRef, rows: &[u32]) -> Result<()> {
        let a = array.as_boolean();
        self.values.extend(rows.iter().map(|r| bool_at(a, *r as usize)));
        Ok(())
    }

    fn mismatches(&self, array: &ArrayRef, slots: &[u32], wrong: &mut Vec<u32>) -> Result<()> {
        let a = array.as_boolean();
        for (row, slot) in slots.iter().enumerate() {
            if self.values[*slot as usize] != bool_at(a, row) {
                wrong.push(row as u32);
            }
        }
        Ok(())
    }

    fn gather(&self, slots: &[u32]) -> Result<ArrayRef> {
        let mut b = BooleanBuilder::with_capacity(slots.len());
        for s in slots {
            b.append_option(self.values[*s as usize]);
        }
        Ok(Arc::new(b.finish()))
    }

    fn bytes(&self) -> usize {
        self.values.capacity()
    }
}

fn bool_at(a: &BooleanArray, row: usize) -> Option<bool> {
    a.is_valid(row).then(|| a.value(row))
}

struct Texts {
    text: bool,
    offsets: Vec<usize>,
    data: Vec<u8>,
    nulls: Vec<bool>,
}

impl Texts {
    fn at(&self, slot: usize) -> &[u8] {
        &self.data[self.offsets[slot]..self.offsets[slot + 1]]
    }

    fn each(array: &ArrayRef, mut f: impl FnMut(usize, Option<&[u8]>)) {
        match array.data_type() {
            DataType::Utf8View => {
                for (i, v) in array.as_string_view().iter().enumerate() {
                    f(i, v.map(str::as_bytes));
                }
            }
            _ => {
                for (i, v) in array.as_binary_view().iter().enumerate() {
                    f(i, v);
                }
            }
        }
    }
}

impl KeyColumn for Texts {
    fn reserve(&mut self, keys: usize) {
        self.offsets.reserve(keys);
        self.nulls.reserve(keys);
    }

    fn append(&mut self, array: &ArrayRef, rows: &[u32]) -> Result<()> {
        let taken = arrow::compute::take(array, &UInt32Array::from(rows.to_vec()), None)?;
        Texts::each(&taken, |_, v| {
            self.data.extend_from_slice(v.unwrap_or_default());
            self.offsets.push(self.data.len());
            self.nulls.push(v.is_none());
        });
        Ok(())
    }

    fn mismatches(&self, array: &ArrayRef, slots: &[u32], wrong: &mut Vec<u32>) -> Result<()> {
        Texts::each(array, |row, v| {
            let slot = slots[row] as usize;
            let equal = match v {
                None => self.nulls[slot],
                Some(v) => !self.nulls[slot] && self.at(slot) == v,
            };
            if !equal {
                wrong.push(row as u32);
            }
        });
        Ok(())
    }

    fn gather(&self, slots: &[u32]) -> Result<ArrayRef> {
        let value = |s: &u32| (!self.nulls[*s as usize]).then(|| self.at(*s as usize));
        if !self.text {
            let mut b = BinaryViewBuilder::with_capacity(slots.len());
            for s in slots {
                b.append_option(value(s));
            }
            return Ok(Arc::new(b.finish()));
        }
        let mut b = StringViewBuilder::with_capacity(slots.len());
        for s in slots {
            let text = value(s).map(std::str::from_utf8).transpose();
            b.append_option(text.map_err(|e| Error::internal("a text key is not UTF-8").with_source(e))?);
        }
        Ok(Arc::new(b.finish()))
    }

    fn bytes(&self) -> usize {
        self.data.capacity() + self.offsets.capacity() * 8 + self.nulls.capacity()
    }
}

/// Keys of rare types (lists, structs, other text encodings), in row form.
struct Encoded {
    converter: RowConverter,
    rows: Vec<OwnedRow>,
    bytes: usize,
}

impl KeyColumn for Encoded {
    fn reserve(&mut self, keys: usize) {
        self.rows.reserve(keys);
    }

    fn append(&mut self, array: &ArrayRef, rows: &[u32]) -> Result<()> {
        let encoded = self.converter.convert_columns(std::slice::from_ref(array))?;
        for r in rows {
            let row = encoded.row(*r as usize);
            self.bytes += row.as_ref().len() + 48;
            self.rows.push(row.owned());
        }
        Ok(())
    }

    fn mismatches(&self, array: &ArrayRef, slots: &[u32], wrong: &mut Vec<u32>) -> Result<()> {
        let encoded = self.converter.convert_columns(std::slice::from_ref(array))?;
        for (row, slot) in slots.iter().enumerate() {
            if self.rows[*slot as usize].row() != encoded.row(row) {
                wrong.push(row as u32);
            }
        }
        Ok(())
    }

    fn gather(&self, slots: &[u32]) -> Result<ArrayRef> {
        let mut columns = self.converter.convert_rows(slots.iter().map(|s| self.rows[*s as usize].row()))?;
        columns.pop().ok_or_else(|| Error::internal("row form without a column"))
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int64Array, ListArray, StringViewArray};
    use arrow::datatypes::{Field, Int32Type};

    fn index(columns: &[ArrayRef]) -> KeyIndex {
        let fields: Vec<_> = columns.iter().map(|c| Field::new("k", c.data_type().clone(), true)).collect();
        KeyIndex::new(&Schema::new(fields)).expect("key types")
    }

    fn intern(i: &mut KeyIndex, columns: &[ArrayRef]) -> Vec<u32> {
        let mut slots = vec![];
        i.intern(columns, columns[0].len(), &mut slots).expect("interns");
        slots
    }

    #[test]
    fn equal_rows_share_a_slot_across_batches_and_come_back() {
        let a: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(2), None, Some(1), None]));
        let b: ArrayRef = Arc::new(StringViewArray::from(vec![Some("x"), Some("y"), Some("x"), Some("x"), None]));
        let mut i = index(&[a.clone(), b.clone()]);
        assert_eq!(intern(&mut i, &[a.clone(), b.clone()]), vec![0, 1, 2, 0, 3]);
        assert_eq!(intern(&mut i, &[a.slice(2, 3), b.slice(2, 3)]), vec![2, 0, 3]);
        let back = i.gather(&[0, 1, 2, 3]).expect("gathers");
        let first: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(2), None, None]));
        assert_eq!(&back[0], &first);
        let second: ArrayRef = Arc::new(StringViewArray::from(vec![Some("x"), Some("y"), Some("x"), None]));
        assert_eq!(&back[1], &second);
    }

    #[test]
    fn zeros_and_nans_are_one_key_each() {
        let a: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN, 1.0]));
        assert_eq!(intern(&mut index(std::slice::from_ref(&a)), &[a]), vec![0, 0, 1, 1, 2]);
    }

    #[test]
    fn lists_can_be_keys() {
        let lists =
            ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1)]), None, Some(vec![Some(1)])]);
        let a: ArrayRef = Arc::new(lists);
        let mut i = index(std::slice::from_ref(&a));
        assert_eq!(intern(&mut i, std::slice::from_ref(&a)), vec![0, 1, 0]);
        assert_eq!(i.gather(&[1]).expect("gathers")[0].null_count(), 1);
    }

    #[test]
    fn keys_with_one_hash_stay_apart() {
        let a: ArrayRef = Arc::new(Int64Array::from(vec![10, 20, 10, 20, 30]));
        let mut i = index(std::slice::from_ref(&a));
        let mut slots = vec![];
        let (keys, same) = ([a], [7u64; 5]);
        for _ in 0..2 {
            slots.clear();
            i.probe(&keys, &same, &[], &mut slots).expect("probes");
            i.resolve_collisions(&keys, &same, &mut slots).expect("resolves");
            assert_eq!((slots[0], slots[1]), (slots[2], slots[3]));
            assert!(slots[0] != slots[1] && slots[1] != slots[4] && slots[0] != slots[4]);
        }
    }

    #[test]
    fn no_columns_are_one_key() {
        let mut i = KeyIndex::new(&Schema::empty()).expect("no columns");
        let mut slots = vec![];
        i.intern(&[], 3, &mut slots).expect("interns");
        assert_eq!((slots, i.len()), (vec![0, 0, 0], 1));
    }
}
