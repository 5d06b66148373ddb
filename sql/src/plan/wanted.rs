//! Work of a query that is of no use once nobody waits for its rows.
//!
//! A sort hands what it has collected to many tasks at once, each for a short while (DataFusion 55), and a plan that is
//! dropped hears of that behind all of them. So they ask before they begin, where they evaluate what they sort by.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use datafusion::common::exec_err;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::sorts::sort::SortExec;

/// Who waits for the rows of a query: to be kept beside them, and dropped with them.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    dropped: Arc<AtomicBool>,
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::Relaxed);
    }
}

impl Wanted {
    /// `node`, whose tasks do nothing any more when this was dropped. A sort no longer says of its rows that they are ordered.
    pub(super) fn only(&self, node: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        // The first few rows are found as they come.
        let Some(sort) = node.downcast_ref::<SortExec>().filter(|sort| sort.fetch().is_none()) else { return node };
        let by = sort.expr().iter().map(|by| {
            let expr = WhileWanted { expr: Arc::clone(&by.expr), dropped: Arc::clone(&self.dropped) };
            PhysicalSortExpr::new(Arc::new(expr), by.options)
        });
        let Some(by) = LexOrdering::new(by) else { return node };
        let partitioned = sort.preserve_partitioning();
        Arc::new(SortExec::new(by, Arc::clone(sort.input())).with_preserve_partitioning(partitioned))
    }
}

/// `expr`, as long as somebody wants it.
#[derive(Debug)]
struct WhileWanted {
    expr: Arc<dyn PhysicalExpr>,
    dropped: Arc<AtomicBool>,
}

impl PartialEq for WhileWanted {
    fn eq(&self, other: &Self) -> bool {
        self.expr.eq(&other.expr)
    }
}

impl Eq for WhileWanted {}

impl Hash for WhileWanted {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.expr.hash(state);
    }
}

impl fmt::Display for WhileWanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.expr.fmt(f)
    }
}

impl PhysicalExpr for WhileWanted {
    fn data_type(&self, schema: &Schema) -> DfResult<DataType> {
        self.expr.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> DfResult<bool> {
        self.expr.nullable(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> DfResult<ColumnarValue> {
        if self.dropped.load(Ordering::Relaxed) {
            return exec_err!("nobody waits for the rows any more");
        }
        self.expr.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.expr]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> DfResult<Arc<dyn PhysicalExpr>> {
        match <[Arc<dyn PhysicalExpr>; 1]>::try_from(children) {
            Ok([expr]) => Ok(Arc::new(WhileWanted { expr, dropped: Arc::clone(&self.dropped) })),
            Err(_) => Ok(self),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.expr.fmt_sql(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use datafusion::physical_plan::execute_stream;
    use datafusion::prelude::SessionContext;
    use futures::TryStreamExt;

    #[tokio::test]
    async fn a_sort_that_nobody_wants_sorts_nothing() {
        let context = SessionContext::new();
        let sql = "SELECT value AS v FROM generate_series(1, 1000) ORDER BY value % 7, value";
        let sort = || async {
            let plan = context.sql(sql).await.expect("a query").create_physical_plan().await.expect("a plan");
            let (plan, wanted) = crate::plan::with_pauses(plan).expect("paused");
            (execute_stream(plan, context.task_ctx()).expect("runs"), wanted)
        };
        let (rows, _wanted) = sort().await;
        let rows: Vec<RecordBatch> = rows.try_collect().await.expect("rows");
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 1000);
        let (rows, wanted) = sort().await;
        drop(wanted);
        let error = rows.try_collect::<Vec<RecordBatch>>().await.expect_err("it is not wanted");
        assert!(error.to_string().contains("nobody waits"), "{error}");
    }
}
