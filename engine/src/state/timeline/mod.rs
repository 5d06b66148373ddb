//! Rows by key, those of a key in the order of a time: for operators that look for the row before a time, or behind it.
//!
//! ```text
//! index    key ━▶ its rows      time, all columns     as bytes that sort as rows do
//!                               time, all columns
//! ```
//! What a key holds is sorted, so that the rows around a time are found by a search however many there are. Rows that are equal in
//! all columns are one with a weight. Bytes, not columns, since a row stands among others that came at any time.
//!
//! A checkpoint writes what has come and gone since the last one; rows that were let go may come back with it, so they must be such
//! that nobody minds.

mod coding;
mod series;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef};
use hashbrown::HashMap;

use super::{Owner, State, check_columns};
use crate::error::{Error, Result};
use crate::key::hash_rows;
use crate::time::EventTime;

use coding::Coding;
pub use coding::{Encoded, Picked};
pub use series::{Place, Series};

/// The column of a snapshot that holds weights.
const WEIGHT: &str = "_weight";
/// So many rows are made of bytes at once.
const AT_ONCE: usize = 1 << 16;
/// So few bytes are no more than a snapshot of all.
const SMALL: usize = 1 << 20;
/// About what a key takes besides its bytes.
const KEY: usize = size_of::<Keyed>() + size_of::<(Box<[u8]>, u32)>() + 48;

/// Rows by key and time: see the module's text.
pub struct Timeline {
    coding: Coding,
    /// Whether the rows of all keys are in one order.
    together: bool,
    index: HashMap<Box<[u8]>, u32, foldhash::fast::FixedState>,
    keyed: Vec<Option<Keyed>>,
    free: Vec<u32>,
    /// How far a sweep has come.
    swept: usize,
    rows: usize,
    bytes: usize,
    /// Rows that have been taken back and have not come.
    owed: usize,
    /// What has come and gone since the last snapshot.
    fresh: Picked,
    fresh_weights: Vec<i64>,
    /// More has come than a snapshot of all would be, or there has been none.
    much: bool,
}

struct Keyed {
    key: Box<[u8]>,
    series: Series,
}

impl Timeline {
    /// An empty one for rows of `schema` by the columns `key`, none of them null, in the order of the column `time`.
    pub fn new(schema: SchemaRef, key: Vec<usize>, time: usize) -> Result<Self> {
        if !Coding::is_time(schema.field(time).data_type()) {
            return Err(Error::internal("rows are to be kept in the order of what is no time"));
        }
        Ok(Timeline {
            coding: Coding::new(schema, key, time)?,
            together: false,
            index: HashMap::default(),
            keyed: vec![],
            free: vec![],
            swept: 0,
            rows: 0,
            bytes: 0,
            owed: 0,
            fresh: Picked::default(),
            fresh_weights: vec![],
            much: true,
        })
    }

    /// The same, with the rows of all keys in one order. They still lie by their keys.
    pub fn together(self) -> Self {
        Timeline { together: true, ..self }
    }

    /// `rows` of its schema as bytes.
    pub fn encoded(&self, rows: &RecordBatch) -> Result<Encoded> {
        self.coding.encoded(rows)
    }

    /// The time that `row` begins with.
    pub fn time<'a>(&self, row: &'a [u8]) -> &'a [u8] {
        &row[..self.coding.time_bytes]
    }

    /// A time, in an array of one, as rows begin with it.
    pub fn time_of(&self, time: &ArrayRef) -> Result<Vec<u8>> {
        self.coding.time_of(time)
    }

    /// The rows of a key.
    pub fn series(&self, key: &[u8]) -> Option<&Series> {
        let key = if self.together { &[][..] } else { key };
        let at = self.index.get(key)?;
        self.keyed[*at as usize].as_ref().map(|keyed| &keyed.series)
    }

    /// Adds `weight` to that of a row with that key. A row may be taken back before it comes, in one epoch.
    pub fn add(&mut self, key: &[u8], row: &[u8], weight: i64) {
        if !self.much {
            self.fresh.push(row);
            self.fresh_weights.push(weight);
            if self.fresh.bytes() > SMALL && self.fresh.bytes() > self.bytes {
                (self.fresh, self.fresh_weights, self.much) = (Picked::default(), vec![], true);
            }
        }
        self.take_in(key, row, weight);
    }

    /// Lets a row go, if it is there, as a sweep would.
    pub fn forget(&mut self, key: &[u8], row: &[u8]) {
        let weight = self.series(key).and_then(|series| series.weight(row));
        if let Some(weight) = weight {
            self.take_in(key, row, -weight);
        }
    }

    /// Errors where a row has been taken back that is not there.
    pub fn end_epoch(&self) -> Result<()> {
        match self.owed {
            0 => Ok(()),
            _ => Err(Error::internal("a row was taken back that is not there")),
        }
    }

    fn take_in(&mut self, key: &[u8], row: &[u8], weight: i64) {
        let key = if self.together { &[][..] } else { key };
        let at = match self.index.get(key) {
            Some(at) => *at,
            None => self.begin(key),
        };
        let Some(keyed) = &mut self.keyed[at as usize] else { return };
        let before = (keyed.series.len(), keyed.series.bytes());
        let now = keyed.series.add(row, weight);
        self.owed = self.owed + usize::from(now < 0) - usize::from(now - weight < 0);
        self.rows = self.rows + keyed.series.len() - before.0;
        self.bytes = self.bytes + keyed.series.bytes() - before.1;
        if keyed.series.is_empty() {
            self.end(at);
        }
    }

    fn begin(&mut self, key: &[u8]) -> u32 {
        let at = self.free.pop().unwrap_or_else(|| {
            self.keyed.push(None);
            self.keyed.len() as u32 - 1
        });
        self.keyed[at as usize] = Some(Keyed { key: key.into(), series: Series::default() });
        self.index.insert(key.into(), at);
        self.bytes += 2 * key.len() + KEY;
        at
    }

    fn end(&mut self, at: u32) {
        let Some(keyed) = self.keyed[at as usize].take() else { return };
        self.index.remove(&keyed.key);
        self.free.push(at);
        self.bytes -= 2 * keyed.key.len() + KEY;
    }

    /// Shows `sweep` the rows of the next `keys` keys, so that it lets some go.
    pub fn sweep(&mut self, keys: usize, mut sweep: impl FnMut(&[u8], &mut Series)) {
        for _ in 0..keys.min(self.keyed.len()) {
            self.swept = (self.swept + 1) % self.keyed.len();
            let Some(keyed) = &mut self.keyed[self.swept] else { continue };
            let before = (keyed.series.len(), keyed.series.bytes());
            sweep(&keyed.key, &mut keyed.series);
            self.rows = self.rows + keyed.series.len() - before.0;
            self.bytes = self.bytes + keyed.series.bytes() - before.1;
            if keyed.series.is_empty() {
                self.end(self.swept as u32);
            }
        }
    }

    /// Takes up to `most` rows out that are before `bound`, which are in one order.
    pub fn take_before(&mut self, bound: &[u8], most: usize) -> Result<(RecordBatch, Vec<i64>)> {
        let mut taken = Picked::default();
        let mut weights = vec![];
        if let Some(series) = self.series(&[]) {
            for (row, weight) in series.between(series.start(), series.seek(bound)).take(most) {
                taken.push(row);
                weights.push(weight);
            }
        }
        for (row, weight) in taken.iter().zip(&weights) {
            self.add(&[], row, -weight);
        }
        Ok((self.coding.batch((0..taken.len()).map(|at| taken.get(at)))?, weights))
    }

    /// The columns of those of `rows` that `at` says, null where it says none.
    pub fn columns_at(&self, rows: &Picked, at: &UInt32Array) -> Result<Vec<ArrayRef>> {
        self.coding.columns_at(rows, at)
    }

    /// The number of keys that there have been at once.
    pub fn keys(&self) -> usize {
        self.keyed.len()
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    fn snapshot_schema(&self) -> SchemaRef {
        let nullable = |f: &FieldRef| Arc::new(f.as_ref().clone().with_nullable(true));
        let mut fields: Vec<FieldRef> = self.coding.schema.fields().iter().map(nullable).collect();
        fields.push(Arc::new(Field::new(WEIGHT, DataType::Int64, false)));
        Arc::new(Schema::new(fields))
    }

    fn part(&self, rows: &[&[u8]], weights: &[i64]) -> Result<RecordBatch> {
        let rows = self.coding.batch(rows.iter().copied())?;
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(Int64Array::from(weights.to_vec())));
        Ok(RecordBatch::try_new(self.snapshot_schema(), columns)?)
    }

    fn all(&self) -> Result<Vec<RecordBatch>> {
        let (mut parts, mut rows, mut weights) = (vec![], vec![], vec![]);
        for series in self.keyed.iter().flatten().map(|keyed| &keyed.series) {
            for (row, weight) in series.between(series.start(), series.end()) {
                rows.push(row);
                weights.push(weight);
                if rows.len() == AT_ONCE {
                    parts.push(self.part(&rows, &weights)?);
                    rows.clear();
                    weights.clear();
                }
            }
        }
        if !rows.is_empty() || parts.is_empty() {
            parts.push(self.part(&rows, &weights)?);
        }
        Ok(parts)
    }
}

impl State for Timeline {
    fn snapshot(&mut self, full: bool) -> Result<Vec<RecordBatch>> {
        let (fresh, weights) = (std::mem::take(&mut self.fresh), std::mem::take(&mut self.fresh_weights));
        if full {
            self.much = false;
            return self.all();
        }
        let rows: Vec<&[u8]> = fresh.iter().collect();
        rows.chunks(AT_ONCE).zip(weights.chunks(AT_ONCE)).map(|(rows, weights)| self.part(rows, weights)).collect()
    }

    fn restore(&mut self, rows: &RecordBatch, owner: Owner) -> Result<()> {
        check_columns(&rows.schema(), &self.snapshot_schema())?;
        let mut rows = rows.clone();
        if !self.coding.key.is_empty() {
            let key: Vec<ArrayRef> = self.coding.key.iter().map(|k| rows.column(*k).clone()).collect();
            let mut hashes = vec![];
            hash_rows(&key, rows.num_rows(), &mut hashes)?;
            rows = owner.part_of(&rows, &hashes)?;
        }
        let (columns, weights) = rows.columns().split_at(self.coding.schema.fields().len());
        let weights = weights[0].as_primitive::<Int64Type>().values();
        let given = RecordBatch::try_new(self.coding.schema.clone(), columns.to_vec())?;
        let encoded = self.encoded(&given)?;
        for (at, weight) in weights.iter().enumerate() {
            self.take_in(encoded.key(at), encoded.row(at), *weight);
        }
        Ok(())
    }

    fn restored(&mut self, _watermark: EventTime) -> Result<()> {
        Ok(())
    }

    fn needs_full(&self) -> bool {
        self.much
    }

    fn written_whole(&self) -> Option<usize> {
        Some(self.bytes)
    }

    fn bytes(&self) -> usize {
        self.bytes + self.keyed.capacity() * size_of::<u32>() + self.fresh.bytes() + self.fresh_weights.capacity() * 8
    }
}
