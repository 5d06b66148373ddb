//! Rows that come once, however often they are sent.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::util::pretty::pretty_format_batches;
use futures::{StreamExt, TryStreamExt, stream};
use millstream_sql::session::Delivery;
use millstream_sql::{Config, Error, ErrorKind, Millstream, Outcome, Principal, Result, Session};

async fn open(folder: &tempfile::TempDir) -> Session {
    let config = Config { parallelism: 1, ..Config::new(folder.path().to_string_lossy()) };
    Millstream::open(config).await.unwrap().session_of(Principal::owner())
}

fn delivery(checkpoint: u64, rows: u64) -> Delivery {
    let sender = "a".to_owned();
    Delivery { sender, checkpoint, run: "r".to_owned(), rows, changelog: false, key: None }
}

fn numbers(values: &[i64]) -> RecordBatch {
    RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from(values.to_vec())) as ArrayRef)]).unwrap()
}

fn changes(changes: &[(&str, i64, i64)]) -> RecordBatch {
    let ops = StringArray::from_iter_values(changes.iter().map(|c| c.0));
    let column =
        |at: fn(&(&str, i64, i64)) -> i64| Arc::new(changes.iter().map(at).collect::<Int64Array>()) as ArrayRef;
    RecordBatch::try_from_iter([("_op", Arc::new(ops) as ArrayRef), ("v", column(|c| c.2)), ("k", column(|c| c.1))])
        .unwrap()
}

async fn send(session: &Session, stream: &str, delivery: Delivery, batches: Vec<Result<RecordBatch>>) -> Result<u64> {
    let schema = batches.iter().flatten().next().unwrap().schema();
    session.deliver(stream, delivery, &schema, stream::iter(batches).boxed()).await
}

async fn content(session: &Session, sql: &str) -> String {
    let Outcome::Rows(rows) = session.execute_sql(sql).await.unwrap() else { panic!("rows") };
    pretty_format_batches(&rows.rows.try_collect::<Vec<_>>().await.unwrap()).unwrap().to_string()
}

async fn sum(session: &Session) -> String {
    let shown = content(session, "SELECT count(*) || ' ' || coalesce(sum(x), 0) AS t FROM s").await;
    shown.lines().nth(3).unwrap().trim_matches(['|', ' ']).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repetition_is_acknowledged_and_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    {
        let session = open(&folder).await;
        session.execute_sql("CREATE STREAM s (x BIGINT)").await.unwrap();
        let rows = |values: &[i64]| vec![Ok(numbers(values))];
        assert_eq!(send(&session, "s", delivery(3, 2), rows(&[1, 2])).await.unwrap(), 2);
        assert_eq!(send(&session, "s", delivery(3, 2), rows(&[1, 2])).await.unwrap(), 0);
        // Twins: one of them goes in.
        let twins = (0..4).map(|_| send(&session, "s", delivery(5, 1), rows(&[10])));
        let taken: u64 = futures::future::try_join_all(twins).await.unwrap().iter().sum();
        assert_eq!((taken, sum(&session).await), (1, "3 13".to_owned()));
        // Another sender is another one.
        let other = Delivery { sender: "b".to_owned(), ..delivery(3, 2) };
        assert_eq!(send(&session, "s", other, rows(&[1, 2])).await.unwrap(), 2);
        session.millstream().close().await.unwrap();
    }
    let session = open(&folder).await;
    // Also after a restart, and where a part of it is gone at the sender.
    assert_eq!(send(&session, "s", delivery(5, 1), vec![Ok(numbers(&[10]))]).await.unwrap(), 0);
    assert_eq!(send(&session, "s", delivery(3, 1), vec![Ok(numbers(&[2]))]).await.unwrap(), 0);
    assert_eq!(sum(&session).await, "5 16");
    // A store that was set back makes other deliveries of the same numbers.
    for wrong in [delivery(4, 1), delivery(5, 2), Delivery { run: "other".to_owned(), ..delivery(5, 1) }] {
        let rows = vec![Ok(numbers(&vec![7; wrong.rows as usize]))];
        let e = send(&session, "s", wrong, rows).await.unwrap_err();
        assert!(e.message().contains("came after those of checkpoint 5 of the same sender"), "{e}");
        assert!(e.hint().unwrap().contains("restored from an older copy"), "{e:?}");
    }
    assert_eq!(sum(&session).await, "5 16");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_goes_in_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let session = open(&folder).await;
    session.execute_sql("CREATE STREAM s (x BIGINT)").await.unwrap();
    let broken = || Error::new(ErrorKind::Unavailable, "the line was cut");
    let e = send(&session, "s", delivery(1, 4), vec![Ok(numbers(&[1, 2])), Err(broken())]).await.unwrap_err();
    assert_eq!(e.message(), "the line was cut");
    let e = send(&session, "s", delivery(1, 4), vec![Ok(numbers(&[1, 2]))]).await.unwrap_err();
    assert_eq!((e.kind(), e.message()), (ErrorKind::Unavailable, "2 rows came of 4 that were announced"));
    assert_eq!(sum(&session).await, "0 0");
    assert_eq!(send(&session, "s", delivery(1, 4), vec![Ok(numbers(&[1, 2])), Ok(numbers(&[3, 4]))]).await.unwrap(), 4);
    assert_eq!(sum(&session).await, "4 10");
    // Who only asks changes nothing.
    let asks = Delivery { sender: String::new(), ..delivery(9, 1) };
    assert_eq!(send(&session, "s", asks, vec![Ok(numbers(&[1]))]).await.unwrap(), 0);
    assert_eq!(sum(&session).await, "4 10");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changelog_goes_in_by_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let session = open(&folder).await;
    session.execute_sql("CREATE STREAM keyed (k BIGINT, v BIGINT, PRIMARY KEY (k))").await.unwrap();
    session.execute_sql("CREATE STREAM s (k BIGINT, v BIGINT)").await.unwrap();
    session.execute_sql("CREATE STREAM total AS SELECT count(*) AS n, sum(v) AS s FROM keyed").await.unwrap();
    let with = |checkpoint, rows, key: &str| {
        let key = Some(vec![key.to_owned()]);
        Delivery { changelog: true, key, ..delivery(checkpoint, rows) }
    };
    let first = [("+I", 1, 10), ("+I", 2, 20), ("+I", 3, 30)];
    let e = send(&session, "s", with(1, 3, "k"), vec![Ok(changes(&first))]).await.unwrap_err();
    assert!(e.message().contains("stream \"s\" has no primary key"), "{e}");
    let e = send(&session, "keyed", with(1, 3, "v"), vec![Ok(changes(&first))]).await.unwrap_err();
    assert!(e.message().contains("told apart by v, and the primary key of stream \"keyed\" is k"), "{e}");
    let e = send(&session, "keyed", with(1, 1, "k"), vec![Ok(changes(&[("+X", 1, 1)]))]).await.unwrap_err();
    assert!(e.message().contains("+X"), "{e}");
    assert_eq!(send(&session, "keyed", with(1, 3, "k"), vec![Ok(changes(&first))]).await.unwrap(), 3);
    // 1 is gone; 2 becomes 21 and then 22, said by two tasks that are not in order.
    let (one, other) = ([("-U", 2, 21), ("+U", 2, 22)], [("-D", 1, 10), ("-U", 2, 20), ("+U", 2, 21)]);
    let both = vec![Ok(changes(&one)), Ok(changes(&other))];
    assert_eq!(send(&session, "keyed", with(2, 5, "k"), both).await.unwrap(), 5);
    let found = content(&session, "SELECT k, v FROM keyed ORDER BY k").await;
    assert_eq!(
        found.split_whitespace().filter(|w| w.parse::<i64>().is_ok()).collect::<Vec<_>>(),
        ["2", "22", "3", "30"]
    );
    session.execute_sql("FLUSH").await.unwrap();
    let found = content(&session, "SELECT n, s FROM total").await;
    assert_eq!(found.split_whitespace().filter(|w| w.parse::<i64>().is_ok()).collect::<Vec<_>>(), ["2", "52"]);
}
