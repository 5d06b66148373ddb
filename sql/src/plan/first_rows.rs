//! `DISTINCT ON (…)` without an order: of each group the row that is the first in the order of the columns of SELECT.
//!
//! The planner takes any row (DataFusion 55), another each time, and of each column another where it likes. Here it is a number:
//!
//! ```text
//! DistinctOn: on k, select a, b        Projection: a, b
//!   t                           ->       Filter: n = 1
//!                                          Window: row_number() OVER (PARTITION BY k ORDER BY a, b) AS n
//!                                            t
//! ```

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result as DfResult;
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::expr_rewriter::normalize_cols;
use datafusion::logical_expr::{
    Distinct, DistinctOn, Expr, ExprFunctionExt, ExprSchemable, Filter, LogicalPlan, Projection, SortExpr, Window,
    ident, lit,
};

const NUMBER: &str = "__first";

/// `plan`, as the planner made it, with such rows found by their numbers.
pub(super) fn first_by_columns(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let with = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Distinct(Distinct::On(on)) if on.sort_expr.is_none() => Ok(Transformed::yes(numbered(on)?)),
        plan => Ok(Transformed::no(plan)),
    })?;
    Ok(with.data)
}

fn numbered(of: DistinctOn) -> DfResult<LogicalPlan> {
    let input = of.input;
    let on = normalize_cols(of.on_expr, &input)?;
    let given = normalize_cols(of.select_expr, &input)?;
    let order = given.iter().map(|e| e.clone().unalias()).filter(|e| has_order(e, input.schema()));
    let order = order.map(|e| SortExpr::new(e, true, false)).collect();
    let call = Expr::from(WindowFunction::new(row_number_udwf(), vec![])).partition_by(on).order_by(order).build()?;
    let window = Window::try_new(vec![call.alias(NUMBER)], input)?;
    let first = ident(NUMBER).eq(lit(1_u64));
    let rows = LogicalPlan::Filter(Filter::try_new(first, Arc::new(LogicalPlan::Window(window)))?);
    let named = given.into_iter().zip(of.schema.iter());
    let named = named.map(|(e, (of, field))| e.unalias().alias_qualified(of.cloned(), field.name())).collect();
    Ok(LogicalPlan::Projection(Projection::try_new_with_schema(named, Arc::new(rows), of.schema)?))
}

/// Whether rows can be ordered by `expr`, and are the same way each time.
fn has_order(expr: &Expr, schema: &DFSchema) -> bool {
    let is_query = |e: &Expr| matches!(e, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_));
    let of = expr.get_type(schema).unwrap_or(DataType::Null);
    let ordered = !matches!(of, DataType::Map(..) | DataType::Union(..));
    ordered && !expr.is_volatile() && !expr.exists(|e| Ok(is_query(e))).unwrap_or(true)
}
