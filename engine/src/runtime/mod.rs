//! Runs a dataflow graph as a job.
//!
//! ```text
//!   coordinator ──cut──► source task ─┬─edge─► task ──► sink
//!        ▲                            └─edge─► task ──► sink
//!        └──────── reports ────────────┴─────────┴───────┘
//! ```
//! The graph is cut at its exchanges into fragments; a task is one instance of a fragment and runs its
//! operators as direct calls. Workers run tasks, a transport carries what they send each other. The coordinator cuts the input of all sources together into epochs, computes
//! the watermark that each epoch's mark carries, and commits checkpoints.

mod aside;
mod chain;
mod channel;
mod commit;
mod config;
mod coordinator;
mod fingerprint;
mod flush;
mod fragment;
mod heavy;
mod horizon;
mod idle;
mod job;
mod lanes;
mod launch;
mod messages;
mod reading;
mod reports;
mod run;
mod scan;
mod status;
mod task;
#[cfg(test)]
mod tests;
mod transport;
mod worker;

pub use aside::{DeadLetterLimits, OnError};
pub use channel::{Message, Receiver, Sender};
pub use config::{JobConfig, Runtime};
pub use fragment::labels;
pub use status::{JobHandle, JobPhase, JobStatus};
pub use task::{Here, Task};
pub use transport::{EdgePlace, Queues, Transport};
pub use worker::{Local, Worker};
