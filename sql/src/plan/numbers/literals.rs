//! Literals: `1.5` is a decimal, `1e3` and what has more digits than a decimal are doubles.
//!
//! The planner makes every number that is no 64-bit integer a decimal, and cannot tell `1e3` from `1000` any more.
//! So doubles are marked in the syntax tree, as an operator over the number's text that only [`NumberLiterals`] plans.
//! A cast that is written in VALUES is marked too: INSERT puts casts of its own there, and those are assignments.

use std::ops::ControlFlow;

use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, Expr as Ast, Query, SetExpr, UnaryOperator, Value, ValueWithSpan, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::digits::MAX_DIGITS;
use crate::plan::syntax::taken;

/// Operators that no SQL text can have.
const DOUBLE: &str = "is a double";
const WRITTEN: &str = "is written";

/// Marks the literals of a query or an expression.
pub(in crate::plan) fn mark_literals(part: &mut impl VisitMut) {
    // The visitor never breaks.
    let _ = part.visit(&mut Marker);
}

struct Marker;

impl VisitorMut for Marker {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Ast) -> ControlFlow<()> {
        let double = match expr {
            Ast::Value(ValueWithSpan { value: Value::Number(text, _), span }) if is_double(text) => {
                Some((text.replace('_', ""), *span))
            }
            // With its sign, as the planner reads the sign of other numbers.
            Ast::UnaryOp { op: UnaryOperator::Minus, expr: inner } => match inner.as_ref() {
                Ast::Value(ValueWithSpan { value: Value::Number(text, _), span }) if is_double(text) => {
                    Some((format!("-{}", text.replace('_', "")), *span))
                }
                _ => None,
            },
            _ => None,
        };
        if let Some((text, span)) = double {
            *expr = marked(Ast::Value(Value::SingleQuotedString(text).with_span(span)), DOUBLE);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        mark_casts(&mut query.body);
        ControlFlow::Continue(())
    }
}

fn mark_casts(body: &mut SetExpr) {
    match body {
        SetExpr::Values(values) => {
            for cell in values.rows.iter_mut().flat_map(|row| &mut row.content) {
                let mut inner = &*cell;
                while let Ast::Nested(nested) = inner {
                    inner = nested;
                }
                if matches!(inner, Ast::Cast { .. }) {
                    *cell = marked(taken(cell), WRITTEN);
                }
            }
        }
        SetExpr::SetOperation { left, right, .. } => {
            mark_casts(left);
            mark_casts(right);
        }
        _ => {}
    }
}

pub(in crate::plan) fn marked(expr: Ast, mark: &str) -> Ast {
    let nothing = ast::Expr::Value(Value::Null.with_span(Span::empty()));
    Ast::BinaryOp { left: Box::new(expr), op: BinaryOperator::Custom(mark.to_owned()), right: Box::new(nothing) }
}

/// Whether a number is written with an exponent, or with more digits than a decimal has.
fn is_double(text: &str) -> bool {
    if text.contains(['e', 'E']) {
        return true;
    }
    let digits = |part: &str| part.bytes().filter(u8::is_ascii_digit).count();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    digits(whole.trim_start_matches(['0', '_'])) + digits(fraction) > usize::from(MAX_DIGITS)
}

/// Plans what [`mark_literals`] marked.
#[derive(Debug)]
pub(in crate::plan) struct NumberLiterals;

impl ExprPlanner for NumberLiterals {
    fn plan_binary_op(&self, expr: RawBinaryExpr, _schema: &DFSchema) -> DfResult<PlannerResult<RawBinaryExpr>> {
        match &expr.op {
            BinaryOperator::Custom(mark) if mark == DOUBLE => {
                let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = &expr.left else {
                    return Err(DataFusionError::Internal("a double without its text".to_owned()));
                };
                let value: f64 =
                    text.parse().map_err(|_| DataFusionError::Plan(format!("\"{text}\" is not a number")))?;
                Ok(PlannerResult::Planned(Expr::Literal(ScalarValue::Float64(Some(value)), None)))
            }
            BinaryOperator::Custom(mark) if mark == WRITTEN => Ok(PlannerResult::Planned(expr.left.alias("cast"))),
            _ => Ok(PlannerResult::Original(expr)),
        }
    }
}

/// The double nearest to a decimal literal.
pub(super) fn double_of(value: &ScalarValue) -> Option<f64> {
    // By its text: dividing the digits by a power of ten rounds twice.
    let (digits, scale) = match value {
        ScalarValue::Decimal32(Some(v), _, s) => (v.to_string(), *s),
        ScalarValue::Decimal64(Some(v), _, s) => (v.to_string(), *s),
        ScalarValue::Decimal128(Some(v), _, s) => (v.to_string(), *s),
        ScalarValue::Decimal256(Some(v), _, s) => (v.to_string(), *s),
        _ => return None,
    };
    format!("{digits}e{}", -i16::from(scale)).parse().ok()
}

/// The exact decimal that a text is, without an exponent.
pub(super) fn decimal_of(text: &str) -> Option<ScalarValue> {
    let text = text.trim();
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let all = format!("{whole}{fraction}");
    if all.is_empty() || !all.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = all.trim_start_matches('0').len().max(fraction.len()).max(1);
    if digits > usize::from(MAX_DIGITS) {
        return None;
    }
    let value: i128 = all.parse().ok()?;
    let scale = i8::try_from(fraction.len()).ok()?;
    let precision = u8::try_from(digits).ok()?;
    Some(ScalarValue::Decimal128(Some(if negative { -value } else { value }), precision, scale))
}
