//! Functions that make rows where a table stands, as lists that are unnested.
//!
//! ```text
//! t, generate_series(1, t.n) AS g            UNNEST(generate_series(1, t.n)) AS g(value)
//! LATERAL unnest(t.l) AS u(x)                UNNEST(t.l) AS u(x)
//! unnest(t.l) WITH ORDINALITY AS u(x, n)     UNNEST(t.l, generate_series(1, length of t.l)) AS u(x, n)
//! ```
//! A series between constants stays what it is: it need not be a list.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, TableAlias, TableAliasColumnDef, TableFactor, Value, Visit,
    VisitMut, Visitor, VisitorMut, visit_expressions_mut,
};

use super::syntax::call;
use crate::statement::{RowFunction, row_function};

/// What the column of positions is called, as in PostgreSQL.
const ORDINALITY: &str = "ordinality";

/// Makes lists of such functions in `syntax`.
pub(super) fn as_lists(syntax: &mut impl VisitMut) {
    let _ = syntax.visit(&mut Lists);
}

struct Lists;

impl VisitorMut for Lists {
    type Break = ();

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let Some(list) = listed(factor) {
            *factor = list;
        }
        ControlFlow::Continue(())
    }
}

fn listed(factor: &TableFactor) -> Option<TableFactor> {
    match factor {
        TableFactor::UNNEST { array_exprs, alias, with_ordinality, with_offset: false, .. } => {
            Some(unnest(array_exprs.clone(), alias.clone(), "unnest", *with_ordinality))
        }
        TableFactor::Function { name, args, alias, with_ordinality, .. } => {
            called(name, args, alias.clone(), *with_ordinality)
        }
        TableFactor::Table { name, args: Some(args), alias, with_ordinality, .. }
            if *with_ordinality || args.args.iter().any(has_columns) =>
        {
            called(name, &args.args, alias.clone(), *with_ordinality)
        }
        _ => None,
    }
}

/// The call of a function where a table stands.
fn called(name: &ObjectName, args: &[FunctionArg], alias: Option<TableAlias>, positions: bool) -> Option<TableFactor> {
    let value = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => Some(value.clone()),
        _ => None,
    };
    let args = args.iter().map(value).collect::<Option<Vec<_>>>()?;
    match row_function(name)? {
        RowFunction::Unnest => Some(unnest(args, alias, "unnest", positions)),
        RowFunction::Series(series) => {
            let mut alias = alias.unwrap_or_else(|| named(series));
            if alias.columns.is_empty() {
                alias.columns = vec![TableAliasColumnDef::from_name("value")];
            }
            Some(unnest(vec![call(series, args)], Some(alias), series, positions))
        }
    }
}

fn named(name: &str) -> TableAlias {
    TableAlias { explicit: true, name: Ident::new(name), columns: vec![], at: None }
}

fn unnest(mut lists: Vec<Expr>, mut alias: Option<TableAlias>, function: &str, positions: bool) -> TableFactor {
    lists.iter_mut().for_each(called_lists);
    if positions {
        let mut known = alias.take().unwrap_or_else(|| named(function));
        if known.columns.is_empty() {
            let name = |i: usize| match lists.len() {
                1 => known.name.value.clone(),
                _ => format!("{}_{}", known.name.value, i + 1),
            };
            known.columns = (0..lists.len()).map(name).map(TableAliasColumnDef::from_name).collect();
        }
        if known.columns.len() == lists.len() {
            known.columns.push(TableAliasColumnDef::from_name(ORDINALITY));
        }
        alias = Some(known);
        lists.push(numbers_of(&lists));
    }
    TableFactor::UNNEST {
        alias,
        array_exprs: lists,
        with_offset: false,
        with_offset_alias: None,
        with_ordinality: false,
    }
}

/// `[t.a, t.b]` in `list` is `make_array(t.a, t.b)`: in a literal the planner does not find columns of the rows beside it (DataFusion
/// 55).
fn called_lists(list: &mut Expr) {
    let _ = visit_expressions_mut(list, |expr| {
        if let Expr::Array(array) = expr
            && has_columns(array)
        {
            *expr = call("make_array", std::mem::take(&mut array.elem));
        }
        ControlFlow::<()>::Continue(())
    });
}

/// The numbers from 1 to the length of the longest list.
fn numbers_of(lists: &[Expr]) -> Expr {
    let number = |n: &str| Expr::Value(Value::Number(n.to_owned(), false).with_empty_span());
    let text = |text: &str| Expr::Value(Value::SingleQuotedString(text.to_owned()).with_empty_span());
    let length = |list: &Expr| {
        let length = call("arrow_cast", vec![call("array_length", vec![list.clone()]), text("Int64")]);
        call("coalesce", vec![length, number("0")])
    };
    let mut lengths: Vec<Expr> = lists.iter().map(length).collect();
    let longest = if lengths.len() == 1 { lengths.remove(0) } else { call("greatest", lengths) };
    call("generate_series", vec![number("1"), longest])
}

/// Whether an expression looks at columns.
fn has_columns(of: &impl Visit) -> bool {
    struct Columns;
    impl Visitor for Columns {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    of.visit(&mut Columns).is_break()
}
