//! Jobs over several nodes: what carries their words and their rows.
//!
//! ```text
//!   job line     DoExchange   order, then words both ways                        one a job and node
//!   data line    DoExchange   rows and marks of many edges ──►  ◄── room granted  one a job and pair of nodes
//! ```
//! A data line is shared by all edges between two nodes, and none may wait for another: a task that waits for a mark on one edge
//! takes nothing of the next. So each edge has room of its own at the receiver, which says how much there is; nothing is sent without
//! it, and all that comes is taken at once ([`Inlet`](millstream_engine::runtime::Inlet)). The flow control of HTTP/2 stands
//! beside that and is never what an edge waits for.
//!
//! Rows go as they are, text as views; a schema goes before the first rows of an edge, and again when it changes.
//! [`Calling`] is the one place that knows how other nodes are reached and convinced.

mod call;
mod carry;
mod door;
mod land;
mod rows;
mod service;
#[cfg(test)]
mod tests;
mod words;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use millstream_engine::Result;
use millstream_engine::memory::MemoryBudget;
use millstream_engine::runtime::{Landings, Line, Network, Outlet};
use tokio::runtime::Handle;

pub use call::{Calling, InTheClear};
pub(crate) use call::{LARGEST, for_lines};
pub use door::Door;
pub use service::NodeService;

use crate::compression::Compression;

/// The network of one node.
pub struct Exchange {
    address: String,
    landings: Arc<Landings>,
    calling: Arc<dyn Calling>,
    compression: Compression,
    budget: Arc<MemoryBudget>,
    io: Handle,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Exchange({})", self.address)
    }
}

impl Exchange {
    /// Of the node that others reach at `address`; it reaches them by `calling`. Connections are driven on `io`.
    pub fn new(
        address: impl Into<String>,
        calling: Arc<dyn Calling>,
        compression: Compression,
        budget: Arc<MemoryBudget>,
        io: Handle,
    ) -> Self {
        Exchange { address: address.into(), landings: Arc::default(), calling, compression, budget, io }
    }
}

#[async_trait]
impl Network for Exchange {
    fn address(&self) -> &str {
        &self.address
    }

    fn landings(&self) -> &Arc<Landings> {
        &self.landings
    }

    async fn call(&self, address: &str, order: Bytes, node_timeout: Duration) -> Result<Line> {
        call::call(&self.calling, &self.io, address, order, node_timeout).await
    }

    async fn carry(
        &self,
        address: &str,
        run: &str,
        from: usize,
        outlets: Vec<Outlet>,
        node_timeout: Duration,
    ) -> Result<()> {
        let edges = words::Call::Edges { run: run.to_owned(), from };
        let answering = call::open(&self.calling, &self.io, address, &edges, Bytes::new(), node_timeout).await?;
        carry::carry(answering, address, outlets, self.compression, &self.budget).await
    }
}
