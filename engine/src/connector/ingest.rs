//! The source of stored streams: rows that sessions hand in.
//!
//! The one split is `ingest`, its coordinate the number of rows handed in. What is handed in at once (a batch, or spooled
//! rows of any number) is one unit and comes into one epoch, so that it is committed whole or not at all. What was
//! handed in and not yet committed when the process dies was never acknowledged.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::spool::Spooled;
use super::{Offsets, Reach, Read, Source, Split, Unit, UnitReader};
use crate::changes::{Changes, row_bytes};
use crate::error::{Error, ErrorKind, Result};
use crate::hidden::without_hidden;
use crate::memory::{MemoryAccount, MemoryBudget};

const SPLIT: &str = "ingest";
/// Rows handed in and not yet read, in bytes.
const WAITING_BYTES: usize = 16 << 20;
/// How many units wait at most, and go into one epoch before it is cut.
const WAITING_UNITS: usize = 1024;

/// Rows that belong together.
enum Rows {
    Batch(RecordBatch),
    Spooled(Spooled),
}

struct Message {
    rows: Rows,
    start: u64,
    end: u64,
    room: Room,
}

/// What rows take until they have been read.
struct Room {
    _permit: OwnedSemaphorePermit,
    _held: MemoryAccount,
}

/// See the module's text.
pub struct IngestSource {
    state: Mutex<State>,
    changed: Notify,
    room: Arc<Semaphore>,
    budget: Arc<MemoryBudget>,
}

/// Made anew whenever the job starts.
#[derive(Default)]
struct State {
    run: u64,
    started: bool,
    accepted: u64,
    waiting: VecDeque<Message>,
    /// Handed out as a unit and not opened yet.
    opening: Option<Message>,
    /// How many of those that wait are of the present group.
    group: usize,
    /// How many have been handed out since the last epoch was cut.
    handed: usize,
    /// An epoch is being cut: no group opens.
    cutting: bool,
}

impl State {
    /// The next unit of the present group; opens another one where it may.
    fn hand_out(&mut self) -> Option<Unit> {
        if self.group == 0 && !self.cutting && self.handed < WAITING_UNITS {
            self.group = self.waiting.len();
        }
        self.group = self.group.checked_sub(1)?;
        let message = self.waiting.pop_front()?;
        self.handed += 1;
        let unit = Unit { split: SPLIT.into(), start: message.start, end: message.end };
        self.opening = Some(message);
        Some(unit)
    }
}

/// The error of rows that come when their run is over.
fn stopped() -> Error {
    Error::new(ErrorKind::Unavailable, "the job does not run")
}

impl IngestSource {
    /// A source that takes no rows until its job starts. What waits is a part of `budget`.
    pub fn new(budget: Arc<MemoryBudget>) -> Arc<Self> {
        let room = Arc::new(Semaphore::new(WAITING_BYTES));
        Arc::new(IngestSource { state: Mutex::default(), changed: Notify::new(), room, budget })
    }

    /// The number of the present run; each start of the job begins another.
    pub fn run(&self) -> u64 {
        self.state.lock().run
    }

    /// Hands in rows, waiting for room. They come into one epoch, and are durable when the job of `run` has
    /// flushed.
    ///
    /// Errors with `Unavailable` when that run is over, and with `Exhausted` when the budget has no room for them; then none
    /// of the rows is there.
    pub async fn push(&self, run: u64, rows: RecordBatch) -> Result<()> {
        let (count, bytes) = (rows.num_rows() as u64, row_bytes(&rows));
        let rows = plain(&rows)?;
        self.hand_in(run, Rows::Batch(rows), count, bytes).await
    }

    /// As [`IngestSource::push`], for rows of any number.
    pub async fn push_spooled(&self, run: u64, rows: Spooled) -> Result<()> {
        let count = rows.rows();
        self.hand_in(run, Rows::Spooled(rows), count, 0).await
    }

    async fn hand_in(&self, run: u64, rows: Rows, count: u64, bytes: usize) -> Result<()> {
        let takes = |state: &State| state.started && state.run == run;
        if !takes(&self.state.lock()) {
            return Err(stopped());
        }
        if count == 0 {
            return Ok(());
        }
        let mut held = self.budget.account("a batch of rows that is put into a stream");
        held.resize_large(bytes)
            .map_err(|e| e.with_hint("Raise it with SET memory_limit = '8GB', or send the rows in smaller batches."))?;
        let bytes = bytes.clamp(WAITING_BYTES / WAITING_UNITS, WAITING_BYTES) as u32;
        let permit = self.room.clone().acquire_many_owned(bytes).await.map_err(|_| stopped())?;
        let room = Room { _permit: permit, _held: held };
        {
            // Under one lock, so that what is accepted ends with these rows and not with others.
            let mut state = self.state.lock();
            if !takes(&state) {
                return Err(stopped());
            }
            let start = state.accepted;
            state.accepted += count;
            let end = state.accepted;
            state.waiting.push_back(Message { rows, start, end, room });
        }
        self.changed.notify_waiters();
        Ok(())
    }
}

/// `rows` without what nulls hide.
fn plain(rows: &RecordBatch) -> Result<RecordBatch> {
    let columns = rows.columns().iter().map(without_hidden).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(rows.schema(), columns, &options)?)
}

#[async_trait]
impl Source for IngestSource {
    async fn start(&self, consumed: &Offsets) -> Result<()> {
        let at = consumed.prefix(SPLIT);
        let mut state = self.state.lock();
        *state = State { run: state.run + 1, started: true, accepted: at, ..State::default() };
        Ok(())
    }

    fn splits(&self) -> Vec<Split> {
        vec![Split { name: SPLIT.into(), end: None, min_time: None, holds: true }]
    }

    async fn next_unit(&self) -> Result<Option<Unit>> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            // Nothing is awaited between taking a unit and giving it.
            if let Some(unit) = self.state.lock().hand_out() {
                return Ok(Some(unit));
            }
            changed.await;
        }
    }

    async fn open(&self, unit: &Unit) -> Result<Box<dyn UnitReader>> {
        let message = self.state.lock().opening.take().filter(|m| m.start == unit.start);
        let message = message.ok_or_else(|| Error::internal("a stored stream is read twice"))?;
        Ok(Box::new(Reader { at: message.start, rows: Some(message.rows), _room: message.room }))
    }

    fn in_groups(&self) -> bool {
        true
    }

    fn try_unit(&self) -> Option<Unit> {
        let mut state = self.state.lock();
        state.cutting = true;
        state.hand_out()
    }

    fn epoch_cut(&self) {
        {
            let mut state = self.state.lock();
            (state.cutting, state.handed) = (false, 0);
        }
        self.changed.notify_waiters();
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
    at: u64,
    rows: Option<Rows>,
    _room: Room,
}

#[async_trait]
impl UnitReader for Reader {
    async fn next(&mut self) -> Result<Option<Read>> {
        let rows = match self.rows.take() {
            None => return Ok(None),
            Some(Rows::Batch(rows)) => rows,
            Some(Rows::Spooled(spooled)) => {
                let Some((rows, rest)) = spooled.next().await? else { return Ok(None) };
                self.rows = Some(Rows::Spooled(rest));
                plain(&rows)?
            }
        };
        self.at += rows.num_rows() as u64;
        Ok(Some(Read::rows(Changes::insertions(rows), self.at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector::spool::Spool;
    use arrow::array::{ArrayRef, Int64Array};

    fn rows(n: i64) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n));
        RecordBatch::try_from_iter([("n", column)]).expect("one column")
    }

    async fn started() -> Arc<IngestSource> {
        let source = IngestSource::new(MemoryBudget::new(1 << 30));
        source.start(&Offsets::default()).await.expect("started");
        source
    }

    /// The rows of a unit, batch by batch.
    async fn read(source: &IngestSource, unit: &Unit) -> Vec<usize> {
        let mut reader = source.open(unit).await.expect("opened once");
        let (mut counts, mut at) = (vec![], unit.start);
        while let Some(read) = reader.next().await.expect("reads") {
            counts.push(read.rows.num_rows());
            at = read.position;
        }
        assert_eq!(at, unit.end);
        counts
    }

    #[tokio::test]
    async fn no_rows_before_the_job_starts() {
        let source = IngestSource::new(MemoryBudget::new(1 << 30));
        assert_eq!(source.push(source.run(), rows(1)).await.expect_err("closed").kind(), ErrorKind::Unavailable);
        source.start(&Offsets::default()).await.expect("started");
        source.push(source.run(), rows(1)).await.expect("open");
        assert_eq!(source.acknowledged()[0].end, 1);
    }

    #[tokio::test]
    async fn a_push_does_not_outlast_its_run() {
        let source = started().await;
        let run = source.run();
        for _ in 0..WAITING_UNITS {
            source.push(run, rows(2)).await.expect("room");
        }
        // The queue is full: this one waits, and the run ends meanwhile.
        let late = source.push(run, rows(2));
        tokio::pin!(late);
        assert!(futures::poll!(&mut late).is_pending());
        source.start(&Offsets::default()).await.expect("started again");
        assert_eq!(late.await.expect_err("over").kind(), ErrorKind::Unavailable);
        assert_eq!(source.push(run, rows(2)).await.expect_err("over").kind(), ErrorKind::Unavailable);
        assert_eq!(source.acknowledged()[0].end, 0, "the new run has accepted nothing");
    }

    #[tokio::test]
    async fn what_is_handed_in_at_once_is_one_unit() {
        let source = started().await;
        let folder = tempfile::tempdir().expect("a folder");
        let mut spool = Spool::new(folder.path(), rows(0).schema(), MemoryBudget::new(1 << 30).account("rows"));
        for n in [3, 1_000_000, 5] {
            spool = spool.add(rows(n)).await.expect("room");
        }
        source.push(source.run(), rows(2)).await.expect("room");
        source.push_spooled(source.run(), spool.finish().await.expect("whole")).await.expect("room");
        assert_eq!(source.acknowledged()[0].end, 1_000_010);
        for expected in [&[2][..], &[3, 1_000_000, 5]] {
            let unit = source.next_unit().await.expect("a unit").expect("it never ends");
            assert_eq!(read(&source, &unit).await, expected);
            assert!(source.open(&unit).await.is_err(), "once");
        }
    }

    #[tokio::test]
    async fn an_epoch_ends_between_units_and_does_not_wait_for_new_ones() {
        let source = started().await;
        let push = |n| source.push(source.run(), rows(n));
        push(1).await.expect("room");
        push(2).await.expect("room");
        let unit = source.next_unit().await.expect("a unit").expect("some");
        assert_eq!(read(&source, &unit).await, [1]);
        push(3).await.expect("room");
        // The second belongs to the group of the first; the third came later.
        let unit = source.try_unit().expect("the rest of the group");
        assert_eq!(read(&source, &unit).await, [2]);
        assert!(source.try_unit().is_none());
        let next = source.next_unit();
        tokio::pin!(next);
        assert!(futures::poll!(&mut next).is_pending(), "an epoch is being cut");
        source.epoch_cut();
        let unit = next.await.expect("a unit").expect("some");
        assert_eq!(read(&source, &unit).await, [3]);
    }
}
