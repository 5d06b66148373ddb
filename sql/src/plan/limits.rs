//! `ORDER BY … LIMIT` of a continuous query, as numbers of rows.
//!
//! ```text
//! Limit: skip=1, fetch=2            Projection: a, b
//!   Projection: a            ->       Filter: 1 < n AND n <= 3
//!     Sort: b                           Window: row_number() OVER (ORDER BY b) AS n
//! ```
//! So there is one operator for all that goes by an order. An order without a limit says nothing about a stream, and is
//! refused; that of DISTINCT ON has been used up when its plan comes here.

use std::sync::Arc;

use datafusion::common::alias::AliasGenerator;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result as DfResult;
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, FetchType, Filter, Limit, LogicalPlan, Projection, SkipType, SortExpr, SubqueryAlias,
    Window, ident, lit,
};

use crate::error::{Error, Result};

/// `plan`, optimized, with the rows of limits found by their numbers.
pub(super) fn by_number(plan: LogicalPlan, names: &AliasGenerator) -> DfResult<LogicalPlan> {
    let plan = match plan {
        LogicalPlan::Limit(limit) => match limit.input.as_ref() {
            // A projection and a name have as many rows as what they are of.
            LogicalPlan::Projection(p) => {
                let input = LogicalPlan::Limit(Limit { input: Arc::clone(&p.input), ..limit.clone() });
                let (expr, schema) = (p.expr.clone(), Arc::clone(&p.schema));
                return by_number(
                    LogicalPlan::Projection(Projection::try_new_with_schema(expr, Arc::new(input), schema)?),
                    names,
                );
            }
            LogicalPlan::SubqueryAlias(a) => {
                let input = LogicalPlan::Limit(Limit { input: Arc::clone(&a.input), ..limit.clone() });
                LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), a.alias.clone())?)
            }
            LogicalPlan::Sort(sort) => {
                let (skip, fetch) = bounds(&limit)?;
                let most = sort.fetch.map(|most| most.saturating_sub(skip));
                let fetch = fetch.into_iter().chain(most).min();
                numbered(&sort.input, sort.expr.clone(), skip, fetch, names)?
            }
            _ => {
                let (skip, fetch) = bounds(&limit)?;
                numbered(&limit.input, vec![], skip, fetch, names)?
            }
        },
        LogicalPlan::Sort(sort) => match sort.fetch {
            Some(fetch) => numbered(&sort.input, sort.expr, 0, Some(fetch), names)?,
            None => return by_number(Arc::unwrap_or_clone(sort.input), names),
        },
        plan => plan,
    };
    Ok(plan.map_children(|input| by_number(input, names).map(Transformed::yes))?.data)
}

/// So many rows are left out, and so many at most are given of the others.
fn bounds(limit: &Limit) -> DfResult<(usize, Option<usize>)> {
    match (limit.get_skip_type()?, limit.get_fetch_type()?) {
        (SkipType::Literal(skip), FetchType::Literal(fetch)) => Ok((skip, fetch)),
        _ => Err(Error::unsupported("LIMIT and OFFSET have to be constants").into()),
    }
}

fn numbered(
    input: &Arc<LogicalPlan>,
    order: Vec<SortExpr>,
    skip: usize,
    fetch: Option<usize>,
    names: &AliasGenerator,
) -> DfResult<LogicalPlan> {
    let schema = Arc::clone(input.schema());
    let name = names.next("__row");
    let number = Expr::from(WindowFunction::new(row_number_udwf(), vec![])).order_by(order).build()?;
    let window = Window::try_new(vec![number.alias(&name)], Arc::clone(input))?;
    let from = (skip > 0).then(|| ident(&name).gt(lit(skip as u64)));
    let to = fetch.map(|fetch| ident(&name).lt_eq(lit(skip.saturating_add(fetch) as u64)));
    let mut rows = LogicalPlan::Window(window);
    if let Some(wanted) = from.into_iter().chain(to).reduce(Expr::and) {
        rows = LogicalPlan::Filter(Filter::try_new(wanted, Arc::new(rows))?);
    }
    let columns = schema.iter().map(Expr::from).collect();
    Ok(LogicalPlan::Projection(Projection::try_new_with_schema(columns, Arc::new(rows), schema)?))
}

/// Refuses an order without a limit in `plan`, as it was written.
pub(super) fn refuse_loose_order(plan: &LogicalPlan) -> Result<()> {
    if !orders_loosely(plan, false) {
        return Ok(());
    }
    Err(Error::unsupported("ORDER BY without LIMIT says nothing about a continuous query")
        .with_hint("Leave it out here and order in a SELECT over the result, or add LIMIT."))
}

fn orders_loosely(plan: &LogicalPlan, limited: bool) -> bool {
    match plan {
        LogicalPlan::Sort(sort) => !(limited || sort.fetch.is_some()) || orders_loosely(&sort.input, false),
        LogicalPlan::Limit(limit) => orders_loosely(&limit.input, true),
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => {
            plan.inputs().into_iter().any(|input| orders_loosely(input, limited))
        }
        _ => plan.inputs().into_iter().any(|input| orders_loosely(input, false)),
    }
}
