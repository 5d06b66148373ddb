//! Positions that outlast commits, merges, restarts and history.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::connector::position::{Begin, Positioned};
use crate::connector::{Opened, Opening, Sink, Start};
use crate::error::ErrorKind;
use crate::memory::MemoryBudget;
use crate::table::tests::{World, until_merged};
use crate::table::{Retention, StreamLog, StreamSource};

#[test]
fn ends_survive_as_a_note() {
    let mut ends = Ends(vec![(12, 400), (13, 780)]);
    ends.append(Ends(vec![(20, 5)]), 800);
    assert_eq!(ends.note().as_deref(), Some("12 400,1 380,7 25"));
    assert_eq!(Ends::parse("12 400,1 380,7 25"), Some(ends.clone()));
    let upto = [11, 12, 14, 19, 20, 99].map(|e| ends.rows_upto(e));
    assert_eq!(upto, [None, Some(400), Some(780), Some(780), Some(805), Some(805)]);
    assert_eq!(Ends::default().note(), None);
    for wrong in ["", "12", "12 x", "1 2,", "18446744073709551615 1,1 1"] {
        assert_eq!(Ends::parse(wrong), None, "{wrong}");
    }
}

/// Where each epoch ends, by how many rows each commit has.
async fn check(log: &Arc<StreamLog>, rows: &[u64], when: &str) {
    let mut end = 0;
    for (epoch, n) in (0..).zip([0].iter().chain(rows)) {
        end += n;
        assert_eq!(log.rows_upto(epoch).await.expect("is there"), end, "{when}: epoch {epoch}");
    }
    let e = log.rows_upto(rows.len() as u64 + 1).await.expect_err("is not there yet");
    assert_eq!(e.kind(), ErrorKind::Invalid);
    assert!(e.message().contains(&format!("its last one is {}", rows.len())), "{e}");
}

#[tokio::test]
async fn epochs_are_found_behind_merges_and_restarts() {
    for changelog in [false, true] {
        let mut world = World::new(changelog).await;
        let mut rows = vec![];
        // Merges of merges, and commits without rows.
        for round in 0..90_u64 {
            let n = if round % 5 == 3 { 0 } else { round % 7 + 1 };
            world.commit(n as usize).await;
            rows.push(n);
            world.merged().await;
        }
        let merged = world.log.snapshot().files.iter().filter(|f| is_merged(&f.name)).count();
        assert!(merged > 0 && world.log.snapshot().files.len() < 40);
        check(&world.log, &rows, "from memory").await;
        let (log, sink) = world.restarted(&[]).await;
        sink.start(Start::new(&[], 2)).await.expect("starts");
        check(&log, &rows, "from files").await;
    }
}

/// For nobody in particular.
fn anew() -> Opening {
    Opening::new(MemoryBudget::new(0))
}

/// What a reader gets that begins as told, as (rows, epoch behind which it stands) for each of its epochs, until it has as
/// many rows as there are.
async fn read(log: &Arc<StreamLog>, begin: Begin, all: u64) -> Vec<(u64, Option<u64>)> {
    let source = StreamSource::new(log.clone(), vec![0]).expect("a source");
    let (source, standing) = source.beginning(begin);
    assert!(source.in_groups());
    let Opened { intake, readers } = Opened::of(&source, anew()).await.expect("starts");
    let (mut epochs, mut got) = (vec![], 0);
    while got < all {
        let mut n = 0;
        let mut unit = Some(intake.next_unit().await.expect("a unit").expect("is open"));
        if epochs.is_empty() {
            assert_eq!(unit.as_ref().map(|u| u.start), Some(0), "what is skipped has been read, too");
        }
        while let Some(one) = unit {
            let mut reader = readers.read(&one).await.expect("opens");
            while let Some(read) = reader.next().await.expect("reads") {
                n += read.rows.num_rows() as u64;
            }
            unit = intake.try_unit();
        }
        // Whoever sees the epoch last may be early or late.
        let early = (epochs.len() % 2 == 0).then(|| standing.stands_behind());
        intake.epoch_cut();
        epochs.push((n, early.unwrap_or_else(|| standing.stands_behind())));
        got += n;
    }
    epochs
}

#[tokio::test]
async fn a_reader_goes_on_behind_an_epoch_and_knows_where_it_stands() {
    let mut world = World::new(false).await;
    until_merged(&mut world).await;
    let commits = world.log.snapshot().rows / 5;
    assert_eq!(read(&world.log, Begin::Content, commits * 5).await, [(commits * 5, Some(commits))]);
    let behind = |epoch| Begin::Behind { epoch, incarnation: Some("job".to_owned()) };
    assert_eq!(read(&world.log, behind(3), commits * 5 - 15).await, [(commits * 5 - 15, Some(commits))]);
    // What is small is read at once, what is large commit by commit.
    for _ in 0..3 {
        world.commit(50_000).await;
    }
    let last = commits + 3;
    let epochs = read(&world.log, behind(commits), 150_000).await;
    assert_eq!(epochs, [(50_000, Some(last - 2)), (50_000, Some(last - 1)), (50_000, Some(last))]);
    let (log, sink) = world.restarted(&[]).await;
    sink.start(Start::new(&[], 2)).await.expect("starts");
    let epochs = read(&log, behind(last - 2), 100_000).await;
    assert_eq!(epochs, [(50_000, Some(last - 1)), (50_000, Some(last))]);
    let source = StreamSource::new(log, vec![0]).expect("a source");
    let (source, _) = source.beginning(Begin::Behind { epoch: 1, incarnation: Some("another".to_owned()) });
    let e = source.open(anew()).await.err().expect("made anew");
    assert_eq!(e.message(), "stream \"s\" is not the one of that epoch, but was made anew");
}

#[tokio::test]
async fn an_epoch_whose_history_has_gone_is_told_with_the_oldest() {
    let keep = Retention::of_content(Duration::ZERO, Duration::ZERO);
    let mut world = World::keeping(false, Some(keep)).await;
    for _ in 0..8 {
        world.commit(5).await;
        world.merged().await;
    }
    let (log, sink) = world.restarted(&[]).await;
    sink.start(Start::new(&[], 2)).await.expect("starts");
    let oldest = log.oldest_epoch();
    assert!(oldest > 2);
    assert!(log.rows_upto(oldest).await.is_ok());
    let e = log.rows_upto(2).await.expect_err("has gone");
    let message =
        format!("stream \"s\" no longer keeps what came behind epoch 2: the oldest to go on from is {oldest}");
    assert_eq!((e.kind(), e.message()), (ErrorKind::Data, message.as_str()));
}
