//! A running ASOF join. At the end of an epoch, some at a time:
//!
//! 1. what has come and gone on the right, by key and time: the rows of the left side that it touches are looked up before and after;
//! 2. what has come on the left: it is looked up and put with the others, or waits until it is final;
//! 3. what waits and is final;
//! 4. rows that nobody needs go.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{cast, filter, is_not_null};

use super::{AsOf, Expires};
use crate::changes::Changes;
use crate::epoch::EpochMark;
use crate::error::{Error, Result};
use crate::memory::MemoryAccount;
use crate::operator::{BuildContext, Operator, Output};
use crate::state::Handle;
use crate::state::timeline::{Encoded, Picked, Place, Timeline};
use crate::time::EventTime;

/// So many rows of the left side are looked up at once.
const AT_ONCE: usize = 1 << 14;
/// About so many bytes of rows of the left side are taken together, if that is more than those of one time of the right side.
const PIECE_BYTES: usize = 4 << 20;
/// So many times of the right side at most.
const MOST_AT_ONCE: usize = 1 << 14;
/// So many keys are swept for each row that has come, and besides.
const EFFORT: usize = 4;
const BESIDES: usize = 1 << 10;
/// Later than all times.
const END: [u8; 1] = [0xff];

pub(super) struct Running {
    spec: Arc<AsOf>,
    /// The rows of the left side: all, or those that wait.
    left: Handle<Timeline>,
    right: Handle<Timeline>,
    account: MemoryAccount,
    /// What has come in this epoch.
    came: [Vec<Changes>; 2],
    came_bytes: usize,
    came_rows: usize,
    work: Option<Work>,
    /// The bound of the last epoch.
    bound: Option<Bounds>,
    /// So many times of the right side at once.
    at_once: usize,
}

/// What is done about an epoch.
struct Work {
    right: Coming,
    left: VecDeque<Changes>,
    /// What is final and waits has not been looked for yet.
    waits: bool,
}

/// Times before which no rows come any more, of each side.
type Bounds = [Vec<u8>; 2];

/// What has come and gone on the right side.
struct Coming {
    rows: Encoded,
    /// By key and order, each once, with its weight.
    net: Vec<(u32, i64)>,
    /// Those of one key and time, in the order in which they are worked off.
    groups: VecDeque<Range<usize>>,
}

/// Rows of the left side whose match may be another one now.
#[derive(Default)]
struct Touched {
    rows: Picked,
    weights: Vec<i64>,
    /// A row of the right side that has the key of each.
    keys: Vec<u32>,
    before: Vec<Option<u32>>,
    matches: Picked,
}

impl Running {
    pub(super) fn new(spec: Arc<AsOf>, context: &mut BuildContext<'_>) -> Result<Self> {
        let side = |side: usize| Timeline::new(spec.inputs[side].clone(), spec.keys[side].clone(), spec.times[side]);
        let left = if spec.settles { side(0)?.together() } else { side(0)? };
        let left = context.state.open("left", left);
        let right = context.state.open("right", side(1)?);
        let account = context.state.account();
        let (came, came_bytes, came_rows, work) = ([vec![], vec![]], 0, 0, None);
        Ok(Running { spec, left, right, account, came, came_bytes, came_rows, work, bound: None, at_once: 1 << 8 })
    }

    /// Parts off the rows whose key or time is null, which match nothing: those of the left side may say so.
    fn without_nulls(&self, side: usize, changes: Changes, out: &mut Output) -> Result<Changes> {
        let columns = self.spec.keys[side].iter().chain([&self.spec.times[side]]);
        let nulls = columns.map(|c| changes.rows().column(*c).logical_nulls());
        let nulls = nulls.fold(None, |all, nulls| NullBuffer::union(all.as_ref(), nulls.as_ref()));
        let Some(nulls) = nulls.filter(|n| n.null_count() > 0) else { return Ok(changes) };
        if side == 0 && self.spec.left_outer {
            let alone = changes.filter(&BooleanArray::new(!nulls.inner(), None))?;
            let none = vec![None; alone.num_rows()];
            let weights = (0..alone.num_rows()).map(|row| alone.weight(row)).collect();
            self.say(alone.rows().columns().to_vec(), weights, &Picked::default(), none, out)?;
        }
        changes.filter(&BooleanArray::new(nulls.inner().clone(), None))
    }

    /// Says rows of the left side, given by their columns, with those of `matches`.
    fn say(
        &self,
        left: Vec<ArrayRef>,
        mut weights: Vec<i64>,
        matches: &Picked,
        found: Vec<Option<u32>>,
        out: &mut Output,
    ) -> Result<()> {
        let [of_left, of_right] = self.spec.given;
        let (rows, found) = (found.len(), UInt32Array::from(found));
        let right = match matches.is_empty() {
            true => {
                let fields = self.spec.inputs[1].fields().iter();
                fields.map(|f| new_null_array(f.data_type(), rows)).collect()
            }
            false => self.right.with(|right| right.columns_at(matches, &found))?,
        };
        let mut columns: Vec<ArrayRef> =
            left.into_iter().take(of_left).chain(right.into_iter().take(of_right)).collect();
        if !self.spec.left_outer && found.null_count() > 0 {
            let matched = is_not_null(&found)?;
            columns = columns.iter().map(|column| filter(column, &matched)).collect::<Result<_, _>>()?;
            weights =
                weights.into_iter().zip(matched.values()).filter(|(_, matched)| *matched).map(|(w, _)| w).collect();
        }
        let options = RecordBatchOptions::new().with_row_count(Some(weights.len()));
        let said = RecordBatch::try_new_with_options(self.spec.schema.clone(), columns, &options)?;
        out.emit(Changes::weighted(said, weights.into())?);
        Ok(())
    }

    /// Begins with what has come.
    fn begin(&mut self) -> Result<()> {
        let [left, right] = std::mem::take(&mut self.came);
        let right = Changes::concat(&self.spec.inputs[1], &right)?;
        let rows = self.right.with(|side| side.encoded(right.rows()))?;
        self.came_bytes += rows.bytes();
        self.account.resize_large(self.came_bytes)?;
        let right = Coming::new(rows, &right, self.spec.way.is_back());
        self.work = Some(Work { right, left: left.into(), waits: self.spec.settles });
        Ok(())
    }

    /// Goes on until there is no room, or all is done.
    fn advance(&mut self, out: &mut Output) -> Result<()> {
        let Some(mut work) = self.work.take() else { return Ok(()) };
        loop {
            if !out.has_room() {
                out.come_back();
                self.work = Some(work);
                return Ok(());
            }
            if !work.right.groups.is_empty() {
                self.change_right(&mut work.right, out)?;
            } else if let Some(changes) = work.left.pop_front() {
                let now = changes.slice(0, changes.num_rows().min(AT_ONCE));
                if now.num_rows() < changes.num_rows() {
                    work.left.push_front(changes.slice(now.num_rows(), changes.num_rows() - now.num_rows()));
                }
                self.change_left(&now, out)?;
            } else if work.waits {
                work.waits = self.settle(out)?;
            } else {
                break;
            }
        }
        self.left.with(|left| left.end_epoch())?;
        self.right.with(|right| right.end_epoch())?;
        self.let_go()?;
        (self.came_bytes, self.came_rows) = (0, 0);
        self.account.set(0);
        Ok(())
    }

    /// Works off the next of what has come and gone on the right side.
    fn change_right(&mut self, coming: &mut Coming, out: &mut Output) -> Result<()> {
        // Where nobody has looked yet, there is no need to stop.
        let (touched, taken) = match self.left.with(|left| Ok(left.is_empty() || self.spec.settles))? {
            true => (Touched::default(), coming.groups.len()),
            false => (self.touched(coming)?, coming.groups.len().min(self.at_once)),
        };
        let groups: Vec<Range<usize>> = coming.groups.drain(..taken).collect();
        self.right.with(|right| {
            groups.into_iter().flatten().map(|at| coming.net[at]).for_each(|(row, weight)| {
                let row = row as usize;
                right.add(coming.rows.key(row), coming.rows.row(row), weight);
            });
            Ok(())
        })?;
        let bytes = touched.bytes();
        self.account.resize_large(self.came_bytes + 4 * bytes)?;
        self.at_once = match bytes {
            0..PIECE_BYTES => (self.at_once * 2).min(MOST_AT_ONCE),
            _ => (self.at_once / 2).max(1),
        };
        self.say_touched(touched, coming, out)
    }

    /// The rows of the left side that the next groups touch, with the matches that they have had.
    fn touched(&self, coming: &Coming) -> Result<Touched> {
        let way = self.spec.way;
        self.left.with(|left| {
            self.right.with(|right| {
                let mut touched = Touched::default();
                let mut done: Option<(u32, Place)> = None;
                for group in coming.groups.iter().take(self.at_once) {
                    let head = coming.net[group.start].0;
                    let key = coming.rows.key(head as usize);
                    let Some(rows) = left.series(key) else { continue };
                    let others = right.series(key);
                    let (mut from, mut to) = way.touched(rows, others, coming.rows.time(head as usize));
                    // What the group before has touched of the key.
                    if let Some((of, place)) = done.filter(|(of, _)| coming.rows.key(*of as usize) == key) {
                        match way.is_back() {
                            true => to = to.min(place),
                            false => from = from.max(place),
                        }
                        debug_assert!(of != head);
                    }
                    done = Some((head, if way.is_back() { from.min(to) } else { to.max(from) }));
                    for (row, weight) in rows.between(from, to) {
                        let found = others.and_then(|others| way.found(others, left.time(row)));
                        touched.rows.push(row);
                        touched.weights.push(weight);
                        touched.keys.push(head);
                        touched.before.push(found.map(|found| touched.matches.number(found)));
                    }
                }
                Ok(touched)
            })
        })
    }

    /// Takes back what touched rows had been said with, and says them anew.
    fn say_touched(&self, mut touched: Touched, coming: &Coming, out: &mut Output) -> Result<()> {
        if touched.rows.is_empty() {
            return Ok(());
        }
        let (mut at, mut weights, mut found) = (vec![], vec![], vec![]);
        self.left.with(|left| {
            self.right.with(|right| {
                for row in 0..touched.rows.len() {
                    let others = right.series(coming.rows.key(touched.keys[row] as usize));
                    let time = left.time(touched.rows.get(row));
                    let now = others.and_then(|others| self.spec.way.found(others, time));
                    let before = touched.before[row];
                    if before.map(|before| touched.matches.get(before as usize)) == now {
                        continue;
                    }
                    let now = now.map(|now| touched.matches.number(now));
                    at.extend([row as u32; 2]);
                    weights.extend([-touched.weights[row], touched.weights[row]]);
                    found.extend([before, now]);
                }
                Ok(())
            })
        })?;
        if at.is_empty() {
            return Ok(());
        }
        let columns = self.left.with(|left| left.columns_at(&touched.rows, &UInt32Array::from(at)))?;
        self.say(columns, weights, &touched.matches, found, out)
    }

    /// Works off rows of the left side.
    fn change_left(&mut self, changes: &Changes, out: &mut Output) -> Result<()> {
        let rows = self.left.with(|left| left.encoded(changes.rows()))?;
        if !self.spec.settles {
            self.say_found(changes, &rows, out)?;
        }
        // Of a row that is final nobody asks again, whether it comes or goes.
        let bound = self.bound.as_ref().map(|[left, _]| left.as_slice());
        let bound = bound.filter(|bound| self.spec.expires == Expires::Left && *bound != END);
        self.left.with(|left| {
            self.right.with(|right| {
                for row in 0..rows.len() {
                    let (key, time, weight) = (rows.key(row), rows.time(row), changes.weight(row));
                    if let Some(bound) = bound.filter(|bound| time < *bound) {
                        let found = right.series(key).and_then(|others| self.spec.way.found(others, time));
                        if self.spec.way.is_final(time, found, bound) {
                            left.forget(key, rows.row(row));
                            continue;
                        }
                    }
                    left.add(key, rows.row(row), weight);
                }
                Ok(())
            })
        })
    }

    /// Says rows of the left side with their matches.
    fn say_found(&self, changes: &Changes, rows: &Encoded, out: &mut Output) -> Result<()> {
        let (mut found, mut matches) = (Vec::with_capacity(rows.len()), Picked::default());
        self.right.with(|right| {
            let mut last = None;
            for row in 0..rows.len() {
                let key = rows.key(row);
                let series = match last {
                    Some((of, series)) if of == key => series,
                    _ => right.series(key),
                };
                last = Some((key, series));
                let row = series.and_then(|series| self.spec.way.found(series, rows.time(row)));
                found.push(row.map(|row| matches.number(row)));
            }
            Ok(())
        })?;
        let weights = (0..changes.num_rows()).map(|row| changes.weight(row)).collect();
        self.say(changes.rows().columns().to_vec(), weights, &matches, found, out)
    }

    /// Says some of the rows that have waited and are final. Says whether there may be more.
    fn settle(&mut self, out: &mut Output) -> Result<bool> {
        let Some([bound, _]) = &self.bound else { return Ok(false) };
        let (rows, weights) = self.left.with(|left| left.take_before(bound, AT_ONCE))?;
        let more = rows.num_rows() == AT_ONCE;
        let changes = Changes::weighted(rows, weights.into())?;
        if !changes.is_empty() {
            let rows = self.left.with(|left| left.encoded(changes.rows()))?;
            self.say_found(&changes, &rows, out)?;
        }
        Ok(more)
    }

    /// Lets rows go that nobody needs, of some keys.
    fn let_go(&mut self) -> Result<()> {
        let Some([of_left, of_right]) = self.bound.as_ref().filter(|[left, _]| **left != END) else { return Ok(()) };
        let keys = self.came_rows * EFFORT + BESIDES;
        let way = self.spec.way;
        if self.spec.expires != Expires::None && !self.spec.settles {
            self.left.with(|left| {
                self.right.with(|right| {
                    left.sweep(keys, |key, rows| {
                        let others = right.series(key);
                        rows.let_go(rows.seek(of_left), |row| {
                            let time = &row[..of_left.len()];
                            let found = others.and_then(|others| way.found(others, time));
                            !way.is_final(time, found, of_left)
                        });
                    });
                    Ok(())
                })
            })?;
        }
        if self.spec.expires == Expires::Both {
            self.right.with(|right| {
                right.sweep(keys, |_, rows| {
                    // The last one before the bound stays: it is the match of what comes until there is another.
                    if let Some(last) = rows.before(rows.seek(of_right)) {
                        let place = rows.seek(last);
                        rows.let_go(place, |_| false);
                    }
                });
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The times before which no rows come any more at `watermark`.
    fn bounds(&self, watermark: EventTime) -> Result<Option<Bounds>> {
        if self.spec.expires == Expires::None {
            return Ok(None);
        }
        if watermark == EventTime::MAX {
            return Ok(Some([END.to_vec(), END.to_vec()]));
        }
        let bound = |side: usize, of: &Handle<Timeline>| -> Result<Option<Vec<u8>>> {
            let (expiry, schema) = (self.spec.expiry(side), &self.spec.inputs[side]);
            let Some(bound) = expiry.bound(schema, watermark) else { return Ok(None) };
            let time: ArrayRef = Arc::new(Int64Array::from(vec![bound]));
            let time = cast(&time, schema.field(expiry.column).data_type())?;
            of.with(|of| of.time_of(&time)).map(Some)
        };
        Ok(bound(0, &self.left)?.zip(bound(1, &self.right)?).map(|(left, right)| [left, right]))
    }
}

impl Touched {
    fn bytes(&self) -> usize {
        self.rows.bytes() + self.matches.bytes() + self.weights.len() * size_of::<(i64, u32, Option<u32>)>()
    }
}

impl Coming {
    fn new(rows: Encoded, changes: &Changes, from_the_end: bool) -> Self {
        let of = |row: u32| (rows.key(row as usize), rows.row(row as usize));
        let mut order: Vec<u32> = (0..rows.len() as u32).collect();
        order.sort_unstable_by(|a, b| of(*a).cmp(&of(*b)));
        let same = order.chunk_by(|a, b| of(*a) == of(*b));
        let net = same.map(|same| (same[0], same.iter().map(|row| changes.weight(*row as usize)).sum()));
        let net: Vec<(u32, i64)> = net.filter(|(_, weight)| *weight != 0).collect();
        let time = |row: u32| (rows.key(row as usize), rows.time(row as usize));
        let (mut groups, mut from) = (VecDeque::new(), 0);
        for group in net.chunk_by(|a, b| time(a.0) == time(b.0)) {
            groups.push_back(from..from + group.len());
            from += group.len();
        }
        if from_the_end {
            // So that each row of the left side is touched by one of many that come before it.
            groups.make_contiguous().reverse();
        }
        Coming { rows, net, groups }
    }
}

impl Operator for Running {
    fn on_changes(&mut self, port: usize, changes: Changes, out: &mut Output) -> Result<()> {
        let changes = self.without_nulls(port, changes, out)?;
        if changes.is_empty() {
            return Ok(());
        }
        let Some(came) = self.came.get_mut(port) else { return Err(Error::internal("a join has two inputs")) };
        self.came_bytes += changes.bytes();
        self.came_rows += changes.num_rows();
        came.push(changes);
        self.account.resize_large(self.came_bytes)
    }

    fn on_epoch(&mut self, mark: &EpochMark, out: &mut Output) -> Result<()> {
        let bound = self.bounds(mark.watermark)?;
        if self.came.iter().all(Vec::is_empty) && bound == self.bound {
            return Ok(());
        }
        self.bound = bound;
        self.begin()?;
        self.advance(out)
    }

    fn go_on(&mut self, out: &mut Output) -> Result<()> {
        self.advance(out)
    }
}
