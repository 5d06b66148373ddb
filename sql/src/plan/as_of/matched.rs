//! What a planned join with a match condition means: keys, times, and which row is the match.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, JoinType, ScalarValue};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, ExprSchemable, Extension, Filter, Join, LogicalPlan, Operator};
use datafusion::sql::sqlparser::ast::{self, BinaryOperator, FunctionArg, FunctionArgExpr, FunctionArguments, Spanned};
use millstream_engine::operator::as_of::Way;

use super::AsOfJoin;
use super::syntax::Matched;
use crate::error::{Error, Position, Result};

/// How a condition is written.
const FORMS: &str =
    "Write MATCH_CONDITION (l.ts >= r.ts), with >=, >, <= or <, or MATCH_CONDITION (nearest(l.ts, r.ts)).";
/// What ON may say.
const EQUALITIES: &str = "Write equalities between both sides, l.k = r.k; conditions on the result go into WHERE.";

/// Plans a part of a condition over columns of a schema.
type PartPlanner<'a> = &'a dyn Fn(ast::Expr, &DFSchema) -> DfResult<Expr>;

/// `plan`, as the planner made it, with our node for each ASOF join.
pub(in crate::plan) fn as_nodes(plan: LogicalPlan, planner: PartPlanner<'_>) -> DfResult<LogicalPlan> {
    let with = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Join(join) => match Matched::of(&join.right) {
            Some(right) => {
                let node = Arc::new(node_of(&join, right, planner)?);
                Ok(Transformed::yes(LogicalPlan::Extension(Extension { node })))
            }
            None => Ok(Transformed::no(LogicalPlan::Join(join))),
        },
        plan => Ok(Transformed::no(plan)),
    })?;
    Ok(with.data)
}

fn node_of(join: &Join, right: &Matched, planner: PartPlanner<'_>) -> DfResult<AsOfJoin> {
    let place = Position::from_location(right.condition.span().start);
    let located = |e: Error| e.or_at(place);
    let sides = [join.left.schema().as_ref(), right.input.schema().as_ref()];
    let both = sides[0].join(sides[1])?;
    let (way, written) = way_of(&right.condition).map_err(located)?;
    let [a, b] = written.map(|part| planner(part.clone(), &both));
    let (a, b) = (a?, b?);
    let (way, times) = match (side_of(&a, sides), side_of(&b, sides)) {
        (Some(0), Some(1)) => (way, [a, b]),
        (Some(1), Some(0)) => (swapped(way), [b, a]),
        _ => {
            let error =
                Error::invalid("MATCH_CONDITION does not compare a time of the left side with one of the right side");
            return Err(located(error.with_hint(FORMS)).into());
        }
    };
    let [left, of_right] = times;
    let times = met(left, of_right, sides)?;
    check_times(&times, sides, way).map_err(located)?;
    let (mut on, mut conditions) = ([vec![], vec![]], vec![]);
    let equal = join.on.iter().map(|(l, r)| l.clone().eq(r.clone()));
    for part in equal.chain(join.filter.iter().flat_map(|filter| split_conjunction_owned(filter.clone()))) {
        match part {
            Expr::Literal(ScalarValue::Boolean(Some(true)), _) => {}
            Expr::BinaryExpr(e)
                if e.op == Operator::Eq
                    && let (Some(l), Some(r)) = (side_of(&e.left, sides), side_of(&e.right, sides))
                    && l != r =>
            {
                let (l, r) = if l == 0 { (*e.left, *e.right) } else { (*e.right, *e.left) };
                let [l, r] = met(l, r, sides)?;
                on[0].push(l);
                on[1].push(r);
            }
            // What cannot be a match is left out before one is looked for.
            part if side_of(&part, sides) == Some(1) => conditions.push(part),
            part => {
                let error = Error::unsupported(format!("ON {part} of an ASOF JOIN is not supported"));
                return Err(located(error.with_hint(EQUALITIES)).into());
            }
        }
    }
    let input = match conjunction(conditions) {
        Some(condition) => LogicalPlan::Filter(Filter::try_new(condition, Arc::new(right.input.clone()))?),
        None => right.input.clone(),
    };
    AsOfJoin::try_new([join.left.as_ref().clone(), input], on, times, way, join.join_type == JoinType::Left)
}

/// Which row is the match by `condition`, and what it compares.
fn way_of(condition: &ast::Expr) -> Result<(Way, [&ast::Expr; 2])> {
    let wrong = || Error::invalid("MATCH_CONDITION is not a comparison of two times").with_hint(FORMS);
    match condition {
        ast::Expr::Nested(inner) => way_of(inner),
        ast::Expr::BinaryOp { left, op, right } => {
            let way = match op {
                BinaryOperator::GtEq => Way::Last,
                BinaryOperator::Gt => Way::LastBefore,
                BinaryOperator::LtEq => Way::First,
                BinaryOperator::Lt => Way::FirstBehind,
                _ => return Err(wrong()),
            };
            Ok((way, [left, right]))
        }
        ast::Expr::Function(f) if f.name.to_string().eq_ignore_ascii_case("nearest") => {
            let FunctionArguments::List(list) = &f.args else { return Err(wrong()) };
            match &list.args[..] {
                [
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(left)),
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(right)),
                ] => Ok((Way::Nearest, [left, right])),
                _ => Err(wrong()),
            }
        }
        _ => Err(wrong()),
    }
}

fn swapped(way: Way) -> Way {
    match way {
        Way::Last => Way::First,
        Way::LastBefore => Way::FirstBehind,
        Way::First => Way::Last,
        Way::FirstBehind => Way::LastBefore,
        Way::Nearest => Way::Nearest,
    }
}

/// The side whose columns `expr` is over, if they are of one.
fn side_of(expr: &Expr, sides: [&DFSchema; 2]) -> Option<usize> {
    let columns = expr.column_refs();
    if columns.is_empty() || expr.contains_outer() {
        return None;
    }
    (0..2).find(|side| columns.iter().all(|column| sides[*side].has_column(column)))
}

/// Both in the type in which they are compared.
fn met(left: Expr, right: Expr, sides: [&DFSchema; 2]) -> DfResult<[Expr; 2]> {
    let types = [left.get_type(sides[0])?, right.get_type(sides[1])?];
    let meet = match (&types[0], &types[1]) {
        (a, b) if a == b => return Ok([left, right]),
        // In the timestamp's unit: nanoseconds end in 2262.
        (time @ DataType::Timestamp(..), DataType::Date32 | DataType::Date64)
        | (DataType::Date32 | DataType::Date64, time @ DataType::Timestamp(..)) => time.clone(),
        (a, b) => comparison_coercion(a, b).ok_or_else(|| {
            Error::invalid(format!("{left} and {right} of an ASOF JOIN cannot be compared"))
                .with_hint("Cast one of them to the type of the other.")
        })?,
    };
    let cast = |e: Expr, side: usize| if types[side] == meet { Ok(e) } else { e.cast_to(&meet, sides[side]) };
    Ok([cast(left, 0)?, cast(right, 1)?])
}

fn check_times(times: &[Expr; 2], sides: [&DFSchema; 2], way: Way) -> Result<()> {
    let of = times[0].get_type(sides[0])?;
    let is_time = of.is_temporal() && !matches!(of, DataType::Interval(_));
    if !is_time && !of.is_numeric() {
        return Err(Error::invalid("MATCH_CONDITION compares neither times nor numbers").with_hint(FORMS));
    }
    if way == Way::Nearest && of.is_floating() {
        return Err(Error::unsupported("nearest() in MATCH_CONDITION is not supported over floats")
            .with_hint("Cast both sides to a DECIMAL or a BIGINT."));
    }
    Ok(())
}
