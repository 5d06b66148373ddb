//! One task: an instance of a fragment. Its operators are direct calls.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Notify, mpsc};

use super::aside::Asides;
use super::channel::{Event, Gate, Sender};
use super::scan::Cut;
use crate::changes::Changes;
use crate::connector::{SinkWriter, Staged};
use crate::epoch::EpochMark;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::Exchange;
use crate::key::{hash_rows, partition};
use crate::metrics::NodeMetrics;
use crate::operator::{Operator, Output};
use crate::state::{StatePart, StateRegistry};
use crate::table::dead_letters::Letter;

/// What a task tells the coordinator.
pub(crate) enum Report {
    /// A source task has ended an epoch.
    Cut(Cut),
    /// A task has done all of an epoch.
    Done { epoch: u64, checkpoint: Option<Box<Parts>>, aside: Vec<Letter> },
    /// A task failed; the job stops.
    Failed(Error),
}

/// A task's part of a checkpoint.
pub(crate) struct Parts {
    pub(crate) fragment: usize,
    pub(crate) task: usize,
    pub(crate) states: Vec<StatePart>,
    pub(crate) staged: BTreeMap<usize, Vec<Staged>>,
    /// Rows that went into each sink, by its place, since the job was made or an older build went on with it.
    pub(crate) written: Vec<(usize, u64)>,
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
    pub(crate) body: Body,
    pub(crate) targets: Vec<Target>,
    pub(crate) metrics: Arc<NodeMetrics>,
}

/// What a node does.
pub(crate) enum Body {
    /// The head of a source fragment: rows come from its reader.
    Scan,
    Operator(Box<dyn Operator>),
    /// Its place among the graph's sinks, and its writer.
    Sink(usize, Box<dyn SinkWriter>),
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
    pub(crate) aside: AsideRows,
}

/// The rows of the present epoch that a task's operators have put aside.
pub(crate) struct AsideRows {
    pub(crate) shared: Arc<Asides>,
    /// The split that the rows at hand come from, in a task that reads.
    pub(crate) split: Option<Arc<str>>,
    pub(crate) letters: Vec<Letter>,
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
                Body::Sink(_, writer) => writer.write(changes).await?,
            }
            node.metrics.busy(started.elapsed());
            self.route(at, &mut out, &mut work).await?;
        }
        Ok(())
    }

    async fn route(&mut self, at: usize, out: &mut Output, work: &mut VecDeque<(usize, usize, Changes)>) -> Result<()> {
        for aside in out.take_aside() {
            self.nodes[at].metrics.dead_letters(aside.failures.len());
            let letters = self.aside.shared.letters(aside, self.aside.split.as_ref())?;
            self.aside.letters.extend(letters);
        }
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
        self.aside.split = None;
        for at in 0..self.nodes.len() {
            let mut out = Output::default();
            let node = &mut self.nodes[at];
            let started = Instant::now();
            match &mut node.body {
                Body::Scan => {}
                Body::Operator(op) => op.on_epoch(&mark, &mut out)?,
                Body::Sink(_, writer) => writer.epoch(&mark).await?,
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
        let aside = std::mem::take(&mut self.aside.letters);
        let done = Report::Done { epoch: mark.epoch, checkpoint, aside };
        self.reports.send(done).await.map_err(|_| Error::new(ErrorKind::Cancelled, "the job is stopping"))?;
        Ok(!mark.end)
    }

    async fn stage(&mut self, checkpoint: u64) -> Result<Parts> {
        let (mut staged, mut written) = (BTreeMap::new(), vec![]);
        for node in &mut self.nodes {
            if let Body::Sink(place, writer) = &mut node.body {
                staged.insert(*place, writer.stage(checkpoint).await?);
                written.push((*place, node.metrics.read().rows_in));
            }
        }
        Ok(Parts { fragment: self.fragment, task: self.task, states: self.state.snapshot()?, staged, written })
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

/// Runs a task and tells the coordinator when it fails.
pub(crate) async fn report_failure(run: impl Future<Output = Result<()>>, reports: mpsc::Sender<Report>) {
    if let Err(e) = run.await {
        let _ = reports.send(Report::Failed(e)).await;
    }
}
