//! Edges over a loopback address.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use async_trait::async_trait;
use millstream_engine::changes::Changes;
use millstream_engine::epoch::EpochMark;
use millstream_engine::memory::MemoryBudget;
use millstream_engine::runtime::{
    EdgesByHand, Landings, Message, Network, Node, Planned, Planner, ReceivingEnd, Runtime,
};
use millstream_engine::time::EventTime;
use millstream_engine::{Error, ErrorKind, Result};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Door, Exchange, InTheClear, NodeService};
use crate::Compression;

const LONG: Duration = Duration::from_secs(20);
const NODE_TIMEOUT: Duration = Duration::from_secs(2);

struct Nothing;

#[async_trait]
impl Planner for Nothing {
    async fn plan(&self, _description: &serde_json::Value) -> Result<Planned> {
        Err(Error::not_found("nothing is planned here"))
    }
}

fn exchange(address: String) -> Arc<Exchange> {
    let budget = MemoryBudget::new(1 << 30);
    Arc::new(Exchange::new(address, Arc::new(InTheClear), Compression::None, budget, Handle::current()))
}

/// A node at a free port, and what serves it.
async fn node() -> (Arc<Exchange>, JoinHandle<Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let exchange = exchange(listener.local_addr().unwrap().to_string());
    let budget = MemoryBudget::new(1 << 30);
    let runtime = Runtime::new(Handle::current(), Handle::current(), budget).with_network(exchange.clone());
    let door = Door::new(Some(Node::new(runtime, Arc::new(Nothing))), exchange.landings().clone(), Handle::current());
    (exchange, tokio::spawn(NodeService::new(door).serve(listener)))
}

fn edges(landings: &Arc<Landings>, edges: u32, bytes: usize) -> EdgesByHand {
    EdgesByHand::new(landings, "run", "one:1", edges, bytes, &MemoryBudget::new(1 << 30))
}

fn rows(from: i64, n: i64) -> Changes {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + n));
    Changes::insertions(RecordBatch::try_from_iter([("n", numbers)]).unwrap())
}

fn mark(epoch: u64, end: bool) -> EpochMark {
    EpochMark { epoch, now: EventTime(8), watermark: EventTime(7), checkpoint: Some(epoch), end, depth: 0 }
}

/// The rows up to the next mark, and that.
async fn epoch(edge: &mut ReceivingEnd) -> (usize, EpochMark) {
    let mut rows = 0;
    loop {
        match edge.next().await.expect("goes on") {
            Message::Changes(changes) => rows += changes.num_rows(),
            Message::Mark(mark) => return (rows, mark),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_is_full_holds_up_no_other() {
    let ((there, _serving), here) = (node().await, exchange("one:1".to_owned()));
    for bytes in [64, 64 << 10] {
        let EdgesByHand { sending, outlets, mut receiving, run } = edges(there.landings(), 40, bytes);
        let (to, from) = (there.address().to_owned(), here.clone());
        let carrying = tokio::spawn(async move { from.carry(&to, "run", 1, outlets, NODE_TIMEOUT).await });
        let mut full = vec![];
        for sender in sending {
            full.push(tokio::spawn(async move {
                // Far more than an edge holds, of the second epoch and later ones: nobody reads it before the first has ended everywhere.
                for part in 1..=5 {
                    sender.mark(mark(part, false)).await.unwrap();
                    sender.changes(rows(0, 20_000)).await.unwrap();
                }
                sender.mark(mark(6, true)).await.unwrap();
            }));
        }
        // A gate: each edge in turn, the last one first, while all that come later are full.
        for n in 1..=6 {
            for edge in receiving.iter_mut().rev() {
                let (rows, read) = timeout(LONG, epoch(edge)).await.expect("no edge waits for another");
                assert_eq!((rows, read), (if n == 1 { 0 } else { 20_000 }, mark(n, n == 6)));
            }
        }
        for sent in full {
            sent.await.unwrap();
        }
        timeout(LONG, carrying).await.expect("it ends").unwrap().expect("all was taken");
        drop(run);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_goes_is_named_on_both_sides() {
    let ((there, serving), here) = (node().await, exchange("one:1".to_owned()));
    // The one that receives goes.
    let by_hand = edges(there.landings(), 1, 1 << 20);
    let (to, from, outlets) = (there.address().to_owned(), here.clone(), by_hand.outlets);
    let address = to.clone();
    let carrying = tokio::spawn(async move { from.carry(&to, "run", 1, outlets, NODE_TIMEOUT).await });
    by_hand.sending[0].mark(mark(1, false)).await.unwrap();
    let mut receiving = by_hand.receiving;
    assert_eq!(timeout(LONG, epoch(&mut receiving[0])).await.unwrap().1.epoch, 1);
    drop(by_hand.run);
    let e = timeout(LONG, carrying).await.expect("it is noticed").unwrap().expect_err("nobody is there");
    assert_eq!(e.kind(), ErrorKind::Unavailable);
    assert!(e.message().contains(&address), "{e}");
    // The one that sends goes.
    let mut by_hand = edges(there.landings(), 1, 1 << 20);
    let (to, from, outlets) = (there.address().to_owned(), here.clone(), by_hand.outlets);
    let carrying = tokio::spawn(async move { from.carry(&to, "run", 1, outlets, NODE_TIMEOUT).await });
    by_hand.sending[0].mark(mark(1, false)).await.unwrap();
    assert_eq!(timeout(LONG, epoch(&mut by_hand.receiving[0])).await.unwrap().1.epoch, 1);
    carrying.abort();
    let e = timeout(LONG, by_hand.run.failure()).await.expect("it is noticed");
    assert_eq!((e.kind(), e.message()), (ErrorKind::Unavailable, "node \"one:1\" has gone"));
    // Nobody is there at all.
    serving.abort();
    let _ = serving.await;
    let e = here.call(&address, Default::default(), NODE_TIMEOUT).await.expect_err("nobody listens");
    assert_eq!(e.kind(), ErrorKind::Unavailable);
    assert!(e.message().contains(&address), "{e}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_run_does_not_expect_is_refused() {
    let ((there, _serving), here) = (node().await, exchange("one:1".to_owned()));
    let by_hand = edges(there.landings(), 1, 1 << 20);
    let carried = here.carry(there.address(), "another run", 1, by_hand.outlets, NODE_TIMEOUT).await;
    assert_eq!(carried.expect_err("it is over").kind(), ErrorKind::Cancelled);
    let mut line = here.call(there.address(), "no order".into(), NODE_TIMEOUT).await.expect("it is heard");
    let said = timeout(LONG, line.hear.recv()).await.expect("an answer").expect("an answer");
    assert!(String::from_utf8_lossy(&said).contains("cannot be understood"), "{said:?}");
}
