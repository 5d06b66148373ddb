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
//! As a term of a WHERE, `x NOT IN (SELECT y …)` that looks at columns outside of it is two conditions, each of which is a join by those
//! columns:
//!
//! ```text
//! NOT EXISTS (SELECT … WHERE y = x) AND NOT EXISTS (SELECT … WHERE y IS NULL OR x IS NULL)
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
        Expr::InSubquery(of) if looks_outside(&of) && can_stand_alone(&of)? => {
            Ok(Transformed::yes(found_nowhere(of, input)?))
        }
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

/// Whether it is a NOT IN whose subquery looks at columns outside of it.
fn looks_outside(of: &InSubquery) -> bool {
    of.negated && !of.subquery.outer_ref_columns.is_empty()
}

/// Whether conditions may be put above the subquery: they would be taken below a limit, and of an aggregate of all rows, which has a
/// row where there are none, one by the columns outside would be made.
fn can_stand_alone(of: &InSubquery) -> DfResult<bool> {
    let stands = |node: &LogicalPlan| match node {
        LogicalPlan::Limit(_) => false,
        LogicalPlan::Aggregate(aggregate) => !aggregate.group_expr.is_empty(),
        _ => true,
    };
    of.subquery.subquery.exists(|node| Ok(!stands(node))).map(|not| !not)
}

fn found_nowhere(of: InSubquery, input: &LogicalPlan) -> DfResult<Expr> {
    let parts = Parts::of(of, input)?;
    Ok(parts.exists(parts.equal()?, true).and(parts.exists(parts.unknown()?, true)))
}

fn three_valued(of: InSubquery, input: &LogicalPlan) -> DfResult<Expr> {
    let known = !of.negated;
    let parts = Parts::of(of, input)?;
    when(parts.exists(parts.equal()?, false), lit(known))
        .when(parts.exists(parts.unknown()?, false), lit(ScalarValue::Boolean(None)))
        .otherwise(lit(!known))
}

/// An IN taken apart.
struct Parts {
    /// What is looked for, as the subquery sees it.
    x: Expr,
    /// Among these.
    y: Expr,
    subquery: Subquery,
    is_correlated: bool,
}

impl Parts {
    fn of(of: InSubquery, input: &LogicalPlan) -> DfResult<Self> {
        let (x, columns) = outer(*of.expr, input)?;
        let mut subquery = of.subquery;
        let Some(y) = subquery.subquery.schema().columns().into_iter().next() else {
            return datafusion::common::plan_err!("IN (SELECT …): the subquery has no column");
        };
        let is_correlated = !subquery.outer_ref_columns.is_empty();
        subquery.outer_ref_columns.extend(columns);
        Ok(Parts { x, y: Expr::Column(y), subquery, is_correlated })
    }

    fn rows(&self) -> LogicalPlanBuilder {
        LogicalPlanBuilder::from(Arc::clone(&self.subquery.subquery))
    }

    /// The rows that are what is looked for.
    fn equal(&self) -> DfResult<LogicalPlan> {
        self.rows().filter(self.y.clone().eq(self.x.clone()))?.build()
    }

    /// The rows of which it is not known, or one for all of them.
    fn unknown(&self) -> DfResult<LogicalPlan> {
        if self.is_correlated {
            return self.rows().filter(self.y.clone().is_null().or(self.x.clone().is_null()))?.build();
        }
        let nulls = self.rows().project([self.y.clone().is_null().alias(NULL)])?.distinct()?;
        nulls.filter(Expr::Column(Column::from_name(NULL)).or(self.x.clone().is_null()))?.build()
    }

    fn exists(&self, rows: LogicalPlan, negated: bool) -> Expr {
        let subquery = Subquery { subquery: Arc::new(rows), ..self.subquery.clone() };
        Expr::Exists(Exists { subquery, negated })
    }
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
