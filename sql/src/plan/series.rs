//! `FROM generate_series(a, b[, step])` and `FROM range(…)`: rows that a query has itself.
//!
//! In batch they are DataFusion's. In a continuous query they are read from a source that counts.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{ScalarValue, TableReference};
use datafusion::datasource::source_as_provider;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableScan, TableType};
use datafusion::physical_plan::ExecutionPlan;
use millstream_engine::connector::series::Series;

use crate::error::{Error, Result};

/// A series, as DataFusion makes it, with what it was made of.
pub(super) struct SeriesTable {
    table: Arc<dyn TableProvider>,
    function: String,
    args: Vec<Expr>,
}

impl SeriesTable {
    /// What `function` makes of `args`: a series, or another table.
    pub(super) fn over(function: &str, args: Vec<Expr>, table: Arc<dyn TableProvider>) -> Arc<dyn TableProvider> {
        match function {
            "generate_series" | "range" => Arc::new(SeriesTable { table, function: function.to_owned(), args }),
            _ => table,
        }
    }

    /// The numbers of the series that `scan` reads, if it reads one.
    pub(super) fn of(scan: &TableScan) -> Option<Result<Series>> {
        let provider = source_as_provider(&scan.source).ok()?;
        let series: &SeriesTable = provider.downcast_ref()?;
        Some(series.numbers())
    }

    /// `plan`, in which each series has a name of its own, since plans are equal whose tables have one name.
    pub(super) fn told_apart(plan: LogicalPlan) -> DfResult<LogicalPlan> {
        let named = plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::TableScan(scan) if scan.table_name.schema().is_none() => {
                let provider = source_as_provider(&scan.source)?;
                let Some(series) = provider.downcast_ref::<SeriesTable>() else {
                    return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
                };
                let args: Vec<String> = series.args.iter().map(Expr::to_string).collect();
                let name = TableReference::partial(series.function.as_str(), args.join(", "));
                let own = LogicalPlanBuilder::scan(name, Arc::clone(&scan.source), scan.projection.clone())?;
                Ok(Transformed::yes(own.alias(scan.table_name.clone())?.build()?))
            }
            plan => Ok(Transformed::no(plan)),
        })?;
        Ok(named.data)
    }

    fn numbers(&self) -> Result<Series> {
        let number = |arg: &Expr| match arg {
            Expr::Literal(ScalarValue::Int64(number), _) => Some(*number),
            Expr::Literal(ScalarValue::Null, _) => Some(None),
            _ => None,
        };
        let args = self.args.iter().map(number).collect::<Option<Vec<_>>>().ok_or_else(|| {
            Error::unsupported(format!(
                "{} of other values than whole numbers cannot be read continuously",
                self.function
            ))
            .with_hint(format!("Write FROM unnest({}(…)) AS s(value).", self.function))
        })?;
        // As in batch, nothing comes of NULL.
        let Some(args) = args.into_iter().collect::<Option<Vec<_>>>() else { return Ok(Series::none()) };
        let (first, last, step) = match args[..] {
            [last] => (0, last, 1),
            [first, last] => (first, last, 1),
            [first, last, step, ..] => (first, last, step),
            [] => return Ok(Series::none()),
        };
        Ok(Series::new(first, last, step, self.function == "generate_series"))
    }
}

impl fmt::Debug for SeriesTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:?})", self.function, self.args)
    }
}

#[async_trait]
impl TableProvider for SeriesTable {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        self.table.table_type()
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        self.table.scan(session, projection, filters, limit).await
    }
}
