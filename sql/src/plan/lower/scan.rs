//! Scans: the streams that a query reads, and the rows that it has itself.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{cast, concat};
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::DFSchema;
use datafusion::datasource::source_as_provider;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan, TableType, Values};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use millstream_engine::connector::Source;
use millstream_engine::connector::constant::Constant;
use millstream_engine::graph::{NodeKind, ScanTime, SourceNode, TimeBound};
use millstream_engine::operator::project::Project;

use super::{Lowering, Output, TimeProperty};
use crate::error::{Error, Result};
use crate::plan::bound::is_steady;

/// A stream as a query reads it.
pub trait StreamScan: fmt::Debug + Send + Sync {
    /// The stream's name.
    fn name(&self) -> &str;

    /// Its columns.
    fn schema(&self) -> SchemaRef;

    /// Whether rows can be taken back.
    fn is_changelog(&self) -> bool;

    /// The columns that identify a row, where known.
    fn key(&self) -> Option<Vec<usize>>;

    /// The event-time column, and the bound that rows set over all its columns (`None`: the source itself
    /// tells the watermark).
    fn event_time(&self) -> Option<(usize, Option<Arc<dyn PhysicalExpr>>)>;

    /// How long a split may be without rows before it stops holding the watermark.
    fn idle_timeout(&self) -> Duration;

    /// Opens it, reading `projection` with `parallelism` tasks.
    fn open(&self, projection: Vec<usize>, parallelism: usize) -> Result<Arc<dyn Source>>;
}

/// A stream as a table of a plan that is to run continuously.
#[derive(Clone, Debug)]
pub struct SourceTable(pub Arc<dyn StreamScan>);

#[async_trait]
impl TableProvider for SourceTable {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _session: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Err(Error::unsupported(format!("stream \"{}\" can only be read continuously", self.0.name())).into())
    }
}

impl Lowering<'_> {
    /// Finds all scans of each stream, so that a stream is read once whatever the number of its scans.
    pub(super) fn collect_scans(&mut self, plan: &LogicalPlan) -> Result<()> {
        let mut found = vec![];
        collect(plan, &mut found)?;
        for Found { stream, mut columns, filters } in found {
            if let Some((time, bound)) = stream.event_time() {
                columns.push(time);
                for c in bound.iter().flat_map(datafusion::physical_expr::utils::collect_columns) {
                    columns.push(c.index());
                }
            }
            columns.sort_unstable();
            columns.dedup();
            let source = stream.open(columns.clone(), self.parallelism)?;
            source.prune(&filters.iter().map(|filters| self.conditions(filters)).collect::<Vec<_>>());
            let schema = Arc::new(stream.schema().project(&columns)?);
            let place = |c: usize| columns.iter().position(|x| *x == c);
            let node = self.graph.nodes.len();
            let mut time = vec![None; columns.len()];
            let scan_time = match stream.event_time() {
                None => None,
                Some((column, bound)) => {
                    let column = place(column).ok_or_else(|| Error::internal("the event time is not read"))?;
                    time[column] = Some(TimeProperty::Event { scans: vec![node] });
                    let bound = bound.map(|b| rebase(b, &columns)).transpose()?.map(|b| TimeBound::of(b, column));
                    Some(ScanTime { column, bound, closers: vec![], idle_timeout: stream.idle_timeout() })
                }
            };
            let key = stream.key().and_then(|k| k.into_iter().map(place).collect());
            let kind = SourceNode { stream: stream.name().to_owned(), source, schema, time: scan_time };
            self.graph.add(NodeKind::Source(kind), vec![], self.parallelism);
            let output = Output { node, parallelism: self.parallelism, append_only: !stream.is_changelog(), time, key };
            self.scans.insert(stream.name().to_owned(), (output, columns));
        }
        Ok(())
    }

    /// What drops rows whatever comes, of the conditions above a scan.
    fn conditions(&self, (scan, predicate): &(TableScan, Option<Expr>)) -> Vec<Arc<dyn PhysicalExpr>> {
        let Ok(all) = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema()) else {
            return vec![];
        };
        let parts = predicate.iter().flat_map(|predicate| split_conjunction(predicate));
        // They stay above the scan: one that cannot be planned here says nothing.
        parts.filter(|part| is_steady(part)).filter_map(|part| self.physical(part, &all).ok()).collect()
    }

    /// Rows that are written in the query.
    pub(super) fn values(&mut self, values: &Values) -> Result<Output> {
        let one = RecordBatchOptions::new().with_row_count(Some(1));
        let one = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &one)?;
        let none = DFSchema::empty();
        let schema = values.schema.inner();
        let mut columns = vec![];
        for (place, field) in schema.fields().iter().enumerate() {
            let mut cells = vec![];
            for row in &values.values {
                let value = self.physical(&row[place], &none)?.evaluate(&one)?;
                cells.push(cast(&value.into_array(1)?, field.data_type())?);
            }
            let cells: Vec<&dyn Array> = cells.iter().map(AsRef::as_ref).collect();
            columns.push(concat(&cells)?);
        }
        self.constant(schema, columns, values.values.len())
    }

    /// A source of these rows.
    pub(super) fn constant(&mut self, schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<Output> {
        let rows = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(schema.clone(), columns, &rows)?;
        let source: Arc<dyn Source> = Arc::new(Constant::new(batch));
        let kind = SourceNode { stream: "values".to_owned(), source, schema: schema.clone(), time: None };
        let node = self.graph.add(NodeKind::Source(kind), vec![], self.parallelism);
        let time = vec![None; schema.fields().len()];
        Ok(Output { node, parallelism: self.parallelism, append_only: true, time, key: None })
    }

    pub(super) fn scan(&mut self, scan: &TableScan) -> Result<Output> {
        let stream = stream_of(scan)?;
        if !scan.filters.is_empty() {
            return Err(Error::internal("a filter was pushed into a stream"));
        }
        let (output, columns) = self
            .scans
            .get(stream.name())
            .cloned()
            .ok_or_else(|| Error::internal(format!("stream \"{}\" was not collected", stream.name())))?;
        let wanted = columns_of(scan);
        let places: Vec<usize> = wanted.iter().filter_map(|c| columns.iter().position(|x| x == c)).collect();
        if places.len() == columns.len() && places.iter().enumerate().all(|(i, p)| i == *p) {
            return Ok(output);
        }
        let all = self.graph.schema(output.node);
        let column = |p: &usize| -> Arc<dyn PhysicalExpr> {
            Arc::new(datafusion::physical_expr::expressions::Column::new(all.field(*p).name(), *p))
        };
        let expressions = places.iter().map(column).collect();
        let schema = Arc::new(all.project(&places)?);
        let node = self.operator(Arc::new(Project { expressions, schema }), &output);
        let time = places.iter().map(|p| output.time[*p].clone()).collect();
        let key = output.key.as_ref().and_then(|k| k.iter().map(|k| places.iter().position(|p| p == k)).collect());
        Ok(Output { node, time, key, ..output })
    }
}

fn columns_of(scan: &TableScan) -> Vec<usize> {
    match &scan.projection {
        Some(columns) => columns.clone(),
        None => (0..scan.source.schema().fields().len()).collect(),
    }
}

fn stream_of(scan: &TableScan) -> Result<Arc<dyn StreamScan>> {
    let provider = source_as_provider(&scan.source)?;
    let table: Option<&SourceTable> = provider.downcast_ref();
    table.map(|SourceTable(stream)| stream.clone()).ok_or_else(|| {
        Error::unsupported(format!("\"{}\" cannot be read continuously", scan.table_name))
            .with_hint("Read it in a SELECT without EMIT.")
    })
}

/// The scans of a stream.
struct Found {
    stream: Arc<dyn StreamScan>,
    /// The columns of all of them.
    columns: Vec<usize>,
    /// Each, with the condition that stands right above it.
    filters: Vec<(TableScan, Option<Expr>)>,
}

fn collect(plan: &LogicalPlan, found: &mut Vec<Found>) -> Result<()> {
    let (scan, predicate) = match plan {
        LogicalPlan::TableScan(scan) => (scan, None),
        LogicalPlan::Filter(filter) => match filter.input.as_ref() {
            LogicalPlan::TableScan(scan) => (scan, Some(filter.predicate.clone())),
            input => return collect(input, found),
        },
        _ => return plan.inputs().into_iter().try_for_each(|input| collect(input, found)),
    };
    let stream = stream_of(scan)?;
    let (columns, filter) = (columns_of(scan), (scan.clone(), predicate));
    match found.iter_mut().find(|f| f.stream.name() == stream.name()) {
        Some(found) => {
            found.columns.extend(columns);
            found.filters.push(filter);
        }
        None => found.push(Found { stream, columns, filters: vec![filter] }),
    }
    Ok(())
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
