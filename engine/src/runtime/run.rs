//! What the coordinator knows while a job runs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::commit::Committed;
use super::config::JobConfig;
use super::horizon::Horizon;
use super::idle::Idleness;
use super::messages::{Cut, Parts};
use crate::checkpoint::{Manifest, Progress};
use crate::connector::Reach;
use crate::epoch::EpochMark;
use crate::error::Result;
use crate::table::dead_letters::Letter;
use crate::time::EventTime;

/// Somebody who waits for a commit.
pub(super) struct Flush {
    /// What must be committed, by source.
    pub(super) targets: Vec<(usize, Reach)>,
    /// Sources that must have ended.
    pub(super) ends: Vec<usize>,
    /// The watermark that follows from them must be committed too, with what it closes: known once they are read.
    pub(super) time: FlushTime,
    pub(super) reply: oneshot::Sender<Result<()>>,
}

/// The watermark that a flush waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlushTime {
    /// None: the rows alone count.
    Rows,
    /// That which follows when all targets have been read.
    Open,
    /// This one.
    Known(EventTime),
}

/// An epoch under way.
pub(super) struct Epoch {
    pub(super) mark: EpochMark,
    pub(super) cut_at: Instant,
    pub(super) cuts: Vec<Cut>,
    pub(super) done: usize,
    /// When some task has something to say because time has passed.
    pub(super) due: Option<i64>,
    pub(super) merged: bool,
    /// The progress at its end, for its checkpoint.
    pub(super) progress: Vec<Progress>,
    /// The rows read up to its end, by source, and the late ones.
    pub(super) rows: Vec<u64>,
    pub(super) late: u64,
}

/// What changes while the job runs.
pub(super) struct Run {
    pub(super) manifest: Manifest,
    pub(super) progress: Vec<Progress>,
    pub(super) idle: Vec<Idleness>,
    pub(super) watermark: EventTime,
    /// The sources of this depth may be read, and all that are deeper.
    pub(super) depth: usize,
    pub(super) horizon: Horizon,
    /// Some task waits for the watermark to come nearer.
    pub(super) ahead: bool,
    /// What `now()` was in the last epoch, and when some task has something to say because time has passed.
    pub(super) now: EventTime,
    pub(super) due: Option<i64>,
    pub(super) next_epoch: u64,
    pub(super) epochs: BTreeMap<u64, Epoch>,
    pub(super) interval: Duration,
    pub(super) last_cut: Instant,
    pub(super) last_checkpoint: Instant,
    pub(super) last_tick: Instant,
    /// Something was read or moved since the last checkpoint was cut.
    pub(super) dirty: bool,
    /// Rows were read since then.
    pub(super) fresh: bool,
    /// The watermark was moved by the last reports and no mark has said so yet.
    pub(super) unsaid: bool,
    pub(super) ending: bool,
    pub(super) stopping: Vec<oneshot::Sender<Result<()>>>,
    pub(super) stop_cut: bool,
    pub(super) flushes: Vec<Flush>,
    /// The epoch whose checkpoint the tasks are making durable, and the parts that are.
    pub(super) storing: Option<Epoch>,
    pub(super) parts: Vec<Parts>,
    pub(super) committing: Option<oneshot::Receiver<Result<Committed>>>,
    /// When the epoch was cut whose checkpoint is committed.
    pub(super) committing_since: Instant,
    /// How long the last checkpoint took, from its cut to its commit.
    pub(super) took: Duration,
    /// Somebody waits for what is committed.
    pub(super) awaited: bool,
    /// Rows put aside since the last checkpoint, with their epoch.
    pub(super) dead: Vec<(u64, Letter)>,
    pub(super) dead_bytes: usize,
    /// The first checkpoint after a start writes all state anew.
    pub(super) fresh_states: bool,
    /// Rows read so far, by source, and late ones.
    pub(super) rows: Vec<u64>,
    pub(super) late: u64,
}

impl Run {
    pub(super) fn new(manifest: Manifest, depth: usize, config: &JobConfig, now: Instant) -> Self {
        Run {
            progress: manifest.sources.clone(),
            idle: manifest.sources.iter().map(|_| Idleness::default()).collect(),
            watermark: manifest.watermark,
            depth,
            horizon: Horizon::default(),
            ahead: false,
            now: manifest.now.unwrap_or(EventTime::MIN),
            due: None,
            next_epoch: manifest.epoch + 1,
            epochs: BTreeMap::new(),
            interval: config.min_epoch,
            last_cut: now,
            last_checkpoint: now,
            last_tick: now,
            dirty: manifest.is_new(),
            fresh: manifest.is_new(),
            unsaid: false,
            ending: false,
            stopping: vec![],
            stop_cut: false,
            flushes: vec![],
            storing: None,
            parts: vec![],
            committing: None,
            committing_since: now,
            took: Duration::ZERO,
            awaited: false,
            dead: vec![],
            dead_bytes: 0,
            fresh_states: true,
            rows: manifest.rows.clone(),
            late: manifest.late,
            manifest,
        }
    }

    /// Whether a checkpoint is under way.
    pub(super) fn is_checkpointing(&self) -> bool {
        self.storing.is_some() || self.committing.is_some() || self.epochs.values().any(|e| e.mark.checkpoint.is_some())
    }

    /// Whether nothing is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.epochs.is_empty() && self.storing.is_none() && self.committing.is_none()
    }
}
