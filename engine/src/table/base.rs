//! The base of a changelog: what it adds up to as of a commit, beside its log.
//!
//! ```text
//! jobs/<id>/base/00000000000008000000.parquet    what the first 8,000,000 rows of the log add up to, all `+I`
//! jobs/<id>/base/current.json                    which base counts, and of what
//! ```
//! It says nothing that the log does not say, so it needs no manifest: rows of the log never change, and what the
//! first of them add up to does not either. `renewal.rs` makes the next one.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;

use super::committed::{Committed, FileEntry};
use crate::memory::MemoryBudget;

/// Changes that are read without a base.
const FLOOR: u64 = 64 << 10;
/// The base is made anew when this many times its rows have come since…
const GROWTH: u64 = 2;
/// …and when nothing more will come, at this part of them.
const AT_THE_END: u64 = 8;

/// What work beside the jobs runs with: one piece at a time, within the process's budget.
#[derive(Debug)]
pub struct Upkeep {
    pub(super) budget: Arc<MemoryBudget>,
    pub(super) threads: tokio::runtime::Handle,
    pub(super) turn: Semaphore,
}

impl Upkeep {
    /// Work that runs on `threads` and draws on `budget`.
    pub fn new(budget: Arc<MemoryBudget>, threads: tokio::runtime::Handle) -> Arc<Self> {
        Arc::new(Upkeep { budget, threads, turn: Semaphore::new(1) })
    }
}

/// A base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Base {
    /// Its name in the folder.
    pub(super) file: String,
    /// Its rows.
    pub(super) rows: u64,
    /// Its bytes.
    pub(super) bytes: u64,
    /// How many rows of the log it stands for: the first ones.
    pub(super) upto: u64,
    /// The last epoch in it.
    pub(super) epoch: u64,
}

impl Base {
    /// That which takes the place of history in a log.
    fn in_log(file: &FileEntry) -> Option<Self> {
        let (epoch, file_name) = (file.epoch.unwrap_or_default(), file.name.clone());
        Some(Base { file: file_name, rows: file.rows, bytes: file.bytes, upto: file.upto?, epoch })
    }

    /// Whether it is time for the next one.
    pub(super) fn is_due(base: Option<&Self>, committed: &Committed, floor: u64) -> bool {
        let (upto, rows) = base.map_or((0, 0), |b| (b.upto, b.rows));
        let much = if committed.end { rows / AT_THE_END } else { rows * GROWTH };
        committed.rows.saturating_sub(upto) >= floor.max(much)
    }
}

/// The base of one log, and those that were.
#[derive(Debug)]
pub(super) struct Bases {
    pub(super) current: Option<Base>,
    /// Whether it has been looked for.
    pub(super) known: bool,
    /// Files that are no longer named, and the version of the log since which.
    pub(super) replaced: Vec<(String, u64)>,
    /// See [`FLOOR`].
    pub(super) floor: u64,
}

impl Default for Bases {
    fn default() -> Self {
        Bases { current: None, known: false, replaced: vec![], floor: FLOOR }
    }
}

impl Bases {
    /// `base` is the one that counts after `version` of the log.
    pub(super) fn replace(&mut self, base: Base, version: u64) {
        if let Some(old) = self.current.replace(base) {
            self.replaced.push((old.file, version));
        }
    }

    /// The base for the first `rows` rows of a log with these files, and whether it is among these.
    pub(super) fn of(&self, files: &[FileEntry], rows: u64) -> (Option<Base>, bool) {
        let in_log = files.first().and_then(Base::in_log).filter(|b| b.upto <= rows);
        let beside = self.current.clone().filter(|b| b.upto <= rows);
        match (in_log, beside) {
            (Some(in_log), beside) if beside.as_ref().is_none_or(|b| b.upto < in_log.upto) => (Some(in_log), true),
            (_, beside) => (beside, false),
        }
    }
}

/// Making bases.
#[derive(Debug, Default)]
pub(super) struct Making {
    pub(super) task: Option<JoinHandle<()>>,
    pub(super) running: bool,
    /// No more are to be made.
    pub(super) closed: bool,
    /// When it may go on after a failure.
    pub(super) from: Option<Instant>,
    pub(super) cancelled: Arc<Cancelled>,
}

/// Whether what is made is of no use any more; who waits for a turn is told.
#[derive(Debug, Default)]
pub(super) struct Cancelled {
    pub(super) is: AtomicBool,
    pub(super) told: Notify,
}

#[cfg(test)]
impl Making {
    pub(super) fn is_running(&self) -> bool {
        self.running
    }
}
