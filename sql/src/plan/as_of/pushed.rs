//! Conditions on the left side of an ASOF join, and on keys, are asked before it: rows that are left out need no match.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Extension, Filter, LogicalPlan};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::AsOfJoin;
use crate::plan::risk::{Risk, risk};

/// The rule.
#[derive(Debug)]
pub(in crate::plan) struct PushIntoAsOf;

impl OptimizerRule for PushIntoAsOf {
    fn name(&self) -> &str {
        "push_into_as_of"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(filter) = plan else { return Ok(Transformed::no(plan)) };
        let Some(join) = AsOfJoin::of(&filter.input) else { return Ok(Transformed::no(LogicalPlan::Filter(filter))) };
        let left = join.left.schema();
        // What may fail would fail on rows that have no match, and are not given.
        let (below, above): (Vec<_>, Vec<_>) =
            split_conjunction_owned(filter.predicate.clone()).into_iter().partition(|e| {
                let columns = e.column_refs();
                let of_left = !columns.is_empty() && columns.iter().all(|column| left.has_column(column));
                of_left && !e.is_volatile() && !e.contains_outer() && risk(e, left) == Risk::None
            });
        let Some(below) = conjunction(below) else { return Ok(Transformed::no(LogicalPlan::Filter(filter))) };
        let rows = LogicalPlan::Filter(Filter::try_new(below, Arc::new(join.left.clone()))?);
        let join = AsOfJoin { left: rows, ..join.clone() };
        let join = LogicalPlan::Extension(Extension { node: Arc::new(join) });
        Ok(Transformed::yes(match conjunction(above) {
            Some(above) => LogicalPlan::Filter(Filter::try_new(above, Arc::new(join))?),
            None => join,
        }))
    }
}
