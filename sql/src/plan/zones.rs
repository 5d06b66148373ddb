//! `AT TIME ZONE` before planning: the planner would make it a cast to nanoseconds, which ends in 2262 and fails on
//! local times that a clock change skips. It becomes a function of our own.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName, Value,
    VisitMut, visit_expressions_mut,
};

use crate::function::AT_TIME_ZONE;

/// Makes every `t AT TIME ZONE 'z'` in `syntax` the call of a function.
pub(super) fn call_zones<V: VisitMut>(syntax: &mut V) {
    let _ = visit_expressions_mut(syntax, |expr| {
        if let Expr::AtTimeZone { timestamp, time_zone } = expr {
            let time = std::mem::replace(timestamp.as_mut(), Expr::value(Value::Null));
            let zone = std::mem::replace(time_zone.as_mut(), Expr::value(Value::Null));
            *expr = call(AT_TIME_ZONE, vec![time, zone]);
        }
        ControlFlow::<()>::Continue(())
    });
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
