//! A result that is complete keeps no states, and is not begun again by who did not know.

use std::sync::Arc;

use millstream_engine::checkpoint::Checkpoints;
use millstream_engine::error::ErrorKind;
use millstream_engine::graph::SinkNode;
use millstream_engine::memory::MemoryBudget;
use millstream_engine::runtime::{JobConfig, JobHandle, Runtime};
use millstream_engine::store::Store;
use millstream_sql::plan::lower::finish;
use millstream_tests::Result;
use millstream_tests::case::query;
use millstream_tests::planned::plan;
use millstream_tests::sink::Collector;
use millstream_tests::world::World;
use object_store::memory::InMemory;
use tokio::runtime::Handle;

#[test]
fn what_another_owner_has_completed_is_not_begun_again() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (world, store, sink) = (World::of(0)?, Store::over(Arc::new(InMemory::new())), Collector::default());
    let query = query("SELECT k, count(*) AS n FROM bids GROUP BY k")?;
    let start = async || -> Result<std::result::Result<JobHandle, millstream_engine::error::Error>> {
        let (mut lowered, _) = plan(&world, &query, None, 2)?;
        finish(&mut lowered, SinkNode { name: "result".to_owned(), sink: Arc::new(sink.clone()) }, false);
        let runtime = Runtime::new(Handle::current(), Handle::current(), MemoryBudget::new(1 << 30));
        Ok(runtime.start(lowered.graph, JobConfig::new("job"), Some(Checkpoints::new(store.clone(), "job"))).await)
    };
    runtime.block_on(async {
        let job = start().await??;
        job.wait().await;
        job.failure()?;
        let manifest = Checkpoints::new(store.clone(), "job").last().await?.ok_or("a manifest")?;
        assert!(manifest.end && manifest.states.is_empty(), "{:?}", manifest.states);
        let again = start().await?.err().ok_or("it is begun again")?;
        assert_eq!(again.kind(), ErrorKind::Fenced, "{again}");
        assert!(again.message().contains("stream \"job\"") && again.hint().is_some(), "{again}");
        Ok(())
    })
}
