//! What a call with OVER computes of its rows is computed below it, where a row decides alone whether an expression
//! fails: DataFusion evaluates arguments, PARTITION BY and ORDER BY of windows by itself, with arithmetic that wraps.

use std::sync::Arc;

use datafusion::common::alias::AliasGenerator;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr::WindowFunctionParams;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, Window};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::risk::{Risk, risk};

/// Puts a projection below windows over expressions.
#[derive(Debug)]
pub(super) struct ComputeBelowOver;

impl OptimizerRule for ComputeBelowOver {
    fn name(&self) -> &str {
        "compute_below_over"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        let LogicalPlan::Window(window) = plan else { return Ok(Transformed::no(plan)) };
        let rows = Arc::clone(window.input.schema());
        below(window, config.alias_generator(), |e| risk(e, &rows) != Risk::None && !e.column_refs().is_empty())
    }
}

/// `plan` with windows over columns and constants: what they are over is computed below.
pub(super) fn over_columns(plan: LogicalPlan, names: &AliasGenerator) -> DfResult<LogicalPlan> {
    let plan = plan.transform_up(|plan| match plan {
        LogicalPlan::Window(window) => below(window, names, |e| !e.column_refs().is_empty() || e.is_volatile()),
        plan => Ok(Transformed::no(plan)),
    })?;
    Ok(plan.data)
}

/// A window over what `is_computed` below it.
fn below(
    window: Window,
    aliases: &AliasGenerator,
    is_computed: impl Fn(&Expr) -> bool,
) -> DfResult<Transformed<LogicalPlan>> {
    let rows = window.input.schema();
    let names = NamePreserver::new_for_projection();
    let mut computed: Vec<(Expr, String)> = vec![];
    let mut below = |e: &mut Expr| {
        if matches!(e, Expr::Column(_)) || !is_computed(e) {
            return;
        }
        let known = computed.iter().find(|(same, _)| same == e).map(|(_, name)| name.clone());
        let name = known.unwrap_or_else(|| {
            let name = aliases.next("__over");
            computed.push((e.clone(), name.clone()));
            name
        });
        *e = datafusion::logical_expr::ident(name);
    };
    let mut calls = window.window_expr.clone();
    for call in &mut calls {
        let name = names.save(call);
        if let Some(params) = params_of(call) {
            let WindowFunctionParams { args, partition_by, order_by, filter, .. } = params;
            let sorted = order_by.iter_mut().map(|s| &mut s.expr);
            let all = args.iter_mut().chain(partition_by).chain(sorted).chain(filter.as_deref_mut());
            all.for_each(&mut below);
        }
        *call = name.restore(std::mem::take(call));
    }
    if computed.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Window(window)));
    }
    let all = rows.iter().map(Expr::from).chain(computed.into_iter().map(|(e, name)| e.alias(name)));
    let input = LogicalPlan::Projection(Projection::try_new(all.collect(), Arc::clone(&window.input))?);
    let shown = window.schema.iter().map(Expr::from).collect();
    let over = LogicalPlan::Window(Window::try_new(calls, Arc::new(input))?);
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(shown, Arc::new(over))?)))
}

fn params_of(call: &mut Expr) -> Option<&mut WindowFunctionParams> {
    match call {
        Expr::Alias(alias) => params_of(&mut alias.expr),
        Expr::WindowFunction(function) => Some(&mut function.params),
        _ => None,
    }
}
