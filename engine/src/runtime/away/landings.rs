//! Where what other nodes send to the tasks of this one arrives.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::gone::gone_away;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::inlet::{Grants, Inlet};
use crate::runtime::messages::Report;

/// The edges from one node into tasks of this one, until that node is there.
type Awaited = HashMap<(String, usize), Landed>;

/// See the module's text.
#[derive(Default)]
pub struct Landings {
    awaited: Mutex<Awaited>,
}

impl fmt::Debug for Landings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Landings({})", self.awaited.lock().len())
    }
}

/// The edges from one node, for who reads what it sends.
pub struct Landed {
    /// By their numbers.
    pub edges: Vec<(u32, Inlet, Grants)>,
    from: String,
    /// Ends when the run does.
    over: watch::Receiver<()>,
    reports: mpsc::Sender<Report>,
}

/// The edges from one node, by their numbers.
pub(crate) struct Incoming {
    pub(crate) node: usize,
    pub(crate) address: String,
    pub(crate) edges: Vec<(u32, Inlet, Grants)>,
}

/// A run of a job that edges lead into. Nothing more arrives once it is dropped.
pub(crate) struct Awaiting {
    landings: Arc<Landings>,
    run: String,
    nodes: Vec<usize>,
    _over: watch::Sender<()>,
}

impl Landings {
    /// Awaits what other nodes send for `run`. A node that breaks off is told of in `reports`.
    pub(crate) fn wait(self: &Arc<Self>, run: &str, from: Vec<Incoming>, reports: &mpsc::Sender<Report>) -> Awaiting {
        let (over, ends) = watch::channel(());
        let nodes = from.iter().map(|incoming| incoming.node).collect();
        let mut awaited = self.awaited.lock();
        for Incoming { node, address, edges } in from {
            let landed = Landed { edges, from: address, over: ends.clone(), reports: reports.clone() };
            awaited.insert((run.to_owned(), node), landed);
        }
        drop(awaited);
        Awaiting { landings: self.clone(), run: run.to_owned(), nodes, _over: over }
    }

    /// The edges from node `from` for `run`.
    ///
    /// Errors when nothing is expected of it: the run is over, or it has come already.
    pub fn land(&self, run: &str, from: usize) -> Result<Landed> {
        let found = self.awaited.lock().remove(&(run.to_owned(), from));
        found.ok_or_else(|| Error::new(ErrorKind::Cancelled, "this run of the job is over"))
    }
}

impl Landed {
    /// The address of the node from which they come.
    pub fn from(&self) -> &str {
        &self.from
    }

    /// What tells when the run is over.
    pub fn over(&self) -> watch::Receiver<()> {
        self.over.clone()
    }

    /// What has come cannot be taken: the job fails.
    pub async fn fail(self, e: Error) {
        let _ = self.reports.send(Report::Failed(e.context(format!("node \"{}\"", self.from)))).await;
    }

    /// No more will come, of `edges`: where that is too early, the job fails.
    pub async fn end(self, edges: &[Inlet]) {
        if !edges.iter().all(Inlet::has_ended) {
            // The job may have ended.
            let _ = self.reports.send(Report::Failed(gone_away(&self.from, "has gone"))).await;
        }
    }
}

impl Drop for Awaiting {
    fn drop(&mut self) {
        let mut awaited = self.landings.awaited.lock();
        for node in &self.nodes {
            awaited.remove(&(self.run.clone(), *node));
        }
    }
}
