//! Expressions that may have no value for a row, and where they may stand in a batch plan.
//!
//! DataFusion moves conditions: below joins and aggregates, and before others that guard them. A division
//! would then be evaluated on rows that never reach it. [`RiskyLast`] puts the operands that cannot fail first,
//! so that nothing is made of the others ahead of them; [`GuardArguments`] ties arguments of aggregates to
//! their filters; [`PinRisky`] keeps conditions that may well fail above
//! the joins, aggregates and windows where the query has them.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, disjunction, split_binary, split_conjunction_owned};
use datafusion::logical_expr::{BinaryExpr, Case, Cast, Expr, ExprSchemable, Extension, Filter, LogicalPlan, Operator};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use datafusion::scalar::ScalarValue;

use super::stay_put::StayPut;

/// How likely it is that an expression has no value for some row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Risk {
    /// It has one for all rows, or nothing is known of it.
    None,
    /// Where numbers are very large.
    Overflow,
    /// Where a divisor is 0 or a text is no number.
    Likely,
}

/// The risk of `expr` over rows of `schema`.
pub(super) fn risk(expr: &Expr, schema: &DFSchema) -> Risk {
    let mut most = Risk::None;
    let walked = expr.apply(|e| {
        most = most.max(risk_of_node(e, schema));
        Ok(if most == Risk::Likely { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    debug_assert!(walked.is_ok());
    most
}

fn risk_of_node(expr: &Expr, schema: &DFSchema) -> Risk {
    let type_of = |e: &Expr| e.get_type(schema).unwrap_or(DataType::Null);
    let exact = |e: &Expr| type_of(e).is_integer() || type_of(e).is_decimal();
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if exact(left) || exact(right) => match op {
            Operator::Divide | Operator::Modulo if !is_nonzero(right) => Risk::Likely,
            Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide => Risk::Overflow,
            _ => Risk::None,
        },
        Expr::Negative(_) => Risk::Overflow,
        Expr::Cast(Cast { expr: from, .. }) => {
            let (from, to) = (type_of(from), type_of(expr));
            match (from.is_string() && !to.is_string(), from.is_numeric() && to.is_numeric()) {
                (true, _) => Risk::Likely,
                (false, true) if !to.is_floating() && from != to => Risk::Overflow,
                _ => Risk::None,
            }
        }
        _ => Risk::None,
    }
}

fn is_nonzero(e: &Expr) -> bool {
    match e {
        Expr::Literal(value, _) => {
            let zero = ScalarValue::new_zero(&value.data_type());
            !value.is_null() && zero.is_ok_and(|zero| value.partial_cmp(&zero) != Some(Ordering::Equal))
        }
        Expr::Cast(cast) => is_nonzero(&cast.expr),
        _ => false,
    }
}

/// In AND and OR the operands that cannot fail come first.
#[derive(Debug)]
pub(super) struct RiskyLast;

impl OptimizerRule for RiskyLast {
    fn name(&self) -> &str {
        "risky_last"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        let schema = match (&plan, plan.inputs().as_slice()) {
            (_, [one]) => one.schema().as_ref().clone(),
            // Names that both sides have are not told apart here: such a condition stays as it is.
            (LogicalPlan::Join(_), [left, right]) => match left.schema().join(right.schema()) {
                Ok(both) => both,
                Err(_) => return Ok(Transformed::no(plan)),
            },
            _ => return Ok(Transformed::no(plan)),
        };
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|e| {
            let name = names.save(&e);
            Ok(e.transform_up(|e| Ok(reordered(e, &schema)))?.update_data(|e| name.restore(e)))
        })
    }
}

fn reordered(e: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let Expr::BinaryExpr(BinaryExpr { op: op @ (Operator::And | Operator::Or), .. }) = e else {
        return Transformed::no(e);
    };
    let operands = split_binary(&e, op);
    let risks: Vec<Risk> = operands.iter().map(|o| risk(o, schema)).collect();
    if risks.is_sorted() {
        return Transformed::no(e);
    }
    let mut ordered: Vec<(Risk, Expr)> = risks.into_iter().zip(operands.into_iter().cloned()).collect();
    ordered.sort_by_key(|(risk, _)| *risk);
    let ordered = ordered.into_iter().map(|(_, e)| e);
    let joined = if op == Operator::And { conjunction(ordered) } else { disjunction(ordered) };
    match joined {
        Some(joined) => Transformed::yes(joined),
        None => Transformed::no(e),
    }
}

/// An argument that may fail is evaluated where the aggregate's filter is true, whatever else needs the same
/// expression: `sum(10 / v) FILTER (WHERE v <> 0)`.
#[derive(Debug)]
pub(super) struct GuardArguments;

impl OptimizerRule for GuardArguments {
    fn name(&self) -> &str {
        "guard_arguments"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        let input = match &plan {
            LogicalPlan::Aggregate(aggregate) => &aggregate.input,
            LogicalPlan::Window(window) => &window.input,
            _ => return Ok(Transformed::no(plan)),
        };
        let schema = input.schema().as_ref().clone();
        let names = NamePreserver::new_for_projection();
        plan.map_expressions(|e| {
            let name = names.save(&e);
            Ok(e.transform_up(|e| Ok(guarded(e, &schema)))?.update_data(|e| name.restore(e)))
        })
    }
}

fn guarded(mut e: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let (filter, args, order_by): (_, _, &mut [Sort]) = match &mut e {
        Expr::AggregateFunction(call) => (&call.params.filter, &mut call.params.args, &mut call.params.order_by),
        // The order of a window is that of all its rows.
        Expr::WindowFunction(call) => (&call.params.filter, &mut call.params.args, &mut []),
        _ => return Transformed::no(e),
    };
    let Some(filter) = filter.clone() else { return Transformed::no(e) };
    let mut changed = false;
    for arg in args.iter_mut().chain(order_by.iter_mut().map(|s| &mut s.expr)) {
        let is_guarded = matches!(arg, Expr::Case(case) if case.when_then_expr.first().is_some_and(|w| w.0 == filter));
        if !is_guarded && risk(arg, schema) > Risk::None {
            let value = std::mem::take(arg);
            let when = vec![(filter.clone(), Box::new(value))];
            *arg = Expr::Case(Case { expr: None, when_then_expr: when, else_expr: None });
            changed = true;
        }
    }
    Transformed::new_transformed(e, changed)
}

/// Conditions that may well fail stay above what they must not be pushed through.
#[derive(Debug)]
pub(super) struct PinRisky;

impl OptimizerRule for PinRisky {
    fn name(&self) -> &str {
        "pin_risky"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(filter) = plan else { return Ok(Transformed::no(plan)) };
        if !changes_rows(&filter.input) {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        }
        let all = split_conjunction_owned(filter.predicate.clone());
        let risky = |e: &Expr| is_movable(e) && seen_through(e, &filter.input) == Risk::Likely;
        let (risky, plain): (Vec<Expr>, Vec<Expr>) = all.into_iter().partition(risky);
        let Some(predicate) = conjunction(risky) else { return Ok(Transformed::no(LogicalPlan::Filter(filter))) };
        let below = match conjunction(plain) {
            None => filter.input,
            Some(plain) => Arc::new(LogicalPlan::Filter(Filter::try_new(plain, filter.input)?)),
        };
        let node = StayPut { predicate, input: below.as_ref().clone() };
        Ok(Transformed::yes(LogicalPlan::Extension(Extension { node: Arc::new(node) })))
    }
}

/// Conditions with subqueries become joins, which only the optimizer can make of them.
fn is_movable(e: &Expr) -> bool {
    let inside = e.exists(|e| {
        let query =
            matches!(e, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_));
        Ok(query || matches!(e, Expr::OuterReferenceColumn(_, _)))
    });
    !inside.unwrap_or(true)
}

/// Whether rows of `plan` are not those of a table: a condition pushed down would meet others.
fn changes_rows(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {
            plan.inputs().into_iter().any(changes_rows)
        }
        LogicalPlan::Join(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) | LogicalPlan::Extension(_) => true,
        _ => false,
    }
}

/// The risk of `e`, with what the columns it names stand for below.
fn seen_through(e: &Expr, plan: &LogicalPlan) -> Risk {
    let own = risk(e, plan.schema());
    match plan {
        LogicalPlan::SubqueryAlias(alias) => own.max(of_columns(e, plan, &alias.input)),
        LogicalPlan::Projection(p) => {
            let columns = e.column_refs().into_iter().filter_map(|c| plan.schema().index_of_column(c).ok());
            columns.map(|i| seen_through(&p.expr[i], &p.input)).fold(own, Risk::max)
        }
        LogicalPlan::Filter(f) => own.max(seen_through(e, &f.input)),
        _ => own,
    }
}

/// The risk of the columns that `e` names of `plan`, which are those of `input` by position.
fn of_columns(e: &Expr, plan: &LogicalPlan, input: &LogicalPlan) -> Risk {
    let columns = e.column_refs().into_iter().filter_map(|c| plan.schema().index_of_column(c).ok());
    let below = columns.filter_map(|i| {
        let (qualifier, field) = (i < input.schema().fields().len()).then(|| input.schema().qualified_field(i))?;
        Some(seen_through(&Expr::from((qualifier, field)), input))
    });
    below.max().unwrap_or(Risk::None)
}
