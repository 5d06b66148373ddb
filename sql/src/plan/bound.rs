//! What may stand in `WATERMARK FOR ts AS …`: an expression over one row that gives the same each time.
//!
//! A watermark is computed again when a row is read again after a restart, and by other tasks: `least(ts, now())`
//! would close other windows each time.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, Volatility};

use crate::error::{Error, Result};

/// Refuses a bound for the watermark of `stream` that is not a function of the row.
pub(crate) fn refuse_unsteady(stream: &str, bound: &Expr) -> Result<()> {
    let mut found = None;
    bound.apply(|e| {
        found = unsteady(e);
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    match found {
        None => Ok(()),
        Some(what) => Err(Error::invalid(format!("the watermark of stream \"{stream}\" cannot use {what}"))
            .with_hint("Compute it from the columns of the row, like WATERMARK FOR ts AS ts - INTERVAL '5 seconds'.")),
    }
}

/// Whether `expr` gives the same each time for a row.
pub(crate) fn is_steady(expr: &Expr) -> bool {
    matches!(expr.exists(|e| Ok(unsteady(e).is_some())), Ok(false))
}

fn unsteady(expr: &Expr) -> Option<String> {
    let call = |name: &str, why: &str| Some(format!("{name}(), which {why}"));
    match expr {
        Expr::ScalarFunction(f) if f.func.signature().volatility != Volatility::Immutable => {
            call(f.name(), "gives another value each time")
        }
        Expr::HigherOrderFunction(f) if f.func.signature().volatility != Volatility::Immutable => {
            call(f.func.name(), "gives another value each time")
        }
        Expr::AggregateFunction(f) => call(f.func.name(), "is over many rows"),
        Expr::WindowFunction(f) => call(f.fun.name(), "is over many rows"),
        Expr::Unnest(_) => Some("unnest, which makes many rows".to_owned()),
        Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_) => {
            Some("a subquery".to_owned())
        }
        _ => None,
    }
}
