//! Contents with and without bases, with any room, against what all changes at once add up to.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::{AsArray, Float64Array, Float64Builder, Int64Array, ListBuilder, StringViewArray};
use arrow::datatypes::{DataType, Field};
use arrow::row::OwnedRow;

use super::*;
use crate::changelog::content;
use crate::changes::Changes;
use crate::connector::{Commit, Sink, SinkWriter, Staged, Start};
use crate::epoch::EpochMark;
use crate::key::mix;
use crate::memory::MemoryBudget;
use crate::store::Store;
use crate::table::{Retention, TableSink, Upkeep};
use crate::time::EventTime;

fn schema() -> SchemaRef {
    let item = Arc::new(Field::new_list_field(DataType::Float64, true));
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("f", DataType::Float64, true),
        Field::new("t", DataType::Utf8View, true),
        Field::new("n", DataType::List(item), true),
    ]))
}

/// Numbers that follow from the first.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 += 1;
        mix(self.0)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn likely(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn row(&mut self) -> Made {
        let [a, b, c, d, ..] = self.next().to_le_bytes();
        (a, b, c, d)
    }
}

/// A row: numbers from which its columns are made.
pub(crate) type Made = (u8, u8, u8, u8);

fn float(of: u8) -> Option<f64> {
    [Some(0.0), Some(-0.0), Some(f64::NAN), Some(1.5), None][usize::from(of) % 5]
}

fn changes(rows: &[(Made, i64)]) -> Changes {
    let small = |v: u8| Some(i64::from(v % 4)).filter(|v| *v > 0);
    let k = Int64Array::from_iter(rows.iter().map(|(r, _)| small(r.0)));
    let f = Float64Array::from_iter(rows.iter().map(|(r, _)| float(r.1)));
    let t = StringViewArray::from_iter(rows.iter().map(|(r, _)| small(r.2).map(|n| "text ".repeat(n as usize))));
    let mut n = ListBuilder::new(Float64Builder::new());
    for (row, _) in rows {
        n.append_option((row.3 % 6 < 5).then(|| (0..row.3 % 3).map(|i| float(row.3 + i))));
    }
    let columns: Vec<ArrayRef> = vec![Arc::new(k), Arc::new(f), Arc::new(t), Arc::new(n.finish())];
    let rows_of = RecordBatch::try_new(schema(), columns).expect("columns of the schema");
    Changes::weighted(rows_of, rows.iter().map(|(_, w)| *w).collect()).expect("a weight a row")
}

/// A log that is written by one task.
pub(crate) struct Written {
    pub(crate) log: Arc<StreamLog>,
    pub(crate) sink: TableSink,
    writer: Box<dyn SinkWriter>,
    /// All that was committed.
    pub(crate) all: Vec<Changes>,
    checkpoint: u64,
    pub(crate) folder: tempfile::TempDir,
}

pub(crate) fn log_in(store: &Store, retention: Option<Retention>) -> (Arc<StreamLog>, TableSink) {
    let upkeep = Upkeep::new(MemoryBudget::new(1 << 30), tokio::runtime::Handle::current());
    let log = StreamLog::new(store.clone(), "s", schema(), true, retention, upkeep);
    (log.clone(), TableSink::new(log, "job", None))
}

impl Written {
    async fn new(floor: u64) -> Self {
        Written::keeping(floor, None).await
    }

    /// One that makes a base at `floor` changes and keeps history as `retention` says.
    pub(crate) async fn keeping(floor: u64, retention: Option<Retention>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (log, sink) = log_in(&Store::open(folder.path()).expect("a store"), retention);
        log.with_bases(|bases, _| bases.floor = floor);
        sink.start(Start::new(&[], 1)).await.expect("starts");
        let writer = sink.open(0).expect("a writer");
        Written { log, sink, writer, all: vec![], checkpoint: 0, folder }
    }

    pub(crate) async fn commit(&mut self, rows: &[(Made, i64)], end: bool) {
        let staged = self.stage(rows, end).await;
        self.publish(&staged, end).await;
    }

    /// Does what comes before the manifest.
    pub(crate) async fn stage(&mut self, rows: &[(Made, i64)], end: bool) -> Vec<Staged> {
        self.checkpoint += 1;
        let (checkpoint, epoch) = (self.checkpoint, 10 * self.checkpoint);
        let mark = EpochMark {
            epoch,
            now: EventTime::MIN,
            watermark: EventTime::MIN,
            checkpoint: Some(checkpoint),
            end,
            depth: 0,
        };
        if !rows.is_empty() {
            self.all.push(changes(rows));
            self.writer.write(changes(rows)).await.expect("writes");
        }
        self.writer.epoch(&mark).await.expect("ends an epoch");
        let staged = self.writer.stage(checkpoint).await.expect("stages");
        self.sink.gather(checkpoint, staged).await.expect("gathers")
    }

    pub(crate) fn commit_of<'a>(&self, staged: &'a [Staged], end: bool) -> Commit<'a> {
        let (checkpoint, epoch) = (self.checkpoint, 10 * self.checkpoint);
        Commit { checkpoint, epoch, watermark: EventTime::MIN, end, staged }
    }

    /// Does what comes after it.
    pub(crate) async fn publish(&self, staged: &[Staged], end: bool) {
        self.sink.commit(&self.commit_of(staged, end)).await.expect("commits");
    }

    /// Waits until no files are being merged.
    pub(crate) async fn merged(&self) {
        while self.sink.merge() == Some(false) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until no base is being made.
    async fn quiet(&self) {
        while self.log.making.lock().is_running() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The next process's log.
    pub(crate) async fn restarted(&self) -> (Arc<StreamLog>, TableSink) {
        self.restarted_with(&serde_json::to_value(self.log.committed()).expect("plain data")).await
    }

    /// The same, where the last manifest has `state` of the sink.
    pub(crate) async fn restarted_with(&self, state: &serde_json::Value) -> (Arc<StreamLog>, TableSink) {
        self.sink.stop().await;
        self.log.close(Duration::ZERO).await;
        let (log, sink) = log_in(self.log.store(), self.log.retention);
        sink.start(Start { state: Some(state), ..Start::new(&[], 1) }).await.expect("starts");
        (log, sink)
    }

    pub(crate) fn expected(&self) -> BTreeMap<OwnedRow, usize> {
        counted(&content(&schema(), &self.all).expect("adds up"))
    }

    fn bases(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path().join("jobs/job/base")).into_iter().flatten();
        let names = entries.map(|e| e.expect("an entry").file_name().into_string().expect("text"));
        names.filter(|name| name.ends_with(".parquet")).collect()
    }
}

/// How often each row is in `rows`; zeros of either sign are one value.
pub(crate) fn counted(rows: &RecordBatch) -> BTreeMap<OwnedRow, usize> {
    let fields = schema().fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
    let converter = RowConverter::new(fields).expect("types that can be compared");
    let columns = canonical_columns(rows.columns()).expect("floats");
    let mut counted = BTreeMap::new();
    for row in converter.convert_columns(&columns).expect("columns of the schema").iter() {
        *counted.entry(row.owned()).or_default() += 1;
    }
    counted
}

/// Holds up to `most` bytes.
struct Taken {
    most: usize,
    refused: usize,
    rows: Vec<RecordBatch>,
}

#[async_trait(?Send)]
impl ContentSink for Taken {
    fn hold(&mut self, bytes: usize) -> Result<()> {
        if bytes <= self.most {
            return Ok(());
        }
        self.refused += 1;
        Err(Error::new(crate::error::ErrorKind::Exhausted, "no room"))
    }

    fn is_cancelled(&self) -> bool {
        false
    }

    async fn give(&mut self, rows: RecordBatch, op: Op) -> Result<()> {
        if op == Op::Insert {
            self.rows.push(rows);
        }
        Ok(())
    }
}

/// The content with room for `most` bytes, and how often there was no room.
pub(crate) async fn read(content: &Content, most: usize) -> (RecordBatch, usize) {
    let mut taken = Taken { most, refused: 0, rows: vec![] };
    content.read(&[0, 1, 2, 3], &schema(), &mut taken).await.expect("reads");
    (arrow::compute::concat_batches(&schema(), &taken.rows).expect("one schema"), taken.refused)
}

/// An epoch over what stands: some of it goes, others come, and the sign of a zero changes now and then.
pub(crate) fn epoch(rng: &mut Numbers, standing: &mut Vec<Made>) -> Vec<(Made, i64)> {
    let mut epoch = vec![];
    for _ in 0..rng.below(60) {
        if !standing.is_empty() && rng.likely(45) {
            let row = standing.swap_remove(rng.below(standing.len()));
            epoch.push((row, -1));
            if row.1 % 5 < 2 && rng.likely(50) {
                let other = (row.0, 1 - row.1 % 5, row.2, row.3);
                standing.push(other);
                epoch.push((other, 1));
            }
        } else {
            let row = rng.row();
            standing.push(row);
            epoch.push((row, 1));
        }
    }
    epoch
}

#[tokio::test]
async fn content_is_what_all_changes_add_up_to() {
    for seed in 0..6 {
        let mut rng = Numbers(seed << 32);
        let mut written = Written::new([1, 50, u64::MAX][seed as usize % 3]).await;
        let (mut standing, mut passes) = (vec![], 0);
        for n in 0..15 {
            written.commit(&epoch(&mut rng, &mut standing), false).await;
            if rng.likely(50) {
                written.quiet().await;
            }
            let (content, expected) = (written.log.content(), written.expected());
            for most in [usize::MAX, 4000] {
                let (rows, refused) = read(&content, most).await;
                assert_eq!(counted(&rows), expected, "seed {seed}, commit {n}, room {most}");
                passes += refused;
            }
        }
        written.quiet().await;
        assert_eq!(written.bases().len(), usize::from(seed % 3 < 2), "seed {seed}");
        assert!(passes > 0, "seed {seed}: there was room for all");
        let (log, _sink) = written.restarted().await;
        let again = log.content();
        assert_eq!(again.base, written.log.content().base, "seed {seed}");
        assert_eq!(counted(&read(&again, usize::MAX).await.0), written.expected(), "seed {seed}, restarted");
    }
}

#[tokio::test]
async fn a_zero_that_changed_its_sign_only_is_the_last_one() {
    let row = |zero: u8| (1, zero, 1, 0);
    let mut written = Written::new(1).await;
    written.commit(&[(row(0), 2)], false).await;
    written.quiet().await;
    assert_eq!(written.bases().len(), 1);
    written.log.with_bases(|bases, _| bases.floor = u64::MAX);
    written.commit(&[(row(0), -1), (row(1), 1), (row(0), -1), (row(1), 1)], false).await;
    let (rows, _) = read(&written.log.content(), usize::MAX).await;
    let signs: Vec<bool> = {
        let floats = rows.column(1).as_primitive::<arrow::datatypes::Float64Type>();
        floats.values().iter().map(|v| v.is_sign_negative()).collect()
    };
    assert_eq!(signs, [true, true]);
}

#[tokio::test]
async fn what_was_taken_back_too_often_counts_when_it_comes() {
    let row = (1, 3, 2, 1);
    let mut written = Written::new(1).await;
    written.commit(&[(row, -2)], false).await;
    written.quiet().await;
    assert_eq!(written.bases().len(), 1, "what is owed stands in the base");
    assert_eq!(read(&written.log.content(), usize::MAX).await.0.num_rows(), 0);
    written.log.with_bases(|bases, _| bases.floor = u64::MAX);
    written.commit(&[(row, 3)], false).await;
    assert_eq!(counted(&read(&written.log.content(), usize::MAX).await.0), written.expected());
    assert_eq!(read(&written.log.content(), usize::MAX).await.0.num_rows(), 1);
}

#[tokio::test]
async fn a_base_that_is_read_stays_until_it_has_been() {
    let mut written = Written::new(1).await;
    let row = |n: u8| ((n, 3, n, 0), 1);
    written.commit(&[row(1), row(2)], false).await;
    written.quiet().await;
    let (content, expected) = (written.log.content(), written.expected());
    assert!(content.base.is_some());
    for n in 0..20 {
        written.commit(&[row(n), row(n)], false).await;
        written.quiet().await;
    }
    assert!(written.log.content().base.expect("a base").0.upto > 2);
    assert_eq!(counted(&read(&content, usize::MAX).await.0), expected);
    drop(content);
    written.commit(&[row(1)], false).await;
    assert_eq!(written.bases().len(), 1);
}

#[tokio::test]
async fn a_base_is_made_of_much_and_at_the_end_of_more() {
    let mut written = Written::new(10).await;
    let rows: Vec<_> = (0..9).map(|n| ((n, 3, n, 0), 1)).collect();
    written.commit(&rows, false).await;
    assert!(!written.log.making.lock().is_running() && written.bases().is_empty(), "little is read as it is");
    written.commit(&rows, false).await;
    written.quiet().await;
    assert_eq!(written.log.content().base.expect("a base").0.upto, 18);
    written.commit(&rows, false).await;
    written.commit(&rows, false).await;
    written.quiet().await;
    assert_eq!(written.log.content().base.expect("a base").0.upto, 18, "beside 18 rows of a base 18 are not much");
    written.commit(&[], true).await;
    written.quiet().await;
    assert_eq!(written.log.content().base.expect("a base").0.upto, 36);
}

#[tokio::test]
async fn what_no_base_needs_is_removed_and_what_is_damaged_is_made_anew() {
    let mut written = Written::new(1).await;
    let row = |n: u8| ((n, 3, n, 0), 1);
    written.commit(&[row(1), row(2)], false).await;
    written.quiet().await;
    let folder = written.folder.path().join("jobs/job/base");
    let name = written.bases().pop().expect("a base");
    // A base that was being made when the process died.
    std::fs::write(folder.join("00000000000000000099.parquet"), "half").expect("writes");
    let (log, _sink) = written.restarted().await;
    assert_eq!(written.bases(), std::slice::from_ref(&name));
    assert!(log.content().base.is_some());
    type Damage = fn(&std::path::Path) -> std::io::Result<()>;
    let damages: [Damage; 3] = [
        |file| std::fs::remove_file(file),
        |file| std::fs::write(file, "short"),
        |file| std::fs::write(file.with_file_name("current.json"), "{\"fi"),
    ];
    let whole = std::fs::read(folder.join(&name)).expect("reads");
    let current = std::fs::read(folder.join("current.json")).expect("reads");
    for damage in damages {
        std::fs::write(folder.join(&name), &whole).expect("writes");
        std::fs::write(folder.join("current.json"), &current).expect("writes");
        damage(&folder.join(&name)).expect("damages");
        let (log, _sink) = written.restarted().await;
        assert!(log.content().base.is_none() && written.bases().is_empty());
        assert_eq!(counted(&read(&log.content(), usize::MAX).await.0), written.expected());
        log.with_bases(|bases, _| bases.floor = 1);
        log.renew_base();
        while log.making.lock().is_running() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(log.content().base.expect("made anew").0.file, name);
    }
}

#[tokio::test]
async fn a_log_that_is_closed_makes_no_base() {
    let mut written = Written::new(u64::MAX).await;
    let rows: Vec<_> = (0..200).map(|n| ((n, n, n, n), 1)).collect();
    for _ in 0..20 {
        written.commit(&rows, false).await;
    }
    written.log.with_bases(|bases, _| bases.floor = 1);
    written.log.renew_base();
    written.log.close(Duration::ZERO).await;
    let there = written.bases();
    written.log.renew_base();
    assert!(!written.log.making.lock().is_running());
    assert_eq!(written.bases(), there);
    assert!(there.len() <= 1, "one that was cut off does not stay");
}

#[tokio::test]
async fn a_log_that_is_closed_does_not_wait_for_others() {
    let mut written = Written::new(1).await;
    let log = written.log.clone();
    let _others = log.upkeep.turn.acquire().await.expect("open");
    written.commit(&[((1, 1, 1, 1), 1)], false).await;
    assert!(log.making.lock().is_running());
    tokio::time::timeout(Duration::from_secs(10), log.close(Duration::ZERO)).await.expect("does not wait");
}

#[test]
fn a_range_is_halved_until_it_is_small() {
    let (mut range, mut halved) = (HashRange::ALL, 0);
    while let Some((lower, upper)) = range.halves() {
        assert!(lower.first == range.first && upper.last == range.last && lower.last + 1 == upper.first);
        (range, halved) = (if halved % 2 == 0 { lower } else { upper }, halved + 1);
    }
    assert_eq!(halved, 15);
    assert!(HashRange::ALL.has(0) && HashRange::ALL.has(u64::MAX));
}
