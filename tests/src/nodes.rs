//! Nodes of a cluster in one process: each has a runtime of its own, plans queries itself, and is reached over Flight on a
//! loopback address.

use std::sync::Arc;

use async_trait::async_trait;
use millstream_engine::checkpoint::Checkpoints;
use millstream_engine::graph::SinkNode;
use millstream_engine::memory::MemoryBudget;
use millstream_engine::runtime::{Network, Node, Planned, Planner, Runtime, Seat};
use millstream_engine::store::Store;
use millstream_engine::{Error, Result as EngineResult};
use millstream_flight::Compression;
use millstream_flight::exchange::{Door, Exchange, InTheClear, NodeService};
use millstream_sql::plan::lower::{Lowered, finish};
use millstream_sql::statement::{Emit, Query};
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use crate::Result;
use crate::planned::plan;
use crate::sink::Collector;
use crate::world::World;

/// What any node makes the graph of a run of.
#[derive(Clone)]
pub struct Recipe {
    /// The streams.
    pub world: World,
    /// What is run.
    pub query: Query,
    /// Its EMIT.
    pub emit: Option<Emit>,
    /// Where the result goes.
    pub sink: Collector,
    /// Where the job keeps its checkpoints.
    pub store: Store,
}

impl Recipe {
    /// The dataflow with so many tasks; `single` as one task writes the result.
    pub fn graph(&self, parallelism: usize, single: bool) -> millstream_sql::Result<Lowered> {
        let (mut lowered, _) = plan(&self.world, &self.query, self.emit, parallelism)?;
        let sink = SinkNode { name: "result".to_owned(), sink: Arc::new(self.sink.clone()) };
        finish(&mut lowered, sink, single);
        Ok(lowered)
    }
}

#[async_trait]
impl Planner for Recipe {
    async fn plan(&self, description: &serde_json::Value) -> EngineResult<Planned> {
        let (parallelism, single) = serde_json::from_value(description.clone())?;
        let lowered = self.graph(parallelism, single).map_err(|e| Error::internal(e.to_string()))?;
        Ok(Planned { graph: lowered.graph, checkpoints: Some(Checkpoints::new(self.store.clone(), "job")) })
    }
}

/// The node whose tasks run on `handle`, which others reach at the address of its network.
pub async fn begin(
    handle: &Handle,
    compression: Compression,
    budget: usize,
    planner: Arc<dyn Planner>,
) -> Result<(Runtime, Arc<Exchange>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?.into_std()?;
    let (address, budget) = (listener.local_addr()?.to_string(), MemoryBudget::new(budget));
    let network = Exchange::new(address, Arc::new(InTheClear), compression, budget.clone(), handle.clone());
    let network = Arc::new(network);
    let runtime = Runtime::new(handle.clone(), handle.clone(), budget).with_network(network.clone());
    let door = Door::new(Some(Node::new(runtime.clone(), planner)), network.landings().clone(), handle.clone());
    handle.spawn(async move {
        // It is the runtime's: of another one nothing would be heard once that has gone.
        let listener = TcpListener::from_std(listener)?;
        NodeService::new(door).serve(listener).await.map_err(std::io::Error::other)
    });
    Ok((runtime, network))
}

/// A node that can be killed.
#[derive(Debug)]
pub struct Other {
    runtime: Option<tokio::runtime::Runtime>,
    /// Where it is reached.
    pub address: String,
}

impl Other {
    /// A node with one thread.
    pub async fn start(compression: Compression, budget: usize, planner: Arc<dyn Planner>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let began = begin(runtime.handle(), compression, budget, planner).await;
        let mut other = Other { runtime: Some(runtime), address: String::new() };
        let (_, network) = began?;
        other.address = network.address().to_owned();
        Ok(other)
    }

    /// Ends it as kill -9 would: no word is said, and its connections break. Nothing of it runs when this returns.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Not by a thread of another runtime, where that may not wait.
            let _ = std::thread::spawn(move || drop(runtime)).join();
        }
    }

    /// Its place in a job.
    pub fn seat(&self) -> Seat {
        Seat { address: self.address.clone(), cores: 1 }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.kill();
    }
}
