//! `x IN (SELECT y …)` where what is unknown matters: under OR, NOT, CASE.
//!
//! As a term of a WHERE it is planned as a join that heeds NULLs. Elsewhere it becomes a mark that is true or false (DataFusion 55), so
//! `x NOT IN (…)` under OR is true where SQL knows nothing. Here it is spelled out:
//!
//! ```text
//! CASE WHEN EXISTS (SELECT … WHERE y = x) THEN true
//!      WHEN EXISTS (SELECT DISTINCT y IS NULL AS n … WHERE n OR x IS NULL) THEN NULL
//!      ELSE false END
//! ```

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, ScalarValue};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Expr, Filter, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, lit, when,
};

const NULL: &str = "_is_null";

/// `plan` with such conditions spelled out.
pub(super) fn spelled_out(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let spelled = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Filter(filter) => {
            let input = Arc::clone(&filter.input);
            let terms = split_conjunction_owned(filter.predicate.clone());
            let terms = terms.into_iter().map(|term| within(term, &input)).collect::<DfResult<Vec<_>>>()?;
            if terms.iter().all(|term| !term.transformed) {
                return Ok(Transformed::no(LogicalPlan::Filter(filter)));
            }
            let predicate = conjunction(terms.into_iter().map(|term| term.data)).unwrap_or(lit(true));
            Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(predicate, input)?)))
        }
        plan => Ok(Transformed::no(plan)),
    })?;
    Ok(spelled.data)
}

/// One term of a WHERE.
fn within(term: Expr, input: &LogicalPlan) -> DfResult<Transformed<Expr>> {
    match term {
        term @ Expr::InSubquery(_) => Ok(Transformed::no(term)),
        term => counting(term, input),
    }
}

/// A condition that counts if it is true. What is unknown in it may as well be false, so IN alone may stay as it is.
fn counting(condition: Expr, input: &LogicalPlan) -> DfResult<Transformed<Expr>> {
    match condition {
        Expr::BinaryExpr(b) if matches!(b.op, Operator::And | Operator::Or) => {
            let (left, right) = (counting(*b.left, input)?, counting(*b.right, input)?);
            let changed = left.transformed || right.transformed;
            let both = Expr::BinaryExpr(BinaryExpr::new(Box::new(left.data), b.op, Box::new(right.data)));
            Ok(if changed { Transformed::yes(both) } else { Transformed::no(both) })
        }
        Expr::InSubquery(of) if !of.negated => Ok(Transformed::no(Expr::InSubquery(of))),
        other => other.transform_up(|e| match e {
            // A condition that is put above a limit would be taken below it.
            Expr::InSubquery(of) if !is_limited(&of)? => Ok(Transformed::yes(three_valued(of, input)?)),
            e => Ok(Transformed::no(e)),
        }),
    }
}

fn is_limited(of: &InSubquery) -> DfResult<bool> {
    of.subquery.subquery.exists(|node| Ok(matches!(node, LogicalPlan::Limit(_))))
}

fn three_valued(of: InSubquery, input: &LogicalPlan) -> DfResult<Expr> {
    let (x, columns) = outer(*of.expr, input)?;
    let Some(y) = of.subquery.subquery.schema().columns().into_iter().next() else {
        return datafusion::common::plan_err!("IN (SELECT …): the subquery has no column");
    };
    let outer_ref_columns = [of.subquery.outer_ref_columns.clone(), columns].concat();
    let exists = |plan: LogicalPlan| {
        let subquery = Subquery {
            subquery: Arc::new(plan),
            outer_ref_columns: outer_ref_columns.clone(),
            spans: of.subquery.spans.clone(),
        };
        Expr::Exists(Exists { subquery, negated: false })
    };
    let rows = || LogicalPlanBuilder::from(Arc::clone(&of.subquery.subquery));
    let y = Expr::Column(y);
    let equal = rows().filter(y.clone().eq(x.clone()))?.build()?;
    let nulls = rows().project([y.is_null().alias(NULL)])?.distinct()?;
    let nulls = nulls.filter(Expr::Column(Column::from_name(NULL)).or(x.is_null()))?.build()?;
    let known = !of.negated;
    when(exists(equal), lit(known)).when(exists(nulls), lit(ScalarValue::Boolean(None))).otherwise(lit(!known))
}

/// `expr` over `input` as a subquery sees it, with the columns that it looks at.
fn outer(expr: Expr, input: &LogicalPlan) -> DfResult<(Expr, Vec<Expr>)> {
    let mut columns = vec![];
    let seen = expr.transform(|e| match e {
        Expr::Column(column) => {
            let (_, field) = input.schema().qualified_field_from_column(&column)?;
            let outer = Expr::OuterReferenceColumn(Arc::clone(field), column);
            columns.push(outer.clone());
            Ok(Transformed::yes(outer))
        }
        e => Ok(Transformed::no(e)),
    })?;
    Ok((seen.data, columns))
}
