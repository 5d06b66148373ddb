//! The sink of `SELECT … EMIT CHANGES`: hands whole epochs to whoever follows the query.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{Commit, Sink, SinkWriter, Staged};
use crate::changelog::{Outgoing, op_schema, with_ops};
use crate::changes::{Changes, row_bytes};
use crate::epoch::EpochMark;
use crate::error::{Error, ErrorKind, Result};
use crate::time::EventTime;

/// Epochs that may wait for the follower.
const WAITING: usize = 8;

/// The changes of one epoch.
#[derive(Clone, Debug)]
pub struct FeedEpoch {
    /// The epoch.
    pub epoch: u64,
    /// The watermark at its end.
    pub watermark: EventTime,
    /// The rows; with `_op` where rows can be taken back.
    pub batches: Vec<RecordBatch>,
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
    sender: Mutex<Option<mpsc::Sender<FeedEpoch>>>,
}

impl FeedSink {
    /// A sink for rows of `schema`, and the end to follow it by.
    pub fn new(schema: SchemaRef, updating: bool, key: Option<Vec<usize>>) -> (Arc<Self>, mpsc::Receiver<FeedEpoch>) {
        let (tx, rx) = mpsc::channel(WAITING);
        (Arc::new(FeedSink { schema, updating, key, sender: Mutex::new(Some(tx)) }), rx)
    }

    /// The schema of the batches.
    pub fn batch_schema(&self) -> SchemaRef {
        if self.updating { op_schema(&self.schema) } else { self.schema.clone() }
    }
}

#[async_trait]
impl Sink for FeedSink {
    async fn start(&self, _committed: &[Staged], _generation: u64) -> Result<()> {
        Ok(())
    }

    fn open(&self, _task: usize) -> Result<Box<dyn SinkWriter>> {
        let sender = self.sender.lock().take().ok_or_else(|| Error::internal("a feed has one task"))?;
        let outgoing = Outgoing::new(self.schema.clone(), self.updating, self.key.clone());
        Ok(Box::new(Writer {
            outgoing,
            sender,
            batches: vec![],
            bytes: 0,
            waiting: Arc::default(),
            last: EventTime::MIN,
        }))
    }

    async fn commit(&self, _commit: &Commit<'_>) -> Result<()> {
        Ok(())
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
    sender: mpsc::Sender<FeedEpoch>,
    /// The rows of the present epoch, where they only grow.
    batches: Vec<RecordBatch>,
    /// Their bytes.
    bytes: usize,
    /// Those of the epochs that wait.
    waiting: Arc<AtomicUsize>,
    last: EventTime,
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, changes: Changes) -> Result<()> {
        if let Some(rows) = self.outgoing.write(changes)? {
            self.bytes += row_bytes(&rows);
            self.batches.push(rows);
        }
        Ok(())
    }

    async fn epoch(&mut self, mark: &EpochMark) -> Result<()> {
        let mut batches = std::mem::take(&mut self.batches);
        self.bytes = 0;
        if let Some((changes, ops)) = self.outgoing.end()? {
            batches.push(with_ops(changes.rows(), &ops)?);
        }
        if batches.is_empty() && mark.watermark == self.last {
            return Ok(());
        }
        self.last = mark.watermark;
        let _waiting = Waiting::of(&batches, &self.waiting);
        let epoch = FeedEpoch { epoch: mark.epoch, watermark: mark.watermark, batches, _waiting };
        self.sender.send(epoch).await.map_err(|_| Error::new(ErrorKind::Cancelled, "nobody follows the query"))
    }

    async fn stage(&mut self, _checkpoint: u64) -> Result<Vec<Staged>> {
        Ok(vec![])
    }

    fn bytes(&self) -> usize {
        self.outgoing.bytes() + self.bytes + self.waiting.load(Ordering::Relaxed)
    }
}
