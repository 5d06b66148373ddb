//! Sources: of the streams that a query reads, and of rows that are written in it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{cast, concat};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{EmptyRelation, Expr, TableScan, Values};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use millstream_engine::connector::constant::Constant;
use millstream_engine::connector::series::{Series, SeriesSource};
use millstream_engine::graph::{NodeId, NodeKind, ScanTime, SourceNode, TimeBound};
use millstream_engine::operator::SpecRef;
use millstream_engine::operator::project::Project;
use millstream_engine::operator::upsert::{Upsert, Weights};
use millstream_engine::operator::window::Closer;
use millstream_engine::spread::{Needed, Spread};

use super::Lowering;
use crate::error::{Error, Result};
use crate::plan::bound::is_steady;
use crate::plan::lower::physical;
use crate::plan::lower::scan::{Replaces, Scanned};
use crate::plan::lower::time::ScanId;
use crate::plan::lower::tree::Node;

/// Rows that a query has itself are read before those of streams: in batch they are there, too, when the first row comes.
const READ_BEFORE: usize = 1;

impl Lowering<'_> {
    /// Makes the sources of all streams, before everything else. `closers` say what closes behind each.
    pub(in crate::plan::lower) fn sources(&mut self, closers: Vec<Vec<Closer>>) -> Result<()> {
        let all = self.scans.all();
        let made = all.iter().zip(closers).map(|(scanned, closers)| self.source(scanned, closers));
        let made = made.collect::<Result<Vec<_>>>()?;
        self.heads = all.iter().zip(made).map(|(scanned, source)| self.head(scanned, source)).collect();
        Ok(())
    }

    fn source(&mut self, scanned: &Scanned, closers: Vec<Closer>) -> Result<NodeId> {
        let Scanned { stream, columns, filters, depth, .. } = scanned;
        let tasks = if stream.is_in_order() { 1 } else { self.tasks };
        let source = stream.source(columns.clone(), tasks)?;
        // Of rows that are replaced none may be left out before.
        let conditions = match stream.replaces() {
            None => filters.iter().map(|filters| self.conditions(filters)).collect(),
            Some(_) => vec![],
        };
        let schema = Arc::new(stream.schema().project(columns)?);
        let time = match stream.event_time() {
            None => None,
            Some((column, bound)) => {
                let column = scanned.place(column).ok_or_else(|| Error::internal("the event time is not read"))?;
                let bound = bound.map(|b| rebase(b, columns)).transpose()?.map(|b| TimeBound::of(b, column));
                Some(ScanTime { column, bound, closers, idle_timeout: stream.idle_timeout() })
            }
        };
        let kind = SourceNode { conditions, time, depth: *depth, ..SourceNode::new(stream.name(), source, schema) };
        Ok(self.graph.add(NodeKind::Source(kind), vec![], tasks))
    }

    /// What the rows of a scan come from: its source, or what has seen to it that later rows replace earlier ones. Rows that
    /// one task reads go to all from here.
    fn head(&mut self, scanned: &Scanned, source: NodeId) -> NodeId {
        if !scanned.stream.is_in_order() {
            return source;
        }
        let schema = self.graph.schema(source);
        let all: Vec<usize> = (0..schema.fields().len()).collect();
        let (needed, spec): (_, SpecRef) = match scanned.replaces() {
            Some(Replaces { key, beside }) => {
                (Needed::hash(key.clone()), Arc::new(Upsert { key, schema, weights: Weights::InOrder { beside } }))
            }
            None if self.tasks == 1 => return source,
            None => {
                let column =
                    |c: &usize| -> Arc<dyn PhysicalExpr> { Arc::new(Column::new(schema.field(*c).name(), *c)) };
                let expressions = all.iter().map(column).collect();
                (Needed::hash(all), Arc::new(Project { expressions, schema }))
            }
        };
        let edge = Self::exchange(source, &Spread::anyhow(self.tasks), &needed);
        self.graph.add(NodeKind::Operator(spec), vec![edge], self.tasks)
    }

    /// What drops rows whatever comes, of the conditions above a scan.
    fn conditions(&self, (scan, predicate): &(TableScan, Option<Expr>)) -> Vec<Arc<dyn PhysicalExpr>> {
        let Ok(all) = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema()) else {
            return vec![];
        };
        let parts = predicate.iter().flat_map(|predicate| split_conjunction(predicate));
        // They stay above the scan: one that cannot be planned here says nothing.
        parts.filter(|part| is_steady(part)).filter_map(|part| physical(self.state, part, &all).ok()).collect()
    }

    /// The rows of one place where a stream is read: its source, or those of its columns that are wanted there.
    pub(super) fn scan(&mut self, node: &Node<'_>, scan: ScanId, places: &[usize]) -> Result<NodeId> {
        let from = *self.heads.get(scan).ok_or_else(|| Error::internal("a scan without a source"))?;
        let all = self.graph.schema(from);
        if places.len() == all.fields().len() && places.iter().enumerate().all(|(i, p)| i == *p) {
            return Ok(from);
        }
        let column = |p: &usize| -> Arc<dyn PhysicalExpr> { Arc::new(Column::new(all.field(*p).name(), *p)) };
        let expressions = places.iter().map(column).collect();
        let spec = Project { expressions, schema: Arc::new(all.project(places)?) };
        let edge = Self::exchange(from, &node.has.spread, &Needed::Anywhere);
        Ok(self.graph.add(NodeKind::Operator(Arc::new(spec)), vec![edge], node.has.spread.tasks))
    }

    /// Rows that are written in the query.
    pub(super) fn values(&mut self, values: &Values, depth: usize) -> Result<NodeId> {
        let one = RecordBatchOptions::new().with_row_count(Some(1));
        let one = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &one)?;
        let none = DFSchema::empty();
        let schema = values.schema.inner();
        let mut columns = vec![];
        for (place, field) in schema.fields().iter().enumerate() {
            let mut cells = vec![];
            for row in &values.values {
                let value = physical(self.state, &row[place], &none)?.evaluate(&one)?;
                cells.push(cast(&value.into_array(1)?, field.data_type())?);
            }
            let cells: Vec<&dyn Array> = cells.iter().map(AsRef::as_ref).collect();
            columns.push(concat(&cells)?);
        }
        self.constant(schema, columns, values.values.len(), depth)
    }

    /// One row without a column, or no row.
    pub(super) fn empty(&mut self, empty: &EmptyRelation, depth: usize) -> Result<NodeId> {
        let (schema, rows) = (empty.schema.inner(), usize::from(empty.produce_one_row));
        let columns = schema.fields().iter().map(|f| new_null_array(f.data_type(), rows)).collect();
        self.constant(schema, columns, rows, depth)
    }

    /// Numbers that the query counts.
    pub(super) fn series(&mut self, series: Series, scan: &TableScan, depth: usize) -> NodeId {
        let schema = Arc::clone(scan.projected_schema.inner());
        let source = Arc::new(SeriesSource::new(series, schema.clone()));
        let kind = SourceNode::new(scan.table_name.schema().unwrap_or("series"), source, schema);
        let kind = SourceNode { depth: depth + READ_BEFORE, ..kind };
        self.graph.add(NodeKind::Source(kind), vec![], self.tasks)
    }

    fn constant(&mut self, schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize, depth: usize) -> Result<NodeId> {
        let rows = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(schema.clone(), columns, &rows)?;
        let kind = SourceNode::new("values", Arc::new(Constant::new(batch)), schema.clone());
        let kind = SourceNode { depth: depth + READ_BEFORE, ..kind };
        Ok(self.graph.add(NodeKind::Source(kind), vec![], self.tasks))
    }
}

/// `expr` over all columns as one over the columns that are read.
fn rebase(expr: Arc<dyn PhysicalExpr>, columns: &[usize]) -> Result<Arc<dyn PhysicalExpr>> {
    use datafusion::common::tree_node::{Transformed, TreeNode};
    use datafusion::physical_expr::expressions::Column;
    let moved = expr.transform(|e| {
        let Some(c) = e.downcast_ref::<Column>() else { return Ok(Transformed::no(e)) };
        let at = columns.iter().position(|x| *x == c.index()).unwrap_or(c.index());
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(c.name(), at));
        Ok(Transformed::yes(column))
    })?;
    Ok(moved.data)
}
