//! The receiving end of an edge between nodes.
//!
//! ```text
//! sender ──── changes, for which there is room ───► Inlet ──► queue ──► task
//!        ◄─── so much more ──────────────────────── Grants ◄─ what the task has taken
//! ```
//! Many edges share one connection, and whoever reads it must never wait for one of them: a task may have to wait for the
//! others before it takes anything of this one. So a sender sends only what it has been granted room for, and an inlet
//! takes at once what comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc};

use super::channel::{Queued, Receiver, Taken, stopping};
use crate::changes::Changes;
use crate::epoch::EpochMark;
use crate::error::{Error, Result};
use crate::memory::MemoryBudget;
use crate::metrics::NodeMetrics;

/// Room is granted in so many parts.
const PARTS: usize = 4;
/// What a message takes of an edge's room at least, so that their number is bounded.
const LEAST: usize = 256;
/// Marks under way on one edge: those of the epochs under way, and some more.
const MARKS: usize = 8;

/// See the module's text.
#[derive(Debug)]
pub struct Inlet {
    queue: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
    granted: Arc<AtomicUsize>,
    window: usize,
    metrics: Arc<NodeMetrics>,
    budget: Arc<MemoryBudget>,
    ended: bool,
}

/// Says how much more an [`Inlet`] takes.
#[derive(Debug)]
pub struct Grants {
    room: Arc<Semaphore>,
    granted: Arc<AtomicUsize>,
    window: usize,
    budget: Arc<MemoryBudget>,
}

/// What a message of `bytes` takes of a window.
pub fn cost(bytes: usize, window: usize) -> usize {
    bytes.max(LEAST).min(window)
}

/// A window of about `bytes`, of which parts can be granted.
pub(super) fn window(bytes: usize) -> usize {
    (bytes / PARTS).max(1) * PARTS
}

/// An edge between nodes of which `window`, which [`window()`] gave, may be under way.
pub(super) fn inlet(
    window: usize,
    port: usize,
    metrics: Arc<NodeMetrics>,
    budget: Arc<MemoryBudget>,
) -> (Inlet, Grants, Receiver) {
    let (tx, rx) = mpsc::channel(window.div_ceil(cost(0, window)) + MARKS);
    let (room, granted) = (Arc::new(Semaphore::new(window)), Arc::new(AtomicUsize::new(0)));
    let receiver = Receiver::new(rx, port, metrics.clone());
    let grants = Grants { room: room.clone(), granted: granted.clone(), window, budget: budget.clone() };
    (Inlet { queue: tx, room, granted, window, metrics, budget, ended: false }, grants, receiver)
}

impl Inlet {
    /// How much may be under way.
    pub fn window(&self) -> usize {
        self.window
    }

    /// Whether all has come that was to come.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Takes changes for which room of `cost` has been granted.
    ///
    /// Errors with `Cancelled` when the task takes no more, and otherwise when the sender does not keep to what it was granted.
    pub fn changes(&mut self, changes: Changes, cost: usize) -> Result<()> {
        let left = self.granted.fetch_update(Ordering::AcqRel, Ordering::Acquire, |granted| granted.checked_sub(cost));
        if left.is_err() {
            return Err(too_much());
        }
        let bytes = changes.bytes();
        self.metrics.queued(bytes as i64);
        let taken = Taken { room: self.room.clone(), bytes: cost };
        let held = self.budget.hold(bytes);
        self.push(Queued::Changes(changes, taken, bytes as i64, held))
    }

    /// Takes the mark behind them.
    ///
    /// Errors as [`Inlet::changes`].
    pub fn mark(&mut self, mark: EpochMark) -> Result<()> {
        self.ended |= mark.end;
        self.push(Queued::Mark(mark))
    }

    fn push(&self, queued: Queued) -> Result<()> {
        self.queue.try_send(queued).map_err(|e| match e {
            TrySendError::Full(_) => too_much(),
            TrySendError::Closed(_) => stopping(),
        })
    }
}

fn too_much() -> Error {
    Error::internal("a node has sent more than there was room for")
}

impl Grants {
    /// Waits until there is more room, and gives how much. When memory is short there is none while anything waits to be
    /// taken: one message goes on always, since others may wait for it. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<usize> {
        let part = self.window / PARTS;
        let all = self.window - self.granted.load(Ordering::Acquire);
        let asked = if self.budget.pressed() { all.max(part) } else { part };
        let room = self.room.acquire_many(asked as u32).await.map_err(|_| stopping())?;
        self.granted.fetch_add(part, Ordering::AcqRel);
        room.forget();
        self.room.add_permits(asked - part);
        Ok(part)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use futures::FutureExt;

    use super::*;
    use crate::error::ErrorKind;
    use crate::runtime::channel::Message;

    fn rows(n: i64) -> Changes {
        let a: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n));
        Changes::insertions(RecordBatch::try_from_iter([("v", a)]).expect("one column"))
    }

    fn granted(grants: &mut Grants) -> usize {
        let mut all = 0;
        while let Some(part) = grants.next().now_or_never() {
            all += part.expect("is open");
        }
        all
    }

    #[test]
    fn as_much_comes_as_was_granted() {
        let (metrics, budget): (Arc<NodeMetrics>, _) = (Arc::default(), MemoryBudget::new(1 << 30));
        let (mut inlet, mut grants, mut receiver) = inlet(window(4099), 0, metrics.clone(), budget.clone());
        assert_eq!(inlet.changes(rows(1), 256).expect_err("nothing was granted").kind(), ErrorKind::Internal);
        assert_eq!(granted(&mut grants), 4096);
        for n in 0..4 {
            inlet.changes(rows(100), 1024).unwrap_or_else(|e| panic!("{n}: {e}"));
        }
        assert_eq!(granted(&mut grants), 0);
        assert_eq!(budget.used(), 3200);
        assert!(inlet.changes(rows(1), 256).is_err());
        assert!(matches!(receiver.try_next(), Some(Message::Changes(_))));
        assert_eq!((granted(&mut grants), budget.used()), (1024, 2400));
        drop(receiver);
        assert_eq!((granted(&mut grants), budget.used()), (3072, 0), "what nobody takes is let go");
        assert_eq!(inlet.changes(rows(1), 256).expect_err("nobody takes it").kind(), ErrorKind::Cancelled);
    }

    #[test]
    fn when_memory_is_short_one_message_is_under_way() {
        let (metrics, budget): (Arc<NodeMetrics>, _) = (Arc::default(), MemoryBudget::new(1 << 30));
        let (mut inlet, mut grants, mut receiver) = inlet(window(4096), 0, metrics, budget.clone());
        let others = budget.hold(1 << 30);
        assert_eq!(granted(&mut grants), 4096, "a message of any size");
        inlet.changes(rows(100), 1024).expect("room");
        assert_eq!(granted(&mut grants), 0);
        receiver.try_next().expect("is there");
        assert_eq!(granted(&mut grants), 1024);
        drop(others);
    }

    #[test]
    fn small_messages_are_bounded_by_their_number() {
        assert_eq!([cost(0, 4096), cost(300, 4096), cost(9000, 4096), cost(9, 64)], [256, 300, 4096, 64]);
        assert_eq!([window(64), window(3), window(1 << 20)], [64, 4, 1 << 20]);
    }
}
