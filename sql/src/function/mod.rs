//! Functions that take the place of DataFusion's, where those give values that are not there.

mod field;
mod settle;

use std::sync::Arc;

use datafusion::execution::context::SessionState;
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::logical_expr::registry::FunctionRegistry;

/// How `s.a`, `s['a']` and `m['key']` are planned; it is asked before DataFusion's planners.
pub(crate) fn planners() -> Vec<Arc<dyn ExprPlanner>> {
    vec![Arc::new(field::FieldAccess)]
}

/// Puts our functions in the place of DataFusion's of the same names, and adds the rules that use them.
pub(crate) fn replace(state: &mut SessionState) {
    let entering: Vec<_> = settle::ENTERING.iter().filter_map(|name| state.udf(name).ok()).collect();
    let ours = entering.into_iter().map(settle::settled).chain([field::get_field()]);
    for function in ours.collect::<Vec<_>>() {
        // A session takes every function.
        let replaced = state.register_udf(function);
        debug_assert!(replaced.is_ok());
    }
    state.add_analyzer_rule(Arc::new(settle::SettleUnnested));
}
