//! A source of your own (`numbers.rs`) under a continuous query, without a store.

mod numbers;

use std::sync::Arc;

use arrow::util::pretty::pretty_format_batches;
use millstream_engine::connector::feed::FeedSink;
use millstream_engine::graph::SinkNode;
use millstream_engine::memory::MemoryBudget;
use millstream_engine::runtime::{JobConfig, Runtime};
use millstream_sql::plan::lower::{finish, lower};
use millstream_sql::plan::{query_plan, session_state, streaming_plan};
use millstream_sql::statement::parse_query;

const QUERY: &str = "SELECT n % 3 AS rest, count(*) AS numbers, sum(n) AS total FROM numbers GROUP BY n % 3";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (state, query) = (session_state(), parse_query(QUERY)?);
    let plan = streaming_plan(&state, query_plan(&state, Arc::new(numbers::Names), &query.query)?)?;
    let mut lowered = lower(&state, &plan, query.emit, 2)?;
    let schema = Arc::new(plan.schema().as_arrow().clone());
    let (sink, mut epochs) = FeedSink::new(schema, !lowered.output.append_only, lowered.output.key.clone());
    finish(&mut lowered, SinkNode { name: "result".to_owned(), sink }, true);
    let handle = tokio::runtime::Handle::current();
    let runtime = Runtime::new(handle.clone(), handle, MemoryBudget::new(1 << 30));
    let job = runtime.start(lowered.graph, JobConfig::new("numbers"), None).await?;
    while let Some(epoch) = epochs.recv().await {
        if !epoch.batches.is_empty() {
            println!("{}", pretty_format_batches(&epoch.batches)?);
        }
    }
    job.wait().await;
    Ok(job.failure()?)
}
