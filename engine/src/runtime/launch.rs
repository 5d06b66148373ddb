//! Puts the tasks of a job together and starts them, here and on other nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::try_join_all;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use super::aside::{Asides, OnError};
use super::away::{Incoming, Network, Order, Remote, call};
use super::config::{JobConfig, Runtime};
use super::coordinator::{Coordinator, SourceView};
use super::ends::{Connecting, Ends};
use super::fingerprint;
use super::messages::{CutHere, Report};
use super::placement::{HOME, Placed};
use super::run::Run;
use super::status::{JobHandle, JobPhase, JobStatus, Shared};
use super::task::{JobPlan, Task};
use crate::checkpoint::{Claim, Manifest};
use crate::connector::Opened;
use crate::error::{Error, Result};
use crate::graph::{Graph, SourceNode};
use crate::state::unfit;
use crate::token::token;

/// A job being put together.
pub(super) struct Launch<'a> {
    runtime: &'a Runtime,
    config: JobConfig,
    plan: Arc<JobPlan>,
    placed: Placed,
    reports: (mpsc::Sender<Report>, mpsc::Receiver<Report>),
    start: watch::Sender<bool>,
}

/// How the tasks of the job that read hear of cuts.
#[derive(Default)]
struct Cuts {
    /// By source, all its tasks.
    heard: Vec<Vec<mpsc::Sender<CutHere>>>,
    /// Those of tasks on other nodes, by node.
    away: BTreeMap<usize, Vec<(usize, usize, mpsc::Receiver<CutHere>)>>,
}

impl<'a> Launch<'a> {
    /// The job of `graph`, whose sources are `opened`, which goes on from `manifest`.
    pub(super) fn new(
        runtime: &'a Runtime,
        graph: Graph,
        config: JobConfig,
        claim: Option<Claim>,
        manifest: Manifest,
        opened: Vec<Opened>,
    ) -> Self {
        let (limit, kept) = (config.dead_letters.rows, manifest.dead.rows());
        let asides = Asides::new(&config.name, config.on_error, limit, kept);
        let opened = opened.into_iter().map(Some).collect();
        let plan = JobPlan { opened, ..JobPlan::new(&config.name, graph, claim, manifest, asides) };
        let home = runtime.network().map(|network| network.address()).unwrap_or_default();
        let placed = Placed::new(&config.placement, home, &plan.graph, &plan.fragments);
        let (reports, start) = (mpsc::channel(1024), watch::Sender::new(false));
        Launch { runtime, config, plan: Arc::new(plan), placed, reports, start }
    }

    /// Starts the tasks that are here.
    fn spawn(&self, mut ends: Ends, running: &mut JoinSet<()>) -> Cuts {
        let (plan, mut cuts) = (&self.plan, Cuts::default());
        for (fragment, tasks) in self.placed.tasks.iter().enumerate() {
            let (head, source) = (plan.head(fragment), plan.source(fragment));
            cuts.heard.extend(source.map(|_| vec![]));
            for (task, at) in tasks.iter().enumerate() {
                let heard = source.map(|source| {
                    let (tx, rx) = mpsc::channel(4);
                    cuts.heard[source].push(tx);
                    (source, rx)
                });
                if *at != HOME {
                    cuts.away.entry(*at).or_default().extend(heard.map(|(_, rx)| (fragment, task, rx)));
                    continue;
                }
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
                running.spawn_on(task.run(self.runtime.here()), &self.runtime.cpu);
            }
        }
        cuts
    }

    /// Starts the tasks that are on other nodes, and carries what those here send them.
    async fn send_away(
        &self,
        network: &Arc<dyn Network>,
        ends: Ends,
        mut cuts: Cuts,
        running: &mut JoinSet<()>,
    ) -> Result<()> {
        let node_timeout = self.config.placement.node_timeout;
        let (manifest, run) = (&self.plan.manifest, token()?);
        let order = Order {
            run: run.clone(),
            name: self.config.name.clone(),
            description: self.config.placement.description.clone(),
            fingerprint: fingerprint::of_graph(&self.plan.graph),
            checkpoint: self.plan.claim.as_ref().map(|_| (manifest.generation, manifest.checkpoint)),
            placed: self.placed.clone(),
            node: HOME,
            edge_bytes: self.config.edge_bytes,
            fails: self.config.on_error == OnError::Fail,
            letters: self.config.dead_letters.rows,
            node_timeout,
        };
        let from = ends.inlets.into_iter();
        let from =
            from.map(|(node, edges)| Incoming { node, address: self.placed.nodes[node].clone(), edges }).collect();
        let awaiting = network.landings().wait(&run, from, &self.reports.0);
        running.spawn_on(hold(awaiting), &self.runtime.io);
        let away = (0..self.placed.nodes.len()).filter(|node| *node != HOME && self.placed.count(*node) > 0);
        let calls = away.map(|node| {
            let (address, order) = (self.placed.nodes[node].clone(), Order { node, ..order.clone() });
            async move { Ok::<_, Error>((node, call(&**network, &address, &order).await?, address)) }
        });
        for (node, line, address) in try_join_all(calls).await? {
            let remote = Remote {
                address,
                line,
                node_timeout,
                plan: self.plan.clone(),
                cuts: cuts.away.remove(&node).unwrap_or_default(),
                reports: self.reports.0.clone(),
                start: self.start.subscribe(),
            };
            running.spawn_on(remote.run(), &self.runtime.io);
        }
        for (node, outlets) in ends.outlets {
            let (network, reports, mut start) = (network.clone(), self.reports.0.clone(), self.start.subscribe());
            let (to, run) = (self.placed.nodes[node].clone(), run.clone());
            let carry = async move {
                if start.wait_for(|start| *start).await.is_err() {
                    return;
                }
                if let Err(e) = network.carry(&to, &run, HOME, outlets, node_timeout).await {
                    // The job may have ended.
                    let _ = reports.send(Report::Failed(e)).await;
                }
            };
            running.spawn_on(carry, &self.runtime.cpu);
        }
        Ok(())
    }

    /// Starts all tasks; gives the sources as the coordinator sees them.
    async fn begin(&self, running: &mut JoinSet<()>) -> Result<Vec<SourceView>> {
        let connecting = Connecting {
            plan: &self.plan,
            placed: &self.placed,
            here: HOME,
            bytes: self.config.edge_bytes,
            budget: &self.runtime.budget,
        };
        let mut ends = connecting.ends();
        let away = Ends {
            inlets: std::mem::take(&mut ends.inlets),
            outlets: std::mem::take(&mut ends.outlets),
            ..Ends::default()
        };
        let mut cuts = self.spawn(ends, running);
        let views = self.views(std::mem::take(&mut cuts.heard));
        if self.placed.tasks.iter().flatten().any(|at| *at != HOME) {
            let network =
                self.runtime.network().ok_or_else(|| Error::internal("tasks on other nodes without a network"))?;
            self.send_away(network, away, cuts, running).await?;
        }
        Ok(views)
    }

    /// The sources, whose tasks hear by `cuts`.
    fn views(&self, cuts: Vec<Vec<mpsc::Sender<CutHere>>>) -> Vec<SourceView> {
        let plan = &self.plan;
        let opened = plan.opened.iter().flatten();
        let views = plan.graph.sources().zip(opened).zip(cuts).map(|((node, opened), cuts)| {
            let SourceNode { source, stream, depth, time, .. } = node.clone();
            SourceView {
                source,
                stream,
                idle_timeout: time.map(|time| time.idle_timeout),
                cuts,
                tasks_ended: 0,
                waits: vec![],
                depth,
                begun: (depth >= plan.depth()).then_some(0),
                there: opened.intake.there(),
                intake: opened.intake.clone(),
            }
        });
        views.collect()
    }

    fn tasks(&self) -> usize {
        self.placed.tasks.iter().map(Vec::len).sum()
    }

    /// Waits until all tasks have their state back, and none is left that no task has.
    async fn ready(&mut self, running: &mut JoinSet<()>) -> Result<()> {
        let mut opened = BTreeSet::new();
        let mut ready = 0;
        while ready < self.tasks() {
            tokio::select! {
                biased;
                Some(report) = self.reports.1.recv() => match report {
                    Report::Ready { states } => {
                        opened.extend(states);
                        ready += 1;
                    }
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
        let sources = self.begin(&mut running).await?;
        self.ready(&mut running).await?;
        let (commands, commands_rx) = mpsc::channel(16);
        let abort: Arc<Notify> = Arc::default();
        let (status_tx, status) = watch::channel(status_of(&self.plan.manifest));
        let shared = Arc::new(Shared::new(status_tx, self.plan.metrics.clone()));
        let (graph, tasks, placed) = (self.plan.graph.clone(), self.tasks(), self.placed.clone());
        let intakes = self.plan.opened.iter().flatten().map(|source| source.intake.clone()).collect();
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
            tasks,
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
        Ok(JobHandle { shared, status, commands, graph, placed, intakes, abort })
    }
}

/// Holds `what` for as long as the job runs.
async fn hold<T>(_what: T) {
    std::future::pending().await
}

fn status_of(manifest: &Manifest) -> JobStatus {
    JobStatus {
        phase: JobPhase::Running,
        error: None,
        lost_node: None,
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
