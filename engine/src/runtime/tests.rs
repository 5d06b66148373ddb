//! Jobs over splits that are read side by side.

mod clock;
mod receipts;
mod takeover;
mod turns;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use async_trait::async_trait;
use object_store::memory::InMemory;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{JobConfig, JobHandle, JobPhase, Runtime};
use crate::changes::Changes;
use crate::checkpoint::Checkpoints;
use crate::clock::Clock;
use crate::connector::{
    Commit, Intake, Offsets, Opening, Reach, Read, Readers, Sink, SinkWriter, Source, Split, Staged, Start, Unit,
    UnitReader,
};
use crate::epoch::EpochMark;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Edge, Exchange, Graph, NodeKind, ScanTime, SinkNode, SourceNode, TimeBound};
use crate::memory::MemoryBudget;
use crate::store::Store;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("t", DataType::Timestamp(TimeUnit::Microsecond, None), true)]))
}

/// Splits `t0`, `t1`, … whose rows the test pours in.
#[derive(Default)]
struct Taps {
    taps: Mutex<Vec<Tap>>,
    units: Mutex<VecDeque<Unit>>,
    changed: Notify,
    /// How far they reach, as far as they say.
    there: Mutex<Vec<Reach>>,
    /// What was told to be committed.
    told: Mutex<Vec<Offsets>>,
    deaf: AtomicBool,
    /// Somebody waits for what is made of the rows.
    awaited: AtomicBool,
    /// Reads that were given up midway.
    given_up: AtomicUsize,
}

#[derive(Clone, Default)]
struct Tap {
    times: Vec<i64>,
    closed: bool,
    /// It has a row whenever it is asked.
    runs: bool,
    /// Its reader gives the unit back after the next rows.
    gives_back: bool,
    readers: usize,
}

impl Taps {
    fn new(count: usize) -> Arc<Self> {
        Arc::new(Taps { taps: Mutex::new(vec![Tap::default(); count]), ..Taps::default() })
    }

    fn name(tap: usize) -> Arc<str> {
        format!("t{tap}").into()
    }

    fn place(split: &str) -> usize {
        split[1..].parse().expect("a number")
    }

    fn change(&self, tap: usize, change: impl FnOnce(&mut Tap)) {
        change(&mut self.taps.lock()[tap]);
        self.changed.notify_waiters();
    }

    fn pour(&self, tap: usize, time: i64) {
        self.change(tap, |t| t.times.push(time));
    }

    fn open_readers(&self) -> usize {
        self.taps.lock().iter().map(|t| t.readers).sum()
    }

    /// Whether the last word was that so many rows of each split are committed.
    fn has_heard(&self, rows: u64) -> bool {
        let told = self.told.lock();
        let all = self.taps.lock().len();
        told.last().is_some_and(|offsets| (0..all).all(|tap| offsets.prefix(&Self::name(tap)) == rows))
    }
}

struct Shared(Arc<Taps>);

#[async_trait]
impl Source for Shared {
    fn describe(&self) -> String {
        "taps".to_owned()
    }

    fn bounded(&self) -> bool {
        false
    }

    fn side_by_side(&self) -> bool {
        true
    }

    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> {
        None
    }

    async fn open(self: Arc<Self>, opening: Opening) -> Result<Arc<dyn Intake>> {
        let all = self.0.taps.lock().len();
        let unit = |tap| {
            let split = Taps::name(tap);
            Unit { start: opening.consumed.prefix(&split), split, end: u64::MAX }
        };
        *self.0.units.lock() = (0..all).map(unit).collect();
        Ok(self)
    }
}

#[async_trait]
impl Intake for Shared {
    fn splits(&self) -> Vec<Split> {
        let taps = self.0.taps.lock();
        let end = |tap: &Tap| tap.closed.then_some(tap.times.len() as u64);
        let split = |(i, tap)| Split { name: Taps::name(i), end: end(tap), min_time: None, holds: true };
        taps.iter().enumerate().map(split).collect()
    }

    async fn next_unit(&self) -> Result<Option<Unit>> {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(unit) = self.0.units.lock().pop_front() {
                return Ok(Some(unit));
            }
            if self.0.taps.lock().iter().all(|t| t.closed) {
                return Ok(None);
            }
            changed.await;
        }
    }

    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> {
        Some(self)
    }

    async fn committed(&self, offsets: &Offsets) -> Result<()> {
        self.0.told.lock().push(offsets.clone());
        match self.0.deaf.load(Ordering::Relaxed) {
            true => Err(Error::new(ErrorKind::Unavailable, "the broker is away")),
            false => Ok(()),
        }
    }

    fn there(&self) -> Vec<Reach> {
        self.0.there.lock().clone()
    }

    fn await_rows(&self, awaited: bool) {
        self.0.awaited.store(awaited, Ordering::Relaxed);
    }
}

#[async_trait]
impl Readers for Shared {
    async fn read(&self, unit: &Unit) -> Result<Box<dyn UnitReader>> {
        let tap = Taps::place(&unit.split);
        self.0.taps.lock()[tap].readers += 1;
        Ok(Box::new(Reader { taps: self.0.clone(), tap, at: unit.start as usize, back: false }))
    }
}

struct Reader {
    taps: Arc<Taps>,
    tap: usize,
    at: usize,
    back: bool,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.taps.taps.lock()[self.tap].readers -= 1;
    }
}

/// Notes a read that is dropped before it is ready.
struct Midway(Arc<Taps>);

impl Drop for Midway {
    fn drop(&mut self) {
        self.0.given_up.fetch_add(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl UnitReader for Reader {
    async fn next(&mut self) -> Result<Option<Read>> {
        let midway = Midway(self.taps.clone());
        let read = loop {
            let changed = midway.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut taps = midway.0.taps.lock();
                let tap = &mut taps[self.tap];
                if self.back {
                    let unit = Unit { split: Taps::name(self.tap), start: self.at as u64, end: u64::MAX };
                    midway.0.units.lock().push_back(unit);
                    break None;
                }
                if tap.runs {
                    tap.times.push(self.at as i64);
                }
                let new = tap.times[self.at..].to_vec();
                if !new.is_empty() {
                    self.at = tap.times.len();
                    self.back = std::mem::take(&mut tap.gives_back);
                    let column = Arc::new(TimestampMicrosecondArray::from(new));
                    let rows = RecordBatch::try_new(schema(), vec![column])?;
                    break Some(Read::rows(Changes::insertions(rows), self.at as u64));
                }
                if tap.closed {
                    break None;
                }
            }
            changed.await;
        };
        std::mem::forget(midway);
        if read.is_none() {
            self.taps.changed.notify_waiters();
        }
        Ok(read)
    }

    fn is_whole(&self) -> bool {
        !self.back
    }
}

/// Keeps what it is given. Somebody may wait for it.
#[derive(Clone, Default)]
struct Basin(Arc<Mutex<Vec<i64>>>, Arc<AtomicBool>);

impl Basin {
    fn times(&self) -> Vec<i64> {
        let mut times = self.0.lock().clone();
        times.sort_unstable();
        times
    }
}

#[async_trait]
impl Sink for Basin {
    async fn start(&self, _start: Start<'_>) -> Result<()> {
        Ok(())
    }

    fn open(&self, _task: usize) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(self.clone()))
    }

    async fn commit(&self, _commit: &Commit<'_>) -> Result<()> {
        Ok(())
    }

    fn is_awaited(&self) -> bool {
        self.1.load(Ordering::Relaxed)
    }

    fn takes_retractions(&self) -> bool {
        false
    }

    fn describe(&self) -> String {
        "basin".to_owned()
    }
}

#[async_trait]
impl SinkWriter for Basin {
    async fn write(&mut self, changes: Changes) -> Result<()> {
        let times = changes.rows().column(0).as_primitive::<TimestampMicrosecondType>();
        self.0.lock().extend(times.values());
        Ok(())
    }

    async fn epoch(&mut self, _mark: &EpochMark) -> Result<()> {
        Ok(())
    }

    async fn stage(&mut self, _checkpoint: u64) -> Result<Vec<Staged>> {
        Ok(vec![])
    }
}

struct World {
    taps: Arc<Taps>,
    basin: Basin,
    store: Store,
}

impl World {
    fn new(taps: usize) -> Self {
        World { taps: Taps::new(taps), basin: Basin::default(), store: Store::over(Arc::new(InMemory::new())) }
    }

    async fn start(&self, tasks: usize, idle_timeout: Duration) -> JobHandle {
        self.start_with(tasks, idle_timeout, Duration::from_millis(20)).await
    }

    async fn start_with(&self, tasks: usize, idle_timeout: Duration, checkpoint_interval: Duration) -> JobHandle {
        self.start_by(Clock::default(), tasks, idle_timeout, checkpoint_interval).await
    }

    async fn start_by(
        &self,
        clock: Clock,
        tasks: usize,
        idle_timeout: Duration,
        checkpoint_interval: Duration,
    ) -> JobHandle {
        let mut graph = Graph::default();
        let time = ScanTime { column: 0, bound: Some(TimeBound::Behind(0)), closers: vec![], idle_timeout };
        let source = Arc::new(Shared(self.taps.clone()));
        let source = SourceNode { time: Some(time), ..SourceNode::new("taps", source, schema()) };
        let from = graph.add(NodeKind::Source(source), vec![], tasks);
        let sink = SinkNode { name: "basin".to_owned(), sink: Arc::new(self.basin.clone()) };
        graph.add(NodeKind::Sink(sink), vec![Edge { from, exchange: Exchange::Forward }], tasks);
        let handle = tokio::runtime::Handle::current();
        let runtime = Runtime::by(clock, handle.clone(), handle, MemoryBudget::new(1 << 30));
        let mut config = JobConfig::new("basin");
        config.checkpoint_interval = checkpoint_interval;
        let checkpoints = Checkpoints::new(self.store.clone(), "basin");
        runtime.start(graph, config, Some(checkpoints)).await.expect("starts")
    }
}

const LONG: Duration = Duration::from_secs(60);

async fn until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "never came: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_endless_splits_than_tasks_are_all_read() {
    let world = World::new(20);
    let job = world.start(2, LONG).await;
    for round in 0..5 {
        for tap in 0..20 {
            world.taps.pour(tap, round * 20 + tap as i64);
        }
        until("the rows", || world.basin.times().len() as i64 == (round + 1) * 20).await;
    }
    assert_eq!(world.basin.times(), (0..100).collect::<Vec<_>>());
    assert_eq!(world.taps.open_readers(), 20, "each task has its share");
    assert_eq!(world.taps.given_up.load(Ordering::Relaxed), 0, "no read was given up, whatever was cut");
    assert_eq!(job.status().phase, JobPhase::Running);
    // One that is new is read, too.
    world.taps.taps.lock().push(Tap { times: vec![100], ..Tap::default() });
    world.taps.units.lock().push_back(Unit { split: Taps::name(20), start: 0, end: u64::MAX });
    world.taps.changed.notify_waiters();
    until("the new split", || world.basin.times().len() == 101).await;
    job.stop().await.expect("stops");
}

#[tokio::test]
async fn a_split_that_always_has_rows_leaves_others_their_turn() {
    let world = World::new(5);
    world.taps.change(0, |tap| tap.runs = true);
    let job = world.start(1, LONG).await;
    for tap in 1..5 {
        world.taps.pour(tap, -(tap as i64));
    }
    until("rows of the others", || world.basin.times().starts_with(&[-4, -3, -2, -1])).await;
    job.stop().await.expect("stops");
}

#[tokio::test]
async fn a_quiet_split_beside_a_busy_one_lets_the_watermark_go() {
    let timeout = Duration::from_millis(600);
    let world = World::new(2);
    let job = world.start(1, timeout).await;
    let start = Instant::now();
    world.taps.pour(0, 10);
    world.taps.pour(1, 20);
    for time in 21.. {
        world.taps.pour(1, time);
        tokio::time::sleep(Duration::from_millis(5)).await;
        let status = job.status();
        if status.watermark.0 > 10 {
            assert!(start.elapsed() >= timeout, "after {:?}", start.elapsed());
            break;
        }
        assert!(start.elapsed() < timeout * 10, "held at {} {}", status.watermark, status.holder);
    }
    // What comes in it then holds the watermark again.
    let before = job.status().watermark;
    world.taps.pour(0, 11);
    until("a row of the quiet split", || world.basin.times().contains(&11)).await;
    assert!(job.status().watermark >= before, "it never falls");
    job.stop().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn splits_that_end_end_the_job() {
    let world = World::new(7);
    let job = world.start(2, LONG).await;
    for tap in 0..7 {
        world.taps.pour(tap, tap as i64);
        world.taps.change(tap, |tap| tap.closed = true);
    }
    assert_eq!(job.wait().await.phase, JobPhase::Finished);
    assert_eq!(world.basin.times(), (0..7).collect::<Vec<_>>());
    assert!(world.taps.has_heard(1), "the last commit is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_back_is_read_once() {
    let world = World::new(6);
    let job = world.start(2, LONG).await;
    until("all are open", || world.taps.open_readers() == 6).await;
    for round in 0..10 {
        for tap in 0..6 {
            world.taps.change(tap, |t| t.gives_back = (tap as i64 + round) % 3 == 0);
            world.taps.pour(tap, round * 6 + tap as i64);
        }
        until("the rows", || world.basin.times().len() as i64 >= (round + 1) * 6).await;
    }
    assert_eq!(world.basin.times(), (0..60).collect::<Vec<_>>());
    job.stop().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_hears_what_is_committed_also_after_a_restart() {
    let world = World::new(4);
    let job = world.start(2, LONG).await;
    for tap in 0..4 {
        world.taps.pour(tap, tap as i64);
    }
    until("the word", || world.taps.has_heard(1)).await;
    // Nobody hears it any more; the job goes on, and commits.
    world.taps.deaf.store(true, Ordering::Relaxed);
    for tap in 0..4 {
        world.taps.pour(tap, 4 + tap as i64);
    }
    until("the word that is not heard", || world.taps.has_heard(2)).await;
    assert_eq!(job.status().phase, JobPhase::Running);
    job.stop().await.expect("stops");
    world.taps.deaf.store(false, Ordering::Relaxed);
    world.taps.told.lock().clear();
    let job = world.start(3, LONG).await;
    assert!(world.taps.has_heard(2), "what the last run has committed is said again");
    for tap in 0..4 {
        world.taps.pour(tap, 8 + tap as i64);
    }
    until("the word", || world.taps.has_heard(3)).await;
    let times = world.basin.times();
    assert_eq!(times.iter().collect::<BTreeSet<_>>().len(), times.len(), "read once: {times:?}");
    assert_eq!(times.len(), 12);
    job.stop().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_committed_was_not_told_and_is_read_again() {
    let world = World::new(4);
    let job = world.start_with(2, LONG, Duration::from_millis(20)).await;
    (0..4).for_each(|tap| world.taps.pour(tap, tap as i64));
    until("the word", || world.taps.has_heard(1)).await;
    job.stop().await.expect("stops");
    // A run that is cut off before it commits anything.
    let job = world.start_with(2, LONG, LONG).await;
    (0..4).for_each(|tap| world.taps.pour(tap, 4 + tap as i64));
    until("the rows", || world.basin.times().len() == 8).await;
    job.abort();
    job.wait().await;
    assert!(world.taps.has_heard(1), "no more than what is committed");
    let job = world.start(2, LONG).await;
    until("the word on what is read again", || world.taps.has_heard(2)).await;
    assert_eq!(
        world.basin.times(),
        [0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 7, 7],
        "those that were lost come again, and no others"
    );
    job.stop().await.expect("stops");
}
