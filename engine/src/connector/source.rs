//! Where rows come from.
//!
//! A [`Source`] is what a plan has of it: what is read and how, as EXPLAIN prints it. Nothing is open yet. It opens into two
//! things:
//!
//! ```text
//!                    ┌─ Intake    the coordinator: splits, units, how far there is anything, what is committed
//! Source ── open ────┤
//!                    └─ Readers   the tasks: units read
//! ```
//! *Units* are ranges of a split's own linear coordinate (a byte offset, a row number, an event number). Several tasks take
//! units of one split in turn, so a big file or a generator is read in parallel; the runtime follows, per split, what has been
//! consumed, and from the contiguous prefix of that its offset and watermark. At a restart the source is told what has been
//! consumed, and hands out the rest.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion_physical_expr::PhysicalExpr;
use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::Sink;
use super::lag::Lag;
use super::position::Positioned;
use super::{DeadLetter, Figure, Offsets};
use crate::changes::Changes;
use crate::error::{Error, Result};
use crate::memory::MemoryBudget;
use crate::time::EventTime;

/// The input of a scan as a plan has it.
#[async_trait]
pub trait Source: Send + Sync {
    /// A line for EXPLAIN.
    fn describe(&self) -> String;

    /// Whether the input has an end by nature (then a batch `SELECT` may read it).
    fn bounded(&self) -> bool;

    /// Whether an epoch may end only where the source says so (a changelog's epochs must stay whole). Then the units of one
    /// group are handed out, [`Intake::try_unit`] returns `None` at its end, and the next group is opened by
    /// [`Intake::epoch_cut`]. Where the group has ended between two cuts the next one may open by itself.
    fn in_groups(&self) -> bool {
        false
    }

    /// Whether a task reads several of its units at once, as it must where they never end: otherwise splits that no task
    /// has come to are not read. Each task has its share of [`Intake::splits`] open then. Units that end are read
    /// faster one after the other. Not for sources with groups.
    fn side_by_side(&self) -> bool {
        false
    }

    /// Itself, where it reads a log in which positions outlast the reader.
    fn positioned(&self) -> Option<&dyn Positioned> {
        None
    }

    /// What reads its units in any process, given nothing but them. `None` where what is read is in the process in which the source
    /// was opened, such as a connection or rows that were handed in: all its tasks are there, then, and use [`Intake::readers`].
    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>>;

    /// Begins to hand out what has not been read.
    async fn open(self: Arc<Self>, opening: Opening) -> Result<Arc<dyn Intake>>;
}

impl fmt::Debug for dyn Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

/// What a source is opened with.
pub struct Opening {
    /// Whose source it is; nobody's, where it is read in batch or tried out.
    pub reader: Option<ReadBy>,
    /// What is held of input that has not been read counts in it.
    pub budget: Arc<MemoryBudget>,
    /// The job's folder, and this source's alone, for what need not outlast the process: where the job keeps what it has read. It may
    /// have to be made, and goes with the job.
    pub folder: Option<PathBuf>,
    /// What was read and checkpointed by an earlier run.
    pub consumed: Offsets,
    /// What [`Intake::state`] gave for the last manifest.
    pub state: Option<serde_json::Value>,
    /// The conditions of each reader of the rows, over the stream's columns, that drop all rows on which they are not true: what is
    /// known to have none that some reader keeps need not be read, and counts as read. What that is may depend on these
    /// conditions and on what there is to read only, since a restart must agree. No reader: all is read.
    pub conditions: Vec<Vec<Arc<dyn PhysicalExpr>>>,
}

impl Opening {
    /// To be read from its beginning, for nobody in particular.
    pub fn new(budget: Arc<MemoryBudget>) -> Self {
        let (consumed, conditions) = (Offsets::default(), vec![]);
        Opening { reader: None, budget, folder: None, consumed, state: None, conditions }
    }
}

/// The job that reads a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBy {
    /// The stream that it feeds.
    pub stream: String,
    /// Which of its sources.
    pub place: usize,
    /// Whether what it has read outlasts it.
    pub durable: bool,
}

/// A source in the process in which it was opened.
#[derive(Clone)]
pub struct Opened {
    /// What the coordinator holds.
    pub intake: Arc<dyn Intake>,
    /// What tasks hold.
    pub readers: Arc<dyn Readers>,
}

impl Opened {
    /// Opens `source`.
    pub async fn of(source: &Arc<dyn Source>, opening: Opening) -> Result<Self> {
        let intake = source.clone().open(opening).await?;
        let readers = intake.clone().readers().or_else(|| source.clone().readers());
        let readers = readers.ok_or_else(|| Error::internal(format!("nothing reads {}", source.describe())))?;
        Ok(Opened { intake, readers })
    }
}

/// An open source as the coordinator holds it. Tasks ask it for units.
#[async_trait]
pub trait Intake: Send + Sync {
    /// The splits known now, in no order. Called at every epoch: cheap.
    fn splits(&self) -> Vec<Split>;

    /// The next unit to read, waiting while there is none but the input is open; `None` when the input
    /// has ended. Must lose nothing when the returned future is dropped before it is ready.
    async fn next_unit(&self) -> Result<Option<Unit>>;

    /// The next unit of the present group without waiting; `None` at the group's end. Only for sources
    /// with groups. Asked by a task that is ending the epoch: until [`Intake::epoch_cut`] no group opens.
    fn try_unit(&self) -> Option<Unit> {
        None
    }

    /// All tasks have ended the epoch: the next group may be opened.
    fn epoch_cut(&self) {}

    /// What reads its units in this process, where that goes by more than the plan.
    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> {
        None
    }

    /// A unit whose end was not known has been read to its end, which is `at`: its split has no more.
    fn ended(&self, _unit: &Unit, _at: u64) {}

    /// What is to be found in a manifest besides offsets: what is known of splits of which something has been handed out. It
    /// may know more than the manifest's offsets say.
    async fn state(&self) -> Result<serde_json::Value> {
        Ok(serde_json::Value::Null)
    }

    /// Called when a checkpoint is committed, and at a start with what the last one has committed: `offsets` will not be
    /// asked for again, whatever crashes, so a broker may be told to let go of it. It is called for every checkpoint,
    /// in order, and may be dropped when it takes long. An error is logged and the job goes on.
    async fn committed(&self, _offsets: &Offsets) -> Result<()> {
        Ok(())
    }

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
    fn lag(&self) -> Option<Lag> {
        None
    }

    /// What it has counted since the job started, each with a name: for `EXPLAIN ANALYZE STREAM` and for metrics.
    fn figures(&self) -> Vec<Figure> {
        vec![]
    }

    /// Called when somebody begins to wait for what is made of its rows, and when nobody does any more: see
    /// [`Sink::is_awaited`].
    fn await_rows(&self, _awaited: bool) {}

    /// Where row `row` of `read`, which was read of `split` from `from` on, stands in the words of messages:
    /// `file "a.csv", line 3`. None where the source has no better words than its name.
    async fn place(&self, _split: &Arc<str>, _from: u64, _read: &Read, _row: usize) -> Result<Option<String>> {
        Ok(None)
    }
}

/// An open source as tasks hold it.
#[async_trait]
pub trait Readers: Send + Sync {
    /// Begins to read `unit`. For a source with groups this may not wait.
    async fn read(&self, unit: &Unit) -> Result<Box<dyn UnitReader>>;
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// The split's name.
    #[serde(with = "crate::plain::text")]
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
