//! Reading a stream of another server: its history, then what comes.
//!
//! A receiver follows the stream there and keeps each epoch until all of it is here, in memory or on the disk. So the job
//! never waits in the middle of one, and what was received and not committed when the process dies is asked for again: the
//! epochs of the other side are the positions. While it does not answer, it is asked again and again. Event time and its
//! watermark are those of the other side, and its changelogs are changelogs here.

use std::path::{Path, PathBuf};
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
use millstream_engine::connector::{Figure, Offsets, Read, Source, Split, Unit, UnitReader};
use millstream_engine::error::{Error, Result};
use millstream_engine::memory::MemoryBudget;
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

/// Opens the source that `request` describes; connects to nobody yet.
pub(super) fn open(request: SourceRequest) -> Result<Arc<dyn Source>> {
    let SourceRequest { stream, schema, projection, mut options, .. } = request;
    let owner = options.owner().to_owned();
    let shape = known(&options)?;
    let (remote, asked) = (Remote::take(&mut options)?, take_asked(&mut options)?);
    let buffer = take_buffer(&mut options)?;
    options.finish()?;
    let schema = shape.read(&schema, &projection, &owner)?;
    let shared = Shared {
        arrivals: Arrivals::new(SPLIT, buffer, EPOCHS),
        incarnation: Mutex::default(),
        hearing: Hearing::default(),
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
        budget: Mutex::default(),
        folder: Mutex::default(),
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
    budget: Mutex<Option<Arc<MemoryBudget>>>,
    /// The job's, for what does not fit into memory.
    folder: Mutex<Option<PathBuf>>,
    receiver: Mutex<JoinSet<()>>,
}

/// What a manifest keeps besides the last epoch.
#[derive(Serialize, Deserialize)]
struct Position {
    incarnation: Option<String>,
}

#[async_trait]
impl Source for FlightSource {
    async fn state(&self) -> Result<serde_json::Value> {
        let incarnation = self.shared.incarnation.lock().clone();
        Ok(serde_json::to_value(Position { incarnation })?)
    }

    fn restore(&self, state: &serde_json::Value) -> Result<()> {
        if !state.is_null() {
            *self.shared.incarnation.lock() = Position::deserialize(state)?.incarnation;
        }
        Ok(())
    }

    fn draw_on(&self, budget: &Arc<MemoryBudget>) {
        *self.budget.lock() = Some(budget.clone());
    }

    fn keep_in(&self, folder: &Path) {
        *self.folder.lock() = Some(folder.to_owned());
    }

    async fn start(&self, consumed: &Offsets) -> Result<()> {
        let (budget, folder) = (self.budget.lock().clone(), self.folder.lock().clone());
        let budget = budget.ok_or_else(|| Error::internal("a link without a budget"))?;
        if let Some(folder) = &folder {
            sweep(folder.clone()).await?;
        }
        let last = consumed.prefix(SPLIT);
        self.shared.arrivals.start(last, || ());
        let receiver = Receiver {
            stream: self.stream.clone(),
            remote: self.remote.clone(),
            asked: self.asked.clone(),
            schema: self.schema.clone(),
            changelog: self.changelog,
            shared: self.shared.clone(),
            budget,
            // A query that is followed keeps nothing.
            folder: folder.unwrap_or_else(std::env::temp_dir),
            run: self.shared.arrivals.run(),
        };
        let mut receivers = JoinSet::new();
        receivers.spawn(receiver.run());
        // One of an earlier run ends with this.
        *self.receiver.lock() = receivers;
        Ok(())
    }

    async fn committed(&self, offsets: &Offsets) -> Result<()> {
        self.shared.arrivals.commit(offsets.prefix(SPLIT));
        Ok(())
    }

    fn splits(&self) -> Vec<Split> {
        self.shared.arrivals.splits()
    }

    async fn next_unit(&self) -> Result<Option<Unit>> {
        self.shared.arrivals.next_unit().await
    }

    async fn open(&self, unit: &Unit) -> Result<Box<dyn UnitReader>> {
        let Arrival { start, end, content: Epoch { watermark, rows }, room: _room } =
            self.shared.arrivals.open(unit)?;
        let (schema, changelog) = (self.schema.clone(), self.changelog);
        Ok(Box::new(Reader { schema, changelog, start, end, watermark, rows: Some(rows), said: false, _room }))
    }

    fn in_groups(&self) -> bool {
        true
    }

    fn try_unit(&self) -> Option<Unit> {
        self.shared.arrivals.try_unit()
    }

    fn epoch_cut(&self) {
        self.shared.arrivals.epoch_cut();
    }

    fn bounded(&self) -> bool {
        false
    }

    fn lag(&self) -> Option<Lag> {
        Some(self.shared.hearing.lag(self.shared.arrivals.lag()))
    }

    fn figures(&self) -> Vec<Figure> {
        vec![Figure::count("breaks", self.shared.breaks.load(Ordering::Relaxed))]
    }

    fn describe(&self) -> String {
        let what = match &self.asked {
            Asked::Stream(name) => format!("stream \"{name}\""),
            Asked::Query(query) => query.clone(),
        };
        format!("{what} at {}", self.remote.url)
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
