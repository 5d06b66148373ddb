//! How long from a row in to its result out, at 100,000 rows a second?
//!
//! `cargo bench --workspace --bench latency`: rows are handed in every millisecond and carry the time at which they
//! were; the result is followed as `SELECT … EMIT CHANGES` does, uncommitted. Quantiles over 10 s, of rows that arrive.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::common::TableReference;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::TableSource;
use datafusion::physical_expr::PhysicalExpr;
use millstream_benches::Result;
use millstream_engine::changelog::{OP, weights};
use millstream_engine::connector::Source;
use millstream_engine::connector::feed::FeedSink;
use millstream_engine::connector::ingest::IngestSource;
use millstream_engine::graph::SinkNode;
use millstream_engine::memory::MemoryBudget;
use millstream_engine::runtime::{JobConfig, Runtime};
use millstream_sql::plan::lower::{SourceTable, StreamScan, finish, lower};
use millstream_sql::plan::{TableResolver, optimize, query_plan, session_state};
use millstream_sql::statement::parse_query;

const ROWS_PER_MILLISECOND: i64 = 100;
const SECONDS: u64 = 10;

#[derive(Clone)]
struct Rows(Arc<IngestSource>);

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rows")
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, false), Field::new("at", DataType::Int64, false)]))
}

impl StreamScan for Rows {
    fn name(&self) -> &str {
        "rows"
    }

    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn is_changelog(&self) -> bool {
        false
    }

    fn key(&self) -> Option<Vec<usize>> {
        None
    }

    fn event_time(&self) -> Option<(usize, Option<Arc<dyn PhysicalExpr>>)> {
        None
    }

    fn idle_timeout(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn source(&self, _projection: Vec<usize>, _parallelism: usize) -> millstream_sql::Result<Arc<dyn Source>> {
        Ok(self.0.clone())
    }
}

impl TableResolver for Rows {
    fn table(&self, _name: &TableReference) -> millstream_sql::Result<Option<Arc<dyn TableSource>>> {
        Ok(Some(provider_as_source(Arc::new(SourceTable(Arc::new(self.clone()))))))
    }
}

async fn measure(sql: &str) -> Result<Vec<i64>> {
    let source = IngestSource::new(MemoryBudget::new(1 << 30));
    let state = session_state();
    let query = parse_query(sql)?;
    let plan = query_plan(&state, Arc::new(Rows(source.clone())), &query.query)?;
    let mut lowered = lower(&state, &optimize(&state, plan, true)?, query.emit, 1)?;
    let result = lowered.graph.schema(lowered.output.node);
    let (updating, key) = (!lowered.output.append_only, lowered.output.key.clone());
    let (sink, mut epochs) = FeedSink::new(result, updating, key);
    finish(&mut lowered, SinkNode { name: "result".to_owned(), sink }, true);
    let handle = tokio::runtime::Handle::current();
    let runtime = Runtime::new(handle.clone(), handle, MemoryBudget::new(1 << 30));
    let job = runtime.start(lowered.graph, JobConfig::new("latency"), None).await?;
    let start = Instant::now();
    let writer = tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        for _ in 0..SECONDS * 1000 {
            tick.tick().await;
            let now = start.elapsed().as_micros() as i64;
            let k: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ROWS_PER_MILLISECOND));
            let at: ArrayRef = Arc::new(Int64Array::from(vec![now; ROWS_PER_MILLISECOND as usize]));
            let Ok(batch) = RecordBatch::try_new(schema(), vec![k, at]) else { return };
            if source.push(source.run(), batch).await.is_err() {
                return;
            }
        }
    });
    let mut latencies = vec![];
    let end = start + Duration::from_secs(SECONDS);
    while let Ok(Some(epoch)) = tokio::time::timeout_at(end.into(), epochs.recv()).await {
        let now = start.elapsed().as_micros() as i64;
        for batch in epoch.batches {
            let at = batch.column_by_name("at").ok_or("a result without at")?.as_primitive::<Int64Type>();
            // What is taken back says when it came, not when that was told.
            let weights = batch.column_by_name(OP).map(weights).transpose()?;
            let arrives = |row: &usize| weights.as_ref().is_none_or(|weights| weights[*row] > 0);
            latencies.extend((0..at.len()).filter(arrives).map(|row| now - at.value(row)));
        }
    }
    if let Some((_, error, _)) = job.status().error {
        return Err(error.into());
    }
    job.abort();
    writer.abort();
    // The first second warms up.
    let warm = latencies.len() / SECONDS as usize;
    Ok(latencies.split_off(warm))
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        println!("{:<44} {:>8} {:>8} {:>8} {:>8}", "query", "p50 ms", "p99 ms", "max ms", "rows");
        for sql in
            ["SELECT k, at FROM rows WHERE k % 2 = 0", "SELECT k, max(at) AS at FROM rows GROUP BY k EMIT CHANGES"]
        {
            let mut all = measure(sql).await?;
            all.sort_unstable();
            let at = |q: f64| all.get(((all.len() as f64 - 1.0) * q) as usize).map_or(f64::NAN, |us| *us as f64 / 1e3);
            println!("{sql:<44.44} {:>8.2} {:>8.2} {:>8.2} {:>8}", at(0.5), at(0.99), at(1.0), all.len());
        }
        Ok(())
    })
}
