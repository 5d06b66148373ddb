//! Polling a query of any Flight SQL server. An answer is taken whole, and committed whole.
//!
//! With a cursor each row is read once, also across restarts ([`Cursor`]). With a key, rows are dropped whose key was seen. With neither
//! each answer is appended, as a sample of what was there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use futures::StreamExt;
use millstream_engine::changes::row_bytes;
use millstream_engine::connector::ingest::Parcel;
use millstream_engine::connector::lag::Lag;
use millstream_engine::connector::registry::SourceRequest;
use millstream_engine::connector::spool::{Spool, Spooled};
use millstream_engine::connector::{Figure, Source};
use millstream_engine::error::{Error, Result};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::cursor::Cursor;
use super::options::{Polls, Remote, engine_error, take_buffer, take_polls};
use super::shape::{known, taken};
use crate::client::FlightClient;
use crate::connector::backoff::Backoff;
use crate::connector::link::LinkState;
use crate::connector::polled::{Answer, Asker, Here, Mark, Offered, Polled, PolledSource, mark};

/// A query that is polled.
pub(super) struct Polling {
    pub(super) stream: String,
    pub(super) remote: Remote,
    pub(super) query: String,
    pub(super) interval: Duration,
    /// Where it begins, if it has a cursor.
    pub(super) first: Option<Cursor>,
    /// The columns of answers, as the server gives them.
    pub(super) offered: SchemaRef,
    /// The columns that tell rows apart.
    pub(super) key: Vec<String>,
    pub(super) key_memory: usize,
    /// What an answer may have.
    pub(super) most_bytes: usize,
    /// The columns that are read.
    pub(super) schema: SchemaRef,
    pub(super) state: State,
}

/// What has happened since the job started.
#[derive(Default)]
pub(super) struct State {
    link: LinkState,
    asked: AtomicU64,
    failed: AtomicU64,
}

/// The source that `request` describes, if it is polled.
pub(super) fn open(request: &mut SourceRequest) -> Result<Option<Arc<dyn Source>>> {
    let owner = request.options.owner().to_owned();
    let Some(polls) = take_polls(&mut request.options)? else { return Ok(None) };
    let known = known(&request.options)?;
    let (remote, most_bytes) = (Remote::take(&mut request.options)?, take_buffer(&mut request.options)?);
    request.options.clone().finish()?;
    let Polls { query, interval, cursor, key, key_memory } = polls;
    let schema = known.read(&request.schema, &request.projection, &owner)?;
    let first = cursor.map(|(column, first)| Cursor::at(&first, &column, &known.offered)).transpose();
    let first = first.map_err(|e| e.context(&owner))?;
    if let Some(missing) = key.iter().find(|name| known.offered.field_with_name(name).is_err()) {
        return Err(Error::invalid(format!("{owner} has key column \"{missing}\", which the query does not give"))
            .with_hint("Name columns that the query gives."));
    }
    let (stream, offered, state) = (request.stream.clone(), known.offered, State::default());
    let polling =
        Polling { stream, remote, query, interval, first, offered, key, key_memory, most_bytes, schema, state };
    Ok(Some(Arc::new(PolledSource(Arc::new(polling)))))
}

impl Polled for Polling {
    fn split(&self) -> String {
        self.remote.url.clone()
    }

    fn interval(&self) -> Duration {
        self.interval
    }

    fn key_memory(&self) -> usize {
        self.key_memory
    }

    fn asker(self: Arc<Self>, place: Option<Value>) -> Result<Box<dyn Asker>> {
        let cursor = match (&self.first, place.as_ref().and_then(|place| place["cursor"].as_str())) {
            (Some(first), Some(text)) => Some(first.moved_to(text, &self.offered)?),
            (first, _) => first.clone(),
        };
        Ok(Box::new(Questions { polling: self, client: None, cursor }))
    }

    fn link(&self) -> Lag {
        self.state.link.lag()
    }

    fn figures(&self) -> Vec<Figure> {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        vec![
            Figure::count("requests", read(&self.state.asked)),
            Figure::count("requests_failed", read(&self.state.failed)),
        ]
    }

    fn describe(&self) -> String {
        format!("{} at {} every {:?}", self.query, self.remote.url, self.interval)
    }
}

/// Asks the query.
struct Questions {
    polling: Arc<Polling>,
    client: Option<FlightClient>,
    cursor: Option<Cursor>,
}

/// Why there is no answer.
enum Failed {
    /// The server gives none, and may give one later.
    There(Error),
    /// It cannot be taken.
    Here(Error),
}

impl From<Error> for Failed {
    fn from(e: Error) -> Self {
        Failed::Here(e)
    }
}

fn there(e: millstream_sql::Error) -> Failed {
    Failed::There(engine_error(e))
}

/// What an answer comes to.
struct Taken {
    rows: Spooled,
    cursor: Option<Cursor>,
    marks: Vec<Mark>,
    dropped: u64,
}

#[async_trait]
impl Asker for Questions {
    async fn ask(&mut self, here: &Arc<Here>) -> Result<Answer> {
        let polling = self.polling.clone();
        let State { link, asked, failed } = &polling.state;
        let mut backoff = Backoff::new(polling.remote.longest);
        let taken = loop {
            asked.fetch_add(1, Ordering::Relaxed);
            let e = match self.answer(here).await {
                Ok(taken) => break taken,
                Err(Failed::Here(e)) => return Err(e.context(format!("stream \"{}\"", polling.stream))),
                Err(Failed::There(e)) => e,
            };
            failed.fetch_add(1, Ordering::Relaxed);
            link.lost(e.message());
            self.client = None;
            let wait = backoff.delay()?;
            let (stream, ms) = (&polling.stream, wait.as_millis());
            tracing::warn!(%stream, error = %e, "a poll failed and is tried again in {ms} ms");
            sleep(wait).await;
        };
        link.connected();
        let Taken { rows, cursor, marks, dropped } = taken;
        self.cursor = cursor;
        let place = match &self.cursor {
            Some(cursor) => json!({ "cursor": cursor.text()? }),
            None => Value::Null,
        };
        let more = self.cursor.is_some() && rows.rows() > 0;
        let parcel = (rows.rows() > 0).then(|| Parcel::from(rows));
        Ok(Answer { parcel, marks, dropped, place, more })
    }
}

impl Questions {
    /// Asks once.
    async fn answer(&mut self, here: &Arc<Here>) -> std::result::Result<Taken, Failed> {
        let Polling { stream, remote, query, schema, most_bytes, .. } = &*self.polling;
        let mut cursor = self.cursor.clone();
        let sql = match &cursor {
            Some(cursor) => cursor.put_into(query)?,
            None => query.clone(),
        };
        let client = match self.client.take() {
            Some(client) => client,
            None => remote.connect().await.map_err(Failed::There)?,
        };
        let (_, mut batches) = client.query(&sql).await.map_err(there)?;
        let held = here.budget.account(format!("an answer to stream \"{stream}\""));
        let mut spool = Spool::new(here.folder(), schema.clone(), held);
        let (mut bytes, mut dropped, mut offered) = (0, 0, Offered::default());
        while let Some(batch) = batches.next().await.transpose().map_err(there)? {
            bytes += row_bytes(&batch);
            if bytes > *most_bytes {
                return Err(Error::data(format!("the answer is longer than {most_bytes} bytes"))
                    .with_hint("Write LIMIT into the query, with a cursor, or raise buffer_bytes.")
                    .into());
            }
            if let Some(cursor) = &mut cursor {
                cursor.advance(&batch)?;
            }
            let fresh = fresh(&self.polling, &batch, &mut offered, here)?;
            dropped += (batch.num_rows() - fresh.num_rows()) as u64;
            spool = spool.add(taken(&fresh, schema)?).await?;
        }
        self.client = Some(client);
        Ok(Taken { rows: spool.finish().await?, cursor, marks: offered.marks, dropped })
    }
}

/// The rows of `batch` whose keys have not been seen.
fn fresh(polling: &Polling, batch: &RecordBatch, offered: &mut Offered, here: &Here) -> Result<RecordBatch> {
    let Polling { key, key_memory, .. } = polling;
    if key.is_empty() {
        return Ok(batch.clone());
    }
    let marks = marks(batch, key)?;
    let fresh: BooleanArray = {
        let seen = here.seen.lock();
        marks.into_iter().map(|mark| Some(offered.is_new(mark, &seen))).collect()
    };
    if offered.marks.len() > *key_memory {
        let message = format!("the answer has more than {key_memory} keys, of which not all can be remembered");
        return Err(Error::data(message).with_hint("Raise key_memory, or have the query give fewer rows."));
    }
    Ok(filter_record_batch(batch, &fresh)?)
}

/// What stands for the key of each row.
fn marks(batch: &RecordBatch, key: &[String]) -> Result<Vec<Mark>> {
    let column = |name: &String| {
        let column = batch.column_by_name(name);
        let column =
            column.ok_or_else(|| Error::data(format!("the answer has no column \"{name}\", which is of the key")))?;
        Ok(cast(column, &DataType::Utf8)?.as_string::<i32>().clone())
    };
    let columns = key.iter().map(column).collect::<Result<Vec<_>>>()?;
    let mut text = vec![];
    let of_row = |row: usize| {
        text.clear();
        for column in &columns {
            let value = column.is_valid(row).then(|| column.value(row));
            text.extend(value.map_or(u64::MAX, |value| value.len() as u64).to_le_bytes());
            text.extend(value.unwrap_or_default().bytes());
        }
        mark(&text)
    };
    Ok((0..batch.num_rows()).map(of_row).collect())
}
