//! What a column without a name is called: `t.price * 1.1`, and not `t.price * Decimal128(1.1,2,1)`.

use std::borrow::Cow;
use std::sync::Arc;

use datafusion::common::Column;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection};

const LITERALS: [&str; 2] = ["Decimal128(", "Decimal256("];

/// Gives the columns of a query the names of this module; those of COPY are its query's.
pub(in crate::plan) fn name_columns(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    if let LogicalPlan::Copy(mut copy) = plan {
        copy.input = Arc::new(name_columns(Arc::unwrap_or_clone(copy.input))?);
        return Ok(LogicalPlan::Copy(copy));
    }
    if plan.schema().fields().iter().all(|f| matches!(written(f.name()), Cow::Borrowed(_))) {
        return Ok(plan);
    }
    match plan {
        LogicalPlan::Projection(Projection { expr, input, .. }) => {
            let exprs = expr.into_iter().map(renamed).collect();
            Ok(LogicalPlan::Projection(Projection::try_new(exprs, input)?))
        }
        plan => {
            let schema = Arc::clone(plan.schema());
            let columns = schema.iter().map(|field| renamed(Expr::Column(Column::from(field)))).collect();
            Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(plan))?))
        }
    }
}

fn renamed(expr: Expr) -> Expr {
    let (relation, name) = expr.qualified_name();
    match written(&name) {
        Cow::Borrowed(_) => expr,
        Cow::Owned(new) => expr.alias_qualified(relation, new),
    }
}

/// A name with its decimals as they were written.
fn written(name: &str) -> Cow<'_, str> {
    for (at, prefix) in LITERALS.iter().flat_map(|l| name.match_indices(l)) {
        // The name of a type looks alike: `Decimal128(12, 2)`.
        if let Some((literal, after)) = parse(&name[at + prefix.len()..]) {
            return Cow::Owned(format!("{}{literal}{}", written(&name[..at]), written(after)));
        }
    }
    Cow::Borrowed(name)
}

/// `1.5,2,1)…` is `1.5` and what follows.
fn parse(text: &str) -> Option<(&str, &str)> {
    let (literal, text) = text.split_once(',')?;
    let (precision, text) = text.split_once(',')?;
    let (scale, text) = text.split_once(')')?;
    let is = |part: &str, more: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit() || more.contains(c));
    (is(literal, "-.") && is(precision, "") && is(scale, "-")).then_some((literal, text))
}
