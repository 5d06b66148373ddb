//! Lowering: an optimized logical plan becomes a dataflow graph.
//!
//! Every node is lowered with the properties of its output: whether it only grows, which of its columns
//! tell event time (and how groups by them close), and which columns identify a row. What cannot run
//! continuously is refused here, naming the clause.

mod aggregate;
mod refuse;
mod scan;
mod time;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::new_null_array;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use millstream_engine::expr::harden;
use millstream_engine::graph::{Edge, Exchange, Graph, NodeId, NodeKind, SinkNode};
use millstream_engine::operator::SpecRef;
use millstream_engine::operator::aggregate::EmitMode;
use millstream_engine::operator::filter::Filter;
use millstream_engine::operator::project::Project;
use millstream_engine::operator::union::Union;
use millstream_engine::operator::window::{Length, WindowAssign as AssignSpec, WindowSpec};

use super::windows::{WindowAssign, WindowLength, WindowSpec as PlannedWindows};
use crate::error::{Error, Result};
use crate::statement::Emit;

use refuse::{refuse_unstable, refuse_volatile, refused};

pub(super) use refuse::refuse_clauses;
pub use scan::{SourceTable, StreamScan};
pub use time::TimeProperty;

/// A lowered query, before its sink.
pub struct Lowered {
    /// The graph so far.
    pub graph: Graph,
    /// The properties of its result.
    pub output: Output,
    /// How results are emitted.
    pub emit: EmitMode,
}

/// The properties of a node's output.
#[derive(Clone, Debug)]
pub struct Output {
    /// The node.
    pub node: NodeId,
    /// Its tasks.
    pub parallelism: usize,
    /// Whether rows are never taken back.
    pub append_only: bool,
    /// What each column tells of event time.
    pub time: Vec<Option<TimeProperty>>,
    /// Columns that identify a row, where known.
    pub key: Option<Vec<usize>>,
}

/// Lowers `plan`, an optimized plan over [`SourceTable`]s, for `parallelism` tasks.
pub fn lower(state: &SessionState, plan: &LogicalPlan, emit: Option<Emit>, parallelism: usize) -> Result<Lowered> {
    let closes = closable(plan);
    let mode = match emit {
        Some(Emit::OnWindowClose) => EmitMode::OnClose,
        Some(Emit::Changes | Emit::Every(_)) => EmitMode::Changes,
        None if closes => EmitMode::OnClose,
        None => EmitMode::Changes,
    };
    let mut first = Lowering::new(state, parallelism, mode);
    let mut result = first.lower(plan);
    let grows = |result: &Result<Output>| result.as_ref().is_ok_and(|output| output.append_only);
    if emit.is_none() && mode == EmitMode::OnClose && !grows(&result) {
        // The default falls back where some group has no end after all, or other rows are taken back.
        let mut second = Lowering::new(state, parallelism, EmitMode::Changes);
        // Where that fails too, its reason is the one that remains.
        result = second.lower(plan);
        first = second;
    }
    let output = result?;
    if emit == Some(Emit::OnWindowClose) && !first.closed_something {
        return Err(Error::invalid("EMIT ON WINDOW CLOSE needs a GROUP BY with a window")
            .with_hint("Group by window_start and window_end of TUMBLE, HOP or CUMULATE, or leave EMIT out."));
    }
    if emit == Some(Emit::OnWindowClose) && !output.append_only {
        return Err(Error::invalid("EMIT ON WINDOW CLOSE: a part of the query without windows takes rows back")
            .with_hint("Write EMIT CHANGES, or put the parts into streams of their own."));
    }
    Ok(Lowered { graph: first.graph, output, emit: first.emit })
}

/// Whether the plan has an aggregate at all: only then can closing be meant.
fn closable(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Aggregate(_)) || plan.inputs().into_iter().any(closable)
}

/// Puts a sink behind a lowered query. `single` runs it in one task.
pub fn finish(lowered: &mut Lowered, sink: SinkNode, single: bool) -> NodeId {
    let from = lowered.output.node;
    let single = single && lowered.output.parallelism > 1;
    let (exchange, parallelism) =
        if single { (Exchange::Single, 1) } else { (Exchange::Forward, lowered.output.parallelism) };
    lowered.graph.add(NodeKind::Sink(sink), vec![Edge { from, exchange }], parallelism)
}

struct Lowering<'a> {
    state: &'a SessionState,
    graph: Graph,
    parallelism: usize,
    emit: EmitMode,
    closed_something: bool,
    /// The scan of each stream, and which of its columns it reads.
    scans: BTreeMap<String, (Output, Vec<usize>)>,
    /// Nodes that assign windows whose bounds an expression looks at.
    looked_at: Vec<NodeId>,
    /// The time column of each node that assigns windows.
    assign_columns: BTreeMap<NodeId, usize>,
}

impl<'a> Lowering<'a> {
    fn new(state: &'a SessionState, parallelism: usize, emit: EmitMode) -> Self {
        let (graph, scans) = (Graph::default(), BTreeMap::new());
        let (looked_at, assign_columns) = (vec![], BTreeMap::new());
        Lowering { state, graph, parallelism, emit, closed_something: false, scans, looked_at, assign_columns }
    }

    fn lower(&mut self, plan: &LogicalPlan) -> Result<Output> {
        self.collect_scans(plan)?;
        self.node(plan)
    }

    fn node(&mut self, plan: &LogicalPlan) -> Result<Output> {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::SubqueryAlias(alias) => self.node(&alias.input),
            LogicalPlan::Projection(p) => {
                let input = self.node(&p.input)?;
                self.project(input, p.input.schema(), &p.expr, p.schema.as_ref())
            }
            LogicalPlan::Filter(f) => {
                let input = self.node(&f.input)?;
                self.filter(input, f.input.schema(), &f.predicate)
            }
            LogicalPlan::Aggregate(a) => {
                let input = self.node(&a.input)?;
                self.aggregate(input, a)
            }
            LogicalPlan::Values(v) => self.values(v),
            LogicalPlan::EmptyRelation(e) => {
                let (schema, rows) = (e.schema.inner(), usize::from(e.produce_one_row));
                let columns = schema.fields().iter().map(|f| new_null_array(f.data_type(), rows)).collect();
                self.constant(schema, columns, rows)
            }
            LogicalPlan::Union(u) => {
                let inputs = u.inputs.iter().map(|i| self.node(i)).collect::<Result<Vec<_>>>()?;
                self.union(inputs, u.schema.as_ref())
            }
            LogicalPlan::Extension(e) => match e.node.as_any().downcast_ref::<WindowAssign>() {
                Some(window) => {
                    let input = self.node(window.input())?;
                    self.window(input, window)
                }
                None => Err(Error::internal(format!("no operator for {}", e.node.name()))),
            },
            other => Err(refused(other)),
        }
    }

    fn operator(&mut self, spec: SpecRef, input: &Output) -> NodeId {
        let edge = Edge { from: input.node, exchange: Exchange::Forward };
        self.graph.add(NodeKind::Operator(spec), vec![edge], input.parallelism)
    }

    fn physical(&self, expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
        refuse_unstable(expr)?;
        let context = PhysicalPlanningContext::default();
        let physical = create_physical_expr(expr, schema, self.state.execution_props(), &context)?;
        Ok(harden(physical, schema.as_arrow())?)
    }

    fn project(&mut self, input: Output, from: &DFSchema, exprs: &[Expr], to: &DFSchema) -> Result<Output> {
        let mut expressions = Vec::with_capacity(exprs.len());
        let mut time = Vec::with_capacity(exprs.len());
        for e in exprs {
            if !input.append_only {
                refuse_volatile(e)?;
            }
            expressions.push(self.physical(e, from)?);
            time.push(self.time_of(e, from, &input)?);
        }
        let columns: Vec<Option<usize>> = exprs.iter().map(|e| column_of(e, from)).collect();
        self.note_uses(exprs.iter().zip(&columns).filter(|(_, c)| c.is_none()).map(|(e, _)| e), from, &input);
        let key = input.key.as_ref().and_then(|key| {
            key.iter().map(|k| columns.iter().position(|c| *c == Some(*k))).collect::<Option<Vec<_>>>()
        });
        let schema = Arc::clone(to.inner());
        let identity = columns.len() == from.fields().len()
            && columns.iter().enumerate().all(|(i, c)| *c == Some(i))
            && from.inner().fields().iter().zip(schema.fields()).all(|(a, b)| a.name() == b.name());
        if identity {
            return Ok(Output { time, key, ..input });
        }
        let node = self.operator(Arc::new(Project { expressions, schema }), &input);
        Ok(Output { node, time, key, ..input })
    }

    fn filter(&mut self, input: Output, from: &DFSchema, predicate: &Expr) -> Result<Output> {
        if matches!(predicate, Expr::Literal(ScalarValue::Boolean(Some(true)), _)) {
            return Ok(input);
        }
        if !input.append_only {
            refuse_volatile(predicate)?;
        }
        self.note_uses([predicate].into_iter(), from, &input);
        let predicate = self.physical(predicate, from)?;
        let schema = self.graph.schema(input.node);
        let node = self.operator(Arc::new(Filter { predicate, projection: None, schema }), &input);
        Ok(Output { node, ..input })
    }

    fn union(&mut self, inputs: Vec<Output>, to: &DFSchema) -> Result<Output> {
        let parallelism = inputs.iter().map(|i| i.parallelism).max().unwrap_or(1);
        let even = inputs.iter().all(|i| i.parallelism == parallelism);
        // Inputs of different widths meet in one task.
        let (exchange, parallelism) = if even { (Exchange::Forward, parallelism) } else { (Exchange::Single, 1) };
        let edges = inputs.iter().map(|i| Edge { from: i.node, exchange: exchange.clone() }).collect();
        let spec: SpecRef = Arc::new(Union { schema: Arc::clone(to.inner()) });
        let node = self.graph.add(NodeKind::Operator(spec), edges, parallelism);
        let append_only = inputs.iter().all(|i| i.append_only);
        let time = time::common(&inputs, to.fields().len());
        Ok(Output { node, parallelism, append_only, time, key: None })
    }

    fn window(&mut self, input: Output, window: &WindowAssign) -> Result<Output> {
        let at = window.input().schema().index_of_column(window.time_column())?;
        let windows = engine_windows(window.spec())?;
        let schema = self.graph.schema(input.node);
        let spec = AssignSpec::new(&schema, at, windows, None)?;
        let node = self.operator(Arc::new(spec), &input);
        self.assign_columns.insert(node, at);
        let origin = match &input.time[at] {
            Some(TimeProperty::Event { scans }) => scans.clone(),
            _ => vec![],
        };
        let timed = !origin.is_empty();
        let mut time = input.time.clone();
        for end in [false, true] {
            let property = TimeProperty::Window { assign: node, windows, end, scans: origin.clone() };
            time.push(timed.then_some(property));
        }
        Ok(Output { node, time, key: None, ..input })
    }
}

/// The column that an expression merely passes on.
fn column_of(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    match expr {
        Expr::Alias(a) => column_of(&a.expr, schema),
        Expr::Column(c) => schema.index_of_column(c).ok(),
        _ => None,
    }
}

fn engine_windows(spec: PlannedWindows) -> Result<WindowSpec> {
    let length = |l| match l {
        WindowLength::Micros(us) => Length::Micros(us),
        WindowLength::Months(n) => Length::Months(n),
    };
    let WindowLength::Micros(offset) = spec.offset() else {
        return Err(Error::unsupported("a window's offset in months cannot run continuously")
            .with_hint("Write the offset in days or less."));
    };
    Ok(match spec {
        PlannedWindows::Tumble { size, .. } => WindowSpec::Tumble { size: length(size), offset },
        PlannedWindows::Hop { slide, size, .. } => WindowSpec::Hop { slide: length(slide), size: length(size), offset },
        PlannedWindows::Cumulate { step: WindowLength::Micros(step), size: WindowLength::Micros(size), .. } => {
            WindowSpec::Cumulate { step, size, offset }
        }
        PlannedWindows::Cumulate { .. } => {
            return Err(Error::unsupported("CUMULATE by months cannot run continuously")
                .with_hint("Write step and size in days or less."));
        }
    })
}
