//! History that goes, and readers before and behind it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::changes::Changes;
use crate::connector::{Offsets, Opened, Opening, ReadBy, Sink, Source, Start, Unit};
use crate::error::{ErrorKind, Result};
use crate::memory::MemoryBudget;
use crate::table::content::tests::{Made, Numbers, Written, counted, epoch, read};
use crate::table::{StreamLog, StreamSource};

#[test]
fn whole_commits_that_nobody_needs_go() {
    let retention = Retention::new(Duration::from_micros(10), Duration::from_micros(50));
    // (rows, epoch, at), of which the first may be a base for 6000 rows.
    let files = |of: &[(u64, u64, i64)], base: bool| {
        let mut start = 0;
        let mut files = vec![];
        for (rows, epoch, at) in of {
            let upto = (base && start == 0).then_some(6000);
            let file = FileEntry { start, rows: *rows, at: *at, upto, ..FileEntry::default() };
            files.push(FileEntry { epoch: (*epoch > 0).then_some(*epoch), ..file });
            start = files.last().map_or(0, FileEntry::end);
        }
        files
    };
    let three = [(3000, 1, 100), (3000, 2, 200), (3000, 3, 300)];
    for (of, base, needed, now, expected) in [
        (&three[..], false, None, 209, None),
        (&three, false, None, 210, Some(2)),
        (&three, false, None, 310, Some(3)),
        // Not in the middle of a commit…
        (&[(3000, 1, 100), (3000, 0, 200), (3000, 3, 900)], false, None, 500, None),
        (&[(5000, 1, 100), (3000, 0, 200), (3000, 3, 900)], false, None, 500, Some(1)),
        // …not while it is needed, up to the limit…
        (&three, false, Some(6000), 310, Some(2)),
        (&three, false, Some(5999), 249, None),
        (&three, false, Some(5999), 250, Some(2)),
        // …and not for little.
        (&[(4000, 1, 100), (4000, 2, 200)], true, None, 300, None),
        (&[(4000, 1, 100), (4096, 2, 200)], true, None, 300, Some(2)),
        (&[(6000, 1, 100), (4096, 2, 200)], true, None, 300, None),
    ] {
        assert_eq!(pick(&files(of, base), retention, needed, now), expected, "{of:?} {base} {needed:?} {now}");
    }
}

#[test]
fn rows_of_a_stream_that_grows_go_however_few() {
    let retention = Retention::of_content(Duration::from_micros(80), Duration::from_micros(200));
    let file = |start, at, upto| FileEntry { start, rows: 1, at, upto, epoch: Some(1), ..FileEntry::default() };
    let files = [file(0, 100, None), file(1, 110, None), file(2, 150, None)];
    for (needed, now, expected) in [
        (None, 179, None),
        (None, 180, Some(1)),
        (None, 190, Some(2)),
        (None, 1000, Some(3)),
        (Some(1), 190, Some(1)),
        (Some(0), 299, None),
        (Some(0), 300, Some(1)),
    ] {
        assert_eq!(pick(&files, retention, needed, now), expected, "{needed:?} {now}");
    }
    // A base alone is not made anew.
    let base = FileEntry { rows: 0, ..file(0, 100, Some(2)) };
    assert_eq!(pick(&[base.clone(), file(2, 150, None)], retention, None, 200), None);
    assert_eq!(pick(&[base, file(2, 150, None)], retention, None, 230), Some(2));
    assert_eq!(retention.apart_before(1000), 990);
}

/// History goes at once, and is kept for readers for `limit`.
async fn written(limit: Duration) -> Written {
    let retention = Retention { least: 60, ..Retention::new(Duration::ZERO, limit) };
    Written::keeping(u64::MAX, Some(retention)).await
}

const HOUR: Duration = Duration::from_secs(3600);

/// A reader that keeps what it has read.
struct Reader {
    source: Opened,
    offsets: Offsets,
    read: Vec<Changes>,
}

impl Reader {
    /// One that goes on behind `offsets`.
    async fn start(log: &Arc<StreamLog>, offsets: Offsets) -> Result<Self> {
        let source: Arc<dyn Source> = Arc::new(StreamSource::new(log.clone(), vec![0, 1, 2, 3])?);
        let reader = Some(ReadBy { stream: "reader".to_owned(), place: 0, durable: true });
        let opening = Opening { reader, consumed: offsets.clone(), ..Opening::new(MemoryBudget::new(0)) };
        let source = Opened::of(&source, opening).await?;
        Ok(Reader { source, offsets, read: vec![] })
    }

    async fn unit(&mut self, unit: Unit) -> Result<()> {
        let mut reader = self.source.readers.read(&unit).await?;
        while let Some(read) = reader.next().await? {
            self.read.push(read.rows);
        }
        self.offsets.add(&unit.split, unit.start..unit.end);
        Ok(())
    }

    /// Reads all there is of `log`, and says that it has.
    async fn catch_up(&mut self, log: &StreamLog) -> Result<()> {
        // What was committed since opens with the next epoch.
        self.source.intake.epoch_cut();
        while StreamSource::rows_read(&self.offsets) < log.snapshot().rows {
            let unit = self.source.intake.next_unit().await?.expect("more to come");
            self.unit(unit).await?;
            while let Some(unit) = self.source.intake.try_unit() {
                self.unit(unit).await?;
            }
            self.source.intake.epoch_cut();
        }
        self.source.intake.committed(&self.offsets).await
    }

    fn content(&self) -> BTreeMap<arrow::row::OwnedRow, usize> {
        let schema = self.read.first().expect("has read").schema();
        counted(&crate::changelog::content(&schema, &self.read).expect("adds up"))
    }
}

/// Commits one more epoch, and lets what is done beside it end.
async fn grow(written: &mut Written, rng: &mut Numbers, standing: &mut Vec<Made>) {
    let rows = epoch(rng, standing);
    written.commit(&rows, false).await;
    written.merged().await;
}

async fn check(written: &Written, when: &str) {
    let found = counted(&read(&written.log.content(), usize::MAX).await.0);
    assert_eq!(found, written.expected(), "{when}");
    let list = std::fs::read(written.folder.path().join("live/s.json")).expect("a list");
    let list: serde_json::Value = serde_json::from_slice(&list).expect("JSON");
    assert_eq!(list["rows"], written.log.snapshot().files.iter().map(|f| f.rows).sum::<u64>(), "{when}");
    let shown = std::fs::read_dir(written.folder.path().join("streams/s")).expect("a folder").count();
    assert_eq!(shown, written.log.snapshot().files.len(), "{when}");
}

fn history_begins(log: &StreamLog) -> u64 {
    log.snapshot().files.first().and_then(|f| f.upto).unwrap_or(0)
}

#[tokio::test]
async fn a_reader_that_was_paused_goes_on_exactly() {
    let (mut written, mut rng, mut standing) = (written(HOUR).await, Numbers(1), vec![]);
    for _ in 0..5 {
        grow(&mut written, &mut rng, &mut standing).await;
    }
    let mut reader = Reader::start(&written.log, Offsets::default()).await.expect("starts");
    reader.catch_up(&written.log).await.expect("reads");
    let (offsets, before, at) = (reader.offsets.clone(), reader.read.clone(), written.log.snapshot().rows);
    drop(reader);
    let mut merges = 0;
    for n in 0..500 {
        let files = written.log.snapshot().files.len();
        grow(&mut written, &mut rng, &mut standing).await;
        merges += usize::from(written.log.snapshot().files.len() < files);
        assert!(history_begins(&written.log) <= at, "commit {n}: it needs that");
    }
    assert!(merges >= 20, "{merges} merges");
    check(&written, "while it is paused").await;
    let mut reader = Reader::start(&written.log, offsets).await.expect("goes on");
    reader.read = before;
    let read_before: usize = reader.read.iter().map(Changes::num_rows).sum();
    reader.catch_up(&written.log).await.expect("reads");
    assert_eq!(reader.content(), written.expected());
    let rows: usize = reader.read.iter().map(Changes::num_rows).sum();
    assert_eq!((rows - read_before) as u64, written.log.snapshot().rows - at, "each row once");
    // Now nobody needs it.
    for _ in 0..3 {
        grow(&mut written, &mut rng, &mut standing).await;
    }
    assert!(history_begins(&written.log) > at);
    check(&written, "when it has gone").await;
    reader.catch_up(&written.log).await.expect("is not behind");
    assert_eq!(reader.content(), written.expected());
    let mut new = Reader::start(&written.log, Offsets::default()).await.expect("starts");
    new.catch_up(&written.log).await.expect("reads");
    assert_eq!(new.content(), written.expected());
    assert!(new.read.iter().map(Changes::num_rows).sum::<usize>() < rows, "it began from the base");
}

#[tokio::test]
async fn a_reader_that_is_behind_the_limit_is_told() {
    let (mut written, mut rng, mut standing) = (written(Duration::ZERO).await, Numbers(2), vec![]);
    grow(&mut written, &mut rng, &mut standing).await;
    let mut reader = Reader::start(&written.log, Offsets::default()).await.expect("starts");
    reader.catch_up(&written.log).await.expect("reads");
    let offsets = reader.offsets.clone();
    let at = StreamSource::rows_read(&offsets);
    while history_begins(&written.log) <= at {
        grow(&mut written, &mut rng, &mut standing).await;
    }
    check(&written, "when history has gone").await;
    for (log, when) in [(&written.log, "at once"), (&written.restarted().await.0, "after a restart")] {
        let told = Reader::start(log, offsets.clone()).await.err().expect("history has gone");
        let expected = format!("stream \"s\" no longer keeps the history behind its row {at}, up to which it was read");
        assert_eq!((told.kind(), told.message()), (ErrorKind::Data, &*expected), "{when}");
        assert!(told.hint().is_some_and(|h| h.contains("CREATE OR REPLACE STREAM")), "{when}");
    }
}

#[tokio::test]
async fn a_reader_of_a_base_is_not_given_another_one() {
    let (mut written, mut rng, mut standing) = (written(Duration::ZERO).await, Numbers(3), vec![]);
    let mut expected = written.expected();
    while history_begins(&written.log) == 0 {
        // The base takes effect with the commit that follows its last one.
        expected = written.expected();
        grow(&mut written, &mut rng, &mut standing).await;
    }
    let began = history_begins(&written.log);
    let mut reader = Reader::start(&written.log.clone(), Offsets::default()).await.expect("starts");
    while history_begins(&written.log) == began {
        grow(&mut written, &mut rng, &mut standing).await;
    }
    let unit = reader.source.intake.next_unit().await.expect("hands out").expect("the base");
    assert_eq!((unit.start, unit.end), (0, began));
    reader.unit(unit).await.expect("is still there");
    assert_eq!(reader.content(), expected, "it began when the base was made");
    reader.catch_up(&written.log).await.expect("what follows is still in memory");
    assert_eq!(reader.content(), written.expected());
}

#[tokio::test]
async fn what_somebody_has_begun_to_read_does_not_go() {
    let (mut written, mut rng, mut standing) = (written(HOUR).await, Numbers(4), vec![]);
    // One that is made when a reader begins is given up…
    while written.sink.merge() != Some(true) {
        let rows = epoch(&mut rng, &mut standing);
        written.commit(&rows, false).await;
        written.merged().await;
    }
    let mut reader = Reader::start(&written.log, Offsets::default()).await.expect("starts");
    grow(&mut written, &mut rng, &mut standing).await;
    assert_eq!(history_begins(&written.log), 0);
    reader.catch_up(&written.log).await.expect("reads all of history");
    assert_eq!(reader.content(), written.expected());
    // …and one that is about to take effect is waited for.
    while written.sink.merge() != Some(true) {
        grow(&mut written, &mut rng, &mut standing).await;
    }
    reader.catch_up(&written.log).await.expect("reads");
    let rows = epoch(&mut rng, &mut standing);
    let staged = written.stage(&rows, false).await;
    let log = written.log.clone();
    let mut begun = std::pin::pin!(Reader::start(&log, Offsets::default()));
    assert!(futures::poll!(begun.as_mut()).is_pending());
    written.publish(&staged, false).await;
    let mut second = begun.await.expect("starts");
    assert!(history_begins(&log) > 0);
    second.catch_up(&log).await.expect("reads");
    assert_eq!(second.content(), written.expected());
}

#[tokio::test]
async fn a_crash_while_history_goes_loses_nothing() {
    let (mut written, mut rng, mut standing) = (written(HOUR).await, Numbers(5), vec![]);
    for round in 0..4 {
        while written.sink.merge() != Some(true) {
            let rows = epoch(&mut rng, &mut standing);
            written.commit(&rows, false).await;
            written.merged().await;
        }
        let before = serde_json::to_value(written.log.committed()).expect("plain data");
        let expected = written.expected();
        let rows = epoch(&mut rng, &mut standing);
        let staged = written.stage(&rows, false).await;
        let after = written.sink.state_after(&written.commit_of(&staged, false));
        for (state, expected) in [(&before, expected), (&after, written.expected())] {
            // The next process finds what it needs, whichever manifest was the last; this one has not gone on.
            let copy = tempfile::tempdir().expect("a folder");
            let files = written.folder.path().join("jobs/job/files");
            std::fs::create_dir_all(copy.path().join("jobs/job/files")).expect("makes");
            for file in std::fs::read_dir(&files).expect("files") {
                let file = file.expect("an entry");
                std::fs::copy(file.path(), copy.path().join("jobs/job/files").join(file.file_name())).expect("copies");
            }
            let store = crate::store::Store::open(copy.path()).expect("a store");
            let (log, sink) = crate::table::content::tests::log_in(&store, written.log.retention);
            sink.start(Start { state: Some(state), ..Start::new(&[], 1) }).await.expect("starts");
            let found = counted(&read(&log.content(), usize::MAX).await.0);
            assert_eq!(found, expected, "round {round}");
            let mut reader = Reader::start(&log, Offsets::default()).await.expect("starts");
            reader.catch_up(&log).await.expect("reads");
            assert_eq!(reader.content(), found, "round {round}");
        }
        written.publish(&staged, false).await;
        written.merged().await;
    }
    assert!(history_begins(&written.log) > 0);
}
