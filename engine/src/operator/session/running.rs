//! A running `SESSION`: what has come is put together with the islands near it, and these are worked off some at a time.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::is_not_null;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::Session;
use super::islands::{Island, Islands};
use super::regions::Regions;
use crate::changelog::consolidate;
use crate::changes::{Changes, rows_at};
use crate::epoch::EpochMark;
use crate::error::{Error, Result};
use crate::memory::MemoryAccount;
use crate::operator::window::times;
use crate::operator::{BuildContext, Operator, Output};
use crate::state::Handle;
use crate::state::arrangement::{Arrangement, Cursor};
use crate::time::event_times;

/// About so many bytes are worked on at once, if that is more than one region.
const PIECE_BYTES: usize = 4 << 20;
/// So many regions at most.
const MOST_AT_ONCE: usize = 1 << 16;
/// So many rows of the state are asked for at once.
const ASKED: usize = 1 << 16;
/// The column that says in which stretch of time a row is.
const STRETCH: &str = "_stretch";

pub(super) struct Running {
    spec: Arc<Session>,
    /// The rows of open sessions, by partition and stretch of time.
    kept: Handle<Arrangement>,
    schema: SchemaRef,
    islands: Islands,
    /// Whether those of the rows that were restored are known.
    loaded: bool,
    account: MemoryAccount,
    /// What has come in this epoch.
    came: Vec<Changes>,
    came_bytes: usize,
    work: Option<Work>,
    /// So many regions at once.
    at_once: usize,
}

/// What is done about an epoch.
struct Work {
    /// What has come, as it is kept, in the order of partitions and times.
    came: Changes,
    times: Vec<i64>,
    regions: Regions,
    /// So many regions are done.
    done: usize,
    /// Sessions that end here or before have closed.
    until: i64,
}

/// A row of a piece, in the order of regions and times.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    region: u32,
    time: i64,
    row: u32,
}

/// What the rows of some regions were and what they have become.
struct Piece {
    rows: Changes,
    /// The rows before this one were kept.
    kept: u32,
    old: Vec<Entry>,
    new: Vec<Entry>,
    /// Whether what was and what is are different rows of `rows`, and not told apart by their places.
    apart: bool,
}

/// Rows to be said or kept, by their places in a piece.
#[derive(Default)]
struct Picked {
    rows: Vec<u32>,
    weights: Vec<i64>,
    starts: Vec<i64>,
    ends: Vec<i64>,
}

impl Picked {
    fn add(&mut self, row: u32, weight: i64, (start, end): (i64, i64)) {
        self.rows.push(row);
        self.weights.push(weight);
        self.starts.push(start);
        self.ends.push(end);
    }
}

impl Running {
    pub(super) fn new(spec: Arc<Session>, context: &mut BuildContext<'_>) -> Result<Self> {
        let nullable = |f: &Arc<Field>| Arc::new(f.as_ref().clone().with_nullable(true));
        let mut fields: Vec<_> = spec.input.fields().iter().map(nullable).collect();
        let keys = Schema::new(spec.key.iter().map(|column| fields[*column].clone()).collect::<Vec<_>>());
        fields.push(Arc::new(Field::new(STRETCH, DataType::Int64, true)));
        let schema = Arc::new(Schema::new(fields));
        let key = spec.key.iter().copied().chain([spec.input.fields().len()]).collect();
        let kept = Arrangement::new(schema.clone(), key)?.owned_by(spec.key.clone());
        let islands = Islands::new(keys, spec.sessions, spec.closes)?;
        Ok(Running {
            kept: context.state.open("rows", kept),
            account: context.state.account(),
            spec,
            schema,
            islands,
            loaded: false,
            came: vec![],
            came_bytes: 0,
            work: None,
            at_once: 1 << 10,
        })
    }

    /// The event times of rows as they come, or as they are kept.
    fn times_of(&self, rows: &RecordBatch) -> Result<Vec<i64>> {
        Ok(event_times(rows.column(self.spec.time), self.spec.sessions.gap.micros())?.values().to_vec())
    }

    fn slots_of(&mut self, rows: &RecordBatch) -> Result<Vec<u32>> {
        let keys: Vec<ArrayRef> = self.spec.key.iter().map(|column| rows.column(*column).clone()).collect();
        self.islands.slots(&keys, rows.num_rows())
    }

    /// Finds the islands of the rows that were restored.
    fn load(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.loaded, true) {
            return Ok(());
        }
        let mut all: Vec<(u32, i64, i64)> = vec![];
        for part in self.kept.with(|kept| kept.all())? {
            let (slots, times) = (self.slots_of(part.rows())?, self.times_of(part.rows())?);
            all.extend(slots.into_iter().zip(times).enumerate().map(|(row, (slot, t))| (slot, t, part.weight(row))));
        }
        all.sort_unstable();
        let same = all.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1));
        let there = same.filter(|same| same.iter().map(|(_, _, weight)| weight).sum::<i64>() > 0);
        let there: Vec<_> = there.map(|same| (0, same[0].0, same[0].1)).collect();
        self.settle(there);
        Ok(())
    }

    /// Notes the islands of rows of these regions and partitions at these times, in order.
    fn settle(&mut self, rows: Vec<(u32, u32, i64)>) {
        let after = |last: i64| self.spec.sessions.after(last);
        let islands = rows.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1) && b.2 < after(a.2));
        islands.map(|rows| (rows[0], rows[rows.len() - 1])).for_each(|((_, slot, first), (_, _, last))| {
            self.islands.insert(Island { slot, first, last });
        });
    }

    /// Begins with what has come, and what has closed at `until`.
    fn begin(&mut self, until: i64) -> Result<()> {
        let came = Changes::concat(&self.spec.input, &std::mem::take(&mut self.came))?;
        let (slots, times) = (self.slots_of(came.rows())?, self.times_of(came.rows())?);
        let mut places: Vec<(u32, i64, u32)> =
            slots.iter().zip(&times).zip(0..).map(|((s, t), row)| (*s, *t, row)).collect();
        if !places.is_sorted() {
            places.sort_unstable();
        }
        let order: UInt32Array = places.iter().map(|(_, _, row)| *row).collect();
        let came = came.take(&order)?;
        let stretch = self.spec.sessions.stretch();
        let mut columns = came.rows().columns().to_vec();
        columns.push(Arc::new(places.iter().map(|(_, t, _)| Some(t.div_euclid(stretch))).collect::<Int64Array>()));
        let came = came.with_rows(RecordBatch::try_new(self.schema.clone(), columns)?);
        let times = places.iter().map(|(_, t, _)| *t).collect();
        let mut regions = Regions::near(&places, &came, &mut self.islands, &self.spec.sessions);
        regions.add_due(&mut self.islands, until);
        self.work = Some(Work { came, times, regions, done: 0, until });
        Ok(())
    }

    /// Goes on until there is no room, or all is done.
    fn advance(&mut self, out: &mut Output) -> Result<()> {
        let Some(mut work) = self.work.take() else { return Ok(()) };
        while work.done < work.regions.all.len() {
            if !out.has_room() {
                out.come_back();
                self.work = Some(work);
                return Ok(());
            }
            let next = work.regions.all.len().min(work.done + self.at_once);
            let bytes = self.do_some(&work, work.done..next, out)?;
            work.done = next;
            self.at_once = match bytes {
                0..PIECE_BYTES => (self.at_once * 2).min(MOST_AT_ONCE),
                _ => (self.at_once / 2).max(1),
            };
        }
        self.came_bytes = 0;
        self.islands.sweep()?;
        self.account.resize(self.islands.bytes())
    }

    /// Works some regions off; gives the bytes of their rows.
    fn do_some(&mut self, work: &Work, regions: Range<usize>, out: &mut Output) -> Result<usize> {
        let (mut looked, mut only_come) = (vec![], vec![]);
        for at in regions {
            let region = &work.regions.all[at];
            let closes = self.spec.closes && self.spec.sessions.end(region.first, region.last) <= work.until;
            if !self.spec.on_close || closes || region.takes_back {
                looked.push(at);
                continue;
            }
            // Nothing is said yet.
            only_come.extend(region.came.clone().map(|row| row as u32));
            self.islands.insert(Island { slot: region.slot, first: region.first, last: region.last });
        }
        if !only_come.is_empty() {
            let all = only_come.len() == work.times.len();
            let came = if all { work.came.clone() } else { work.came.take(&only_come.into())? };
            self.keep(&came)?;
        }
        if looked.is_empty() {
            return Ok(0);
        }
        let piece = self.piece(work, &looked)?;
        let bytes = piece.rows.bytes();
        self.account.resize_large(self.came_bytes + 3 * bytes + self.islands.bytes())?;
        self.say(piece, work, &looked, out)?;
        Ok(bytes)
    }

    fn keep(&self, rows: &Changes) -> Result<()> {
        self.kept.with(|kept| {
            let rows = kept.keyed(rows)?;
            kept.insert(&rows)
        })
    }

    /// The rows of the regions `looked`: those that are kept and those that have come.
    fn piece(&self, work: &Work, looked: &[usize]) -> Result<Piece> {
        let (mut parts, mut old) = self.fetch(work, looked)?;
        let kept = old.len() as u32;
        let (mut came, mut new): (Vec<u32>, Vec<Entry>) = (vec![], old.clone());
        for (region, at) in (0..).zip(looked) {
            for row in work.regions.all[*at].came.clone() {
                new.push(Entry { region, time: work.times[row], row: kept + came.len() as u32 });
                came.push(row as u32);
            }
        }
        parts.push(work.came.take(&came.into())?);
        let rows = Changes::concat(&self.schema, &parts)?;
        if rows.weights().is_some_and(|weights| weights.iter().any(|w| *w <= 0)) {
            return self.netted(&rows, &old, &new);
        }
        old.sort_unstable();
        new.sort_unstable();
        Ok(Piece { rows, kept, old, new, apart: false })
    }

    /// What is kept of the rows of regions, and the regions and times of these.
    fn fetch(&self, work: &Work, looked: &[usize]) -> Result<(Vec<Changes>, Vec<Entry>)> {
        let stretch = self.spec.sessions.stretch();
        let (mut slots, mut stretches, mut regions) = (vec![], vec![], vec![]);
        for (region, at) in (0_u32..).zip(looked) {
            let (of, mut next) = (&work.regions.all[*at], i64::MIN);
            for island in &work.regions.islands[of.islands.clone()] {
                let (from, to) = (island.first.div_euclid(stretch), island.last.div_euclid(stretch));
                for stretch in from.max(next)..=to {
                    slots.push(of.slot);
                    stretches.push(stretch);
                    regions.push(region);
                }
                next = to + 1;
            }
        }
        let (mut parts, mut entries) = (vec![], vec![]);
        if slots.is_empty() {
            return Ok((parts, entries));
        }
        let mut columns: Vec<ArrayRef> =
            self.schema.fields().iter().map(|f| new_null_array(f.data_type(), slots.len())).collect();
        for (column, key) in self.spec.key.iter().zip(self.islands.keys_of(&slots)?) {
            columns[*column] = key;
        }
        let all: Vec<usize> = (0..columns.len()).collect();
        columns[all.len() - 1] = Arc::new(Int64Array::from(stretches));
        let probe = Changes::insertions(RecordBatch::try_new(self.schema.clone(), columns)?);
        let (probe, mut cursor) = (self.kept.with(|kept| kept.keyed(&probe))?, Cursor::default());
        loop {
            let (pairs, done) = self.kept.with(|kept| kept.pairs(&probe, &mut cursor, ASKED))?;
            if !pairs.is_empty() {
                let columns = self.kept.with(|kept| kept.columns_in(&pairs, &all))?;
                let rows = RecordBatch::try_new(self.schema.clone(), columns)?;
                let (mut of, times) = (vec![], self.times_of(&rows)?);
                for (row, (probe, time)) in pairs.probe.iter().zip(times).enumerate() {
                    let region = regions[*probe as usize];
                    let bounds = &work.regions.all[looked[region as usize]];
                    // Others are in the same stretch of time.
                    if (bounds.first..=bounds.last).contains(&time) {
                        entries.push(Entry { region, time, row: entries.len() as u32 });
                        of.push(row as u32);
                    }
                }
                parts.push(Changes::weighted(rows, pairs.weights.into())?.take(&of.into())?);
            }
            if done {
                return Ok((parts, entries));
            }
        }
    }

    /// The same where rows are taken back: they meet what they take back.
    fn netted(&self, rows: &Changes, old: &[Entry], new: &[Entry]) -> Result<Piece> {
        let fields = self.schema.fields().iter().cloned();
        let region = Arc::new(Field::new("_region", DataType::Int64, false));
        let schema = Arc::new(Schema::new(fields.chain([region]).collect::<Vec<_>>()));
        let net = |entries: &[Entry]| {
            let rows = rows.take(&entries.iter().map(|entry| entry.row).collect())?;
            let mut columns = rows.rows().columns().to_vec();
            columns.push(Arc::new(entries.iter().map(|entry| Some(i64::from(entry.region))).collect::<Int64Array>()));
            let rows = rows.with_rows(RecordBatch::try_new(schema.clone(), columns)?);
            Ok::<_, Error>(consolidate(&schema, &[rows], None)?.0)
        };
        let (old, new) = (net(old)?, net(new)?);
        if new.weights().or(old.weights()).is_some() {
            return Err(Error::internal("session: a row was taken back that is not there"));
        }
        let (kept, mut parts, mut entries) = (old.num_rows() as u32, vec![], vec![]);
        for (part, from) in [(old, 0), (new, kept)] {
            let (columns, rows) = (part.rows().columns(), part.num_rows());
            let (regions, columns) = columns.split_last().ok_or_else(|| Error::internal("session: no columns"))?;
            let regions = arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(regions).clone();
            let part = RecordBatch::try_new(self.schema.clone(), columns.to_vec())?;
            let times = self.times_of(&part)?;
            let entry =
                |row: usize| Entry { region: regions.value(row) as u32, time: times[row], row: from + row as u32 };
            let mut of: Vec<Entry> = (0..rows).map(entry).collect();
            of.sort_unstable();
            entries.push(of);
            parts.push(Changes::insertions(part));
        }
        let (new, old) = (entries.pop().unwrap_or_default(), entries.pop().unwrap_or_default());
        Ok(Piece { rows: Changes::concat(&self.schema, &parts)?, kept, old, new, apart: true })
    }

    /// Says what has become of the rows of some regions, and keeps those whose sessions are open.
    fn say(&mut self, piece: Piece, work: &Work, looked: &[usize], out: &mut Output) -> Result<()> {
        let (on_close, closes) = (self.spec.on_close, self.spec.closes);
        let has_closed = |end: i64| closes && end <= work.until;
        let (was, is) = (self.bounds(&piece.old), self.bounds(&piece.new));
        let (mut said, mut kept, mut open) = (Picked::default(), Picked::default(), vec![]);
        let mut old = piece.old.iter().zip(&was);
        for (entry, bounds) in piece.new.iter().zip(&is) {
            let weight = piece.rows.weight(entry.row as usize);
            let before = match !piece.apart && entry.row < piece.kept {
                true => old.next().map(|(_, bounds)| *bounds),
                false => None,
            };
            if on_close && has_closed(bounds.1) || !on_close && before.is_none() {
                said.add(entry.row, weight, *bounds);
            } else if let Some(before) = before.filter(|before| !on_close && before != bounds) {
                said.add(entry.row, -weight, before);
                said.add(entry.row, weight, *bounds);
            }
            match (before.is_some(), has_closed(bounds.1)) {
                (true, true) => kept.add(entry.row, -weight, *bounds),
                (false, false) => kept.add(entry.row, weight, *bounds),
                _ => {}
            }
            if !has_closed(bounds.1) {
                open.push((entry.region, work.regions.all[looked[entry.region as usize]].slot, entry.time));
            }
        }
        // Of rows that are told apart by what is in them all that was is taken back.
        for (entry, bounds) in piece.old.iter().zip(&was).filter(|_| piece.apart) {
            let weight = -piece.rows.weight(entry.row as usize);
            kept.add(entry.row, weight, *bounds);
            if !on_close {
                said.add(entry.row, weight, *bounds);
            }
        }
        self.settle(open);
        self.keep_picked(&piece, kept)?;
        self.emit(&piece, said, out)
    }

    /// The bounds of the session of each row.
    fn bounds(&self, entries: &[Entry]) -> Vec<(i64, i64)> {
        let mut bounds = Vec::with_capacity(entries.len());
        for region in entries.chunk_by(|a, b| a.region == b.region) {
            let times: Vec<i64> = region.iter().map(|entry| entry.time).collect();
            self.spec.sessions.each(&times, |rows, start, end| {
                bounds.extend(std::iter::repeat_n((start, end), rows.len()));
            });
        }
        bounds
    }

    fn keep_picked(&self, piece: &Piece, picked: Picked) -> Result<()> {
        if picked.rows.is_empty() {
            return Ok(());
        }
        let rows = rows_at(piece.rows.rows(), &picked.rows.into())?;
        let mut rows = Changes::weighted(rows, picked.weights.into())?;
        if piece.apart {
            rows = consolidate(&self.schema, &[rows], None)?.0;
        }
        self.keep(&rows)
    }

    fn emit(&self, piece: &Piece, picked: Picked, out: &mut Output) -> Result<()> {
        if picked.rows.is_empty() {
            return Ok(());
        }
        let inputs: Vec<usize> = (0..self.spec.input.fields().len()).collect();
        let rows = rows_at(&piece.rows.rows().project(&inputs)?, &picked.rows.into())?;
        let unit = self.spec.input.field(self.spec.time).data_type();
        let mut columns = rows.columns().to_vec();
        columns.extend([times(picked.starts, unit)?, times(picked.ends, unit)?]);
        let rows = RecordBatch::try_new(self.spec.schema.clone(), columns)?;
        let mut changes = Changes::weighted(rows, picked.weights.into())?;
        if piece.apart {
            changes = consolidate(&self.spec.schema, &[changes], None)?.0;
        }
        out.emit(changes);
        Ok(())
    }
}

impl Operator for Running {
    fn on_changes(&mut self, _port: usize, changes: Changes, _out: &mut Output) -> Result<()> {
        let times = event_times(changes.rows().column(self.spec.time), self.spec.sessions.gap.micros())?;
        let changes = match times.null_count() {
            0 => changes,
            _ => changes.filter(&is_not_null(&times)?)?,
        };
        if !changes.is_empty() {
            self.came_bytes += changes.bytes();
            self.came.push(changes);
        }
        self.account.resize_large(self.came_bytes + self.islands.bytes())
    }

    fn on_epoch(&mut self, mark: &EpochMark, out: &mut Output) -> Result<()> {
        self.load()?;
        let until = if self.spec.closes { mark.watermark.0 } else { i64::MIN };
        self.begin(until)?;
        self.advance(out)
    }

    fn go_on(&mut self, out: &mut Output) -> Result<()> {
        self.advance(out)
    }
}
