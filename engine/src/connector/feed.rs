//! The sink of `SELECT … EMIT CHANGES`: hands epochs to whoever follows the query.
//!
//! Where rows only grow, an epoch with many comes in parts as it is read, so that none has to fit into memory. The last
//! part says that the epoch is whole, and, where the query reads a log, behind which epoch of that it stands now.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::position::Standing;
use super::{Commit, Sink, SinkWriter, Staged, Start};
use crate::changelog::{Outgoing, op_schema, with_ops};
use crate::changes::{Changes, row_bytes};
use crate::epoch::EpochMark;
use crate::error::{Error, ErrorKind, Result};
use crate::time::EventTime;

/// Parts that may wait for the follower.
const WAITING: usize = 8;
/// An epoch with more bytes than this comes in parts.
const PART_BYTES: usize = 4 << 20;

/// The end of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedEnd {
    /// The epoch: that of the log behind which the query stands, if it is known, or the query's own where it reads no log.
    pub epoch: Option<u64>,
    /// The watermark there.
    pub watermark: EventTime,
    /// How many rows the log has behind it, where the query reads one.
    pub ahead: u64,
}

/// The changes of one epoch, or a part of them.
#[derive(Clone, Debug)]
pub struct FeedPart {
    /// The rows; with `_op` where rows can be taken back.
    pub batches: Vec<RecordBatch>,
    /// The end of the epoch, if this is its last part.
    pub end: Option<FeedEnd>,
    /// What they take while they wait.
    _waiting: Arc<Waiting>,
}

/// Bytes that wait for the follower; they are among those of the writer until this is dropped.
#[derive(Debug)]
struct Waiting {
    all: Arc<AtomicUsize>,
    bytes: usize,
}

impl Waiting {
    fn of(batches: &[RecordBatch], all: &Arc<AtomicUsize>) -> Arc<Self> {
        let bytes = batches.iter().map(row_bytes).sum();
        all.fetch_add(bytes, Ordering::Relaxed);
        Arc::new(Waiting { all: all.clone(), bytes })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// See the module's text. It has one task.
pub struct FeedSink {
    schema: SchemaRef,
    updating: bool,
    key: Option<Vec<usize>>,
    /// The log's reader, where epochs are those of the log.
    positions: Option<Arc<dyn Standing>>,
    sender: Mutex<Option<mpsc::Sender<FeedPart>>>,
}

impl FeedSink {
    /// A sink for rows of `schema`, and the end to follow it by.
    pub fn new(schema: SchemaRef, updating: bool, key: Option<Vec<usize>>) -> (Arc<Self>, mpsc::Receiver<FeedPart>) {
        FeedSink::with_positions(schema, updating, key, None)
    }

    /// The same for a query over a log, whose epochs are told in place of the query's own, as `positions` say.
    pub fn with_positions(
        schema: SchemaRef,
        updating: bool,
        key: Option<Vec<usize>>,
        positions: Option<Arc<dyn Standing>>,
    ) -> (Arc<Self>, mpsc::Receiver<FeedPart>) {
        let (tx, rx) = mpsc::channel(WAITING);
        (Arc::new(FeedSink { schema, updating, key, positions, sender: Mutex::new(Some(tx)) }), rx)
    }

    /// The schema of the batches.
    pub fn batch_schema(&self) -> SchemaRef {
        if self.updating { op_schema(&self.schema) } else { self.schema.clone() }
    }
}

#[async_trait]
impl Sink for FeedSink {
    async fn start(&self, _start: Start<'_>) -> Result<()> {
        Ok(())
    }

    fn open(&self, _task: usize) -> Result<Box<dyn SinkWriter>> {
        let sender = self.sender.lock().take().ok_or_else(|| Error::internal("a feed has one task"))?;
        let outgoing = Outgoing::new(self.schema.clone(), self.updating, self.key.clone());
        Ok(Box::new(Writer {
            outgoing,
            positions: self.positions.clone(),
            sender,
            batches: vec![],
            bytes: 0,
            waiting: Arc::default(),
            last: (None, EventTime::MIN),
            parted: false,
        }))
    }

    async fn commit(&self, _commit: &Commit<'_>) -> Result<()> {
        Ok(())
    }

    fn is_awaited(&self) -> bool {
        true
    }

    fn takes_retractions(&self) -> bool {
        self.updating
    }

    fn describe(&self) -> String {
        "to the session".to_owned()
    }
}

struct Writer {
    outgoing: Outgoing,
    positions: Option<Arc<dyn Standing>>,
    sender: mpsc::Sender<FeedPart>,
    /// The rows of the present epoch, where they only grow.
    batches: Vec<RecordBatch>,
    /// Their bytes.
    bytes: usize,
    /// Those of the epochs that wait.
    waiting: Arc<AtomicUsize>,
    /// The position and the watermark that were told last.
    last: (Option<u64>, EventTime),
    /// A part of the present epoch has been sent.
    parted: bool,
}

impl Writer {
    async fn send(&mut self, batches: Vec<RecordBatch>, end: Option<FeedEnd>) -> Result<()> {
        let _waiting = Waiting::of(&batches, &self.waiting);
        self.parted = end.is_none();
        let sent = self.sender.send(FeedPart { batches, end, _waiting }).await;
        sent.map_err(|_| Error::new(ErrorKind::Cancelled, "nobody follows the query"))
    }
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, changes: Changes) -> Result<()> {
        if let Some(rows) = self.outgoing.write(changes)? {
            self.bytes += row_bytes(&rows);
            self.batches.push(rows);
        }
        if self.bytes <= PART_BYTES {
            return Ok(());
        }
        self.bytes = 0;
        let batches = std::mem::take(&mut self.batches);
        self.send(batches, None).await
    }

    async fn epoch(&mut self, mark: &EpochMark) -> Result<()> {
        let mut batches = std::mem::take(&mut self.batches);
        self.bytes = 0;
        if let Some((changes, ops)) = self.outgoing.end()? {
            batches.push(with_ops(changes.rows(), &ops)?);
        }
        let positions = self.positions.as_ref();
        let position = positions.and_then(|standing| standing.stands_behind());
        let last = (position, mark.watermark);
        if batches.is_empty() && !self.parted && last == self.last {
            return Ok(());
        }
        self.last = last;
        let epoch = if positions.is_some() { position } else { Some(mark.epoch) };
        let ahead = positions.map_or(0, |standing| standing.ahead());
        self.send(batches, Some(FeedEnd { epoch, watermark: mark.watermark, ahead })).await
    }

    async fn stage(&mut self, _checkpoint: u64) -> Result<Vec<Staged>> {
        Ok(vec![])
    }

    fn bytes(&self) -> usize {
        self.outgoing.bytes() + self.bytes + self.waiting.load(Ordering::Relaxed)
    }
}
