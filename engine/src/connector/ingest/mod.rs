//! The source of stored streams: rows that sessions hand in.
//!
//! The one split is `ingest`, its coordinate the number of rows handed in. What is handed in at once (a batch, or spooled
//! rows of any number) is one unit and comes into one epoch, so that it is committed whole or not at all. What was
//! handed in and not yet committed when the process dies was never acknowledged.
//!
//! Rows may come with a [`Receipt`], which says later that they came (`receipts.rs`). Whoever hands in rows under a key keeps
//! it meanwhile ([`IngestSource::reserve`]), so that a twin waits. Rows that do not fit may come with those that do, as dead
//! letters. The coordinate counts those as well, and one for a receipt of nothing.
//!
//! Who changes rows by what they are takes the way in for itself ([`IngestSource::alone`]): nothing comes between what it has read and
//! what it hands in. The others wait for it, in the order in which they came.

mod receipts;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::Schema;
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedRwLockWriteGuard, RwLock};

pub use receipts::{Kept, Known, MOST_RECEIPTS, RECEIPT_SECONDS, Receipt};

use self::receipts::Book;
use super::arrivals::{Arrival, Arrivals, Room, UNITS};
use super::lag::Lag;
use super::spool::Spooled;
use super::{Intake, Offsets, Opening, Reach, Read, Readers, Source, Split, Unit, UnitReader};
use crate::changelog::{OP, weights};
use crate::changes::{Changes, row_bytes};
use crate::error::{Error, Result};
use crate::format::DeadLetter;
use crate::hidden::without_hidden;
use crate::memory::{MemoryAccount, MemoryBudget};
use crate::time::now;

/// What the split of stored streams is called.
const SPLIT: &str = "ingest";
/// Rows handed in and not yet read, in bytes.
const WAITING_BYTES: usize = 16 << 20;

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
    _held: MemoryAccount,
}

/// See the module's text.
pub struct IngestSource {
    arrivals: Arrivals<Message>,
    receipts: Mutex<Receipts>,
    /// The keys under which somebody is about to hand something in.
    reserved: Mutex<HashSet<String>>,
    released: Notify,
    /// Taken by many who hand something in, or by one who is alone.
    turns: Arc<RwLock<()>>,
    budget: Arc<MemoryBudget>,
}

/// Until this is dropped, nobody else hands anything in.
pub struct Alone {
    _turn: OwnedRwLockWriteGuard<()>,
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
struct Receipts {
    book: Book,
    /// What they take.
    held: Option<MemoryAccount>,
}

impl IngestSource {
    /// A source that takes no rows until its job starts. What waits is a part of `budget`.
    pub fn new(budget: Arc<MemoryBudget>) -> Arc<Self> {
        Self::named(SPLIT, budget)
    }

    /// The same with a split called `split`, for a source that hands rows to itself.
    pub fn named(split: &str, budget: Arc<MemoryBudget>) -> Arc<Self> {
        Arc::new(IngestSource {
            arrivals: Arrivals::new(split, WAITING_BYTES, UNITS),
            receipts: Mutex::default(),
            reserved: Mutex::default(),
            released: Notify::new(),
            turns: Arc::default(),
            budget,
        })
    }

    /// Begins another run behind what was `consumed`, with the receipts that [`Intake::state`] gave for the last manifest.
    pub fn start(&self, consumed: &Offsets, saved: Option<&serde_json::Value>) -> Result<()> {
        let at = consumed.prefix(self.arrivals.split());
        let book = saved.map_or_else(|| Ok(Book::default()), |saved| Book::restore(saved, at))?;
        self.arrivals.start(at, || *self.receipts.lock() = Receipts { book, held: None });
        Ok(())
    }

    /// The number of the present run; each start of the job begins another.
    pub fn run(&self) -> u64 {
        self.arrivals.run()
    }

    /// What is known of `key`.
    pub fn receipt(&self, key: &str) -> Known {
        self.receipts.lock().book.known(key, seconds())
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

    /// The way in for one alone, once those have handed in who were before.
    pub async fn alone(&self) -> Alone {
        Alone { _turn: self.turns.clone().write_owned().await }
    }

    /// Hands in rows, waiting for who is alone, and for room. They come into one epoch, and are durable when the job of `run` has
    /// flushed.
    ///
    /// Errors with `Unavailable` when that run is over, and with `Exhausted` when the budget has no room for them; then none
    /// of the rows is there.
    pub async fn push(&self, run: u64, parcel: impl Into<Parcel>) -> Result<()> {
        self.hand_in(run, parcel.into(), None).await
    }

    /// The same for who is `alone` in this source.
    pub async fn push_alone(&self, alone: &Alone, run: u64, parcel: impl Into<Parcel>) -> Result<()> {
        self.hand_in(run, parcel.into(), Some(alone)).await
    }

    async fn hand_in(&self, run: u64, mut parcel: Parcel, alone: Option<&Alone>) -> Result<()> {
        self.arrivals.check(run)?;
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
        let _turn = match alone {
            Some(_) => None,
            None => Some(self.turns.read().await),
        };
        let room = self.arrivals.room(bytes).await?;
        self.arrivals.put(run, room, parcel.rows(), |start| self.accept(parcel, start, held))
    }

    /// Takes `parcel` behind position `start`.
    fn accept(&self, parcel: Parcel, start: u64, held: MemoryAccount) -> Result<(u64, Message)> {
        let end = start + parcel.length();
        let Parcel { rows, changelog, mut dead, receipt } = parcel;
        if let Some(receipt) = receipt {
            let mut receipts = self.receipts.lock();
            receipts.book.note(receipt, end, seconds())?;
            let bytes = receipts.book.bytes();
            receipts.held.get_or_insert_with(|| self.budget.account("the receipts of a stream")).set(bytes);
        }
        let first_dead = end - dead.len() as u64;
        for (letter, position) in dead.iter_mut().zip(first_dead..) {
            (letter.split, letter.position) = (self.arrivals.split().clone(), position);
        }
        Ok((end, Message { rows, changelog, dead, _held: held }))
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
    fn describe(&self) -> String {
        "rows from INSERT and ingest".to_owned()
    }

    fn bounded(&self) -> bool {
        false
    }

    fn in_groups(&self) -> bool {
        true
    }

    /// The rows wait here.
    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> {
        None
    }

    async fn open(self: Arc<Self>, opening: Opening) -> Result<Arc<dyn Intake>> {
        self.start(&opening.consumed, opening.state.as_ref())?;
        Ok(self)
    }
}

#[async_trait]
impl Intake for IngestSource {
    fn splits(&self) -> Vec<Split> {
        self.arrivals.splits()
    }

    async fn next_unit(&self) -> Result<Option<Unit>> {
        self.arrivals.next_unit().await
    }

    fn try_unit(&self) -> Option<Unit> {
        self.arrivals.try_unit()
    }

    fn epoch_cut(&self) {
        self.arrivals.epoch_cut();
    }

    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> {
        Some(self)
    }

    async fn state(&self) -> Result<serde_json::Value> {
        self.receipts.lock().book.save()
    }

    async fn committed(&self, offsets: &Offsets) -> Result<()> {
        let position = offsets.prefix(self.arrivals.split());
        self.receipts.lock().book.commit(position, seconds());
        self.arrivals.commit(position);
        Ok(())
    }

    fn acknowledged(&self) -> Vec<Reach> {
        vec![Reach { split: self.arrivals.split().clone(), end: self.arrivals.last(), watermark: None }]
    }

    fn lag(&self) -> Option<Lag> {
        Some(self.arrivals.lag())
    }
}

#[async_trait]
impl Readers for IngestSource {
    async fn read(&self, unit: &Unit) -> Result<Box<dyn UnitReader>> {
        let Arrival { start, end, content: Message { rows, changelog, dead, _held }, room } =
            self.arrivals.open(unit)?;
        Ok(Box::new(Reader { at: start, end, rows: Some(rows), changelog, dead, _room: (room, _held) }))
    }
}

struct Reader {
    at: u64,
    end: u64,
    rows: Option<Rows>,
    changelog: bool,
    dead: Vec<DeadLetter>,
    _room: (Room, MemoryAccount),
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
