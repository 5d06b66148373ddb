//! Expressions as those who wrote them would know them again.

use std::fmt;

use arrow::datatypes::{DataType, Schema};
use datafusion_expr::Operator;
use datafusion_physical_expr::expressions::{BinaryExpr, CastExpr};
use datafusion_physical_expr::{PhysicalExpr, ScalarFunctionExpr};

use super::casts::always_casts;
use super::checked::{Fitting, Negative};
use super::never_null::NeverNull;
use crate::format::sql_name;

/// Functions that planning puts around an operand.
const UNWRITTEN: [&str; 2] = ["canonical_float", "float_value"];

/// `expr`, over rows of `schema`, as SQL: types have their SQL names, and what planning has put around operands, such as
/// a cast to a wider number, is left out.
pub(super) fn text(expr: &dyn PhysicalExpr, schema: &Schema) -> String {
    let expr = written(expr, schema);
    if let Some(negative) = expr.downcast_ref::<Negative>() {
        return format!("- {}", operand(negative.0.as_ref(), u8::MAX, schema));
    }
    if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        let precedence = binary.op().precedence();
        // The right operand of an operator that stands twice has parentheses of its own: a - (b - c).
        let right = if is_associative(*binary.op()) { precedence } else { precedence.saturating_add(1) };
        let (a, b) =
            (operand(binary.left().as_ref(), precedence, schema), operand(binary.right().as_ref(), right, schema));
        return format!("{a} {} {b}", binary.op());
    }
    if let Some(cast) = expr.downcast_ref::<CastExpr>() {
        return format!("CAST({} AS {})", text(cast.expr().as_ref(), schema), sql_name(cast.cast_type()));
    }
    if let Some(function) = expr.downcast_ref::<ScalarFunctionExpr>() {
        let args: Vec<String> = function.args().iter().map(|arg| text(arg.as_ref(), schema)).collect();
        return format!("{}({})", function.fun().name(), args.join(", "));
    }
    Sql(expr).to_string()
}

/// `expr` without what planning has put around it.
fn written<'a>(expr: &'a dyn PhysicalExpr, schema: &Schema) -> &'a dyn PhysicalExpr {
    let inner = if let Some(fitting) = expr.downcast_ref::<Fitting>() {
        Some(&fitting.0)
    } else if let Some(known) = expr.downcast_ref::<NeverNull>() {
        Some(&known.0)
    } else if let Some(cast) = expr.downcast_ref::<CastExpr>() {
        let to = cast.cast_type();
        let widens = |from: DataType| from.is_numeric() && to.is_numeric() && always_casts(&from, to);
        cast.expr().data_type(schema).is_ok_and(widens).then(|| cast.expr())
    } else {
        let function = expr.downcast_ref::<ScalarFunctionExpr>();
        function.filter(|f| UNWRITTEN.contains(&f.fun().name())).and_then(|f| f.args().first())
    };
    inner.map_or(expr, |inner| written(inner.as_ref(), schema))
}

/// In DataFusion's words.
struct Sql<'a>(&'a dyn PhysicalExpr);

impl fmt::Display for Sql<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_sql(f)
    }
}

fn is_associative(op: Operator) -> bool {
    matches!(op, Operator::And | Operator::Or | Operator::Plus | Operator::Multiply)
}

/// An operand of an operator, in parentheses where it binds less.
fn operand(expr: &dyn PhysicalExpr, precedence: u8, schema: &Schema) -> String {
    let shown = text(expr, schema);
    match written(expr, schema).downcast_ref::<BinaryExpr>().map(|b| b.op().precedence()) {
        Some(p) if p == 0 || p < precedence => format!("({shown})"),
        _ => shown,
    }
}
