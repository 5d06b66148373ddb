//! `PRIMARY KEY`: a later row replaces the one with its key.
//!
//! ```text
//! +(k=1, v=a) +(k=1, v=b)   ->  +(1, b)             within one epoch the last row counts
//! +(k=1, v=c)               ->  -(1, b) +(1, c)
//! ```
//! Keeps the last row of each key; bounded by the number of keys. Its input only grows.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::row::{OwnedRow, RowConverter, SortField};

use super::{BuildContext, Operator, OperatorSpec, Output, StateBound};
use crate::changes::Changes;
use crate::epoch::EpochMark;
use crate::error::Result;
use crate::format::sql_name;
use crate::key::hash_rows;
use crate::spread::Needed;
use crate::state::key_index::KeyIndex;
use crate::state::{Handle, Owner, State, check_columns};
use crate::time::EventTime;

/// The description.
#[derive(Clone, Debug)]
pub struct Upsert {
    /// The key's columns.
    pub key: Vec<usize>,
    /// The schema of the rows.
    pub schema: SchemaRef,
}

impl OperatorSpec for Upsert {
    fn name(&self) -> &'static str {
        "upsert"
    }

    fn describe(&self) -> String {
        let names: Vec<_> = self.key.iter().map(|k| self.schema.field(*k).name().as_str()).collect();
        format!("by {}", names.join(", "))
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn state_bound(&self) -> StateBound {
        let names: Vec<_> = self.key.iter().map(|k| self.schema.field(*k).name().as_str()).collect();
        StateBound::Keys(names.join(", "))
    }

    fn fingerprint(&self) -> Option<String> {
        let key: Vec<_> = self.key.iter().map(|k| format!("column {}", k + 1)).collect();
        let types: Vec<_> = self.schema.fields().iter().map(|f| sql_name(f.data_type())).collect();
        Some(format!("rows of ({}) by {}", types.join(", "), key.join(", ")))
    }

    fn needs(&self, _port: usize) -> Needed {
        Needed::hash(self.key.clone())
    }

    fn place_of(&self, column: usize) -> Option<usize> {
        Some(column)
    }

    fn build(&self, context: &mut BuildContext<'_>) -> Result<Box<dyn Operator>> {
        let rows = context.state.open("rows", Rows::new(self)?);
        Ok(Box::new(Running { key: self.key.clone(), schema: self.schema.clone(), rows }))
    }
}

/// The last row of each key.
struct Rows {
    key: Vec<usize>,
    schema: SchemaRef,
    index: KeyIndex,
    converter: RowConverter,
    rows: Vec<Option<OwnedRow>>,
    /// The rows that keys touched in this epoch had before it.
    before: Vec<(u32, Option<OwnedRow>)>,
    touched: Vec<bool>,
    dirty: Vec<u32>,
    is_dirty: Vec<bool>,
    bytes: usize,
}

impl Rows {
    fn new(spec: &Upsert) -> Result<Self> {
        let keys: Vec<_> = spec.key.iter().map(|k| spec.schema.field(*k).clone()).collect();
        let fields = spec.schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        Ok(Rows {
            key: spec.key.clone(),
            schema: spec.schema.clone(),
            index: KeyIndex::new(&Schema::new(keys))?,
            converter: RowConverter::new(fields)?,
            rows: vec![],
            before: vec![],
            touched: vec![],
            dirty: vec![],
            is_dirty: vec![],
            bytes: 0,
        })
    }

    fn keys(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        self.key.iter().map(|k| rows.column(*k).clone()).collect()
    }

    fn put(&mut self, rows: &RecordBatch) -> Result<()> {
        let mut slots = vec![];
        self.index.intern(&self.keys(rows), rows.num_rows(), &mut slots)?;
        let n = self.index.len();
        self.rows.resize(n, None);
        self.touched.resize(n, false);
        self.is_dirty.resize(n, false);
        let encoded = self.converter.convert_columns(rows.columns())?;
        for (i, slot) in slots.iter().enumerate() {
            let at = *slot as usize;
            let row = encoded.row(i).owned();
            self.bytes += row.as_ref().len() + 24;
            let old = self.rows[at].replace(row);
            self.bytes -= old.as_ref().map_or(0, |o| o.as_ref().len() + 24);
            if !self.touched[at] {
                self.touched[at] = true;
                self.before.push((*slot, old));
            }
            if !self.is_dirty[at] {
                self.is_dirty[at] = true;
                self.dirty.push(*slot);
            }
        }
        Ok(())
    }

    fn difference(&mut self) -> Result<Option<Changes>> {
        let before = std::mem::take(&mut self.before);
        let (mut rows, mut weights) = (vec![], vec![]);
        for (slot, old) in &before {
            self.touched[*slot as usize] = false;
            let new = self.rows[*slot as usize].as_ref();
            if old.as_ref().map(|o| o.row()) == new.map(|n| n.row()) {
                continue;
            }
            for (row, weight) in [(old.as_ref(), -1), (new, 1)] {
                if let Some(row) = row {
                    rows.push(row.row());
                    weights.push(weight);
                }
            }
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let batch = RecordBatch::try_new(self.schema.clone(), self.converter.convert_rows(rows)?)?;
        Ok(Some(Changes::weighted(batch, weights.into())?))
    }
}

impl State for Rows {
    fn snapshot(&mut self, full: bool) -> Result<Option<RecordBatch>> {
        let dirty = std::mem::take(&mut self.dirty);
        for s in &dirty {
            self.is_dirty[*s as usize] = false;
        }
        let slots: Vec<u32> = if full { (0..self.rows.len() as u32).collect() } else { dirty };
        if slots.is_empty() && !full {
            return Ok(None);
        }
        let rows = slots.iter().filter_map(|s| self.rows[*s as usize].as_ref()).map(|r| r.row());
        let columns = self.converter.convert_rows(rows)?;
        Ok(Some(RecordBatch::try_new(self.schema.clone(), columns)?))
    }

    fn restore(&mut self, rows: &RecordBatch, owner: Owner) -> Result<()> {
        check_columns(rows.schema_ref(), &self.schema)?;
        let mut hashes = vec![];
        hash_rows(&self.keys(rows), rows.num_rows(), &mut hashes)?;
        let mine = owner.part_of(rows, &hashes)?;
        let mine = RecordBatch::try_new(self.schema.clone(), mine.columns().to_vec())?;
        self.put(&mine)
    }

    fn reserve(&mut self, rows: usize) {
        if self.rows.is_empty() {
            self.index.reserve(rows);
            self.rows.reserve(rows);
        }
    }

    fn restored(&mut self, _watermark: EventTime) -> Result<()> {
        for (slot, _) in std::mem::take(&mut self.before) {
            self.touched[slot as usize] = false;
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        let slots = self.rows.capacity() * size_of::<Option<OwnedRow>>() + self.touched.capacity() * 2;
        self.bytes + self.index.bytes() + slots
    }

    fn growth(&self, rows: usize) -> usize {
        let doubles = self.index.len() + rows > self.rows.capacity();
        let slots = self.rows.capacity() * size_of::<Option<OwnedRow>>() + self.index.column_bytes();
        self.index.growth(rows) + if doubles { slots / 2 * 3 } else { 0 }
    }
}

struct Running {
    key: Vec<usize>,
    schema: SchemaRef,
    rows: Handle<Rows>,
}

impl Operator for Running {
    fn on_changes(&mut self, _port: usize, changes: Changes, _out: &mut Output) -> Result<()> {
        debug_assert!(!self.key.is_empty() && changes.weights().is_none());
        let columns = changes.rows().columns().to_vec();
        let rows = RecordBatch::try_new(self.schema.clone(), columns)?;
        self.rows.with_rows(rows.num_rows(), |r| r.put(&rows))
    }

    fn on_epoch(&mut self, _mark: &EpochMark, out: &mut Output) -> Result<()> {
        if let Some(changes) = self.rows.with(Rows::difference)? {
            out.emit(changes);
        }
        Ok(())
    }
}
