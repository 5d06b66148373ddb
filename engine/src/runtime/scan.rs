//! The task that reads a source: units, late rows, and the epochs that the coordinator cuts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use tokio::sync::mpsc;

use super::chain::Chain;
use super::channel::stopping;
use super::lanes::{LaneId, Lanes, Step};
use super::messages::{Cut, CutHere, Pulse, Report};
use super::reading::Current;
use crate::checkpoint::Consumed;
use crate::clock::Clock;
use crate::connector::{DeadLetter, Opened, Read, Source, Unit, UnitReader};
use crate::error::{Error, Result};
use crate::graph::{ScanTime, TimeBound};
use crate::memory::MemoryBudget;
use crate::time::{EventTime, max_time};

/// How long a task reads before the others of its thread may go on.
const TURN: Duration = Duration::from_micros(500);

/// A task that reads a source.
pub(crate) struct Scan {
    pub(crate) chain: Chain,
    /// Which of the job's sources.
    pub(crate) source_id: usize,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) opened: Opened,
    /// How many tasks read it.
    pub(crate) tasks: usize,
    pub(crate) time: Option<ScanTime>,
    /// Nothing acts on the watermark: to show it, the last rows of an epoch are enough. What they tell is
    /// never more than what all tell.
    pub(crate) sampled: bool,
    pub(crate) cuts: mpsc::Receiver<CutHere>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) budget: Arc<MemoryBudget>,
    pub(crate) clock: Clock,
    pub(crate) watermark: EventTime,
    /// Whether it may begin to read: others may have to be read first.
    pub(crate) begins: bool,
    /// Its source's depth.
    pub(crate) depth: usize,
}

/// The running loop of [`Scan`].
struct Scanning {
    scan: Scan,
    lanes: Lanes,
    done: Vec<Consumed>,
    dead: Vec<DeadLetter>,
    /// Rows of the present epoch that were passed on, and late ones.
    rows: u64,
    late: u64,
    /// There were no more units when last asked.
    drained: bool,
    /// How far it may read, and the bound that rows of the present split have set.
    horizon: EventTime,
    reached: Option<EventTime>,
    split: Option<Arc<str>>,
    /// Lanes that are read on in when the watermark has come nearer.
    resting: Vec<(LaneId, Box<dyn UnitReader>)>,
    /// Since when other tasks of the thread have been waiting.
    turn_since: Instant,
}

/// Runs a task that reads a source.
pub(crate) async fn run_scan(scan: Scan) -> Result<()> {
    let clock = scan.clock.clone();
    let mut s = Scanning {
        scan,
        lanes: Lanes::new(clock),
        done: vec![],
        dead: vec![],
        rows: 0,
        late: 0,
        drained: false,
        horizon: EventTime::MAX,
        reached: None,
        split: None,
        resting: vec![],
        turn_since: Instant::now(),
    };
    s.ask();
    loop {
        let step = tokio::select! {
            biased;
            cut = s.scan.cuts.recv() => match cut {
                None => return Ok(()),
                Some(cut) => {
                    if !s.cut(cut).await? {
                        return Ok(());
                    }
                    continue;
                }
            },
            step = s.lanes.step() => step?,
        };
        s.take(step).await?;
    }
}

impl Scanning {
    /// Takes in a step and starts the next.
    async fn take(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Opened(unit, reader) => {
                if self.scan.source.in_groups() {
                    // This one may have been had without waiting; nothing was lost.
                    self.lanes.ask_no_more();
                }
                if self.split.as_ref() != Some(&unit.split) {
                    (self.split, self.reached) = (Some(unit.split.clone()), None);
                }
                self.lanes.add(Current::new(unit), reader);
            }
            Step::Rows(lane, reader, read) => {
                self.rows(lane, read).await?;
                self.relieve().await;
                self.share().await;
                match self.is_ahead() {
                    true => self.resting.push((lane, reader)),
                    false => self.lanes.read_on(lane, reader),
                }
                return Ok(());
            }
            Step::Done(lane) => self.unit_done(lane, true)?,
            Step::GivenBack(lane) => self.unit_done(lane, false)?,
            Step::Ended => {
                self.drained = true;
                self.scan.pulse.add(1);
            }
        }
        self.ask();
        Ok(())
    }

    fn unit_done(&mut self, lane: LaneId, whole: bool) -> Result<()> {
        if let Some(mut current) = self.lanes.remove(lane) {
            match current.unit.end {
                _ if !whole => {}
                u64::MAX => self.scan.opened.intake.ended(&current.unit, current.at),
                end => current.at = end,
            }
            self.done.push(current.consumed(self.scan.time.as_ref())?);
            self.scan.pulse.add(1);
        }
        // What was given back is handed out again.
        self.drained = false;
        Ok(())
    }

    /// Asks for another unit where one more is to be read.
    fn ask(&mut self) {
        let more = self.scan.begins && !self.drained && !self.is_ahead();
        if more && !self.lanes.is_asking() && self.lanes.len() < self.most_units() {
            self.lanes.ask(self.scan.opened.clone());
        }
    }

    /// How many units are read at once: where they are read side by side, the task's share of the splits, so that all
    /// tasks together have them all.
    fn most_units(&self) -> usize {
        let source = &self.scan.source;
        match self.lanes.is_empty() || source.in_groups() || !source.side_by_side() {
            true => 1,
            false => self.scan.opened.intake.splits().len().div_ceil(self.scan.tasks),
        }
    }

    /// Whether it has read further than it may. Only a source that has an end can wait, and only where what it gives is
    /// kept until the watermark gets there.
    fn is_ahead(&self) -> bool {
        let (source, time) = (&self.scan.source, self.scan.time.as_ref());
        self.reached > Some(self.horizon)
            && source.bounded()
            && !source.in_groups()
            && time.is_some_and(|time| !time.closers.is_empty())
    }

    /// Whether all that there is has been read.
    fn ended(&self) -> bool {
        self.drained && self.lanes.is_empty()
    }

    async fn rows(&mut self, lane: LaneId, read: Read) -> Result<()> {
        let Read { rows, position, dead, watermark } = read;
        self.scan.chain.nodes[0].metrics.dead_letters(dead.len());
        self.scan.pulse.add(rows.num_rows() as u64 + dead.len() as u64);
        self.dead.extend(dead);
        let current = self.lanes.current(lane).ok_or_else(|| Error::internal("rows of no unit"))?;
        let split = current.unit.split.clone();
        current.at = current.at.max(position);
        current.bound = current.bound.max(watermark);
        if rows.is_empty() {
            return Ok(());
        }
        let mut changes = rows;
        if let Some(time) = &self.scan.time {
            if self.scan.sampled {
                current.sample = Some(changes.rows().clone());
            } else {
                current.note(changes.rows(), time)?;
            }
            self.reached = self.reached.max(current.bound);
            let column = changes.rows().column(time.column).clone();
            let mut late: Option<arrow::buffer::BooleanBuffer> = None;
            for closer in &time.closers {
                let one = closer.late(&column, self.scan.watermark)?;
                late = Some(late.map_or(one.clone(), |l| &l | &one));
            }
            if let Some(late) = late.filter(|l| l.count_set_bits() > 0) {
                self.late += late.count_set_bits() as u64;
                self.scan.chain.nodes[0].metrics.late(late.count_set_bits());
                changes = changes.filter(&arrow::array::BooleanArray::new(!&late, None))?;
            }
        }
        self.rows += changes.num_rows() as u64;
        self.scan.chain.aside.split = Some(split);
        self.scan.chain.push(0, 0, changes).await
    }

    /// Under memory pressure sources wait a little, so that what is queued can drain. Closing windows
    /// needs marks, so the wait is short and the cuts go on.
    async fn relieve(&mut self) {
        if self.scan.budget.pressed() {
            let wait = if self.scan.budget.nearly_full() { 20 } else { 2 };
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
    }

    /// A source that always has rows would never wait, and no other task of its thread would run.
    async fn share(&mut self) {
        if self.turn_since.elapsed() >= TURN {
            tokio::task::yield_now().await;
            self.turn_since = Instant::now();
        }
    }

    /// Ends an epoch: reports what was read and passes the mark on. Says whether the job goes on.
    async fn cut(&mut self, CutHere { mark, horizon }: CutHere) -> Result<bool> {
        if self.scan.begins && self.scan.source.in_groups() {
            self.finish_group().await?;
        }
        let mut consumed = std::mem::take(&mut self.done);
        for current in self.lanes.all() {
            consumed.push(current.consumed(self.scan.time.as_ref())?);
        }
        self.resting.iter().for_each(|(lane, _)| self.lanes.rest(*lane));
        let (ended, waits) = (self.ended(), self.lanes.waits());
        self.horizon = horizon;
        if !self.is_ahead() {
            self.resting.drain(..).for_each(|(lane, reader)| self.lanes.read_on(lane, reader));
        }
        // There may be more splits now.
        self.ask();
        let cut = Cut {
            epoch: mark.epoch,
            source: self.scan.source_id,
            consumed,
            waits,
            ended,
            ahead: self.is_ahead(),
            dead: std::mem::take(&mut self.dead),
            rows: std::mem::take(&mut self.rows),
            late: std::mem::take(&mut self.late),
        };
        self.scan.chain.reports.send(Report::Cut(cut)).await.map_err(|_| stopping())?;
        self.scan.watermark = mark.watermark;
        let goes_on = self.scan.chain.mark(mark).await?;
        if !self.scan.begins && self.scan.depth >= mark.depth {
            self.scan.begins = true;
            self.ask();
        }
        Ok(goes_on)
    }

    /// Reads to the end of the present group: an epoch may not end within it.
    async fn finish_group(&mut self) -> Result<()> {
        loop {
            if !self.lanes.is_empty() {
                let step = self.lanes.step().await?;
                self.take(step).await?;
                continue;
            }
            // A unit that was being handed out comes first; opening it does not wait.
            if let Some(step) = self.lanes.step_of_asking().await? {
                self.take(step).await?;
                if self.ended() {
                    return Ok(());
                }
                continue;
            }
            match self.scan.opened.intake.try_unit() {
                None => return Ok(()),
                Some(unit) => {
                    let reader = self.scan.opened.readers.read(&unit).await?;
                    self.take(Step::Opened(unit, reader)).await?;
                }
            }
        }
    }
}

impl Current {
    pub(super) fn new(unit: Unit) -> Self {
        let at = unit.start;
        Current { unit, from: at, at, bound: None, max_time: None, sample: None }
    }

    /// Notes the event times of `rows`.
    fn note(&mut self, rows: &RecordBatch, time: &ScanTime) -> Result<()> {
        let latest = max_time(rows.column(time.column))?;
        let bound = match &time.bound {
            None => None,
            Some(TimeBound::Behind(micros)) => latest.map(|t| EventTime(t.0.saturating_sub(*micros))),
            // A row whose bound cannot be told sets none.
            Some(TimeBound::Rows(bound)) => max_time(&crate::expr::evaluate(bound, rows)?.0)?,
        };
        self.max_time = self.max_time.max(latest);
        self.bound = self.bound.max(bound);
        Ok(())
    }

    /// What was read since the last call.
    fn consumed(&mut self, time: Option<&ScanTime>) -> Result<Consumed> {
        if let (Some(rows), Some(time)) = (self.sample.take(), time) {
            self.note(&rows, time)?;
        }
        let start = std::mem::replace(&mut self.from, self.at);
        Ok(Consumed {
            split: self.unit.split.clone(),
            start,
            end: self.at,
            bound: self.bound.take(),
            max_time: self.max_time.take(),
        })
    }
}
