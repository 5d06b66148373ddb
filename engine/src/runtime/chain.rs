//! One task: an instance of a fragment. Its operators are direct calls.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::aside::Asides;
use super::channel::{Event, Gate, Sender, stopping};
use super::heavy::heavy;
use super::messages::{Parts, Report};
use crate::changes::Changes;
use crate::checkpoint::Claim;
use crate::connector::SinkWriter;
use crate::epoch::EpochMark;
use crate::error::{Error, Result};
use crate::graph::Exchange;
use crate::key::{hash_rows, partition};
use crate::memory::MemoryAccount;
use crate::metrics::NodeMetrics;
use crate::operator::{Operator, Output};
use crate::state::{StatePart, StateRegistry};
use crate::table::dead_letters::Letter;

/// To write down a state that is larger takes so long that other tasks should not wait for it.
const LARGE_STATE: usize = 8 << 20;

/// Where a node's output goes.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// A node of the same task, at a port.
    Local(usize, usize),
    /// An edge to other tasks.
    Edge(usize),
}

/// What is still to be done in a task.
enum Work {
    /// Changes for a node, at a port.
    Changes(usize, usize, Changes),
    /// A node has more to say.
    GoOn(usize),
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
    Sink(usize, Box<dyn SinkWriter>, MemoryAccount),
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
    pub(crate) uploads: Uploads,
}

/// The rows of the present epoch that a task's operators have put aside.
pub(crate) struct AsideRows {
    pub(crate) shared: Arc<Asides>,
    /// The split that the rows at hand come from, in a task that reads.
    pub(crate) split: Option<Arc<str>>,
    pub(crate) letters: Vec<Letter>,
}

/// What a task makes durable while it goes on.
pub(crate) struct Uploads {
    claim: Option<Claim>,
    io: Handle,
    /// How many tasks the fragment has.
    parallelism: usize,
    running: JoinSet<()>,
}

impl Uploads {
    /// For a task of `parallelism`.
    pub(crate) fn new(claim: Option<Claim>, io: Handle, parallelism: usize) -> Self {
        Uploads { claim, io, parallelism, running: JoinSet::new() }
    }

    /// Writes `states`, then reports `parts` with their files. `held` is for what they take until then.
    fn begin(
        &mut self,
        mut parts: Parts,
        states: Vec<StatePart>,
        mut held: MemoryAccount,
        reports: mpsc::Sender<Report>,
    ) {
        while self.running.try_join_next().is_some() {}
        held.set(states.iter().map(StatePart::bytes).sum());
        let (claim, of) = (self.claim.clone(), self.parallelism);
        let upload = async move {
            let stored = match &claim {
                Some(claim) => claim.put_states(parts.checkpoint, parts.task, of, states).await,
                None => Err(Error::internal("a checkpoint of a job that keeps none")),
            };
            drop(held);
            let report = match stored {
                Ok(states) => {
                    parts.states = states;
                    Report::Stored(parts)
                }
                Err(e) => Report::Failed(e),
            };
            // The job may have ended.
            let _ = reports.send(report).await;
        };
        self.running.spawn_on(upload, &self.io);
    }

    /// Waits until all is reported.
    async fn end(&mut self) {
        while self.running.join_next().await.is_some() {}
    }
}

impl Chain {
    /// Runs changes through the chain from `node` on.
    pub(crate) async fn push(&mut self, node: usize, port: usize, changes: Changes) -> Result<()> {
        self.work(VecDeque::from([Work::Changes(node, port, changes)])).await
    }

    /// Does `work`, and what follows from each piece before the next: so what is under way is bounded.
    async fn work(&mut self, mut work: VecDeque<Work>) -> Result<()> {
        let mut out = Output::default();
        while let Some(next) = work.pop_front() {
            let started = Instant::now();
            let at = match next {
                Work::Changes(at, port, changes) => {
                    let node = &mut self.nodes[at];
                    node.metrics.rows_in(changes.num_rows());
                    match &mut node.body {
                        Body::Scan => out.emit(changes),
                        Body::Operator(op) => op.on_changes(port, changes, &mut out)?,
                        Body::Sink(_, writer, account) => {
                            writer.write(changes).await?;
                            hold(writer.as_mut(), account).await?;
                        }
                    }
                    at
                }
                Work::GoOn(at) => {
                    if let Body::Operator(op) = &mut self.nodes[at].body {
                        op.go_on(&mut out)?;
                    }
                    at
                }
            };
            self.nodes[at].metrics.busy(started.elapsed());
            self.route(at, &mut out, &mut work).await?;
        }
        Ok(())
    }

    /// Passes on what node `at` has said. What is for nodes of this task goes to the front of `work`.
    async fn route(&mut self, at: usize, out: &mut Output, work: &mut VecDeque<Work>) -> Result<()> {
        if out.take_comes_back() {
            work.push_front(Work::GoOn(at));
        }
        for aside in out.take_aside() {
            self.nodes[at].metrics.dead_letters(aside.failures.len());
            let letters = self.aside.shared.letters(aside, self.aside.split.as_ref())?;
            self.aside.letters.extend(letters);
        }
        let mut first = 0;
        for changes in out.take() {
            self.nodes[at].metrics.rows_out(changes.num_rows());
            for target in 0..self.nodes[at].targets.len() {
                match self.nodes[at].targets[target] {
                    Target::Local(to, port) => {
                        work.insert(first, Work::Changes(to, port, changes.clone()));
                        first += 1;
                    }
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
                Body::Sink(_, writer, account) => {
                    writer.epoch(&mark).await?;
                    let letters = writer.take_aside();
                    node.metrics.dead_letters(letters.len());
                    self.aside.letters.extend(letters.into_iter().map(Letter::from));
                    hold(writer.as_mut(), account).await?;
                }
            }
            node.metrics.busy(started.elapsed());
            let mut work = VecDeque::new();
            self.route(at, &mut out, &mut work).await?;
            self.work(work).await?;
        }
        for edge in &self.edges {
            for sender in &edge.senders {
                sender.mark(mark).await?;
            }
        }
        let staged = match mark.checkpoint {
            None => None,
            Some(n) => Some(self.stage(n, mark.end).await?),
        };
        let aside = std::mem::take(&mut self.aside.letters);
        let due = self.nodes.iter().filter_map(|node| match &node.body {
            Body::Operator(operator) => operator.due(),
            _ => None,
        });
        let done = Report::Done { epoch: mark.epoch, aside, due: due.min(), last: mark.end };
        self.reports.send(done).await.map_err(|_| stopping())?;
        if let Some((parts, states)) = staged {
            self.uploads.begin(parts, states, self.state.account(), self.reports.clone());
        }
        if mark.end {
            self.uploads.end().await;
        }
        Ok(!mark.end)
    }

    /// Its part of a checkpoint, and the states that are still to be made durable: none at the `end`, after which nothing is added to
    /// them.
    async fn stage(&mut self, checkpoint: u64, end: bool) -> Result<(Parts, Vec<StatePart>)> {
        let (mut staged, mut written) = (BTreeMap::new(), vec![]);
        for node in &mut self.nodes {
            if let Body::Sink(place, writer, account) = &mut node.body {
                staged.insert(*place, writer.stage(checkpoint).await?);
                account.set(writer.bytes());
                written.push((*place, node.metrics.read().rows_in));
            }
        }
        let states = match self.state.bytes() > LARGE_STATE {
            _ if end => vec![],
            true => heavy(|| self.state.snapshot())?,
            false => self.state.snapshot()?,
        };
        let parts = Parts { checkpoint, fragment: self.fragment, task: self.task, states: vec![], staged, written };
        Ok((parts, states))
    }
}

/// Counts what `writer` holds; where that is much, it gives back first what it can.
///
/// Errors when that is much and the budget has no room for it.
async fn hold(writer: &mut dyn SinkWriter, account: &mut MemoryAccount) -> Result<()> {
    if account.should_shrink(writer.bytes()) {
        writer.shrink().await?;
    }
    account.resize_large(writer.bytes()).map_err(|e| {
        e.with_hint("Raise it with SET memory_limit = '8GB', or commit more often: WITH (checkpoint_interval = '1 s').")
    })
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

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use async_trait::async_trait;

    use super::*;
    use crate::connector::Staged;
    use crate::error::ErrorKind;
    use crate::memory::MemoryBudget;

    fn rows(count: i64) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
        RecordBatch::try_from_iter([("n", numbers)]).expect("a column")
    }

    #[tokio::test]
    async fn what_a_checkpoint_still_writes_is_a_part_of_the_budget() {
        let budget = MemoryBudget::new(1 << 30);
        let mut uploads = Uploads::new(None, Handle::current(), 1);
        let parts =
            Parts { checkpoint: 1, fragment: 0, task: 0, states: vec![], staged: BTreeMap::new(), written: vec![] };
        let state = StatePart { name: "op.n".to_owned(), full: true, rows: vec![rows(1 << 17)] };
        let (reports, mut reported) = mpsc::channel(1);
        uploads.begin(parts, vec![state], budget.account("op"), reports);
        assert!(budget.used() >= 1 << 20, "{}", budget.used());
        uploads.end().await;
        assert!(reported.recv().await.is_some() && budget.used() == 0);
    }

    /// Holds as much as it is told, of which it can give back all but some.
    struct Hoard {
        bytes: usize,
        stays: usize,
    }

    #[async_trait]
    impl SinkWriter for Hoard {
        async fn write(&mut self, changes: Changes) -> Result<()> {
            self.bytes += changes.bytes();
            Ok(())
        }

        async fn epoch(&mut self, _mark: &EpochMark) -> Result<()> {
            Ok(())
        }

        async fn stage(&mut self, _checkpoint: u64) -> Result<Vec<Staged>> {
            Ok(vec![])
        }

        fn bytes(&self) -> usize {
            self.bytes
        }

        async fn shrink(&mut self) -> Result<()> {
            self.bytes = self.bytes.min(self.stays);
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_writer_gives_back_what_it_can_then_its_job_stops() {
        let budget = MemoryBudget::new(16 << 20);
        for (stays, ends) in [(1 << 20, true), (usize::MAX, false)] {
            let mut account = budget.account("sink 2 of stream \"s\"");
            let mut writer = Hoard { bytes: 0, stays };
            let mut held = Ok(());
            for _ in 0..64 {
                writer.write(Changes::insertions(rows(1 << 17))).await.expect("writes");
                held = hold(&mut writer, &mut account).await;
                if held.is_err() {
                    break;
                }
            }
            assert_eq!(held.is_ok(), ends);
            if let Err(e) = held {
                assert_eq!(e.kind(), ErrorKind::Exhausted);
                assert!(e.message().contains("out of memory: sink 2 of stream \"s\" holds"), "{e}");
                assert!(e.hint().is_some_and(|h| h.contains("checkpoint_interval")), "{e:?}");
            }
            drop(account);
            assert_eq!(budget.used(), 0);
        }
        // Those who need little go on, whoever has used the budget up.
        let _all = budget.hold(32 << 20);
        let mut account = budget.account("sink 1 of stream \"t\"");
        hold(&mut Hoard { bytes: 1 << 20, stays: usize::MAX }, &mut account).await.expect("little");
    }
}
