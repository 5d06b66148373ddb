//! A query between its logical plan and its graph: the plan's nodes, with what the passes find out about each.

use arrow::compute::SortOptions;
use datafusion::logical_expr::{
    Aggregate, EmptyRelation, Expr, Filter, Join, LogicalPlan, Projection, TableScan, Union, Unnest, Values, Window,
};
use millstream_engine::connector::series::Series;
use millstream_engine::operator::aggregate::{EmitMode, TimeKey};
use millstream_engine::operator::as_of::Expires;
use millstream_engine::operator::expiry::Expiry;
use millstream_engine::operator::gap::Sessions;
use millstream_engine::operator::join::{JoinColumn, JoinKind};
use millstream_engine::operator::over::First;
use millstream_engine::operator::temporal::Side;
use millstream_engine::operator::unnest::Unnested;
use millstream_engine::operator::window::WindowSpec;
use millstream_engine::spread::{Needed, Spread};

use crate::plan::as_of::AsOfJoin;

use super::time::{ScanId, TimeProperty, WindowsId};

/// A node. Inputs are nodes of their own, so each has one reader; only scans of one stream share what they read.
pub(super) struct Node<'p> {
    /// What it was made of.
    pub(super) plan: Option<&'p LogicalPlan>,
    /// What it does.
    pub(super) step: Step<'p>,
    /// In how many lookups it stands on the side that is looked up.
    pub(super) depth: usize,
    /// What it reads.
    pub(super) inputs: Vec<Node<'p>>,
    /// What is so whoever reads it: the first pass.
    pub(super) has: Properties,
    /// What its reader needs, and what follows for the node: the second pass.
    pub(super) needs: Requirements,
}

/// What a node does.
pub(super) enum Step<'p> {
    /// Reads these of the columns that the query reads of a stream.
    Scan { scan: ScanId, places: Vec<usize> },
    /// Gives rows that are written in the query.
    Values(&'p Values),
    /// Counts.
    Series(Series, &'p TableScan),
    /// Gives one row without columns, or none.
    Empty(&'p EmptyRelation),
    /// Computes columns.
    Project(&'p Projection),
    /// Leaves rows out.
    Filter(&'p Filter),
    /// Leaves rows out, and lets them come and go as time passes.
    Clock(Clocking<'p>),
    /// Puts rows into windows by their column `time`.
    Window { of: WindowsId, time: usize, windows: WindowSpec },
    /// Puts rows into sessions.
    Session(Sessioning),
    /// Adds up groups.
    Aggregate(Grouping<'p>),
    /// Gives the rows of all its inputs.
    Union(&'p Union),
    /// Puts rows of two inputs together.
    Join(Joining<'p>),
    /// Puts rows together with the one that is next to them in time.
    AsOf(AsOfing<'p>),
    /// Computes columns of the rows of partitions.
    Over(Overing<'p>),
    /// Runs a query anew over all rows of its inputs, for which the plan given has empty tables.
    Recompute(&'p LogicalPlan, LogicalPlan),
    /// Makes rows of lists and columns of structs.
    Unnest(&'p Unnest, Vec<Unnested>),
}

/// A `JOIN`, or what has become one.
pub(super) struct Joining<'p> {
    /// As planned.
    pub(super) plan: &'p Join,
    /// Which rows it gives.
    pub(super) kind: JoinKind,
    /// The columns of the key of each side; those that are computed stand behind all others.
    pub(super) keys: [Vec<usize>; 2],
    /// How those are computed.
    pub(super) computed: [Vec<Expr>; 2],
    /// What it gives.
    pub(super) columns: Vec<JoinColumn>,
    /// What it knows of times.
    pub(super) times: JoinTimes,
    /// Whether rows of the left side are looked up once, among those that the right side holds then.
    pub(super) lookup: bool,
}

/// A `WHERE` with conditions on `now()`.
pub(super) struct Clocking<'p> {
    /// As planned.
    pub(super) plan: &'p Filter,
    /// The other conditions.
    pub(super) rest: Option<Expr>,
    /// Those on `now()`, and as they are written.
    pub(super) bounds: Vec<Passing>,
    pub(super) text: String,
    /// The columns by whose hash rows are spread.
    pub(super) key: Vec<usize>,
}

/// A condition that holds from when, or until when, `now()` has reached a time of the row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Passing {
    /// The time.
    pub(super) time: Expr,
    /// Which way.
    pub(super) side: Side,
    /// Whether it has to be passed.
    pub(super) past: bool,
    /// By how many months and microseconds `now()` is moved.
    pub(super) moved: (i32, i64),
}

/// A `SESSION`.
pub(super) struct Sessioning {
    /// The column with the time.
    pub(super) time: usize,
    /// The columns of `PARTITION BY`.
    pub(super) key: Vec<usize>,
    /// Which sessions.
    pub(super) sessions: Sessions,
    /// What closes them, if anything does: what comes late behind it is late for them.
    pub(super) closing: Option<TimeProperty>,
}

/// What a join knows of times.
#[derive(Clone, Default)]
pub(super) struct JoinTimes {
    /// When rows of each side go.
    pub(super) expiry: [Option<Expiry>; 2],
    /// What comes late behind this is late for the join.
    pub(super) closing: Vec<TimeProperty>,
    /// The windows of both sides whose rows meet only each other.
    pub(super) windowed: Option<[WindowsId; 2]>,
}

/// An `ASOF JOIN`.
pub(super) struct AsOfing<'p> {
    /// As planned.
    pub(super) plan: &'p AsOfJoin,
    /// The columns of the key of each side; those that are computed stand behind all others.
    pub(super) keys: [Vec<usize>; 2],
    /// The column with the time of each side.
    pub(super) times: [usize; 2],
    /// How those are computed.
    pub(super) computed: [Vec<Expr>; 2],
    /// Which rows go behind the watermark.
    pub(super) expires: Expires,
    /// What comes late behind this is late for the join.
    pub(super) closing: Vec<TimeProperty>,
}

/// Calls with `OVER` of one partition and one order.
pub(super) struct Overing<'p> {
    /// As planned, over columns and constants.
    pub(super) plan: &'p Window,
    /// The columns of `PARTITION BY`.
    pub(super) key: Vec<usize>,
    /// Those of `ORDER BY`.
    pub(super) order: Vec<(usize, SortOptions)>,
    /// When partitions get no more rows.
    pub(super) expiry: Option<Expiry>,
    /// What comes late behind this is late for them.
    pub(super) closing: Option<TimeProperty>,
}

/// A `GROUP BY`.
pub(super) struct Grouping<'p> {
    /// As planned.
    pub(super) plan: &'p Aggregate,
    /// What each group column tells of event time.
    pub(super) times: Vec<Option<TimeProperty>>,
    /// What closes its groups, if anything does.
    pub(super) time: Option<TimeKey>,
    /// The group columns by whose hash groups are spread: none, or some of those that are no times.
    pub(super) cut: Vec<usize>,
}

/// What is so for the rows of a node.
#[derive(Clone, Debug)]
pub(super) struct Properties {
    /// Whether they are taken back.
    pub(super) growth: Growth,
    /// What each column tells of event time.
    pub(super) time: Vec<Option<TimeProperty>>,
    /// Columns that identify a row, where known.
    pub(super) key: Option<Vec<usize>>,
    /// The names of the columns of which there is one row for each value, so that there are no more rows; whether or not they are
    /// still there.
    pub(super) one_of: Option<Vec<String>>,
    /// Where they lie.
    pub(super) spread: Spread,
}

/// Whether rows are taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Growth {
    /// Never.
    Grows,
    /// Not if what closes below is said once it has closed.
    GrowsOnClose,
    /// They are.
    TakesBack,
}

/// What a node has to be like for its reader.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Requirements {
    /// When it says what its rows have become.
    pub(super) emit: EmitMode,
    /// Whether rows that it has said are never taken back. Follows from how its inputs emit.
    pub(super) append_only: bool,
    /// Whether windows come as panes: those that it gives, or those that it groups by.
    pub(super) panes: bool,
    /// Whether groups are added up before an exchange, too.
    pub(super) two_phases: bool,
    /// Up to which number rows are wanted, of calls with `OVER` that number them.
    pub(super) first: Option<First>,
    /// In which tasks the reader needs its rows.
    pub(super) rows: Needed,
}

impl<'p> Node<'p> {
    pub(super) fn new(step: Step<'p>, inputs: Vec<Node<'p>>, has: Properties) -> Self {
        let (emit, rows) = (EmitMode::Changes, Needed::Anywhere);
        let needs = Requirements { emit, append_only: false, panes: false, two_phases: false, first: None, rows };
        Node { plan: None, depth: 0, step, inputs, has, needs }
    }

    /// Leaves no node more tasks than `most`.
    pub(super) fn narrow(&mut self, most: usize) {
        self.has.spread.tasks = self.has.spread.tasks.min(most);
        self.inputs.iter_mut().for_each(|input| input.narrow(most));
    }

    /// Every `GROUP BY` of the query that has to do with when it emits, inputs first: rows are looked up among those that
    /// there are.
    pub(super) fn groupings(&self) -> Vec<&Grouping<'p>> {
        let mut found: Vec<_> = self.emitting().flat_map(Node::groupings).collect();
        if let Step::Aggregate(grouping) = &self.step {
            found.push(grouping);
        }
        found
    }

    /// Whether it can say rows once without groups that close: an ASOF join can, of rows whose match is known for good.
    pub(super) fn settles(&self) -> bool {
        let alone = matches!(self.step, Step::AsOf(_)) && self.has.growth == Growth::GrowsOnClose;
        alone || self.emitting().any(Node::settles)
    }

    /// Whether its rows are said once as they close, or those of a part of it that has to do with when it emits.
    pub(super) fn has_sessions(&self) -> bool {
        matches!(&self.step, Step::Session(sessioning) if sessioning.closing.is_some())
            || self.emitting().any(Node::has_sessions)
    }

    /// The inputs that emit when it does.
    fn emitting(&self) -> impl Iterator<Item = &Node<'p>> {
        let lookup = matches!(&self.step, Step::Join(joining) if joining.lookup);
        self.inputs.iter().take(if lookup { 1 } else { usize::MAX })
    }
}

impl Properties {
    /// Of rows with these of the columns, and others that are computed.
    pub(super) fn of_columns(&self, columns: &[Option<usize>]) -> Properties {
        let place = |column: usize| columns.iter().position(|c| *c == Some(column));
        Properties {
            growth: self.growth,
            time: columns.iter().map(|c| c.and_then(|c| self.time.get(c).cloned().flatten())).collect(),
            key: self.key.as_ref().and_then(|key| key.iter().map(|k| place(*k)).collect()),
            one_of: self.one_of.clone(),
            spread: self.spread.moved(place),
        }
    }
}
