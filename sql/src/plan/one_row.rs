//! A condition over an aggregate without groups stays above it.
//!
//! Such an aggregate has one row, whatever its input. `push_down_filter` takes a condition that names no column for one on the groups and
//! puts it below (DataFusion 55): `SELECT sum(x) FROM t HAVING false` then has the row of an empty input. In batch another rule comes
//! before it if the condition is a constant.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// `inner`, where it leaves such conditions alone.
#[derive(Debug)]
pub(super) struct AboveOneRow(pub(super) Arc<dyn OptimizerRule + Send + Sync>);

impl OptimizerRule for AboveOneRow {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        if stays(&plan) {
            return Ok(Transformed::no(plan));
        }
        self.0.rewrite(plan, config)
    }
}

fn stays(plan: &LogicalPlan) -> bool {
    let mut without_columns = false;
    let mut at = plan;
    while let LogicalPlan::Filter(filter) = at {
        without_columns |= split_conjunction(&filter.predicate).into_iter().any(|c| c.column_refs().is_empty());
        at = &filter.input;
    }
    without_columns && matches!(at, LogicalPlan::Aggregate(a) if a.group_expr.is_empty())
}
