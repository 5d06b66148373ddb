//! `AND`, `OR` and `NOT` over three values. A conjunction is a list here: what repeats goes, what is known goes.

use datafusion::common::ScalarValue;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::expr::{BinaryExpr, InList, Like};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::split_binary_owned;
use datafusion::logical_expr::{Between, Expr, Operator, binary_expr, lit};

use super::cannot_fail;

pub(super) fn simplify(expr: Expr, info: &SimplifyContext) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::BinaryExpr(b) if matches!(b.op, Operator::And | Operator::Or) => chain(b),
        Expr::BinaryExpr(b) if matches!(b.op, Operator::Eq | Operator::NotEq) => with_truth(b, info)?,
        Expr::Not(inner) => negated(*inner),
        other => Transformed::no(other),
    })
}

fn truth(expr: &Expr) -> Option<bool> {
    match expr {
        Expr::Literal(ScalarValue::Boolean(truth), _) => *truth,
        _ => None,
    }
}

/// A chain of one operator: `neutral` operands go, behind a `deciding` one nothing matters, and of those that are the
/// same one stays.
fn chain(b: BinaryExpr) -> Transformed<Expr> {
    let op = b.op;
    let neutral = op == Operator::And;
    let given = split_binary_owned(Expr::BinaryExpr(b), op);
    let before = given.len();
    let mut kept: Vec<Expr> = Vec::with_capacity(before);
    for operand in given {
        match truth(&operand) {
            Some(t) if t == neutral => {}
            Some(_) => {
                // All before it would be evaluated first, and might fail.
                while kept.last().is_some_and(cannot_fail) {
                    kept.pop();
                }
                kept.push(operand);
                break;
            }
            None if kept.contains(&operand) && !operand.is_volatile() => {}
            None => kept.push(operand),
        }
    }
    let shorter = kept.len() < before;
    let expr = kept.into_iter().reduce(|a, b| binary_expr(a, op, b)).unwrap_or_else(|| lit(neutral));
    match expr {
        Expr::BinaryExpr(b) if b.op == Operator::Or => {
            let factored = factored(b);
            Transformed::new_transformed(factored.data, shorter || factored.transformed)
        }
        expr => Transformed::new_transformed(expr, shorter),
    }
}

/// `(a AND b) OR (a AND c)` as `a AND (b OR c)`, and `(a AND b) OR a` as `a` if `b` cannot fail.
fn factored(b: BinaryExpr) -> Transformed<Expr> {
    let left = split_binary_owned(b.left.as_ref().clone(), Operator::And);
    let right = split_binary_owned(b.right.as_ref().clone(), Operator::And);
    let (common, rest): (Vec<Expr>, Vec<Expr>) = right.into_iter().partition(|e| left.contains(e) && !e.is_volatile());
    let first: Vec<Expr> = left.into_iter().filter(|e| !common.contains(e)).collect();
    let safe = |es: &[Expr]| es.iter().all(cannot_fail);
    // What is common comes first then: what stood before it is evaluated on fewer rows, and must not be missed.
    if common.is_empty() || !safe(&common) || !safe(&first) || !safe(&rest) {
        return Transformed::no(Expr::BinaryExpr(b));
    }
    let all = |es: Vec<Expr>| es.into_iter().reduce(Expr::and);
    let either = all(first).zip(all(rest)).map(|(a, b)| a.or(b));
    let Some(common) = all(common) else { return Transformed::no(Expr::BinaryExpr(b)) };
    Transformed::yes(match either {
        Some(either) => common.and(either),
        None => common,
    })
}

/// `a = true` and its like, for a boolean `a`.
fn with_truth(b: BinaryExpr, info: &SimplifyContext) -> Result<Transformed<Expr>> {
    let (truth, other) = match (truth(&b.left), truth(&b.right)) {
        (Some(t), None) => (t, &b.right),
        (None, Some(t)) => (t, &b.left),
        _ => return Ok(Transformed::no(Expr::BinaryExpr(b))),
    };
    if !info.is_boolean_type(other)? {
        return Ok(Transformed::no(Expr::BinaryExpr(b)));
    }
    let other = other.as_ref().clone();
    let same = truth == (b.op == Operator::Eq);
    Ok(Transformed::yes(if same { other } else { Expr::Not(Box::new(other)) }))
}

/// The opposite of an expression, where there is a form for it.
fn negated(inner: Expr) -> Transformed<Expr> {
    Transformed::yes(match inner {
        Expr::Not(twice) => *twice,
        Expr::BinaryExpr(b) => match (b.op, b.op.negate()) {
            (Operator::And, _) => Expr::Not(b.left).or(Expr::Not(b.right)),
            (Operator::Or, _) => Expr::Not(b.left).and(Expr::Not(b.right)),
            (_, Some(op)) => Expr::BinaryExpr(BinaryExpr::new(b.left, op, b.right)),
            _ => return Transformed::no(Expr::Not(Box::new(Expr::BinaryExpr(b)))),
        },
        Expr::IsNull(e) => Expr::IsNotNull(e),
        Expr::IsNotNull(e) => Expr::IsNull(e),
        Expr::IsTrue(e) => Expr::IsNotTrue(e),
        Expr::IsNotTrue(e) => Expr::IsTrue(e),
        Expr::IsFalse(e) => Expr::IsNotFalse(e),
        Expr::IsNotFalse(e) => Expr::IsFalse(e),
        Expr::IsUnknown(e) => Expr::IsNotUnknown(e),
        Expr::IsNotUnknown(e) => Expr::IsUnknown(e),
        Expr::InList(list) => Expr::InList(InList { negated: !list.negated, ..list }),
        Expr::Between(b) => Expr::Between(Between { negated: !b.negated, ..b }),
        Expr::Like(like) => Expr::Like(Like { negated: !like.negated, ..like }),
        other => return Transformed::no(Expr::Not(Box::new(other))),
    })
}
