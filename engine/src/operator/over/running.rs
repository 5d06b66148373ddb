//! A running `OVER`: the partitions of the rows that have come are worked off some at a time.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array, UInt64Array, new_null_array,
};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{and, filter, filter_record_batch, is_not_null, not, nullif, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use arrow::row::{RowConverter, SortField};

use super::Over;
use super::evaluate::{Partitions, values};
use crate::changelog::consolidate;
use crate::changes::{Changes, rows_at};
use crate::epoch::EpochMark;
use crate::error::{Error, Result};
use crate::float::with_one_nan;
use crate::memory::MemoryAccount;
use crate::operator::{BuildContext, Operator, Output};
use crate::state::Handle;
use crate::state::arrangement::{Arrangement, Cursor, Keyed};

/// About so many bytes are worked on at once, if that is more than one partition.
const PIECE_BYTES: usize = 4 << 20;
/// So many partitions at most.
const MOST_AT_ONCE: usize = 1 << 16;
/// So many rows of the state are asked for at once.
const ASKED: usize = 1 << 16;

pub(super) struct Running {
    spec: Arc<Over>,
    /// The rows, with the values that they have; null where they are not wanted.
    kept: Handle<Arrangement>,
    schema: SchemaRef,
    /// Makes bytes of a row's partition and order, which is enough where rows differ in these, and of all its columns.
    order: RowConverter,
    all: RowConverter,
    account: MemoryAccount,
    /// What has come in this epoch.
    came: Vec<Changes>,
    came_bytes: usize,
    work: Option<Work>,
    /// What expires once that is done: rows that have come may be of what closes with their epoch.
    expires: Option<i64>,
    /// So many partitions at once.
    at_once: usize,
}

/// What is done about the rows of an epoch.
struct Work {
    rows: Keyed,
    /// The first row of the partition of each.
    heads: Vec<u32>,
    /// Where rows end of which no partition goes on behind.
    ends: Vec<u32>,
    /// So many of these have been reached.
    done: usize,
}

/// Rows of some partitions.
struct Piece {
    /// Those that are kept, then those that have come.
    rows: Changes,
    /// So many are kept.
    kept: usize,
    /// The number of each row's partition.
    partitions: Vec<u32>,
}

impl Running {
    pub(super) fn new(spec: Arc<Over>, context: &mut BuildContext<'_>) -> Result<Self> {
        let nullable = |f: &Arc<Field>| f.as_ref().clone().with_nullable(true);
        let schema = Arc::new(Schema::new(spec.schema.fields().iter().map(nullable).collect::<Vec<_>>()));
        let kept = Arrangement::new(schema.clone(), spec.key.clone())?;
        let kept = kept.expiring(spec.expiry.map(|e| e.column));
        let kept = if spec.settles { context.state.of_epoch(kept) } else { context.state.open("rows", kept) };
        let number = || SortField::new(DataType::UInt32);
        let ordered = spec.order.iter().map(|(column, options)| {
            SortField::new_with_options(spec.input.field(*column).data_type().clone(), *options)
        });
        let all = spec.input.fields().iter().map(|f| SortField::new(f.data_type().clone()));
        let place = SortField::new(DataType::UInt64);
        let order = RowConverter::new([number()].into_iter().chain(ordered).chain([place]).collect())?;
        let all = RowConverter::new(all.collect())?;
        let account = context.state.account();
        Ok(Running {
            spec,
            kept,
            schema,
            order,
            all,
            account,
            came: vec![],
            came_bytes: 0,
            work: None,
            expires: None,
            at_once: 1 << 10,
        })
    }

    /// Begins with what has come.
    fn begin(&mut self) -> Result<()> {
        let came = Changes::concat(&self.spec.input, &std::mem::take(&mut self.came))?;
        let mut columns = came.rows().columns().to_vec();
        let calls = &self.schema.fields()[columns.len()..];
        columns.extend(calls.iter().map(|f| new_null_array(f.data_type(), came.num_rows())));
        let came = came.with_rows(RecordBatch::try_new(self.schema.clone(), columns)?);
        let rows = self.kept.with(|kept| kept.grouped(&came))?;
        let heads = self.kept.with(|kept| kept.heads(&rows))?;
        let ends = ends(&heads);
        self.work = Some(Work { rows, heads, ends, done: 0 });
        Ok(())
    }

    /// Goes on until there is no room, or all is done.
    fn advance(&mut self, out: &mut Output) -> Result<()> {
        let Some(mut work) = self.work.take() else { return Ok(()) };
        while work.done < work.ends.len() {
            if !out.has_room() {
                out.come_back();
                self.work = Some(work);
                return Ok(());
            }
            let from = work.done.checked_sub(1).map_or(0, |last| work.ends[last]);
            let next = work.ends.len().min(work.done + self.at_once);
            let piece = self.piece(&work, from..work.ends[next - 1])?;
            let bytes = piece.rows.bytes();
            self.account.resize_large(self.came_bytes + 4 * bytes)?;
            self.say(piece, out)?;
            work.done = next;
            self.at_once = match bytes {
                0..PIECE_BYTES => (self.at_once * 2).min(MOST_AT_ONCE),
                _ => (self.at_once / 2).max(1),
            };
        }
        self.came_bytes = 0;
        self.account.set(0);
        self.expire()
    }

    fn expire(&mut self) -> Result<()> {
        let Some(bound) = self.expires.take() else { return Ok(()) };
        self.kept.with(|kept| kept.expire(bound))
    }

    /// All rows of the partitions of the rows `range` that have come.
    fn piece(&self, work: &Work, range: Range<u32>) -> Result<Piece> {
        let heads: Vec<u32> = range.clone().filter(|row| work.heads[*row as usize] == *row).collect();
        let number = |row: u32| heads.partition_point(|head| *head < work.heads[row as usize]) as u32;
        let came: Vec<u32> = range.collect();
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let probe = self.kept.with(|kept| work.rows.only(kept, &heads))?;
        let (mut parts, mut partitions, mut cursor) = (vec![], vec![], Cursor::default());
        loop {
            let (pairs, done) = self.kept.with(|kept| kept.pairs(&probe, &mut cursor, ASKED))?;
            if !pairs.is_empty() {
                let columns = self.kept.with(|kept| kept.columns_in(&pairs, &all))?;
                let rows = RecordBatch::try_new(self.schema.clone(), columns)?;
                partitions.extend(&pairs.probe);
                parts.push(Changes::weighted(rows, pairs.weights.into())?);
            }
            if done {
                break;
            }
        }
        let kept = partitions.len();
        let columns = self.kept.with(|kept| kept.columns_of(&work.rows, &came, &all))?;
        let weights = came.iter().map(|row| work.rows.weight(*row as usize)).collect();
        parts.push(Changes::weighted(RecordBatch::try_new(self.schema.clone(), columns)?, weights)?);
        partitions.extend(came.iter().map(|row| number(*row)));
        Ok(Piece { rows: Changes::concat(&self.schema, &parts)?, kept, partitions })
    }

    /// Says what has become of the rows of some partitions.
    fn say(&self, piece: Piece, out: &mut Output) -> Result<()> {
        let (of, origins) = self.in_order(&piece)?;
        let values = values(&self.spec, &of)?;
        let (now, origins) = self.wanted(of.rows, values, origins)?;
        if self.spec.settles {
            let wanted = self.given(Changes::insertions(now))?;
            out.emit(wanted);
            return Ok(());
        }
        let before = piece.rows.slice(0, piece.kept);
        let (now, before) = self.without_equal(now, before, &origins)?;
        let weights = (0..before.num_rows()).map(|row| -before.weight(row)).collect();
        let before = Changes::weighted(before.into_rows(), weights)?;
        let (changes, _) = consolidate(&self.schema, &[before, Changes::insertions(now)], None)?;
        self.kept.with(|kept| {
            let rows = kept.keyed(&changes)?;
            kept.insert(&rows)
        })?;
        out.emit(self.given(changes)?);
        Ok(())
    }

    /// The rows that there are now, in the order of their partitions, and for each which of `piece` it is, if it is one that was kept and
    /// has not changed.
    fn in_order(&self, piece: &Piece) -> Result<(Partitions, UInt32Array)> {
        let spec = &self.spec;
        let inputs: Vec<ArrayRef> = piece.rows.rows().columns()[..spec.input.fields().len()].to_vec();
        let total = piece.rows.num_rows();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(UInt32Array::from(piece.partitions.clone()))];
        columns.extend(spec.order.iter().map(|(column, _)| inputs[*column].clone()));
        columns.push(Arc::new(self.places(piece)));
        let (sorted, same) = self.sorted(&columns, &inputs)?;
        let (mut rows, mut bounds, mut last) = (Vec::with_capacity(total), vec![], None);
        let (mut origins, mut left) = (Vec::with_capacity(total), &sorted[..]);
        for same in same {
            let (same, rest) = left.split_at(same);
            left = rest;
            let first = same[0];
            let copies: i64 = same.iter().map(|row| piece.rows.weight(*row as usize)).sum();
            if copies < 0 {
                return Err(Error::internal("over: a row was taken back that is not there"));
            }
            let partition = piece.partitions[first as usize];
            if copies > 0 && last != Some(partition) {
                bounds.push(rows.len());
                last = Some(partition);
            }
            rows.extend(std::iter::repeat_n(first, copies as usize));
            let stands = same.len() == 1 && copies == 1 && (first as usize) < piece.kept;
            origins.extend(std::iter::repeat_n(stands.then_some(first), copies as usize));
        }
        bounds.push(rows.len());
        let options = RecordBatchOptions::new().with_row_count(Some(total));
        let inputs = RecordBatch::try_new_with_options(spec.input.clone(), inputs, &options)?;
        Ok((Partitions { rows: rows_at(&inputs, &UInt32Array::from(rows))?, bounds }, origins.into()))
    }

    /// Rows by their partitions and order, `columns`, and then by all of `inputs`; and how many are the same each time.
    fn sorted(&self, columns: &[ArrayRef], inputs: &[ArrayRef]) -> Result<(Vec<u32>, Vec<usize>)> {
        let short = self.order.convert_columns(columns)?;
        let mut sorted: Vec<u32> = (0..short.num_rows() as u32).collect();
        sorted.sort_unstable_by(|a, b| short.row(*a as usize).cmp(&short.row(*b as usize)));
        let is_tie = |a: &u32, b: &u32| short.row(*a as usize) == short.row(*b as usize);
        let tied: Vec<u32> = sorted.chunk_by(is_tie).filter(|tie| tie.len() > 1).flatten().copied().collect();
        let at = UInt32Array::from(tied);
        let of_tied = |column: &ArrayRef| with_one_nan(&take(column, &at, None)?);
        let whole = match inputs.is_empty() {
            true => None,
            false => Some(self.all.convert_columns(&inputs.iter().map(of_tied).collect::<Result<Vec<_>, _>>()?)?),
        };
        // Rows without columns are all alike.
        let row = |place: usize| whole.as_ref().map(|whole| whole.row(place));
        let (mut same, mut from, mut tied) = (vec![], 0, 0);
        let ties: Vec<usize> = sorted.chunk_by(is_tie).map(<[u32]>::len).collect();
        let mut places = vec![];
        for tie in ties {
            if tie > 1 {
                places.clear();
                places.extend(tied..tied + tie);
                tied += tie;
                places.sort_unstable_by(|a, b| row(*a).cmp(&row(*b)));
                sorted[from..from + tie].iter_mut().zip(&places).for_each(|(row, place)| *row = at.value(*place));
                let alike = places.chunk_by(|a, b| row(*a) == row(*b)).map(<[usize]>::len);
                same.extend(alike);
            } else {
                same.push(1);
            }
            from += tie;
        }
        Ok((sorted, same))
    }

    /// What comes before all columns where rows are alike in their order. Without an order those stay where they are that are
    /// there, and others come behind them.
    fn places(&self, piece: &Piece) -> UInt64Array {
        let (spec, total) = (&self.spec, piece.rows.num_rows());
        let call = spec.first.filter(|_| spec.forgets() && spec.order.is_empty()).map(|first| first.call);
        let column = call.map(|call| piece.rows.rows().column(spec.input.fields().len() + call));
        match column.and_then(|column| column.as_primitive_opt::<UInt64Type>()) {
            Some(numbers) => {
                let place = |row| if row < piece.kept { numbers.value(row) } else { u64::MAX };
                UInt64Array::from_iter_values((0..total).map(place))
            }
            None => UInt64Array::from(vec![0; total]),
        }
    }

    /// `rows` with their values, as they are kept: those that are not wanted are not there, or have none.
    fn wanted(
        &self,
        rows: RecordBatch,
        mut values: Vec<ArrayRef>,
        origins: UInt32Array,
    ) -> Result<(RecordBatch, UInt32Array)> {
        let first = self.spec.first.and_then(|first| {
            let numbers = values.get(first.call)?.as_primitive_opt::<UInt64Type>()?;
            Some(numbers.values().iter().map(|number| Some(*number <= first.most)).collect::<BooleanArray>())
        });
        let all = |values: Vec<ArrayRef>| {
            let columns = rows.columns().iter().cloned().chain(values).collect();
            RecordBatch::try_new(self.schema.clone(), columns)
        };
        let Some(first) = first else { return Ok((all(values)?, origins)) };
        if self.spec.append_only {
            let origins = filter(&origins, &first)?.as_primitive().clone();
            return Ok((filter_record_batch(&all(values)?, &first)?, origins));
        }
        let others = not(&first)?;
        for column in &mut values {
            *column = nullif(column, &others)?;
        }
        Ok((all(values)?, origins))
    }

    /// The rows that there are `now`, and those `before`, without those that are the same with the same values.
    fn without_equal(
        &self,
        now: RecordBatch,
        before: Changes,
        origins: &UInt32Array,
    ) -> Result<(RecordBatch, Changes)> {
        let mut equal = is_not_null(origins)?;
        for call in self.spec.input.fields().len()..self.schema.fields().len() {
            let (old, new) = (take(before.rows().column(call), origins, None)?, now.column(call));
            if new.data_type().is_nested() {
                return Ok((now, before));
            }
            equal = and(&equal, &not_distinct(&old, new)?)?;
        }
        let mut stay = vec![true; before.num_rows()];
        let gone = origins.iter().zip(equal.values()).filter(|(_, equal)| *equal);
        gone.filter_map(|(origin, _)| origin).for_each(|origin| stay[origin as usize] = false);
        Ok((filter_record_batch(&now, &not(&equal)?)?, before.filter(&stay.into())?))
    }

    /// Of changes of rows as they are kept those that are given.
    fn given(&self, changes: Changes) -> Result<Changes> {
        let changes = match self.spec.first {
            Some(first) if !self.spec.append_only => {
                let column = changes.rows().column(self.spec.input.fields().len() + first.call);
                changes.filter(&is_not_null(column)?)?
            }
            _ => changes,
        };
        let columns = changes.rows().columns().to_vec();
        Ok(changes.with_rows(RecordBatch::try_new(self.spec.schema.clone(), columns)?))
    }
}

/// Where rows end of which no partition goes on behind: partitions with one hash lie among each other.
fn ends(heads: &[u32]) -> Vec<u32> {
    let (mut least, mut ends) = (u32::MAX, vec![heads.len() as u32]);
    for row in (1..heads.len()).rev() {
        least = least.min(heads[row]);
        if least >= row as u32 {
            ends.push(row as u32);
        }
    }
    ends.reverse();
    ends
}

impl Operator for Running {
    fn on_changes(&mut self, _port: usize, changes: Changes, _out: &mut Output) -> Result<()> {
        self.came_bytes += changes.bytes();
        self.came.push(changes);
        self.account.resize_large(self.came_bytes)
    }

    fn on_epoch(&mut self, mark: &EpochMark, out: &mut Output) -> Result<()> {
        self.expires = self.spec.expiry.and_then(|e| e.bound(&self.schema, mark.watermark));
        if self.came.is_empty() {
            return self.expire();
        }
        self.begin()?;
        self.advance(out)
    }

    fn go_on(&mut self, out: &mut Output) -> Result<()> {
        self.advance(out)
    }
}
