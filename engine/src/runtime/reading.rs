//! What a task has read of a unit.

use arrow::array::RecordBatch;

use crate::connector::Unit;
use crate::time::EventTime;

/// A unit being read, with what was read of it since the last cut.
pub(super) struct Current {
    pub(super) unit: Unit,
    pub(super) from: u64,
    pub(super) at: u64,
    pub(super) bound: Option<EventTime>,
    pub(super) max_time: Option<EventTime>,
    /// The rows whose event times are still to be noted.
    pub(super) sample: Option<RecordBatch>,
}
