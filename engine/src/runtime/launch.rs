//! Puts the tasks of a job together and starts them.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use super::aside::Asides;
use super::chain::OutEdge;
use super::channel::Receiver;
use super::config::{JobConfig, Runtime};
use super::coordinator::{Coordinator, SourceView};
use super::fragment::{Fragments, labels};
use super::messages::Report;
use super::run::{Run, go_on_counting};
use super::status::{JobHandle, JobPhase, JobStatus, Shared};
use super::task::{JobPlan, Outputs, Task};
use super::transport::EdgePlace;
use crate::checkpoint::{Claim, Manifest};
use crate::connector::Opened;
use crate::error::{Error, Result};
use crate::graph::{Exchange, Graph, NodeKind, SourceNode};
use crate::state::unfit;

/// A job being put together.
pub(super) struct Launch<'a> {
    runtime: &'a Runtime,
    config: JobConfig,
    plan: Arc<JobPlan>,
    reports: (mpsc::Sender<Report>, mpsc::Receiver<Report>),
    start: watch::Sender<bool>,
}

/// The tasks' ends of the edges between fragments.
#[derive(Default)]
struct Ends {
    /// By node and task.
    inputs: BTreeMap<(usize, usize), Vec<Receiver>>,
    /// By fragment and task.
    outputs: BTreeMap<(usize, usize), Outputs>,
}

impl<'a> Launch<'a> {
    /// The job of `graph`, whose sources are `opened`, which goes on from `manifest`.
    pub(super) fn new(
        runtime: &'a Runtime,
        graph: Graph,
        config: JobConfig,
        claim: Option<Claim>,
        mut manifest: Manifest,
        opened: Vec<Opened>,
    ) -> Self {
        let metrics: Vec<Vec<_>> =
            graph.nodes.iter().map(|n| (0..n.parallelism).map(|_| Arc::default()).collect()).collect();
        go_on_counting(&graph, &metrics, &mut manifest);
        let (limit, kept) = (config.dead_letters.rows, manifest.dead.rows());
        let plan = JobPlan {
            name: config.name.clone(),
            fragments: Fragments::of(&graph),
            labels: labels(&graph),
            graph,
            manifest,
            claim,
            metrics,
            asides: Arc::new(Asides::new(&config.name, config.on_error, limit, kept)),
            pulse: Arc::default(),
            opened,
        };
        Launch { runtime, config, plan: Arc::new(plan), reports: mpsc::channel(1024), start: watch::Sender::new(false) }
    }

    /// The worker of a task.
    fn worker(&self, task: usize) -> usize {
        task % self.runtime.workers().len()
    }

    /// Connects all tasks between which there is an exchange.
    fn connect(&self) -> Ends {
        let (plan, mut ends) = (&self.plan, Ends::default());
        for (to, node) in plan.graph.nodes.iter().enumerate() {
            for (port, e) in node.inputs.iter().enumerate() {
                let from_fragment = plan.fragments.of_node[e.from];
                if from_fragment == plan.fragments.of_node[to] {
                    continue;
                }
                for from_task in 0..plan.graph.nodes[e.from].parallelism {
                    let to_tasks = match e.exchange {
                        Exchange::Forward => from_task..from_task + 1,
                        Exchange::Single => 0..1,
                        Exchange::Hash(_) => 0..node.parallelism,
                    };
                    let mut senders = vec![];
                    for to_task in to_tasks {
                        let place = EdgePlace {
                            from: self.worker(from_task),
                            to: self.worker(to_task),
                            port,
                            bytes: self.config.edge_bytes,
                            metrics: plan.metrics[to][to_task].clone(),
                            budget: self.runtime.budget.clone(),
                        };
                        let (sender, receiver) = self.runtime.transport().connect(place);
                        ends.inputs.entry((to, to_task)).or_default().push(receiver);
                        senders.push(sender);
                    }
                    let out = OutEdge { exchange: e.exchange.clone(), senders };
                    let outputs = ends.outputs.entry((from_fragment, from_task)).or_default();
                    outputs.insert((e.from, to, port), out);
                }
            }
        }
        ends
    }

    /// Starts all tasks; gives the sources as the coordinator sees them.
    fn spawn(&self, running: &mut JoinSet<()>) -> Vec<SourceView> {
        let (plan, mut ends, mut views) = (&self.plan, self.connect(), vec![]);
        for fragment in 0..plan.fragments.nodes.len() {
            let (head, mut cuts) = (plan.head(fragment), vec![]);
            let source = match &plan.graph.nodes[head].kind {
                NodeKind::Source(source) => Some(source.clone()),
                _ => None,
            };
            for task in 0..plan.parallelism(fragment) {
                let heard = source.is_some().then(|| {
                    let (tx, rx) = mpsc::channel(4);
                    cuts.push(tx);
                    (views.len(), rx)
                });
                let task = Task {
                    job: plan.clone(),
                    fragment,
                    task,
                    inputs: ends.inputs.remove(&(head, task)).unwrap_or_default(),
                    outputs: ends.outputs.remove(&(fragment, task)).unwrap_or_default(),
                    source: heard,
                    reports: self.reports.0.clone(),
                    start: self.start.subscribe(),
                };
                self.runtime.workers()[self.worker(task.task)].start(task, running);
            }
            if let Some(source) = source {
                let idle_timeout = source.time.as_ref().map(|t| t.idle_timeout);
                let SourceNode { source, stream, depth, .. } = source;
                let intake = plan.opened[views.len()].intake.clone();
                let (there, waits) = (intake.there(), vec![]);
                let begun = (depth >= plan.depth()).then_some(0);
                let view = SourceView {
                    source,
                    intake,
                    stream,
                    idle_timeout,
                    cuts,
                    tasks_ended: 0,
                    waits,
                    depth,
                    begun,
                    there,
                };
                views.push(view);
            }
        }
        views
    }

    /// Waits until all tasks have their state back, and none is left that no task has.
    async fn ready(&mut self, running: &mut JoinSet<()>) -> Result<()> {
        let mut opened = BTreeSet::new();
        for _ in 0..running.len() {
            tokio::select! {
                biased;
                Some(report) = self.reports.1.recv() => match report {
                    Report::Ready { states } => opened.extend(states),
                    Report::Failed(e) => return Err(e),
                    _ => return Err(Error::internal("a task has begun before its job")),
                },
                Some(Err(_)) = running.join_next() => return Err(Error::internal("a task of the job panicked")),
            }
        }
        match self.plan.manifest.states.iter().find(|file| !opened.contains(&file.name)) {
            None => Ok(()),
            Some(left) => {
                let why = Error::data("the query has no such operator any more");
                Err(unfit(&left.name, &self.plan.name, &why))
            }
        }
    }

    /// Starts the job.
    pub(super) async fn launch(mut self) -> Result<JobHandle> {
        let mut running = JoinSet::new();
        let sources = self.spawn(&mut running);
        self.ready(&mut running).await?;
        let (commands, commands_rx) = mpsc::channel(16);
        let abort: Arc<Notify> = Arc::default();
        let (status_tx, status) = watch::channel(status_of(&self.plan.manifest));
        let shared = Arc::new(Shared::new(status_tx, self.plan.metrics.clone()));
        let graph = self.plan.graph.clone();
        let intakes = self.plan.opened.iter().map(|source| source.intake.clone()).collect();
        let coordinator = Coordinator {
            state: Run {
                // What waits is known once an epoch has ended.
                due: graph.goes_by_clock().then_some(i64::MIN),
                ..Run::new(self.plan.manifest.clone(), self.plan.depth(), &self.config, self.runtime.clock.now())
            },
            clock: self.runtime.clock.clone(),
            config: self.config,
            shared: shared.clone(),
            sources,
            sinks: graph.sinks().map(|(_, sink)| sink.sink.clone()).enumerate().collect(),
            claim: self.plan.claim.clone(),
            tasks: running.len(),
            pulse: self.plan.pulse.clone(),
            reports: self.reports.1,
            commands: commands_rx,
            abort: abort.clone(),
            running,
            io: self.runtime.io.clone(),
            asides: self.plan.asides.clone(),
        };
        self.start.send_replace(true);
        // Not among the tasks: it has to be on time when they have much to do.
        let watched = shared.clone();
        self.runtime.io.spawn(async move {
            if AssertUnwindSafe(coordinator.run()).catch_unwind().await.is_err() {
                watched.set_phase(JobPhase::Failed, Some(&Error::internal("the coordinator of the job panicked")));
            }
        });
        Ok(JobHandle { shared, status, commands, graph, intakes, abort })
    }
}

fn status_of(manifest: &Manifest) -> JobStatus {
    JobStatus {
        phase: JobPhase::Running,
        error: None,
        epoch: manifest.epoch,
        watermark: manifest.watermark,
        holder: String::new(),
        epoch_lag: Duration::ZERO,
        committed: (manifest.checkpoint, manifest.epoch),
        commit_cost: (Duration::ZERO, 0),
        beyond: manifest.dead.beyond,
        share: None,
    }
}
