//! What statements give, and what the catalog and the jobs look like from outside.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Float64Type, SchemaRef, UInt64Type};
use futures::stream::BoxStream;
use millstream_engine::connector::built_in;
use millstream_engine::connector::lag::Lag;
use millstream_engine::connector::registry::Connectors;
use millstream_engine::memory::{default_limit, human_bytes};
use millstream_engine::nodes::Nodes;
use millstream_engine::reach::Reach;
use millstream_engine::runtime::JobPhase;
use millstream_engine::time::EventTime;

use super::left_out::{LeftOut, LeftOutRows};
use crate::error::{Error, Result};
use crate::rights::Key;

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
    /// What streams may be read from and written to.
    pub connectors: Connectors,
    /// What statements from outside of the process may touch, and what they have made: nothing, where it is not said. A
    /// process that serves nobody opens what they have made for its owner.
    pub reach: Option<Arc<Reach>>,
    /// What secrets are kept under.
    pub key: Option<Key>,
    /// Whether passwords may be written into statements that are kept.
    pub insecure: bool,
    /// The nodes that this process leads, if it is one.
    pub nodes: Option<Arc<Nodes>>,
}

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
    /// Rows of the input that were left out because they could not be decoded.
    pub left_out: Option<LeftOut>,
}

/// Rows that end.
pub struct RowStream {
    /// The schema of the rows.
    pub schema: SchemaRef,
    /// The rows.
    pub rows: BoxStream<'static, Result<RecordBatch>>,
    /// What the rows are short of, because it could not be decoded or because a stream has failed: known when the rows
    /// have ended.
    pub left_out: LeftOutRows,
}

/// Changes as they come, an epoch after the other.
pub struct ChangeFeed {
    /// The schema of the batches: with a leading `_op` (`+I`, `-U`, `+U`, `-D`) where rows can be taken
    /// back, else exactly the query's columns.
    pub schema: SchemaRef,
    /// Whether the batches have `_op`.
    pub updating: bool,
    /// The columns (of the query, without `_op`) that identify a row, where known.
    pub key: Option<Vec<usize>>,
    /// The column with the event time (of the query, without `_op`), where there is one.
    pub event_time: Option<usize>,
    /// Which making of its stream the epochs are of, for a query that can be gone on with by `SINCE EPOCH`. Without it they
    /// are the query's own.
    pub incarnation: Option<String>,
    /// How often a part comes at least, if need be without anything new; where that is promised.
    pub alive: Option<Duration>,
    /// The epochs.
    pub epochs: BoxStream<'static, Result<EpochChanges>>,
}

/// The changes of one epoch, or a part of them: what only grows is not held until all of an epoch is there.
#[derive(Clone, Debug)]
pub struct EpochChanges {
    /// The rows.
    pub batches: Vec<RecordBatch>,
    /// What ends with this part.
    pub end: Option<FeedEnd>,
}

/// The end of a part of a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedEnd {
    /// That of an epoch.
    Epoch {
        /// Its number, if it is known: see [`ChangeFeed::incarnation`].
        epoch: Option<u64>,
        /// The watermark there.
        watermark: EventTime,
        /// How many rows its stream has behind it, where it has a number.
        ahead: u64,
    },
    /// `LIMIT` was reached within an epoch, and nothing more comes.
    Limit,
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
    /// Which of them have no type, so that a value brings its own. They are TEXT in `parameters`.
    pub untyped: Vec<bool>,
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
    /// Rows read since the stream was created, where that is known.
    pub rows_in: Option<u64>,
    /// Rows written since the job was started in this process; unknown where it was not.
    pub rows_out: Option<u64>,
    /// The last finished epoch.
    pub epoch: u64,
    /// Its watermark.
    pub watermark: EventTime,
    /// The share of bounded input that is done, 0 to 1, where known.
    pub progress: Option<f64>,
    /// How far it is behind what there is to read and to send, where that is known.
    pub lag: Option<JobLag>,
    /// Why it failed.
    pub error: Option<String>,
}

/// How far a job is behind: see [`Lag`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobLag {
    /// Rows.
    pub rows: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
    /// For how long.
    pub seconds: f64,
    /// How the way to another side is: `connected`, or `cut for 12 s: …`.
    pub link: Option<String>,
}

impl JobLag {
    /// Whether another side is not there, where there is one.
    pub fn is_cut(&self) -> Option<bool> {
        self.link.as_ref().map(|link| link != "connected")
    }
}

impl From<Lag> for JobLag {
    fn from(lag: Lag) -> Self {
        let seconds = (lag.time.as_secs_f64() * 1e3).round() / 1e3;
        JobLag { rows: lag.rows, bytes: lag.bytes, seconds, link: lag.link.map(|link| link.to_string()) }
    }
}

/// `12 rows, 3.4 kB, 0.5 s, connected`, without what is not known.
impl fmt::Display for JobLag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(rows) = self.rows {
            write!(f, "{rows} rows, ")?;
        }
        if let Some(bytes) = self.bytes {
            write!(f, "{}, ", human_bytes(bytes as usize))?;
        }
        write!(f, "{:.1} s", self.seconds)?;
        self.link.iter().try_for_each(|link| write!(f, ", {link}"))
    }
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

impl Config {
    /// The defaults for the store in folder `store`: a task per core, half the machine's memory, a commit
    /// each second.
    pub fn new(store: impl Into<String>) -> Self {
        Config {
            store: store.into(),
            parallelism: std::thread::available_parallelism().map_or(1, usize::from),
            memory_limit: default_limit(),
            checkpoint_interval: Duration::from_secs(1),
            start_jobs: true,
            connectors: built_in(),
            reach: None,
            key: None,
            insecure: false,
            nodes: None,
        }
    }
}

impl Outcome {
    /// Done, with a tag.
    pub(crate) fn tag(tag: impl Into<String>) -> Self {
        Outcome::Done(Done { tag: tag.into(), rows: None, notice: None, left_out: None })
    }

    /// Done to so many rows, with what its input had besides.
    pub(crate) fn rows(tag: impl Into<String>, rows: u64, left_out: &LeftOutRows) -> Self {
        let failed: Vec<String> = left_out.failed().iter().map(ToString::to_string).collect();
        let notice = (!failed.is_empty()).then(|| failed.join("; "));
        Outcome::Done(Done { tag: tag.into(), rows: Some(rows), notice, left_out: left_out.get() })
    }

    /// Done, with a word for the user.
    pub(crate) fn notice(tag: impl Into<String>, notice: impl Into<String>) -> Self {
        Outcome::Done(Done { tag: tag.into(), rows: None, notice: Some(notice.into()), left_out: None })
    }

    /// The same, with another word for the user.
    pub(crate) fn and(mut self, word: Option<String>) -> Self {
        if let (Outcome::Done(done), Some(word)) = (&mut self, word) {
            done.notice = Some(done.notice.take().map_or(word.clone(), |notice| format!("{notice}; {word}")));
        }
        self
    }

    /// Rows that are all there.
    pub(crate) fn table(batch: RecordBatch) -> Self {
        use futures::StreamExt;
        let schema = batch.schema();
        let rows = futures::stream::iter([Ok(batch)]).boxed();
        Outcome::Rows(RowStream { schema, rows, left_out: LeftOutRows::default() })
    }
}

impl JobState {
    const ALL: [JobState; 4] = [JobState::Running, JobState::Paused, JobState::Finished, JobState::Failed];

    /// As `SHOW JOBS` writes it.
    pub fn name(self) -> &'static str {
        match self {
            JobState::Running => "running",
            JobState::Paused => "paused",
            JobState::Finished => "finished",
            JobState::Failed => "failed",
        }
    }
}

impl From<JobPhase> for JobState {
    fn from(phase: JobPhase) -> Self {
        match phase {
            JobPhase::Running => JobState::Running,
            JobPhase::Stopped => JobState::Paused,
            JobPhase::Finished => JobState::Finished,
            JobPhase::Failed => JobState::Failed,
        }
    }
}

impl JobInfo {
    /// Takes rows of `SHOW JOBS` back, as a server sent them.
    pub fn of_rows(rows: &RecordBatch) -> Result<Vec<JobInfo>> {
        let column = |name: &str, data_type: &DataType| {
            let found =
                rows.column_by_name(name).ok_or_else(|| Error::internal(format!("SHOW JOBS has no \"{name}\"")))?;
            Ok::<_, Error>(arrow::compute::cast(found, data_type)?)
        };
        let texts = |name| Ok::<_, Error>(column(name, &DataType::Utf8)?.as_string::<i32>().clone());
        let numbers = |name| Ok::<_, Error>(column(name, &DataType::UInt64)?.as_primitive::<UInt64Type>().clone());
        let (stream, state, watermark, error) =
            (texts("stream")?, texts("state")?, texts("watermark")?, texts("error")?);
        let (rows_in, rows_out, epoch) = (numbers("rows_in")?, numbers("rows_out")?, numbers("epoch")?);
        let lag = lags(rows)?;
        let percent = column("percent", &DataType::Float64)?.as_primitive::<Float64Type>().clone();
        let job = |i: usize| JobInfo {
            stream: stream.value(i).to_owned(),
            state: JobState::ALL.into_iter().find(|s| s.name() == state.value(i)).unwrap_or(JobState::Running),
            rows_in: rows_in.is_valid(i).then(|| rows_in.value(i)),
            rows_out: rows_out.is_valid(i).then(|| rows_out.value(i)),
            epoch: epoch.value(i),
            watermark: watermark.value(i).parse().unwrap_or(EventTime::MIN),
            progress: percent.is_valid(i).then(|| percent.value(i) / 100.0),
            lag: lag.get(i).cloned().flatten(),
            error: error.is_valid(i).then(|| error.value(i).to_owned()),
        };
        Ok((0..rows.num_rows()).map(job).collect())
    }
}

/// The lag in rows of `SHOW JOBS`, of which an older server tells none.
fn lags(rows: &RecordBatch) -> Result<Vec<Option<JobLag>>> {
    let column = |name: &str, data_type: &DataType| match rows.column_by_name(name) {
        Some(found) => Ok::<_, Error>(arrow::compute::cast(found, data_type)?),
        None => Ok(new_null_array(data_type, rows.num_rows())),
    };
    let numbers = |name: &str| Ok::<_, Error>(column(name, &DataType::UInt64)?.as_primitive::<UInt64Type>().clone());
    let (count, bytes) = (numbers("lag_rows")?, numbers("lag_bytes")?);
    let seconds = column("lag_seconds", &DataType::Float64)?.as_primitive::<Float64Type>().clone();
    let link = column("link", &DataType::Utf8)?.as_string::<i32>().clone();
    let lag = |i: usize| JobLag {
        rows: count.is_valid(i).then(|| count.value(i)),
        bytes: bytes.is_valid(i).then(|| bytes.value(i)),
        seconds: seconds.value(i),
        link: link.is_valid(i).then(|| link.value(i).to_owned()),
    };
    Ok((0..rows.num_rows()).map(|i| seconds.is_valid(i).then(|| lag(i))).collect())
}
