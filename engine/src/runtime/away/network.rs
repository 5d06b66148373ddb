//! What carries a job's words and rows between nodes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::landings::Landings;
use crate::error::Result;
use crate::runtime::outlet::Outlet;

/// The way to other nodes, of one node.
#[async_trait]
pub trait Network: fmt::Debug + Send + Sync {
    /// Where other nodes reach this one.
    fn address(&self) -> &str;

    /// Where what other nodes send arrives.
    fn landings(&self) -> &Arc<Landings>;

    /// Gives `order` to the node at `address`; the line is open as long as both its ends are held. It ends when the node is silent
    /// for `node_timeout`.
    async fn call(&self, address: &str, order: Bytes, node_timeout: Duration) -> Result<Line>;

    /// Carries what comes out of `outlets`, which is of job run `run` and from its node `from`, to the node at `address`: within
    /// an edge in order, and so that no edge waits for another. Ends when all that there is has been taken there.
    ///
    /// Errors with `Unavailable`, naming the node, when it is gone, or silent for `node_timeout`.
    async fn carry(
        &self,
        address: &str,
        run: &str,
        from: usize,
        outlets: Vec<Outlet>,
        node_timeout: Duration,
    ) -> Result<()>;
}

/// A line over which words go both ways, in order.
#[derive(Debug)]
pub struct Line {
    /// What is said to the other end.
    pub say: mpsc::Sender<Bytes>,
    /// What the other end says, until it has gone.
    pub hear: mpsc::Receiver<Bytes>,
}
