//! A job as others see it: where it stands, and the handle to watch and stop it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::commit::Committed;
use super::messages::Command;
use super::placement::{HOME, Placed};
use crate::connector::lag::Lag;
use crate::connector::{Figure, Intake};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Graph, NodeId, NodeKind};
use crate::metrics::{NodeFigures, NodeMetrics};
use crate::time::EventTime;

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
    /// The node without which it would not have failed: started again it goes on with others.
    pub lost_node: Option<String>,
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
    /// How long it took from its epoch's cut to its commit, and the bytes that were written for it.
    pub commit_cost: (Duration, u64),
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
    pub(super) fn new(status: watch::Sender<JobStatus>, metrics: Vec<Vec<Arc<NodeMetrics>>>) -> Self {
        Shared { status, metrics }
    }

    pub(super) fn set_phase(&self, phase: JobPhase, error: Option<&Error>) {
        self.status.send_modify(|s| {
            s.phase = phase;
            s.lost_node = error.and_then(|e| e.lost_node().map(str::to_owned));
            s.error = error.map(|e| (e.kind(), e.message().to_owned(), e.hint().map(str::to_owned)));
        });
    }

    /// The job of `stream` has failed. Of one that has lost a node others tell, who may start it again.
    pub(super) fn set_failed(&self, stream: &str, e: &Error) {
        if e.lost_node().is_none() {
            tracing::error!(stream, error = %e, "job failed");
        }
        self.set_phase(JobPhase::Failed, Some(e));
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

    pub(super) fn set_committed(&self, committed: &Committed, took: Duration) {
        let Committed { manifest, bytes } = committed;
        self.status.send_modify(|s| {
            s.commit_cost = (took, *bytes);
            (s.committed, s.beyond) = ((manifest.checkpoint, manifest.epoch), manifest.dead.beyond);
        });
    }
}

/// A started job. Dropping the handle does not stop it.
pub struct JobHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) status: watch::Receiver<JobStatus>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) graph: Graph,
    pub(super) placed: Placed,
    /// The open sources, in their order.
    pub(super) intakes: Vec<Arc<dyn Intake>>,
    pub(super) abort: Arc<Notify>,
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

    /// How far node `id` is behind, where it reads or writes and knows.
    pub fn lag(&self, id: NodeId) -> Option<Lag> {
        match &self.graph.nodes[id].kind {
            NodeKind::Source(_) => self.intake(id)?.lag(),
            NodeKind::Sink(sink) => sink.sink.lag(),
            NodeKind::Operator(_) => None,
        }
    }

    /// What the source or the sink that node `id` is has counted itself.
    pub fn counted(&self, id: NodeId) -> Vec<Figure> {
        match &self.graph.nodes[id].kind {
            NodeKind::Source(_) => self.intake(id).map(|intake| intake.figures()).unwrap_or_default(),
            NodeKind::Sink(sink) => sink.sink.figures(),
            NodeKind::Operator(_) => vec![],
        }
    }

    fn intake(&self, id: NodeId) -> Option<&Arc<dyn Intake>> {
        let before = self.graph.nodes[..id].iter().filter(|node| matches!(node.kind, NodeKind::Source(_)));
        self.intakes.get(before.count())
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

    /// How many tasks it has here.
    pub fn tasks(&self) -> usize {
        self.placed.count(HOME)
    }

    /// The addresses of the nodes on which it has tasks, with how many; that of this one is the first.
    pub fn nodes(&self) -> Vec<(&str, usize)> {
        let nodes = self.placed.nodes.iter().enumerate();
        nodes.map(|(at, address)| (address.as_str(), self.placed.count(at))).filter(|(_, tasks)| *tasks > 0).collect()
    }

    /// The addresses of the nodes on which it could have tasks.
    pub fn offered(&self) -> impl Iterator<Item = &str> {
        self.placed.nodes.iter().map(String::as_str)
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
        let JobStatus { error, lost_node, .. } = self.status();
        match error {
            None => Ok(()),
            Some((kind, message, hint)) => {
                let e = Error::new(kind, message);
                let e = match hint {
                    Some(hint) => e.with_hint(hint),
                    None => e,
                };
                Err(match lost_node {
                    Some(address) => e.of_lost_node(&address),
                    None => e,
                })
            }
        }
    }
}
