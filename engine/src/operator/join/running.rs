//! A running join. What comes in is worked off in steps, between which what was said is passed on:
//!
//! 1. which keys or rows of the other side turn: find their first match or lose their last;
//! 2. pairs, some at a time, and the rows of the other side that turn;
//! 3. what the rows that came say alone;
//! 4. with a condition, the rows of the other side that turn, known only when all pairs are;
//! 5. the rows are put with those of their side.
//!
//! Rows of the left side of a lookup wait for the end of their epoch and go through 2 and 3 then; they are not kept.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::NullBuffer;

use super::alone::Rows;
use super::lookup::Waiting;
use super::matches::{Probe, next_pairs, weight};
use super::{Alone, Join, JoinColumn};
use crate::changelog::{Outgoing, Pieces};
use crate::changes::Changes;
use crate::epoch::EpochMark;
use crate::error::Result;
use crate::memory::MemoryAccount;
use crate::operator::{BuildContext, Operator, Output};
use crate::state::Handle;
use crate::state::arrangement::{Arrangement, Cursor, Keyed, Met, MetRows, Pairs};

/// So many rows that may turn are looked at at once.
const TURNING: usize = 1 << 12;

pub(super) struct Running {
    spec: Arc<Join>,
    sides: [Handle<Arrangement>; 2],
    /// For rows that may turn, and what is said at the end of the epoch.
    account: MemoryAccount,
    work: Option<Work>,
    /// What has been said in this epoch, of a join that says only what is left of it.
    said: Option<Outgoing>,
    /// What is left of that, and not said yet.
    left: Option<Pieces>,
    /// The rows of this epoch that are to be looked up.
    waiting: Waiting,
}

/// What is done about rows that have come.
struct Work {
    port: usize,
    rows: Keyed,
    /// The weights of the rows of the other side that match, by row.
    matched: Vec<i64>,
    turns: Turns,
    step: Step,
    /// The rows in which they are looked up, where the other side keeps some that have been taken back.
    among: Option<Arrangement>,
}

/// Which rows of the other side turn.
enum Turns {
    /// None, or it does not matter.
    None,
    /// Those with the key of these rows: 1 where they find their first match, -1 where they lose their last.
    Keys(Vec<i64>),
    /// Some of those that have been met.
    Rows(Met),
}

enum Step {
    /// Pairs from here on.
    Pairs(Cursor),
    /// What the rows say alone.
    Alone,
    /// Rows of the other side from here on.
    Turning(MetRows, usize),
    /// They are put with those of their side.
    Keep,
}

impl Running {
    pub(super) fn new(spec: Arc<Join>, context: &mut BuildContext<'_>) -> Result<Self> {
        let mut side = |name: &str, side: usize| -> Result<_> {
            let key = spec.keys[side].clone();
            let of = Arrangement::new(spec.inputs[side].clone(), key)?;
            Ok(context.state.open(name, of.expiring(spec.expiry[side].map(|e| e.column))))
        };
        let sides = [side("left", 0)?, side("right", 1)?];
        let account = context.state.account();
        let said = spec.settles.then(|| Outgoing::new(spec.schema.clone(), true, None));
        Ok(Running { spec, sides, account, work: None, said, left: None, waiting: Waiting::default() })
    }

    /// Parts off the rows whose key is null, which match nothing: they say what they say alone.
    fn without_nulls(&mut self, port: usize, changes: Changes, out: &mut Output) -> Result<Changes> {
        let keys = self.spec.keys[port].iter().map(|k| changes.rows().column(*k).logical_nulls());
        let nulls = keys.fold(None, |all, nulls| NullBuffer::union(all.as_ref(), nulls.as_ref()));
        let Some(nulls) = nulls.filter(|n| n.null_count() > 0 && !self.spec.nulls_equal) else { return Ok(changes) };
        if let Some(alone) = self.spec.kind.alone(port) {
            let single = changes.filter(&BooleanArray::new(!nulls.inner(), None))?;
            let columns = self.spec.columns_of(port).into_iter().map(|c| single.rows().column(c).clone()).collect();
            let weights = (0..single.num_rows()).map(|i| (single.weight(i), false));
            self.say(&Rows::new(port, columns, weights), alone, out)?;
        }
        changes.filter(&BooleanArray::new(nulls.inner().clone(), None))
    }

    fn say(&mut self, rows: &Rows, alone: Alone, out: &mut Output) -> Result<()> {
        rows.said(&self.spec, alone)?.into_iter().try_for_each(|changes| self.emit(changes, out))
    }

    fn emit(&mut self, changes: Changes, out: &mut Output) -> Result<()> {
        match &mut self.said {
            None => out.emit(changes),
            Some(said) => {
                // It waits for the end of the epoch.
                said.write(changes)?;
                self.account.resize_large(self.held_bytes())?;
            }
        }
        Ok(())
    }

    /// What waits for the end of the epoch.
    fn held_bytes(&self) -> usize {
        self.said.as_ref().map_or(0, Outgoing::bytes) + self.waiting.bytes()
    }

    /// Says what is left of the epoch, or as much of it as there is room for.
    fn settle(&mut self, out: &mut Output) -> Result<()> {
        let Some(mut left) = self.left.take() else { return Ok(()) };
        while out.has_room() {
            match left.next_piece()? {
                Some((changes, _)) => out.emit(changes),
                None => {
                    self.account.set(0);
                    return Ok(());
                }
            }
        }
        out.come_back();
        self.left = Some(left);
        Ok(())
    }

    /// Begins with rows that have come.
    fn begin(&mut self, port: usize, rows: Keyed) -> Result<()> {
        let turns = match self.spec.kind.alone(1 - port) {
            None => Turns::None,
            Some(_) if self.spec.condition.is_some() => Turns::Rows(Met::default()),
            Some(_) => Turns::Keys(self.turning_keys(port, &rows)?),
        };
        let step = Step::Pairs(Cursor::default());
        if let Turns::Keys(keys) = &turns
            && !self.spec.kind.gives_pairs()
        {
            // Only rows that turn others matter, and they are put with the others only here.
            self.sides[port].with(|side| side.insert(&rows))?;
            let turning: Vec<u32> = (0..rows.len() as u32).filter(|row| keys[*row as usize] != 0).collect();
            if turning.is_empty() {
                return Ok(());
            }
            let rows = self.sides[port].with(|side| rows.only(side, &turning))?;
            let turns = Turns::Keys(turning.iter().map(|row| keys[*row as usize]).collect());
            self.work = Some(Work { port, rows, matched: vec![], turns, step, among: None });
            return Ok(());
        }
        let among = if self.spec.lookup { self.sides[1].with(|side| side.netted(&rows))? } else { None };
        if let Some(among) = &among {
            self.account.resize_large(self.held_bytes() + among.kept_bytes())?;
        }
        self.work = Some(Work { port, matched: vec![0; rows.len()], rows, turns, step, among });
        Ok(())
    }

    /// For each of `rows`, how rows of the other side with its key turn; only the first with a key says so.
    fn turning_keys(&self, port: usize, rows: &Keyed) -> Result<Vec<i64>> {
        let heads = self.sides[port].with(|side| side.heads(rows))?;
        let mut more = vec![0; rows.len()];
        heads.iter().enumerate().for_each(|(row, head)| more[*head as usize] += rows.weight(row));
        let first: Vec<u32> =
            (0..rows.len() as u32).filter(|r| heads[*r as usize] == *r && more[*r as usize] != 0).collect();
        let probe = self.sides[port].with(|side| rows.only(side, &first))?;
        let before = self.sides[port].with(|side| side.sums(&probe))?;
        let mut turns = vec![0; rows.len()];
        for (row, before) in first.iter().zip(before) {
            turns[*row as usize] = turn(before, more[*row as usize]);
        }
        Ok(turns)
    }

    /// Goes on until there is no room, or all is done.
    fn advance(&mut self, out: &mut Output) -> Result<()> {
        while self.work.is_some() || !self.waiting.is_empty() {
            if !out.has_room() {
                out.come_back();
                break;
            }
            match self.work.take() {
                Some(mut work) => {
                    if !self.step(&mut work, out)? {
                        self.work = Some(work);
                    }
                }
                None => self.look_up(out)?,
            }
        }
        self.account.set(self.held_bytes());
        Ok(())
    }

    /// Begins with the next of the rows that are to be looked up.
    fn look_up(&mut self, out: &mut Output) -> Result<()> {
        let rows = self.waiting.take(&self.spec.inputs[0])?;
        let rows = self.without_nulls(0, rows, out)?;
        if rows.is_empty() {
            return Ok(());
        }
        let rows = self.sides[0].with(|side| side.keyed(&rows))?;
        self.begin(0, rows)
    }

    /// Does the next step. Says whether it was the last.
    fn step(&mut self, work: &mut Work, out: &mut Output) -> Result<bool> {
        match &mut work.step {
            Step::Pairs(cursor) => {
                let mut at = std::mem::take(cursor);
                let probe = Probe { port: work.port, rows: &work.rows, among: work.among.as_ref() };
                let (pairs, done) = next_pairs(&self.spec, &self.sides, probe, &mut at, Some(&mut *out))?;
                *cursor = at;
                self.pairs(work, &pairs, out)?;
                if done {
                    work.step = Step::Alone;
                }
                Ok(false)
            }
            Step::Alone => {
                if work.matched.is_empty() {
                    return Ok(true);
                }
                if let Some(alone) = self.spec.kind.alone(work.port) {
                    let all: Vec<u32> = (0..work.rows.len() as u32).collect();
                    let of = self.spec.columns_of(work.port);
                    let columns = self.sides[work.port].with(|side| side.columns_of(&work.rows, &all, &of))?;
                    let weights = work.matched.iter().enumerate().map(|(i, m)| (work.rows.weight(i), *m > 0));
                    self.say(&Rows::new(work.port, columns, weights), alone, out)?;
                }
                work.step = match std::mem::replace(&mut work.turns, Turns::None) {
                    Turns::Rows(met) => Step::Turning(met.in_order(), 0),
                    _ => Step::Keep,
                };
                Ok(false)
            }
            Step::Turning(met, from) => {
                let to = met.len().min(*from + TURNING);
                self.turning_rows(work.port, met, *from..to, out)?;
                if to == met.len() {
                    work.step = Step::Keep
                } else {
                    *from = to
                }
                Ok(false)
            }
            Step::Keep => {
                if !self.spec.lookup {
                    self.sides[work.port].with(|side| side.insert(&work.rows))?;
                }
                Ok(true)
            }
        }
    }

    /// Says what pairs are to say.
    fn pairs(&mut self, work: &mut Work, pairs: &Pairs, out: &mut Output) -> Result<()> {
        if pairs.is_empty() {
            return Ok(());
        }
        if !work.matched.is_empty() {
            pairs.add_up(&mut work.matched);
        }
        if self.spec.kind.gives_pairs() {
            let joined = self.joined(work, pairs)?;
            self.emit(joined, out)?;
        }
        let side = 1 - work.port;
        let Some(alone) = self.spec.kind.alone(side) else { return Ok(()) };
        match &mut work.turns {
            Turns::None => {}
            Turns::Keys(turns) => {
                let turn = |i: usize| turns[pairs.probe[i] as usize];
                if (0..pairs.len()).any(|i| turn(i) != 0) {
                    let columns = self.sides[side].with(|a| a.columns_in(pairs, &self.spec.columns_of(side)))?;
                    let weights = (0..pairs.len()).map(|i| (pairs.weights[i], turn(i)));
                    self.say(&Rows::turned(side, columns, weights), alone, out)?;
                }
            }
            Turns::Rows(met) => {
                met.add(pairs, |i| work.rows.weight(pairs.probe[i] as usize));
                let held = self.said.as_ref().map_or(0, Outgoing::bytes) + met.bytes();
                self.account.resize_large(held)?;
            }
        }
        Ok(())
    }

    /// Pairs as rows.
    fn joined(&self, work: &Work, pairs: &Pairs) -> Result<Changes> {
        let (spec, port) = (&self.spec, work.port);
        let mine = self.sides[port].with(|a| a.columns_of(&work.rows, &pairs.probe, &spec.columns_of(port)))?;
        let theirs = self.sides[1 - port].with(|a| a.columns_in(pairs, &spec.columns_of(1 - port)))?;
        let (mut mine, mut theirs) = (mine.into_iter(), theirs.into_iter());
        let next = |c: &JoinColumn| match c {
            JoinColumn::Of(side, _) if *side == port => mine.next(),
            JoinColumn::Of(..) => theirs.next(),
            JoinColumn::Mark => None,
        };
        let columns: Vec<ArrayRef> = spec.columns.iter().filter_map(next).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(pairs.len()));
        let rows = RecordBatch::try_new_with_options(spec.schema.clone(), columns, &options)?;
        Changes::weighted(rows, (0..pairs.len()).map(|i| weight(&work.rows, pairs, i)).collect())
    }

    /// Says which of some rows of the other side turn, by the matches that they had before.
    fn turning_rows(
        &mut self,
        port: usize,
        met: &MetRows,
        range: std::ops::Range<usize>,
        out: &mut Output,
    ) -> Result<()> {
        let side = 1 - port;
        let Some(alone) = self.spec.kind.alone(side).filter(|_| !range.is_empty()) else { return Ok(()) };
        let rows = self.sides[side].with(|a| a.met(met, range.clone()))?;
        let (mut before, mut cursor) = (vec![0; rows.len()], Cursor::default());
        loop {
            // Those that fail were put aside when they came.
            let probe = Probe { port: side, rows: &rows, among: None };
            let (pairs, done) = next_pairs(&self.spec, &self.sides, probe, &mut cursor, None)?;
            pairs.add_up(&mut before);
            if done {
                break;
            }
        }
        let turns: Vec<i64> = before.iter().enumerate().map(|(i, b)| turn(*b, met.sum(range.start + i))).collect();
        let turning: Vec<u32> = (0..rows.len() as u32).filter(|row| turns[*row as usize] != 0).collect();
        if turning.is_empty() {
            return Ok(());
        }
        let of = self.spec.columns_of(side);
        let columns = self.sides[side].with(|a| a.columns_of(&rows, &turning, &of))?;
        let weights = turning.iter().map(|row| (rows.weight(*row as usize), turns[*row as usize]));
        self.say(&Rows::turned(side, columns, weights), alone, out)
    }
}

/// How rows turn that had matches with the weight `before`, when `more` come.
fn turn(before: i64, more: i64) -> i64 {
    i64::from(before + more > 0) - i64::from(before > 0)
}

impl Operator for Running {
    fn on_changes(&mut self, port: usize, changes: Changes, out: &mut Output) -> Result<()> {
        if self.spec.lookup && port == 0 {
            self.waiting.add(changes)?;
            return self.account.resize_large(self.held_bytes());
        }
        let changes = self.without_nulls(port, changes, out)?;
        if changes.is_empty() {
            return Ok(());
        }
        let rows = self.sides[port].with(|side| side.keyed(&changes))?;
        if self.spec.lookup {
            return self.sides[port].with(|side| side.insert(&rows));
        }
        self.begin(port, rows)?;
        self.advance(out)
    }

    fn on_epoch(&mut self, mark: &EpochMark, out: &mut Output) -> Result<()> {
        for (side, expiry) in self.spec.expiry.iter().enumerate() {
            if let Some(bound) = expiry.and_then(|e| e.bound(&self.spec.inputs[side], mark.watermark)) {
                self.sides[side].with(|side| side.expire(bound))?;
            }
        }
        self.left = self.said.as_mut().map(Outgoing::end_in_pieces).transpose()?;
        self.settle(out)?;
        self.advance(out)
    }

    fn go_on(&mut self, out: &mut Output) -> Result<()> {
        if self.left.is_some() { self.settle(out) } else { self.advance(out) }
    }
}
