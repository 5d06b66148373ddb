//! Starting, watching and stopping a job.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::aside::{Asides, DeadLetterLimits, OnError};
use super::chain::{AsideRows, Body, Chain, OutEdge, Pulse, Report, RunNode, Target, report_failure, run_gated};
use super::channel::{Gate, Receiver, edge};
use super::commit::tell_committed;
use super::coordinator::{Command, Coordinator, SourceView};
use super::fragment::{Fragments, labels};
use super::run::{Run, go_on_counting};
use super::scan::{Scan, run_scan};
use crate::checkpoint::{Checkpoints, Manifest};
use crate::connector::SinkWriter;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Exchange, Graph, NodeKind};
use crate::memory::MemoryBudget;
use crate::metrics::{NodeFigures, NodeMetrics};
use crate::operator::BuildContext;
use crate::state::{Owner, StatePart, StateRegistry, unfit};
use crate::time::EventTime;

/// How a job runs.
#[derive(Clone, Debug)]
pub struct JobConfig {
    /// The stream it feeds, for messages.
    pub name: String,
    /// The shortest epoch: what an idle job adds to latency at most.
    pub min_epoch: Duration,
    /// The longest epoch, reached under load.
    pub max_epoch: Duration,
    /// `EMIT EVERY`: epochs of this length instead.
    pub every: Option<Duration>,
    /// The time between checkpoints.
    pub checkpoint_interval: Duration,
    /// Checkpoint at once whenever something was read: somebody waits for the commit.
    pub eager: bool,
    /// The bound of each edge, in bytes.
    pub edge_bytes: usize,
    /// What happens to rows on which an expression fails.
    pub on_error: OnError,
    /// Which dead letters are kept.
    pub dead_letters: DeadLetterLimits,
}

impl JobConfig {
    /// The defaults for the job of `name`.
    pub fn new(name: impl Into<String>) -> Self {
        JobConfig {
            name: name.into(),
            min_epoch: Duration::from_millis(5),
            max_epoch: Duration::from_millis(200),
            every: None,
            checkpoint_interval: Duration::from_secs(1),
            eager: false,
            edge_bytes: 4 << 20,
            on_error: OnError::default(),
            dead_letters: DeadLetterLimits::default(),
        }
    }
}

/// What jobs run on.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// Runs tasks.
    pub cpu: tokio::runtime::Handle,
    /// Writes and reads files.
    pub io: tokio::runtime::Handle,
    /// The process's memory budget.
    pub budget: Arc<MemoryBudget>,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobPhase {
    /// It runs.
    Running,
    /// It was stopped after a commit and can be started again.
    Stopped,
    /// Its input has ended and all is committed.
    Finished,
    /// It stopped with an error.
    Failed,
}

/// A job as it is now.
#[derive(Clone, Debug)]
pub struct JobStatus {
    /// Where it stands.
    pub phase: JobPhase,
    /// Why it failed.
    pub error: Option<(ErrorKind, String, Option<String>)>,
    /// The last finished epoch.
    pub epoch: u64,
    /// Its watermark.
    pub watermark: EventTime,
    /// Why the watermark is where it is: `held by app.log of stream "lines"`.
    pub holder: String,
    /// How long the last epoch took from its cut to its end.
    pub epoch_lag: Duration,
    /// The last committed checkpoint and its epoch.
    pub committed: (u64, u64),
    /// Rows put aside beyond the limit: they were counted only.
    pub beyond: u64,
    /// The share of the input that has been read, where its size is known.
    pub share: Option<f64>,
}

/// What coordinator, tasks and watchers share.
pub(super) struct Shared {
    status: watch::Sender<JobStatus>,
    metrics: Vec<Vec<Arc<NodeMetrics>>>,
}

impl Shared {
    pub(super) fn set_phase(&self, phase: JobPhase, error: Option<&Error>) {
        self.status.send_modify(|s| {
            s.phase = phase;
            s.error = error.map(|e| (e.kind(), e.message().to_owned(), e.hint().map(str::to_owned)));
        });
    }

    pub(super) fn set_epoch(&self, epoch: u64, watermark: EventTime, lag: Duration) {
        self.status.send_modify(|s| (s.epoch, s.watermark, s.epoch_lag) = (epoch, watermark, lag));
    }

    pub(super) fn set_holder(&self, holder: String) {
        self.status.send_if_modified(|s| {
            s.holder = holder;
            false
        });
    }

    pub(super) fn set_share(&self, share: Option<f64>) {
        self.status.send_if_modified(|s| {
            s.share = share;
            false
        });
    }

    pub(super) fn set_committed(&self, manifest: &Manifest) {
        self.status.send_modify(|s| {
            (s.committed, s.beyond) = ((manifest.checkpoint, manifest.epoch), manifest.dead.beyond);
        });
    }
}

/// A started job. Dropping the handle does not stop it.
pub struct JobHandle {
    shared: Arc<Shared>,
    pub(super) status: watch::Receiver<JobStatus>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) graph: Graph,
    abort: Arc<Notify>,
}

impl JobHandle {
    /// The job as it is now.
    pub fn status(&self) -> JobStatus {
        self.status.borrow().clone()
    }

    /// Changes whenever an epoch ends, a checkpoint commits or the phase changes.
    pub fn watch(&self) -> watch::Receiver<JobStatus> {
        self.status.clone()
    }

    /// Its dataflow.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The figures of each node, added up over its tasks.
    pub fn figures(&self) -> Vec<NodeFigures> {
        let add = |tasks: &Vec<Arc<NodeMetrics>>| {
            let mut all = NodeFigures::default();
            for t in tasks {
                all += t.read();
            }
            all
        };
        self.shared.metrics.iter().map(add).collect()
    }

    /// Commits what has been read and stops. Gives the job's error when it failed.
    pub async fn stop(&self) -> Result<()> {
        let (tx, rx) = oneshot::channel();
        if self.commands.send(Command::Stop(tx)).await.is_ok() {
            let _ = rx.await;
        }
        self.failure()
    }

    /// Stops soon, without another commit; what was not committed is read again when the job is started again.
    pub fn abort(&self) {
        self.abort.notify_one();
    }

    /// Waits until the job runs no more.
    pub async fn wait(&self) -> JobStatus {
        let mut status = self.status.clone();
        match status.wait_for(|s| s.phase != JobPhase::Running).await {
            Ok(s) => s.clone(),
            Err(_) => self.status(),
        }
    }

    /// The error of a failed job.
    pub fn failure(&self) -> Result<()> {
        match self.status().error {
            None => Ok(()),
            Some((kind, message, hint)) => {
                let e = Error::new(kind, message);
                Err(match hint {
                    Some(hint) => e.with_hint(hint),
                    None => e,
                })
            }
        }
    }
}

impl Runtime {
    /// Starts `graph`, from its last checkpoint where it has any. Without `checkpoints` it keeps nothing.
    pub async fn start(&self, graph: Graph, config: JobConfig, checkpoints: Option<Checkpoints>) -> Result<JobHandle> {
        graph.validate()?;
        let sources = graph.sources().count();
        let last = match &checkpoints {
            None => None,
            Some(c) => c.last().await?,
        };
        if let Some(c) = &checkpoints {
            c.sweep(last.as_ref()).await?;
        }
        let manifest = last.unwrap_or_else(|| Manifest::start(sources));
        if manifest.sources.len() != sources {
            return Err(Error::data(format!("the checkpoint of stream \"{}\" has other sources", config.name)));
        }
        let mut states = vec![];
        for file in &manifest.states {
            if let Some(c) = &checkpoints {
                states.push(c.get_state(file).await?);
            }
        }
        self.restore_sinks(&graph, &manifest).await?;
        for (i, source) in graph.sources().enumerate() {
            source.source.read_by(&config.name, i, checkpoints.is_some());
            if let Some(state) = manifest.source_states.get(&i) {
                source.source.restore(state)?;
            }
            source.source.start(&manifest.sources[i].offsets()).await?;
        }
        if manifest.checkpoint > 0 {
            // A crash may have come between the manifest and the word on it.
            let sources = graph.sources().map(|s| s.source.clone()).collect::<Vec<_>>();
            tell_committed(&config.name, &sources, &manifest).await;
        }
        Build::new(self, graph, config, checkpoints, manifest, states)?.launch()
    }

    async fn restore_sinks(&self, graph: &Graph, manifest: &Manifest) -> Result<()> {
        for (place, (_, sink)) in graph.sinks().enumerate() {
            if let Some(state) = manifest.sinks.get(&place) {
                sink.sink.restore(state)?;
            }
            sink.sink.start(manifest.staged.get(&place).map_or(&[][..], |s| s)).await?;
        }
        Ok(())
    }
}

/// A job being put together.
struct Build<'a> {
    runtime: &'a Runtime,
    graph: Graph,
    config: JobConfig,
    checkpoints: Option<Checkpoints>,
    manifest: Manifest,
    states: Vec<StatePart>,
    /// The names of the states that operators have opened.
    opened: BTreeSet<String>,
    fragments: Fragments,
    metrics: Vec<Vec<Arc<NodeMetrics>>>,
    asides: Arc<Asides>,
    /// The receiving ends, by (node, task).
    inputs: BTreeMap<(usize, usize), Vec<Receiver>>,
    /// The sending ends, by (from node, to node, port, task).
    outputs: BTreeMap<(usize, usize, usize, usize), OutEdge>,
}

impl<'a> Build<'a> {
    fn new(
        runtime: &'a Runtime,
        graph: Graph,
        config: JobConfig,
        checkpoints: Option<Checkpoints>,
        manifest: Manifest,
        states: Vec<StatePart>,
    ) -> Result<Self> {
        let fragments = Fragments::of(&graph);
        let metrics = graph.nodes.iter().map(|n| (0..n.parallelism).map(|_| Arc::default()).collect()).collect();
        let (inputs, outputs, opened) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let (limit, kept) = (config.dead_letters.rows, manifest.dead.rows());
        let asides = Arc::new(Asides::new(&config.name, config.on_error, limit, kept));
        let mut build = Build {
            runtime,
            graph,
            config,
            checkpoints,
            manifest,
            states,
            opened,
            fragments,
            metrics,
            asides,
            inputs,
            outputs,
        };
        go_on_counting(&build.graph, &build.metrics, &mut build.manifest);
        build.connect();
        Ok(build)
    }

    /// Makes the queues of all edges between fragments.
    fn connect(&mut self) {
        for (to, node) in self.graph.nodes.iter().enumerate() {
            for (port, e) in node.inputs.iter().enumerate() {
                if self.fragments.of_node[e.from] == self.fragments.of_node[to] {
                    continue;
                }
                let from_tasks = self.graph.nodes[e.from].parallelism;
                for from_task in 0..from_tasks {
                    let to_tasks: Vec<usize> = match e.exchange {
                        Exchange::Forward => vec![from_task],
                        Exchange::Single => vec![0],
                        Exchange::Hash(_) => (0..node.parallelism).collect(),
                    };
                    let mut senders = vec![];
                    for to_task in to_tasks {
                        let metrics = self.metrics[to][to_task].clone();
                        let (tx, rx) = edge(self.config.edge_bytes, port, metrics);
                        self.inputs.entry((to, to_task)).or_default().push(rx);
                        senders.push(tx);
                    }
                    let out = OutEdge { exchange: e.exchange.clone(), senders };
                    self.outputs.insert((e.from, to, port, from_task), out);
                }
            }
        }
    }

    /// Spawns all tasks; gives the sources as the coordinator sees them.
    fn spawn(
        &mut self,
        reports: &mpsc::Sender<Report>,
        pulse: &Arc<Pulse>,
        running: &mut JoinSet<()>,
    ) -> Result<Vec<SourceView>> {
        let sampled = !self.graph.follows_time();
        let mut views: Vec<SourceView> = vec![];
        for fragment in 0..self.fragments.nodes.len() {
            let head = self.fragments.nodes[fragment][0];
            let parallelism = self.graph.nodes[head].parallelism;
            let NodeKind::Source(source) = self.graph.nodes[head].kind.clone() else {
                for task in 0..parallelism {
                    let chain = self.chain(fragment, task, reports.clone())?;
                    let inputs = self.inputs.remove(&(head, task)).unwrap_or_default();
                    let gate = Gate::new(inputs, self.metrics[head][task].clone());
                    running.spawn_on(report_failure(run_gated(chain, gate), reports.clone()), &self.runtime.cpu);
                }
                continue;
            };
            let mut cuts = vec![];
            for task in 0..parallelism {
                let (tx, rx) = mpsc::channel(4);
                cuts.push(tx);
                let scan = Scan {
                    chain: self.chain(fragment, task, reports.clone())?,
                    source_id: views.len(),
                    source: source.source.clone(),
                    tasks: parallelism,
                    time: source.time.clone(),
                    sampled,
                    cuts: rx,
                    pulse: pulse.clone(),
                    budget: self.runtime.budget.clone(),
                    watermark: self.manifest.watermark,
                };
                running.spawn_on(report_failure(run_scan(scan), reports.clone()), &self.runtime.cpu);
            }
            let idle_timeout = source.time.as_ref().map(|t| t.idle_timeout);
            let (source, stream) = (source.source, source.stream);
            views.push(SourceView { source, stream, idle_timeout, cuts, tasks_ended: 0, waits: vec![] });
        }
        Ok(views)
    }

    fn launch(mut self) -> Result<JobHandle> {
        let (reports_tx, reports) = mpsc::channel(1024);
        let (commands, commands_rx) = mpsc::channel(16);
        let abort: Arc<Notify> = Arc::default();
        let pulse: Arc<Pulse> = Arc::default();
        let mut running = JoinSet::new();
        let sources = self.spawn(&reports_tx, &pulse, &mut running)?;
        drop(reports_tx);
        if let Some(left) = self.states.iter().find(|part| !self.opened.contains(&part.name)) {
            let why = Error::data("the query has no such operator any more");
            return Err(unfit(&left.name, &self.config.name, &why));
        }
        let status = JobStatus {
            phase: JobPhase::Running,
            error: None,
            epoch: self.manifest.epoch,
            watermark: self.manifest.watermark,
            holder: String::new(),
            epoch_lag: Duration::ZERO,
            committed: (self.manifest.checkpoint, self.manifest.epoch),
            beyond: self.manifest.dead.beyond,
            share: None,
        };
        let (status_tx, status) = watch::channel(status);
        let shared = Arc::new(Shared { status: status_tx, metrics: self.metrics });
        let coordinator = Coordinator {
            state: Run::new(self.manifest, &self.config),
            config: self.config,
            shared: shared.clone(),
            sources,
            sinks: self.graph.sinks().map(|(_, sink)| sink.sink.clone()).enumerate().collect(),
            checkpoints: self.checkpoints,
            tasks: running.len(),
            pulse,
            reports,
            commands: commands_rx,
            abort: abort.clone(),
            running,
            io: self.runtime.io.clone(),
            asides: self.asides,
        };
        // Not among the tasks: it has to be on time when they have much to do.
        let watched = shared.clone();
        self.runtime.io.spawn(async move {
            if AssertUnwindSafe(coordinator.run()).catch_unwind().await.is_err() {
                watched.set_phase(JobPhase::Failed, Some(&Error::internal("the coordinator of the job panicked")));
            }
        });
        Ok(JobHandle { shared, status, commands, graph: self.graph, abort })
    }

    /// The operators of one task, with their state restored.
    fn chain(&mut self, fragment: usize, task: usize, reports: mpsc::Sender<Report>) -> Result<Chain> {
        let ids = self.fragments.nodes[fragment].clone();
        let parallelism = self.graph.nodes[ids[0]].parallelism;
        let mut state = StateRegistry::new(self.config.name.clone(), self.runtime.budget.clone());
        let names = labels(&self.graph);
        let (mut nodes, mut edges) = (vec![], vec![]);
        for (at, id) in ids.iter().enumerate() {
            let metrics = self.metrics[*id][task].clone();
            state.enter(names[*id].clone(), metrics.clone());
            let body = match &self.graph.nodes[*id].kind {
                NodeKind::Source(_) => Body::Scan,
                NodeKind::Sink(s) => {
                    let place = self.graph.sinks().position(|(sink, _)| sink == *id).unwrap_or_default();
                    Body::Sink(place, s.sink.open(task)? as Box<dyn SinkWriter>)
                }
                NodeKind::Operator(spec) => {
                    Body::Operator(spec.build(&mut BuildContext { state: &mut state, task, parallelism })?)
                }
            };
            let mut targets = vec![];
            for (to, node) in self.graph.nodes.iter().enumerate().skip(id + 1) {
                for (port, e) in node.inputs.iter().enumerate().filter(|(_, e)| e.from == *id) {
                    debug_assert_eq!(e.from, *id);
                    if let Some(place) = ids.iter().position(|n| *n == to) {
                        targets.push(Target::Local(place, port));
                    } else if let Some(out) = self.outputs.remove(&(*id, to, port, task)) {
                        edges.push(out);
                        targets.push(Target::Edge(edges.len() - 1));
                    }
                }
            }
            debug_assert!(at == 0 || !matches!(body, Body::Scan));
            nodes.push(RunNode { body, targets, metrics });
        }
        state.restore(&self.states, Owner { task, parallelism }, self.manifest.watermark)?;
        self.opened.extend(state.names().map(str::to_owned));
        let aside = AsideRows { shared: self.asides.clone(), split: None, letters: vec![] };
        Ok(Chain { fragment, task, nodes, edges, state, reports, aside })
    }
}
