//! The group table: keys to slots, and for each slot the state of every aggregate.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};

use crate::error::Result;
use crate::expr::Failures;
use crate::state::accumulate::{Accumulate, Touch};
use crate::state::key_index::KeyIndex;
use crate::state::runs::Run;

/// Marks of a slot.
const TOUCHED: u8 = 1;
const DIRTY: u8 = 2;
/// All rows of its group have been taken back.
const GONE: u8 = 4;

/// So many groups without rows are not worth the sweeping.
const FEW: usize = 1024;

/// The name of the column that counts a group's rows, in states over changing input.
const ROWS: &str = "__rows";

/// Groups with their aggregates; remembers which were touched in the epoch and since the checkpoint.
pub struct GroupTable {
    keys: KeyIndex,
    aggregates: Vec<Box<dyn Accumulate>>,
    /// How many rows each group has; kept where rows can be taken back, so that a group can vanish.
    rows: Option<Vec<i64>>,
    marks: Vec<u8>,
    touched: Vec<u32>,
    dirty: Vec<u32>,
    /// Slots that are [`GONE`].
    gone: usize,
    schema: SchemaRef,
    /// Key columns at the head of `schema`.
    key_count: usize,
    /// State columns of each aggregate.
    widths: Vec<usize>,
}

impl GroupTable {
    /// An empty table. `state` is the schema of its states: the keys' columns, then those of each
    /// aggregate (see [`state_schema`]).
    pub fn new(
        keys: &Schema,
        aggregates: Vec<Box<dyn Accumulate>>,
        state: SchemaRef,
        append_only: bool,
    ) -> Result<Self> {
        let mut widths = vec![0; aggregates.len()];
        for f in state.fields() {
            let owner = f.name().strip_prefix("a").and_then(|n| n.split(':').next()).and_then(|n| n.parse().ok());
            if let Some(width) = owner.and_then(|i: usize| widths.get_mut(i)) {
                *width += 1;
            }
        }
        Ok(GroupTable {
            keys: KeyIndex::new(keys)?,
            key_count: keys.fields().len(),
            widths,
            aggregates,
            rows: (!append_only).then(Vec::new),
            marks: vec![],
            touched: vec![],
            dirty: vec![],
            gone: 0,
            schema: state,
        })
    }

    /// The number of slots.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are no groups.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.keys.bytes() + self.slot_bytes()
    }

    /// Of what lies by slot.
    fn slot_bytes(&self) -> usize {
        let marks = self.marks.capacity() + (self.touched.capacity() + self.dirty.capacity()) * 4;
        let rows = self.rows.as_ref().map_or(0, |r| r.capacity() * 8);
        marks + rows + self.aggregates.iter().map(|a| a.bytes()).sum::<usize>()
    }

    /// The most bytes that are held besides while room is made for `rows` more groups.
    pub fn growth(&self, rows: usize) -> usize {
        // What lies by slot doubles at about the same time, one part after the other.
        let doubles = self.len() + rows > self.marks.capacity();
        let columns = if doubles { (self.slot_bytes() + self.keys.column_bytes()) / 2 * 3 } else { 0 };
        self.keys.growth(rows) + columns
    }

    /// Makes room for `groups` more groups.
    pub fn reserve(&mut self, groups: usize) {
        self.keys.reserve(groups);
        self.marks.reserve(groups);
        if let Some(rows) = &mut self.rows {
            rows.reserve(groups);
        }
        self.aggregates.iter_mut().for_each(|a| a.reserve(groups));
    }

    /// The slots of the rows of `keys`, into `slots`.
    pub fn intern(&mut self, keys: &[ArrayRef], rows: usize, slots: &mut Vec<u32>) -> Result<()> {
        self.keys.intern(keys, rows, slots)?;
        let n = self.keys.len();
        if n > self.marks.len() {
            self.marks.resize(n, 0);
            for a in &mut self.aggregates {
                a.grow(n);
            }
            if let Some(rows) = &mut self.rows {
                rows.resize(n, 0);
            }
        }
        Ok(())
    }

    /// Takes the runs of the rows whose slots were found last; none where there are many.
    pub fn take_runs(&mut self) -> Vec<Run> {
        self.keys.take_runs()
    }

    /// Marks `slots` as touched; those touched for the first time in the epoch go to `first`.
    pub fn touch(&mut self, slots: &[u32], first: &mut Vec<u32>) {
        for slot in slots {
            let mark = &mut self.marks[*slot as usize];
            if *mark & TOUCHED == 0 {
                if *mark & DIRTY == 0 {
                    self.dirty.push(*slot);
                }
                *mark |= TOUCHED | DIRTY;
                self.touched.push(*slot);
                first.push(*slot);
            }
        }
    }

    /// Takes rows into aggregate `index`.
    pub fn update(&mut self, index: usize, touch: &Touch<'_>, args: &[ArrayRef]) -> Result<()> {
        self.aggregates[index].update(touch, args)
    }

    /// Counts rows into their groups, where that is kept.
    pub fn count_rows(&mut self, slots: &[u32], weights: Option<&[i64]>) {
        if let Some(rows) = &mut self.rows {
            Touch { slots, weights, ..Touch::default() }.each(|_, slot, w| rows[slot] += w);
        }
    }

    /// The slots of the keys of `batch`, which is in the table's state schema.
    pub fn intern_states(&mut self, batch: &RecordBatch, slots: &mut Vec<u32>) -> Result<()> {
        self.intern(&batch.columns()[..self.key_count], batch.num_rows(), slots)
    }

    /// Adds the states in `batch`, in the table's state schema, to `slots`, which are those of its keys.
    pub fn merge(&mut self, batch: &RecordBatch, slots: &[u32]) -> Result<()> {
        let mut at = self.key_count;
        if let Some(rows) = &mut self.rows {
            for (slot, n) in slots.iter().zip(batch.column(at).as_primitive::<Int64Type>().values()) {
                rows[*slot as usize] += n;
            }
            at += 1;
        }
        for (a, width) in self.aggregates.iter_mut().zip(&self.widths) {
            a.merge(slots, &batch.columns()[at..at + width])?;
            at += width;
        }
        Ok(())
    }

    /// The slots touched in this epoch, which then count as not touched.
    pub fn take_touched(&mut self) -> Vec<u32> {
        let touched = std::mem::take(&mut self.touched);
        for slot in &touched {
            self.marks[*slot as usize] &= !TOUCHED;
        }
        self.mark_gone(&touched);
        touched
    }

    /// Marks those of `slots` whose rows have all been taken back.
    fn mark_gone(&mut self, slots: &[u32]) {
        let Some(rows) = &self.rows else { return };
        for slot in slots {
            let (mark, is) = (&mut self.marks[*slot as usize], rows[*slot as usize] == 0);
            let was = *mark & GONE != 0;
            *mark = *mark & !GONE | if is { GONE } else { 0 };
            self.gone = self.gone + usize::from(is) - usize::from(was);
        }
    }

    /// Whether most groups have lost all their rows, so that the table is better made anew from [`GroupTable::held`].
    pub fn is_mostly_gone(&self) -> bool {
        self.gone > FEW && self.gone > self.len() / 2
    }

    /// All slots.
    pub fn all(&self) -> Vec<u32> {
        (0..self.len() as u32).collect()
    }

    /// The slots that hold something: those whose rows were all taken back are as if they had never been.
    pub fn held(&self) -> Vec<u32> {
        let held = |slot: &u32| self.rows.as_ref().is_none_or(|rows| rows[*slot as usize] != 0);
        (0..self.len() as u32).filter(held).collect()
    }

    /// Whether the group has rows (always, where rows are never taken back).
    pub fn exists(&self, slot: u32) -> bool {
        self.rows.as_ref().is_none_or(|r| r[slot as usize] > 0)
    }

    /// The keys of `slots`.
    pub fn keys(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        self.keys.gather(slots)
    }

    /// The values of all aggregates for `slots`, the columns of each behind one another, and the places in
    /// `slots` of groups that lack one.
    pub fn values(&mut self, slots: &[u32]) -> Result<(Vec<ArrayRef>, Failures)> {
        let mut columns = Vec::with_capacity(self.aggregates.len());
        let mut failures = Failures::default();
        for a in &mut self.aggregates {
            let mut failed = Failures::default();
            columns.extend(a.values(slots, &mut failed)?);
            if !failed.is_empty() {
                failures.merge(failed);
            }
        }
        Ok((columns, failures))
    }

    /// The states of `slots`, in the table's state schema.
    pub fn state(&mut self, slots: &[u32]) -> Result<RecordBatch> {
        self.states(slots, |a| a.state(slots))
    }

    /// What a checkpoint writes of `slots`, in the table's state schema.
    pub fn snapshot(&mut self, slots: &[u32], full: bool) -> Result<RecordBatch> {
        self.states(slots, |a| a.snapshot(slots, full))
    }

    fn states(
        &mut self,
        slots: &[u32],
        state: impl Fn(&mut dyn Accumulate) -> Result<Vec<ArrayRef>>,
    ) -> Result<RecordBatch> {
        let mut columns = self.keys.gather(slots)?;
        if let Some(rows) = &self.rows {
            columns.push(Arc::new(Int64Array::from_iter_values(slots.iter().map(|s| rows[*s as usize]))));
        }
        for a in &mut self.aggregates {
            columns.extend(state(a.as_mut())?);
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(slots.len()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }

    /// The slots changed since the last call, which then count as unchanged.
    pub fn take_dirty(&mut self) -> Vec<u32> {
        let dirty = std::mem::take(&mut self.dirty);
        for slot in &dirty {
            self.marks[*slot as usize] &= !DIRTY;
        }
        dirty
    }

    /// Counts `slots` as changed: what an adopted table holds has yet to be checkpointed under its new name.
    pub fn mark_dirty(&mut self, slots: &[u32]) {
        for slot in slots {
            let mark = &mut self.marks[*slot as usize];
            if *mark & DIRTY == 0 {
                *mark |= DIRTY;
                self.dirty.push(*slot);
            }
        }
    }

    /// Replaces the states of the groups in `batch` (which may be new) by those in it.
    pub fn replace(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut slots = vec![];
        self.intern_states(batch, &mut slots)?;
        let mut at = self.key_count;
        if let Some(rows) = &mut self.rows {
            for (slot, n) in slots.iter().zip(batch.column(at).as_primitive::<Int64Type>().values()) {
                rows[*slot as usize] = *n;
            }
            at += 1;
        }
        for (a, width) in self.aggregates.iter_mut().zip(&self.widths) {
            a.restore(&slots, &batch.columns()[at..at + width])?;
            at += width;
        }
        self.mark_gone(&slots);
        Ok(())
    }
}

/// The schema of a table's states: keys as `k:<name>`, the row count where `append_only` is false, and
/// the state columns of aggregate `i` as `a<i>:<j>`.
pub fn state_schema(keys: &Schema, aggregates: &[Vec<DataType>], append_only: bool) -> SchemaRef {
    let mut fields: Vec<Field> =
        keys.fields().iter().map(|f| Field::new(format!("k:{}", f.name()), f.data_type().clone(), true)).collect();
    if !append_only {
        fields.push(Field::new(ROWS, DataType::Int64, false));
    }
    for (i, types) in aggregates.iter().enumerate() {
        fields.extend(types.iter().enumerate().map(|(j, t)| Field::new(state_column(i, j), t.clone(), true)));
    }
    Arc::new(Schema::new(fields))
}

/// The name of state column `column` of aggregate `aggregate`.
pub fn state_column(aggregate: usize, column: usize) -> String {
    format!("a{aggregate}:{column}")
}
