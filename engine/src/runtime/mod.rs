//! Runs a dataflow graph as a job.
//!
//! ```text
//!   coordinator ──cut──► source task ─┬─edge─► task ──► sink
//!        ▲                            └─edge─► task ──► sink
//!        └──────── reports ────────────┴─────────┴───────┘
//! ```
//! The graph is cut at its exchanges into fragments; a task is one instance of a fragment and runs its
//! operators as direct calls. The coordinator cuts the input of all sources together into epochs, computes
//! the watermark that each epoch's mark carries, and commits checkpoints.

mod aside;
mod chain;
mod channel;
mod commit;
mod coordinator;
mod flush;
mod fragment;
mod idle;
mod job;
mod lanes;
mod progress;
mod reports;
mod run;
mod scan;
#[cfg(test)]
mod tests;

pub use aside::{DeadLetterLimits, OnError};
pub use fragment::labels;
pub use job::{JobConfig, JobHandle, JobPhase, JobStatus, Runtime};
pub use progress::Progress;
