//! The source of stored streams: rows that sessions hand in.
//!
//! The one split is `ingest`, its coordinate the number of rows handed in. What was handed in and not yet
//! committed when the process dies was never acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use tokio::sync::{Mutex, Semaphore, mpsc};

use super::{Offsets, Reach, Read, Source, Split, Unit, UnitReader};
use crate::changes::Changes;
use crate::error::{Error, ErrorKind, Result};

const SPLIT: &str = "ingest";
/// Rows handed in and not yet read, in bytes.
const WAITING_BYTES: usize = 16 << 20;

struct Message {
    rows: RecordBatch,
    _room: tokio::sync::OwnedSemaphorePermit,
}

/// See the module's text.
pub struct IngestSource {
    /// Made anew whenever the job starts.
    queue: Mutex<Option<mpsc::Receiver<Message>>>,
    sender: parking_lot::Mutex<mpsc::Sender<Message>>,
    room: Arc<Semaphore>,
    accepted: AtomicU64,
    started: AtomicU64,
}

impl IngestSource {
    /// An open source without rows.
    pub fn new() -> Arc<Self> {
        let (sender, queue) = mpsc::channel(64);
        Arc::new(IngestSource {
            queue: Mutex::new(Some(queue)),
            sender: parking_lot::Mutex::new(sender),
            room: Arc::new(Semaphore::new(WAITING_BYTES)),
            accepted: AtomicU64::new(0),
            started: AtomicU64::new(0),
        })
    }

    /// Hands in rows, waiting for room. They are durable when the job has flushed.
    pub async fn push(&self, rows: RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let stopped = || Error::new(ErrorKind::Unavailable, "the stream's job does not run");
        let bytes = Changes::insertions(rows.clone()).bytes().clamp(1, WAITING_BYTES) as u32;
        let room = self.room.clone().acquire_many_owned(bytes).await.map_err(|_| stopped())?;
        let n = rows.num_rows() as u64;
        let sender = self.sender.lock().clone();
        sender.send(Message { rows, _room: room }).await.map_err(|_| stopped())?;
        self.accepted.fetch_add(n, Ordering::AcqRel);
        Ok(())
    }
}

#[async_trait]
impl Source for IngestSource {
    async fn start(&self, consumed: &Offsets) -> Result<()> {
        let at = consumed.prefix(SPLIT);
        let (sender, queue) = mpsc::channel(64);
        *self.queue.lock().await = Some(queue);
        *self.sender.lock() = sender;
        self.started.store(at, Ordering::Release);
        self.accepted.store(at, Ordering::Release);
        Ok(())
    }

    fn splits(&self) -> Vec<Split> {
        vec![Split { name: SPLIT.into(), end: None, min_time: None, holds: true }]
    }

    async fn next_unit(&self) -> Result<Option<Unit>> {
        if self.queue.lock().await.is_some() {
            let start = self.started.load(Ordering::Acquire);
            return Ok(Some(Unit { split: SPLIT.into(), start, end: u64::MAX }));
        }
        std::future::pending().await
    }

    async fn open(&self, unit: &Unit) -> Result<Box<dyn UnitReader>> {
        let queue = self.queue.lock().await.take();
        let queue = queue.ok_or_else(|| Error::internal("a stored stream is read twice"))?;
        Ok(Box::new(Reader { queue, at: unit.start }))
    }

    fn bounded(&self) -> bool {
        false
    }

    fn acknowledged(&self) -> Vec<Reach> {
        vec![Reach { split: SPLIT.into(), end: self.accepted.load(Ordering::Acquire), watermark: None }]
    }

    fn describe(&self) -> String {
        "rows from INSERT and ingest".to_owned()
    }
}

struct Reader {
    queue: mpsc::Receiver<Message>,
    at: u64,
}

#[async_trait]
impl UnitReader for Reader {
    async fn next(&mut self) -> Result<Option<Read>> {
        let Some(message) = self.queue.recv().await else { return Ok(None) };
        self.at += message.rows.num_rows() as u64;
        Ok(Some(Read::rows(Changes::insertions(message.rows), self.at)))
    }
}
