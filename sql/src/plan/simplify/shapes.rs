//! Single expressions that have a simpler form.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::expr::{BinaryExpr, InList, Like, ScalarFunction};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{Between, Case, Cast, Expr, ExprSchemable, Operator, TryCast};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;

use super::{cannot_fail, is_comparison};

pub(super) fn simplify(expr: Expr, info: &SimplifyContext) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(b) => binary(b, info),
        Expr::Between(b) if !b.expr.is_volatile() => Ok(Transformed::yes(between(b))),
        Expr::InList(list) => Ok(in_list(list, info)),
        Expr::Case(case) => branches(case, info),
        Expr::Like(like) => Ok(plain_like(like)),
        Expr::ScalarFunction(f) => function(f, info),
        other => Ok(Transformed::no(other)),
    }
}

fn binary(b: BinaryExpr, info: &SimplifyContext) -> Result<Transformed<Expr>> {
    let is_null = |e: &Expr| matches!(e, Expr::Literal(v, _) if v.is_null());
    let (left, right) = (is_null(&b.left), is_null(&b.right));
    let safe = (left && cannot_fail(&b.right)) || (right && cannot_fail(&b.left));
    if safe && b.op.returns_null_on_null() {
        let data_type = info.get_data_type(&Expr::BinaryExpr(b.clone()))?;
        return Ok(Transformed::yes(Expr::Literal(ScalarValue::try_new_null(&data_type)?, None)));
    }
    // Constants stand on the right.
    if is_comparison(b.op)
        && matches!(*b.left, Expr::Literal(..))
        && !matches!(*b.right, Expr::Literal(..))
        && let Some(op) = b.op.swap()
    {
        return Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(b.right, op, b.left))));
    }
    if is_comparison(b.op) {
        return Ok(narrowed(b, info));
    }
    let is_regex = matches!(
        b.op,
        Operator::RegexMatch | Operator::RegexNotMatch | Operator::RegexIMatch | Operator::RegexNotIMatch
    );
    if is_regex && matches!(*b.left, Expr::Column(_)) && matches!(*b.right, Expr::Literal(..)) {
        let given = Expr::BinaryExpr(b);
        let simple = ExprSimplifier::new(info.clone()).simplify(given.clone())?;
        let changed = simple != given;
        return Ok(Transformed::new_transformed(simple, changed));
    }
    Ok(Transformed::no(Expr::BinaryExpr(b)))
}

/// `CAST(a AS wider) < constant` as `a < constant` where the constant is one of `a`'s type.
fn narrowed(b: BinaryExpr, info: &SimplifyContext) -> Transformed<Expr> {
    let (Some(inner), Expr::Literal(value, _)) = (widened(&b.left, info), &*b.right) else {
        return Transformed::no(Expr::BinaryExpr(b));
    };
    match info.get_data_type(inner).ok().and_then(|t| as_narrow(value, &t)) {
        Some(value) => {
            let (left, right) = (Box::new(inner.clone()), Box::new(Expr::Literal(value, None)));
            Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(left, b.op, right)))
        }
        None => Transformed::no(Expr::BinaryExpr(b)),
    }
}

fn in_list(list: InList, info: &SimplifyContext) -> Transformed<Expr> {
    let Some(inner) = widened(&list.expr, info) else { return Transformed::no(Expr::InList(list)) };
    let Ok(data_type) = info.get_data_type(inner) else { return Transformed::no(Expr::InList(list)) };
    let narrow = |e: &Expr| match e {
        Expr::Literal(value, _) => as_narrow(value, &data_type).map(|v| Expr::Literal(v, None)),
        _ => None,
    };
    match list.list.iter().map(narrow).collect::<Option<Vec<_>>>() {
        Some(items) => Transformed::yes(Expr::InList(InList::new(Box::new(inner.clone()), items, list.negated))),
        None => Transformed::no(Expr::InList(list)),
    }
}

/// What is cast, if the cast cannot fail, keeps all values apart and in order.
fn widened<'a>(expr: &'a Expr, info: &SimplifyContext) -> Option<&'a Expr> {
    use DataType::*;
    let (Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field })) = expr else { return None };
    let from = info.get_data_type(expr).ok()?;
    let widens = matches!(
        (&from, field.data_type()),
        (Int8, Int16 | Int32 | Int64)
            | (Int16, Int32 | Int64)
            | (Int32, Int64)
            | (UInt8, UInt16 | UInt32 | UInt64 | Int16 | Int32 | Int64)
            | (UInt16, UInt32 | UInt64 | Int32 | Int64)
            | (UInt32, UInt64 | Int64)
            | (Utf8 | LargeUtf8 | Utf8View, Utf8 | LargeUtf8 | Utf8View)
    );
    widens.then_some(expr)
}

/// A constant in a narrower type, if it is one of its values.
fn as_narrow(value: &ScalarValue, to: &DataType) -> Option<ScalarValue> {
    let narrow = value.cast_to(to).ok()?;
    let back = narrow.cast_to(&value.data_type()).ok()?;
    (narrow.is_null() == value.is_null() && back == *value).then_some(narrow)
}

fn between(b: Between) -> Expr {
    let (low, high) = (*b.low, *b.high);
    let expr = *b.expr;
    match b.negated {
        true => expr.clone().lt(low).or(expr.gt(high)),
        false => expr.clone().gt_eq(low).and(expr.lt_eq(high)),
    }
}

/// Branches whose condition is known.
fn branches(case: Case, info: &SimplifyContext) -> Result<Transformed<Expr>> {
    let known = |e: &Expr| match e {
        Expr::Literal(ScalarValue::Boolean(truth), _) => Some(truth.unwrap_or(false)),
        _ => None,
    };
    if case.expr.is_some() || !case.when_then_expr.iter().any(|(when, _)| known(when).is_some()) {
        return Ok(Transformed::no(Expr::Case(case)));
    }
    let data_type = info.get_data_type(&Expr::Case(case.clone()))?;
    let mut kept = vec![];
    let mut otherwise = case.else_expr;
    for (when, then) in case.when_then_expr {
        match known(&when) {
            Some(true) => {
                otherwise = Some(then);
                break;
            }
            Some(false) => {}
            None => kept.push((when, then)),
        }
    }
    let null = || ScalarValue::try_new_null(&data_type).map(|v| Expr::Literal(v, None));
    Ok(Transformed::yes(match (kept.is_empty(), otherwise) {
        (true, Some(otherwise)) => *otherwise,
        (true, None) => null()?,
        (false, otherwise) => Expr::Case(Case { expr: None, when_then_expr: kept, else_expr: otherwise }),
    }))
}

/// `LIKE` without a wildcard is an equality.
fn plain_like(like: Like) -> Transformed<Expr> {
    let Expr::Literal(pattern, _) = &*like.pattern else { return Transformed::no(Expr::Like(like)) };
    let escape = like.escape_char.unwrap_or('\\');
    let is_plain = |p: &str| !p.contains(['%', '_', escape]);
    if like.case_insensitive || !pattern.try_as_str().flatten().is_some_and(is_plain) {
        return Transformed::no(Expr::Like(like));
    }
    let op = if like.negated { Operator::NotEq } else { Operator::Eq };
    Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(like.expr, op, like.pattern)))
}

/// What a function stands for. `power` and `log` take each other back there, which holds for some numbers only.
fn function(f: ScalarFunction, info: &SimplifyContext) -> Result<Transformed<Expr>> {
    if matches!(f.name(), "power" | "pow" | "log") {
        return Ok(Transformed::no(Expr::ScalarFunction(f)));
    }
    let ScalarFunction { func, mut args } = f;
    if func.name() == "coalesce" {
        // Behind one that is never NULL none is looked at; the CASE that is made of them would seem to be NULL for theirs.
        let never_null = args.iter().position(|arg| arg.nullable(info.schema()).is_ok_and(|nullable| !nullable));
        args.truncate(never_null.map_or(args.len(), |at| at + 1));
    }
    Ok(match func.simplify(args, info)? {
        ExprSimplifyResult::Original(args) => Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args })),
        ExprSimplifyResult::Simplified(simple) => Transformed::yes(simple),
    })
}
