//! The life of a task: it builds its operators, fetches the state of its keys, waits for the start, and runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::aside::Asides;
use super::chain::{AsideRows, Body, Chain, OutEdge, RunNode, Target, Uploads, run_gated};
use super::channel::{Gate, Receiver, stopping};
use super::counting::go_on_counting;
use super::fragment::{Fragments, labels};
use super::heavy::heavy;
use super::messages::{CutHere, Pulse, Report};
use super::scan::{Scan, run_scan};
use crate::checkpoint::{Claim, Manifest};
use crate::clock::Clock;
use crate::connector::{Opened, Sink, SinkWriter};
use crate::error::{Error, Result};
use crate::graph::{Graph, Node, NodeKind};
use crate::memory::MemoryBudget;
use crate::metrics::NodeMetrics;
use crate::operator::BuildContext;
use crate::state::{Owner, StateRegistry};

/// What a task uses of the process that runs it.
#[derive(Clone, Debug)]
pub struct Here {
    /// Writes and reads files.
    pub io: Handle,
    /// The process's memory budget.
    pub budget: Arc<MemoryBudget>,
    /// The time.
    pub clock: Clock,
}

/// What the tasks of a job have in common.
pub(super) struct JobPlan {
    /// The stream it feeds, for messages.
    pub(super) name: String,
    pub(super) graph: Graph,
    pub(super) fragments: Fragments,
    /// The names of the nodes, by which their states go.
    pub(super) labels: Vec<String>,
    /// The manifest from which the job goes on.
    pub(super) manifest: Manifest,
    pub(super) claim: Option<Claim>,
    /// By node and task.
    pub(super) metrics: Vec<Vec<Arc<NodeMetrics>>>,
    pub(super) asides: Arc<Asides>,
    pub(super) pulse: Arc<Pulse>,
    /// The sources, as they are open here; none where no task here reads it.
    pub(super) opened: Vec<Option<Opened>>,
    /// Whether this is the node on which the job was started.
    pub(super) is_home: bool,
}

impl JobPlan {
    /// The job of `graph` that feeds stream `name` and goes on from `manifest`, to be completed by what is open here.
    pub(super) fn new(name: &str, graph: Graph, claim: Option<Claim>, mut manifest: Manifest, asides: Asides) -> Self {
        let tasks = |n: &Node| (0..n.parallelism).map(|_| Arc::default()).collect();
        let metrics: Vec<Vec<_>> = graph.nodes.iter().map(tasks).collect();
        go_on_counting(&graph, &metrics, &mut manifest);
        JobPlan {
            name: name.to_owned(),
            fragments: Fragments::of(&graph),
            labels: labels(&graph),
            graph,
            manifest,
            claim,
            metrics,
            asides: Arc::new(asides),
            pulse: Arc::default(),
            opened: vec![],
            is_home: true,
        }
    }

    /// The source that `fragment` reads, by its place among the graph's.
    pub(super) fn source(&self, fragment: usize) -> Option<usize> {
        let head = self.head(fragment);
        let is_source = |id: &usize| matches!(self.graph.nodes[*id].kind, NodeKind::Source(_));
        is_source(&head).then(|| (0..head).filter(is_source).count())
    }

    /// The writer of `sink` for a task.
    fn writer(&self, sink: &dyn Sink, task: usize) -> Result<Box<dyn SinkWriter>> {
        match self.is_home {
            true => sink.open(task),
            false => sink.open_away(task, self.manifest.generation),
        }
    }

    /// How many tasks run `fragment`.
    pub(super) fn parallelism(&self, fragment: usize) -> usize {
        self.graph.nodes[self.head(fragment)].parallelism
    }

    /// The depth of the sources that are read first, or were when the job ended.
    pub(super) fn depth(&self) -> usize {
        match self.manifest.is_new() {
            true => self.graph.sources().map(|source| source.depth).max().unwrap_or_default(),
            false => self.manifest.depth,
        }
    }

    /// The node whose input is that of `fragment`.
    pub(super) fn head(&self, fragment: usize) -> usize {
        self.fragments.nodes[fragment][0]
    }
}

/// The sending ends of edges, by (from node, to node, port).
pub(super) type Outputs = BTreeMap<(usize, usize, usize), OutEdge>;

/// One task of a job.
pub(super) struct Task {
    pub(super) job: Arc<JobPlan>,
    pub(super) fragment: usize,
    pub(super) task: usize,
    /// The receiving ends of the edges into it.
    pub(super) inputs: Vec<Receiver>,
    /// The sending ends of those out of it.
    pub(super) outputs: Outputs,
    /// Where it reads a source: which of the job's, and how it hears of the epochs that are cut.
    pub(super) source: Option<(usize, mpsc::Receiver<CutHere>)>,
    pub(super) reports: mpsc::Sender<Report>,
    /// Set once all tasks have their state.
    pub(super) start: watch::Receiver<bool>,
}

impl Task {
    /// Runs the task with what is `here`, until its input has ended or the job stops.
    pub(super) async fn run(self, here: Here) {
        let reports = self.reports.clone();
        if let Err(e) = self.live(here).await {
            // The job may have ended.
            let _ = reports.send(Report::Failed(e)).await;
        }
    }

    async fn live(mut self, here: Here) -> Result<()> {
        let mut chain = self.chain(&here)?;
        let owner = Owner { task: self.task, parallelism: self.job.parallelism(self.fragment) };
        restore(&self.job, &mut chain.state, owner).await?;
        let states = chain.state.names().map(str::to_owned).collect();
        self.reports.send(Report::Ready { states }).await.map_err(|_| stopping())?;
        self.start.wait_for(|start| *start).await.map_err(|_| stopping())?;
        let Task { job, fragment, task, inputs, source, .. } = self;
        let head = job.head(fragment);
        let NodeKind::Source(node) = &job.graph.nodes[head].kind else {
            let metrics = job.metrics[head][task].clone();
            return run_gated(chain, Gate::new(inputs, metrics)).await;
        };
        let (source_id, cuts) = source.ok_or_else(|| Error::internal("a source task that does not hear of epochs"))?;
        let opened = job.opened.get(source_id).cloned().flatten();
        let opened = opened.ok_or_else(|| Error::internal("a source task where its source is not open"))?;
        let scan = Scan {
            chain,
            source_id,
            source: node.source.clone(),
            opened,
            tasks: owner.parallelism,
            time: node.time.clone(),
            sampled: !job.graph.follows_time(),
            cuts,
            pulse: job.pulse.clone(),
            budget: here.budget,
            clock: here.clock,
            watermark: job.manifest.watermark,
            begins: node.depth >= job.depth(),
            depth: node.depth,
        };
        run_scan(scan).await
    }

    /// Its operators, still without their state.
    fn chain(&mut self, here: &Here) -> Result<Chain> {
        let job = self.job.clone();
        let ids = &job.fragments.nodes[self.fragment];
        let task = self.task;
        let mut state = StateRegistry::new(job.name.clone(), here.budget.clone());
        let (mut nodes, mut edges) = (vec![], vec![]);
        for id in ids {
            let metrics = job.metrics[*id][task].clone();
            state.enter(job.labels[*id].clone(), metrics.clone());
            let body = match &job.graph.nodes[*id].kind {
                NodeKind::Source(_) => Body::Scan,
                NodeKind::Sink(s) => {
                    let place = job.graph.sinks().position(|(sink, _)| sink == *id).unwrap_or_default();
                    Body::Sink(place, job.writer(&*s.sink, task)?, state.account())
                }
                NodeKind::Operator(spec) => Body::Operator(spec.build(&mut BuildContext { state: &mut state })?),
            };
            let mut targets = vec![];
            for (to, node) in job.graph.nodes.iter().enumerate().skip(id + 1) {
                for (port, _) in node.inputs.iter().enumerate().filter(|(_, e)| e.from == *id) {
                    if let Some(place) = ids.iter().position(|n| *n == to) {
                        targets.push(Target::Local(place, port));
                    } else if let Some(out) = self.outputs.remove(&(*id, to, port)) {
                        edges.push(out);
                        targets.push(Target::Edge(edges.len() - 1));
                    }
                }
            }
            nodes.push(RunNode { body, targets, metrics });
        }
        let aside = AsideRows { shared: job.asides.clone(), split: None, letters: vec![] };
        let uploads = Uploads::new(job.claim.clone(), here.io.clone(), job.parallelism(self.fragment));
        let reports = self.reports.clone();
        Ok(Chain { fragment: self.fragment, task, nodes, edges, state, reports, aside, uploads })
    }
}

/// Fetches what the last checkpoint has of the keys of `owner`.
async fn restore(job: &JobPlan, state: &mut StateRegistry, owner: Owner) -> Result<()> {
    let Some(claim) = &job.claim else { return Ok(()) };
    for file in job.manifest.states.iter().filter(|f| f.concerns(owner)) {
        if !state.has(&file.name) {
            continue;
        }
        let bytes = claim.read(&file.path).await?;
        heavy(|| claim.restore(file, bytes, state, owner))?;
    }
    heavy(|| state.restored(job.manifest.watermark))
}
