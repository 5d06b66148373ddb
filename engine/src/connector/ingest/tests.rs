//! Rows are handed in, read and committed; keys are kept.

use super::*;
use crate::connector::arrivals::UNITS;
use crate::connector::spool::Spool;
use crate::error::ErrorKind;
use arrow::array::{ArrayRef, Int64Array};
use serde_json::json;

fn rows(n: i64) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n));
    RecordBatch::try_from_iter([("n", column)]).expect("one column")
}

async fn started() -> Arc<IngestSource> {
    let source = IngestSource::new(MemoryBudget::new(1 << 30));
    source.start(&Offsets::default(), None).expect("started");
    source
}

/// The rows of a unit, batch by batch.
async fn read(source: &IngestSource, unit: &Unit) -> Vec<usize> {
    let mut reader = source.read(unit).await.expect("opened once");
    let (mut counts, mut at) = (vec![], unit.start);
    while let Some(read) = reader.next().await.expect("reads") {
        counts.push(read.rows.num_rows());
        at = read.position;
    }
    assert_eq!(at, unit.end);
    counts
}

#[tokio::test]
async fn no_rows_before_the_job_starts() {
    let source = IngestSource::new(MemoryBudget::new(1 << 30));
    assert_eq!(source.push(source.run(), rows(1)).await.expect_err("closed").kind(), ErrorKind::Unavailable);
    source.start(&Offsets::default(), None).expect("started");
    source.push(source.run(), rows(1)).await.expect("open");
    assert_eq!(source.acknowledged()[0].end, 1);
}

#[tokio::test]
async fn a_push_does_not_outlast_its_run() {
    let source = started().await;
    let run = source.run();
    for _ in 0..UNITS {
        source.push(run, rows(2)).await.expect("room");
    }
    // The queue is full: this one waits, and the run ends meanwhile.
    let late = source.push(run, rows(2));
    tokio::pin!(late);
    assert!(futures::poll!(&mut late).is_pending());
    source.start(&Offsets::default(), None).expect("started again");
    assert_eq!(late.await.expect_err("over").kind(), ErrorKind::Unavailable);
    assert_eq!(source.push(run, rows(2)).await.expect_err("over").kind(), ErrorKind::Unavailable);
    assert_eq!(source.acknowledged()[0].end, 0, "the new run has accepted nothing");
}

#[tokio::test]
async fn what_is_handed_in_at_once_is_one_unit() {
    let source = started().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut spool = Spool::new(folder.path(), rows(0).schema(), MemoryBudget::new(1 << 30).account("rows"));
    for n in [3, 1_000_000, 5] {
        spool = spool.add(rows(n)).await.expect("room");
    }
    source.push(source.run(), rows(2)).await.expect("room");
    source.push(source.run(), spool.finish().await.expect("whole")).await.expect("room");
    assert_eq!(source.acknowledged()[0].end, 1_000_010);
    for expected in [&[2][..], &[3, 1_000_000, 5]] {
        let unit = source.next_unit().await.expect("a unit").expect("it never ends");
        assert_eq!(read(&source, &unit).await, expected);
        assert!(source.read(&unit).await.is_err(), "once");
    }
}

#[tokio::test]
async fn an_epoch_ends_between_units_and_does_not_wait_for_new_ones() {
    let source = started().await;
    let push = |n| source.push(source.run(), rows(n));
    push(1).await.expect("room");
    push(2).await.expect("room");
    let unit = source.next_unit().await.expect("a unit").expect("some");
    assert_eq!(read(&source, &unit).await, [1]);
    push(3).await.expect("room");
    // The second belongs to the group of the first; the third came later.
    let unit = source.try_unit().expect("the rest of the group");
    assert_eq!(read(&source, &unit).await, [2]);
    assert!(source.try_unit().is_none());
    let next = source.next_unit();
    tokio::pin!(next);
    assert!(futures::poll!(&mut next).is_pending(), "an epoch is being cut");
    source.epoch_cut();
    let unit = next.await.expect("a unit").expect("some");
    assert_eq!(read(&source, &unit).await, [3]);
}

fn receipt(key: &str, value: i64) -> Receipt {
    Receipt { key: key.to_owned(), value: json!(value), kept: Kept::Hour }
}

/// Tells `source` that all before `position` is committed.
async fn commit(source: &IngestSource, position: u64) {
    let mut offsets = Offsets::default();
    offsets.add(SPLIT, 0..position);
    source.committed(&offsets).await.expect("is told");
}

#[tokio::test]
async fn a_receipt_goes_in_with_its_rows_and_outlasts_the_run_if_they_do() {
    let source = started().await;
    source.push(source.run(), Parcel::from(rows(3)).with_receipt(receipt("a", 1))).await.expect("room");
    source.push(source.run(), Parcel::from(rows(0)).with_receipt(receipt("b", 2))).await.expect("room");
    source.push(source.run(), Parcel::from(rows(2)).with_receipt(receipt("c", 3))).await.expect("room");
    assert_eq!(source.acknowledged()[0].end, 6, "a receipt of nothing takes a place");
    assert_eq!(source.receipt("a"), Known::UnderWay(json!(1)));
    commit(&source, 4).await;
    assert_eq!(source.receipt("b"), Known::Committed(json!(2)));
    assert_eq!(source.receipt("c"), Known::UnderWay(json!(3)));
    let state = source.state().await.expect("saves");
    let mut consumed = Offsets::default();
    consumed.add(SPLIT, 0..4);
    source.start(&consumed, Some(&state)).expect("started again");
    assert_eq!((source.receipt("a"), source.receipt("c")), (Known::Committed(json!(1)), Known::Never));
    source.start(&Offsets::default(), None).expect("started anew");
    assert_eq!(source.receipt("a"), Known::Never, "no manifest knew of any");
}

#[tokio::test]
async fn a_refused_parcel_leaves_no_receipt() {
    let source = IngestSource::new(MemoryBudget::new(1 << 20));
    source.start(&Offsets::default(), None).expect("started");
    let much = Parcel::from(rows(4_000_000)).with_receipt(receipt("a", 1));
    assert_eq!(source.push(source.run(), much).await.expect_err("too much").kind(), ErrorKind::Exhausted);
    let late = Parcel::from(rows(1)).with_receipt(receipt("a", 1));
    assert_eq!(source.push(source.run() + 1, late).await.expect_err("over").kind(), ErrorKind::Unavailable);
    assert_eq!(source.receipt("a"), Known::Never);
    assert_eq!(source.state().await.expect("saves"), serde_json::Value::Null);
}

#[tokio::test]
async fn a_key_is_kept_for_one_at_a_time() {
    let source = started().await;
    let first = source.reserve("a").await;
    let twin = source.reserve("a");
    tokio::pin!(twin);
    assert!(futures::poll!(&mut twin).is_pending());
    let other = source.reserve("b").await;
    assert!(futures::poll!(&mut twin).is_pending(), "another key is another matter");
    drop((first, other));
    assert_eq!(twin.await.receipt(json!(5), Kept::Hour), receipt("a", 5));
}

#[tokio::test]
async fn rows_that_could_not_be_read_come_behind_the_others() {
    let source = started().await;
    let dead =
        |line| DeadLetter { split: "".into(), position: 0, line: Some(line), reason: "no".into(), raw: vec![b'x'] };
    source.push(source.run(), Parcel::from(rows(3)).with_dead(vec![dead(2), dead(5)])).await.expect("room");
    let spool = Spool::new(std::env::temp_dir(), rows(0).schema(), MemoryBudget::new(1 << 30).account("rows"));
    let none = Parcel::from(spool.finish().await.expect("whole")).with_dead(vec![dead(1)]);
    source.push(source.run(), none).await.expect("room");
    let mut found = vec![];
    for _ in 0..2 {
        let unit = source.next_unit().await.expect("a unit").expect("some");
        let mut reader = source.read(&unit).await.expect("opened once");
        while let Some(read) = reader.next().await.expect("reads") {
            found.push((read.rows.num_rows(), read.position, read.dead.iter().map(|d| d.position).collect::<Vec<_>>()));
        }
    }
    assert_eq!(found, [(3, 3, vec![]), (0, 5, vec![3, 4]), (0, 6, vec![5])]);
}

#[tokio::test]
async fn who_is_alone_is_waited_for() {
    let source = started().await;
    let run = source.run();
    let alone = source.alone().await;
    let mut other = Box::pin(source.push(run, rows(5)));
    let mut next = Box::pin(source.alone());
    assert!(futures::poll!(&mut other).is_pending());
    assert!(futures::poll!(&mut next).is_pending());
    source.push_alone(&alone, run, rows(2)).await.expect("room");
    assert_eq!(source.acknowledged()[0].end, 2);
    drop(alone);
    // In the order in which they came.
    assert!(futures::poll!(&mut next).is_pending());
    other.await.expect("room");
    drop(next.await);
    // Who gives up is not waited for.
    let alone = source.alone().await;
    assert!(futures::poll!(Box::pin(source.alone())).is_pending());
    drop(alone);
    source.push(run, rows(1)).await.expect("room");
    assert_eq!(source.acknowledged()[0].end, 8);
}
