//! Sources that are read once others have been.

use super::*;
use crate::operator::union::Union;
use crate::time::EventTime;

/// A job over two sources: the first is read up to where it reaches at the start before the second.
struct Turns {
    first: Arc<Taps>,
    second: Arc<Taps>,
    basin: Basin,
    store: Store,
}

impl Turns {
    fn new() -> Self {
        let store = Store::over(Arc::new(InMemory::new()));
        Turns { first: Taps::new(1), second: Taps::new(2), basin: Basin::default(), store }
    }

    /// The first source reaches to row `rows` when the job starts.
    async fn start(&self, rows: u64) -> JobHandle {
        *self.first.there.lock() = vec![Reach { split: Taps::name(0), end: rows, watermark: None }];
        let mut graph = Graph::default();
        let idle_timeout = Duration::from_millis(1);
        let sources = [(&self.first, 1), (&self.second, 0)].map(|(taps, depth)| {
            let time = ScanTime { column: 0, bound: Some(TimeBound::Behind(0)), closers: vec![], idle_timeout };
            let source = Arc::new(Shared(taps.clone()));
            let stream = format!("taps {depth}");
            let node = SourceNode { time: Some(time), depth, ..SourceNode::new(stream, source, schema()) };
            graph.add(NodeKind::Source(node), vec![], 2)
        });
        let edges = |from: &[usize]| from.iter().map(|f| Edge { from: *f, exchange: Exchange::Forward }).collect();
        let union = NodeKind::Operator(Arc::new(Union { schema: schema() }));
        let all = graph.add(union, edges(&sources), 2);
        let sink = SinkNode { name: "basin".to_owned(), sink: Arc::new(self.basin.clone()) };
        graph.add(NodeKind::Sink(sink), edges(&[all]), 2);
        let handle = tokio::runtime::Handle::current();
        let runtime = Runtime::by(Clock::default(), handle.clone(), handle, MemoryBudget::new(1 << 30));
        let mut config = JobConfig::new("basin");
        config.checkpoint_interval = Duration::from_millis(20);
        let checkpoints = Checkpoints::new(self.store.clone(), "basin");
        runtime.start(graph, config, Some(checkpoints)).await.expect("starts")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_first_is_read_before_the_rest() {
    let turns = Turns::new();
    turns.second.pour(1, 100);
    let job = turns.start(3).await;
    for time in [1, 2] {
        turns.first.pour(0, time);
        until("a row of the first", || turns.basin.times().contains(&time)).await;
    }
    // However idle those that wait are.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let status = job.status();
    assert_eq!((turns.basin.times(), turns.second.open_readers()), (vec![1, 2], 0));
    assert_eq!(status.watermark, EventTime::MIN, "{}", status.holder);
    assert!(status.holder.contains("\"taps 0\" is read once those are"), "{}", status.holder);
    // Nor does a restart let them go on, which looks anew how far the first reaches.
    job.stop().await.expect("stops");
    let job = turns.start(4).await;
    turns.first.pour(0, 3);
    until("the next row", || turns.basin.times().contains(&3)).await;
    assert_eq!(turns.second.open_readers(), 0);
    turns.first.pour(0, 4);
    until("the second", || turns.basin.times() == [1, 2, 3, 4, 100]).await;
    job.stop().await.expect("stops");
    // Once it has been read it is not waited for any more.
    let job = turns.start(10).await;
    turns.second.pour(0, 101);
    until("the second at once", || turns.basin.times().contains(&101)).await;
    job.stop().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_of_which_nothing_is_there_is_not_waited_for() {
    let turns = Turns::new();
    let job = turns.start(0).await;
    turns.second.pour(0, 7);
    until("the second", || turns.basin.times() == [7]).await;
    job.stop().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_that_ends_early_has_been_read() {
    let turns = Turns::new();
    turns.first.pour(0, 1);
    turns.second.pour(0, 7);
    let job = turns.start(u64::MAX).await;
    until("the first", || turns.basin.times() == [1]).await;
    turns.first.change(0, |tap| tap.closed = true);
    until("the second", || turns.basin.times() == [1, 7]).await;
    job.stop().await.expect("stops");
}
