//! A stream's log written, damaged, given up half-way and followed by several tasks.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::future::BoxFuture;

use super::following::{Following, Reading};
use super::parquet_file::FileWriter;
use super::{Retention, StreamLog, TableSink, Upkeep};
use crate::changes::Changes;
use crate::connector::{Commit, Intake, Opening, ReadBy, Readers, Sink, SinkWriter, Staged, Start, Unit};
use crate::epoch::EpochMark;
use crate::error::{ErrorKind, Result};
use crate::memory::MemoryBudget;
use crate::store::Store;
use crate::time::EventTime;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]))
}

fn rows(n: usize) -> Changes {
    let column = Int64Array::from_iter_values(0..n as i64);
    Changes::insertions(RecordBatch::try_new(schema(), vec![Arc::new(column)]).expect("one column"))
}

/// A log with its sink and the writer of its only task.
pub(super) struct World {
    pub(super) log: Arc<StreamLog>,
    pub(super) sink: TableSink,
    writer: Box<dyn SinkWriter>,
    checkpoint: u64,
    folder: tempfile::TempDir,
}

/// A log of stream `s` in `store` and its sink.
fn opened(store: &Store, changelog: bool) -> (Arc<StreamLog>, TableSink) {
    opened_keeping(store, changelog, None)
}

fn opened_keeping(store: &Store, changelog: bool, retention: Option<Retention>) -> (Arc<StreamLog>, TableSink) {
    let upkeep = Upkeep::new(MemoryBudget::new(1 << 30), tokio::runtime::Handle::current());
    let log = StreamLog::new(store.clone(), "s", schema(), changelog, retention, upkeep);
    (log.clone(), TableSink::new(log, "job", None).with_grace(Duration::ZERO))
}

impl World {
    pub(super) async fn new(changelog: bool) -> Self {
        World::keeping(changelog, None).await
    }

    pub(super) async fn keeping(changelog: bool, retention: Option<Retention>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("a store");
        let (log, sink) = opened_keeping(&store, changelog, retention);
        sink.start(Start::new(&[], 1)).await.expect("starts");
        let writer = sink.open(0).expect("a writer");
        World { log, sink, writer, checkpoint: 0, folder }
    }

    /// Stages `n` rows for the next checkpoint, and says what its manifest would name.
    async fn stage(&mut self, n: usize) -> Vec<Staged> {
        self.checkpoint += 1;
        let mark = EpochMark {
            now: EventTime::MIN,
            epoch: self.checkpoint,
            watermark: EventTime(7),
            checkpoint: Some(self.checkpoint),
            end: false,
            depth: 0,
        };
        self.writer.write(rows(n)).await.expect("writes");
        self.writer.epoch(&mark).await.expect("ends an epoch");
        let staged = self.writer.stage(self.checkpoint).await.expect("stages");
        self.sink.gather(self.checkpoint, staged).await.expect("gathers")
    }

    fn commit_of<'a>(&self, staged: &'a [Staged]) -> Commit<'a> {
        Commit { checkpoint: self.checkpoint, epoch: self.checkpoint, watermark: EventTime(7), end: false, staged }
    }

    pub(super) async fn commit(&mut self, n: usize) {
        let staged = self.stage(n).await;
        self.sink.commit(&self.commit_of(&staged)).await.expect("commits");
    }

    /// Waits until no merge is under way.
    pub(super) async fn merged(&self) {
        while self.sink.merge() == Some(false) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The log and the sink of the next process, as the manifest with `staged` tells them.
    pub(super) async fn restarted(&self, staged: &[Staged]) -> (Arc<StreamLog>, TableSink) {
        self.sink.stop().await;
        let (log, sink) = opened(self.log.store(), self.log.is_changelog());
        log.load(self.sink.after(&self.commit_of(staged)).expect("plain data"));
        (log, sink)
    }

    /// The names in `folder` of the store, sorted.
    fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path().join(folder)).into_iter().flatten();
        let mut names: Vec<String> =
            entries.map(|e| e.expect("an entry").file_name().into_string().expect("text")).collect();
        names.sort();
        names
    }

    /// Whether folder and list show exactly the files of `log`.
    fn check_shown(&self, log: &StreamLog) {
        let files = log.snapshot().files;
        let live: Vec<&String> = files.iter().map(|f| &f.name).collect();
        assert_eq!(self.names("streams/s").iter().collect::<Vec<_>>(), live);
        for file in &files {
            let shown = std::fs::read(self.folder.path().join("streams/s").join(&file.name)).expect("is there");
            assert_eq!(shown, std::fs::read(self.folder.path().join("jobs/job/files").join(&file.name)).expect("too"));
        }
        let list = std::fs::read(self.folder.path().join("live/s.json")).expect("a list");
        let list: serde_json::Value = serde_json::from_slice(&list).expect("JSON");
        let paths: Vec<String> = files.iter().map(|f| format!("jobs/job/files/{}", f.name)).collect();
        let listed = list["files"].as_array().expect("files").iter().map(|f| f["path"].as_str().expect("text"));
        assert_eq!(listed.collect::<Vec<_>>(), paths);
        assert_eq!(list["rows"], log.snapshot().rows);
    }
}

/// Follows `log` from its first row on.
async fn follow(log: &Arc<StreamLog>, reader: Option<ReadBy>) -> Result<Arc<Following>> {
    let schema = Arc::new(log.schema().project(&[0])?);
    let reading = Reading { log: log.clone(), projection: vec![0], schema, position: None };
    let opening = Opening { reader, ..Opening::new(MemoryBudget::new(0)) };
    Ok(Arc::new(Following::open(reading, opening).await?))
}

/// Reads what there is, in one task.
async fn read(log: Arc<StreamLog>) -> Result<usize> {
    let source = follow(&log, None).await?;
    let mut n = 0;
    while n < log.snapshot().rows as usize {
        let Some(unit) = source.next_unit().await? else { break };
        let mut reader = source.read(&unit).await?;
        while let Some(read) = reader.next().await? {
            n += read.rows.num_rows();
        }
    }
    Ok(n)
}

#[tokio::test]
async fn a_file_with_fewer_rows_than_committed_is_an_error() {
    let mut world = World::new(false).await;
    world.commit(100).await;
    let (log, sink) = world.restarted(&[]).await;
    sink.start(Start::new(&[], 2)).await.expect("starts");
    assert_eq!(read(log.clone()).await.expect("whole"), 100);
    for (left, found) in [(60, "has 60 rows, 100 were committed"), (0, "has 0 rows, 100 were committed")] {
        let mut file = FileWriter::new(&schema()).expect("a writer");
        file.write(rows(left).rows()).expect("writes");
        let (_, bytes) = file.finish().expect("a file");
        log.store().put(&log.path(&log.snapshot().files[0].name), bytes.into()).await.expect("writes");
        let e = read(log.clone()).await.expect_err("rows are missing");
        assert_eq!(e.kind(), ErrorKind::Data);
        assert!(e.message().contains(found), "{e}");
    }
}

#[tokio::test]
async fn a_commit_writes_what_it_adds() {
    let mut world = World::new(false).await;
    for n in 1..=7 {
        let before: Vec<_> = world.names("jobs/job/files");
        let times = |w: &World, names: &[String]| -> Vec<_> {
            let path = |n: &String| w.folder.path().join("jobs/job/files").join(n);
            names.iter().map(|n| path(n).metadata().expect("is there").modified().expect("a time")).collect()
        };
        let written = times(&world, &before);
        world.commit(10).await;
        assert_eq!(world.names("jobs/job/files").len(), n);
        assert_eq!(times(&world, &before), written);
        world.check_shown(&world.log);
    }
    assert!(world.sink.merge().is_none());
}

#[tokio::test]
async fn what_tasks_have_becomes_one_file_in_their_order() {
    let mut world = World::new(false).await;
    let large = 200_000;
    let mut staged = vec![];
    for (task, n) in [1, 2, large, 3, 4].into_iter().enumerate() {
        let mut writer = world.sink.open(task).expect("a writer");
        writer.write(rows(n)).await.expect("writes");
        staged.extend(writer.stage(1).await.expect("stages"));
    }
    world.checkpoint = 1;
    let staged = world.sink.gather(1, staged).await.expect("gathers");
    world.sink.commit(&world.commit_of(&staged)).await.expect("commits");
    let files = world.log.snapshot().files;
    assert_eq!(files.iter().map(|f| (f.start, f.rows)).collect::<Vec<_>>(), [(0, 3), (3, 200_000), (200_003, 7)]);
    world.check_shown(&world.log);
    assert_eq!(read(world.log.clone()).await.expect("from memory"), large + 10);
    let (log, sink) = world.restarted(&[]).await;
    sink.start(Start::new(&staged, 2)).await.expect("starts");
    assert_eq!(read(log).await.expect("from files"), large + 10);
}

/// Commits until the next commit takes in a merge.
pub(super) async fn until_merged(world: &mut World) {
    while world.sink.merge().is_none() {
        world.commit(5).await;
    }
    world.merged().await;
}

#[tokio::test]
async fn a_merge_takes_effect_with_the_next_commit() {
    let mut world = World::new(false).await;
    until_merged(&mut world).await;
    assert_eq!(world.log.snapshot().files.len(), 8);
    world.check_shown(&world.log);
    let held = world.log.hold();
    let before = world.log.snapshot();
    world.commit(5).await;
    let after = world.log.snapshot();
    assert_eq!(after.files.iter().map(|f| (f.start, f.rows)).collect::<Vec<_>>(), [(0, 40), (40, 5)]);
    world.check_shown(&world.log);
    // Who took a snapshot before finds its files, until nobody holds them.
    world.commit(5).await;
    for file in &before.files {
        world.log.store().size(&world.log.path(&file.name)).await.expect("is held");
    }
    drop(held);
    world.commit(5).await;
    assert_eq!(world.names("jobs/job/files").len(), world.log.snapshot().files.len());
    world.check_shown(&world.log);
    let (log, sink) = world.restarted(&[]).await;
    sink.start(Start::new(&[], 2)).await.expect("starts");
    assert_eq!(read(log).await.expect("from files"), 55);
}

#[tokio::test]
async fn a_follower_in_the_middle_of_a_file_goes_on_behind_a_merge() {
    let mut world = World::new(false).await;
    world.commit(10_000).await;
    let (log, sink) = world.restarted(&[]).await;
    sink.start(Start::new(&[], 2)).await.expect("starts");
    (world.log, world.sink) = (log, sink);
    world.writer = world.sink.open(0).expect("a writer");
    let source = follow(&world.log, None).await.expect("starts");
    let unit = source.next_unit().await.expect("a unit").expect("is open");
    let mut reader = source.read(&unit).await.expect("opens");
    let mut n = reader.next().await.expect("reads").expect("rows").rows.num_rows();
    assert!(n < 10_000, "it is in the middle");
    until_merged(&mut world).await;
    world.commit(5).await;
    world.commit(5).await;
    assert!(!world.names("jobs/job/files").iter().any(|name| name == "0000000001-000-g1.parquet"), "it has gone");
    while let Some(read) = reader.next().await.expect("reads on") {
        n += read.rows.num_rows();
    }
    while n < world.log.snapshot().rows as usize {
        let unit = source.next_unit().await.expect("a unit").expect("is open");
        let mut reader = source.read(&unit).await.expect("opens");
        while let Some(read) = reader.next().await.expect("reads") {
            n += read.rows.num_rows();
        }
    }
    assert_eq!(n as u64, world.log.snapshot().rows);
}

#[tokio::test]
async fn what_a_follower_has_begun_to_read_is_needed_until_it_is_read() {
    let hour = Duration::from_secs(3600);
    let mut world = World::keeping(false, Some(Retention::of_content(hour, hour))).await;
    world.commit(10).await;
    world.commit(20).await;
    let reader = ReadBy { stream: "follower".to_owned(), place: 0, durable: false };
    let source = follow(&world.log, Some(reader)).await.expect("starts");
    let unit = source.next_unit().await.expect("a unit").expect("is open");
    let reader = source.read(&unit).await.expect("opens");
    source.epoch_cut();
    assert_eq!(world.log.needed(), Some(0), "it is being read");
    drop(reader);
    source.epoch_cut();
    assert_eq!(world.log.needed(), Some(unit.end));
    drop(source);
    assert_eq!(world.log.needed(), None);
}

#[tokio::test]
async fn a_crash_leaves_nothing_that_does_not_count() {
    for when in ["merged", "staged", "committed", "shown"] {
        let mut world = World::new(true).await;
        until_merged(&mut world).await;
        let rows = world.log.snapshot().rows as usize;
        let staged = if when == "merged" { vec![] } else { world.stage(5).await };
        if when == "shown" {
            // Its folder has changed places, and nothing else has been done.
            let committed = world.sink.after(&world.commit_of(&staged)).expect("plain data");
            world.sink.shown().show(&committed).await.expect("shows");
        }
        if when == "merged" || when == "staged" {
            let (log, sink) = opened(world.log.store(), true);
            let before = Commit { checkpoint: world.checkpoint - u64::from(when == "staged"), ..world.commit_of(&[]) };
            log.load(world.sink.after(&before).expect("plain data"));
            sink.start(Start::new(&[], 2)).await.expect("starts");
            assert_eq!(log.snapshot().files.len(), 8, "{when}");
            assert_eq!(read(log.clone()).await.expect("whole"), rows);
            assert_eq!(world.names("jobs/job/files").len(), 8, "{when}");
            world.check_shown(&log);
            continue;
        }
        // Twice, as when the next start is cut off too.
        for generation in 2..4 {
            let (log, sink) = world.restarted(&staged).await;
            sink.start(Start::new(&staged, generation)).await.expect("starts");
            assert_eq!(log.snapshot().files.len(), 2, "{when}");
            assert_eq!(read(log.clone()).await.expect("whole"), rows + 5);
            world.check_shown(&log);
        }
        assert_eq!(world.names("jobs/job/files").len(), 2, "{when}: the grace is over");
        assert_eq!(world.names("jobs/job").iter().filter(|n| n.starts_with("shown")).count(), 0, "{when}");
    }
}

#[tokio::test]
async fn replaced_files_outlast_a_restart_within_the_grace() {
    let mut world = World::new(false).await;
    world.sink = world.sink.with_grace(Duration::from_secs(3600));
    until_merged(&mut world).await;
    world.commit(5).await;
    world.commit(5).await;
    assert_eq!(world.names("jobs/job/files").len(), 8 + 3);
    let (log, sink) = world.restarted(&[]).await;
    let sink = sink.with_grace(Duration::from_secs(3600));
    sink.start(Start::new(&[], 2)).await.expect("starts");
    assert_eq!(world.names("jobs/job/files").len(), 8 + 3);
    world.check_shown(&log);
    let sink = sink.with_grace(Duration::ZERO);
    sink.start(Start::new(&[], 3)).await.expect("starts");
    assert_eq!(world.names("jobs/job/files").len(), 3);
}

#[tokio::test]
async fn a_damaged_file_is_not_merged() {
    let mut world = World::new(false).await;
    world.commit(100).await;
    let mut file = FileWriter::new(&schema()).expect("a writer");
    file.write(rows(60).rows()).expect("writes");
    let (_, bytes) = file.finish().expect("a file");
    world.log.store().put(&world.log.path("0000000001-000-g1.parquet"), bytes.into()).await.expect("writes");
    until_merged(&mut world).await;
    world.commit(5).await;
    assert_eq!(world.log.snapshot().files.len(), 9);
    assert_eq!(world.names("jobs/job/files").len(), 9, "what was begun is removed");
    assert!(world.sink.merge().is_none(), "it is not tried again at once");
}

#[tokio::test]
async fn a_job_that_ends_ends_its_merge() {
    let mut world = World::new(false).await;
    while world.sink.merge().is_none() {
        world.commit(20_000).await;
    }
    world.sink.stop().await;
    assert!(world.sink.merge().is_none());
    let merged = world.names("jobs/job/files").into_iter().filter(|n| n.contains("-m")).count();
    assert!(merged <= 1);
    let (log, sink) = world.restarted(&[]).await;
    sink.start(Start::new(&[], 2)).await.expect("starts");
    assert_eq!(world.names("jobs/job/files").len(), log.snapshot().files.len());
}

#[tokio::test]
async fn foreign_files_stay_in_the_folder() {
    let mut world = World::new(false).await;
    world.commit(5).await;
    let folder = world.folder.path().join("streams/s");
    std::fs::write(folder.join("notes.txt"), "mine").expect("writes");
    std::fs::create_dir(folder.join("more")).expect("makes");
    until_merged(&mut world).await;
    world.commit(5).await;
    let names = world.names("streams/s");
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(folder.join("notes.txt").exists() && folder.join("more").is_dir());
}

/// A store as an older build left it: files in the stream's folder alone, the last of which was to be replaced by a
/// longer one when the process ended.
struct Older {
    world: World,
    staged: Vec<Staged>,
    state: serde_json::Value,
}

impl Older {
    async fn new(moved: bool) -> Self {
        let world = World::new(false).await;
        let (first, bytes) = encoded(100);
        world.log.store().put("streams/s/0000000001-000.parquet", first).await.expect("writes");
        let (last, longer) = encoded(150);
        let place = if moved { "streams/s/0000000001-000.parquet" } else { "jobs/job/pending/0000000002-all.parquet" };
        world.log.store().put(place, last).await.expect("writes");
        assert_ne!(bytes, longer);
        let file = serde_json::json!({"pending": "0000000002-all.parquet", "name": "0000000001-000.parquet",
            "rows": 150, "bytes": longer, "extends": true});
        let entry = serde_json::json!({"name": "0000000001-000.parquet", "start": 0, "rows": 150, "bytes": longer});
        let state = serde_json::json!({"files": [entry], "rows": 150, "watermark": 7, "end": false});
        Older { world, staged: vec![Staged { kind: "parquet".to_owned(), body: file }], state }
    }

    async fn open(&self) -> Result<Arc<StreamLog>> {
        let (log, sink) = opened(self.world.log.store(), false);
        sink.start(Start { state: Some(&self.state), ..Start::new(&self.staged, 2) }).await?;
        Ok(log)
    }
}

fn encoded(n: usize) -> (bytes::Bytes, usize) {
    let mut file = FileWriter::new(&schema()).expect("a writer");
    file.write(rows(n).rows()).expect("writes");
    let (_, bytes) = file.finish().expect("a file");
    let size = bytes.len();
    (bytes.into(), size)
}

#[tokio::test]
async fn a_store_of_an_older_build_goes_on() {
    for moved in [false, true] {
        let older = Older::new(moved).await;
        for _ in 0..2 {
            let log = older.open().await.expect("opens");
            assert_eq!(read(log.clone()).await.expect("whole"), 150);
            older.world.check_shown(&log);
        }
        assert!(older.world.names("jobs/job/pending").is_empty());
    }
}

#[tokio::test]
async fn a_file_that_should_have_been_replaced_is_not_taken_for_the_longer_one() {
    let older = Older::new(false).await;
    older.world.log.store().delete_folder("jobs/job/pending").await.expect("deletes");
    let e = older.open().await.expect_err("rows are missing");
    assert_eq!(e.kind(), ErrorKind::Data);
    assert!(e.message().contains("were committed"), "{e}");
}

/// A task that reads a source in groups, as the runtime's does.
struct Task {
    epoch: u64,
    next: BoxFuture<'static, Result<Option<Unit>>>,
}

/// Tasks that share a source, and what they read in which epoch.
struct Group {
    source: Arc<Following>,
    tasks: Vec<Task>,
    got: Vec<(u64, Unit)>,
}

impl Group {
    async fn new(log: &Arc<StreamLog>, tasks: usize) -> Self {
        let source = follow(log, None).await.expect("starts");
        let tasks = (0..tasks).map(|_| Task { epoch: 1, next: next_of(&source) }).collect();
        Group { source, tasks, got: vec![] }
    }

    /// Lets a task read; says whether there was anything.
    fn poll(&mut self, task: usize) -> bool {
        let task = &mut self.tasks[task];
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let Poll::Ready(unit) = task.next.as_mut().poll(&mut context) else { return false };
        self.got.push((task.epoch, unit.expect("reads").expect("the log is open")));
        task.next = next_of(&self.source);
        true
    }

    /// Ends a task's epoch.
    fn cut(&mut self, task: usize) {
        while self.poll(task) {}
        while let Some(unit) = self.source.try_unit() {
            self.got.push((self.tasks[task].epoch, unit));
        }
        self.tasks[task].epoch += 1;
    }
}

fn next_of(source: &Arc<Following>) -> BoxFuture<'static, Result<Option<Unit>>> {
    let source = source.clone();
    Box::pin(async move { source.next_unit().await })
}

/// More than a unit has.
const MANY: usize = 150_000;

#[tokio::test]
async fn a_group_that_comes_during_a_cut_is_read_in_the_next_epoch() {
    let mut world = World::new(true).await;
    world.commit(10).await;
    let mut readers = Group::new(&world.log, 2).await;
    assert!(readers.poll(0));
    while readers.poll(0) || readers.poll(1) {}
    readers.cut(0);
    world.commit(MANY).await;
    assert!(!readers.poll(0), "the other task has not ended its epoch");
    readers.cut(1);
    readers.source.epoch_cut();
    assert!(readers.poll(0) && readers.poll(1), "the group has opened");
    let rows = |epoch| readers.got.iter().filter(|g| g.0 == epoch).map(|g| g.1.end - g.1.start).sum::<u64>();
    assert_eq!((rows(1), rows(2)), (10, MANY as u64));
}

#[tokio::test]
async fn groups_are_read_whole_and_all_of_them_whatever_the_order() {
    for seed in 0..12 {
        let mut state: u64 = seed;
        // The mixing step of SplitMix64.
        let mut below = |n: usize| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            ((z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33) as usize % n
        };
        let mut world = World::new(true).await;
        let mut readers = Group::new(&world.log, 1 + below(4)).await;
        let mut ends = vec![0];
        for _ in 0..6 {
            let (tasks, first) = (readers.tasks.len(), below(4));
            for task in (0..tasks).map(|task| (first + task) % tasks) {
                for _ in 0..below(4) {
                    if below(3) == 0 {
                        world.commit(if below(3) == 0 { MANY } else { 5 }).await;
                        ends.push(world.log.snapshot().rows);
                    } else {
                        readers.poll(below(tasks));
                    }
                }
                readers.cut(task);
            }
            readers.source.epoch_cut();
        }
        // What is still there comes without more commits, a group an epoch.
        for _ in 0..ends.len() {
            (0..readers.tasks.len()).for_each(|task| readers.cut(task));
            readers.source.epoch_cut();
        }
        let read: u64 = readers.got.iter().map(|g| g.1.end - g.1.start).sum();
        assert_eq!(Some(&read), ends.last(), "seed {seed}");
        for group in ends.windows(2) {
            let inside = readers.got.iter().filter(|g| g.1.start >= group[0] && g.1.end <= group[1]);
            let mut epochs: Vec<u64> = inside.filter(|g| g.1.start < g.1.end).map(|g| g.0).collect();
            epochs.dedup();
            assert_eq!(epochs.len(), 1, "seed {seed}: rows {group:?} were read in epochs {epochs:?}");
        }
    }
}
