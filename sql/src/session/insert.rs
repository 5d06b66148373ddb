//! Rows on their way into stored streams: INSERT, which is committed whole, and ingestion, which streams.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, concat_batches};
use arrow::datatypes::SchemaRef;
use datafusion::common::ParamValues;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement as DfStatement;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use millstream_engine::changes::Changes;
use millstream_engine::connector::ingest::IngestSource;
use millstream_engine::memory::MemoryAccount;
use millstream_engine::runtime::{JobHandle, JobPhase};

use super::execute::{snapshot, with_parameters};
use super::ingested::ingested;
use super::jobs::{failed, not_stored, public};
use super::left_out::LeftOutRows;
use super::outcome::{IngestMode, JobState, Outcome};
use super::tables::StreamDef;
use super::{Millstream, Session};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::{assign_columns, session_state, statement_plan};
use crate::statement::{Insert, quote_name};

impl Session {
    pub(super) async fn insert(&self, insert: &Insert, parameters: Option<ParamValues>) -> Result<Outcome> {
        self.insert_all(insert, [parameters]).await
    }

    /// All rows of parameters in one commit.
    pub(super) async fn insert_rows(
        &self,
        insert: &Insert,
        batch: &RecordBatch,
        row: impl Fn(usize) -> Result<ParamValues>,
    ) -> Result<Outcome> {
        let parameters = (0..batch.num_rows()).map(|i| row(i).map(Some)).collect::<Result<Vec<_>>>()?;
        self.insert_all(insert, parameters).await
    }

    /// Runs `insert` once for each of `parameters`. All rows are there before the first goes in, and they go
    /// in together.
    async fn insert_all(
        &self,
        insert: &Insert,
        parameters: impl IntoIterator<Item = Option<ParamValues>>,
    ) -> Result<Outcome> {
        let ms = &self.millstream;
        let def = ms.stream(public(&insert.target)?)?;
        self.touch(&def.name);
        let intake = ms.intake(&def)?;
        let held = ms.budget().account(format!("INSERT INTO {}", quote_name(&def.name)));
        let mut gathered = Gathered { def, batches: vec![], bytes: 0, held };
        let left_out = LeftOutRows::default();
        for parameters in parameters {
            let state = session_state();
            let statement = DfStatement::Statement(Box::new(insert.statement.clone()));
            let plan = statement_plan(&state, ms.batch_resolver(&left_out), statement)?;
            let LogicalPlan::Dml(dml) = with_parameters(plan, parameters)? else {
                return Err(Error::internal("an INSERT that is none"));
            };
            let input = assign_columns(dml.input.as_ref().clone(), &gathered.def.name)?;
            gathered.add(snapshot(&state, input, &left_out).await?).await?;
        }
        let rows = gathered.whole()?;
        let count = rows.num_rows() as u64;
        intake.push(rows).await?;
        intake.settle().await?;
        Ok(Outcome::rows("INSERT", count, &left_out))
    }
}

/// The rows of an INSERT.
struct Gathered {
    def: Arc<StreamDef>,
    batches: Vec<RecordBatch>,
    bytes: usize,
    held: MemoryAccount,
}

impl Gathered {
    async fn add(&mut self, rows: Outcome) -> Result<()> {
        let Outcome::Rows(mut rows) = rows else { return Err(Error::internal("a query without rows")) };
        while let Some(batch) = rows.rows.try_next().await? {
            let batch = fit(&batch, &self.def.schema, &self.def.name)?;
            self.bytes += Changes::insertions(batch.clone()).bytes();
            // Twice: as batches, and as a whole.
            self.held.resize(2 * self.bytes).map_err(|e| {
                Error::from(e).with_hint(
                    "An INSERT is committed whole: insert fewer rows at a time, or raise the budget with \
                     SET memory_limit = '8GB'. A query that goes on is CREATE STREAM … AS SELECT ….",
                )
            })?;
            self.batches.push(batch);
        }
        Ok(())
    }

    fn whole(&mut self) -> Result<RecordBatch> {
        Ok(concat_batches(&self.def.schema, &std::mem::take(&mut self.batches))?)
    }
}

/// The way into a stored stream for as long as its job runs. Rows and the question whether they are committed
/// go to the same run of the same job.
struct Intake {
    stream: String,
    ingest: Arc<IngestSource>,
    job: Arc<JobHandle>,
    run: u64,
}

impl Intake {
    /// Hands in rows.
    async fn push(&self, rows: RecordBatch) -> Result<()> {
        let pushed = tokio::select! {
            biased;
            pushed = self.ingest.push(self.run, rows) => pushed.is_ok(),
            _ = self.job.wait() => false,
        };
        match pushed {
            true => Ok(()),
            false => {
                self.job.failure().map_err(|e| self.about(e.into()))?;
                Err(paused(&self.stream))
            }
        }
    }

    /// Waits until what was handed in is committed.
    async fn settle(&self) -> Result<()> {
        self.job.settle().await.map_err(|e| self.about(e.into()))
    }

    fn about(&self, e: Error) -> Error {
        e.context(format!("stream \"{}\"", self.stream))
    }
}

fn paused(stream: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("stream \"{stream}\" is paused and takes no rows"))
        .with_hint(format!("RESUME STREAM {} first.", quote_name(stream)))
}

impl Millstream {
    /// The way into `def`, if its job runs.
    fn intake(&self, def: &StreamDef) -> Result<Intake> {
        let ingest = def.ingest.clone().ok_or_else(|| not_stored(def))?;
        // Before the job is looked up: a run that is not the job's refuses the rows.
        let run = ingest.run();
        let job = self.job(&def.name).ok_or_else(|| paused(&def.name))?;
        let info = job.info();
        if let (JobState::Failed, Some(why)) = (info.state, info.error) {
            return Err(failed(&def.name, &why));
        }
        match job.handle().filter(|j| j.status().phase == JobPhase::Running) {
            Some(job) => Ok(Intake { stream: def.name.clone(), ingest, job, run }),
            None => Err(paused(&def.name)),
        }
    }

    /// Appends rows to a stored stream and waits until they are durable. Columns match by name; missing
    /// ones become null. Gives the number of rows.
    ///
    /// Rows go in as they come; an error says how many before it were committed.
    pub async fn ingest(
        self: &Arc<Self>,
        stream: &str,
        mode: IngestMode,
        schema: SchemaRef,
        mut rows: BoxStream<'static, Result<RecordBatch>>,
    ) -> Result<u64> {
        let exists = self.objects.read().streams.contains_key(stream);
        match mode {
            IngestMode::Append => {}
            IngestMode::Create if exists => {
                return Err(Error::exists(format!("stream \"{stream}\" exists already"))
                    .with_hint("Ingest with mode append or replace."));
            }
            IngestMode::CreateAppend if exists => {}
            IngestMode::Create | IngestMode::CreateAppend | IngestMode::Replace => {
                self.create_for(stream, &schema, mode == IngestMode::Replace).await?;
            }
        }
        let def = self.stream(stream)?;
        let intake = self.intake(&def)?;
        let mut count = 0;
        let mut ended = Ok(());
        while let Some(batch) = rows.next().await {
            match batch.and_then(|b| ingested(&b, &def.schema, stream)) {
                Ok(batch) => {
                    let n = batch.num_rows() as u64;
                    ended = intake.push(batch).await;
                    count += if ended.is_ok() { n } else { 0 };
                }
                Err(e) => ended = Err(e),
            }
            if ended.is_err() {
                break;
            }
        }
        match (ended, intake.settle().await) {
            (Ok(()), Ok(())) => Ok(count),
            (Err(e), _) if count == 0 => Err(e),
            (Err(e), Ok(())) => Err(e.context(format!("after {count} rows, which are committed"))),
            (Err(e), Err(_)) | (Ok(()), Err(e)) => {
                Err(e.context(format!("after {count} rows, of which some may be committed")))
            }
        }
    }

    async fn create_for(self: &Arc<Self>, stream: &str, schema: &SchemaRef, replace: bool) -> Result<()> {
        let columns = schema
            .fields()
            .iter()
            .map(|f| Ok(format!("{} {}", quote_name(f.name()), super::show::sql_type(f.data_type())?)));
        let columns = columns.collect::<Result<Vec<_>>>()?.join(", ");
        let or_replace = if replace { "OR REPLACE " } else { "" };
        let sql = format!("CREATE {or_replace}STREAM {} ({columns})", quote_name(stream));
        self.session().execute_sql(&sql).await.map(|_| ())
    }
}

/// Rows as stream `name` with `schema` takes them: columns by name, missing ones null, each value cast or
/// refused.
fn fit(rows: &RecordBatch, schema: &SchemaRef, name: &str) -> Result<RecordBatch> {
    let given = rows.schema();
    for f in given.fields() {
        if schema.index_of(f.name()).is_err() {
            return Err(Error::invalid(format!("stream \"{name}\" has no column \"{}\"", f.name())));
        }
    }
    let strict = CastOptions { safe: false, ..Default::default() };
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for f in schema.fields() {
        let column = match rows.column_by_name(f.name()) {
            None => new_null_array(f.data_type(), rows.num_rows()),
            Some(c) if c.data_type() == f.data_type() => c.clone(),
            Some(c) => cast_with_options(c, f.data_type(), &strict)
                .map_err(|e| Error::invalid(format!("column \"{}\" of stream \"{name}\": {e}", f.name())))?,
        };
        if !f.is_nullable() && column.null_count() > 0 {
            return Err(Error::invalid(format!("column \"{}\" of stream \"{name}\" must not be null", f.name())));
        }
        columns.push(column);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}
