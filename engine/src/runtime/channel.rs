//! The edges between tasks: queues bounded in bytes, and the gate that aligns epochs.

use std::sync::Arc;
use std::task::Poll;

use tokio::sync::{Semaphore, mpsc};

use crate::changes::Changes;
use crate::epoch::EpochMark;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{Held, MemoryBudget};
use crate::metrics::NodeMetrics;

/// Messages that one edge may hold besides its bound in bytes.
const MOST_MESSAGES: usize = 256;

/// What flows along an edge.
#[derive(Debug)]
pub enum Message {
    /// Rows of the present epoch.
    Changes(Changes),
    /// The end of the epoch.
    Mark(EpochMark),
}

#[derive(Debug)]
pub(super) enum Queued {
    Changes(Changes, Taken, i64, Held),
    Mark(EpochMark),
}

/// Room of an edge, until what takes it is taken from the edge.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) room: Arc<Semaphore>,
    pub(super) bytes: usize,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.room.add_permits(self.bytes);
    }
}

/// The sending end of an edge.
#[derive(Clone)]
pub(crate) struct Sender {
    queue: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
    bytes: usize,
    metrics: Arc<NodeMetrics>,
    budget: Arc<MemoryBudget>,
}

/// The receiving end of an edge.
#[derive(Debug)]
pub(crate) struct Receiver {
    queue: mpsc::Receiver<Queued>,
    port: usize,
    mark: Option<EpochMark>,
    metrics: Arc<NodeMetrics>,
}

/// An edge that holds about `bytes` (one message more, when a single one is larger). `metrics` are the
/// receiving operator's. What it holds counts in `budget`; when that is nearly used up it holds one message.
pub(crate) fn edge(
    bytes: usize,
    port: usize,
    metrics: Arc<NodeMetrics>,
    budget: Arc<MemoryBudget>,
) -> (Sender, Receiver) {
    let (tx, rx) = mpsc::channel(MOST_MESSAGES);
    let sender = Sender { queue: tx, room: Arc::new(Semaphore::new(bytes)), bytes, metrics: metrics.clone(), budget };
    (sender, Receiver::new(rx, port, metrics))
}

/// What a task is told whose other end has gone: that one says why.
pub fn stopping() -> Error {
    Error::new(ErrorKind::Cancelled, "the job is stopping")
}

impl Sender {
    /// Sends changes, waiting for room.
    pub(crate) async fn send(&self, changes: Changes) -> Result<()> {
        let bytes = changes.bytes();
        // All of the room: what was sent before is taken first. One message goes on always, since others may wait for it.
        let room = if self.budget.pressed() { self.bytes } else { bytes.clamp(1, self.bytes) };
        self.room.acquire_many(room as u32).await.map_err(|_| stopping())?.forget();
        let taken = Taken { room: self.room.clone(), bytes: room };
        self.metrics.queued(bytes as i64);
        let held = self.budget.hold(bytes);
        self.queue.send(Queued::Changes(changes, taken, bytes as i64, held)).await.map_err(|_| stopping())
    }

    /// Sends a mark behind all changes sent before.
    pub(crate) async fn mark(&self, mark: EpochMark) -> Result<()> {
        self.queue.send(Queued::Mark(mark)).await.map_err(|_| stopping())
    }
}

impl Receiver {
    pub(super) fn new(queue: mpsc::Receiver<Queued>, port: usize, metrics: Arc<NodeMetrics>) -> Self {
        Receiver { queue, port, mark: None, metrics }
    }

    /// The next message, for who carries it on; `None` when the sender has gone.
    pub(super) async fn next(&mut self) -> Option<Message> {
        let next = self.queue.recv().await?;
        Some(self.taken(next))
    }

    /// The next message, if it is there.
    pub(super) fn try_next(&mut self) -> Option<Message> {
        let next = self.queue.try_recv().ok()?;
        Some(self.taken(next))
    }

    fn taken(&self, queued: Queued) -> Message {
        match queued {
            Queued::Changes(changes, _, bytes, _) => {
                self.metrics.queued(-bytes);
                Message::Changes(changes)
            }
            Queued::Mark(mark) => Message::Mark(mark),
        }
    }
}

/// What a gate lets through.
pub(crate) enum Event {
    /// Changes at a port.
    Changes(usize, Changes),
    /// All inputs have ended the epoch.
    Mark(EpochMark),
}

/// The inputs of a task. An input that has ended the epoch waits until all have.
pub(crate) struct Gate {
    inputs: Vec<Receiver>,
    next: usize,
    metrics: Arc<NodeMetrics>,
}

impl Gate {
    /// Over the receiving ends of all edges into a task.
    pub(crate) fn new(inputs: Vec<Receiver>, metrics: Arc<NodeMetrics>) -> Self {
        Gate { inputs, next: 0, metrics }
    }

    /// The next changes or mark. May be dropped before it is ready and loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Event> {
        std::future::poll_fn(|cx| {
            let n = self.inputs.len();
            for i in 0..n {
                let at = (self.next + i) % n;
                let input = &mut self.inputs[at];
                if input.mark.is_some() {
                    continue;
                }
                match input.queue.poll_recv(cx) {
                    Poll::Pending => {}
                    Poll::Ready(None) => return Poll::Ready(Err(stopping())),
                    Poll::Ready(Some(Queued::Changes(changes, taken, bytes, held))) => {
                        drop((taken, held));
                        self.metrics.queued(-bytes);
                        self.next = at;
                        return Poll::Ready(Ok(Event::Changes(input.port, changes)));
                    }
                    Poll::Ready(Some(Queued::Mark(mark))) => {
                        input.mark = Some(mark);
                        if self.inputs.iter().all(|i| i.mark.is_some()) {
                            return Poll::Ready(self.open());
                        }
                    }
                }
            }
            Poll::Pending
        })
        .await
    }

    fn open(&mut self) -> Result<Event> {
        let mut marks = self.inputs.iter_mut().filter_map(|i| i.mark.take());
        let first = marks.next().ok_or_else(|| Error::internal("a gate without inputs"))?;
        match marks.all(|m| m == first) {
            true => Ok(Event::Mark(first)),
            false => Err(Error::internal("inputs disagree about an epoch's mark")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::EventTime;
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use std::sync::Arc;

    fn one(v: i64) -> Changes {
        let a: ArrayRef = Arc::new(Int64Array::from(vec![v]));
        Changes::insertions(RecordBatch::try_from_iter([("v", a)]).expect("one column"))
    }

    fn mark(epoch: u64) -> EpochMark {
        EpochMark { epoch, now: EventTime::MIN, watermark: EventTime::MIN, checkpoint: None, end: false, depth: 0 }
    }

    #[tokio::test]
    async fn an_input_ahead_waits_for_the_others() {
        let metrics: Arc<NodeMetrics> = Arc::default();
        let (a, ra) = edge(1000, 0, metrics.clone(), MemoryBudget::new(1 << 20));
        let (b, rb) = edge(1000, 1, metrics.clone(), MemoryBudget::new(1 << 20));
        let mut gate = Gate::new(vec![ra, rb], metrics.clone());
        a.send(one(1)).await.expect("room");
        a.mark(mark(1)).await.expect("room");
        a.send(one(2)).await.expect("room");
        b.send(one(3)).await.expect("room");
        let mut seen = vec![];
        for _ in 0..2 {
            if let Event::Changes(port, _) = gate.next().await.expect("open") {
                seen.push(port);
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, vec![0, 1]);
        b.mark(mark(1)).await.expect("room");
        assert!(matches!(gate.next().await.expect("open"), Event::Mark(m) if m.epoch == 1));
        assert!(matches!(gate.next().await.expect("open"), Event::Changes(0, _)));
        assert_eq!(metrics.read().queued_bytes, 0);
    }

    #[tokio::test]
    async fn a_full_edge_waits_until_it_is_read() {
        let metrics: Arc<NodeMetrics> = Arc::default();
        let (a, ra) = edge(8, 0, metrics.clone(), MemoryBudget::new(1 << 20));
        let mut gate = Gate::new(vec![ra], metrics);
        a.send(one(1)).await.expect("room");
        let second = tokio::spawn(async move { a.send(one(2)).await });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        assert!(matches!(gate.next().await.expect("open"), Event::Changes(0, _)));
        assert!(matches!(gate.next().await.expect("open"), Event::Changes(0, _)));
        second.await.expect("no panic").expect("sent");
    }

    #[tokio::test]
    async fn what_is_queued_counts_and_under_pressure_one_message_is() {
        let (metrics, budget): (Arc<NodeMetrics>, _) = (Arc::default(), MemoryBudget::new(1000));
        let (a, ra) = edge(100_000, 0, metrics.clone(), budget.clone());
        let mut gate = Gate::new(vec![ra], metrics);
        a.send(one(1)).await.expect("room");
        let bytes = budget.used();
        assert!(bytes >= 8, "{bytes}");
        let others = budget.hold(900);
        let second = tokio::spawn(async move { a.send(one(2)).await });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        assert!(matches!(gate.next().await.expect("open"), Event::Changes(0, _)));
        second.await.expect("no panic").expect("sent");
        assert_eq!(budget.used(), 900 + bytes);
        drop((gate, others));
        assert_eq!(budget.used(), 0);
    }
}
