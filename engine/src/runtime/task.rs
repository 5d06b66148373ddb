//! One task: an instance of a fragment. Its operators are direct calls.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::sync::{Notify, mpsc};

use super::channel::{Event, Gate, Sender};
use super::progress::Consumed;
use crate::changes::Changes;
use crate::connector::{DeadLetter, Read, SinkWriter, Source, Staged, Unit, UnitReader};
use crate::epoch::EpochMark;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Exchange, ScanTime, TimeBound};
use crate::key::{hash_rows, partition};
use crate::memory::MemoryBudget;
use crate::metrics::NodeMetrics;
use crate::operator::{Operator, Output};
use crate::state::{StatePart, StateRegistry};
use crate::time::{EventTime, max_time};

/// What a task tells the coordinator.
pub(crate) enum Report {
    /// A source task has ended an epoch.
    Cut(Cut),
    /// A task has done all of an epoch.
    Done { epoch: u64, checkpoint: Option<Box<Parts>> },
    /// A task failed; the job stops.
    Failed(Error),
}

/// A source task's part of an epoch.
pub(crate) struct Cut {
    pub(crate) epoch: u64,
    pub(crate) source: usize,
    pub(crate) consumed: Vec<Consumed>,
    /// The split whose rows it waits for, and for how long.
    pub(crate) quiet: Option<(Arc<str>, Duration)>,
    pub(crate) ended: bool,
    pub(crate) dead: Vec<DeadLetter>,
}

/// A task's part of a checkpoint.
pub(crate) struct Parts {
    pub(crate) fragment: usize,
    pub(crate) task: usize,
    pub(crate) states: Vec<StatePart>,
    pub(crate) staged: BTreeMap<usize, Vec<Staged>>,
}

/// Tells the coordinator that there is something to cut.
#[derive(Default)]
pub(crate) struct Pulse {
    rows: std::sync::atomic::AtomicU64,
    notify: Notify,
}

impl Pulse {
    /// Counts `n` things that want an epoch.
    pub(crate) fn add(&self, n: u64) {
        use std::sync::atomic::Ordering;
        if self.rows.fetch_add(n, Ordering::AcqRel) == 0 {
            self.notify.notify_one();
        }
    }

    /// What has been counted since the last call.
    pub(crate) fn take(&self) -> u64 {
        self.rows.swap(0, std::sync::atomic::Ordering::AcqRel)
    }

    /// Whether anything has been counted.
    pub(crate) fn is_set(&self) -> bool {
        self.rows.load(std::sync::atomic::Ordering::Acquire) > 0
    }

    /// Waits until something has been counted.
    pub(crate) async fn wait(&self) {
        while !self.is_set() {
            self.notify.notified().await;
        }
    }
}

/// Where a node's output goes.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// A node of the same task, at a port.
    Local(usize, usize),
    /// An edge to other tasks.
    Edge(usize),
}

/// A node in a task.
pub(crate) struct RunNode {
    pub(crate) id: usize,
    pub(crate) body: Body,
    pub(crate) targets: Vec<Target>,
    pub(crate) metrics: Arc<NodeMetrics>,
}

/// What a node does.
pub(crate) enum Body {
    /// The head of a source fragment: rows come from its reader.
    Scan,
    Operator(Box<dyn Operator>),
    Sink(Box<dyn SinkWriter>),
}

/// An edge out of a task.
pub(crate) struct OutEdge {
    pub(crate) exchange: Exchange,
    pub(crate) senders: Vec<Sender>,
}

/// A task without its input.
pub(crate) struct Chain {
    pub(crate) fragment: usize,
    pub(crate) task: usize,
    pub(crate) nodes: Vec<RunNode>,
    pub(crate) edges: Vec<OutEdge>,
    pub(crate) state: StateRegistry,
    pub(crate) reports: mpsc::Sender<Report>,
}

impl Chain {
    /// Runs changes through the chain from `node` on.
    pub(crate) async fn push(&mut self, node: usize, port: usize, changes: Changes) -> Result<()> {
        let mut work = VecDeque::from([(node, port, changes)]);
        let mut out = Output::default();
        while let Some((at, port, changes)) = work.pop_front() {
            let node = &mut self.nodes[at];
            node.metrics.rows_in(changes.num_rows());
            let started = Instant::now();
            match &mut node.body {
                Body::Scan => out.emit(changes),
                Body::Operator(op) => op.on_changes(port, changes, &mut out)?,
                Body::Sink(writer) => writer.write(changes).await?,
            }
            node.metrics.busy(started.elapsed());
            self.route(at, &mut out, &mut work).await?;
        }
        Ok(())
    }

    async fn route(
        &mut self,
        at: usize,
        out: &mut Output,
        work: &mut VecDeque<(usize, usize, Changes)>,
    ) -> Result<()> {
        for changes in out.take() {
            self.nodes[at].metrics.rows_out(changes.num_rows());
            for target in 0..self.nodes[at].targets.len() {
                match self.nodes[at].targets[target] {
                    Target::Local(to, port) => work.push_back((to, port, changes.clone())),
                    Target::Edge(edge) => self.edges[edge].send(&changes).await?,
                }
            }
        }
        Ok(())
    }

    /// Ends an epoch in every node, sends the mark on, and reports. Says whether the job goes on.
    pub(crate) async fn mark(&mut self, mark: EpochMark) -> Result<bool> {
        for at in 0..self.nodes.len() {
            let mut out = Output::default();
            let node = &mut self.nodes[at];
            let started = Instant::now();
            match &mut node.body {
                Body::Scan => {}
                Body::Operator(op) => op.on_epoch(&mark, &mut out)?,
                Body::Sink(writer) => writer.epoch(&mark).await?,
            }
            node.metrics.busy(started.elapsed());
            let mut work = VecDeque::new();
            self.route(at, &mut out, &mut work).await?;
            for (to, port, changes) in work {
                self.push(to, port, changes).await?;
            }
        }
        for edge in &self.edges {
            for sender in &edge.senders {
                sender.mark(mark).await?;
            }
        }
        let checkpoint = match mark.checkpoint {
            None => None,
            Some(n) => Some(Box::new(self.stage(n).await?)),
        };
        let done = Report::Done { epoch: mark.epoch, checkpoint };
        self.reports.send(done).await.map_err(|_| Error::new(ErrorKind::Cancelled, "the job is stopping"))?;
        Ok(!mark.end)
    }

    async fn stage(&mut self, checkpoint: u64) -> Result<Parts> {
        let mut staged = BTreeMap::new();
        for node in &mut self.nodes {
            if let Body::Sink(writer) = &mut node.body {
                staged.insert(node.id, writer.stage(checkpoint).await?);
            }
        }
        Ok(Parts { fragment: self.fragment, task: self.task, states: self.state.snapshot()?, staged })
    }
}

impl OutEdge {
    async fn send(&self, changes: &Changes) -> Result<()> {
        match &self.exchange {
            Exchange::Hash(columns) if self.senders.len() > 1 => {
                let keys: Vec<_> = columns.iter().map(|c| changes.rows().column(*c).clone()).collect();
                let mut hashes = vec![];
                hash_rows(&keys, changes.num_rows(), &mut hashes)?;
                for (sender, rows) in self.senders.iter().zip(partition(&hashes, self.senders.len())) {
                    if !rows.is_empty() {
                        sender.send(changes.take(&rows)?).await?;
                    }
                }
                Ok(())
            }
            _ => match self.senders.first() {
                Some(sender) => sender.send(changes.clone()).await,
                None => Ok(()),
            },
        }
    }
}

/// Runs a task whose input comes from other tasks.
pub(crate) async fn run_gated(mut chain: Chain, mut gate: Gate) -> Result<()> {
    loop {
        match gate.next().await? {
            Event::Changes(port, changes) => chain.push(0, port, changes).await?,
            Event::Mark(mark) => {
                if !chain.mark(mark).await? {
                    return Ok(());
                }
            }
        }
    }
}

/// A task that reads a source.
pub(crate) struct Scan {
    pub(crate) chain: Chain,
    /// Which of the job's sources.
    pub(crate) source_id: usize,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) time: Option<ScanTime>,
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
}

/// What a step of reading gave.
enum Step {
    Opened(Unit, Box<dyn UnitReader>),
    Rows(Box<dyn UnitReader>, Read),
    UnitDone,
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
            None => Step::UnitDone,
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
    ended: bool,
    waiting_since: Instant,
    last_split: Option<Arc<str>>,
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
        ended: false,
        waiting_since: Instant::now(),
        last_split: None,
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
                self.last_split = Some(unit.split.clone());
                self.current = Some(Current { unit, from: at, at, bound: None, max_time: None });
                self.pending = Some(read_on(reader));
            }
            Step::Rows(reader, read) => {
                self.rows(read).await?;
                self.relieve().await;
                // A source that always has rows would never wait, and no other task of its thread would run.
                tokio::task::yield_now().await;
                self.pending = Some(read_on(reader));
                self.waiting_since = Instant::now();
            }
            Step::UnitDone => {
                if let Some(mut current) = self.current.take() {
                    if current.unit.end != u64::MAX {
                        current.at = current.unit.end;
                    }
                    self.done.push(current.consumed());
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
            let column = changes.rows().column(time.column).clone();
            let latest = max_time(&column)?;
            current.max_time = current.max_time.max(latest);
            let bound = match &time.bound {
                None => None,
                Some(TimeBound::Behind(micros)) => latest.map(|t| EventTime(t.0.saturating_sub(*micros))),
                Some(TimeBound::Rows(bound)) => {
                    max_time(&bound.evaluate(changes.rows())?.into_array(changes.num_rows())?)?
                }
            };
            current.bound = current.bound.max(bound);
            let mut late: Option<arrow::buffer::BooleanBuffer> = None;
            for closer in &time.closers {
                let one = closer.late(&column, self.scan.watermark)?;
                late = Some(late.map_or(one.clone(), |l| &l | &one));
            }
            if let Some(late) = late.filter(|l| l.count_set_bits() > 0) {
                self.scan.chain.nodes[0].metrics.late(late.count_set_bits());
                changes = changes.filter(&arrow::array::BooleanArray::new(!&late, None))?;
            }
        }
        self.scan.chain.push(0, 0, changes).await
    }

    /// Under memory pressure sources wait a little, so that what is queued can drain. Closing windows
    /// needs marks, so the wait is short and the cuts go on.
    async fn relieve(&mut self) {
        if self.scan.budget.pressed() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Ends an epoch: reports what was read and passes the mark on. Says whether the job goes on.
    async fn cut(&mut self, mark: EpochMark) -> Result<bool> {
        if self.scan.source.in_groups() {
            self.finish_group().await?;
        }
        let mut consumed = std::mem::take(&mut self.done);
        if let Some(current) = &mut self.current {
            consumed.push(current.consumed());
            (current.from, current.bound, current.max_time) = (current.at, None, None);
        }
        let quiet = match (&self.last_split, self.ended) {
            (Some(split), false) => Some((split.clone(), self.waiting_since.elapsed())),
            _ => None,
        };
        let cut = Cut {
            epoch: mark.epoch,
            source: self.scan.source_id,
            consumed,
            quiet,
            ended: self.ended,
            dead: std::mem::take(&mut self.dead),
        };
        let gone = |_| Error::new(ErrorKind::Cancelled, "the job is stopping");
        self.scan.chain.reports.send(Report::Cut(cut)).await.map_err(gone)?;
        self.scan.watermark = mark.watermark;
        self.scan.chain.mark(mark).await
    }

    /// Reads to the end of the present group: an epoch may not end within it.
    async fn finish_group(&mut self) -> Result<()> {
        loop {
            if self.current.is_some() {
                if let Some(pending) = self.pending.take() {
                    let step = pending.await?;
                    self.take(step).await?;
                    continue;
                }
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
    fn consumed(&self) -> Consumed {
        Consumed {
            split: self.unit.split.clone(),
            start: self.from,
            end: self.at,
            bound: self.bound,
            max_time: self.max_time,
        }
    }
}
