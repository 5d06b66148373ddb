//! `INTERSECT ALL` and `EXCEPT ALL` count copies.
//!
//! The planner makes joins of both that ask only whether there is a match, so `EXCEPT ALL` drops every copy and `INTERSECT ALL` keeps
//! every copy (DataFusion 55). Here both sides are counted, and a row comes as often as the difference, or the lesser count, says:
//!
//! ```text
//! SELECT x, unnest(range(0, n - coalesce(m, 0)))
//! FROM (SELECT x, count(*) AS n FROM l GROUP BY x) LEFT JOIN (SELECT x, count(*) AS m FROM r GROUP BY x) USING x     null = null
//! ```

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, JoinType, NullEquality};
use datafusion::error::Result as DfResult;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::functions_nested::expr_fn::range;
use datafusion::logical_expr::{Expr, Join, JoinConstraint, LogicalPlan, LogicalPlanBuilder, Projection, lit, when};

const LEFT: &str = "_copies_left";
const RIGHT: &str = "_copies_right";
const COPY: &str = "_copy";

/// `plan` with set operations that count copies.
pub(super) fn counted(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let counted = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Join(join) if counts(&join) => Ok(Transformed::yes(rewritten(&join)?)),
        plan => Ok(Transformed::no(plan)),
    })?;
    Ok(counted.data)
}

/// Whether it was a set operation with ALL: only those join with equal NULLs before anything is optimized, and without ALL
/// duplicates of the left side are dropped first.
fn counts(join: &Join) -> bool {
    join.null_equality == NullEquality::NullEqualsNull
        && matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && !matches!(*join.left, LogicalPlan::Distinct(_))
}

fn grouped(plan: &Arc<LogicalPlan>, name: &str) -> DfResult<LogicalPlan> {
    let columns: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
    LogicalPlanBuilder::from(Arc::clone(plan)).aggregate(columns, vec![count(lit(1_i64)).alias(name)])?.build()
}

fn rewritten(join: &Join) -> DfResult<LogicalPlan> {
    let is_except = join.join_type == JoinType::LeftAnti;
    let kind = if is_except { JoinType::Left } else { JoinType::Inner };
    let sides = [grouped(&join.left, LEFT)?, grouped(&join.right, RIGHT)?].map(Arc::new);
    let [left, right] = sides;
    let (constraint, nulls) = (JoinConstraint::On, NullEquality::NullEqualsNull);
    let joined = Join::try_new(left, right, join.on.clone(), join.filter.clone(), kind, constraint, nulls, false)?;
    let [n, m] = [LEFT, RIGHT].map(|name| Expr::Column(Column::from_name(name)));
    let copies = match is_except {
        true => when(m.clone().is_null(), n.clone()).otherwise(n - m)?,
        false => when(n.clone().lt(m.clone()), n).otherwise(m)?,
    };
    let columns: Vec<Expr> = join.schema.columns().into_iter().map(Expr::Column).collect();
    let mut with_copies = columns.clone();
    with_copies.push(range(lit(0_i64), copies, lit(1_i64)).alias(COPY));
    let rows =
        LogicalPlanBuilder::from(LogicalPlan::Join(joined)).project(with_copies)?.unnest_column(COPY)?.build()?;
    let given = Projection::try_new_with_schema(columns, Arc::new(rows), Arc::clone(&join.schema))?;
    Ok(LogicalPlan::Projection(given))
}
