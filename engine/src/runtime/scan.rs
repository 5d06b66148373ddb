//! The task that reads a source: units, late rows, and the epochs that the coordinator cuts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use futures::future::BoxFuture;
use tokio::sync::mpsc;

use super::chain::{Chain, Pulse, Report};
use super::idle::Waits;
use super::progress::Consumed;
use crate::connector::{DeadLetter, Read, Source, Unit, UnitReader};
use crate::epoch::EpochMark;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{ScanTime, TimeBound};
use crate::memory::MemoryBudget;
use crate::time::{EventTime, max_time};

/// How long a task reads before the others of its thread may go on.
const TURN: Duration = Duration::from_micros(500);

/// A source task's part of an epoch.
pub(crate) struct Cut {
    pub(crate) epoch: u64,
    pub(crate) source: usize,
    pub(crate) consumed: Vec<Consumed>,
    /// What it waits for, unless its input has ended.
    pub(crate) waits: Option<Waits>,
    pub(crate) ended: bool,
    pub(crate) dead: Vec<DeadLetter>,
    /// How many rows were passed on, and how many came too late.
    pub(crate) rows: u64,
    pub(crate) late: u64,
}

/// A task that reads a source.
pub(crate) struct Scan {
    pub(crate) chain: Chain,
    /// Which of the job's sources.
    pub(crate) source_id: usize,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) time: Option<ScanTime>,
    /// Nothing acts on the watermark: to show it, the last rows of an epoch are enough. What they tell is
    /// never more than what all tell.
    pub(crate) sampled: bool,
    pub(crate) cuts: mpsc::Receiver<EpochMark>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) budget: Arc<MemoryBudget>,
    pub(crate) watermark: EventTime,
}

/// The unit being read, with what was read of it since the last cut.
struct Current {
    unit: Unit,
    from: u64,
    at: u64,
    bound: Option<EventTime>,
    max_time: Option<EventTime>,
    /// The rows whose event times are still to be noted.
    sample: Option<RecordBatch>,
}

/// What a step of reading gave.
enum Step {
    Opened(Unit, Box<dyn UnitReader>),
    Rows(Box<dyn UnitReader>, Read),
    UnitDone,
    /// The rest of the unit is the source's again.
    UnitGivenBack,
    Ended,
}

type Pending = BoxFuture<'static, Result<Step>>;

fn open_next(source: Arc<dyn Source>) -> Pending {
    Box::pin(async move {
        let Some(unit) = source.next_unit().await? else { return Ok(Step::Ended) };
        let reader = source.open(&unit).await?;
        Ok(Step::Opened(unit, reader))
    })
}

fn open_unit(source: Arc<dyn Source>, unit: Unit) -> Pending {
    Box::pin(async move {
        let reader = source.open(&unit).await?;
        Ok(Step::Opened(unit, reader))
    })
}

fn read_on(mut reader: Box<dyn UnitReader>) -> Pending {
    Box::pin(async move {
        Ok(match reader.next().await? {
            Some(read) => Step::Rows(reader, read),
            None if reader.is_whole() => Step::UnitDone,
            None => Step::UnitGivenBack,
        })
    })
}

/// The running loop of [`Scan`].
struct Scanning {
    scan: Scan,
    pending: Option<Pending>,
    current: Option<Current>,
    done: Vec<Consumed>,
    dead: Vec<DeadLetter>,
    /// Rows of the present epoch that were passed on, and late ones.
    rows: u64,
    late: u64,
    ended: bool,
    waiting_since: Instant,
    /// Since when other tasks of the thread have been waiting.
    turn_since: Instant,
}

/// Runs a task that reads a source.
pub(crate) async fn run_scan(scan: Scan) -> Result<()> {
    let pending = Some(open_next(scan.source.clone()));
    let mut s = Scanning {
        scan,
        pending,
        current: None,
        done: vec![],
        dead: vec![],
        rows: 0,
        late: 0,
        ended: false,
        waiting_since: Instant::now(),
        turn_since: Instant::now(),
    };
    loop {
        let step = tokio::select! {
            biased;
            cut = s.scan.cuts.recv() => match cut {
                None => return Ok(()),
                Some(mark) => {
                    if !s.cut(mark).await? {
                        return Ok(());
                    }
                    continue;
                }
            },
            step = async {
                match &mut s.pending {
                    Some(pending) => pending.await,
                    None => std::future::pending().await,
                }
            } => step?,
        };
        s.take(step).await?;
    }
}

impl Scanning {
    /// Takes in a step and starts the next.
    async fn take(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Opened(unit, reader) => {
                let at = unit.start;
                self.current = Some(Current { unit, from: at, at, bound: None, max_time: None, sample: None });
                self.pending = Some(read_on(reader));
                self.waiting_since = Instant::now();
            }
            Step::Rows(reader, read) => {
                self.rows(read).await?;
                self.relieve().await;
                self.share().await;
                self.pending = Some(read_on(reader));
            }
            Step::UnitDone | Step::UnitGivenBack => {
                let done = matches!(step, Step::UnitDone);
                if let Some(mut current) = self.current.take() {
                    if done && current.unit.end != u64::MAX {
                        current.at = current.unit.end;
                    }
                    self.done.push(current.consumed(self.scan.time.as_ref())?);
                    self.scan.pulse.add(1);
                }
                self.pending = Some(open_next(self.scan.source.clone()));
                self.waiting_since = Instant::now();
            }
            Step::Ended => {
                self.ended = true;
                self.pending = None;
                self.scan.pulse.add(1);
            }
        }
        Ok(())
    }

    async fn rows(&mut self, read: Read) -> Result<()> {
        let Read { rows, position, dead, watermark } = read;
        self.scan.chain.nodes[0].metrics.dead_letters(dead.len());
        self.scan.pulse.add(rows.num_rows() as u64 + dead.len() as u64);
        self.dead.extend(dead);
        let current = self.current.as_mut().ok_or_else(|| Error::internal("rows of no unit"))?;
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
        self.scan.chain.aside.split = Some(current.unit.split.clone());
        self.scan.chain.push(0, 0, changes).await
    }

    /// Under memory pressure sources wait a little, so that what is queued can drain. Closing windows
    /// needs marks, so the wait is short and the cuts go on.
    async fn relieve(&mut self) {
        if self.scan.budget.pressed() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// A source that always has rows would never wait, and no other task of its thread would run.
    async fn share(&mut self) {
        self.waiting_since = Instant::now();
        if self.waiting_since.duration_since(self.turn_since) >= TURN {
            tokio::task::yield_now().await;
            self.waiting_since = Instant::now();
            self.turn_since = self.waiting_since;
        }
    }

    /// Ends an epoch: reports what was read and passes the mark on. Says whether the job goes on.
    async fn cut(&mut self, mark: EpochMark) -> Result<bool> {
        if self.scan.source.in_groups() {
            self.finish_group().await?;
        }
        let mut consumed = std::mem::take(&mut self.done);
        if let Some(current) = &mut self.current {
            consumed.push(current.consumed(self.scan.time.as_ref())?);
        }
        let on = self.current.as_ref().map(|c| c.unit.split.clone());
        let waits = (!self.ended).then(|| Waits { on, time: self.waiting_since.elapsed() });
        let cut = Cut {
            epoch: mark.epoch,
            source: self.scan.source_id,
            consumed,
            waits,
            ended: self.ended,
            dead: std::mem::take(&mut self.dead),
            rows: std::mem::take(&mut self.rows),
            late: std::mem::take(&mut self.late),
        };
        let gone = |_| Error::new(ErrorKind::Cancelled, "the job is stopping");
        self.scan.chain.reports.send(Report::Cut(cut)).await.map_err(gone)?;
        self.scan.watermark = mark.watermark;
        self.scan.chain.mark(mark).await
    }

    /// Reads to the end of the present group: an epoch may not end within it.
    async fn finish_group(&mut self) -> Result<()> {
        loop {
            if self.current.is_some()
                && let Some(pending) = self.pending.take()
            {
                let step = pending.await?;
                self.take(step).await?;
                continue;
            }
            // A unit that was being handed out comes first; opening it does not wait.
            if let Some(pending) = &mut self.pending
                && let std::task::Poll::Ready(step) = futures::poll!(pending)
            {
                self.take(step?).await?;
                if self.ended {
                    return Ok(());
                }
                continue;
            }
            match self.scan.source.try_unit() {
                None => return Ok(()),
                Some(unit) => {
                    let step = open_unit(self.scan.source.clone(), unit).await?;
                    self.take(step).await?;
                }
            }
        }
    }
}

impl Current {
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
