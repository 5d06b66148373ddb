//! A stream that takes rows with receipts and dies before each of its writes in turn: what is known afterwards of a key is what
//! became of its rows.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::TimestampMicrosecondType;
use object_store::memory::InMemory;
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::json;

use super::schema;
use super::takeover::{Gate, View};
use crate::checkpoint::Checkpoints;
use crate::connector::Sink;
use crate::connector::ingest::{IngestSource, Kept, Known, Parcel, Receipt};
use crate::graph::{Edge, Exchange, Graph, NodeKind, SinkNode, SourceNode};
use crate::memory::MemoryBudget;
use crate::runtime::{JobConfig, JobHandle, Runtime};
use crate::store::Store;
use crate::table::{StreamLog, TableSink, Upkeep};

const POSTS: i64 = 4;
const WRITER: &str = "link/w";

/// The rows that the last manifest commits; all its files must be there.
async fn committed(objects: &Arc<InMemory>) -> Vec<i64> {
    let store = Store::over(objects.clone());
    let manifest = Checkpoints::new(store.clone(), "job").last().await.expect("reads").expect("is there");
    let files = manifest.sinks.get(&0).and_then(|sink| sink["files"].as_array().cloned()).unwrap_or_default();
    let mut rows = vec![];
    for file in files {
        let bytes = store.get(&format!("jobs/job/files/{}", file["name"].as_str().expect("a name"))).await;
        let bytes = bytes.expect("a committed file is there");
        for batch in ParquetRecordBatchReaderBuilder::try_new(bytes).expect("opens").build().expect("reads") {
            rows.extend(batch.expect("rows").column(0).as_primitive::<TimestampMicrosecondType>().values());
        }
    }
    rows
}

/// A process with the stream.
struct Process {
    gate: Arc<Gate>,
    source: Arc<IngestSource>,
    job: JobHandle,
}

/// Starts one; `None` when it dies before it runs.
async fn start(objects: &Arc<InMemory>, stand_before: Option<usize>) -> Option<Process> {
    let gate = Arc::new(Gate::before(stand_before));
    let store = Store::over(Arc::new(View { objects: objects.clone(), gate: gate.clone() }));
    let (budget, handle) = (MemoryBudget::new(1 << 30), tokio::runtime::Handle::current());
    let log = StreamLog::new(store.clone(), "s", schema(), false, None, Upkeep::new(budget.clone(), handle.clone()));
    let source = IngestSource::new(budget.clone());
    let mut graph = Graph::default();
    let scan = SourceNode::new("s", source.clone(), schema());
    let from = graph.add(NodeKind::Source(scan), vec![], 1);
    let sink: Arc<dyn Sink> = Arc::new(TableSink::new(log, "job", None));
    let sink = SinkNode { name: "s".to_owned(), sink };
    graph.add(NodeKind::Sink(sink), vec![Edge { from, exchange: Exchange::Forward }], 1);
    let runtime = Runtime::new(handle.clone(), handle, budget);
    let mut config = JobConfig::new("s");
    config.checkpoint_interval = Duration::from_millis(1);
    tokio::select! {
        job = runtime.start(graph, config, Some(Checkpoints::new(store, "job"))) => {
            Some(Process { gate, source, job: job.expect("starts") })
        }
        () = died(&gate) => None,
    }
}

/// Completes when the process stands still: for the store it is dead.
async fn died(gate: &Gate) {
    while !gate.stands.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

impl Process {
    async fn push(&self, i: i64) {
        let rows = TimestampMicrosecondArray::from(vec![i]);
        let rows = RecordBatch::try_new(schema(), vec![Arc::new(rows)]).expect("one column");
        let receipt = Receipt { key: format!("post {i}"), value: json!(i), kept: Kept::Hour };
        self.source.push(self.source.run(), Parcel::from(rows).with_receipt(receipt)).await.expect("it runs");
        let receipt = Receipt { key: WRITER.to_owned(), value: json!(i), kept: Kept::Lasting };
        let nothing = Parcel::from(RecordBatch::new_empty(schema())).with_receipt(receipt);
        self.source.push(self.source.run(), nothing).await.expect("it runs");
    }

    /// Hands all in, and notes what is acknowledged. `apart`: each only when the one before is.
    async fn post(&self, apart: bool, acknowledged: &Mutex<Vec<i64>>) {
        for i in 0..POSTS {
            self.push(i).await;
            if apart {
                self.job.settle().await.expect("commits");
                acknowledged.lock().push(i);
            } else {
                // So that some are read before a commit and some after.
                tokio::time::sleep(Duration::from_micros(300)).await;
            }
        }
        self.job.settle().await.expect("commits");
        *acknowledged.lock() = (0..POSTS).collect();
    }
}

/// Says whether the first process died.
async fn crash(stand_before: usize, apart: bool) -> bool {
    let objects = Arc::new(InMemory::new());
    let acknowledged = Mutex::default();
    let first = start(&objects, Some(stand_before)).await;
    let died = match &first {
        None => true,
        Some(first) => tokio::select! {
            () = died(&first.gate) => true,
            () = first.post(apart, &acknowledged) => false,
        },
    };
    let second = start(&objects, None).await.expect("nothing stops it");
    let there = committed(&objects).await;
    let mut last = None;
    for i in 0..POSTS {
        let known = second.source.receipt(&format!("post {i}"));
        match there.contains(&i) {
            true => assert_eq!(known, Known::Committed(json!(i)), "before write {stand_before}"),
            false => {
                assert_eq!(known, Known::Never, "before write {stand_before}");
                assert!(!acknowledged.lock().contains(&i), "{i} was acknowledged");
            }
        }
        last = there.contains(&i).then_some(i).or(last);
    }
    match (second.source.receipt(WRITER), last) {
        (Known::Never, None | Some(0)) => {}
        // Its word goes in behind the row, and may be missing where that is the last.
        (Known::Committed(at), Some(last)) => assert!(at == json!(last) || at == json!(last - 1), "{at} for {last}"),
        (known, last) => panic!("{known:?} for {last:?}, before write {stand_before}"),
    }
    for i in (0..POSTS).filter(|i| !there.contains(i)) {
        second.push(i).await;
    }
    second.job.settle().await.expect("commits");
    let mut all = committed(&objects).await;
    all.sort_unstable();
    assert_eq!(all, (0..POSTS).collect::<Vec<_>>(), "before write {stand_before}");
    second.job.stop().await.expect("stops");
    died
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_are_committed_with_their_rows_wherever_the_process_dies() {
    // Rows that come close together share commits.
    for (apart, writes) in [(true, 8), (false, 3)] {
        let mut before = 0;
        while crash(before, apart).await {
            before += 1;
        }
        assert!(before >= writes, "only {before} writes");
    }
}
