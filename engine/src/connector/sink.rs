//! Where rows go.
//!
//! A [`Sink`] takes whole epochs away; what it has made durable at a checkpoint becomes visible when the checkpoint's manifest
//! has been written.

use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::Intake;
use super::lag::Lag;
use super::outbox::SinkPlace;
use super::{DeadLetter, Figure};
use crate::changes::Changes;
use crate::epoch::EpochMark;
use crate::error::{Error, Result};
use crate::time::EventTime;

/// Something durable that becomes visible when the checkpoint commits; goes into the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// What kind of thing, for the sink that made it.
    pub kind: String,
    /// Its own description, in JSON.
    pub body: serde_json::Value,
}

/// Where a job's result goes; builds one writer a task and commits what they staged.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Called once before writing: takes up what an earlier run has left.
    async fn start(&self, start: Start<'_>) -> Result<()>;

    /// The writer of one task.
    fn open(&self, task: usize) -> Result<Box<dyn SinkWriter>>;

    /// Whether tasks in other processes can write to it, too: then all that they stage is in the store, by its name.
    fn is_anywhere(&self) -> bool {
        false
    }

    /// The writer of a task that is in another process than the one in which the sink was started, for a job of `generation`.
    fn open_away(&self, _task: usize, _generation: u64) -> Result<Box<dyn SinkWriter>> {
        Err(Error::internal(format!("{} is written where it was started only", self.describe())))
    }

    /// Called before the manifest is written: may replace what the tasks staged by something else that is
    /// durable, such as one larger file.
    async fn gather(&self, _checkpoint: u64, staged: Vec<Staged>) -> Result<Vec<Staged>> {
        Ok(staged)
    }

    /// What the sink wants to find in the manifest of `commit`, besides what was staged: its state after it.
    fn state_after(&self, _commit: &Commit<'_>) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Makes what was staged for a checkpoint visible. The manifest is written: this must succeed in the
    /// end and may be repeated.
    async fn commit(&self, commit: &Commit<'_>) -> Result<()>;

    /// The job is to stop: a commit or a writer that waits for somebody else ends soon. What is left undone is done at the
    /// next start.
    fn let_go(&self) {}

    /// The job runs no more: when this returns, nothing of the sink writes any more.
    async fn stop(&self) {}

    /// The file or folder that no other sink may write to.
    fn place(&self) -> Option<PathBuf> {
        None
    }

    /// Whether anybody can see the watermarks it is given, and may act on them.
    fn tells_time(&self) -> bool {
        true
    }

    /// Whether somebody waits for what is committed, such as the other side of a connection. Then commits come before their
    /// time, where they cost little.
    fn is_awaited(&self) -> bool {
        false
    }

    /// Whether it can take rows back (weights below 0).
    fn takes_retractions(&self) -> bool;

    /// How far the other side is behind what is committed, for a sink that knows. As [`Intake::lag`].
    fn lag(&self) -> Option<Lag> {
        None
    }

    /// As [`Intake::figures`].
    fn figures(&self) -> Vec<Figure> {
        vec![]
    }

    /// A line for EXPLAIN.
    fn describe(&self) -> String;
}

/// What a sink starts with.
#[derive(Clone, Debug, Default)]
pub struct Start<'a> {
    /// What was committed last: it is made visible if a crash came between.
    pub committed: &'a [Staged],
    /// What earlier generations have staged besides may go; what later ones have must stay.
    pub generation: u64,
    /// What [`Sink::state_after`] gave for the last manifest.
    pub state: Option<&'a serde_json::Value>,
    /// The job's place, and this sink's alone, where the job keeps what it has done. It may have to be made, holds what an earlier run has
    /// put there, and goes with the job.
    pub place: Option<SinkPlace>,
}

impl<'a> Start<'a> {
    /// Where nothing is known but what was committed.
    pub fn new(committed: &'a [Staged], generation: u64) -> Self {
        Start { committed, generation, state: None, place: None }
    }
}

/// What a commit makes visible.
#[derive(Clone, Copy, Debug)]
pub struct Commit<'a> {
    /// The checkpoint.
    pub checkpoint: u64,
    /// The last epoch in it.
    pub epoch: u64,
    /// The watermark at its end.
    pub watermark: EventTime,
    /// Whether the result is complete.
    pub end: bool,
    /// What the writers staged, by task.
    pub staged: &'a [Staged],
}

/// Writes the result of one task.
#[async_trait]
pub trait SinkWriter: Send {
    /// Takes in changes of the present epoch.
    async fn write(&mut self, changes: Changes) -> Result<()>;

    /// The epoch is whole: publish it, if the sink shows uncommitted epochs.
    async fn epoch(&mut self, mark: &EpochMark) -> Result<()>;

    /// Makes all epochs so far durable but not yet visible.
    async fn stage(&mut self, checkpoint: u64) -> Result<Vec<Staged>>;

    /// The rows of the epoch that has ended which cannot be written: they become dead letters.
    fn take_aside(&mut self) -> Vec<DeadLetter> {
        vec![]
    }

    /// Bytes held for what is not durable yet.
    fn bytes(&self) -> usize {
        0
    }

    /// It holds much: gives back what it can without a commit.
    async fn shrink(&mut self) -> Result<()> {
        Ok(())
    }
}
