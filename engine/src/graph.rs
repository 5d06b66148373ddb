//! The dataflow graph of a job: operator specs joined by edges.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion_physical_expr::PhysicalExpr;

#[cfg(doc)]
use crate::connector::Opening;
use crate::connector::{Sink, Source};
use crate::error::{Error, Result};
use crate::operator::window::Closer;
use crate::operator::{SpecRef, StateBound};
use crate::spread::Spread;

/// The position of a node in its graph. Inputs come before the nodes that read them.
pub type NodeId = usize;

/// A job's dataflow.
#[derive(Clone, Default)]
pub struct Graph {
    /// The nodes, inputs first.
    pub nodes: Vec<Node>,
}

/// One node.
#[derive(Clone)]
pub struct Node {
    /// What it does.
    pub kind: NodeKind,
    /// Its inputs, by port.
    pub inputs: Vec<Edge>,
    /// How many tasks run it.
    pub parallelism: usize,
}

/// What a node does.
#[derive(Clone)]
pub enum NodeKind {
    /// Reads rows from a connector.
    Source(SourceNode),
    /// Maps changes to changes.
    Operator(SpecRef),
    /// Takes the result away.
    Sink(SinkNode),
}

/// A scan of a stream.
#[derive(Clone, Debug)]
pub struct SourceNode {
    /// The stream's name.
    pub stream: String,
    /// Where the rows come from.
    pub source: Arc<dyn Source>,
    /// The conditions of those who read it that may leave rows out: see [`Opening::conditions`].
    pub conditions: Vec<Vec<Arc<dyn PhysicalExpr>>>,
    /// The schema of its rows.
    pub schema: SchemaRef,
    /// Event time, if the stream has any.
    pub time: Option<ScanTime>,
    /// When it is read: at the start of a job one that is deeper is read up to what is there before others begin, since rows are
    /// looked up in it.
    pub depth: usize,
}

impl SourceNode {
    /// All of `source`, without event time, read like all others.
    pub fn new(stream: impl Into<String>, source: Arc<dyn Source>, schema: SchemaRef) -> Self {
        SourceNode { stream: stream.into(), source, conditions: vec![], schema, time: None, depth: 0 }
    }
}

/// How a scan tells event time.
#[derive(Clone, Debug)]
pub struct ScanTime {
    /// The event-time column.
    pub column: usize,
    /// The bound that a row sets: no later row is expected before it (`ts - INTERVAL …`). `None` where the
    /// source itself tells the watermark.
    pub bound: Option<TimeBound>,
    /// What closes in the operators fed by this scan; a row that any of these has closed is late.
    pub closers: Vec<Closer>,
    /// A split without rows for this long stops holding the watermark.
    pub idle_timeout: std::time::Duration,
}

/// The bound that rows set.
#[derive(Clone, Debug)]
pub enum TimeBound {
    /// An expression over the scan's columns, by row.
    Rows(Arc<dyn PhysicalExpr>),
    /// The event time of the latest row less so many microseconds.
    Behind(i64),
}

impl TimeBound {
    /// The bound that `expr` sets over rows whose event time is column `time`. `ts - INTERVAL …` (without
    /// months) needs to look at the latest row only.
    pub fn of(expr: Arc<dyn PhysicalExpr>, time: usize) -> Self {
        use datafusion_common::ScalarValue::IntervalMonthDayNano;
        use datafusion_expr::Operator;
        use datafusion_physical_expr::expressions::{BinaryExpr, Column, Literal};
        let is_time = |e: &Arc<dyn PhysicalExpr>| e.downcast_ref::<Column>().is_some_and(|c| c.index() == time);
        if is_time(&expr) {
            return TimeBound::Behind(0);
        }
        if let Some(minus) = expr.downcast_ref::<BinaryExpr>()
            && *minus.op() == Operator::Minus
            && is_time(minus.left())
            && let Some(literal) = minus.right().downcast_ref::<Literal>()
            && let IntervalMonthDayNano(Some(interval)) = literal.value()
            && interval.months == 0
            && interval.nanoseconds % 1000 == 0
        {
            return TimeBound::Behind(i64::from(interval.days) * 86_400_000_000 + interval.nanoseconds / 1000);
        }
        TimeBound::Rows(expr)
    }
}

/// The end of a graph.
#[derive(Clone)]
pub struct SinkNode {
    /// The name to show.
    pub name: String,
    /// Where the rows go.
    pub sink: Arc<dyn Sink>,
}

/// An input of a node.
#[derive(Clone, Debug)]
pub struct Edge {
    /// The node it comes from.
    pub from: NodeId,
    /// How rows find their task.
    pub exchange: Exchange,
}

/// How rows find their task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Task `i` feeds task `i`: no exchange, both run in one task.
    Forward,
    /// By the hash of these columns.
    Hash(Vec<usize>),
    /// All to the one task.
    Single,
}

impl Graph {
    /// Adds a node and returns its id.
    pub fn add(&mut self, kind: NodeKind, inputs: Vec<Edge>, parallelism: usize) -> NodeId {
        self.nodes.push(Node { kind, inputs, parallelism });
        self.nodes.len() - 1
    }

    /// The sources in order: a checkpoint knows one by its place among them.
    pub fn sources(&self) -> impl Iterator<Item = &SourceNode> {
        self.nodes.iter().filter_map(|n| match &n.kind {
            NodeKind::Source(source) => Some(source),
            _ => None,
        })
    }

    /// Whether a part of it has something to say because time has passed.
    pub fn goes_by_clock(&self) -> bool {
        self.nodes.iter().any(|n| matches!(&n.kind, NodeKind::Operator(operator) if operator.goes_by_clock()))
    }

    /// The sources in order, to be changed.
    pub fn sources_mut(&mut self) -> impl Iterator<Item = &mut SourceNode> {
        self.nodes.iter_mut().filter_map(|n| match &mut n.kind {
            NodeKind::Source(source) => Some(source),
            _ => None,
        })
    }

    /// The sinks in order. A checkpoint knows a sink by its place among them, which stays when another
    /// parallelism adds or removes nodes.
    pub fn sinks(&self) -> impl Iterator<Item = (NodeId, &SinkNode)> {
        self.nodes.iter().enumerate().filter_map(|(id, n)| match &n.kind {
            NodeKind::Sink(sink) => Some((id, sink)),
            _ => None,
        })
    }

    /// Whether anything acts on watermarks: an operator whose state they bound, or who reads a sink.
    pub fn follows_time(&self) -> bool {
        self.nodes.iter().any(|n| match &n.kind {
            NodeKind::Source(s) => s.time.as_ref().is_some_and(|t| !t.closers.is_empty()),
            NodeKind::Operator(o) => o.state_bound() == StateBound::Watermark,
            NodeKind::Sink(s) => s.sink.tells_time(),
        })
    }

    /// The schema of what node `id` emits (for a sink: what it takes in).
    pub fn schema(&self, id: NodeId) -> SchemaRef {
        match &self.nodes[id].kind {
            NodeKind::Source(s) => s.schema.clone(),
            NodeKind::Operator(o) => o.schema(),
            NodeKind::Sink(_) => self.schema(self.nodes[id].inputs[0].from),
        }
    }

    /// Checks what the runtime and the operators rely on: inputs come first, forward edges keep the parallelism,
    /// single edges end in one task, and rows lie where their reader needs them.
    pub fn validate(&self) -> Result<()> {
        self.validate_edges()?;
        let mut lie: Vec<Spread> = Vec::with_capacity(self.nodes.len());
        for (id, node) in self.nodes.iter().enumerate() {
            let arrive: Vec<Spread> = node.inputs.iter().map(|e| e.arrive(&lie[e.from], node.parallelism)).collect();
            let NodeKind::Operator(spec) = &node.kind else {
                lie.push(Spread::anyhow(node.parallelism));
                continue;
            };
            if let Some(port) = (0..arrive.len()).find(|port| !arrive[*port].fits(&spec.needs(*port))) {
                let (name, lies, needed) = (spec.name(), &arrive[port], spec.needs(port));
                return Err(Error::internal(format!("node {id}, {name}: rows lie {lies:?}, needed are {needed:?}")));
            }
            let emitted: Vec<Spread> = arrive
                .iter()
                .enumerate()
                .map(|(port, rows)| rows.moved(|column| spec.place_of(port, column)))
                .collect();
            lie.push(Spread::of_all(emitted.iter(), node.parallelism));
        }
        Ok(())
    }

    fn validate_edges(&self) -> Result<()> {
        for (id, node) in self.nodes.iter().enumerate() {
            for edge in &node.inputs {
                let from = self.nodes.get(edge.from).filter(|_| edge.from < id);
                let from = from.ok_or_else(|| Error::internal(format!("node {id} reads node {}", edge.from)))?;
                let fits = match edge.exchange {
                    Exchange::Forward => from.parallelism == node.parallelism,
                    Exchange::Single => node.parallelism == 1,
                    Exchange::Hash(_) => true,
                };
                if !fits {
                    return Err(Error::internal(format!(
                        "node {id}: {:?} does not fit its parallelism",
                        edge.exchange
                    )));
                }
            }
        }
        Ok(())
    }
}

impl Edge {
    /// Where rows that lie so in the node that they come from lie in the reader's tasks.
    fn arrive(&self, lie: &Spread, tasks: usize) -> Spread {
        match &self.exchange {
            Exchange::Forward => lie.clone(),
            Exchange::Hash(columns) => Spread { tasks, by: Some(columns.clone()) },
            Exchange::Single => Spread::anyhow(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion_physical_expr::expressions::Column;

    use super::*;
    use crate::connector::constant::Constant;
    use crate::operator::project::Project;
    use crate::operator::upsert::{Upsert, Weights};

    /// `a` and `b` come from a source of two tasks by the hash of `columns`, are projected to `places`, and go to an upsert
    /// by the first of them.
    fn keyed(columns: &[usize], places: &[usize]) -> Result<()> {
        let schema = Arc::new(Schema::new(["a", "b"].map(|n| Field::new(n, DataType::Int64, true)).to_vec()));
        let rows = arrow::array::RecordBatch::new_empty(schema.clone());
        let source = Arc::new(Constant::new(rows));
        let mut graph = Graph::default();
        let from = graph.add(NodeKind::Source(SourceNode::new("s", source, schema.clone())), vec![], 2);
        let column = |p: &usize| -> Arc<dyn PhysicalExpr> { Arc::new(Column::new(schema.field(*p).name(), *p)) };
        let projected = Arc::new(schema.project(places).expect("columns"));
        let project = Project { expressions: places.iter().map(column).collect(), schema: projected.clone() };
        let exchange = if columns.is_empty() { Exchange::Forward } else { Exchange::Hash(columns.to_vec()) };
        let from = graph.add(NodeKind::Operator(Arc::new(project)), vec![Edge { from, exchange }], 2);
        let upsert = Upsert { key: vec![0], schema: projected, weights: Weights::Netted };
        graph.add(NodeKind::Operator(Arc::new(upsert)), vec![Edge { from, exchange: Exchange::Forward }], 2);
        graph.validate()
    }

    #[test]
    fn keyed_operators_get_their_keys_or_are_refused() {
        keyed(&[0], &[0, 1]).expect("rows lie by the key");
        keyed(&[1], &[1, 0]).expect("rows lie by the key, in another place");
        for (columns, places) in
            [(vec![], vec![0, 1]), (vec![1], vec![0, 1]), (vec![0, 1], vec![0, 1]), (vec![0], vec![1])]
        {
            let e = keyed(&columns, &places).expect_err("rows of a key lie in several tasks");
            assert!(e.message().starts_with("node 2, upsert: rows lie "), "{e}");
        }
    }
}
