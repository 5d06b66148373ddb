//! The sending end of an edge between nodes, for who carries on what comes out of it.

use std::collections::VecDeque;

use super::channel::{Message, Receiver};
use crate::changes::Changes;
use crate::error::Result;

/// Small batches go on together up to so many bytes.
const TOGETHER: usize = 64 << 10;

/// See the module's text.
#[derive(Debug)]
pub struct Outlet {
    /// The edge, by which both nodes know it.
    pub edge: u32,
    receiver: Receiver,
    /// What was taken and does not go with what was given last.
    next: VecDeque<Message>,
}

impl Outlet {
    pub(super) fn new(edge: u32, receiver: Receiver) -> Self {
        Outlet { edge, receiver, next: VecDeque::new() }
    }

    /// What is to be sent next; `None` when the task has gone. Small batches that wait already are put together.
    pub async fn next(&mut self) -> Result<Option<Message>> {
        let first = match self.next.pop_front() {
            Some(message) => Some(message),
            None => self.receiver.next().await,
        };
        let Some(Message::Changes(first)) = first else { return Ok(first) };
        let mut bytes = first.bytes();
        let mut together = vec![first];
        while bytes < TOGETHER {
            let Some(message) = self.receiver.try_next() else { break };
            match message {
                Message::Changes(more) if goes_with(&together[0], &more) && more.bytes() < TOGETHER => {
                    bytes += more.bytes();
                    together.push(more);
                }
                other => {
                    self.next.push_back(other);
                    break;
                }
            }
        }
        Ok(Some(Message::Changes(Changes::concat(&together[0].schema(), &together)?)))
    }
}

/// Rows with weights are told from those without.
fn goes_with(one: &Changes, other: &Changes) -> bool {
    one.weights().is_some() == other.weights().is_some() && one.rows().schema_ref() == other.rows().schema_ref()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};

    use super::*;
    use crate::epoch::EpochMark;
    use crate::memory::MemoryBudget;
    use crate::runtime::channel::edge;
    use crate::time::EventTime;

    fn rows(n: i64) -> Changes {
        let a: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n));
        Changes::insertions(RecordBatch::try_from_iter([("v", a)]).expect("one column"))
    }

    fn weighted(n: i64) -> Changes {
        let weights = vec![-1; n as usize];
        Changes::weighted(rows(n).rows().clone(), weights.into()).expect("as many")
    }

    #[tokio::test]
    async fn small_batches_go_together_up_to_the_mark() {
        let (sender, receiver) = edge(1 << 20, 0, Arc::default(), MemoryBudget::new(1 << 30));
        for changes in [rows(1), rows(2), weighted(3), weighted(4), rows(20_000), rows(5)] {
            sender.send(changes).await.expect("room");
        }
        let mark = EpochMark {
            epoch: 1,
            now: EventTime::MIN,
            watermark: EventTime::MIN,
            checkpoint: None,
            end: false,
            depth: 0,
        };
        sender.mark(mark).await.expect("room");
        sender.send(rows(6)).await.expect("room");
        drop(sender);
        let (mut outlet, mut seen) = (Outlet::new(7, receiver), vec![]);
        while let Some(message) = outlet.next().await.expect("alike") {
            seen.push(match message {
                Message::Changes(changes) => changes.num_rows(),
                Message::Mark(_) => 0,
            });
        }
        assert_eq!(seen, [3, 7, 20_000, 5, 0, 6]);
    }
}
