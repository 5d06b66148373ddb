//! Spellings that the planner does not read, or not as they are meant, in words that it does.

use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Spanned, Value,
    ValueWithSpan, VisitMut,
};

use super::syntax::{call, each_expression, nothing, taken};
use crate::error::{Error, Position, Result};
use crate::function::patterns;
use crate::statement::fold;

/// Rewords what there is in `syntax`. `powers` says that `^` is a power; XOR if not.
pub(super) fn reword(syntax: &mut impl VisitMut, powers: bool) -> Result<()> {
    each_expression(syntax, |expr| match expr {
        Expr::CompoundFieldAccess { .. } => {
            fields(expr);
            Ok(())
        }
        Expr::Like { any: false, .. } | Expr::ILike { any: false, .. } | Expr::SimilarTo { .. } => {
            likeness(expr);
            Ok(())
        }
        Expr::Function(function) => {
            time_pattern(function);
            Ok(())
        }
        Expr::BinaryOp { op: BinaryOperator::BitwiseXor, .. } if powers => power(expr),
        _ => Ok(()),
    })
}

fn text(text: impl Into<String>) -> Expr {
    Expr::Value(Value::SingleQuotedString(text.into()).with_empty_span())
}

/// `(v).f` is `v['f']`.
fn fields(expr: &mut Expr) {
    let Expr::CompoundFieldAccess { root, access_chain } = expr else { return };
    // `a.b.c` may begin with a table; behind anything else a word is a field.
    let named = matches!(root.as_ref(), Expr::Identifier(_));
    let is_word = |access: &AccessExpr| matches!(access, AccessExpr::Dot(Expr::Identifier(_)));
    let first = if named { access_chain.iter().take_while(|access| is_word(access)).count() } else { 0 };
    for access in access_chain.iter_mut().skip(first) {
        if let AccessExpr::Dot(Expr::Identifier(field)) = access {
            let name = Value::SingleQuotedString(fold(field)).with_span(field.span);
            *access = AccessExpr::Dot(Expr::Value(name));
        }
    }
}

/// LIKE with an escape of its own, and SIMILAR TO.
fn likeness(expr: &mut Expr) {
    let escape_text = |escape: &ValueWithSpan| Expr::Value(escape.clone());
    match expr {
        Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
            if let Some(escape) = escape_char.take() {
                let written = taken(pattern);
                **pattern = call(patterns::LIKE, vec![written, escape_text(&escape)]);
            }
        }
        Expr::SimilarTo { negated, expr: value, pattern, escape_char } => {
            let negated = *negated;
            let value = taken(value);
            let pattern = taken(pattern);
            let escape = escape_char.as_ref().map_or_else(|| text("\\"), escape_text);
            let like = call("regexp_like", vec![value, call(patterns::SIMILAR, vec![pattern, escape])]);
            *expr = match negated {
                true => Expr::Nested(Box::new(Expr::UnaryOp {
                    op: datafusion::sql::sqlparser::ast::UnaryOperator::Not,
                    expr: Box::new(like),
                })),
                false => like,
            };
        }
        _ => {}
    }
}

/// The pattern of `to_char` may be PostgreSQL's.
fn time_pattern(function: &mut Function) {
    if !function.name.to_string().eq_ignore_ascii_case("to_char") {
        return;
    }
    let FunctionArguments::List(list) = &mut function.args else { return };
    if let [_, FunctionArg::Unnamed(FunctionArgExpr::Expr(pattern))] = list.args.as_mut_slice() {
        let written = taken(pattern);
        *pattern = call(patterns::TIME, vec![written]);
    }
}

/// `a * b ^ c` is `a * power(b, c)`: the parser reads `^` as binding less than `+`.
fn power(expr: &mut Expr) -> Result<()> {
    let at = Position::from_location(expr.span().start);
    let (mut operands, mut operators) = (vec![], vec![]);
    flatten(taken(expr), &mut operands, &mut operators);
    // Operators wait for those behind them that bind more.
    let (mut values, mut waiting): (Vec<Expr>, Vec<(BinaryOperator, u8)>) = (vec![], vec![]);
    let mut rest = operands.into_iter();
    values.extend(rest.next());
    for (op, right) in operators.into_iter().zip(rest) {
        let binds = match op {
            BinaryOperator::BitwiseXor => 3,
            BinaryOperator::Multiply | BinaryOperator::Divide | BinaryOperator::Modulo => 2,
            BinaryOperator::Plus | BinaryOperator::Minus => 1,
            other => {
                return Err(Error::unsupported(format!("{other} beside ^ is not supported"))
                    .with_hint("Put one of them in parentheses.")
                    .or_at(at));
            }
        };
        while let Some((op, _)) = waiting.pop_if(|(_, before)| *before >= binds) {
            apply(op, &mut values);
        }
        waiting.push((op, binds));
        values.push(right);
    }
    while let Some((op, _)) = waiting.pop() {
        apply(op, &mut values);
    }
    *expr = values.pop().unwrap_or_else(nothing);
    Ok(())
}

fn flatten(expr: Expr, operands: &mut Vec<Expr>, operators: &mut Vec<BinaryOperator>) {
    match expr {
        Expr::BinaryOp { left, op, right } if !matches!(op, BinaryOperator::Custom(_)) => {
            flatten(*left, operands, operators);
            operators.push(op);
            flatten(*right, operands, operators);
        }
        operand => operands.push(operand),
    }
}

/// Puts an operator over the last two of `values`.
fn apply(op: BinaryOperator, values: &mut Vec<Expr>) {
    let (Some(right), Some(left)) = (values.pop(), values.pop()) else { return };
    values.push(match op {
        BinaryOperator::BitwiseXor => call("power", vec![left, right]),
        op => Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) },
    });
}
