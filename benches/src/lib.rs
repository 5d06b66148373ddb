//! What the benchmarks share: rows in memory, and running a query over them continuously and in batch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::common::TableReference;
use datafusion::datasource::{MemTable, TableProvider, provider_as_source};
use datafusion::logical_expr::TableSource;
use datafusion::physical_expr::PhysicalExpr;
use millstream_engine::changes::Changes;
use millstream_engine::connector::built_in;
use millstream_engine::connector::generator::Numbered;
use millstream_engine::connector::registry::{SinkRequest, SourceRequest};
use millstream_engine::connector::{Intake, Opened, Opening, Read, Readers, Source, Unit, UnitReader};
use millstream_engine::graph::SinkNode;
use millstream_engine::memory::MemoryBudget;
use millstream_engine::options::Options;
use millstream_engine::runtime::{JobConfig, Runtime};
use millstream_sql::plan::lower::{SourceTable, StreamScan, finish, lower};
use millstream_sql::plan::{TableResolver, expression, query_plan, session_state, streaming_plan};
use millstream_sql::statement::{Statement, parse, parse_query};

/// That of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Any failure.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// The result of a step.
pub type Result<T> = std::result::Result<T, Error>;

/// How many batches a task takes at a time.
const UNIT: u64 = 32;

/// Rows in memory, handed out some batches at a time.
pub struct MemorySource {
    batches: Arc<Vec<RecordBatch>>,
    projection: Vec<usize>,
}

#[async_trait]
impl Source for MemorySource {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn bounded(&self) -> bool {
        true
    }

    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> {
        Some(self)
    }

    async fn open(self: Arc<Self>, opening: Opening) -> millstream_engine::Result<Arc<dyn Intake>> {
        Ok(Numbered::new("memory", Some(self.batches.len() as u64), UNIT).open(&opening.consumed))
    }
}

#[async_trait]
impl Readers for MemorySource {
    async fn read(&self, unit: &Unit) -> millstream_engine::Result<Box<dyn UnitReader>> {
        let (batches, projection) = (self.batches.clone(), self.projection.clone());
        Ok(Box::new(Reader { batches, projection, left: unit.start..unit.end }))
    }
}

struct Reader {
    batches: Arc<Vec<RecordBatch>>,
    projection: Vec<usize>,
    left: std::ops::Range<u64>,
}

#[async_trait]
impl UnitReader for Reader {
    async fn next(&mut self) -> millstream_engine::Result<Option<Read>> {
        let Some(at) = self.left.next() else { return Ok(None) };
        let rows = self.batches[at as usize].project(&self.projection)?;
        Ok(Some(Read::rows(Changes::insertions(rows), at + 1)))
    }
}

/// Rows in memory as a stream.
#[derive(Clone, Debug)]
pub struct Table {
    /// The stream's name.
    pub name: &'static str,
    /// Its columns.
    pub schema: SchemaRef,
    /// Its rows, in batches of up to 8192.
    pub batches: Arc<Vec<RecordBatch>>,
    /// The column of event time, and the bound that rows set.
    time: Option<(usize, Arc<dyn PhysicalExpr>)>,
}

impl Table {
    /// Rows that tell no time.
    ///
    /// Errors where there are none.
    pub fn of(name: &'static str, batches: Vec<RecordBatch>) -> Result<Self> {
        let schema = batches.first().ok_or("no rows")?.schema();
        Ok(Table { name, schema, batches: Arc::new(batches), time: None })
    }

    /// The bids among the first `events` Nexmark events, as the stream `bid`.
    pub async fn bids(events: u64) -> Result<Self> {
        let values = [("table", "bid".to_owned()), ("events", events.to_string())];
        let values = values.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        let options = Options::new("bid", values);
        let nexmark = built_in().to_read("nexmark")?;
        let schema = nexmark.own_columns(options.clone())?;
        let projection = (0..schema.fields().len()).collect();
        let request = SourceRequest {
            stream: "bid".to_owned(),
            schema: schema.clone(),
            projection,
            metadata: Default::default(),
            options,
            key: vec![],
            event_time: None,
            parallelism: 1,
        };
        let source = nexmark.readable()?.scan(request)?;
        let Opened { intake, readers } = Opened::of(&source, Opening::new(MemoryBudget::new(1 << 30))).await?;
        let mut batches = vec![];
        while let Some(unit) = intake.next_unit().await? {
            let mut reader = readers.read(&unit).await?;
            while let Some(read) = reader.next().await? {
                batches.push(read.rows.into_rows());
            }
        }
        let time = Some((schema.index_of("date_time")?, bound_of_bids(&schema)?));
        Ok(Table { name: "bid", schema, batches: Arc::new(batches), time })
    }

    /// The same rows `times` times over.
    pub fn repeated(&self, times: usize) -> Self {
        let batches = std::iter::repeat_n(&self.batches[..], times).flatten().cloned().collect();
        Table { batches: Arc::new(batches), ..self.clone() }
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// The same rows for DataFusion, in so many partitions.
    fn in_batch(&self, partitions: usize) -> Result<Arc<dyn TableProvider>> {
        let per_part = self.batches.len().div_ceil(partitions);
        let parts = self.batches.chunks(per_part).map(<[RecordBatch]>::to_vec).collect();
        Ok(Arc::new(MemTable::try_new(self.schema.clone(), parts)?))
    }
}

/// The bound that bids set: four seconds before their time.
fn bound_of_bids(schema: &SchemaRef) -> Result<Arc<dyn PhysicalExpr>> {
    let state = session_state();
    let df = datafusion::common::DFSchema::try_from_qualified_schema("bid", schema)?;
    let create = "CREATE STREAM s (date_time TIMESTAMP, WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds')";
    let Some(Statement::CreateStream(create)) = parse(create)?.pop().map(|p| p.statement) else {
        return Err("not a stream".into());
    };
    let watermark = create.watermark.ok_or("no watermark")?;
    let bound = expression(&state, Arc::new(Nothing), &watermark.expr, &df)?;
    Ok(state.create_physical_expr(bound, &df)?)
}

/// The tables that a query reads.
#[derive(Clone)]
pub struct Tables(pub Vec<Table>);

impl Tables {
    /// Runs `sql` continuously with so many tasks, to the end, into nothing. Gives the time it took.
    pub async fn run_continuously(&self, sql: &str, parallelism: usize) -> Result<Duration> {
        let state = session_state();
        let query = parse_query(sql)?;
        let streams = self.0.iter().map(|t| {
            let provider: Arc<dyn TableProvider> = Arc::new(SourceTable(Arc::new(t.clone())));
            (t.name, provider)
        });
        let plan = query_plan(&state, Arc::new(Named(streams.collect())), &query.query)?;
        let plan = streaming_plan(&state, plan)?;
        let mut lowered = lower(&state, &plan, query.emit, parallelism)?;
        let sink = built_in().to_write("blackhole")?.writable()?.open(SinkRequest {
            stream: "result".to_owned(),
            schema: lowered.graph.schema(lowered.output.node),
            key: None,
            retracts: !lowered.output.append_only,
            options: Options::default(),
            parallelism,
        })?;
        finish(&mut lowered, SinkNode { name: "result".to_owned(), sink }, false);
        let handle = tokio::runtime::Handle::current();
        let runtime = Runtime::new(handle.clone(), handle, MemoryBudget::new(16 << 30));
        let start = Instant::now();
        let job = runtime.start(lowered.graph, JobConfig::new("result"), None).await?;
        job.wait().await;
        job.failure()?;
        Ok(start.elapsed())
    }

    /// Runs `sql` once over all rows in DataFusion with so many partitions. Gives the time it took.
    pub async fn run_in_batch(&self, sql: &str, parallelism: usize) -> Result<Duration> {
        use futures::StreamExt;
        let tables = self.0.iter().map(|t| Ok((t.name, t.in_batch(parallelism)?))).collect::<Result<_>>()?;
        let mut state = session_state();
        state.config_mut().options_mut().execution.target_partitions = parallelism;
        let query = parse_query(sql)?;
        let start = Instant::now();
        let plan = query_plan(&state, Arc::new(Named(tables)), &query.query)?;
        let physical = state.create_physical_plan(&plan).await?;
        let mut running = tokio::task::JoinSet::new();
        for stream in datafusion::physical_plan::execute_stream_partitioned(physical, state.task_ctx())? {
            running.spawn(async move {
                let mut stream = stream;
                let mut rows = 0;
                while let Some(batch) = stream.next().await {
                    rows += batch.map_or(0, |b| b.num_rows());
                }
                rows
            });
        }
        while running.join_next().await.is_some() {}
        Ok(start.elapsed())
    }
}

impl StreamScan for Table {
    fn name(&self) -> &str {
        self.name
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn is_changelog(&self) -> bool {
        false
    }

    fn key(&self) -> Option<Vec<usize>> {
        None
    }

    fn event_time(&self) -> Option<(usize, Option<Arc<dyn PhysicalExpr>>)> {
        self.time.clone().map(|(column, bound)| (column, Some(bound)))
    }

    fn idle_timeout(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn source(&self, projection: Vec<usize>, _parallelism: usize) -> millstream_sql::Result<Arc<dyn Source>> {
        Ok(Arc::new(MemorySource { batches: self.batches.clone(), projection }))
    }
}

/// Tables by their names.
struct Named(Vec<(&'static str, Arc<dyn TableProvider>)>);

impl TableResolver for Named {
    fn table(&self, name: &TableReference) -> millstream_sql::Result<Option<Arc<dyn TableSource>>> {
        let found = self.0.iter().find(|(known, _)| *known == name.table());
        Ok(found.map(|(_, table)| provider_as_source(table.clone())))
    }
}

struct Nothing;

impl TableResolver for Nothing {
    fn table(&self, _name: &TableReference) -> millstream_sql::Result<Option<Arc<dyn TableSource>>> {
        Ok(None)
    }
}

/// The middle of several times.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
