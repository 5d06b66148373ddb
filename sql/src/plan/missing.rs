//! Columns that ORDER BY needs and SELECT does not give: DataFusion (55) adds them to the projection below in an order that differs
//! from one planning to the next, while state is read back by the places of columns.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{LogicalPlan, Projection, Sort};

/// `plan`, as it was written, with such columns in the order of their names.
pub(super) fn in_order(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let ordered = plan.transform_up(|plan| {
        let LogicalPlan::Projection(shown) = &plan else { return Ok(Transformed::no(plan)) };
        let LogicalPlan::Sort(sort) = shown.input.as_ref() else { return Ok(Transformed::no(plan)) };
        let given = sort.input.schema().fields().len();
        let Some(added) = given.checked_sub(shown.expr.len()).filter(|added| *added > 1) else {
            return Ok(Transformed::no(plan));
        };
        let input = Arc::new(tail_in_order(&sort.input, added)?);
        let sort = LogicalPlan::Sort(Sort { input, ..sort.clone() });
        Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(shown.expr.clone(), Arc::new(sort))?)))
    })?;
    Ok(ordered.data)
}

/// `plan` with its last `added` columns in order; those of the projections below it were added with them.
fn tail_in_order(plan: &Arc<LogicalPlan>, added: usize) -> DfResult<LogicalPlan> {
    let LogicalPlan::Projection(projection) = plan.as_ref() else { return Ok(plan.as_ref().clone()) };
    let mut exprs = projection.expr.clone();
    let from = exprs.len().saturating_sub(added);
    exprs[from..].sort_by_cached_key(|e| e.schema_name().to_string());
    let input = Arc::new(tail_in_order(&projection.input, added)?);
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, input)?))
}
