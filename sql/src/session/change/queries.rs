//! The queries whose rows a statement changes, as syntax trees.
//!
//! ```text
//! DELETE FROM s WHERE c             SELECT s.* FROM s WHERE c
//! DELETE FROM s USING t WHERE c     SELECT s.* FROM s WHERE EXISTS (SELECT 1 FROM t WHERE c)
//! UPDATE s SET a = x FROM t …       SELECT s.*, x FROM s, t …
//! INSERT … ON CONFLICT (k)          SELECT excluded.*, s.*, hit, does, CASE WHEN does THEN x END, …
//!   DO UPDATE SET a = x WHERE c       FROM excluded LEFT JOIN s ON s.k = excluded.k
//! ```
//! where *hit* is `s.k IS NOT NULL`, and *does* `CASE WHEN hit THEN c END`: what is said of a row that is there is evaluated for such rows
//! only.

use datafusion::sql::sqlparser::ast::{
    self, Expr, Ident, ObjectNamePart, Select, SelectItem, SetExpr, TableFactor, TableWithJoins,
};

use crate::error::{Error, Result};
use crate::statement::{Change, Conflict, SetColumn, parse_condition, parse_query, quote_name};

/// What rows that are put in are called in ON CONFLICT.
pub(super) const EXCLUDED: &str = "excluded";

/// The old rows of `change`, with the columns `columns` of the stream first, then what is set.
pub(super) fn changed_rows(change: &Change, columns: &[&str], set: &[SetColumn<'_>]) -> Result<ast::Query> {
    let Some(table) = change.table() else {
        return Ok(*parse_query(&format!("SELECT * FROM {}", change.target))?.query);
    };
    let called = called(table)?;
    let column = |name: &&str| {
        let name = Ident::with_quote('"', *name);
        named(Expr::CompoundIdentifier(vec![called.clone(), name.clone()]), name)
    };
    let value =
        |(i, set): (usize, &SetColumn<'_>)| named(set.value.clone(), Ident::with_quote('"', format!("set {i}")));
    let items = columns.iter().map(column).chain(set.iter().enumerate().map(value)).collect();
    let mut from = vec![table.clone()];
    let mut condition = change.condition().cloned();
    if set.is_empty() && !change.others().is_empty() {
        // Each row counts once, however many it meets.
        let mut any = parse_condition("EXISTS (SELECT 1)")?;
        if let Expr::Exists { subquery, .. } = &mut any {
            let select = select_of(subquery)?;
            (select.from, select.selection) = (change.others().to_vec(), condition.take());
        }
        condition = Some(any);
    } else {
        from.extend_from_slice(change.others());
    }
    let mut query = *parse_query("SELECT 1")?.query;
    let select = select_of(&mut query)?;
    (select.projection, select.from, select.selection) = (items, from, condition);
    Ok(query)
}

/// All that `change` names side by side, in which each name must be clear: within EXISTS an inner one would hide an outer one.
pub(super) fn names(change: &Change) -> Result<Option<ast::Query>> {
    let Some(table) = change.table().filter(|_| !change.others().is_empty()) else { return Ok(None) };
    let mut query = *parse_query("SELECT 1")?.query;
    let select = select_of(&mut query)?;
    select.from = [std::slice::from_ref(table), change.others()].concat();
    select.selection = change.condition().cloned();
    Ok(Some(query))
}

/// The rows that are put into `stream`, beside those with their keys.
pub(super) fn conflicting_rows(
    stream: &str,
    columns: &[&str],
    key: &[&str],
    conflict: &Conflict<'_>,
) -> Result<ast::Query> {
    let of = |table: &str, column: &str| format!("{}.{}", quote_name(table), quote_name(column));
    let hit = key.first().map(|key| format!("{} IS NOT NULL", of(stream, key)));
    let hit = hit.ok_or_else(|| Error::internal("a key without columns"))?;
    let equal: Vec<String> = key.iter().map(|k| format!("{} = {}", of(stream, k), of(EXCLUDED, k))).collect();
    let mut items: Vec<String> = vec![];
    for table in [EXCLUDED, stream] {
        items.extend(columns.iter().map(|c| format!("{} AS {}", of(table, c), quote_name(&format!("{table} {c}")))));
    }
    let join = format!("{EXCLUDED} LEFT JOIN {} ON {}", quote_name(stream), equal.join(" AND "));
    let items = items.join(", ");
    let mut query = *parse_query(&format!("SELECT {items}, {hit} AS hit FROM {join}"))?.query;
    let select = select_of(&mut query)?;
    let hit = parse_condition(&hit)?;
    let does = match conflict.condition {
        Some(condition) => guarded(&hit, condition)?,
        None => hit,
    };
    select.projection.push(named(does.clone(), Ident::new("does")));
    for (i, set) in conflict.set.iter().flatten().enumerate() {
        select.projection.push(named(guarded(&does, set.value)?, Ident::with_quote('"', format!("set {i}"))));
    }
    Ok(query)
}

/// `CASE WHEN condition THEN value END`.
fn guarded(condition: &Expr, value: &Expr) -> Result<Expr> {
    let mut case = parse_condition("CASE WHEN 1 THEN 1 END")?;
    if let Expr::Case { conditions, .. } = &mut case
        && let [when] = conditions.as_mut_slice()
    {
        (when.condition, when.result) = (condition.clone(), value.clone());
    }
    Ok(case)
}

fn named(expr: Expr, alias: Ident) -> SelectItem {
    SelectItem::ExprWithAlias { expr, alias }
}

/// What a statement calls its stream.
fn called(table: &TableWithJoins) -> Result<Ident> {
    let found = match &table.relation {
        TableFactor::Table { alias: Some(alias), .. } => Some(alias.name.clone()),
        TableFactor::Table { name, .. } => name.0.last().and_then(ObjectNamePart::as_ident).cloned(),
        _ => None,
    };
    found.ok_or_else(|| Error::internal("a stream without a name"))
}

fn select_of(query: &mut ast::Query) -> Result<&mut Select> {
    match query.body.as_mut() {
        SetExpr::Select(select) => Ok(select),
        _ => Err(Error::internal("a query that is no SELECT")),
    }
}
