//! The one control message of a job: the epoch mark.

use serde::{Deserialize, Serialize};

use crate::time::EventTime;

/// Flows in band behind the data of its epoch, is aligned at every task with several inputs, and makes
/// an operator say all it has to say about the epoch before it is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochMark {
    /// Epochs count 1, 2, 3… over the whole life of a job, across restarts.
    pub epoch: u64,
    /// What `now()` is in this epoch: the same for all tasks, a multiple of [`CLOCK_STEP`](crate::time::CLOCK_STEP), and never before
    /// that of an earlier epoch.
    pub now: EventTime,
    /// No row before this is still expected; the same for all tasks. `MAX` when the input has ended.
    pub watermark: EventTime,
    /// State and results up to here make checkpoint `n`.
    pub checkpoint: Option<u64>,
    /// The last mark: the input has ended.
    pub end: bool,
    /// Behind it the sources of this [depth](crate::graph::SourceNode::depth) are read, and all that are deeper.
    pub depth: usize,
}
