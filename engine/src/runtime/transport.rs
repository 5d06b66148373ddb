//! How what a task sends gets to another task.

use std::fmt;
use std::sync::Arc;

use super::channel::{Receiver, Sender, edge};
use crate::memory::MemoryBudget;
use crate::metrics::NodeMetrics;

/// An edge between two tasks.
pub struct EdgePlace {
    /// The worker of the sending task, by its place among the runtime's.
    pub from: usize,
    /// The worker of the receiving one.
    pub to: usize,
    /// The port at which the rows come in.
    pub port: usize,
    /// About how many bytes may be under way.
    pub bytes: usize,
    /// The receiving operator's figures.
    pub metrics: Arc<NodeMetrics>,
    /// What is under way counts in it.
    pub budget: Arc<MemoryBudget>,
}

/// Carries changes and marks from task to task, in order, and holds the sender up when the receiver is slow.
pub trait Transport: fmt::Debug + Send + Sync {
    /// Both ends of an edge.
    fn connect(&self, place: EdgePlace) -> (Sender, Receiver);
}

/// Queues within the process.
#[derive(Clone, Copy, Debug)]
pub struct Queues;

impl Transport for Queues {
    fn connect(&self, place: EdgePlace) -> (Sender, Receiver) {
        edge(place.bytes, place.port, place.metrics, place.budget)
    }
}
