//! The group tables of an aggregation: one per window (or pane), or a single one; they are its state.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array, new_null_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{cast, concat_batches, take};
use arrow::datatypes::{DataType, FieldRef, Int64Type, Schema, SchemaRef};

use super::{Aggregate, Inputs, NULL_GROUP, Phase, TimeColumn, UnitInput, integers};
use crate::changes::Changes;
use crate::error::Result;
use crate::key::hash_rows;
use crate::operator::Output;
use crate::operator::window::evaluate_on;
use crate::state::group_table::GroupTable;
use crate::state::{Owner, State, check_columns};
use crate::time::{EventTime, time_array};

/// Called between finding the slots of a part and changing them: (window, table, slots touched for the
/// first time in the epoch, length of the table before).
pub(super) type Before<'a> = dyn FnMut(i64, &mut GroupTable, &[u32], usize) -> Result<()> + 'a;

pub(super) struct Tables {
    pub(super) spec: Arc<Aggregate>,
    pub(super) open: BTreeMap<i64, GroupTable>,
    /// What is closed: rows for it are dropped.
    pub(super) watermark: EventTime,
    /// `watermark` as a window's integer, where windows are values of a function of time.
    bound: i64,
    schema: SchemaRef,
    table_schema: SchemaRef,
    slots: Vec<u32>,
    first: Vec<u32>,
    /// Whether groups have been swept out since the last full snapshot.
    swept: bool,
}

impl Tables {
    pub(super) fn new(spec: Arc<Aggregate>) -> Result<Self> {
        Ok(Tables {
            schema: spec.timed_schema()?,
            table_schema: spec.table_schema()?,
            spec,
            open: BTreeMap::new(),
            watermark: EventTime::MIN,
            bound: i64::MIN,
            slots: vec![],
            first: vec![],
            swept: false,
        })
    }

    /// Lets go of the groups of `window` whose rows were all taken back, if that are most of them. Between epochs only: slots
    /// get other numbers.
    pub(super) fn sweep(&mut self, window: i64) -> Result<()> {
        let Some(table) = self.open.get_mut(&window).filter(|t| !self.spec.groups.is_empty() && t.is_mostly_gone())
        else {
            return Ok(());
        };
        let held = table.held();
        if held.is_empty() {
            self.open.remove(&window);
        } else {
            let state = table.snapshot(&held, true)?;
            let mut anew = self.spec.table()?;
            anew.replace(&state)?;
            self.open.insert(window, anew);
        }
        self.swept = true;
        Ok(())
    }

    /// The table of `window`, made when there is none.
    pub(super) fn table(&mut self, window: i64) -> Result<&mut GroupTable> {
        use std::collections::btree_map::Entry;
        Ok(match self.open.entry(window) {
            Entry::Occupied(e) => e.into_mut(),
            Entry::Vacant(e) => e.insert(self.spec.table()?),
        })
    }

    /// Takes in rows, or states in the final phase. Rows that fail are put aside in `out`.
    pub(super) fn apply(&mut self, changes: Changes, before: &mut Before<'_>, out: &mut Output) -> Result<()> {
        if self.spec.phase == Phase::Final {
            return self.apply_states(changes.rows(), before);
        }
        let spec = self.spec.clone();
        let (changes, inputs) = spec.inputs(changes, out)?;
        let weights = changes.weights().map(|w| &w[..]);
        let Some(ids) = &inputs.windows else {
            return self.apply_rows(0, &inputs, weights, changes.num_rows(), before);
        };
        for (window, part) in split(ids.as_primitive::<Int64Type>()) {
            if self.is_closed(window) {
                continue;
            }
            match part {
                Part::All => self.apply_rows(window, &inputs, weights, changes.num_rows(), before)?,
                Part::Run(from, n) => {
                    let weights = weights.map(|w| &w[from..from + n]);
                    self.apply_rows(window, &inputs.slice(from, n), weights, n, before)?;
                }
                Part::Rows(rows) => {
                    let weights: Option<Vec<i64>> = weights.map(|w| rows.iter().map(|r| w[*r as usize]).collect());
                    let n = rows.len();
                    let part = inputs.take(&UInt32Array::from(rows))?;
                    self.apply_rows(window, &part, weights.as_deref(), n, before)?;
                }
            }
        }
        Ok(())
    }

    fn apply_rows(
        &mut self,
        window: i64,
        inputs: &Inputs,
        weights: Option<&[i64]>,
        rows: usize,
        before: &mut Before<'_>,
    ) -> Result<()> {
        let (mut slots, mut first) = (std::mem::take(&mut self.slots), std::mem::take(&mut self.first));
        first.clear();
        let table = self.table(window)?;
        let len = table.len();
        table.intern(&inputs.keys, rows, &mut slots)?;
        let runs = table.take_runs();
        match &runs[..] {
            [] => table.touch(&slots, &mut first),
            runs => runs.iter().for_each(|run| table.touch(&[run.slot], &mut first)),
        }
        before(window, table, &first, len)?;
        table.count_rows(&slots, weights);
        for (i, input) in inputs.units.iter().enumerate() {
            table.update(i, &input.touch(&slots, &runs, weights), &input.args)?;
        }
        (self.slots, self.first) = (slots, first);
        Ok(())
    }

    fn apply_states(&mut self, states: &RecordBatch, before: &mut Before<'_>) -> Result<()> {
        let (ids, states) = self.without_window(states)?;
        for (window, part) in split(&ids) {
            if self.is_closed(window) {
                continue;
            }
            let part = part.of(&states)?;
            let (mut slots, mut first) = (std::mem::take(&mut self.slots), std::mem::take(&mut self.first));
            first.clear();
            let table = self.table(window)?;
            let len = table.len();
            table.intern_states(&part, &mut slots)?;
            table.touch(&slots, &mut first);
            before(window, table, &first, len)?;
            table.merge(&part, &slots)?;
            (self.slots, self.first) = (slots, first);
        }
        Ok(())
    }

    /// Parts the window column from the states.
    fn without_window(&self, states: &RecordBatch) -> Result<(Int64Array, RecordBatch)> {
        let ids = states.column(0).as_primitive::<Int64Type>().clone();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(states.num_rows()));
        let columns = states.columns()[1..].to_vec();
        Ok((ids, RecordBatch::try_new_with_options(self.table_schema.clone(), columns, &options)?))
    }

    /// Stored state in the form of this build: columns that an older one did not write are null, and sums of
    /// durations have become decimals.
    fn fitted(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        if rows.schema_ref().fields() == self.schema.fields() {
            return Ok(rows.clone());
        }
        let new = self.spec.new_state()?;
        let missing = |f: &FieldRef| new.contains(f.name()) && rows.column_by_name(f.name()).is_none();
        let (mut fields, mut columns) = (vec![], vec![]);
        let mut stored = rows.schema_ref().fields().iter().zip(rows.columns());
        for wanted in self.schema.fields() {
            let (field, column) = if missing(wanted) {
                (wanted.clone(), new_null_array(wanted.data_type(), rows.num_rows()))
            } else {
                let Some((field, column)) = stored.next() else { break };
                match (field.data_type(), wanted.data_type()) {
                    (DataType::Duration(_), DataType::Decimal128(_, _)) => {
                        let raw = cast(column, &DataType::Int64)?;
                        (wanted.clone(), cast(&raw, wanted.data_type())?)
                    }
                    _ => (field.clone(), column.clone()),
                }
            };
            fields.push(field);
            columns.push(column);
        }
        let rest: Vec<_> = stored.collect();
        fields.extend(rest.iter().map(|(f, _)| (*f).clone()));
        columns.extend(rest.into_iter().map(|(_, c)| c.clone()));
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
    }

    /// Moves the bound of what is closed.
    pub(super) fn advance(&mut self, watermark: EventTime) -> Result<()> {
        if watermark <= self.watermark {
            return Ok(());
        }
        self.watermark = watermark;
        let time = self.spec.time.as_ref().filter(|t| t.windows.is_none());
        if let Some((_, TimeColumn::Function { expr, time })) = time.map(|t| &t.columns[0]) {
            self.bound = match watermark {
                EventTime::MAX => i64::MAX,
                at => integers(&evaluate_on(expr, &time_array(at, time)?)?)?.value(0),
            };
        }
        Ok(())
    }

    /// Whether no row of `window` (or pane) can matter any more.
    pub(super) fn is_closed(&self, window: i64) -> bool {
        let Some(time) = &self.spec.time else { return false };
        if self.watermark == EventTime::MAX {
            return true;
        }
        match time.windows {
            None => window < self.bound && window != NULL_GROUP,
            Some(windows) if time.panes => windows.last_end(window) <= self.watermark.0,
            Some(_) => window <= self.watermark.0,
        }
    }
}

impl Inputs {
    fn slice(&self, from: usize, n: usize) -> Inputs {
        let cut = |arrays: &[ArrayRef]| arrays.iter().map(|a| a.slice(from, n)).collect();
        let unit = |u: &UnitInput| UnitInput {
            args: cut(&u.args),
            filters: u.filters.iter().map(|f| f.as_ref().map(|k| k.slice(from, n))).collect(),
        };
        Inputs { windows: None, keys: cut(&self.keys), units: self.units.iter().map(unit).collect() }
    }

    fn take(&self, rows: &UInt32Array) -> Result<Inputs> {
        let pick = |a: &ArrayRef| take(a, rows, None);
        let mut units = Vec::with_capacity(self.units.len());
        for unit in &self.units {
            let keep = |k: &BooleanBuffer| BooleanBuffer::collect_bool(rows.len(), |i| k.value(rows.value(i) as usize));
            let filters = unit.filters.iter().map(|f| f.as_ref().map(keep)).collect();
            units.push(UnitInput { args: unit.args.iter().map(pick).collect::<Result<_, _>>()?, filters });
        }
        let keys = self.keys.iter().map(pick).collect::<Result<_, _>>()?;
        Ok(Inputs { windows: None, keys, units })
    }
}

/// The rows of a batch that belong to one window.
#[derive(Debug, PartialEq)]
enum Part {
    All,
    /// (first row, rows): they lie side by side, as in input that is about in order.
    Run(usize, usize),
    Rows(Vec<u32>),
}

impl Part {
    fn of(self, batch: &RecordBatch) -> Result<RecordBatch> {
        Ok(match self {
            Part::All => batch.clone(),
            Part::Run(from, n) => batch.slice(from, n),
            Part::Rows(rows) => arrow::compute::take_record_batch(batch, &UInt32Array::from(rows))?,
        })
    }

    fn add(&mut self, run: Range<usize>) {
        match self {
            Part::Rows(rows) => rows.extend(run.start as u32..run.end as u32),
            Part::Run(from, n) if *from + *n == run.start => *n += run.len(),
            Part::Run(from, n) => {
                *self =
                    Part::Rows((*from as u32..(*from + *n) as u32).chain(run.start as u32..run.end as u32).collect());
            }
            Part::All => {}
        }
    }
}

/// The distinct values of `ids` in order of appearance, with their rows. Rows whose window is null belong to none.
fn split(ids: &Int64Array) -> Vec<(i64, Part)> {
    let values = ids.values();
    let mut parts: Vec<(i64, Part)> = vec![];
    let mut places: hashbrown::HashMap<i64, usize, foldhash::fast::FixedState> = Default::default();
    let nulls = ids.nulls().filter(|n| n.null_count() > 0);
    let valid: Vec<(usize, usize)> = nulls.map_or_else(|| vec![(0, values.len())], |n| n.valid_slices().collect());
    for (mut from, end) in valid {
        while from < end {
            let id = values[from];
            let n = values[from..end].iter().position(|v| *v != id).unwrap_or(end - from);
            if n == values.len() {
                return vec![(id, Part::All)];
            }
            match places.entry(id) {
                hashbrown::hash_map::Entry::Occupied(at) => parts[*at.get()].1.add(from..from + n),
                hashbrown::hash_map::Entry::Vacant(at) => {
                    at.insert(parts.len());
                    parts.push((id, Part::Run(from, n)));
                }
            }
            from += n;
        }
    }
    parts
}

impl State for Tables {
    fn snapshot(&mut self, full: bool) -> Result<Vec<RecordBatch>> {
        self.swept &= !full;
        let mut parts = vec![];
        for (window, table) in &mut self.open {
            let dirty = table.take_dirty();
            let slots = match full {
                true if self.spec.groups.is_empty() => table.all(),
                true => table.held(),
                false => dirty,
            };
            if slots.is_empty() {
                continue;
            }
            let state = table.snapshot(&slots, full)?;
            let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![*window; slots.len()]))];
            columns.extend(state.columns().iter().cloned());
            parts.push(RecordBatch::try_new(self.schema.clone(), columns)?);
        }
        // A full part replaces those before it, so it is written even when there is nothing left to keep.
        if parts.is_empty() && !full {
            return Ok(vec![]);
        }
        Ok(vec![concat_batches(&self.schema, &parts)?])
    }

    fn restore(&mut self, rows: &RecordBatch, owner: Owner) -> Result<()> {
        let rows = &self.fitted(rows)?;
        check_columns(rows.schema_ref(), &self.schema)?;
        let (_, states) = self.without_window(rows)?;
        let keys: Vec<_> = self.spec.cut_keys().into_iter().map(|key| states.column(key).clone()).collect();
        let mut hashes = vec![];
        hash_rows(&keys, states.num_rows(), &mut hashes)?;
        let (ids, states) = self.without_window(&owner.part_of(rows, &hashes)?)?;
        for (window, part) in split(&ids) {
            self.table(window)?.replace(&part.of(&states)?)?;
        }
        Ok(())
    }

    fn reserve(&mut self, rows: usize) {
        // Later snapshots are of groups that are there. Groups of windows are spread over many tables.
        let one = self.spec.time.is_none() && !self.spec.groups.is_empty();
        if one
            && self.open.is_empty()
            && let Ok(table) = self.table(0)
        {
            table.reserve(rows);
        }
    }

    fn restored(&mut self, watermark: EventTime) -> Result<()> {
        self.advance(watermark)?;
        let closed: Vec<i64> = self.open.keys().copied().filter(|w| self.is_closed(*w)).collect();
        for window in closed {
            self.open.remove(&window);
        }
        Ok(())
    }

    fn needs_full(&self) -> bool {
        self.swept
    }

    fn bytes(&self) -> usize {
        self.open.values().map(|t| t.bytes() + 512).sum()
    }

    fn growth(&self, rows: usize) -> usize {
        // Rows of one batch go to few windows, of which one is the largest.
        self.open.values().map(|t| t.growth(rows)).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_split_by_window() {
        let ids = |v: Vec<Option<i64>>| split(&Int64Array::from(v));
        assert_eq!(ids(vec![]), vec![]);
        assert_eq!(ids(vec![None, None]), vec![]);
        assert_eq!(ids(vec![Some(7); 3]), vec![(7, Part::All)]);
        let sorted = vec![Some(1), Some(1), None, Some(2)];
        assert_eq!(ids(sorted), vec![(1, Part::Run(0, 2)), (2, Part::Run(3, 1))]);
        let mixed = vec![Some(2), Some(1), Some(1), Some(2), None, Some(2)];
        assert_eq!(ids(mixed), vec![(2, Part::Rows(vec![0, 3, 5])), (1, Part::Run(1, 2))]);
    }
}
