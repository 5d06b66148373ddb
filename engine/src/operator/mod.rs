//! Operators: synchronous state machines from changes to changes.
//!
//! The runtime, not the operator, does alignment, forwarding of marks, partitioning, checkpointing and
//! metrics. Within an epoch an operator may emit whenever it likes; when it sees the epoch's mark it
//! emits all that is still to say about that epoch.

pub mod aggregate;
pub mod as_of;
pub mod calendar;
pub mod expiry;
pub mod filter;
pub mod gap;
pub mod join;
pub mod length;
pub mod over;
pub mod project;
pub mod recompute;
pub mod session;
pub mod temporal;
pub mod union;
pub mod unnest;
pub mod upsert;
pub mod window;

use std::fmt;
use std::sync::Arc;

use arrow::array::UInt32Array;
use arrow::datatypes::SchemaRef;

use crate::changes::Changes;
use crate::epoch::EpochMark;
use crate::error::Result;
use crate::expr::{Failure, Failures};
use crate::spread::Needed;
use crate::state::StateRegistry;

/// A running operator.
pub trait Operator: Send {
    /// Takes in changes of the present epoch that came in at `port` (0 unless the operator has several inputs).
    fn on_changes(&mut self, port: usize, changes: Changes, out: &mut Output) -> Result<()>;

    /// Ends the epoch: says all that is still to say about it.
    fn on_epoch(&mut self, mark: &EpochMark, out: &mut Output) -> Result<()>;

    /// Goes on with what the last call had to say and `out` had no room for: called after [`Output::come_back`], when that was
    /// passed on, before anything else.
    fn go_on(&mut self, _out: &mut Output) -> Result<()> {
        Ok(())
    }

    /// When there is something to say next because time has passed, in microseconds since 1970: asked when an epoch has ended, of
    /// operators that [go by the clock](OperatorSpec::goes_by_clock).
    fn due(&self) -> Option<i64> {
        None
    }
}

/// What an operator says at once, in bytes; it may be the last piece more.
const ROOM: usize = 4 << 20;

/// Where an operator puts what it emits, and the rows that it cannot work on.
#[derive(Debug, Default)]
pub struct Output {
    ready: Vec<Changes>,
    /// How many of them have been measured, and their bytes.
    measured: usize,
    bytes: usize,
    aside: Vec<Aside>,
    comes_back: bool,
}

/// Rows on which an expression failed, with their weights: they become dead letters of the job.
#[derive(Clone, Debug)]
pub struct Aside {
    /// The rows, as the operator got them.
    pub changes: Changes,
    /// What failed, by row.
    pub failures: Vec<Failure>,
}

impl Output {
    /// Emits `changes`; empty ones are dropped.
    pub fn emit(&mut self, changes: Changes) {
        if !changes.is_empty() {
            self.ready.push(changes);
        }
    }

    /// Whether there is room for more. An operator that has much to say looks before each piece, so that what is said at
    /// once is bounded. Only then it is measured.
    pub fn has_room(&mut self) -> bool {
        self.bytes += self.ready[self.measured..].iter().map(Changes::bytes).sum::<usize>();
        self.measured = self.ready.len();
        self.bytes < ROOM
    }

    /// The operator has more to say: it is asked to [go on](Operator::go_on).
    pub fn come_back(&mut self) {
        self.comes_back = true;
    }

    /// Whether the operator is to be asked to go on.
    pub fn take_comes_back(&mut self) -> bool {
        std::mem::take(&mut self.comes_back)
    }

    /// Takes what has been emitted.
    pub fn take(&mut self) -> Vec<Changes> {
        (self.measured, self.bytes) = (0, 0);
        std::mem::take(&mut self.ready)
    }

    /// Puts the rows of `changes` aside that `failures` names, and gives the others. What is taken back later
    /// fails in the same way, so both end up aside.
    pub fn put_aside(&mut self, changes: Changes, failures: &Failures) -> Result<Changes> {
        let Some(good) = failures.good(changes.num_rows()) else { return Ok(changes) };
        let bad: UInt32Array = failures.iter().map(|(row, _)| row).collect();
        let why = failures.iter().map(|(_, failure)| failure.clone()).collect();
        self.aside.push(Aside { changes: changes.take(&bad)?, failures: why });
        changes.filter(&good)
    }

    /// Puts all of `changes` aside, with a failure for each row.
    pub fn put_all_aside(&mut self, changes: Changes, failures: Vec<Failure>) {
        debug_assert_eq!(changes.num_rows(), failures.len());
        if !changes.is_empty() {
            self.aside.push(Aside { changes, failures });
        }
    }

    /// Takes what has been put aside.
    pub fn take_aside(&mut self) -> Vec<Aside> {
        std::mem::take(&mut self.aside)
    }
}

/// The description of an operator: plain data that EXPLAIN prints and that builds the running thing.
pub trait OperatorSpec: fmt::Debug + Send + Sync {
    /// The operator's name as EXPLAIN prints it.
    fn name(&self) -> &'static str;

    /// Its arguments in a line, without the name.
    fn describe(&self) -> String;

    /// The schema of what it emits.
    fn schema(&self) -> SchemaRef;

    /// How its state is bounded.
    fn state_bound(&self) -> StateBound {
        StateBound::Stateless
    }

    /// What the meaning of its state's columns depends on, where it keeps any: words that change only with that meaning,
    /// since another build compares them with its own.
    fn fingerprint(&self) -> Option<String> {
        None
    }

    /// Whether it has something to say because time has passed, without a row that comes.
    fn goes_by_clock(&self) -> bool {
        false
    }

    /// Where it needs the rows of `port` to lie.
    fn needs(&self, _port: usize) -> Needed {
        Needed::Anywhere
    }

    /// Where it gives the values of column `column` of the rows of `port`, if it gives them with the rows that it makes of those.
    fn place_of(&self, _port: usize, _column: usize) -> Option<usize> {
        None
    }

    /// Builds the operator for one task; state is opened through `context`.
    fn build(&self, context: &mut BuildContext<'_>) -> Result<Box<dyn Operator>>;
}

/// What an operator may use when it is built.
pub struct BuildContext<'a> {
    /// Opens state; what is opened here is checkpointed and restored by the runtime.
    pub state: &'a mut StateRegistry,
}

/// What bounds an operator's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateBound {
    /// It keeps none.
    Stateless,
    /// Within an epoch only.
    Epoch,
    /// It goes when the watermark has passed.
    Watermark,
    /// It goes when time has passed.
    Now,
    /// One entry per distinct value of these columns.
    Keys(String),
    /// So many rows, or so many for each distinct value of these columns.
    Rows(u64, String),
    /// It keeps an input that ends.
    Input,
    /// It keeps its input.
    Unbounded,
}

impl fmt::Display for StateBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateBound::Stateless => f.write_str("none"),
            StateBound::Epoch => f.write_str("within an epoch"),
            StateBound::Watermark => f.write_str("bounded by watermark"),
            StateBound::Now => f.write_str("bounded by now()"),
            StateBound::Keys(keys) if keys.is_empty() => f.write_str("one row"),
            StateBound::Keys(keys) => write!(f, "bounded by keys ({keys})"),
            StateBound::Rows(most, keys) if keys.is_empty() => write!(f, "bounded by rows ({most})"),
            StateBound::Rows(most, keys) => write!(f, "bounded by keys ({keys}), {most} rows each"),
            StateBound::Input => f.write_str("bounded by an input that ends"),
            StateBound::Unbounded => f.write_str("unbounded"),
        }
    }
}

/// A shared description.
pub type SpecRef = Arc<dyn OperatorSpec>;
