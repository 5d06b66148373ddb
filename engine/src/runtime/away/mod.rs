//! Tasks of a job on other nodes.
//!
//! ```text
//!            coordinator's node                                    another node
//!   coordinator ─ cuts ─► Remote ══ control: Told ═════════════► Node ─ cuts, units ─► tasks
//!        ▲                  │  ◄═════ control: Said ════════════   ▲                    │
//!        └──── reports ─────┘                                      └────── reports ─────┘
//!   tasks ─► Outlet ═══════ data: changes and marks ═══════════► Inlet ─► tasks
//! ```
//! A node is told a job by an [`Order`](words::Order): it plans the same graph itself, which a fingerprint proves, and reads the
//! manifest. From there on one control line goes between the coordinator and each node, and one data line from each node to
//! each other one to which its tasks send. A [`Network`] carries both. A job ends on a node when its control line does.
//! A node that has gone, or says nothing for long, fails the job with `Unavailable`, so that it can be started with others.

mod gone;
mod landings;
mod network;
mod node;
mod part;
mod remote;
mod units;
mod words;

pub use gone::gone_away;
pub(super) use landings::{Awaiting, Incoming};
pub use landings::{Landed, Landings};
pub use network::{Line, Network};
pub use node::{Node, Planned, Planner};
pub(super) use remote::{Remote, call};
pub(super) use words::Order;
