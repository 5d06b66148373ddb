//! What the tasks of a job tell its coordinator, and what others ask of it. From the coordinator to tasks goes only the
//! epoch mark, in band with the rows; to those that read, with how far they may.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, oneshot};

use super::idle::Waits;
use crate::checkpoint::{Consumed, StoredState};
use crate::connector::{DeadLetter, Staged};
use crate::epoch::EpochMark;
use crate::error::{Error, Result};
use crate::table::dead_letters::Letter;
use crate::time::EventTime;

/// What a task tells the coordinator.
///
/// A task says `Ready` once. For each epoch a source task says `Cut` when its input is cut, and each task `Done` when it has
/// said all that there is to say about it; where the epoch's mark has a checkpoint, `Stored` follows, which may come after
/// `Done`s of later epochs. After `Failed` it says nothing.
pub(crate) enum Report {
    /// A task has its state back, under these names, and waits for the start.
    Ready { states: Vec<String> },
    /// A source task has ended an epoch.
    Cut(Cut),
    /// A task has done all of an epoch, which may be its last, and has something to say when time has come as far as is `due`.
    Done { epoch: u64, aside: Vec<Letter>, due: Option<i64>, last: bool },
    /// A task's part of a checkpoint outlasts the process.
    Stored(Parts),
    /// A task failed; the job stops.
    Failed(Error),
}

/// Where a source task ends an epoch, and how far it reads in the next.
#[derive(Serialize, Deserialize)]
pub(crate) struct CutHere {
    pub(crate) mark: EpochMark,
    /// Once rows have set a bound beyond this, it reads no more until the next mark.
    pub(crate) horizon: EventTime,
}

/// A source task's part of an epoch.
#[derive(Serialize, Deserialize)]
pub(crate) struct Cut {
    pub(crate) epoch: u64,
    pub(crate) source: usize,
    pub(crate) consumed: Vec<Consumed>,
    /// What it waits for; nothing when its input has ended.
    pub(crate) waits: Vec<Waits>,
    pub(crate) ended: bool,
    /// It reads no more until the next mark.
    pub(crate) ahead: bool,
    pub(crate) dead: Vec<DeadLetter>,
    /// How many rows were passed on, and how many came too late.
    pub(crate) rows: u64,
    pub(crate) late: u64,
}

/// A task's part of a checkpoint.
#[derive(Serialize, Deserialize)]
pub(crate) struct Parts {
    pub(crate) checkpoint: u64,
    pub(crate) fragment: usize,
    pub(crate) task: usize,
    /// The files in which its states are.
    pub(crate) states: Vec<StoredState>,
    /// What its sinks staged, by their place.
    pub(crate) staged: BTreeMap<usize, Vec<Staged>>,
    /// Rows that went into each sink, by its place, since the job was made or an older build went on with it.
    pub(crate) written: Vec<(usize, u64)>,
}

/// Tells the coordinator that there is something to cut.
#[derive(Default)]
pub(crate) struct Pulse {
    rows: AtomicU64,
    notify: Notify,
}

impl Pulse {
    /// Counts `n` things that want an epoch.
    pub(crate) fn add(&self, n: u64) {
        if self.rows.fetch_add(n, Ordering::AcqRel) == 0 {
            self.notify.notify_one();
        }
    }

    /// What has been counted since the last call.
    pub(crate) fn take(&self) -> u64 {
        self.rows.swap(0, Ordering::AcqRel)
    }

    /// Whether anything has been counted.
    pub(crate) fn is_set(&self) -> bool {
        self.rows.load(Ordering::Acquire) > 0
    }

    /// Waits until something has been counted.
    pub(crate) async fn wait(&self) {
        while !self.is_set() {
            self.notify.notified().await;
        }
    }
}

/// What may be asked of a running job.
pub(super) enum Command {
    /// Commit, then stop.
    Stop(oneshot::Sender<Result<()>>),
    /// Answer when all that is acknowledged now is committed; with `time` also what it closes.
    Flush { time: bool, reply: oneshot::Sender<Result<()>> },
}
