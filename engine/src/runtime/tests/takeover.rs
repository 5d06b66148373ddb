//! A job that somebody else takes over while its owner stands still, before each of its writes in turn.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::{LONG, Shared, Taps, schema};
use crate::checkpoint::Checkpoints;
use crate::connector::{Sink, Source};
use crate::error::{ErrorKind, Result};
use crate::graph::{Edge, Exchange, Graph, NodeKind, ScanTime, SinkNode, SourceNode, TimeBound};
use crate::memory::MemoryBudget;
use crate::runtime::{JobConfig, JobHandle, JobPhase, Runtime};
use crate::store::Store;
use crate::table::{StreamLog, TableSink, Upkeep};
use crate::testing::Faulty;

/// Where an owner stands still, and which answer it never hears. Writes are counted from 0.
#[derive(Default)]
pub(super) struct Gate {
    stand_before: Option<usize>,
    lose: Option<usize>,
    writes: AtomicUsize,
    puts: AtomicUsize,
    pub(super) stands: AtomicBool,
    open: AtomicBool,
    opened: Notify,
}

impl Gate {
    /// Where an owner stands before its write `stand_before`.
    pub(super) fn before(stand_before: Option<usize>) -> Self {
        Gate { stand_before, ..Gate::default() }
    }

    async fn pass(&self) {
        if Some(self.writes.fetch_add(1, Ordering::SeqCst)) != self.stand_before {
            return;
        }
        self.stands.store(true, Ordering::SeqCst);
        while !self.open.load(Ordering::SeqCst) {
            let opened = self.opened.notified();
            tokio::pin!(opened);
            opened.as_mut().enable();
            if !self.open.load(Ordering::SeqCst) {
                opened.await;
            }
        }
    }

    fn release(&self) {
        self.open.store(true, Ordering::SeqCst);
        self.opened.notify_waiters();
    }

    /// Whether it stands before `stand_before`, within a time in which it gets there if it ever does.
    async fn stands(&self) -> bool {
        let start = Instant::now();
        while !self.stands.load(Ordering::SeqCst) && start.elapsed() < Duration::from_secs(1) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.stands.load(Ordering::SeqCst)
    }
}

/// The store as one owner sees it.
#[derive(Clone)]
pub(super) struct View {
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) gate: Arc<Gate>,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("View")
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a view of a store")
    }
}

#[async_trait]
impl ObjectStore for View {
    async fn put_opts(&self, at: &Path, bytes: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        self.gate.pass().await;
        let put = self.objects.put_opts(at, bytes, options).await?;
        match Some(self.gate.puts.fetch_add(1, Ordering::SeqCst)) == self.gate.lose {
            true => Err(object_store::Error::Generic { store: "view", source: "the connection broke".into() }),
            false => Ok(put),
        }
    }

    async fn put_multipart_opts(&self, at: &Path, o: PutMultipartOptions) -> StoreResult<Box<dyn MultipartUpload>> {
        self.gate.pass().await;
        self.objects.put_multipart_opts(at, o).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.objects.get_opts(at, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        let view = self.clone();
        let delete = move |path: Path| {
            let view = view.clone();
            async move {
                view.gate.pass().await;
                view.objects.delete(&path).await.map(|()| path)
            }
        };
        paths.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.gate.pass().await;
        self.objects.copy_opts(from, to, options).await
    }
}

/// One process that believes to own the job.
struct Owner {
    gate: Arc<Gate>,
    taps: Arc<Taps>,
    job: JoinHandle<Result<JobHandle>>,
}

impl Owner {
    /// Starts the job in a store whose row times so far are `poured`.
    fn start(objects: &Arc<InMemory>, gate: Gate, poured: &[i64]) -> Self {
        Owner::start_over(objects.clone(), gate, poured)
    }

    fn start_over(objects: Arc<dyn ObjectStore>, gate: Gate, poured: &[i64]) -> Self {
        let gate = Arc::new(gate);
        let store = Store::over(Arc::new(View { objects, gate: gate.clone() }));
        let taps = Taps::new(1);
        poured.iter().for_each(|t| taps.pour(0, *t));
        let (budget, handle) = (MemoryBudget::new(1 << 30), tokio::runtime::Handle::current());
        let upkeep = Upkeep::new(budget.clone(), handle.clone());
        let log = StreamLog::new(store.clone(), "s", schema(), false, None, upkeep);
        let mut graph = Graph::default();
        let time = ScanTime { column: 0, bound: Some(TimeBound::Behind(0)), closers: vec![], idle_timeout: LONG };
        let source: Arc<dyn Source> = Arc::new(Shared(taps.clone()));
        let source = SourceNode { time: Some(time), ..SourceNode::new("taps", source, schema()) };
        let from = graph.add(NodeKind::Source(source), vec![], 1);
        let sink: Arc<dyn Sink> = Arc::new(TableSink::new(log, "job", None));
        let sink = SinkNode { name: "s".to_owned(), sink };
        graph.add(NodeKind::Sink(sink), vec![Edge { from, exchange: Exchange::Forward }], 1);
        let runtime = Runtime::new(handle.clone(), handle, budget);
        let mut config = JobConfig::new("s");
        config.checkpoint_interval = Duration::from_millis(1);
        let checkpoints = Checkpoints::new(store, "job");
        let job = tokio::spawn(async move { runtime.start(graph, config, Some(checkpoints)).await });
        Owner { gate, taps, job }
    }

    /// The kind of error with which it ends.
    async fn ends(self) -> ErrorKind {
        let ended = async {
            match self.job.await.expect("no panic") {
                Err(e) => e.kind(),
                Ok(job) => {
                    let status = job.wait().await;
                    assert_eq!(status.phase, JobPhase::Failed);
                    status.error.expect("a failed job says why").0
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ended).await.expect("it ends")
    }

    /// Waits until `rows` rows are committed, and stops.
    async fn stops_after(self, rows: u64) {
        let job = self.job.await.expect("no panic").expect("starts");
        let start = Instant::now();
        while !self.taps.has_heard(rows) {
            job.failure().expect("it owns the job");
            assert!(start.elapsed() < Duration::from_secs(20), "{rows} rows are never committed");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        job.stop().await.expect("stops");
    }
}

/// The row times in the files that the last manifest names, all of which must be there and be listed for readers.
async fn committed(objects: &Arc<InMemory>) -> Vec<i64> {
    let store = Store::over(objects.clone());
    let manifest = Checkpoints::new(store.clone(), "job").last().await.expect("reads").expect("is there");
    let files = manifest.sinks[&0]["files"].as_array().expect("files").clone();
    let (mut times, mut paths) = (vec![], BTreeSet::new());
    for file in files {
        let path = format!("jobs/job/files/{}", file["name"].as_str().expect("a name"));
        let bytes = store.get(&path).await.expect("a committed file is there");
        paths.insert(path);
        for batch in ParquetRecordBatchReaderBuilder::try_new(bytes).expect("opens").build().expect("reads") {
            let batch = batch.expect("rows");
            times.extend(batch.column(0).as_primitive::<TimestampMicrosecondType>().values());
        }
    }
    let list = store.get("live/s.json").await.expect("a list");
    let list: serde_json::Value = serde_json::from_slice(&list).expect("JSON");
    let listed =
        list["files"].as_array().expect("files").iter().map(|f| f["path"].as_str().expect("a path").to_owned());
    assert_eq!(listed.collect::<BTreeSet<_>>(), paths, "what readers are shown");
    let copies = store.list("streams/s").await.expect("lists");
    let copies: BTreeSet<_> = copies.iter().map(|name| format!("jobs/job/files/{name}")).collect();
    assert_eq!(copies, paths, "what is there for readers");
    times
}

/// What a crashed owner may have left behind: a staged file, a state, a letter.
async fn leave(objects: &Arc<InMemory>) {
    for path in ["files/0000000099-000-g1.parquet", "state/99-g1-x-0.arrow", "dead_letters/99-g1.parquet"] {
        objects.put(&Path::from(format!("jobs/job/{path}")), "left".into()).await.expect("in memory");
    }
}

/// The first owner stands before its write `first`, the second one takes over and stands before its write `second`
/// (`None`: has committed all) when the first goes on. Says whether the first ever came so far.
async fn takeover(first: usize, second: Option<usize>, lose: [Option<usize>; 2]) -> bool {
    let objects = Arc::new(InMemory::new());
    let mut rows: Vec<i64> = (0..10).collect();
    let before = Owner::start(&objects, Gate::default(), &rows);
    before.stops_after(10).await;
    leave(&objects).await;
    rows.extend(10..20);
    let gate = Gate { stand_before: Some(first), lose: lose[0], ..Gate::default() };
    let a = Owner::start(&objects, gate, &rows);
    if !a.gate.stands().await {
        return false;
    }
    let gate = Gate { stand_before: second, lose: lose[1], ..Gate::default() };
    // It always has a row to commit.
    rows.push(20);
    let b = Owner::start(&objects, gate, &rows);
    match second {
        Some(_) => assert!(b.gate.stands().await, "the second comes to its write {second:?}"),
        None => super::until("the second to commit", || b.taps.has_heard(21)).await,
    }
    a.taps.pour(0, 20);
    a.gate.release();
    assert_eq!(a.ends().await, ErrorKind::Fenced);
    b.gate.release();
    b.taps.pour(0, 21);
    b.stops_after(22).await;
    assert_eq!(committed(&objects).await, (0..22).collect::<Vec<_>>());
    let again = Owner::start(&objects, Gate::default(), &(0..23).collect::<Vec<_>>());
    again.stops_after(23).await;
    assert_eq!(committed(&objects).await, (0..23).collect::<Vec<_>>());
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_taken_over_is_fenced_wherever_it_stands() {
    for (second, begin, step) in [(Some(1), 0, 1), (Some(3), 0, 2), (Some(5), 1, 2), (None, 0, 1)] {
        let mut first = begin;
        while first < 16 && takeover(first, second, [None; 2]).await {
            first += step;
        }
        assert!(first >= 12, "only {first} writes, the second before {second:?}");
    }
}

/// The first owner stands before its write `first` while the second commits so often that the numbers the first has not
/// created yet are long gone. Says whether the first ever came so far.
async fn left_behind(first: usize) -> bool {
    let objects = Arc::new(InMemory::new());
    let mut rows: Vec<i64> = (0..10).collect();
    let a = Owner::start(&objects, Gate::before(Some(first)), &rows);
    if !a.gate.stands().await {
        return false;
    }
    rows.extend(10..20);
    let b = Owner::start(&objects, Gate::default(), &rows);
    for row in 20..28 {
        super::until("a commit of the second", || b.taps.has_heard(row)).await;
        b.taps.pour(0, row as i64);
    }
    a.taps.pour(0, 100);
    a.gate.release();
    assert_eq!(a.ends().await, ErrorKind::Fenced);
    b.taps.pour(0, 28);
    b.stops_after(29).await;
    let again = Owner::start(&objects, Gate::default(), &(0..30).collect::<Vec<_>>());
    again.stops_after(30).await;
    assert_eq!(committed(&objects).await, (0..30).collect::<Vec<_>>());
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stood_still_for_long_is_fenced() {
    let mut first = 0;
    while first < 14 && left_behind(first).await {
        first += 1;
    }
    assert!(first >= 5, "only {first} writes");
}

/// The job runs over a store that fails now and then, before or after it has done what it was asked.
#[tokio::test(flavor = "multi_thread")]
async fn faults_of_a_store_change_nothing() {
    for seed in 0..6 {
        let objects = Arc::new(InMemory::new());
        for life in 1..4 {
            let rows: Vec<i64> = (0..life * 10).collect();
            let faulty = Arc::new(Faulty::new(objects.clone(), seed * 10 + life as u64, 20));
            Owner::start_over(faulty.clone(), Gate::default(), &rows).stops_after(life as u64 * 10).await;
            assert!(faulty.failed() > 0, "seed {seed}");
            assert_eq!(committed(&objects).await, rows, "seed {seed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_no_takeover() {
    for lose in 0..5 {
        for first in [0, 4, 7] {
            takeover(first, Some(3), [Some(lose), Some(lose)]).await;
        }
    }
}
