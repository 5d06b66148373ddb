//! Where tasks run.

use std::fmt;

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::task::{Here, Task};

/// A place where tasks run: this process, or another one that is told.
pub trait Worker: fmt::Debug + Send + Sync {
    /// Runs `task`, as one of `running`: it ends when its place there is given up. What befalls it, it reports itself.
    fn start(&self, task: Task, running: &mut JoinSet<()>);
}

/// This process.
#[derive(Clone, Debug)]
pub struct Local {
    /// Runs tasks.
    pub cpu: Handle,
    /// What they use.
    pub here: Here,
}

impl Worker for Local {
    fn start(&self, task: Task, running: &mut JoinSet<()>) {
        running.spawn_on(task.run(self.here.clone()), &self.cpu);
    }
}
