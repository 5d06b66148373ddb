//! The door to Millstream: an opened store with its running jobs, and sessions that execute SQL on it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::stream::BoxStream;
use millstream_engine::time::EventTime;

use crate::error::Result;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder of the store; made when it does not exist.
    pub store: String,
    /// Tasks per operator; the number of cores by default.
    pub parallelism: usize,
    /// Bytes that state and queues of all jobs may take.
    pub memory_limit: usize,
    /// How often running jobs commit.
    pub checkpoint_interval: Duration,
    /// Whether jobs of the catalog start when the store is opened.
    pub start_jobs: bool,
}

/// An opened store with its running jobs. One process at a time may have a store open.
pub struct Millstream {}

/// One user's view: settings of its own over the shared catalog.
pub struct Session {}

/// What a statement gave.
pub enum Outcome {
    /// It was done: a command tag such as `CREATE STREAM`, and the number of rows it touched.
    Done(Done),
    /// Rows that end: a snapshot, a listing, a plan.
    Rows(RowStream),
    /// Changes until cancelled (dropping the feed cancels the query) or until bounded input has ended.
    Changes(ChangeFeed),
}

/// The outcome of a statement without rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// As PostgreSQL's command tags: `CREATE STREAM`, `INSERT`, `COPY`, `SET`, ….
    pub tag: String,
    /// Rows inserted or copied.
    pub rows: Option<u64>,
    /// A further word for the user, such as that the stream existed already.
    pub notice: Option<String>,
}

/// Rows that end.
pub struct RowStream {
    /// The schema of the rows.
    pub schema: SchemaRef,
    /// The rows.
    pub rows: BoxStream<'static, Result<RecordBatch>>,
}

/// Changes as they come, an epoch at a time.
pub struct ChangeFeed {
    /// The schema of the batches: with a leading `_op` (`+I`, `-U`, `+U`, `-D`) where rows can be taken
    /// back, else exactly the query's columns.
    pub schema: SchemaRef,
    /// Whether the batches have `_op`.
    pub updating: bool,
    /// The columns (of the query, without `_op`) that identify a row, where known.
    pub key: Option<Vec<usize>>,
    /// The epochs.
    pub epochs: BoxStream<'static, Result<EpochChanges>>,
}

/// The changes of one epoch, published together.
#[derive(Clone, Debug)]
pub struct EpochChanges {
    /// The epoch.
    pub epoch: u64,
    /// The watermark at its end.
    pub watermark: EventTime,
    /// The rows.
    pub batches: Vec<RecordBatch>,
}

/// A statement that has been checked and typed but not run.
#[derive(Clone)]
pub struct Prepared {
    /// Its text.
    pub sql: String,
    /// The schema of its rows; empty for a statement without rows.
    pub schema: SchemaRef,
    /// The types of its parameters `$1`, `$2`, …, as fields named `$1`, ….
    pub parameters: SchemaRef,
    /// Whether it yields rows (a query) or does something.
    pub is_query: bool,
}

/// An object of the catalog.
#[derive(Clone, Debug)]
pub struct ObjectInfo {
    /// Its schema: `public` or `millstream`.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: ObjectKind,
    /// Its columns.
    pub schema: SchemaRef,
    /// The columns of its primary key, if it has one.
    pub primary_key: Vec<String>,
    /// The statement that makes it.
    pub sql: String,
}

/// The kinds of catalog objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// Read from a connector, not stored.
    External,
    /// Rows arrive by INSERT and ingest.
    Stored,
    /// The result of a continuous query, kept as Parquet.
    Derived,
    /// The result of a continuous query, written to a connector.
    Written,
    /// A name for a SELECT.
    View,
}

/// A job as `SHOW JOBS` shows it.
#[derive(Clone, Debug)]
pub struct JobInfo {
    /// The stream it feeds.
    pub stream: String,
    /// Its state.
    pub state: JobState,
    /// Rows read and rows written since it was started in this process.
    pub rows_in: u64,
    /// See `rows_in`.
    pub rows_out: u64,
    /// The last finished epoch.
    pub epoch: u64,
    /// Its watermark.
    pub watermark: EventTime,
    /// The share of bounded input that is done, 0 to 1, where known.
    pub progress: Option<f64>,
    /// Why it failed.
    pub error: Option<String>,
}

/// The state of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It runs.
    Running,
    /// `PAUSE STREAM` stopped it.
    Paused,
    /// Its bounded input has ended and all is committed.
    Finished,
    /// It stopped with an error; `RESUME STREAM` tries again.
    Failed,
}

/// How ingested rows meet what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IngestMode {
    /// The stream must exist.
    Append,
    /// The stream must not exist; it is made with the schema of the rows.
    Create,
    /// It is made when it does not exist.
    CreateAppend,
    /// It is dropped and made anew.
    Replace,
}

impl Millstream {
    /// Opens (or makes) the store and starts its jobs.
    pub async fn open(_config: Config) -> Result<Arc<Self>> {
        unimplemented!()
    }

    /// A session with default settings.
    pub fn session(self: &Arc<Self>) -> Session {
        unimplemented!()
    }

    /// The objects of the catalog, by name, with `millstream.dead_letters` among them.
    pub fn objects(&self) -> Vec<ObjectInfo> {
        unimplemented!()
    }

    /// The jobs, by stream name.
    pub fn jobs(&self) -> Vec<JobInfo> {
        unimplemented!()
    }

    /// Failures of jobs as they happen: (stream, reason).
    pub fn failures(&self) -> tokio::sync::broadcast::Receiver<(String, String)> {
        unimplemented!()
    }

    /// Appends rows to a stored stream and waits until they are durable. Columns match by name; missing
    /// ones become null. Gives the number of rows.
    pub async fn ingest(
        &self,
        _stream: &str,
        _mode: IngestMode,
        _schema: SchemaRef,
        _rows: BoxStream<'static, Result<RecordBatch>>,
    ) -> Result<u64> {
        unimplemented!()
    }

    /// Waits until every job over bounded input has finished and everything acknowledged before is in
    /// every derived stream. Errors when a job fails meanwhile.
    pub async fn flush(&self) -> Result<()> {
        unimplemented!()
    }

    /// Commits what the jobs have and stops them.
    pub async fn close(&self) -> Result<()> {
        unimplemented!()
    }
}

impl Session {
    /// The store this session works on.
    pub fn millstream(&self) -> &Arc<Millstream> {
        unimplemented!()
    }

    /// Executes one statement as [`crate::statement::parse`] gave it.
    pub async fn execute(&self, _statement: &crate::statement::Parsed) -> Result<Outcome> {
        unimplemented!()
    }

    /// Executes a text that holds exactly one statement.
    pub async fn execute_sql(&self, _sql: &str) -> Result<Outcome> {
        unimplemented!()
    }

    /// Checks and types a statement without running it.
    pub async fn prepare(&self, _sql: &str) -> Result<Prepared> {
        unimplemented!()
    }

    /// Runs a prepared statement with `parameters`, a batch with one column per parameter. A query takes
    /// one row; INSERT runs once for each row.
    pub async fn execute_prepared(&self, _prepared: &Prepared, _parameters: Option<RecordBatch>) -> Result<Outcome> {
        unimplemented!()
    }

    /// The settings with their values and a line on each.
    pub fn settings(&self) -> BTreeMap<String, (String, &'static str)> {
        unimplemented!()
    }
}
