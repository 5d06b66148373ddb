//! Runs a dataflow graph as a job.
//!
//! ```text
//!   coordinator ──cut──► source task ─┬─edge─► task ──► sink
//!        ▲                            └─edge─► task ──► sink
//!        └──────── reports ────────────┴─────────┴───────┘
//! ```
//! The graph is cut at its exchanges into fragments; a task is one instance of a fragment and runs its
//! operators as direct calls. Some may run on other nodes (`away/`). The coordinator cuts the input of all sources together into epochs, computes
//! the watermark that each epoch's mark carries, and commits checkpoints.

mod aside;
mod away;
mod by_hand;
mod chain;
mod channel;
mod commit;
mod config;
mod coordinator;
mod counting;
mod ends;
mod fingerprint;
mod flush;
mod fragment;
mod heavy;
mod horizon;
mod idle;
mod inlet;
mod job;
mod lanes;
mod launch;
mod messages;
mod outlet;
mod placement;
mod reading;
mod reports;
mod run;
mod scan;
mod status;
mod task;
#[cfg(test)]
mod tests;

pub use aside::{DeadLetterLimits, OnError};
pub use away::{Landed, Landings, Line, Network, Node, Planned, Planner, gone_away};
pub use by_hand::{EdgesByHand, ReceivingEnd, RunByHand, SendingEnd};
pub use channel::{Message, stopping};
pub use config::{JobConfig, Runtime};
pub use fragment::labels;
pub use inlet::{Grants, Inlet, cost};
pub use outlet::Outlet;
pub use placement::{Placement, Seat};
pub use status::{JobHandle, JobPhase, JobStatus};
pub use task::Here;
