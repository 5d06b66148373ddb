//! Reading a stream of another server: its history, then what comes.
//!
//! A receiver follows the stream there and keeps each epoch until all of it is here, in memory or on the disk. So the job
//! never waits in the middle of one, and what was received and not committed when the process dies is asked for again: the
//! epochs of the other side are the positions. While it does not answer, it is asked again and again. Event time and its
//! watermark are those of the other side, and its changelogs are changelogs here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use futures::StreamExt;
use millstream_engine::changelog::{OP, weights};
use millstream_engine::changes::Changes;
use millstream_engine::connector::registry::SourceRequest;
use millstream_engine::connector::spool::{Spool, Spooled};
use millstream_engine::connector::{Figure, Offsets, Read, Source, Split, Unit, UnitReader};
use millstream_engine::error::{Error, Result};
use millstream_engine::format::sql_name;
use millstream_engine::format::stored::cast_rows;
use millstream_engine::memory::MemoryBudget;
use millstream_engine::time::EventTime;
use millstream_sql::session::{ChangeFeed, FeedEnd};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::options::{Asked, Remote, engine_error, take_asked};
use super::queue::{Arrived, Queue, SPLIT, next};
use super::shape::{feed_of, known, may_pass};
use crate::connector::backoff::Backoff;

/// Epochs that may wait to be read. What they hold beyond a few MiB each is on the disk.
const WAITING: usize = 16;

/// Opens the source that `request` describes; connects to nobody yet.
pub(super) fn open(request: SourceRequest) -> Result<Arc<dyn Source>> {
    let SourceRequest { stream, schema, projection, mut options, .. } = request;
    let owner = options.owner().to_owned();
    let shape = known(&options)?;
    let (remote, asked) = (Remote::take(&mut options)?, take_asked(&mut options)?);
    options.finish()?;
    for field in schema.fields() {
        let found = shape.columns.field_with_name(field.name()).map_err(|_| {
            Error::invalid(format!("{owner} has column \"{}\", which is not there on the other side", field.name()))
                .with_hint("Leave the columns out: they are those of the other side then.")
        })?;
        if found.data_type() != field.data_type() {
            let (there, here) = (sql_name(found.data_type()), sql_name(field.data_type()));
            return Err(Error::invalid(format!(
                "{owner} has column \"{}\" as {here}, and there it is {there}",
                field.name()
            ))
            .with_hint("Leave the columns out, and cast where they are read."));
        }
    }
    let schema = Arc::new(schema.project(&projection)?);
    let shared = Shared {
        queue: Mutex::default(),
        changed: Notify::new(),
        room: Arc::new(Semaphore::new(WAITING)),
        budget: Mutex::new(None),
        breaks: AtomicU64::new(0),
    };
    let changelog = shape.shape.changelog;
    Ok(Arc::new(FlightSource {
        stream,
        remote,
        asked,
        schema,
        changelog,
        shared: Arc::new(shared),
        receiver: Mutex::default(),
    }))
}

/// See the module's text.
struct FlightSource {
    stream: String,
    remote: Remote,
    asked: Asked,
    /// The columns that are read.
    schema: SchemaRef,
    changelog: bool,
    shared: Arc<Shared>,
    receiver: Mutex<JoinSet<()>>,
}

/// What the receiver and the tasks share.
struct Shared {
    queue: Mutex<Queue>,
    changed: Notify,
    room: Arc<Semaphore>,
    budget: Mutex<Option<Arc<MemoryBudget>>>,
    /// How often the other side went away.
    breaks: AtomicU64,
}

/// What a manifest keeps besides the last epoch.
#[derive(Serialize, Deserialize)]
struct Position {
    incarnation: Option<String>,
}

#[async_trait]
impl Source for FlightSource {
    async fn state(&self) -> Result<serde_json::Value> {
        let incarnation = self.shared.queue.lock().incarnation.clone();
        Ok(serde_json::to_value(Position { incarnation })?)
    }

    fn restore(&self, state: &serde_json::Value) -> Result<()> {
        if !state.is_null() {
            self.shared.queue.lock().incarnation = Position::deserialize(state)?.incarnation;
        }
        Ok(())
    }

    fn draw_on(&self, budget: &Arc<MemoryBudget>) {
        *self.shared.budget.lock() = Some(budget.clone());
    }

    async fn start(&self, consumed: &Offsets) -> Result<()> {
        {
            let mut queue = self.shared.queue.lock();
            let (last, incarnation) = (consumed.prefix(SPLIT), queue.incarnation.take());
            *queue = Queue::behind(last, incarnation.filter(|_| last > 0));
        }
        let budget = self.shared.budget.lock().clone();
        let budget = budget.ok_or_else(|| Error::internal("a link without a budget"))?;
        let receiver = Receiver {
            stream: self.stream.clone(),
            remote: self.remote.clone(),
            asked: self.asked.clone(),
            schema: self.schema.clone(),
            changelog: self.changelog,
            shared: self.shared.clone(),
            budget,
        };
        let mut receivers = JoinSet::new();
        receivers.spawn(receiver.run());
        // One of an earlier run ends with this.
        *self.receiver.lock() = receivers;
        Ok(())
    }

    fn splits(&self) -> Vec<Split> {
        let queue = self.shared.queue.lock();
        let end = matches!(queue.ended, Some(None)).then_some(queue.last);
        vec![Split { name: SPLIT.into(), end, min_time: None, holds: true }]
    }

    async fn next_unit(&self) -> Result<Option<Unit>> {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                // Nothing is awaited between taking a unit and giving it.
                let mut queue = self.shared.queue.lock();
                if let Some(unit) = queue.hand_out() {
                    return Ok(Some(unit));
                }
                if queue.is_empty()
                    && let Some(ended) = queue.ended.as_mut()
                {
                    return match ended.take() {
                        Some(why) => Err(why),
                        None => Ok(None),
                    };
                }
            }
            changed.await;
        }
    }

    async fn open(&self, unit: &Unit) -> Result<Box<dyn UnitReader>> {
        let arrived = self.shared.queue.lock().open(unit);
        let arrived = arrived.ok_or_else(|| Error::internal("an epoch of a link is read twice"))?;
        let Arrived { start, end, watermark, rows, _room } = arrived;
        let (schema, changelog) = (self.schema.clone(), self.changelog);
        Ok(Box::new(Reader { schema, changelog, start, end, watermark, rows: Some(rows), said: false, _room }))
    }

    fn in_groups(&self) -> bool {
        true
    }

    fn try_unit(&self) -> Option<Unit> {
        self.shared.queue.lock().rest()
    }

    fn epoch_cut(&self) {
        self.shared.queue.lock().cut();
        self.shared.changed.notify_waiters();
    }

    fn bounded(&self) -> bool {
        false
    }

    fn figures(&self) -> Vec<Figure> {
        let waiting = WAITING - self.shared.room.available_permits();
        vec![
            Figure::count("breaks", self.shared.breaks.load(Ordering::Relaxed)),
            Figure::level("epochs_waiting", waiting as u64),
        ]
    }

    fn describe(&self) -> String {
        let what = match &self.asked {
            Asked::Stream(name) => format!("stream \"{name}\""),
            Asked::Query(query) => query.clone(),
        };
        format!("{what} at {}", self.remote.url)
    }
}

/// Follows the other side.
struct Receiver {
    stream: String,
    remote: Remote,
    asked: Asked,
    schema: SchemaRef,
    changelog: bool,
    shared: Arc<Shared>,
    budget: Arc<MemoryBudget>,
}

impl Receiver {
    async fn run(self) {
        let mut backoff = Backoff::new(self.remote.longest);
        let mut told = false;
        let why = loop {
            let before = self.shared.queue.lock().last;
            let e = match self.follow().await {
                Ok(()) => break None,
                Err(e) if may_pass(&e) => e,
                Err(e) => break Some(e.context(format!("stream \"{}\"", self.stream))),
            };
            if self.shared.queue.lock().last > before {
                backoff.reset();
                told = false;
            }
            self.shared.breaks.fetch_add(1, Ordering::Relaxed);
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(stream = %self.stream, error = %e, "the other side does not answer: it is asked again");
            }
            sleep(backoff.delay().unwrap_or(Duration::from_secs(1))).await;
        };
        self.shared.queue.lock().ended = Some(why);
        self.shared.changed.notify_waiters();
    }

    /// Follows until the stream there has ended.
    async fn follow(&self) -> Result<()> {
        let client = self.remote.connect().await?;
        let (last, incarnation) = {
            let queue = self.shared.queue.lock();
            (queue.last, queue.incarnation.clone())
        };
        let since = incarnation.as_deref().map(|of| (of, last));
        let columns: Vec<&str> = self.schema.fields().iter().map(|f| f.name().as_str()).collect();
        let outcome = client.execute(&self.asked.followed(Some(&columns), since)).await;
        let mut feed = feed_of(outcome.map_err(engine_error)?)?;
        if feed.updating && !self.changelog {
            return Err(Error::data("the other side takes rows back now, which it did not when the stream was made")
                .with_hint("Make the stream anew, with CREATE OR REPLACE STREAM."));
        }
        self.shared.queue.lock().incarnation.clone_from(&feed.incarnation);
        let mut end = EventTime::MIN;
        while let Some((spooled, epoch, watermark)) = self.whole(&mut feed).await? {
            end = watermark;
            let room = self.shared.room.clone().acquire_owned().await;
            let _room = room.map_err(|_| Error::internal("a link's room is closed"))?;
            {
                let mut queue = self.shared.queue.lock();
                let start = queue.last;
                queue.push(Arrived { start, end: epoch.max(start), watermark, rows: spooled, _room });
            }
            self.shared.changed.notify_waiters();
        }
        match end {
            EventTime::MAX => Ok(()),
            _ => Err(Error::unavailable("the other side ended the stream")),
        }
    }

    /// The rows of the next epoch, once all have come, with its number and the watermark at its end.
    async fn whole(&self, feed: &mut ChangeFeed) -> Result<Option<(Spooled, u64, EventTime)>> {
        let held = self.budget.account(format!("what has come for stream \"{}\"", self.stream));
        let mut spool = Spool::new(std::env::temp_dir(), feed.schema.clone(), held);
        while let Some(part) = feed.epochs.next().await.transpose().map_err(engine_error)? {
            for batch in part.batches {
                spool = spool.add(batch).await?;
            }
            match part.end {
                None => {}
                Some(FeedEnd::Epoch { epoch: Some(epoch), watermark }) => {
                    return Ok(Some((spool.finish().await?, epoch, watermark)));
                }
                Some(_) => {
                    return Err(Error::unsupported(
                        "the other side's epochs have no numbers: it was written by an older build",
                    )
                    .with_hint("Make the stream there anew."));
                }
            }
        }
        Ok(None)
    }
}

/// Reads an epoch.
struct Reader {
    schema: SchemaRef,
    changelog: bool,
    start: u64,
    end: u64,
    watermark: EventTime,
    rows: Option<Spooled>,
    /// It has been said that all is read.
    said: bool,
    _room: OwnedSemaphorePermit,
}

impl Reader {
    /// Rows as the other side sent them, as changes to the columns that are read.
    fn changes(&self, batch: &RecordBatch) -> Result<Changes> {
        let column = |name: &str| {
            batch.column_by_name(name).cloned().ok_or_else(|| {
                Error::data(format!("the other side sends no column \"{name}\" any more"))
                    .with_hint("Make the stream anew, with CREATE OR REPLACE STREAM.")
            })
        };
        let fields = self.schema.fields().iter();
        let columns = fields.clone().map(|f| column(f.name())).collect::<Result<Vec<_>>>()?;
        let sent = fields.zip(&columns).map(|(f, c)| Field::new(f.name(), c.data_type().clone(), true));
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let sent = Arc::new(Schema::new(sent.collect::<Vec<_>>()));
        let rows = cast_rows(&RecordBatch::try_new_with_options(sent, columns, &options)?, &self.schema)?;
        match batch.column_by_name(OP).filter(|_| self.changelog) {
            Some(ops) => Changes::weighted(rows, weights(ops)?),
            None => Ok(Changes::insertions(rows)),
        }
    }
}

#[async_trait]
impl UnitReader for Reader {
    async fn next(&mut self) -> Result<Option<Read>> {
        if let Some(batch) = next(&mut self.rows).await? {
            // Only at its end the epoch is read.
            return Ok(Some(Read::rows(self.changes(&batch)?, self.start)));
        }
        if std::mem::replace(&mut self.said, true) {
            return Ok(None);
        }
        let watermark = Some(self.watermark).filter(|w| *w > EventTime::MIN);
        Ok(Some(Read { watermark, ..Read::rows(Changes::empty(self.schema.clone()), self.end) }))
    }
}
