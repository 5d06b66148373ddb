//! What expressions mean, where DataFusion's planner gives them another meaning. Applied behind type coercion, to
//! batch and streaming plans alike, whether or not they are optimized:
//!
//! | expression | why |
//! |---|---|
//! | comparisons of floats, `IN`, `BETWEEN`, `CASE x WHEN`, `nullif`, `greatest`, `least` | one zero, one NaN: over `float_value` |
//! | a timestamp beside a date or a text | compared in the timestamp's unit: nanoseconds end in 2262 |
//! | `- a`, whole | `0 - a`, which fails where the other would wrap around |
//! | `a IN (b, CASE …)` | with the CASE in a comparison of its own: the list would be taken for constants |
//! | `IS TRUE` and its kin | a CASE, which is never null: DataFusion says so of the one and not of the other |
//! | a time with a zone, and an interval | `zoned_plus`: local times that the clock skips or repeats |

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Between, BinaryExpr, Case, InList, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, LogicalPlan, Operator, TableScan, TryCast, lit, not};
use datafusion::optimizer::AnalyzerRule;

use crate::function::{float_scalar, float_value, zoned_plus};

/// The rule.
#[derive(Debug)]
pub(super) struct ExactExpressions;

impl AnalyzerRule for ExactExpressions {
    fn name(&self) -> &str {
        "exact_expressions"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(exact_node).map(|t| t.data)
    }
}

fn exact_node(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(TableScan { table_name, source, .. }) = &plan {
        schema.merge(&DFSchema::try_from_qualified_schema(table_name.clone(), &source.schema())?);
    }
    let names = NamePreserver::new(&plan);
    let mut changed = false;
    let plan = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let exact = expr.transform_up(|e| exact_expr(e, &schema))?;
        changed |= exact.transformed;
        Ok(match exact.transformed {
            true => Transformed::yes(name.restore(exact.data)),
            false => exact,
        })
    })?;
    match changed {
        true => Ok(Transformed::yes(plan.data.recompute_schema()?)),
        false => Ok(Transformed::no(plan.data)),
    }
}

/// One expression, whose operands are exact already.
fn exact_expr(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let of = |e: &Expr| e.get_type(schema).unwrap_or(DataType::Null);
    Ok(match expr {
        Expr::BinaryExpr(b) if is_comparison(b.op) => {
            let mut operands = [*b.left, *b.right];
            let changed = compared(&mut operands.iter_mut().collect::<Vec<_>>(), of);
            let [left, right] = operands;
            let expr = Expr::BinaryExpr(BinaryExpr::new(Box::new(left), b.op, Box::new(right)));
            Transformed::new_transformed(expr, changed)
        }
        Expr::BinaryExpr(b) if matches!(b.op, Operator::Plus | Operator::Minus) => zoned(b, of),
        // Of the smallest number there is no opposite: what fails as a difference would wrap around as an opposite.
        Expr::Negative(e) if of(&e).is_signed_integer() && !matches!(*e, Expr::Literal(..)) => {
            let zero = lit(ScalarValue::new_zero(&of(&e))?);
            Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(Box::new(zero), Operator::Minus, e)))
        }
        Expr::Between(mut b) => {
            let changed = compared(&mut [b.expr.as_mut(), b.low.as_mut(), b.high.as_mut()], of);
            Transformed::new_transformed(Expr::Between(Between { ..b }), changed)
        }
        Expr::InList(mut list) => {
            let mut operands = vec![list.expr.as_mut()];
            operands.extend(list.list.iter_mut());
            let changed = compared(&mut operands, of);
            let spelled = spelled_out(list);
            Transformed::new_transformed(spelled.data, changed || spelled.transformed)
        }
        Expr::Case(mut case) => {
            let changed = case_operands(&mut case, of);
            Transformed::new_transformed(Expr::Case(case), changed)
        }
        Expr::ScalarFunction(mut f) if matches!(f.name(), "nullif" | "greatest" | "least") => {
            let changed = floats(&mut f.args.iter_mut().collect::<Vec<_>>(), of);
            Transformed::new_transformed(Expr::ScalarFunction(f), changed)
        }
        Expr::IsTrue(e) => Transformed::yes(truth(*e, true, false)),
        Expr::IsNotTrue(e) => Transformed::yes(truth(*e, false, true)),
        Expr::IsFalse(e) => Transformed::yes(truth(not(*e), true, false)),
        Expr::IsNotFalse(e) => Transformed::yes(truth(not(*e), false, true)),
        Expr::IsUnknown(e) => Transformed::yes(Expr::IsNull(e)),
        Expr::IsNotUnknown(e) => Transformed::yes(Expr::IsNotNull(e)),
        other => Transformed::no(other),
    })
}

/// `a IN (b, CASE …)` as `a IN (b) OR a = CASE …`. The list is taken for one of constants if it has values over no rows at all
/// (DataFusion 55), and a CASE may, though it has others over rows.
fn spelled_out(list: InList) -> Transformed<Expr> {
    let has_case = |e: &Expr| e.exists(|e| Ok(matches!(e, Expr::Case(_)))).unwrap_or(true);
    let seems_constant = |e: &Expr| has_case(e) && !e.column_refs().is_empty();
    if list.expr.is_volatile() || !list.list.iter().any(seems_constant) {
        return Transformed::no(Expr::InList(list));
    }
    let InList { expr, list, negated } = list;
    let (apart, kept): (Vec<_>, Vec<_>) = list.into_iter().partition(seems_constant);
    let kept = (!kept.is_empty()).then(|| expr.clone().in_list(kept, false));
    let is = |e: Expr| Expr::BinaryExpr(BinaryExpr::new(expr.clone(), Operator::Eq, Box::new(e)));
    let apart = apart.into_iter().map(is);
    let any = kept.into_iter().chain(apart).reduce(Expr::or).unwrap_or_else(|| lit(false));
    Transformed::yes(if negated { not(any) } else { any })
}

/// `yes` where `e` is true, else `no`.
fn truth(e: Expr, yes: bool, no: bool) -> Expr {
    let when = vec![(Box::new(e), Box::new(lit(yes)))];
    Expr::Case(Case { expr: None, when_then_expr: when, else_expr: Some(Box::new(lit(no))) })
}

fn is_comparison(op: Operator) -> bool {
    use Operator::*;
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn case_operands(case: &mut Case, of: impl Fn(&Expr) -> DataType) -> bool {
    let Some(operand) = &mut case.expr else { return false };
    let mut operands = vec![operand.as_mut()];
    operands.extend(case.when_then_expr.iter_mut().map(|(when, _)| when.as_mut()));
    compared(&mut operands, of)
}

/// Makes operands that are compared with each other comparable; says whether that changed one.
fn compared(operands: &mut [&mut Expr], of: impl Fn(&Expr) -> DataType) -> bool {
    // Both are looked at: a list of floats has no timestamps.
    floats(operands, &of) | units(operands, &of)
}

fn floats(operands: &mut [&mut Expr], of: impl Fn(&Expr) -> DataType) -> bool {
    let mut changed = false;
    for operand in operands {
        if matches!(of(operand), DataType::Float32 | DataType::Float64) && !is_plain(operand, &of) {
            let taken = std::mem::replace(&mut **operand, lit(ScalarValue::Null));
            **operand = match taken {
                Expr::Literal(value, metadata) => Expr::Literal(float_scalar(value), metadata),
                other => Expr::ScalarFunction(ScalarFunction::new_udf(float_value(), vec![other])),
            };
            changed = true;
        }
    }
    changed
}

/// Whether a float has the bits of its value for sure.
fn is_plain(expr: &Expr, of: impl Fn(&Expr) -> DataType) -> bool {
    match expr {
        Expr::Literal(value, _) => float_scalar(value.clone()) == *value,
        // Whole and decimal numbers are no NaN, and their zero is the positive one.
        Expr::Cast(Cast { expr, .. }) | Expr::TryCast(TryCast { expr, .. }) => {
            let from = of(expr);
            from.is_integer() || from.is_decimal()
        }
        Expr::ScalarFunction(f) => f.name() == float_value().name(),
        _ => false,
    }
}

/// Takes back casts of timestamps to nanoseconds that only the other operand asked for.
fn units(operands: &mut [&mut Expr], of: impl Fn(&Expr) -> DataType) -> bool {
    let mut finest = None;
    for operand in operands.iter() {
        let Some(unit) = (match &**operand {
            Expr::Literal(value, _) if value.is_null() => continue,
            Expr::Cast(Cast { expr, field }) if is_nanos(field.data_type()) => match of(expr) {
                DataType::Timestamp(unit, _) => Some(unit),
                // A date is a time of any unit, and a text has the digits that the other side can tell apart.
                DataType::Date32 | DataType::Date64 | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                    continue;
                }
                _ => None,
            },
            _ => None,
        }) else {
            return false;
        };
        finest = Some(finest.map_or(unit, |f: TimeUnit| f.max(unit)));
    }
    let unit = match finest {
        None | Some(TimeUnit::Nanosecond) => return false,
        Some(unit) => unit.max(TimeUnit::Microsecond),
    };
    for operand in operands {
        match &mut **operand {
            Expr::Cast(cast) => {
                let DataType::Timestamp(_, zone) = cast.field.data_type() else { continue };
                let to = DataType::Timestamp(unit, zone.clone());
                let given = of(&cast.expr) == to;
                let taken = std::mem::replace(cast.expr.as_mut(), lit(ScalarValue::Null));
                **operand = if given { taken } else { Expr::Cast(Cast::new(Box::new(taken), to)) };
            }
            Expr::Literal(value, _) if is_nanos(&value.data_type()) => {
                let DataType::Timestamp(_, zone) = value.data_type() else { continue };
                **operand = lit(ScalarValue::TimestampMicrosecond(None, zone));
            }
            _ => {}
        }
    }
    true
}

fn is_nanos(t: &DataType) -> bool {
    matches!(t, DataType::Timestamp(TimeUnit::Nanosecond, _))
}

/// A time with a zone, and an interval that is added or taken away.
fn zoned(b: BinaryExpr, of: impl Fn(&Expr) -> DataType) -> Transformed<Expr> {
    let is_zoned = |t: &DataType| matches!(t, DataType::Timestamp(_, Some(zone)) if !matches!(&**zone, "UTC" | "Z" | "+00:00" | "Etc/UTC"));
    let is_interval = |t: &DataType| matches!(t, DataType::Interval(_));
    let right = of(&b.right);
    // The left operand may be a sum of thousands.
    if !is_zoned(&right) && !is_interval(&right) {
        return Transformed::no(Expr::BinaryExpr(b));
    }
    let left = of(&b.left);
    let call = |time, interval, sign: i64| {
        Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(zoned_plus(), vec![time, interval, lit(sign)])))
    };
    match b.op {
        Operator::Plus if is_zoned(&left) && is_interval(&right) => call(*b.left, *b.right, 1),
        Operator::Plus if is_interval(&left) && is_zoned(&right) => call(*b.right, *b.left, 1),
        Operator::Minus if is_zoned(&left) && is_interval(&right) => call(*b.left, *b.right, -1),
        _ => Transformed::no(Expr::BinaryExpr(b)),
    }
}
