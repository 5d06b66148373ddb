//! Rows as bytes that sort as they do: by their time, then by all their columns.

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array, new_empty_array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};

use crate::error::Result;
use crate::float::{canonical, has_floats, with_one_nan};

/// How rows become bytes and bytes rows. A row of bytes has its time first.
pub(super) struct Coding {
    pub(super) schema: SchemaRef,
    /// The columns of the key.
    pub(super) key: Vec<usize>,
    time: usize,
    keys: RowConverter,
    rows: RowConverter,
    /// Which column of a row of bytes is each of the schema's.
    places: Vec<usize>,
    /// The bytes of a time.
    pub(super) time_bytes: usize,
}

/// Rows as bytes.
pub struct Encoded {
    keys: Option<Rows>,
    rows: Rows,
    pub(super) time_bytes: usize,
}

impl Encoded {
    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The key of row `at`.
    pub fn key(&self, at: usize) -> &[u8] {
        self.keys.as_ref().map_or(&[], |keys| keys.row(at).data())
    }

    /// Row `at`.
    pub fn row(&self, at: usize) -> &[u8] {
        self.rows.row(at).data()
    }

    /// The time of row `at`.
    pub fn time(&self, at: usize) -> &[u8] {
        &self.row(at)[..self.time_bytes]
    }

    /// What they take.
    pub fn bytes(&self) -> usize {
        self.rows.size() + self.keys.as_ref().map_or(0, Rows::size)
    }
}

/// Some rows of bytes.
#[derive(Default)]
pub struct Picked {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Picked {
    /// Puts a row behind the others, and gives its number.
    pub fn push(&mut self, row: &[u8]) -> u32 {
        self.bytes.extend_from_slice(row);
        self.ends.push(self.bytes.len());
        self.ends.len() as u32 - 1
    }

    /// The number of a row: that of the last one, if it is the same.
    pub fn number(&mut self, row: &[u8]) -> u32 {
        match self.ends.len().checked_sub(1) {
            Some(last) if self.get(last) == row => last as u32,
            _ => self.push(row),
        }
    }

    /// Row `at`.
    pub fn get(&self, at: usize) -> &[u8] {
        let from = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[from..self.ends[at]]
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|at| self.get(at))
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// What they take.
    pub fn bytes(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<usize>()
    }
}

impl Coding {
    pub(super) fn new(schema: SchemaRef, key: Vec<usize>, time: usize) -> Result<Self> {
        let of = |column: usize| schema.field(column).data_type();
        let field = |column: &usize| SortField::new(of(*column).clone());
        // A float that is a time is compared by another value than it has.
        let others: Vec<usize> =
            (0..schema.fields().len()).filter(|column| *column != time || has_floats(of(time))).collect();
        let place = |column: usize| others.iter().position(|c| *c == column).map_or(0, |at| at + 1);
        let places = (0..schema.fields().len()).map(place).collect();
        let keys = RowConverter::new(key.iter().map(field).collect())?;
        let rows = RowConverter::new([time].iter().chain(&others).map(field).collect())?;
        let times = RowConverter::new(vec![field(&time)])?;
        let time_bytes = times.convert_columns(&[new_null_array(of(time), 1)])?.row(0).data().len();
        Ok(Coding { schema, key, time, keys, rows, places, time_bytes })
    }

    /// Whether times of this type can be told from the first bytes of a row.
    pub(super) fn is_time(data_type: &DataType) -> bool {
        data_type.is_primitive()
    }

    pub(super) fn encoded(&self, rows: &RecordBatch) -> Result<Encoded> {
        let key = self.key.iter().map(|column| canonical(rows.column(*column)));
        let key = key.collect::<Result<Vec<_>, _>>()?;
        let keys = if key.is_empty() { None } else { Some(self.keys.convert_columns(&key)?) };
        let mut columns = vec![canonical(rows.column(self.time))?];
        for (column, place) in rows.columns().iter().zip(&self.places) {
            if *place > 0 {
                columns.push(with_one_nan(column)?);
            }
        }
        Ok(Encoded { keys, rows: self.rows.convert_columns(&columns)?, time_bytes: self.time_bytes })
    }

    /// The columns of rows.
    pub(super) fn columns<'a>(&self, rows: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let parser = self.rows.parser();
        let columns = self.rows.convert_rows(rows.map(|row| parser.parse(row)))?;
        Ok(self.places.iter().map(|place| columns[*place].clone()).collect())
    }

    /// The columns of those of `rows` that `at` says, null where it says none.
    pub(super) fn columns_at(&self, rows: &Picked, at: &UInt32Array) -> Result<Vec<ArrayRef>> {
        if rows.is_empty() {
            return Ok(self.schema.fields().iter().map(|f| new_null_array(f.data_type(), at.len())).collect());
        }
        self.columns(rows.iter())?.iter().map(|column| Ok(take(column, at, None)?)).collect()
    }

    /// The rows as a batch.
    pub(super) fn batch<'a>(&self, rows: impl ExactSizeIterator<Item = &'a [u8]>) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let columns = match rows.len() {
            0 => self.schema.fields().iter().map(|f| new_empty_array(f.data_type())).collect(),
            _ => self.columns(rows)?,
        };
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }

    /// A time as rows begin with it.
    pub(super) fn time_of(&self, time: &ArrayRef) -> Result<Vec<u8>> {
        let times = RowConverter::new(vec![SortField::new(time.data_type().clone())])?;
        Ok(times.convert_columns(&[canonical(time)?])?.row(0).data().to_vec())
    }
}
