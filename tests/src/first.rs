//! First rows that DuckDB would choose otherwise, or has no words for.

use datafusion::sql::sqlparser::ast::{
    Distinct, Expr, Ident, OrderBy, OrderByExpr, OrderByKind, OrderByOptions, Query, SelectItem, SetExpr,
};

/// Says in `query` which rows are meant.
pub(crate) fn first_rows(query: &mut Query) -> Result<(), &'static str> {
    let SetExpr::Select(select) = query.body.as_mut() else { return Ok(()) };
    if let (Some(Distinct::On(on)), None) = (&select.distinct, &query.order_by) {
        // DISTINCT ON without an order takes any row there.
        let given = select.projection.iter().filter_map(|item| match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
            _ => None,
        });
        let by = on.iter().chain(given).map(|expr| OrderByExpr {
            expr: expr.clone(),
            options: OrderByOptions { asc: None, nulls_first: None },
            with_fill: None,
        });
        query.order_by = Some(OrderBy { kind: OrderByKind::Expressions(by.collect()), interpolate: None });
    }
    let Some(fetch) = query.fetch.take_if(|fetch| fetch.with_ties) else { return Ok(()) };
    if query.limit_clause.is_some() || select.distinct.is_some() {
        return Err("WITH TIES behind OFFSET or DISTINCT");
    }
    let most = fetch.quantity.map_or("1".to_owned(), |rows| rows.to_string());
    let order = query.order_by.as_ref().map(ToString::to_string).unwrap_or_default();
    select.qualify = Some(Expr::Identifier(Ident::new(format!("rank() OVER ({order}) <= {most}"))));
    Ok(())
}
