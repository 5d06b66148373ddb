//! Changing syntax trees before they are planned.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName, Value,
    VisitMut, visit_expressions_mut,
};

use crate::error::Result;

/// Does `change` to each expression in `syntax`, to the inner ones first.
pub(super) fn each_expression(
    syntax: &mut impl VisitMut,
    mut change: impl FnMut(&mut Expr) -> Result<()>,
) -> Result<()> {
    let done = visit_expressions_mut(syntax, |expr| match change(expr) {
        Ok(()) => ControlFlow::Continue(()),
        Err(e) => ControlFlow::Break(e),
    });
    match done {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(e) => Err(e),
    }
}

/// Takes `expr` out of its place, for what is to stand there instead.
pub(super) fn taken(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, nothing())
}

/// Stands where an expression has to.
pub(super) fn nothing() -> Expr {
    Expr::Value(Value::Null.with_empty_span())
}

/// The call of a function.
pub(super) fn call(name: &str, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|a| FunctionArg::Unnamed(FunctionArgExpr::Expr(a))).collect();
    let list = FunctionArgumentList { duplicate_treatment: None, args, clauses: vec![] };
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(list),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}
