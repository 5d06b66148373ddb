//! `EMIT CHANGES`: per epoch and touched group, the old row is taken back and the new one arrives.

use std::collections::{BTreeMap, VecDeque};
use std::slice;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use arrow::row::{RowConverter, SortField};

use super::tables::Tables;
use super::{Aggregate, NULL_GROUP, PIECE, TimeColumn};
use crate::changes::Changes;
use crate::epoch::EpochMark;
use crate::error::{Error, Result};
use crate::expr::Failures;
use crate::operator::{BuildContext, Operator, Output};
use crate::state::Handle;
use crate::state::group_table::GroupTable;
use crate::time::EventTime;

pub(super) struct Updating {
    spec: Arc<Aggregate>,
    tables: Handle<Tables>,
    /// What the groups touched in this epoch were before it, by window.
    before: BTreeMap<i64, Before>,
    /// The watermark of the epoch whose changes are being said.
    until: Option<EventTime>,
}

/// The groups of a window that were touched in this epoch.
#[derive(Default)]
struct Before {
    /// Those that existed.
    old: VecDeque<Old>,
    /// Those that did not.
    fresh: Vec<u32>,
    /// Whether some of it has been said.
    begun: bool,
}

/// Groups, with their rows before the epoch, and those among them that had none because a value was missing.
struct Old {
    slots: Vec<u32>,
    rows: RecordBatch,
    failures: Failures,
}

impl Updating {
    pub(super) fn new(spec: Arc<Aggregate>, context: &mut BuildContext<'_>) -> Result<Self> {
        let tables = context.state.open("groups", Tables::new(spec.clone())?);
        Ok(Updating { spec, tables, before: BTreeMap::new(), until: None })
    }

    /// An aggregate without groups has one row from the start.
    fn start_global(&mut self) -> Result<()> {
        if !self.spec.groups.is_empty() {
            return Ok(());
        }
        let before = &mut self.before;
        self.tables.with(|t| {
            let table = t.table(0)?;
            if table.is_empty() {
                let (mut slots, mut first) = (vec![], vec![]);
                table.intern(&[], 1, &mut slots)?;
                table.touch(&slots, &mut first);
                before.entry(0).or_default().fresh.push(0);
            }
            Ok(())
        })
    }
}

impl Operator for Updating {
    fn on_changes(&mut self, _port: usize, changes: Changes, out: &mut Output) -> Result<()> {
        self.start_global()?;
        let (spec, before) = (self.spec.clone(), &mut self.before);
        let mut note = |window: i64, table: &mut GroupTable, first: &[u32], len: usize| {
            let before = before.entry(window).or_default();
            let existed = |s: &u32| (*s as usize) < len && (spec.groups.is_empty() || table.exists(*s));
            let (old, fresh): (Vec<u32>, Vec<u32>) = first.iter().partition(|s| existed(s));
            before.fresh.extend(fresh);
            for slots in old.chunks(PIECE as usize) {
                let (rows, failures) = spec.rows_of(window, table, slots)?;
                before.old.push_back(Old { slots: slots.to_vec(), rows, failures });
            }
            Ok(())
        };
        self.tables.with_rows(changes.num_rows(), |tables| tables.apply(changes, &mut note, out))
    }

    fn on_epoch(&mut self, mark: &EpochMark, out: &mut Output) -> Result<()> {
        self.start_global()?;
        self.until = Some(mark.watermark);
        self.go_on(out)
    }

    fn go_on(&mut self, out: &mut Output) -> Result<()> {
        let Some(until) = self.until else { return Ok(()) };
        let (spec, all) = (self.spec.clone(), &mut self.before);
        let said = self.tables.with(|tables| {
            while let Some(mut before) = all.first_entry() {
                let (window, before) = (*before.key(), before.get_mut());
                let table = tables.table(window)?;
                if !std::mem::replace(&mut before.begun, true) {
                    table.take_touched();
                }
                while before.say(&spec, window, table, out)? {
                    if !out.has_room() {
                        return Ok(false);
                    }
                }
                tables.sweep(window)?;
                all.remove(&window);
            }
            tables.advance(until)?;
            if spec.time.is_some() {
                let closed: Vec<i64> = tables.open.keys().copied().filter(|w| tables.is_closed(*w)).collect();
                for window in closed {
                    tables.open.remove(&window);
                }
            }
            Ok(true)
        })?;
        match said {
            true => self.until = None,
            false => out.come_back(),
        }
        Ok(())
    }
}

impl Before {
    /// Says what has changed in the next groups. Says whether there was anything left to say.
    fn say(&mut self, spec: &Aggregate, window: i64, table: &mut GroupTable, out: &mut Output) -> Result<bool> {
        if let Some(old) = self.next_old(spec)? {
            old.difference(spec, window, table, out)?;
            return Ok(true);
        }
        let rest = self.fresh.len().saturating_sub(PIECE as usize);
        let piece = self.fresh.split_off(rest);
        if piece.is_empty() {
            return Ok(false);
        }
        let slots: Vec<u32> = piece.into_iter().filter(|s| is_alive(spec, table, *s)).collect();
        if !slots.is_empty() {
            let (rows, failures) = spec.rows_of(window, table, &slots)?;
            let rows = out.put_aside(Changes::insertions(rows), &failures)?;
            out.emit(rows);
        }
        Ok(true)
    }

    /// The next groups that existed: as many as make a batch.
    fn next_old(&mut self, spec: &Aggregate) -> Result<Option<Old>> {
        let Some(Old { mut slots, rows, mut failures }) = self.old.pop_front() else { return Ok(None) };
        let mut parts = vec![rows];
        while let Some(more) = self.old.pop_front_if(|more| slots.len() + more.slots.len() <= PIECE as usize) {
            for (row, failure) in more.failures.iter() {
                failures.push(slots.len() as u32 + row, failure.clone());
            }
            slots.extend(more.slots);
            parts.push(more.rows);
        }
        Ok(Some(Old { slots, rows: concat_batches(&spec.output, &parts)?, failures }))
    }
}

fn is_alive(spec: &Aggregate, table: &GroupTable, slot: u32) -> bool {
    spec.groups.is_empty() || table.exists(slot)
}

impl Old {
    /// Emits what has changed. A group that lacks a value has no row: it is put aside, and taken back from there
    /// when it has one again or another reason.
    fn difference(self, spec: &Aggregate, window: i64, table: &mut GroupTable, out: &mut Output) -> Result<()> {
        let old = self.rows;
        let lives = BooleanBuffer::collect_bool(self.slots.len(), |i| is_alive(spec, table, self.slots[i]));
        let (new, failures) = spec.rows_of(window, table, &self.slots)?;
        let first = spec.groups.len();
        let mut changed = differs(&old.columns()[first..], &new.columns()[first..], old.num_rows())?;
        if self.failures != failures {
            changed = &changed | &other_failures(&self.failures, &failures, old.num_rows());
        }
        // A group that vanished is only taken back, one that is as before says nothing.
        let gone = !&lives;
        let old = taken(&old, &(&changed | &gone), &self.failures, -1, out)?;
        let new = taken(&new, &(&changed & &lives), &failures, 1, out)?;
        let weights = std::iter::repeat_n(-1, old.num_rows()).chain(std::iter::repeat_n(1, new.num_rows()));
        let weights: arrow::buffer::ScalarBuffer<i64> = weights.collect();
        out.emit(Changes::weighted(concat_batches(&spec.output, [&old, &new])?, weights)?);
        Ok(())
    }
}

/// The rows of `all` that `which` names; those that lack a value go aside with `weight` instead.
fn taken(
    all: &RecordBatch,
    which: &BooleanBuffer,
    failures: &Failures,
    weight: i64,
    out: &mut Output,
) -> Result<RecordBatch> {
    let Some(good) = failures.good(all.num_rows()) else {
        return Ok(filter_record_batch(all, &BooleanArray::new(which.clone(), None))?);
    };
    let aside: Vec<_> = failures.iter().filter(|(row, _)| which.value(*row as usize)).collect();
    if !aside.is_empty() {
        let rows: UInt32Array = aside.iter().map(|(row, _)| *row).collect();
        let rows = take_record_batch(all, &rows)?;
        let weights = vec![weight; rows.num_rows()];
        let why = aside.into_iter().map(|(_, failure)| failure.clone()).collect();
        out.put_all_aside(Changes::weighted(rows, weights.into())?, why);
    }
    Ok(filter_record_batch(all, &BooleanArray::new(which & good.values(), None))?)
}

/// The rows of so many that lack a value before and after for different reasons, or on one side only.
fn other_failures(before: &Failures, after: &Failures, rows: usize) -> BooleanBuffer {
    let mut reasons = vec![(None, None); rows];
    before.iter().for_each(|(row, failure)| reasons[row as usize].0 = Some(failure));
    after.iter().for_each(|(row, failure)| reasons[row as usize].1 = Some(failure));
    BooleanBuffer::collect_bool(rows, |row| reasons[row].0 != reasons[row].1)
}

/// The rows in which any column differs; null equals null.
fn differs(old: &[ArrayRef], new: &[ArrayRef], rows: usize) -> Result<BooleanBuffer> {
    let mut all = BooleanBuffer::new_unset(rows);
    for (a, b) in old.iter().zip(new) {
        let one = if a.data_type().is_nested() {
            let converter = RowConverter::new(vec![SortField::new(a.data_type().clone())])?;
            let (a, b) =
                (converter.convert_columns(slice::from_ref(a))?, converter.convert_columns(slice::from_ref(b))?);
            BooleanBuffer::collect_bool(rows, |i| a.row(i) != b.row(i))
        } else {
            distinct(a, b)?.values().clone()
        };
        all = &all | &one;
    }
    Ok(all)
}

impl Aggregate {
    /// The result rows of `slots` of the table of `window`, and those among them that lack a value.
    pub(super) fn rows_of(
        &self,
        window: i64,
        table: &mut GroupTable,
        slots: &[u32],
    ) -> Result<(RecordBatch, Failures)> {
        let (keys, (values, failures)) = (table.keys(slots)?, table.values(slots)?);
        Ok((self.result(window, keys, values, slots.len())?, failures))
    }

    /// Result rows from a window, plain keys and aggregate values.
    pub(super) fn result(
        &self,
        window: i64,
        keys: Vec<ArrayRef>,
        values: Vec<ArrayRef>,
        rows: usize,
    ) -> Result<RecordBatch> {
        let mut columns: Vec<Option<ArrayRef>> = vec![None; self.groups.len()];
        for (i, array) in self.plain_keys().into_iter().zip(keys) {
            columns[i] = Some(array);
        }
        let time = self.time.iter();
        for (i, kind) in time.flat_map(|t| t.columns.iter().filter(|(column, _)| t.tells(*column))) {
            columns[*i] = Some(self.time_column(*i, kind, window, rows)?);
        }
        let missing = || Error::internal("a group column without values");
        let mut columns = columns.into_iter().map(|c| c.ok_or_else(missing)).collect::<Result<Vec<_>>>()?;
        for (value, field) in
            self.in_order(values)?.into_iter().zip(self.output.fields().iter().skip(self.groups.len()))
        {
            // Sums of decimals keep their native width; only the declared precision is set here.
            columns.push(if value.data_type() == field.data_type() {
                value
            } else {
                arrow::compute::cast(&value, field.data_type())?
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(self.output.clone(), columns, &options)?)
    }

    /// `rows` times the value that group column `column` has in `window` (an end, or a function's value).
    fn time_column(&self, column: usize, kind: &TimeColumn, window: i64, rows: usize) -> Result<ArrayRef> {
        use arrow::array::Int64Array;
        let data_type = self.groups[column].1.data_type();
        let windows = self.time.as_ref().and_then(|t| t.windows);
        if windows.is_none() && window == NULL_GROUP {
            return Ok(new_null_array(data_type, rows));
        }
        let value = match (kind, windows) {
            (TimeColumn::Start, Some(w)) => unit_value(w.start_of(window), data_type),
            (TimeColumn::End, _) => unit_value(window, data_type),
            _ => window,
        };
        let raw = Int64Array::from(vec![value; rows]);
        if data_type.is_floating() {
            let float = |v: i64| f64::from_bits((v ^ (((v >> 63) as u64) >> 1) as i64) as u64);
            let floats: arrow::array::Float64Array = raw.unary(float);
            return Ok(Arc::new(floats));
        }
        if let arrow::datatypes::DataType::Date32 = data_type {
            let days = arrow::compute::cast(&raw, &arrow::datatypes::DataType::Int32)?;
            return Ok(arrow::compute::cast(&days, data_type)?);
        }
        Ok(arrow::compute::cast(&raw, data_type)?)
    }
}

fn unit_value(micros: i64, data_type: &arrow::datatypes::DataType) -> i64 {
    match data_type {
        arrow::datatypes::DataType::Timestamp(unit, _) => crate::time::from_micros(micros, *unit),
        _ => micros,
    }
}
