//! Functions that take the place of DataFusion's, where those give values that are not there, or wrong ones.
//!
//! `sum` and `avg` never wrap (`sum.rs`, `average.rs`, and `frame.rs` where rows leave a window's frame);
//! `min` and `max` know infinities and NaN (`extreme.rs`). What tells rows apart or orders them by floats sees
//! one NaN and one zero (`canonical.rs`).

mod average;
mod canonical;
mod extreme;
mod field;
mod frame;
mod settle;
mod sum;

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result as DfResult;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::logical_expr::{AggregateUDF, Expr, ScalarUDF};

use crate::plan::Semantics;

pub(crate) use canonical::CanonicalFloats;

/// How `s.a`, `s['a']` and `m['key']` are planned; it is asked before DataFusion's planners.
pub(crate) fn planners() -> Vec<Arc<dyn ExprPlanner>> {
    vec![Arc::new(field::FieldAccess)]
}

/// Puts our functions in the place of DataFusion's of the same names, and adds the rules that use them.
pub(crate) fn replace(state: &mut SessionState, semantics: Semantics) {
    let entering: Vec<_> = settle::ENTERING.iter().filter_map(|name| state.udf(name).ok()).collect();
    let ours: Vec<_> = entering.into_iter().map(settle::settled).chain([field::get_field()]).collect();
    // A session takes every function and every rule.
    let mut taken = true;
    for function in &ours {
        taken &= state.register_udf(function.clone()).is_ok();
    }
    let aggregates = [
        AggregateUDF::new_from_impl(sum::Sum::default()),
        AggregateUDF::new_from_impl(average::Average::new(semantics.roomy_averages())),
        AggregateUDF::new_from_impl(extreme::Extreme::min()),
        AggregateUDF::new_from_impl(extreme::Extreme::max()),
    ];
    for function in aggregates {
        taken &= state.register_udaf(Arc::new(function)).is_ok();
    }
    taken &= state.register_function_rewrite(Arc::new(Ours(ours))).is_ok();
    debug_assert!(taken);
    state.add_analyzer_rule(Arc::new(settle::SettleUnnested));
}

/// Replaces the functions that DataFusion's planners put into expressions by themselves, as for `list || item`.
#[derive(Debug)]
struct Ours(Vec<Arc<ScalarUDF>>);

impl FunctionRewrite for Ours {
    fn name(&self) -> &'static str {
        "our_functions"
    }

    fn rewrite(&self, expr: Expr, _: &DFSchema, _: &ConfigOptions) -> DfResult<Transformed<Expr>> {
        let Expr::ScalarFunction(call) = expr else { return Ok(Transformed::no(expr)) };
        match self.0.iter().find(|ours| ours.name() == call.func.name() && **ours != call.func) {
            Some(ours) => {
                let replaced = ScalarFunction::new_udf(Arc::clone(ours), call.args);
                Ok(Transformed::yes(Expr::ScalarFunction(replaced)))
            }
            None => Ok(Transformed::no(Expr::ScalarFunction(call))),
        }
    }
}
