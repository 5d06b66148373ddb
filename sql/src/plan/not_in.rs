//! `NOT IN (SELECT …)` as joins that look at one key at a time.
//!
//! `x NOT IN (SELECT y …)` is true if no `y` is `x`, and neither is null; where there is no `y` at all it is true of any `x`. So a
//! row goes for each of two reasons, and each is a join of its own:
//!
//! ```text
//! l ANTI JOIN r ON l.x = r.y
//!   ANTI JOIN (SELECT DISTINCT y IS NULL AS n FROM r) ON n OR l.x IS NULL
//! ```
//! The second has two rows at most on its right.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{JoinConstraint, JoinType, NullEquality};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{Aggregate, Expr, Join, LogicalPlan};

/// What the column says: a `y` is null.
const NULL: &str = "_is_null";

/// `plan` without joins that look at nulls of all rows.
pub(super) fn by_key(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let parted = plan.transform_up(|plan| match plan {
        LogicalPlan::Join(join) if join.null_aware && join.join_type == JoinType::LeftAnti && join.filter.is_none() => {
            match &join.on[..] {
                [(x, y)] => Ok(Transformed::yes(parted(&join, x, y)?)),
                _ => Ok(Transformed::no(LogicalPlan::Join(join))),
            }
        }
        plan => Ok(Transformed::no(plan)),
    })?;
    Ok(parted.data)
}

fn parted(join: &Join, x: &Expr, y: &Expr) -> DfResult<LogicalPlan> {
    let anti = |left: Arc<LogicalPlan>, right: Arc<LogicalPlan>, on: Vec<(Expr, Expr)>, filter: Option<Expr>| {
        let (kind, constraint, nulls) = (JoinType::LeftAnti, JoinConstraint::On, NullEquality::NullEqualsNothing);
        Ok::<_, datafusion::error::DataFusionError>(LogicalPlan::Join(Join::try_new(
            left, right, on, filter, kind, constraint, nulls, false,
        )?))
    };
    let unequal = anti(Arc::clone(&join.left), Arc::clone(&join.right), join.on.clone(), None)?;
    let is_null = vec![y.clone().is_null().alias(NULL)];
    let nulls = LogicalPlan::Aggregate(Aggregate::try_new(Arc::clone(&join.right), is_null, vec![])?);
    let filter = Expr::Column(nulls.schema().columns()[0].clone()).or(x.clone().is_null());
    anti(Arc::new(unequal), Arc::new(nulls), vec![], Some(filter))
}
