//! How jobs run, and what on.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::runtime::Handle;

use super::aside::{DeadLetterLimits, OnError};
use super::away::Network;
use super::placement::{Placement, Seat};
use super::task::Here;
use crate::clock::Clock;
use crate::memory::MemoryBudget;

/// How a job runs.
#[derive(Clone, Debug)]
pub struct JobConfig {
    /// The stream it feeds, for messages.
    pub name: String,
    /// The shortest epoch: what an idle job adds to latency at most.
    pub min_epoch: Duration,
    /// The longest epoch, reached under load.
    pub max_epoch: Duration,
    /// `EMIT EVERY`: epochs of this length instead.
    pub every: Option<Duration>,
    /// The time between checkpoints.
    pub checkpoint_interval: Duration,
    /// Checkpoint at once whenever something was read: somebody waits for the commit.
    pub eager: bool,
    /// The bound of each edge, in bytes.
    pub edge_bytes: usize,
    /// What happens to rows on which an expression fails.
    pub on_error: OnError,
    /// Which dead letters are kept.
    pub dead_letters: DeadLetterLimits,
    /// Where its tasks may run.
    pub placement: Placement,
}

impl JobConfig {
    /// The defaults for the job of `name`.
    pub fn new(name: impl Into<String>) -> Self {
        JobConfig {
            name: name.into(),
            min_epoch: Duration::from_millis(5),
            max_epoch: Duration::from_millis(200),
            every: None,
            checkpoint_interval: Duration::from_secs(1),
            eager: false,
            edge_bytes: 4 << 20,
            on_error: OnError::default(),
            dead_letters: DeadLetterLimits::default(),
            placement: Placement::default(),
        }
    }
}

/// What jobs run on.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// Runs tasks.
    pub cpu: Handle,
    /// Writes and reads files.
    pub io: Handle,
    /// The process's memory budget.
    pub budget: Arc<MemoryBudget>,
    /// The time that its coordinators go by.
    pub(super) clock: Clock,
    /// The way to other nodes.
    others: Arc<Others>,
}

/// The other nodes, as they are known by and by.
#[derive(Debug, Default)]
struct Others {
    network: OnceLock<Arc<dyn Network>>,
    seats: RwLock<Vec<Seat>>,
}

impl Runtime {
    /// Jobs run in this process.
    pub fn new(cpu: Handle, io: Handle, budget: Arc<MemoryBudget>) -> Self {
        Runtime::by(Clock::default(), cpu, io, budget)
    }

    /// Jobs run in this process, by the time of `clock`.
    pub fn by(clock: Clock, cpu: Handle, io: Handle, budget: Arc<MemoryBudget>) -> Self {
        Runtime { cpu, io, budget, clock, others: Arc::default() }
    }

    /// Jobs may have tasks on other nodes, which are reached through `network`: see [`JobConfig::placement`].
    pub fn with_network(self, network: Arc<dyn Network>) -> Self {
        self.join(network);
        self
    }

    /// The same of a runtime that runs already. Only the first network counts.
    pub fn join(&self, network: Arc<dyn Network>) {
        // The one that is there may have jobs.
        let _ = self.others.network.set(network);
    }

    /// From now on jobs that go by [`Runtime::seats`] run on these nodes; none: all their tasks are here.
    pub fn seat(&self, seats: Vec<Seat>) {
        *self.others.seats.write() = seats;
    }

    /// The nodes on which jobs run now.
    pub fn seats(&self) -> Vec<Seat> {
        self.others.seats.read().clone()
    }

    pub(super) fn network(&self) -> Option<&Arc<dyn Network>> {
        self.others.network.get()
    }

    /// What tasks use that run here.
    pub(super) fn here(&self) -> Here {
        Here { io: self.io.clone(), budget: self.budget.clone(), clock: self.clock.clone() }
    }
}
