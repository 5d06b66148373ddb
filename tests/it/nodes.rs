//! Streams of a store whose jobs have tasks on another node.

use std::sync::Arc;
use std::time::Duration;

use arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use millstream_engine::memory::MemoryBudget;
use millstream_engine::runtime::{Network, Node, Runtime, Seat};
use millstream_flight::Compression;
use millstream_flight::exchange::{Door, Exchange, InTheClear, NodeService};
use millstream_sql::session::Seat as Place;
use millstream_sql::{Config, Millstream, Outcome, Principal, Session};
use tokio::net::TcpListener;
use tokio::runtime::Handle;

const QUERY: &str =
    "SELECT auction % 1000 AS k, count(*) AS n, sum(price) AS total, max(url) AS last FROM bid GROUP BY auction % 1000";

async fn rows(session: &Session, sql: &str) -> String {
    let Outcome::Rows(rows) = session.execute_sql(sql).await.unwrap() else { panic!("rows") };
    pretty_format_batches(&rows.rows.try_collect::<Vec<_>>().await.unwrap()).unwrap().to_string()
}

/// A network at a free port of this machine, and the door of `node` there.
async fn serve(handle: &Handle, node: impl FnOnce(Arc<Exchange>) -> Option<Node>) -> Arc<Exchange> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap().into_std().unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let budget = MemoryBudget::new(1 << 30);
    let exchange = Exchange::new(address, Arc::new(InTheClear), Compression::None, budget, handle.clone());
    let exchange = Arc::new(exchange);
    let door = Door::new(node(exchange.clone()), exchange.landings().clone(), handle.clone());
    handle.spawn(async move { NodeService::new(door).serve(TcpListener::from_std(listener).unwrap()).await });
    exchange
}

/// A node that can be ended.
struct Other {
    runtime: tokio::runtime::Runtime,
    exchange: Arc<Exchange>,
    /// Plans for it.
    millstream: Arc<Millstream>,
}

/// A node beside the one that has the store of `config`, in a runtime of its own.
async fn other(config: &Config) -> Other {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    let elsewhere = |_: &Runtime| -> Arc<dyn Network> {
        Arc::new(Exchange::new("", Arc::new(InTheClear), Compression::None, MemoryBudget::new(0), Handle::current()))
    };
    let millstream = Millstream::beside(config.clone(), &Place::at(&config.store).await.unwrap(), elsewhere).unwrap();
    let planner = millstream.planner();
    let exchange = serve(runtime.handle(), |network| {
        let engine = Runtime::new(handle.clone(), handle, MemoryBudget::new(1 << 30)).with_network(network);
        Some(Node::new(engine, planner))
    })
    .await;
    Other { runtime, exchange, millstream }
}

/// Ends a node: its connections break.
fn kill(node: Other) {
    std::thread::spawn(move || drop(node.runtime)).join().unwrap();
    drop(node.millstream);
}

/// The state of stream `s`, and its error.
async fn state(session: &Session) -> String {
    rows(session, "SHOW JOBS").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_writes_its_part_of_a_table_and_can_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { parallelism: 4, ..Config::new(folder.path().to_string_lossy()) };
    let millstream = Millstream::open(config.clone()).await.unwrap();
    let session = millstream.session_of(Principal::owner());
    let home = serve(&Handle::current(), |network| {
        millstream.join(network);
        None
    })
    .await;
    let first = other(&config).await;
    let network = first.exchange.clone();
    let seat = |network: &Exchange| Seat { address: network.address().to_owned(), cores: 1 };
    millstream.seat(vec![seat(&home), seat(&network)]);
    let bids = "CREATE STREAM bid WITH (connector = 'nexmark', table = 'bid', events = 3000000)";
    session.execute_sql(bids).await.unwrap();
    session.execute_sql(&format!("CREATE STREAM s WITH (checkpoint_interval = '20 ms') AS {QUERY}")).await.unwrap();
    // Some of it is committed, and not all.
    for _ in 0..200 {
        if rows(&session, "SELECT count(*) > 0 AS some FROM s").await.contains("true") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    kill(first);
    for _ in 0..1000 {
        if !state(&session).await.contains("running") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let failed = state(&session).await;
    assert!(failed.contains(network.address()) || failed.contains("was cancelled"), "{failed}");
    let second = other(&config).await;
    let network = second.exchange.clone();
    millstream.seat(vec![seat(&network), seat(&home)]);
    session.execute_sql("RESUME STREAM s").await.unwrap();
    session.execute_sql("FLUSH").await.unwrap();
    let expected = rows(&session, &format!("{QUERY} ORDER BY k")).await;
    assert_eq!(rows(&session, "SELECT * FROM s ORDER BY k").await, expected);
    let shown = rows(&session, "SHOW JOBS").await;
    assert!(shown.contains("finished"), "{shown}");
    kill(second);
}
