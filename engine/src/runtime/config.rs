//! How jobs run, and what on.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::aside::{DeadLetterLimits, OnError};
use super::task::Here;
use super::transport::{Queues, Transport};
use super::worker::{Local, Worker};
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
    workers: Vec<Arc<dyn Worker>>,
    transport: Arc<dyn Transport>,
}

impl Runtime {
    /// Jobs run in this process.
    pub fn new(cpu: Handle, io: Handle, budget: Arc<MemoryBudget>) -> Self {
        Runtime::by(Clock::default(), cpu, io, budget)
    }

    /// Jobs run in this process, by the time of `clock`.
    pub fn by(clock: Clock, cpu: Handle, io: Handle, budget: Arc<MemoryBudget>) -> Self {
        let here = Here { io: io.clone(), budget: budget.clone(), clock: clock.clone() };
        let here = Local { cpu: cpu.clone(), here };
        Runtime { cpu, io, budget, clock, workers: vec![Arc::new(here)], transport: Arc::new(Queues) }
    }

    /// The tasks of jobs run on `workers` in turn, of which there is at least one, and reach each other through `transport`.
    pub fn on(self, workers: Vec<Arc<dyn Worker>>, transport: Arc<dyn Transport>) -> Self {
        debug_assert!(!workers.is_empty());
        Runtime { workers, transport, ..self }
    }

    pub(super) fn workers(&self) -> &[Arc<dyn Worker>] {
        &self.workers
    }

    pub(super) fn transport(&self) -> &dyn Transport {
        &*self.transport
    }
}
