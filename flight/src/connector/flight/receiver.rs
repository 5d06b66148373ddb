//! Epochs that have come and were not read: each is a unit, and is read whole within one epoch of the job.

use std::collections::VecDeque;

use arrow::array::RecordBatch;
use millstream_engine::connector::Unit;
use millstream_engine::connector::spool::Spooled;
use millstream_engine::error::Error;
use millstream_engine::time::EventTime;
use tokio::sync::OwnedSemaphorePermit;

/// The one split of a link; its coordinate is the epochs of the other side.
pub(super) const SPLIT: &str = "link";
/// How many epochs go into one of the job before it is cut.
const MOST: usize = 1024;

/// An epoch of the other side.
pub(super) struct Arrived {
    /// The epoch before.
    pub(super) start: u64,
    /// The epoch.
    pub(super) end: u64,
    pub(super) watermark: EventTime,
    pub(super) rows: Spooled,
    /// Its place among those that wait.
    pub(super) _room: OwnedSemaphorePermit,
}

/// See the module's text.
#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<Arrived>,
    /// Handed out as units and not opened yet.
    opening: Vec<Arrived>,
    /// How many of those that wait are of the present group.
    group: usize,
    /// How many have been handed out since the job's last epoch was cut.
    handed: usize,
    /// An epoch is being cut: no group opens.
    cutting: bool,
    /// Nothing more will come; or nothing more can, and why.
    pub(super) ended: Option<Option<Error>>,
    /// Behind which epoch the last that came stands.
    pub(super) last: u64,
    /// Of which making of the other side's stream they are.
    pub(super) incarnation: Option<String>,
}

impl Queue {
    /// Nothing has come behind epoch `last` of that making of the stream.
    pub(super) fn behind(last: u64, incarnation: Option<String>) -> Self {
        Queue { last, incarnation, ..Queue::default() }
    }

    pub(super) fn push(&mut self, arrived: Arrived) {
        self.last = arrived.end;
        self.waiting.push_back(arrived);
    }

    /// The next unit of the present group; opens another one where it may.
    pub(super) fn hand_out(&mut self) -> Option<Unit> {
        if self.group == 0 && !self.cutting && self.handed < MOST {
            self.group = self.waiting.len();
        }
        self.group = self.group.checked_sub(1)?;
        let arrived = self.waiting.pop_front()?;
        self.handed += 1;
        let unit = Unit { split: SPLIT.into(), start: arrived.start, end: arrived.end };
        self.opening.push(arrived);
        Some(unit)
    }

    /// The same for a task that ends the epoch.
    pub(super) fn rest(&mut self) -> Option<Unit> {
        self.cutting = true;
        self.hand_out()
    }

    pub(super) fn cut(&mut self) {
        (self.cutting, self.handed) = (false, 0);
    }

    /// What was handed out as `unit`.
    pub(super) fn open(&mut self, unit: &Unit) -> Option<Arrived> {
        let place = self.opening.iter().position(|a| (a.start, a.end) == (unit.start, unit.end))?;
        Some(self.opening.remove(place))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.opening.is_empty()
    }
}

/// The rows of an epoch, batch by batch.
pub(super) async fn next(rows: &mut Option<Spooled>) -> millstream_engine::error::Result<Option<RecordBatch>> {
    let Some(left) = rows.take() else { return Ok(None) };
    let Some((batch, left)) = left.next().await? else { return Ok(None) };
    *rows = Some(left);
    Ok(Some(batch))
}
