//! What cannot run continuously, refused by the name of its clause.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::error::{Error, Result};

/// Refuses clauses that the optimizer turns into others, or cannot turn: to be called before it.
pub(in crate::plan) fn refuse_clauses(plan: &LogicalPlan) -> Result<()> {
    let mut found = None;
    plan.apply(|node| {
        node.apply_expressions(|e| {
            e.apply(|e| {
                found = found.or(subquery_of(e));
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    match found {
        None => Ok(()),
        Some((clause, hint)) => Err(not_yet(clause, hint)),
    }
}

fn subquery_of(expr: &Expr) -> Option<(&'static str, &'static str)> {
    match expr {
        // More than one row is an error in batch.
        Expr::ScalarSubquery(s) if s.outer_ref_columns.is_empty() && s.subquery.max_rows() != Some(1) => {
            Some(("a subquery as a value that may have several rows", "Aggregate it: (SELECT max(x) FROM …)."))
        }
        _ => None,
    }
}

pub(super) fn not_yet(clause: &str, hint: &str) -> Error {
    Error::unsupported(format!("{clause} cannot run continuously yet")).with_hint(hint)
}

/// The function of `expr` that stands still within a batch and moves between batches, like `now()`: a continuous query would mix
/// its values.
pub(super) fn unstable(expr: &Expr) -> Option<String> {
    let mut found = None;
    let looked = expr.apply(|e| {
        if let Expr::ScalarFunction(f) = e
            && f.func.signature().volatility == datafusion::logical_expr::Volatility::Stable
            && matches!(f.name(), "now" | "current_date" | "current_time" | "current_timestamp" | "today")
        {
            found = Some(f.name().to_owned());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    looked.ok().and(found)
}

/// Refuses `now()` and its like where rows cannot come and go as time passes.
pub(super) fn refuse_unstable(expr: &Expr) -> Result<()> {
    match unstable(expr) {
        None => Ok(()),
        Some(_) => Err(unstable_here(expr)),
    }
}

/// The error for `expr`, in which `now()` or its like stands where it cannot.
pub(super) fn unstable_here(expr: &Expr) -> Error {
    let name = unstable(expr).unwrap_or_else(|| "now".to_owned());
    Error::unsupported(format!("{name}() cannot stand here in a continuous query")).with_hint(
        "Compare a time with now() in WHERE, as in ts > now() - INTERVAL '1 hour', or use it in a SELECT over the result.",
    )
}

/// Over changing input an expression must give the same value each time.
pub(super) fn refuse_volatile(expr: &Expr) -> Result<()> {
    if expr.is_volatile() {
        return Err(Error::unsupported(format!("{expr} gives another value each time, but its input takes rows back"))
            .with_hint("Compute it before the aggregation, over input that only grows."));
    }
    Ok(())
}

/// Refuses a node that no operator stands for.
pub(super) fn refused(plan: &LogicalPlan) -> Error {
    if matches!(plan, LogicalPlan::Subquery(_)) {
        let hint =
            "Join unnest(…) by LEFT JOIN … ON true with conditions in WHERE, or write a subquery that can be a JOIN.";
        return not_yet("a LATERAL subquery of this form", hint);
    }
    let text = plan.display().to_string();
    let clause = text.split([':', ' ']).next().unwrap_or("this clause");
    not_yet(clause, "Use it in a SELECT over the result.")
}
