//! How many rows go from one node to another in a second?
//!
//! `cargo bench --workspace --bench exchange`: two nodes with a runtime of one thread each, on a loopback address; four edges, batches
//! of 8192 rows, an epoch each million. Narrow rows are two numbers, wide ones have a text of 40 bytes as well.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use async_trait::async_trait;
use futures::future::try_join_all;
use millstream_benches::{Result, median};
use millstream_engine::Error;
use millstream_engine::changes::Changes;
use millstream_engine::epoch::EpochMark;
use millstream_engine::memory::MemoryBudget;
use millstream_engine::runtime::{
    EdgesByHand, Message, Network, Node, Planned, Planner, ReceivingEnd, Runtime, SendingEnd,
};
use millstream_engine::time::EventTime;
use millstream_flight::Compression;
use millstream_flight::exchange::{Door, Exchange, InTheClear, NodeService};
use tokio::net::TcpListener;

const EDGES: u32 = 4;
const BATCH: usize = 8192;
/// Batches of an edge and epoch, and epochs.
const BATCHES: usize = 32;
const EPOCHS: u64 = 20;
const NODE_TIMEOUT: Duration = Duration::from_secs(5);

struct Nothing;

#[async_trait]
impl Planner for Nothing {
    async fn plan(&self, _description: &serde_json::Value) -> millstream_engine::Result<Planned> {
        Err(Error::not_found("nothing is planned here"))
    }
}

/// The network of a node whose work `runtime` does.
fn node(runtime: &tokio::runtime::Runtime, compression: Compression) -> Result<Arc<Exchange>> {
    let (handle, budget) = (runtime.handle().clone(), MemoryBudget::new(8 << 30));
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?.to_string();
    let network = Exchange::new(address, Arc::new(InTheClear), compression, budget.clone(), handle.clone());
    let network = Arc::new(network);
    let engine = Runtime::new(handle.clone(), handle.clone(), budget).with_network(network.clone());
    let door = Door::new(Some(Node::new(engine, Arc::new(Nothing))), network.landings().clone(), handle);
    runtime.spawn(NodeService::new(door).serve(listener));
    Ok(network)
}

fn rows(wide: bool) -> Result<Changes> {
    let numbers = |step: i64| Arc::new(Int64Array::from_iter_values((0..BATCH as i64).map(|i| i * step))) as ArrayRef;
    let mut columns = vec![("key", numbers(7919)), ("value", numbers(3))];
    if wide {
        let text = (0..BATCH).map(|i| Some(format!("{i:0>40}")));
        columns.push(("text", Arc::new(text.collect::<StringViewArray>()) as ArrayRef));
    }
    Ok(Changes::insertions(RecordBatch::try_from_iter(columns)?))
}

async fn send(end: SendingEnd, rows: Changes) -> millstream_engine::Result<()> {
    for epoch in 1..=EPOCHS {
        for _ in 0..BATCHES {
            end.changes(rows.clone()).await?;
        }
        let mark = EpochMark {
            epoch,
            now: EventTime(0),
            watermark: EventTime(0),
            checkpoint: None,
            end: epoch == EPOCHS,
            depth: 0,
        };
        end.mark(mark).await?;
    }
    Ok(())
}

async fn receive(mut end: ReceivingEnd) -> usize {
    let mut rows = 0;
    while let Some(message) = end.next().await {
        match message {
            Message::Changes(changes) => rows += changes.num_rows(),
            Message::Mark(mark) if mark.end => break,
            Message::Mark(_) => {}
        }
    }
    rows
}

/// Sends all rows once. Gives how long that took.
fn once(wide: bool, compression: Compression) -> Result<Duration> {
    let one = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let (here, there) = (one()?, one()?);
    let (from, to) = (node(&here, compression)?, node(&there, compression)?);
    let budget = MemoryBudget::new(8 << 30);
    let edges = EdgesByHand::new(to.landings(), "run", from.address(), EDGES, 4 << 20, &budget);
    let rows = rows(wide)?;
    let start = Instant::now();
    let received: Vec<_> = edges.receiving.into_iter().map(|end| there.spawn(receive(end))).collect();
    let sent: Vec<_> = edges.sending.into_iter().map(|end| here.spawn(send(end, rows.clone()))).collect();
    let outlets = edges.outlets;
    here.block_on(async move { from.carry(to.address(), "run", 1, outlets, NODE_TIMEOUT).await })?;
    let all: usize = there.block_on(try_join_all(received))?.into_iter().sum();
    for sent in here.block_on(try_join_all(sent))? {
        sent?;
    }
    assert_eq!(all, EDGES as usize * BATCH * BATCHES * EPOCHS as usize);
    Ok(start.elapsed())
}

fn main() -> Result<()> {
    let all = EDGES as f64 * (BATCH * BATCHES) as f64 * EPOCHS as f64 / 1e6;
    println!("{:>8} {:>8} {:>12}", "rows", "packed", "M rows/s");
    for (name, wide) in [("narrow", false), ("wide", true)] {
        for (packed, compression) in [("no", Compression::None), ("lz4", Compression::Lz4)] {
            let times = (0..5).map(|_| once(wide, compression)).collect::<Result<Vec<_>>>()?;
            println!("{name:>8} {packed:>8} {:>12.1}", all / median(times).as_secs_f64());
        }
    }
    Ok(())
}
