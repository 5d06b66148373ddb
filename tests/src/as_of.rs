//! ASOF joins in DuckDB's SQL: a row of each row's own, found by a sort. It has such joins itself, but takes any of several rows with
//! one time.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArguments, Ident, Join, JoinConstraint, JoinOperator, TableAlias,
    TableFactor, TableVersion,
};

use crate::raw::raw_table;

/// Why a join may not be said.
const TIES: &str = "which of several rows with one time an ASOF join takes goes by all their columns";

/// Whether a version is that of a time of each row.
pub(crate) fn is_of_rows(version: &TableVersion) -> bool {
    matches!(version, TableVersion::ForSystemTimeAsOf(Expr::CompoundIdentifier(_)))
}

/// `JOIN r FOR SYSTEM_TIME AS OF l.ts` as the ASOF join that it is: of all streams the event time is `ts`.
fn by_version(join: &mut Join) {
    let TableFactor::Table { name, alias, version, .. } = &mut join.relation else { return };
    let Some(TableVersion::ForSystemTimeAsOf(time)) = version.take() else { return };
    let table = alias.as_ref().map_or(name.to_string(), |alias| alias.name.to_string());
    let ts = Expr::Identifier(Ident::new(format!("{table}.ts")));
    let match_condition = Expr::BinaryOp { left: Box::new(time), op: BinaryOperator::GtEq, right: Box::new(ts) };
    let (left_outer, constraint) = match &join.join_operator {
        JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => (false, constraint.clone()),
        JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => (true, constraint.clone()),
        _ => return,
    };
    join.join_operator = JoinOperator::AsOf { match_condition, constraint };
    join.global = left_outer;
}

/// Makes a join of `join` that DuckDB reads, if it is an ASOF join.
pub(crate) fn lateral(join: &mut Join) -> Result<(), &'static str> {
    by_version(join);
    let JoinOperator::AsOf { match_condition, constraint } = &join.join_operator else { return Ok(()) };
    let on = match constraint {
        JoinConstraint::On(on) => on.to_string(),
        JoinConstraint::None => "true".to_owned(),
        // Cases that show columns of rows that tie are written so.
        _ => return Err(TIES),
    };
    let alias = match &join.relation {
        TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
            alias.clone()
        }
        TableFactor::Table { name, .. } => {
            TableAlias { explicit: true, name: Ident::new(name.to_string()), columns: vec![], at: None }
        }
        _ => return Err("the right side of an ASOF join has no name"),
    };
    let is_right = |e: &Expr| e.to_string().contains(&format!("{}.", alias.name));
    let (condition, order) = match match_condition {
        Expr::BinaryOp { left, op, right } => {
            let (time, swapped) = if is_right(right) { (right, false) } else { (left, true) };
            let back = matches!(op, BinaryOperator::GtEq | BinaryOperator::Gt) != swapped;
            (match_condition.to_string(), format!("{time} {}", if back { "DESC" } else { "ASC" }))
        }
        Expr::Function(Function { args: FunctionArguments::List(list), .. }) => {
            let args: Vec<String> = list.args.iter().map(ToString::to_string).collect();
            let [a, b] = &args[..] else { return Err("nearest() of other than two times") };
            let condition = format!("{a} IS NOT NULL AND {b} IS NOT NULL");
            (condition, format!("abs(epoch_us({a}) - epoch_us({b})) ASC, {b} DESC"))
        }
        _ => return Err("a match condition of this form"),
    };
    let (relation, name) = (&join.relation, &alias.name);
    let rows =
        format!("LATERAL (SELECT {name}.* FROM {relation} WHERE ({on}) AND {condition} ORDER BY {order} LIMIT 1)");
    let always = JoinConstraint::On(Expr::Identifier(Ident::new("true")));
    join.join_operator = match std::mem::take(&mut join.global) {
        true => JoinOperator::LeftOuter(always),
        false => JoinOperator::Inner(always),
    };
    join.relation = raw_table(rows, Some(alias));
    Ok(())
}
