//! The first pass, from the bottom up: what is so for a node whoever reads it.
//!
//! Whether rows are taken back, what columns tell of event time and which of them identify a row, and where rows lie. Where
//! they lie is found as if there were several tasks, since state is cut alike for any number of them.
//! What no operator stands for is refused here.

use std::collections::BTreeMap;

use datafusion::common::DFSchema;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, Projection, TableScan, Union, Unnest};
use millstream_engine::operator::unnest::Unnested;
use millstream_engine::operator::window::WindowSpec;
use millstream_engine::spread::Spread;

use super::refuse::{not_yet, refused};
use super::scan::Scans;
use super::time::{ScanId, TimeProperty, WindowsId, time_of};
use super::tree::{Grouping, Growth, Node, Properties, Sessioning, Step};
use super::windows::engine_windows;
use super::{closing, column_of};
use crate::error::{Error, Result};
use crate::plan::as_of::AsOfJoin;
use crate::plan::as_of_now::AsOfNow;
use crate::plan::series::SeriesTable;
use crate::plan::windows::WindowAssign;
use crate::semantics::Semantics;

/// Rows in sessions, which are the windows `of`.
fn session(mut sessioning: Sessioning, of: WindowsId, input: Node<'_>) -> Node<'_> {
    let windows = WindowSpec::Session(sessioning.sessions);
    let bound = |end: bool| match &input.has.time[sessioning.time] {
        Some(TimeProperty::Event { scans }) => Some(TimeProperty::Window { of, windows, end, scans: scans.clone() }),
        _ => None,
    };
    // A row is said long after its time, but not after its session has closed.
    let mut time = vec![None; input.has.time.len()];
    time.extend([bound(false), bound(true)]);
    sessioning.closing = bound(true);
    let has = Properties {
        growth: if sessioning.closing.is_some() { Growth::GrowsOnClose } else { Growth::TakesBack },
        time,
        spread: match sessioning.key.is_empty() {
            true => Spread::anyhow(1),
            false => Spread { tasks: input.has.spread.tasks, by: Some(sessioning.key.clone()) },
        },
        ..input.has.clone()
    };
    Node::new(Step::Session(sessioning), vec![input], has)
}

/// The pass.
pub(super) struct Describing<'a> {
    pub(super) state: &'a SessionState,
    /// What the query reads.
    pub(super) scans: &'a Scans,
    /// The tasks of what can run in several.
    pub(super) tasks: usize,
    /// So many nodes have given windows.
    windows: WindowsId,
    /// The windows of unions, by those of their inputs.
    unions: BTreeMap<Vec<WindowsId>, WindowsId>,
    /// How deep the node at hand stands, and whether it is one in which rows are looked up.
    depth: usize,
    pub(super) looks_up: bool,
}

impl<'a> Describing<'a> {
    pub(super) fn new(state: &'a SessionState, scans: &'a Scans, tasks: usize) -> Self {
        Describing { state, scans, tasks, windows: 0, unions: BTreeMap::new(), depth: 0, looks_up: false }
    }

    /// The tree of `plan`.
    pub(super) fn node<'p>(&mut self, plan: &'p LogicalPlan) -> Result<Node<'p>> {
        let node = self.described(plan)?;
        Ok(Node { plan: node.plan.or(Some(plan)), depth: self.depth, ..node })
    }

    fn described<'p>(&mut self, plan: &'p LogicalPlan) -> Result<Node<'p>> {
        match plan {
            LogicalPlan::TableScan(scan) => match SeriesTable::of(scan) {
                Some(series) => Ok(self.written(Step::Series(series?, scan), scan.projected_schema.fields().len())),
                None => self.scan(scan),
            },
            LogicalPlan::SubqueryAlias(alias) => self.node(&alias.input),
            LogicalPlan::Projection(p) => {
                let input = self.node(&p.input)?;
                self.project(p, input)
            }
            LogicalPlan::Filter(f) => self.filter(f),
            LogicalPlan::Aggregate(a) => {
                let input = self.node(&a.input)?;
                self.aggregate(a, input)
            }
            LogicalPlan::Values(v) => Ok(self.written(Step::Values(v), v.schema.fields().len())),
            LogicalPlan::EmptyRelation(e) => Ok(self.written(Step::Empty(e), e.schema.fields().len())),
            LogicalPlan::Union(u) => {
                let inputs = u.inputs.iter().map(|i| self.node(i)).collect::<Result<Vec<_>>>()?;
                Ok(self.union(u, inputs))
            }
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Window(window) => self.over(window),
            LogicalPlan::RecursiveQuery(_) => self.recompute(plan),
            LogicalPlan::Unnest(unnest) => {
                let input = self.node(&unnest.input)?;
                self.unnest(unnest, input)
            }
            plan if let Some(of) = AsOfNow::of(plan) => self.looked_up(of),
            plan if let Some(join) = AsOfJoin::of(plan) => self.as_of(join),
            LogicalPlan::Extension(e) => match e.node.as_any().downcast_ref::<WindowAssign>() {
                Some(window) => {
                    let input = self.node(window.input())?;
                    self.window(window, input)
                }
                None => Err(Error::internal(format!("no operator for {}", e.node.name()))),
            },
            other => Err(refused(other)),
        }
    }

    fn scan<'p>(&self, scan: &'p TableScan) -> Result<Node<'p>> {
        let (scan, places) = self.scans.places_of(scan, self.depth)?;
        let has = self.scanned(scan).of_columns(&places.iter().copied().map(Some).collect::<Vec<_>>());
        Ok(Node::new(Step::Scan { scan, places }, vec![], has))
    }

    /// A relation in which rows are looked up.
    fn looked_up<'p>(&mut self, of: &'p AsOfNow) -> Result<Node<'p>> {
        if !std::mem::take(&mut self.looks_up) {
            return Err(Error::internal("FOR SYSTEM_TIME AS OF now() is not right of a join any more"));
        }
        self.depth += 1;
        let node = self.node(&of.input);
        self.depth -= 1;
        node
    }

    /// What is so for all that is read by scan `id`.
    fn scanned(&self, id: ScanId) -> Properties {
        let scanned = &self.scans.all()[id];
        let event = scanned.time.and_then(|time| scanned.place(time));
        let time = |column| (event == Some(column)).then(|| TimeProperty::Event { scans: vec![id] });
        let names = |key: Vec<usize>| key.iter().map(|k| scanned.stream.schema().field(*k).name().clone()).collect();
        Properties {
            one_of: scanned.stream.key().filter(|_| scanned.stream.is_changelog()).map(names),
            growth: if scanned.stream.is_changelog() { Growth::TakesBack } else { Growth::Grows },
            time: (0..scanned.columns.len()).map(time).collect(),
            key: scanned.stream.key().and_then(|k| k.into_iter().map(|c| scanned.place(c)).collect()),
            spread: Spread { tasks: self.tasks, by: scanned.replaces().map(|replaces| replaces.key) },
        }
    }

    /// Rows that are written in the query.
    fn written<'p>(&self, step: Step<'p>, columns: usize) -> Node<'p> {
        let (time, spread) = (vec![None; columns], Spread::anyhow(self.tasks));
        Node::new(step, vec![], Properties { growth: Growth::Grows, time, key: None, one_of: Some(vec![]), spread })
    }

    fn project<'p>(&self, plan: &'p Projection, input: Node<'p>) -> Result<Node<'p>> {
        let from = plan.input.schema();
        let columns: Vec<Option<usize>> = plan.expr.iter().map(|e| column_of(e, from)).collect();
        let mut has = input.has.of_columns(&columns);
        has.time = self.times_of(&plan.expr, from, &input)?;
        Ok(Node::new(Step::Project(plan), vec![input], has))
    }

    fn times_of(&self, exprs: &[Expr], from: &DFSchema, input: &Node<'_>) -> Result<Vec<Option<TimeProperty>>> {
        exprs.iter().map(|e| time_of(self.state, e, from, &input.has.time)).collect()
    }

    fn window<'p>(&mut self, plan: &'p WindowAssign, input: Node<'p>) -> Result<Node<'p>> {
        let (at, key) = plan.places()?;
        let windows = engine_windows(plan.spec())?;
        let of = self.new_windows();
        if let WindowSpec::Session(sessions) = windows {
            return Ok(session(Sessioning { time: at, key, sessions, closing: None }, of, input));
        }
        let mut has = Properties { key: None, ..input.has.clone() };
        for end in [false, true] {
            has.time.push(match &input.has.time[at] {
                Some(TimeProperty::Event { scans }) => {
                    Some(TimeProperty::Window { of, windows, end, scans: scans.clone() })
                }
                _ => None,
            });
        }
        Ok(Node::new(Step::Window { of, time: at, windows }, vec![input], has))
    }

    fn unnest<'p>(&self, plan: &'p Unnest, input: Node<'p>) -> Result<Node<'p>> {
        if plan.list_type_columns.iter().any(|(_, list)| list.depth > 1) {
            return Err(not_yet(
                "unnest of unnest",
                "Write the inner one in a subquery: unnest(x) FROM (SELECT unnest(…) AS x …).",
            ));
        }
        let mut columns = Vec::with_capacity(plan.dependency_indices.len());
        for from in &plan.dependency_indices {
            columns.push(if plan.list_type_columns.iter().any(|(list, _)| list == from) {
                Unnested::Elements(*from)
            } else if plan.struct_type_columns.contains(from) {
                let before = columns.iter().filter(|c| matches!(c, Unnested::Field(of, _) if of == from)).count();
                Unnested::Field(*from, before)
            } else {
                Unnested::Passed(*from)
            });
        }
        let passed = columns.iter().map(|c| if let Unnested::Passed(at) = c { Some(*at) } else { None });
        let mut has = input.has.of_columns(&passed.collect::<Vec<_>>());
        if !plan.list_type_columns.is_empty() {
            has.key = None;
        }
        Ok(Node::new(Step::Unnest(plan, columns), vec![input], has))
    }

    fn new_windows(&mut self) -> WindowsId {
        self.windows += 1;
        self.windows
    }

    fn aggregate<'p>(&self, plan: &'p Aggregate, input: Node<'p>) -> Result<Node<'p>> {
        let times = self.times_of(&plan.group_expr, plan.input.schema(), &input)?;
        let time = closing::time_key(&times, self.scans);
        // Values of a function of time are themselves no event time, but what a window's rows have become has the
        // window's bounds.
        let is_bound = |t: &Option<TimeProperty>| t.clone().filter(|t| matches!(t, TimeProperty::Window { .. }));
        let mut kept: Vec<_> = times.iter().map(is_bound).collect();
        kept.resize(plan.schema.fields().len(), None);
        let cut = self.cut_of(plan, closing::plain_keys(plan.group_expr.len(), time.as_ref()), &input);
        let grouping = Grouping { plan, times, time, cut };
        let has = Properties {
            growth: if grouping.time.is_some() { Growth::GrowsOnClose } else { Growth::TakesBack },
            time: kept,
            key: Some((0..plan.group_expr.len()).collect()),
            one_of: grouping
                .time
                .is_none()
                .then(|| plan.group_expr.iter().map(|e| e.schema_name().to_string()).collect()),
            spread: match grouping.cut.is_empty() {
                true => Spread::anyhow(1),
                false => Spread { tasks: input.has.spread.tasks, by: Some(grouping.cut.clone()) },
            },
        };
        Ok(Node::new(Step::Aggregate(grouping), vec![input], has))
    }

    /// By the hash of which of the keys `plain` groups are spread: those by which `input` lies, if all are among them, so
    /// that they are made where their rows lie.
    fn cut_of(&self, plan: &Aggregate, plain: Vec<usize>, input: &Node<'_>) -> Vec<usize> {
        let lies = input.has.spread.by.as_ref().filter(|_| Semantics::of(self.state).groups_stay());
        let from = plan.input.schema();
        let key_of =
            |column: usize| plain.iter().copied().find(|k| column_of(&plan.group_expr[*k], from) == Some(column));
        lies.and_then(|by| by.iter().map(|column| key_of(*column)).collect()).unwrap_or(plain)
    }

    fn union<'p>(&mut self, plan: &'p Union, inputs: Vec<Node<'p>>) -> Node<'p> {
        let tasks = inputs.iter().map(|i| i.has.spread.tasks).max().unwrap_or(1);
        let even = inputs.iter().all(|i| i.has.spread.tasks == tasks);
        let has = Properties {
            growth: inputs.iter().map(|i| i.has.growth).max().unwrap_or(Growth::Grows),
            time: (0..plan.schema.fields().len()).map(|c| self.time_of_all(&inputs, c)).collect(),
            key: None,
            one_of: None,
            // Inputs of different widths meet in one task.
            spread: if even { Spread::of_all(inputs.iter().map(|i| &i.has.spread), tasks) } else { Spread::anyhow(1) },
        };
        Node::new(Step::Union(plan), inputs, has)
    }

    /// What column `at` of all `inputs` of a union tells.
    fn time_of_all(&mut self, inputs: &[Node<'_>], at: usize) -> Option<TimeProperty> {
        let all = inputs.iter().map(|input| input.has.time.get(at)?.as_ref()).collect::<Option<Vec<_>>>()?;
        let mut scans: Vec<_> = all.iter().flat_map(|p| p.scans().iter().copied()).collect();
        scans.sort_unstable();
        scans.dedup();
        if all.iter().all(|p| matches!(p, TimeProperty::Event { .. })) {
            return Some(TimeProperty::Event { scans });
        }
        let Some(TimeProperty::Window { windows, end, .. }) = all.first() else { return None };
        let same = |p: &&TimeProperty| match p {
            TimeProperty::Window { of, windows: w, end: e, .. } if w == windows && e == end => Some(*of),
            _ => None,
        };
        let of = all.iter().map(same).collect::<Option<Vec<_>>>()?;
        let next = self.windows + 1;
        let of = *self.unions.entry(of).or_insert(next);
        self.windows = self.windows.max(of);
        Some(TimeProperty::Window { of, windows: *windows, end: *end, scans })
    }
}
