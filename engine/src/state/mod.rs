//! State of operators: opened through [`StateRegistry`] when the operator is built, so that none can be
//! left out of a checkpoint, a restore or the memory budget.

pub mod accumulate;
pub mod arrangement;
pub mod group_table;
pub mod key_index;
mod places;
pub mod runs;
pub mod timeline;

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::datatypes::Schema;
use parking_lot::Mutex;

use crate::changes::row_bytes;
use crate::error::{Error, Result};
use crate::format::sql_name;
use crate::memory::{MemoryAccount, MemoryBudget};
use crate::metrics::NodeMetrics;
use crate::time::EventTime;

/// Keyed state that can be written as rows.
pub trait State: Send {
    /// The rows changed since the last snapshot, or all when `full`, in pieces of one schema. None when there is nothing to say.
    fn snapshot(&mut self, full: bool) -> Result<Vec<RecordBatch>>;

    /// Takes in a snapshot, later ones over earlier ones. Only the rows of keys that `owner` routes here.
    fn restore(&mut self, rows: &RecordBatch, owner: Owner) -> Result<()>;

    /// Called before a snapshot is restored, which is about so large.
    fn reserve(&mut self, _rows: usize) {}

    /// Called when all snapshots have been restored: what had closed at `watermark` goes.
    fn restored(&mut self, watermark: EventTime) -> Result<()>;

    /// Whether the next snapshot has to be a full one, since what is gone would not be told otherwise.
    fn needs_full(&self) -> bool {
        false
    }

    /// The bytes that a full snapshot would have, where that is known: one that would be about as large as what is written of it
    /// already is worth nothing.
    fn written_whole(&self) -> Option<usize> {
        None
    }

    /// Bytes held.
    fn bytes(&self) -> usize;

    /// The most bytes that may be held besides, for a while, when `rows` rows come and what has no room for them is moved to
    /// where there is more.
    fn growth(&self, _rows: usize) -> usize {
        0
    }
}

/// Which keys belong to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The task.
    pub task: usize,
    /// Of how many.
    pub parallelism: usize,
}

impl Owner {
    /// Whether the key with this routing hash belongs here.
    pub fn owns(&self, hash: u64) -> bool {
        crate::key::task_of(hash, self.parallelism) == self.task
    }

    /// The rows of `rows` whose keys belong here, by their hashes.
    pub fn part_of(&self, rows: &RecordBatch, hashes: &[u64]) -> Result<RecordBatch> {
        let mine: Vec<u32> = (0..rows.num_rows() as u32).filter(|i| self.owns(hashes[*i as usize])).collect();
        match mine.len() == rows.num_rows() {
            true => Ok(rows.clone()),
            false => Ok(arrow::compute::take_record_batch(rows, &UInt32Array::from(mine))?),
        }
    }
}

/// A part of a checkpoint: the rows of one state of one task.
#[derive(Clone, Debug)]
pub struct StatePart {
    /// The state's name, unique in its fragment.
    pub name: String,
    /// Whether it replaces the parts before it.
    pub full: bool,
    /// The rows, in pieces.
    pub rows: Vec<RecordBatch>,
}

impl StatePart {
    /// The bytes of the rows.
    pub fn bytes(&self) -> usize {
        self.rows.iter().map(row_bytes).sum()
    }
}

/// Opens state for the operators of one task.
pub struct StateRegistry {
    budget: Arc<MemoryBudget>,
    job: String,
    entries: Vec<Entry>,
    scope: String,
    metrics: Arc<NodeMetrics>,
}

struct Entry {
    name: String,
    state: Arc<Mutex<dyn State>>,
    /// Bytes of the parts since (and without) the last full one, and of that one.
    delta_bytes: usize,
    full_bytes: usize,
    parts: usize,
}

/// After this many parts a full one is written, so that a restore reads few files, if they are much beside it.
const MANY_PARTS: usize = 32;
/// After this many in any case.
const MOST_PARTS: usize = 256;

impl Entry {
    /// Whether all of `state` is to be written, not only what has changed.
    fn is_due(&self, state: &dyn State) -> bool {
        let replaced = match state.written_whole() {
            Some(whole) => self.full_bytes + self.delta_bytes > 2 * whole.max(SMALL_PART),
            None => self.delta_bytes > self.full_bytes,
        };
        let many = self.parts >= MANY_PARTS && self.delta_bytes > self.full_bytes / 2;
        self.parts == 0 || replaced || many || self.parts >= MOST_PARTS || state.needs_full()
    }
}

/// Parts of so many bytes are all alike.
const SMALL_PART: usize = 1 << 16;

impl StateRegistry {
    /// An empty registry for a task of `job`.
    pub fn new(job: impl Into<String>, budget: Arc<MemoryBudget>) -> Self {
        StateRegistry { budget, job: job.into(), entries: vec![], scope: String::new(), metrics: Arc::default() }
    }

    /// What is opened from here on belongs to operator `scope`.
    pub fn enter(&mut self, scope: impl Into<String>, metrics: Arc<NodeMetrics>) {
        self.scope = scope.into();
        self.metrics = metrics;
    }

    /// An account for what the operator holds.
    pub fn account(&self) -> MemoryAccount {
        self.budget.account(format!("{} of stream \"{}\"", self.scope, self.job))
    }

    /// Opens `state` under `name`.
    pub fn open<S: State + 'static>(&mut self, name: &str, state: S) -> Handle<S> {
        let state = Arc::new(Mutex::new(state));
        let name = format!("{}.{name}", self.scope);
        self.entries.push(Entry { name, state: state.clone(), delta_bytes: 0, full_bytes: 0, parts: 0 });
        Handle { state, account: Mutex::new(self.account()), counted: Mutex::new(0), metrics: self.metrics.clone() }
    }

    /// State of an epoch, which no checkpoint has.
    pub fn of_epoch<S: State + 'static>(&mut self, state: S) -> Handle<S> {
        let account = Mutex::new(self.account());
        Handle { state: Arc::new(Mutex::new(state)), account, counted: Mutex::new(0), metrics: self.metrics.clone() }
    }

    /// Called before some `rows` rows of state `name` are restored.
    pub fn reserve(&mut self, name: &str, rows: usize) {
        self.entries.iter().filter(|e| e.name == name).for_each(|e| e.state.lock().reserve(rows));
    }

    /// Takes in rows of state `name` of the last checkpoint, of any task of this fragment. Those of one state come in order.
    pub fn restore(&mut self, name: &str, rows: &RecordBatch, owner: Owner) -> Result<()> {
        for entry in self.entries.iter().filter(|e| e.name == name) {
            entry.state.lock().restore(rows, owner).map_err(|e| unfit(&entry.name, &self.job, &e))?;
        }
        Ok(())
    }

    /// Called when all parts have been restored: what had closed at `watermark` goes.
    pub fn restored(&mut self, watermark: EventTime) -> Result<()> {
        for entry in &mut self.entries {
            let mut state = entry.state.lock();
            state.restored(watermark).map_err(|e| unfit(&entry.name, &self.job, &e))?;
            // What was restored is written whole at the next checkpoint: its keys may come from other tasks.
            entry.parts = 0;
        }
        Ok(())
    }

    /// Whether there is a state of that name.
    pub fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|e| e.name == name)
    }

    /// The bytes of all states.
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(|e| e.state.lock().bytes()).sum()
    }

    /// The names of all states.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|e| e.name.as_str())
    }

    /// The changes of all states since the last call.
    pub fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        let mut parts = vec![];
        for entry in &mut self.entries {
            let mut state = entry.state.lock();
            let full = entry.is_due(&*state);
            let rows = state.snapshot(full)?;
            if rows.is_empty() {
                continue;
            }
            let part = StatePart { name: entry.name.clone(), full, rows };
            let bytes = part.bytes();
            if full {
                (entry.full_bytes, entry.delta_bytes, entry.parts) = (bytes.max(SMALL_PART), 0, 1);
            } else {
                entry.delta_bytes += bytes;
                entry.parts += 1;
            }
            parts.push(part);
        }
        Ok(parts)
    }
}

/// Checks that rows with the columns `found` can be taken for rows with the columns `wanted`: a state is written and
/// read by place, and a number read as another type is a wrong number.
pub fn check_columns(found: &Schema, wanted: &Schema) -> Result<()> {
    let (has, wants) = (found.fields().len(), wanted.fields().len());
    if has != wants {
        return Err(Error::data(format!("it has {has} columns, the query now needs {wants}")));
    }
    let mut pairs = found.fields().iter().zip(wanted.fields());
    match pairs.find(|(f, w)| !f.data_type().equals_datatype(w.data_type())) {
        None => Ok(()),
        Some((f, w)) => {
            let (has, wants) = (sql_name(f.data_type()), sql_name(w.data_type()));
            Err(Error::data(format!("its column \"{}\" is {has}, the query now needs {wants}", f.name())))
        }
    }
}

/// The error for state `name` of the job of `stream`, which cannot be restored.
pub fn unfit(name: &str, stream: &str, why: &Error) -> Error {
    let operator = name.rsplit_once('.').map_or(name, |(operator, _)| operator);
    let message =
        format!("the stored state of operator \"{operator}\" of stream \"{stream}\" does not fit: {}", why.message());
    let hint = "The result so far can still be read. Write CREATE OR REPLACE STREAM … AS … to compute it anew; SHOW \
                CREATE STREAM gives the statement.";
    Error::new(why.kind(), message).with_hint(hint)
}

/// An operator's own state.
pub struct Handle<S> {
    state: Arc<Mutex<S>>,
    account: Mutex<MemoryAccount>,
    /// Its bytes among those that the operator's figures have.
    counted: Mutex<usize>,
    metrics: Arc<NodeMetrics>,
}

impl<S: State> Handle<S> {
    /// As [`Handle::with`], for work that adds `rows` rows: there is room for them before anything grows.
    pub fn with_rows<T>(&self, rows: usize, f: impl FnOnce(&mut S) -> Result<T>) -> Result<T> {
        {
            let state = self.state.lock();
            let more = state.growth(rows);
            if more > 0 {
                self.account.lock().resize(state.bytes() + more)?;
            }
        }
        self.with(f)
    }

    /// Works on the state, then settles its bytes with the memory budget.
    ///
    /// Errors with `f`'s error, or `Exhausted` when the budget has no room for what the state has become.
    pub fn with<T>(&self, f: impl FnOnce(&mut S) -> Result<T>) -> Result<T> {
        let mut state = self.state.lock();
        let result = f(&mut state)?;
        let bytes = state.bytes();
        let before = std::mem::replace(&mut *self.counted.lock(), bytes);
        self.metrics.state_bytes(bytes as i64 - before as i64);
        self.account.lock().resize(bytes)?;
        Ok(result)
    }
}
