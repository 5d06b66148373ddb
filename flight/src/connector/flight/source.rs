//! Reading a stream of another server: its history, then what comes.
//!
//! A receiver follows the stream there and keeps each epoch until all of it is here, in memory or on the disk. So the job
//! never waits in the middle of one, and what was received and not committed when the process dies is asked for again: the
//! epochs of the other side are the positions. While it does not answer, it is asked again and again. Event time and its
//! watermark are those of the other side, and its changelogs are changelogs here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use millstream_engine::changelog::{OP, weights};
use millstream_engine::changes::Changes;
use millstream_engine::connector::arrivals::{Arrival, Arrivals, Room};
use millstream_engine::connector::lag::Lag;
use millstream_engine::connector::registry::SourceRequest;
use millstream_engine::connector::spool::{Spooled, sweep};
use millstream_engine::connector::{Figure, Intake, Offsets, Opening, Read, Readers, Source, Split, Unit, UnitReader};
use millstream_engine::error::Result;
use millstream_engine::time::EventTime;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::hearing::Hearing;
use super::options::{Asked, Remote, take_asked, take_buffer};
use super::receiver::{Epoch, Receiver, SPLIT, Shared};
use super::shape::{known, taken};

/// Epochs that may wait to be read: each holds a few MiB in memory, or a file.
const EPOCHS: usize = 32;

/// The source that `request` describes.
pub(super) fn open(request: SourceRequest) -> Result<Arc<dyn Source>> {
    let SourceRequest { stream, schema, projection, mut options, .. } = request;
    let owner = options.owner().to_owned();
    let shape = known(&options)?;
    let (remote, asked) = (Remote::take(&mut options)?, take_asked(&mut options)?);
    let buffer = take_buffer(&mut options)?;
    options.finish()?;
    let schema = shape.read(&schema, &projection, &owner)?;
    Ok(Arc::new(FlightSource { stream, remote, asked, schema, changelog: shape.shape.changelog, buffer }))
}

/// See the module's text.
struct FlightSource {
    stream: String,
    remote: Remote,
    asked: Asked,
    /// The columns that are read.
    schema: SchemaRef,
    changelog: bool,
    /// Bytes that may wait to be read.
    buffer: usize,
}

/// What has been received.
struct Received {
    source: Arc<FlightSource>,
    shared: Arc<Shared>,
    /// It ends when this is dropped.
    _receiver: JoinSet<()>,
}

/// What a manifest keeps besides the last epoch.
#[derive(Serialize, Deserialize)]
struct Position {
    incarnation: Option<String>,
}

#[async_trait]
impl Source for FlightSource {
    fn describe(&self) -> String {
        let what = match &self.asked {
            Asked::Stream(name) => format!("stream \"{name}\""),
            Asked::Query(query) => query.clone(),
        };
        format!("{what} at {}", self.remote.url)
    }

    fn bounded(&self) -> bool {
        false
    }

    fn in_groups(&self) -> bool {
        true
    }

    /// What has been received waits here.
    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> {
        None
    }

    async fn open(self: Arc<Self>, opening: Opening) -> Result<Arc<dyn Intake>> {
        let Opening { budget, folder, consumed, state, .. } = opening;
        if let Some(folder) = &folder {
            sweep(folder.clone()).await?;
        }
        let known = state.map(Position::deserialize).transpose()?.and_then(|position| position.incarnation);
        let shared = Arc::new(Shared {
            arrivals: Arrivals::new(SPLIT, self.buffer, EPOCHS),
            incarnation: Mutex::new(known),
            hearing: Hearing::default(),
            breaks: AtomicU64::new(0),
        });
        shared.arrivals.start(consumed.prefix(SPLIT), || ());
        let receiver = Receiver {
            stream: self.stream.clone(),
            remote: self.remote.clone(),
            asked: self.asked.clone(),
            schema: self.schema.clone(),
            changelog: self.changelog,
            shared: shared.clone(),
            budget,
            // A query that is followed keeps nothing.
            folder: folder.unwrap_or_else(std::env::temp_dir),
            run: shared.arrivals.run(),
        };
        let mut receivers = JoinSet::new();
        receivers.spawn(receiver.run());
        Ok(Arc::new(Received { source: self, shared, _receiver: receivers }))
    }
}

#[async_trait]
impl Intake for Received {
    fn splits(&self) -> Vec<Split> {
        self.shared.arrivals.splits()
    }

    async fn next_unit(&self) -> Result<Option<Unit>> {
        self.shared.arrivals.next_unit().await
    }

    fn try_unit(&self) -> Option<Unit> {
        self.shared.arrivals.try_unit()
    }

    fn epoch_cut(&self) {
        self.shared.arrivals.epoch_cut();
    }

    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> {
        Some(self)
    }

    async fn state(&self) -> Result<serde_json::Value> {
        let incarnation = self.shared.incarnation.lock().clone();
        Ok(serde_json::to_value(Position { incarnation })?)
    }

    async fn committed(&self, offsets: &Offsets) -> Result<()> {
        self.shared.arrivals.commit(offsets.prefix(SPLIT));
        Ok(())
    }

    fn lag(&self) -> Option<Lag> {
        Some(self.shared.hearing.lag(self.shared.arrivals.lag()))
    }

    fn figures(&self) -> Vec<Figure> {
        vec![Figure::count("breaks", self.shared.breaks.load(Ordering::Relaxed))]
    }
}

#[async_trait]
impl Readers for Received {
    async fn read(&self, unit: &Unit) -> Result<Box<dyn UnitReader>> {
        let Arrival { start, end, content: Epoch { watermark, rows }, room: _room } =
            self.shared.arrivals.open(unit)?;
        let (schema, changelog) = (self.source.schema.clone(), self.source.changelog);
        Ok(Box::new(Reader { schema, changelog, start, end, watermark, rows: Some(rows), said: false, _room }))
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
    _room: Room,
}

impl Reader {
    /// Rows as the other side sent them, as changes to the columns that are read.
    fn changes(&self, batch: &RecordBatch) -> Result<Changes> {
        let rows = taken(batch, &self.schema)?;
        match batch.column_by_name(OP).filter(|_| self.changelog) {
            Some(ops) => Changes::weighted(rows, weights(ops)?),
            None => Ok(Changes::insertions(rows)),
        }
    }
}

#[async_trait]
impl UnitReader for Reader {
    async fn next(&mut self) -> Result<Option<Read>> {
        if let Some(rows) = self.rows.take()
            && let Some((batch, left)) = rows.next().await?
        {
            self.rows = Some(left);
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
