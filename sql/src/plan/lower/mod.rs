//! Lowering: an optimized logical plan becomes a dataflow graph, in three passes.
//!
//! ```text
//! plan ── properties ──► tree ── requirements ──► tree ── operators ──► graph
//!         from the bottom up:     from the top down:      inputs first:
//!         taken back or not,      when a node emits,      specs and edges; an exchange where
//!         event time, key,        where its rows are      rows do not lie where they are
//!         where rows lie          needed, panes,          needed (`exchange`)
//!                                 what makes rows late
//! ```
//! A pass only adds to what the one before has found: what an operator has to be like is known before it is made, and
//! what is made is not changed. What cannot run continuously is refused here, naming the clause.

mod as_of;
mod clocked;
mod closing;
mod exchange;
mod join_times;
mod joins;
mod operators;
mod overs;
mod properties;
mod recursive;
mod refuse;
mod requirements;
mod scan;
mod time;
mod tree;
mod windows;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use millstream_engine::expr::harden;
use millstream_engine::graph::{Graph, NodeId, NodeKind, SinkNode};
use millstream_engine::operator::aggregate::EmitMode;
use millstream_engine::spread::{Needed, Spread};

use crate::error::Result;
use crate::statement::Emit;

use operators::Lowering;
use properties::Describing;
use refuse::refuse_unstable;
use requirements::{Requiring, emit_mode};
use scan::Scans;

pub(super) use refuse::refuse_clauses;
pub use scan::{Replaces, SourceTable, StreamScan};
pub use time::{ScanId, TimeProperty, WindowsId, event_column};

/// A lowered query, before its sink.
pub struct Lowered {
    /// The graph so far.
    pub graph: Graph,
    /// What is known of its result.
    pub output: Output,
}

/// What is known of a query's result.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its node.
    pub node: NodeId,
    /// The tasks of that.
    pub parallelism: usize,
    /// When it is emitted.
    pub emit: EmitMode,
    /// Whether rows are never taken back.
    pub append_only: bool,
    /// What each column tells of event time.
    pub time: Vec<Option<TimeProperty>>,
    /// Columns that identify a row, where known.
    pub key: Option<Vec<usize>>,
}

/// Lowers `plan`, an optimized plan over [`SourceTable`]s, for `parallelism` tasks.
pub fn lower(state: &SessionState, plan: &LogicalPlan, emit: Option<Emit>, parallelism: usize) -> Result<Lowered> {
    let scans = Scans::of(plan)?;
    let mut root = Describing::new(state, &scans, parallelism.max(2)).node(plan)?;
    root.narrow(parallelism);

    let emit = emit_mode(emit, &root, &scans)?;
    let mut requiring = Requiring::new(scans.all().len());
    requiring.node(&mut root, emit);

    let graph = Graph::default();
    let mut lowering = Lowering { state, scans: &scans, graph, parts: vec![], heads: vec![], tasks: parallelism };
    lowering.sources(requiring.closers)?;
    let node = lowering.node(&root)?;
    let graph = lowering.graph;
    let output = Output {
        node,
        parallelism: root.has.spread.tasks,
        emit: root.needs.emit,
        append_only: root.needs.append_only,
        time: root.has.time,
        key: root.has.key,
    };
    Ok(Lowered { graph, output })
}

/// Puts a sink behind a lowered query. `single` runs it in one task.
pub fn finish(lowered: &mut Lowered, sink: SinkNode, single: bool) -> NodeId {
    let lie = Spread::anyhow(lowered.output.parallelism);
    let needed = if single { Needed::Single } else { Needed::Anywhere };
    let edge = Lowering::exchange(lowered.output.node, &lie, &needed);
    lowered.graph.add(NodeKind::Sink(sink), vec![edge], needed.tasks(lie.tasks))
}

/// `expr` over rows of `schema` as the engine evaluates it.
fn physical(state: &SessionState, expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    refuse_unstable(expr)?;
    let physical = create_physical_expr(expr, schema, state.execution_props(), &PhysicalPlanningContext::default())?;
    Ok(harden(physical, schema.as_arrow())?)
}

/// The column that an expression merely passes on, as the engine sees it: a cast to the type that is there is none to it.
fn column_of(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    match expr {
        Expr::Alias(a) => column_of(&a.expr, schema),
        Expr::Cast(c) => {
            let column = column_of(&c.expr, schema)?;
            (schema.field(column).data_type() == c.field.data_type()).then_some(column)
        }
        Expr::Column(c) => schema.index_of_column(c).ok(),
        _ => None,
    }
}
