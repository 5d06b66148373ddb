//! The source of stored streams: rows that sessions hand in.
//!
//! The one split is `ingest`, its coordinate the number of rows handed in. What is handed in at once (a batch, or spooled
//! rows of any number) is one unit and comes into one epoch, so that it is committed whole or not at all. What was
//! handed in and not yet committed when the process dies was never acknowledged.
//!
//! Rows may come with a [`Receipt`], which says later that they came (`receipts.rs`). Whoever hands in rows under a key keeps
//! it meanwhile ([`IngestSource::reserve`]), so that a twin waits. Rows that do not fit may come with those that do, as dead
//! letters. The coordinate counts those as well, and one for a receipt of nothing.

mod receipts;
#[cfg(test)]
mod tests;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::Schema;
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

pub use receipts::{Kept, Known, MOST_RECEIPTS, RECEIPT_SECONDS, Receipt};

use self::receipts::Book;
use super::spool::Spooled;
use super::{Offsets, Reach, Read, Source, Split, Unit, UnitReader};
use crate::changelog::{OP, weights};
use crate::changes::{Changes, row_bytes};
use crate::error::{Error, ErrorKind, Result};
use crate::format::DeadLetter;
use crate::hidden::without_hidden;
use crate::memory::{MemoryAccount, MemoryBudget};
use crate::time::now;

/// What the split of stored streams is called.
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

/// What is handed in at once.
pub struct Parcel {
    rows: Rows,
    /// The rows are those of a changelog and begin with the column [`OP`].
    changelog: bool,
    dead: Vec<DeadLetter>,
    receipt: Option<Receipt>,
}

impl From<RecordBatch> for Parcel {
    fn from(rows: RecordBatch) -> Self {
        Parcel { rows: Rows::Batch(rows), changelog: false, dead: vec![], receipt: None }
    }
}

impl From<Spooled> for Parcel {
    /// Rows of any number.
    fn from(rows: Spooled) -> Self {
        Parcel { rows: Rows::Spooled(rows), changelog: false, dead: vec![], receipt: None }
    }
}

impl Parcel {
    /// With rows that could not be read. Their positions are set when they are handed in.
    #[must_use]
    pub fn with_dead(mut self, dead: Vec<DeadLetter>) -> Self {
        self.dead = dead;
        self
    }

    /// Its rows are changes by the operation in their first column, [`OP`]: for a stream with a key.
    #[must_use]
    pub fn of_changelog(mut self) -> Self {
        self.changelog = true;
        self
    }

    /// With a receipt, which is committed with the rows.
    #[must_use]
    pub fn with_receipt(mut self, receipt: Receipt) -> Self {
        self.receipt = Some(receipt);
        self
    }

    /// How many rows there are that could be read.
    pub fn rows(&self) -> u64 {
        match &self.rows {
            Rows::Batch(rows) => rows.num_rows() as u64,
            Rows::Spooled(rows) => rows.rows(),
        }
    }

    /// How far it moves the coordinate.
    pub fn length(&self) -> u64 {
        let length = self.rows() + self.dead.len() as u64;
        if self.receipt.is_some() { length.max(1) } else { length }
    }

    /// Bytes that it holds in memory and nobody else counts.
    fn bytes(&self) -> usize {
        let rows = match &self.rows {
            Rows::Batch(rows) => row_bytes(rows),
            Rows::Spooled(_) => 0,
        };
        rows + self.dead.iter().map(|d| d.raw.len() + d.reason.len() + size_of::<DeadLetter>()).sum::<usize>()
    }
}

struct Message {
    rows: Rows,
    changelog: bool,
    dead: Vec<DeadLetter>,
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
    split: Arc<str>,
    state: Mutex<State>,
    changed: Notify,
    /// The keys under which somebody is about to hand something in.
    reserved: Mutex<HashSet<String>>,
    released: Notify,
    room: Arc<Semaphore>,
    budget: Arc<MemoryBudget>,
}

/// A key that is kept until this is dropped.
pub struct Reserved {
    source: Arc<IngestSource>,
    key: String,
}

impl Reserved {
    /// The receipt under this key.
    pub fn receipt(&self, value: serde_json::Value, kept: Kept) -> Receipt {
        Receipt { key: self.key.clone(), value, kept }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.source.reserved.lock().remove(&self.key);
        self.source.released.notify_waiters();
    }
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
    book: Book,
    /// What the receipts take.
    book_held: Option<MemoryAccount>,
    /// The book of the last manifest, for the next start.
    saved: Option<serde_json::Value>,
}

impl State {
    /// Lets `parcel` wait to be read.
    fn accept(&mut self, parcel: Parcel, room: Room, of: &IngestSource) -> Result<()> {
        let (start, end) = (self.accepted, self.accepted + parcel.length());
        let Parcel { rows, changelog, mut dead, receipt } = parcel;
        if let Some(receipt) = receipt {
            self.book.note(receipt, end, seconds())?;
            let bytes = self.book.bytes();
            self.book_held.get_or_insert_with(|| of.budget.account("the receipts of a stream")).set(bytes);
        }
        let first_dead = end - dead.len() as u64;
        for (letter, position) in dead.iter_mut().zip(first_dead..) {
            (letter.split, letter.position) = (of.split.clone(), position);
        }
        self.accepted = end;
        self.waiting.push_back(Message { rows, changelog, dead, start, end, room });
        Ok(())
    }

    /// The next unit of the present group; opens another one where it may.
    fn hand_out(&mut self, split: &Arc<str>) -> Option<Unit> {
        if self.group == 0 && !self.cutting && self.handed < WAITING_UNITS {
            self.group = self.waiting.len();
        }
        self.group = self.group.checked_sub(1)?;
        let message = self.waiting.pop_front()?;
        self.handed += 1;
        let unit = Unit { split: split.clone(), start: message.start, end: message.end };
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
        Self::named(SPLIT, budget)
    }

    /// The same with a split called `split`, for a source that hands rows to itself.
    pub fn named(split: &str, budget: Arc<MemoryBudget>) -> Arc<Self> {
        let room = Arc::new(Semaphore::new(WAITING_BYTES));
        Arc::new(IngestSource {
            split: split.into(),
            state: Mutex::default(),
            changed: Notify::new(),
            reserved: Mutex::default(),
            released: Notify::new(),
            room,
            budget,
        })
    }

    /// The number of the present run; each start of the job begins another.
    pub fn run(&self) -> u64 {
        self.state.lock().run
    }

    /// What is known of `key`.
    pub fn receipt(&self, key: &str) -> Known {
        self.state.lock().book.known(key, seconds())
    }

    /// Keeps `key` for whoever gets what is given, once nobody else does.
    pub async fn reserve(self: &Arc<Self>, key: &str) -> Reserved {
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            if self.reserved.lock().insert(key.to_owned()) {
                return Reserved { source: self.clone(), key: key.to_owned() };
            }
            released.await;
        }
    }

    /// Hands in rows, waiting for room. They come into one epoch, and are durable when the job of `run` has
    /// flushed.
    ///
    /// Errors with `Unavailable` when that run is over, and with `Exhausted` when the budget has no room for them; then none
    /// of the rows is there.
    pub async fn push(&self, run: u64, parcel: impl Into<Parcel>) -> Result<()> {
        let mut parcel = parcel.into();
        let takes = |state: &State| state.started && state.run == run;
        if !takes(&self.state.lock()) {
            return Err(stopped());
        }
        let (length, bytes) = (parcel.length(), parcel.bytes());
        if length == 0 {
            return Ok(());
        }
        if let Rows::Batch(rows) = &mut parcel.rows {
            *rows = plain(rows)?;
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
            state.accept(parcel, room, self)?;
        }
        self.changed.notify_waiters();
        Ok(())
    }
}

/// The time in seconds since 1970.
fn seconds() -> i64 {
    now() / 1_000_000
}

/// `rows` without what nulls hide.
fn plain(rows: &RecordBatch) -> Result<RecordBatch> {
    let columns = rows.columns().iter().map(without_hidden).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(rows.schema(), columns, &options)?)
}

#[async_trait]
impl Source for IngestSource {
    async fn state(&self) -> Result<serde_json::Value> {
        self.state.lock().book.save()
    }

    fn restore(&self, state: &serde_json::Value) -> Result<()> {
        self.state.lock().saved = Some(state.clone());
        Ok(())
    }

    async fn start(&self, consumed: &Offsets) -> Result<()> {
        let at = consumed.prefix(&self.split);
        let mut state = self.state.lock();
        let book = state.saved.take().map_or_else(|| Ok(Book::default()), |saved| Book::restore(&saved, at))?;
        *state = State { run: state.run + 1, started: true, accepted: at, book, ..State::default() };
        Ok(())
    }

    async fn committed(&self, offsets: &Offsets) -> Result<()> {
        self.state.lock().book.commit(offsets.prefix(&self.split), seconds());
        Ok(())
    }

    fn splits(&self) -> Vec<Split> {
        vec![Split { name: self.split.clone(), end: None, min_time: None, holds: true }]
    }

    async fn next_unit(&self) -> Result<Option<Unit>> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            // Nothing is awaited between taking a unit and giving it.
            if let Some(unit) = self.state.lock().hand_out(&self.split) {
                return Ok(Some(unit));
            }
            changed.await;
        }
    }

    async fn open(&self, unit: &Unit) -> Result<Box<dyn UnitReader>> {
        let message = self.state.lock().opening.take().filter(|m| m.start == unit.start);
        let message = message.ok_or_else(|| Error::internal("a stored stream is read twice"))?;
        let Message { rows, changelog, dead, start, end, room } = message;
        Ok(Box::new(Reader { at: start, end, rows: Some(rows), changelog, dead, _room: room }))
    }

    fn in_groups(&self) -> bool {
        true
    }

    fn try_unit(&self) -> Option<Unit> {
        let mut state = self.state.lock();
        state.cutting = true;
        state.hand_out(&self.split)
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
        vec![Reach { split: self.split.clone(), end: self.state.lock().accepted, watermark: None }]
    }

    fn describe(&self) -> String {
        "rows from INSERT and ingest".to_owned()
    }
}

struct Reader {
    at: u64,
    end: u64,
    rows: Option<Rows>,
    changelog: bool,
    dead: Vec<DeadLetter>,
    _room: Room,
}

/// The changes that the rows of a changelog are.
fn changes_of(rows: &RecordBatch) -> Result<Changes> {
    let ops = rows.column_by_name(OP).ok_or_else(|| Error::internal("a changelog without operations"))?;
    let content = rows.project(&(1..rows.num_columns()).collect::<Vec<_>>())?;
    Changes::of_changelog(content, weights(ops)?)
}

#[async_trait]
impl UnitReader for Reader {
    async fn next(&mut self) -> Result<Option<Read>> {
        let rows = match self.rows.take() {
            Some(Rows::Batch(rows)) => Some(rows),
            Some(Rows::Spooled(spooled)) => match spooled.next().await? {
                Some((rows, rest)) => {
                    self.rows = Some(Rows::Spooled(rest));
                    Some(plain(&rows)?)
                }
                None => None,
            },
            None => None,
        };
        if let Some(rows) = rows {
            self.at += rows.num_rows() as u64;
            let changes = if self.changelog { changes_of(&rows)? } else { Changes::insertions(rows) };
            return Ok(Some(Read::rows(changes, self.at)));
        }
        // What could not be read stands behind the rows.
        if self.dead.is_empty() {
            return Ok(None);
        }
        let none = Changes::insertions(RecordBatch::new_empty(Arc::new(Schema::empty())));
        Ok(Some(Read { dead: std::mem::take(&mut self.dead), ..Read::rows(none, self.end) }))
    }
}
