//! This process as a node on which others run tasks of their jobs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::network::Line;
use super::part::Part;
use super::remote::BEATS;
use super::words::{Order, Said, heard, sent};
use crate::checkpoint::Checkpoints;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::Graph;
use crate::runtime::config::Runtime;

/// Makes the graphs of jobs that others have started.
#[async_trait]
pub trait Planner: Send + Sync {
    /// The job that `description` tells, which is that of [`Placement`](crate::runtime::Placement). Nothing of it is opened.
    async fn plan(&self, description: &serde_json::Value) -> Result<Planned>;
}

/// A job that somebody else has started.
pub struct Planned {
    /// Its dataflow.
    pub graph: Graph,
    /// Where it keeps its checkpoints, if it does.
    pub checkpoints: Option<Checkpoints>,
}

/// See the module's text.
#[derive(Clone)]
pub struct Node {
    runtime: Runtime,
    planner: Arc<dyn Planner>,
    tasks: Arc<AtomicUsize>,
}

/// Tasks that are counted, until this is dropped.
struct Counted(Arc<AtomicUsize>, usize);

impl Counted {
    fn new(all: &Arc<AtomicUsize>, tasks: usize) -> Self {
        all.fetch_add(tasks, Ordering::Relaxed);
        Counted(all.clone(), tasks)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

impl Node {
    /// Tasks run on `runtime`, which has a network.
    pub fn new(runtime: Runtime, planner: Arc<dyn Planner>) -> Self {
        Node { runtime, planner, tasks: Arc::default() }
    }

    /// How many tasks of others run here.
    pub fn tasks(&self) -> usize {
        self.tasks.load(Ordering::Relaxed)
    }

    /// What its words are passed on by.
    pub fn io(&self) -> &Handle {
        &self.runtime.io
    }

    /// Runs what `order` says of a job, until the other end of `line` has gone.
    pub async fn take_part(&self, order: Bytes, mut line: Line) {
        let order: Order = match heard(&order) {
            Ok(order) => order,
            Err(e) => return say_failed(&line, &e).await,
        };
        let mut beside = JoinSet::new();
        beside.spawn_on(beat(line.say.clone(), order.node_timeout / BEATS), &self.runtime.io);
        let (name, node_timeout) = (order.name.clone(), order.node_timeout);
        if let Err(e) = self.run(order, &mut line).await {
            tracing::warn!(stream = %name, error = %e, "a part of a job has failed");
            say_failed(&line, &e).await;
            // It is not gone for others before they have heard why.
            let _ = timeout(node_timeout, async { while line.hear.recv().await.is_some() {} }).await;
        }
    }

    async fn run(&self, order: Order, line: &mut Line) -> Result<()> {
        let network = self.runtime.network().ok_or_else(|| Error::internal("a node without a network"))?;
        // What it cannot plan others may.
        let unfit = |e: Error| e.context(format!("node \"{}\"", network.address())).of_lost_node(network.address());
        let planned = self.planner.plan(&order.description).await.map_err(unfit)?;
        let mut part = Part::new(&self.runtime, network, order, planned.graph, planned.checkpoints, &line.say).await?;
        let _counted = Counted::new(&self.tasks, part.tasks().len());
        part.follow(line).await
    }
}

async fn say_failed(line: &Line, e: &Error) {
    if e.kind() != ErrorKind::Cancelled
        && let Ok(word) = sent(&Said::Failed(e.again().into()))
    {
        // Who gave the order may have gone.
        let _ = line.say.send(word).await;
    }
}

/// Says again and again that this node is there.
async fn beat(say: mpsc::Sender<Bytes>, pause: std::time::Duration) {
    let Ok(word) = sent(&Said::Here) else { return };
    while say.send(word.clone()).await.is_ok() {
        tokio::time::sleep(pause).await;
    }
}
