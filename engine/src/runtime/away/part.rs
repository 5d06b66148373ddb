//! The part of a job that runs on this node.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::gone::gone_away;
use super::landings::{Awaiting, Incoming};
use super::network::{Line, Network};
use super::units::{AllUnits, Units};
use super::words::{Order, Said, Told, heard, sent};
use crate::checkpoint::{Checkpoints, Manifest};
use crate::connector::{Intake, Opened};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::Graph;
use crate::metrics::NodeFigures;
use crate::runtime::aside::{Asides, OnError};
use crate::runtime::channel::stopping;
use crate::runtime::config::Runtime;
use crate::runtime::ends::{Connecting, Ends};
use crate::runtime::fingerprint;
use crate::runtime::messages::{CutHere, Pulse, Report};
use crate::runtime::outlet::Outlet;
use crate::runtime::placement::HOME;
use crate::runtime::task::{JobPlan, Task};

/// How often at most the coordinator hears what has been counted.
const FIGURES: Duration = Duration::from_millis(200);

/// See the module's text. All of it ends when it is dropped.
pub(super) struct Part {
    order: Order,
    network: Arc<dyn Network>,
    runtime: Runtime,
    plan: Arc<JobPlan>,
    units: AllUnits,
    reports: mpsc::Sender<Report>,
    start: watch::Sender<bool>,
    /// How tasks that read hear of cuts, by fragment and task.
    cuts: HashMap<(usize, usize), mpsc::Sender<CutHere>>,
    outlets: BTreeMap<usize, Vec<Outlet>>,
    /// A cut has been passed on: what is read now wants another one.
    cut: Arc<Notify>,
    running: JoinSet<()>,
    _awaiting: Awaiting,
}

impl Part {
    /// Starts the tasks that `order` places here, of the job of `graph`; they wait for the start.
    pub(super) async fn new(
        runtime: &Runtime,
        network: &Arc<dyn Network>,
        order: Order,
        graph: Graph,
        checkpoints: Option<Checkpoints>,
        say: &mpsc::Sender<Bytes>,
    ) -> Result<Self> {
        graph.validate()?;
        if fingerprint::of_graph(&graph) != order.fingerprint {
            let message = format!("node \"{}\" plans stream \"{}\" otherwise", network.address(), order.name);
            let hint = "All nodes need the same build and the same settings.";
            return Err(Error::internal(message).with_hint(hint).of_lost_node(network.address()));
        }
        let (claim, manifest) = match (order.checkpoint, checkpoints) {
            (None, _) => (None, Manifest::start(graph.sources().count())),
            (Some((generation, number)), Some(checkpoints)) => {
                let (claim, manifest) = checkpoints.join(generation, number).await?;
                claim.wait_long(true);
                (Some(claim), manifest)
            }
            (Some(_), None) => return Err(Error::internal("a job that keeps no checkpoints here")),
        };
        let on_error = if order.fails { OnError::Fail } else { OnError::DeadLetter };
        let asides = Asides::new(&order.name, on_error, order.letters, 0);
        let mut plan = JobPlan { is_home: false, ..JobPlan::new(&order.name, graph, claim, manifest, asides) };
        let units = open(&mut plan, &order, say);
        let plan = Arc::new(plan);
        let connecting = Connecting {
            plan: &plan,
            placed: &order.placed,
            here: order.node,
            bytes: order.edge_bytes,
            budget: &runtime.budget,
        };
        let mut ends = connecting.ends();
        let (reports, reported) = mpsc::channel(1024);
        let from = std::mem::take(&mut ends.inlets).into_iter();
        let from =
            from.map(|(node, edges)| Incoming { node, address: order.placed.nodes[node].clone(), edges }).collect();
        let _awaiting = network.landings().wait(&order.run, from, &reports);
        let mut part = Part {
            network: network.clone(),
            runtime: runtime.clone(),
            plan,
            units,
            reports,
            start: watch::Sender::new(false),
            cuts: HashMap::new(),
            outlets: std::mem::take(&mut ends.outlets),
            cut: Arc::default(),
            running: JoinSet::new(),
            order,
            _awaiting,
        };
        part.spawn(ends);
        let speaking = Speaking {
            plan: part.plan.clone(),
            units: part.units.clone(),
            here: part.tasks(),
            told: vec![],
            say: say.clone(),
            address: network.address().to_owned(),
        };
        part.running.spawn_on(speaking.run(reported), &runtime.io);
        let (pulse, cut) = (part.plan.pulse.clone(), part.cut.clone());
        part.running.spawn_on(pass_on(pulse, cut, say.clone()), &runtime.io);
        Ok(part)
    }

    /// The tasks that are here, by fragment and number.
    pub(super) fn tasks(&self) -> Vec<(usize, usize)> {
        let placed = self.order.placed.tasks.iter().enumerate();
        let tasks =
            placed.flat_map(|(fragment, tasks)| tasks.iter().enumerate().map(move |(task, at)| (fragment, task, *at)));
        tasks.filter(|(.., at)| *at == self.order.node).map(|(fragment, task, _)| (fragment, task)).collect()
    }

    fn spawn(&mut self, mut ends: Ends) {
        for (fragment, task) in self.tasks() {
            let head = self.plan.head(fragment);
            let source = self.plan.source(fragment).map(|source| {
                let (tx, rx) = mpsc::channel(4);
                self.cuts.insert((fragment, task), tx);
                (source, rx)
            });
            let task = Task {
                job: self.plan.clone(),
                fragment,
                task,
                inputs: ends.inputs.remove(&(head, task)).unwrap_or_default(),
                outputs: ends.outputs.remove(&(fragment, task)).unwrap_or_default(),
                source,
                reports: self.reports.clone(),
                start: self.start.subscribe(),
            };
            self.running.spawn_on(task.run(self.runtime.here()), &self.runtime.cpu);
        }
    }

    /// Does what the coordinator says, until it has gone.
    pub(super) async fn follow(&mut self, line: &mut Line) -> Result<()> {
        let home = self.order.placed.nodes[HOME].clone();
        loop {
            let word = tokio::select! {
                Some(done) = self.running.join_next() => match done {
                    Err(e) if e.is_panic() => return Err(Error::internal("a task of the job panicked")),
                    _ => continue,
                },
                word = timeout(self.order.node_timeout, line.hear.recv()) => {
                    word.map_err(|_| gone_away(&home, "has said nothing for long"))?
                }
            };
            let Some(word) = word else { return Ok(()) };
            match heard(&word)? {
                Told::Start => self.begin(),
                Told::Cut { fragment, task, cut } => {
                    if let Some(cuts) = self.cuts.get(&(fragment, task)) {
                        // A task that has gone says why.
                        let _ = cuts.send(cut).await;
                    }
                    self.cut.notify_one();
                }
                Told::Unit { source, unit } => self.units(source).for_each(|units| units.take(unit.clone())),
                Told::NoMore { source } => self.units(source).for_each(|units| units.end()),
                Told::Here => {}
            }
        }
    }

    fn units(&self, source: usize) -> impl Iterator<Item = &Arc<Units>> {
        self.units.get(source).into_iter().flatten()
    }

    /// All tasks of the job are ready: those here begin, and what they send goes to other nodes.
    fn begin(&mut self) {
        for (node, outlets) in std::mem::take(&mut self.outlets) {
            let (network, reports) = (self.network.clone(), self.reports.clone());
            let Order { run, node: from, node_timeout, placed, .. } = &self.order;
            let (run, from, node_timeout, to) = (run.clone(), *from, *node_timeout, placed.nodes[node].clone());
            let carry = async move {
                if let Err(e) = network.carry(&to, &run, from, outlets, node_timeout).await {
                    // The job may have ended.
                    let _ = reports.send(Report::Failed(e)).await;
                }
            };
            self.running.spawn_on(carry, &self.runtime.cpu);
        }
        self.start.send_replace(true);
    }
}

/// Opens what tasks here read: units come from the coordinator's node.
fn open(plan: &mut JobPlan, order: &Order, say: &mpsc::Sender<Bytes>) -> AllUnits {
    let mut units: AllUnits = plan.graph.sources().map(|_| None).collect();
    plan.opened = vec![None; units.len()];
    for (fragment, tasks) in order.placed.tasks.iter().enumerate() {
        let here = tasks.iter().filter(|at| **at == order.node).count();
        let Some(source) = plan.source(fragment).filter(|_| here > 0) else { continue };
        let readers = plan.graph.sources().nth(source).and_then(|node| node.source.clone().readers());
        let of_source = Arc::new(Units::new(source, here, say.clone()));
        let intake: Arc<dyn Intake> = of_source.clone();
        plan.opened[source] = readers.map(|readers| Opened { intake, readers });
        units[source] = Some(of_source);
    }
    units
}

/// What the tasks here report, on its way to the coordinator.
struct Speaking {
    plan: Arc<JobPlan>,
    units: AllUnits,
    here: Vec<(usize, usize)>,
    /// The counters that were told last.
    told: Vec<(usize, BTreeMap<usize, NodeFigures>)>,
    say: mpsc::Sender<Bytes>,
    /// That of this node.
    address: String,
}

impl Speaking {
    async fn run(mut self, mut reported: mpsc::Receiver<Report>) {
        let mut tick = tokio::time::interval(FIGURES);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let said = tokio::select! {
                biased;
                _ = tick.tick() => self.figures().await,
                report = reported.recv() => match report {
                    Some(report) => self.say(report).await,
                    None => return,
                },
            };
            if said.is_err() {
                // The coordinator has gone.
                return;
            }
        }
    }

    async fn say(&mut self, report: Report) -> Result<()> {
        let said = match report {
            Report::Ready { states } => Said::Ready { states },
            Report::Cut(mut cut) => {
                let mut come = 0;
                if let Some(units) = self.units.get(cut.source).cloned().flatten() {
                    for (unit, at) in units.take_ended() {
                        self.send(&Said::Ended { source: cut.source, unit, at }).await?;
                    }
                    let waiting = units.waiting();
                    come = waiting.0;
                    cut.waits.extend(waiting.1);
                }
                Said::Cut { cut, come }
            }
            Report::Done { epoch, aside, due, last } => {
                if last {
                    self.figures().await?;
                }
                // How many are kept is the coordinator's to say.
                self.plan.asides.give_back(aside.len() as u64);
                Said::Done { epoch, aside, beyond: self.plan.asides.take_beyond(), due, last }
            }
            Report::Stored(parts) => Said::Stored(parts),
            // The cause is another's to tell.
            Report::Failed(e) if e.kind() == ErrorKind::Cancelled => return Ok(()),
            Report::Failed(e) => Said::Failed(self.of_here(e).into()),
        };
        self.send(&said).await
    }

    /// `e`, which may be of this node alone: what is read, or written, may not be there for it. Elsewhere it is seen whether it is not.
    fn of_here(&self, e: Error) -> Error {
        let may_be = matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Denied | ErrorKind::Unavailable);
        match may_be && e.lost_node().is_none() {
            true => e.context(format!("node \"{}\"", self.address)).of_lost_node(&self.address),
            false => e,
        }
    }

    async fn figures(&mut self) -> Result<()> {
        let mut figures: BTreeMap<usize, BTreeMap<usize, NodeFigures>> = BTreeMap::new();
        for (fragment, task) in &self.here {
            for id in &self.plan.fragments.nodes[*fragment] {
                figures.entry(*id).or_default().insert(*task, self.plan.metrics[*id][*task].read());
            }
        }
        let figures: Vec<_> = figures.into_iter().collect();
        if figures != self.told {
            self.told = figures.clone();
            self.send(&Said::Figures(figures)).await?;
        }
        Ok(())
    }

    async fn send(&self, said: &Said) -> Result<()> {
        self.say.send(sent(said)?).await.map_err(|_| stopping())
    }
}

/// Tells the coordinator that something wants an epoch: once for each that it cuts.
async fn pass_on(pulse: Arc<Pulse>, cut: Arc<Notify>, say: mpsc::Sender<Bytes>) {
    let Ok(word) = sent(&Said::Pulse) else { return };
    loop {
        pulse.wait().await;
        pulse.take();
        if say.send(word.clone()).await.is_err() {
            return;
        }
        cut.notified().await;
    }
}
