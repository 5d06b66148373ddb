//! Where rows come from and where they go.
//!
//! A [`Source`] hands out *units* of work: ranges of a split's own linear coordinate (a byte offset, a
//! row number, an event number). Several tasks take units of one split in turn, so a big file or a
//! generator is read in parallel; the runtime follows, per split, what has been consumed, and from the
//! contiguous prefix of that its offset and watermark. On restart the source is told what has been
//! consumed and hands out the rest.
//!
//! A [`Sink`] takes whole epochs away; what it has made durable at a checkpoint becomes visible when the
//! checkpoint's manifest has been written.

pub mod arrivals;
pub mod blackhole;
pub mod constant;
pub mod datagen;
pub mod feed;
pub mod file;
mod generator;
pub mod ingest;
pub mod lag;
pub mod nexmark;
pub mod outbox;
pub mod position;
pub mod registry;
pub mod remainder;
pub mod series;
pub mod spool;
pub mod stdio;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion_physical_expr::PhysicalExpr;
use serde::{Deserialize, Serialize};

use crate::changes::Changes;
use crate::epoch::EpochMark;
use crate::error::Result;
use crate::memory::MemoryBudget;
use crate::time::EventTime;

pub use crate::format::DeadLetter;

/// The connectors that come with the engine.
pub fn built_in() -> registry::Connectors {
    registry::Connectors::default()
        .with(file::FileConnector)
        .with(stdio::StdinConnector)
        .with(stdio::StdoutConnector)
        .with(nexmark::NexmarkConnector)
        .with(datagen::DatagenConnector)
        .with(blackhole::BlackholeConnector)
}

/// What has been consumed: per split, disjoint ascending ranges of its coordinate. The first range of a
/// split that was read from its start begins at 0; later ones were read ahead by other tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offsets {
    /// By split name.
    pub splits: BTreeMap<String, Vec<Range<u64>>>,
}

impl Offsets {
    /// The parts of `within` in `split` that have not been consumed, in order.
    pub fn gaps(&self, split: &str, within: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = vec![];
        let mut at = within.start;
        for done in self.splits.get(split).into_iter().flatten() {
            if done.start >= within.end {
                break;
            }
            if done.start > at {
                gaps.push(at..done.start);
            }
            at = at.max(done.end);
        }
        if at < within.end {
            gaps.push(at..within.end);
        }
        gaps
    }

    /// Adds `range` of `split`, merging it with its neighbours.
    pub fn add(&mut self, split: &str, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let ranges = self.splits.entry(split.to_owned()).or_default();
        ranges.push(range);
        ranges.sort_by_key(|r| r.start);
        let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
        for r in ranges.drain(..) {
            match merged.last_mut() {
                Some(last) if r.start <= last.end => last.end = last.end.max(r.end),
                _ => merged.push(r),
            }
        }
        *ranges = merged;
    }

    /// The end of the contiguous prefix of `split`: all before it has been consumed.
    pub fn prefix(&self, split: &str) -> u64 {
        match self.splits.get(split).and_then(|r| r.first()) {
            Some(first) if first.start == 0 => first.end,
            _ => 0,
        }
    }
}

/// One independent part of a source's input, ordered within itself: a file, a partition, a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Unique in its source and the same after a restart.
    pub name: Arc<str>,
    /// The end of its coordinate, once known; the split is done when all before has been consumed.
    pub end: Option<u64>,
    /// The smallest event time in it, where statistics tell.
    pub min_time: Option<EventTime>,
    /// Whether it holds the watermark before it has been opened (all do, unless files are known to be in
    /// time order and this is a later one).
    pub holds: bool,
}

/// A piece of work: rows of `split` that begin at or after `start` and before `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The split's name.
    pub split: Arc<str>,
    /// Where to begin.
    pub start: u64,
    /// Where to stop; `u64::MAX` when the split has no known end.
    pub end: u64,
}

/// What a reader gives in one step.
#[derive(Clone, Debug)]
pub struct Read {
    /// The rows, in order; may be empty.
    pub rows: Changes,
    /// Everything of the unit before this has been read.
    pub position: u64,
    /// What could not be decoded.
    pub dead: Vec<DeadLetter>,
    /// The bound that the source itself knows to hold from here on (a stream's log carries its job's
    /// watermark); `None` leaves it to the stream's `WATERMARK FOR`.
    pub watermark: Option<EventTime>,
}

impl Read {
    /// Rows that were read without a fault, up to `position`.
    pub fn rows(rows: Changes, position: u64) -> Self {
        Read { rows, position, dead: vec![], watermark: None }
    }
}

/// Reads one unit. Dropped when the unit is done or the job stops, and not while rows are read before that.
#[async_trait]
pub trait UnitReader: Send {
    /// The next rows, or `None` at the end of the unit. Gives what is there and does not wait for more
    /// to fill a batch.
    async fn next(&mut self) -> Result<Option<Read>>;

    /// Asked at the end: whether all of the unit has been read. If not, the source hands out the rest again.
    fn is_whole(&self) -> bool {
        true
    }
}

/// The input of a scan; shared by the tasks that read it.
#[async_trait]
pub trait Source: Send + Sync {
    /// What the source wants to find in a manifest besides offsets: what it knows of splits of which something has been
    /// handed out. It may know more than the manifest's offsets say.
    async fn state(&self) -> Result<serde_json::Value> {
        Ok(serde_json::Value::Null)
    }

    /// Called before [`Source::start`] with what [`Source::state`] gave for the last manifest.
    fn restore(&self, _state: &serde_json::Value) -> Result<()> {
        Ok(())
    }

    /// Called before [`Source::start`]: the job of stream `reader` reads it as its source at `place`, and what it has read
    /// outlasts the job if it is `durable`.
    fn read_by(&self, _reader: &str, _place: usize, _durable: bool) {}

    /// Called before [`Source::start`]: what it holds of input that has not been read counts in `budget`.
    fn draw_on(&self, _budget: &Arc<MemoryBudget>) {}

    /// Called before [`Source::start`], where the job keeps what it has read: `folder` is the job's, and this source's alone, for what
    /// need not outlast the process. It may have to be made, and goes with the job.
    fn keep_in(&self, _folder: &Path) {}

    /// Called once before reading: `consumed` was read and checkpointed by an earlier run.
    async fn start(&self, consumed: &Offsets) -> Result<()>;

    /// The splits known now, in no order. Called at every epoch: cheap.
    fn splits(&self) -> Vec<Split>;

    /// The next unit to read, waiting while there is none but the input is open; `None` when the input
    /// has ended. Must lose nothing when the returned future is dropped before it is ready.
    async fn next_unit(&self) -> Result<Option<Unit>>;

    /// Opens `unit` for reading. For a source with groups this may not wait.
    async fn open(&self, unit: &Unit) -> Result<Box<dyn UnitReader>>;

    /// Whether a task reads several of its units at once, as it must where they never end: otherwise splits that no task
    /// has come to are not read. Each task has its share of [`Source::splits`] open then. Units that end are read
    /// faster one after the other. Not for sources with groups.
    fn side_by_side(&self) -> bool {
        false
    }

    /// Called when a checkpoint is committed, and at a start with what the last one has committed: `offsets` will not be
    /// asked for again, whatever crashes, so a broker may be told to let go of it. It is called for every checkpoint,
    /// in order, and may be dropped when it takes long. An error is logged and the job goes on.
    async fn committed(&self, _offsets: &Offsets) -> Result<()> {
        Ok(())
    }

    /// Whether an epoch may end only where the source says so (a changelog's epochs must stay whole).
    /// Then the source hands out the units of one group, [`Source::try_unit`] returns `None` at its end,
    /// and the next group is opened by [`Source::epoch_cut`]. Where the group has ended between two cuts
    /// the source may open the next one itself.
    fn in_groups(&self) -> bool {
        false
    }

    /// The next unit of the present group without waiting; `None` at the group's end. Only for sources
    /// with groups. Asked by a task that is ending the epoch: until [`Source::epoch_cut`] no group opens.
    fn try_unit(&self) -> Option<Unit> {
        None
    }

    /// All tasks have ended the epoch: the next group may be opened.
    fn epoch_cut(&self) {}

    /// Called before [`Source::start`] with the conditions of each reader, over the stream's columns, that drop all rows on
    /// which they are not true: what the source knows to have none that some reader keeps need not be read, and counts as
    /// read. What that is may depend on these conditions and on what there is to read only, since a restart must agree.
    fn prune(&self, _readers: &[Vec<Arc<dyn PhysicalExpr>>]) {}

    /// Where row `row` of `read`, which was read of `split` from `from` on, stands in the words of messages:
    /// `file "a.csv", line 3`. None where the source has no better words than its name.
    async fn place(&self, _split: &Arc<str>, _from: u64, _read: &Read, _row: usize) -> Result<Option<String>> {
        Ok(None)
    }

    /// Whether the input has an end by nature (then a batch `SELECT` may read it).
    fn bounded(&self) -> bool;

    /// How far the input reaches now for a source whose end moves (a log), by split: `FLUSH` waits until
    /// this has been consumed. Empty for sources that acknowledge nothing.
    fn acknowledged(&self) -> Vec<Reach> {
        vec![]
    }

    /// How far the input reaches now as far as that is known, by split, without watermarks: rows that are looked up in it wait at
    /// the start of a job until this has been read.
    fn there(&self) -> Vec<Reach> {
        self.acknowledged().into_iter().map(|reach| Reach { watermark: None, ..reach }).collect()
    }

    /// How far the job is behind what there is to read, for a source that knows: for `SHOW JOBS`, `EXPLAIN ANALYZE STREAM` and
    /// metrics.
    fn lag(&self) -> Option<lag::Lag> {
        None
    }

    /// What it has counted since the job started, each with a name: for `EXPLAIN ANALYZE STREAM` and for metrics.
    fn figures(&self) -> Vec<Figure> {
        vec![]
    }

    /// Called when somebody begins to wait for what is made of its rows, and when nobody does any more: see
    /// [`Sink::is_awaited`].
    fn await_rows(&self, _awaited: bool) {}

    /// Itself, where it reads a log in which positions outlast the reader.
    fn positioned(&self) -> Option<&dyn position::Positioned> {
        None
    }

    /// A line for EXPLAIN.
    fn describe(&self) -> String;
}

/// A figure that a source or a sink keeps of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// What it is called: `datagrams_dropped`, `lag_millis`.
    pub name: &'static str,
    /// What it is now.
    pub value: u64,
    /// Whether it only grows while the job runs.
    pub grows: bool,
}

impl Figure {
    /// How often something has happened.
    pub const fn count(name: &'static str, value: u64) -> Self {
        Figure { name, value, grows: true }
    }

    /// How much there is of something now.
    pub const fn level(name: &'static str, value: u64) -> Self {
        Figure { name, value, grows: false }
    }
}

/// How far a split reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The split.
    pub split: Arc<str>,
    /// The position behind its last row.
    pub end: u64,
    /// Its watermark there, where the input tells one itself.
    pub watermark: Option<EventTime>,
}

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
    /// Called before [`Sink::start`]: `place` is the job's, and this sink's alone. It may have to be made, holds what an earlier run
    /// has put there, and goes with the job.
    fn keep_in(&self, _place: outbox::SinkPlace) {}

    /// Called once before writing. `committed` is what was committed last: make it visible if a crash came between.
    /// What earlier generations than `generation` have staged besides may go; what later ones have must stay.
    async fn start(&self, committed: &[Staged], generation: u64) -> Result<()>;

    /// The writer of one task.
    fn open(&self, task: usize) -> Result<Box<dyn SinkWriter>>;

    /// Called before the manifest is written: may replace what the tasks staged by something else that is
    /// durable, such as one larger file.
    async fn gather(&self, _checkpoint: u64, staged: Vec<Staged>) -> Result<Vec<Staged>> {
        Ok(staged)
    }

    /// What the sink wants to find in the manifest of `commit`, besides what was staged: its state after it.
    fn state_after(&self, _commit: &Commit<'_>) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Called before [`Sink::start`] with what [`Sink::state_after`] gave for the last manifest.
    fn restore(&self, _state: &serde_json::Value) -> Result<()> {
        Ok(())
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

    /// How far the other side is behind what is committed, for a sink that knows. As [`Source::lag`].
    fn lag(&self) -> Option<lag::Lag> {
        None
    }

    /// As [`Source::figures`].
    fn figures(&self) -> Vec<Figure> {
        vec![]
    }

    /// A line for EXPLAIN.
    fn describe(&self) -> String;
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
