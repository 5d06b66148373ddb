//! A rule of DataFusion's that may not change the types of a result.
//!
//! `single_distinct_aggregation_to_group_by` makes a sum a sum of sums, and a sum of decimals has more digits than what it adds up:
//! the rows would have another type than the query was said to have.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// `inner`, where it keeps the types of a node's columns.
#[derive(Debug)]
pub(super) struct SameTypes(pub(super) Arc<dyn OptimizerRule + Send + Sync>);

impl OptimizerRule for SameTypes {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        // It changes aggregates only.
        if !matches!(plan, LogicalPlan::Aggregate(_)) {
            return Ok(Transformed::no(plan));
        }
        let before = plan.clone();
        let after = self.0.rewrite(plan, config)?;
        let types = |plan: &LogicalPlan| -> Vec<_> {
            plan.schema().fields().iter().map(|field| field.data_type().clone()).collect()
        };
        match after.transformed && types(&before) != types(&after.data) {
            true => Ok(Transformed::no(before)),
            false => Ok(after),
        }
    }
}
