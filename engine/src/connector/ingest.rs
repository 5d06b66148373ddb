//! The source of stored streams: rows that sessions hand in.
//!
//! The one split is `ingest`, its coordinate the number of rows handed in. What was handed in and not yet
//! committed when the process dies was never acknowledged.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use tokio::sync::{Mutex, Semaphore, mpsc};

use super::{Offsets, Reach, Read, Source, Split, Unit, UnitReader};
use crate::changes::Changes;
use crate::error::{Error, ErrorKind, Result};
use crate::hidden::without_hidden;

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
    state: parking_lot::Mutex<State>,
    room: Arc<Semaphore>,
}

/// What changes when the job starts, all at once.
#[derive(Default)]
struct State {
    run: u64,
    sender: Option<mpsc::Sender<Message>>,
    started: u64,
    accepted: u64,
}

impl IngestSource {
    /// A source that takes no rows until its job starts.
    pub fn new() -> Arc<Self> {
        Arc::new(IngestSource {
            queue: Mutex::new(None),
            state: parking_lot::Mutex::default(),
            room: Arc::new(Semaphore::new(WAITING_BYTES)),
        })
    }

    /// The number of the present run; each start of the job begins another.
    pub fn run(&self) -> u64 {
        self.state.lock().run
    }

    /// Hands in rows, waiting for room. They come into one epoch, and are durable when the job of `run` has
    /// flushed.
    ///
    /// Errors with `Unavailable` when that run is over; then none of the rows is there.
    pub async fn push(&self, run: u64, rows: RecordBatch) -> Result<()> {
        let stopped = || Error::new(ErrorKind::Unavailable, "the job does not run");
        let sender = {
            let state = self.state.lock();
            state.sender.clone().filter(|_| state.run == run).ok_or_else(stopped)?
        };
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let columns = rows.columns().iter().map(without_hidden).collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let rows = RecordBatch::try_new_with_options(rows.schema(), columns, &options)?;
        let bytes = Changes::insertions(rows.clone()).bytes().clamp(1, WAITING_BYTES) as u32;
        let room = self.room.clone().acquire_many_owned(bytes).await.map_err(|_| stopped())?;
        let place = sender.reserve_owned().await.map_err(|_| stopped())?;
        // Under the lock, so that what is accepted ends with these rows and not with others.
        let mut state = self.state.lock();
        if state.run != run {
            return Err(stopped());
        }
        state.accepted += rows.num_rows() as u64;
        place.send(Message { rows, _room: room });
        Ok(())
    }
}

#[async_trait]
impl Source for IngestSource {
    async fn start(&self, consumed: &Offsets) -> Result<()> {
        let at = consumed.prefix(SPLIT);
        let (sender, receiver) = mpsc::channel(64);
        let mut queue = self.queue.lock().await;
        let mut state = self.state.lock();
        *state = State { run: state.run + 1, sender: Some(sender), started: at, accepted: at };
        *queue = Some(receiver);
        Ok(())
    }

    fn splits(&self) -> Vec<Split> {
        vec![Split { name: SPLIT.into(), end: None, min_time: None, holds: true }]
    }

    async fn next_unit(&self) -> Result<Option<Unit>> {
        if self.queue.lock().await.is_some() {
            let start = self.state.lock().started;
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
        vec![Reach { split: SPLIT.into(), end: self.state.lock().accepted, watermark: None }]
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

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array};

    fn rows(n: i64) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n));
        RecordBatch::try_from_iter([("n", column)]).expect("one column")
    }

    async fn reader(source: &IngestSource) -> Box<dyn UnitReader> {
        let unit = source.next_unit().await.expect("a unit").expect("it never ends");
        source.open(&unit).await.expect("opened once")
    }

    #[tokio::test]
    async fn no_rows_before_the_job_starts() {
        let source = IngestSource::new();
        assert_eq!(source.push(source.run(), rows(1)).await.expect_err("closed").kind(), ErrorKind::Unavailable);
        source.start(&Offsets::default()).await.expect("started");
        source.push(source.run(), rows(1)).await.expect("open");
        assert_eq!(source.acknowledged()[0].end, 1);
    }

    #[tokio::test]
    async fn a_push_does_not_outlast_its_run() {
        let source = IngestSource::new();
        source.start(&Offsets::default()).await.expect("started");
        let run = source.run();
        for _ in 0..64 {
            source.push(run, rows(2)).await.expect("room");
        }
        // The queue is full: this one waits, and the run ends meanwhile.
        let late = source.push(run, rows(2));
        tokio::pin!(late);
        assert!(futures::poll!(&mut late).is_pending());
        let mut first = reader(&source).await;
        source.start(&Offsets::default()).await.expect("started again");
        first.next().await.expect("rows").expect("some");
        assert_eq!(late.await.expect_err("over").kind(), ErrorKind::Unavailable);
        assert_eq!(source.push(run, rows(2)).await.expect_err("over").kind(), ErrorKind::Unavailable);
        assert_eq!(source.acknowledged()[0].end, 0, "the new run has accepted nothing");
    }

    #[tokio::test]
    async fn what_is_accepted_is_in_the_order_of_the_queue() {
        let source = IngestSource::new();
        source.start(&Offsets::default()).await.expect("started");
        let mut reader = reader(&source).await;
        for n in 1..20 {
            source.push(source.run(), rows(n)).await.expect("room");
            let read = reader.next().await.expect("rows").expect("some");
            assert_eq!(source.acknowledged()[0].end, read.position);
        }
    }
}
