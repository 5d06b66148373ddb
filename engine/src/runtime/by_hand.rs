//! Edges between nodes without tasks at their ends, to try what carries them.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::away::{Awaiting, Incoming, Landings};
use super::channel::{Message, Receiver, Sender, edge};
use super::inlet::{inlet, window};
use super::messages::Report;
use super::outlet::Outlet;
use crate::changes::Changes;
use crate::epoch::EpochMark;
use crate::error::{Error, Result};
use crate::memory::MemoryBudget;

/// The end of an edge where a task would send.
pub struct SendingEnd(Sender);

/// The end of an edge where a task would receive.
pub struct ReceivingEnd(Receiver);

/// A run to which edges lead; it is over when this is dropped.
pub struct RunByHand {
    reports: mpsc::Receiver<Report>,
    _awaiting: Awaiting,
}

/// Both ends of edges, and what is carried between them.
pub struct EdgesByHand {
    /// Where rows go in, by edge.
    pub sending: Vec<SendingEnd>,
    /// What is to be carried.
    pub outlets: Vec<Outlet>,
    /// Where they come out.
    pub receiving: Vec<ReceivingEnd>,
    /// What happens to the run.
    pub run: RunByHand,
}

impl EdgesByHand {
    /// So many edges of run `run` from its node 1 at `from` to the node of `landings`; of each about `bytes` may be under way.
    pub fn new(
        landings: &Arc<Landings>,
        run: &str,
        from: &str,
        edges: u32,
        bytes: usize,
        budget: &Arc<MemoryBudget>,
    ) -> Self {
        let (mut sending, mut outlets, mut receiving, mut inlets) = (vec![], vec![], vec![], vec![]);
        for number in 0..edges {
            let (sender, out) = edge(bytes, 0, Arc::default(), budget.clone());
            let (inlet, grants, receiver) = inlet(window(bytes), 0, Arc::default(), budget.clone());
            sending.push(SendingEnd(sender));
            outlets.push(Outlet::new(number, out));
            receiving.push(ReceivingEnd(receiver));
            inlets.push((number, inlet, grants));
        }
        let (reporting, reports) = mpsc::channel(16);
        let _awaiting =
            landings.wait(run, vec![Incoming { node: 1, address: from.to_owned(), edges: inlets }], &reporting);
        EdgesByHand { sending, outlets, receiving, run: RunByHand { reports, _awaiting } }
    }
}

impl SendingEnd {
    /// Sends changes, waiting for room.
    pub async fn changes(&self, changes: Changes) -> Result<()> {
        self.0.send(changes).await
    }

    /// Sends a mark behind them.
    pub async fn mark(&self, mark: EpochMark) -> Result<()> {
        self.0.mark(mark).await
    }
}

impl ReceivingEnd {
    /// What comes next; `None` when nothing more can.
    pub async fn next(&mut self) -> Option<Message> {
        self.0.next().await
    }
}

impl RunByHand {
    /// Waits until the run has failed.
    pub async fn failure(&mut self) -> Error {
        loop {
            match self.reports.recv().await {
                Some(Report::Failed(e)) => return e,
                Some(_) => {}
                None => return Error::internal("nobody reports any more"),
            }
        }
    }
}
