//! Sending what comes out of edges to another node.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::FlightData;
use millstream_engine::changes::Changes;
use millstream_engine::memory::MemoryBudget;
use millstream_engine::runtime::{Message, Outlet, cost, gone_away, stopping};
use millstream_engine::{Error, Result};
use prost::Message as _;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use super::call::{Taken, WAITING};
use super::rows::RowsOut;
use super::words::{Answer, Head, alone};
use crate::compression::Compression;

/// Rows go in pieces of about half an edge's window, of this size at least and at most.
const PIECES: (usize, usize) = (16 << 10, 1 << 20);

/// What has been sent ends so soon after its last message has been taken.
const ENDING: Duration = Duration::from_secs(1);

/// An edge, as it is sent.
struct Sending {
    outlet: Outlet,
    window: usize,
    /// What the other end has room for.
    room: Arc<Semaphore>,
    /// So few are encoded at a time as can be sent: what waits for room is not encoded yet.
    encoding: Arc<Semaphore>,
    rows: RowsOut,
    budget: Arc<MemoryBudget>,
    send: mpsc::Sender<FlightData>,
}

/// Sends what comes out of `outlets` over a line to `address`, until all has been taken there.
pub(super) async fn carry(
    line: Taken,
    address: &str,
    outlets: Vec<Outlet>,
    compression: Compression,
    budget: &Arc<MemoryBudget>,
) -> Result<()> {
    let Taken { send, mut answers } = line;
    let gone = || gone_away(address, "has gone");
    let first = answers.message().await.ok().flatten().ok_or_else(gone)?;
    let window = answer(&first)?.window as usize;
    let (mut edges, mut rooms) = (JoinSet::new(), HashMap::new());
    let encoding = Arc::new(Semaphore::new(WAITING));
    for outlet in outlets {
        let room = Arc::new(Semaphore::new(0));
        rooms.insert(outlet.edge, room.clone());
        let (encoding, budget, rows) = (encoding.clone(), budget.clone(), RowsOut::new(compression)?);
        edges.spawn(Sending { outlet, window, room, encoding, rows, budget, send: send.clone() }.run());
    }
    // The line ends with the last edge.
    drop(send);
    loop {
        tokio::select! {
            message = answers.message() => match message {
                Ok(Some(message)) => for granted in answer(&message)?.granted {
                    let bytes = (granted.bytes as usize).min(window);
                    rooms.get(&granted.edge).into_iter().for_each(|room| room.add_permits(bytes));
                },
                // The last of them may just be ending.
                Ok(None) => return timeout(ENDING, end(edges)).await.unwrap_or_else(|_| Err(gone())),
                Err(_) => return Err(gone()),
            },
            Some(ended) = edges.join_next() => ended_well(ended)?,
        }
    }
}

/// Waits until all edges have ended.
async fn end(mut edges: JoinSet<Result<()>>) -> Result<()> {
    while let Some(ended) = edges.join_next().await {
        ended_well(ended)?;
    }
    Ok(())
}

fn ended_well(ended: Result<Result<()>, JoinError>) -> Result<()> {
    ended.unwrap_or_else(|_| Err(Error::internal("what sends to a node panicked")))
}

fn answer(message: &FlightData) -> Result<Answer> {
    Answer::decode(message.app_metadata.clone()).map_err(|e| Error::data(format!("a node answers what is none: {e}")))
}

impl Sending {
    /// Sends until the end of the job's input.
    async fn run(mut self) -> Result<()> {
        let edge = self.outlet.edge;
        loop {
            match self.outlet.next().await? {
                // Its task has failed, and says why. What the other end would say about a line that ends early is no news.
                None => std::future::pending().await,
                Some(Message::Mark(mark)) => {
                    self.put(alone(&Head { edge, mark: Some(mark.into()), ..Head::default() })).await?;
                    if mark.end {
                        return Ok(());
                    }
                }
                Some(Message::Changes(changes)) => {
                    let _held = self.budget.hold(changes.bytes());
                    let largest = (self.window / 2).clamp(PIECES.0, PIECES.1);
                    for piece in pieces(changes, largest) {
                        self.send(&piece).await?;
                    }
                }
            }
        }
    }

    async fn send(&mut self, piece: &Changes) -> Result<()> {
        let cost = cost(piece.bytes(), self.window) as u32;
        self.room.acquire_many(cost).await.map_err(|_| stopping())?.forget();
        let encoding = self.encoding.clone();
        let _one = encoding.acquire().await.map_err(|_| stopping())?;
        for message in self.rows.messages(self.outlet.edge, cost, piece)? {
            self.put(message).await?;
        }
        Ok(())
    }

    async fn put(&self, message: FlightData) -> Result<()> {
        self.send.send(message).await.map_err(|_| stopping())
    }
}

/// `changes` in pieces of at most `largest` bytes, unless a single row has more.
fn pieces(changes: Changes, largest: usize) -> Vec<Changes> {
    let (mut left, mut pieces) = (vec![changes], vec![]);
    // Halving copes with rows of very different sizes.
    while let Some(next) = left.pop() {
        let rows = next.num_rows();
        if rows > 1 && next.bytes() > largest {
            left.push(next.slice(rows / 2, rows - rows / 2));
            left.push(next.slice(0, rows / 2));
        } else {
            pieces.push(next);
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn pieces_are_in_order() {
        let n: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        let changes = Changes::insertions(RecordBatch::try_from_iter([("n", n)]).unwrap());
        let pieces = pieces(changes, 1000);
        assert_eq!(pieces.len(), 8);
        let numbers = pieces.iter().flat_map(|p| p.rows().column(0).as_primitive::<Int64Type>().values().to_vec());
        assert!(numbers.eq(0..1000));
    }
}
