//! A stream's log written, damaged, given up half-way and followed by several tasks.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::future::BoxFuture;

use super::parquet_file::FileWriter;
use super::{StreamLog, StreamSource, TableSink};
use crate::changes::Changes;
use crate::connector::{Commit, Offsets, Sink, SinkWriter, Source, Staged, Unit};
use crate::epoch::EpochMark;
use crate::error::{ErrorKind, Result};
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
struct World {
    log: Arc<StreamLog>,
    sink: TableSink,
    writer: Box<dyn SinkWriter>,
    checkpoint: u64,
    _folder: tempfile::TempDir,
}

impl World {
    fn new(changelog: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("a store");
        let log = StreamLog::new(store, "s", schema(), changelog);
        let sink = TableSink::new(log.clone(), "job", None);
        let writer = sink.open(0).expect("a writer");
        World { log, sink, writer, checkpoint: 0, _folder: folder }
    }

    /// Stages `n` rows for the next checkpoint, and says what its manifest would name.
    async fn stage(&mut self, n: usize) -> Vec<Staged> {
        self.checkpoint += 1;
        let mark = EpochMark {
            epoch: self.checkpoint,
            watermark: EventTime(7),
            checkpoint: Some(self.checkpoint),
            end: false,
        };
        self.writer.write(rows(n)).await.expect("writes");
        self.writer.epoch(&mark).await.expect("ends an epoch");
        let staged = self.writer.stage(self.checkpoint).await.expect("stages");
        self.sink.gather(self.checkpoint, staged).await.expect("gathers")
    }

    fn commit_of<'a>(&self, staged: &'a [Staged]) -> Commit<'a> {
        Commit { checkpoint: self.checkpoint, epoch: self.checkpoint, watermark: EventTime(7), end: false, staged }
    }

    async fn commit(&mut self, n: usize) {
        let staged = self.stage(n).await;
        self.sink.commit(&self.commit_of(&staged)).await.expect("commits");
        self.sink.release();
    }

    /// The log and the sink of the next process, as the manifest with `staged` tells them.
    fn restarted(&self, staged: &[Staged]) -> (Arc<StreamLog>, TableSink) {
        let log = StreamLog::new(self.log.store().clone(), "s", schema(), self.log.is_changelog());
        let sink = TableSink::new(log.clone(), "job", None);
        sink.restore(&self.sink.state_after(&self.commit_of(staged))).expect("plain data");
        (log, sink)
    }
}

/// Reads what there is, in one task.
async fn read(log: Arc<StreamLog>) -> Result<usize> {
    let source = StreamSource::new(log.clone(), vec![0]).expect("a source");
    source.start(&Offsets::default()).await?;
    let mut n = 0;
    while n < log.snapshot().rows as usize {
        let Some(unit) = source.next_unit().await? else { break };
        let mut reader = source.open(&unit).await?;
        while let Some(read) = reader.next().await? {
            n += read.rows.num_rows();
        }
    }
    Ok(n)
}

#[tokio::test]
async fn a_file_with_fewer_rows_than_committed_is_an_error() {
    let mut world = World::new(false);
    world.commit(100).await;
    let (log, _) = world.restarted(&[]);
    assert_eq!(read(log.clone()).await.expect("whole"), 100);
    for (left, found) in [(60, "has 60 rows, 100 were committed"), (0, "has 0 rows, 100 were committed")] {
        let mut file = FileWriter::new(&schema()).expect("a writer");
        file.write(rows(left).rows()).expect("writes");
        let (_, bytes) = file.finish().expect("a file");
        log.store().put(&log.path(&log.snapshot().files[0].name), bytes).await.expect("writes");
        let e = read(log.clone()).await.expect_err("rows are missing");
        assert_eq!(e.kind(), ErrorKind::Data);
        assert!(e.message().contains(found), "{e}");
    }
}

#[tokio::test]
async fn a_file_that_should_have_been_replaced_is_not_taken_for_the_longer_one() {
    let mut world = World::new(false);
    world.commit(100).await;
    let staged = world.stage(50).await;
    // The process ends behind the manifest; the file that it names gets lost.
    world.log.store().delete_folder("jobs/job/pending").await.expect("deletes");
    let (_, sink) = world.restarted(&staged);
    let e = sink.start(&staged).await.expect_err("rows are missing");
    assert_eq!(e.kind(), ErrorKind::Data);
    assert!(e.message().contains("were committed"), "{e}");
}

#[tokio::test]
async fn a_move_that_a_crash_cut_off_is_made_good() {
    let mut world = World::new(false);
    world.commit(100).await;
    let staged = world.stage(50).await;
    let (log, sink) = world.restarted(&staged);
    sink.start(&staged).await.expect("moves");
    sink.start(&staged).await.expect("was moved");
    assert_eq!(read(log).await.expect("whole"), 150);
}

#[tokio::test]
async fn a_checkpoint_that_was_given_up_holds_no_file() {
    let mut world = World::new(false);
    world.commit(100).await;
    let _staged = world.stage(50).await;
    let held = tokio::time::timeout(Duration::from_millis(20), world.log.hold_files()).await;
    assert!(held.is_err(), "a file is about to be replaced");
    world.sink.release();
    tokio::time::timeout(Duration::from_secs(5), world.log.hold_files()).await.expect("nothing is being replaced");
}

/// A task that reads a source in groups, as the runtime's does.
struct Task {
    epoch: u64,
    next: BoxFuture<'static, Result<Option<Unit>>>,
}

/// Tasks that share a source, and what they read in which epoch.
struct Readers {
    source: Arc<StreamSource>,
    tasks: Vec<Task>,
    got: Vec<(u64, Unit)>,
}

impl Readers {
    async fn new(log: &Arc<StreamLog>, tasks: usize) -> Self {
        let source = Arc::new(StreamSource::new(log.clone(), vec![0]).expect("a source"));
        source.start(&Offsets::default()).await.expect("starts");
        let tasks = (0..tasks).map(|_| Task { epoch: 1, next: next_of(&source) }).collect();
        Readers { source, tasks, got: vec![] }
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

fn next_of(source: &Arc<StreamSource>) -> BoxFuture<'static, Result<Option<Unit>>> {
    let source = source.clone();
    Box::pin(async move { source.next_unit().await })
}

/// More than a unit has.
const MANY: usize = 150_000;

#[tokio::test]
async fn a_group_that_comes_during_a_cut_is_read_in_the_next_epoch() {
    let mut world = World::new(true);
    world.commit(10).await;
    let mut readers = Readers::new(&world.log, 2).await;
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
        let mut world = World::new(true);
        let mut readers = Readers::new(&world.log, 1 + below(4)).await;
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
