//! Scans: the streams that a query reads, each once whatever the number of places where it does, but that one in which rows are looked
//! up is read for itself.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::source_as_provider;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use millstream_engine::connector::Source;
#[cfg(doc)]
use millstream_engine::graph::SourceNode;

use super::time::ScanId;
use crate::error::{Error, Result};
use crate::plan::as_of_now::AsOfNow;
use crate::plan::series::SeriesTable;

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

    /// By what a row replaces an earlier one, where it does and nobody has seen to it before the rows are read.
    fn replaces(&self) -> Option<Replaces> {
        None
    }

    /// Whether its rows mean what they say in their order only: one task reads them then.
    fn is_in_order(&self) -> bool {
        self.replaces().is_some()
    }

    /// How long a split may be without rows before it stops holding the watermark.
    fn idle_timeout(&self) -> Duration;

    /// Where its rows come from, read as `projection` by `parallelism` tasks.
    fn source(&self, projection: Vec<usize>, parallelism: usize) -> Result<Arc<dyn Source>>;
}

/// How a row replaces an earlier one.
#[derive(Clone, Debug)]
pub struct Replaces {
    /// The columns in which the two are equal.
    pub key: Vec<usize>,
    /// Columns that tell rows, not what is in them: a row that is taken back need not be equal in them.
    pub beside: Vec<usize>,
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

/// What a query reads.
pub(super) struct Scans(Vec<Scanned>);

/// The scans of a stream.
pub(super) struct Scanned {
    pub(super) stream: Arc<dyn StreamScan>,
    /// The columns of all of them and those that tell event time and the key by which rows are replaced, in order.
    pub(super) columns: Vec<usize>,
    /// Each, with the condition that stands right above it.
    pub(super) filters: Vec<(TableScan, Option<Expr>)>,
    /// The column with the event time, of all that the stream has.
    pub(super) time: Option<usize>,
    /// When it is read: see [`SourceNode::depth`].
    pub(super) depth: usize,
}

impl Scans {
    /// Those of `plan`.
    pub(super) fn of(plan: &LogicalPlan) -> Result<Self> {
        let mut found = Scans(vec![]);
        found.collect(plan, 0)?;
        for scanned in &mut found.0 {
            scanned.columns.extend(scanned.stream.replaces().into_iter().flat_map(|replaces| replaces.key));
            if let Some((time, bound)) = scanned.stream.event_time() {
                scanned.time = Some(time);
                scanned.columns.push(time);
                let columns = bound.iter().flat_map(datafusion::physical_expr::utils::collect_columns);
                scanned.columns.extend(columns.map(|c| c.index()));
            }
            // What goes from one task to all goes by some column.
            if scanned.columns.is_empty() && scanned.stream.is_in_order() {
                scanned.columns.push(0);
            }
            scanned.columns.sort_unstable();
            scanned.columns.dedup();
        }
        Ok(found)
    }

    fn collect(&mut self, plan: &LogicalPlan, depth: usize) -> Result<()> {
        let (scan, predicate) = match plan {
            LogicalPlan::TableScan(scan) if work_table(scan).is_some() => return Ok(()),
            LogicalPlan::TableScan(scan) => (scan, None),
            LogicalPlan::Filter(filter) => match filter.input.as_ref() {
                LogicalPlan::TableScan(scan) if work_table(scan).is_none() => (scan, Some(filter.predicate.clone())),
                input => return self.collect(input, depth),
            },
            _ => {
                let depth = depth + usize::from(AsOfNow::of(plan).is_some());
                return plan.inputs().into_iter().try_for_each(|input| self.collect(input, depth));
            }
        };
        if !scan.filters.is_empty() {
            return Err(Error::internal("a filter was pushed into a stream"));
        }
        if SeriesTable::of(scan).is_some() {
            return Ok(());
        }
        let stream = stream_of(scan)?;
        let (columns, filter) = (columns_of(scan), (scan.clone(), predicate));
        match self.0.iter_mut().find(|f| f.stream.name() == stream.name() && f.depth == depth) {
            Some(found) => {
                found.columns.extend(columns);
                found.filters.push(filter);
            }
            None => self.0.push(Scanned { stream, columns, filters: vec![filter], time: None, depth }),
        }
        Ok(())
    }

    /// Each in order.
    pub(super) fn all(&self) -> &[Scanned] {
        &self.0
    }

    /// Which one `scan` is of, which stands at `depth`, and the places of its columns there.
    pub(super) fn places_of(&self, scan: &TableScan, depth: usize) -> Result<(ScanId, Vec<usize>)> {
        let stream = stream_of(scan)?;
        let is_it = |f: &Scanned| f.stream.name() == stream.name() && f.depth == depth;
        let found = self.0.iter().enumerate().find(|(_, f)| is_it(f));
        let (id, found) =
            found.ok_or_else(|| Error::internal(format!("stream \"{}\" was not collected", stream.name())))?;
        Ok((id, columns_of(scan).into_iter().filter_map(|c| found.place(c)).collect()))
    }

    /// The type of the event time of scan `id`.
    pub(super) fn event_type(&self, id: ScanId) -> Option<DataType> {
        let scanned = self.0.get(id)?;
        Some(scanned.stream.schema().field(scanned.time?).data_type().clone())
    }

    /// The first stream that has no event time.
    pub(super) fn without_time(&self) -> Option<&str> {
        self.0.iter().find(|s| s.time.is_none()).map(|s| s.stream.name())
    }
}

impl Scanned {
    /// How rows are replaced, by the places of the columns that are read.
    pub(super) fn replaces(&self) -> Option<Replaces> {
        let Replaces { key, beside } = self.stream.replaces()?;
        let places = |columns: Vec<usize>| columns.into_iter().filter_map(|column| self.place(column)).collect();
        Some(Replaces { key: places(key), beside: places(beside) })
    }

    /// The place of a column among those that are read.
    pub(super) fn place(&self, column: usize) -> Option<usize> {
        self.columns.iter().position(|c| *c == column)
    }
}

fn columns_of(scan: &TableScan) -> Vec<usize> {
    match &scan.projection {
        Some(columns) => columns.clone(),
        None => (0..scan.source.schema().fields().len()).collect(),
    }
}

/// The name by which a recursive query looks at itself, where `scan` is that.
pub(super) fn work_table(scan: &TableScan) -> Option<String> {
    let provider = source_as_provider(&scan.source).ok()?;
    let table: Option<&CteWorkTable> = provider.downcast_ref();
    table.map(|table| table.name().to_owned())
}

fn stream_of(scan: &TableScan) -> Result<Arc<dyn StreamScan>> {
    let provider = source_as_provider(&scan.source)?;
    let table: Option<&SourceTable> = provider.downcast_ref();
    table.map(|SourceTable(stream)| stream.clone()).ok_or_else(|| {
        Error::unsupported(format!("\"{}\" cannot be read continuously", scan.table_name))
            .with_hint("Read it in a SELECT without EMIT.")
    })
}
