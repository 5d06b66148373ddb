//! Functions that take the place of DataFusion's, where those give values that are not there, or wrong ones, and of
//! our own:
//!
//! | function | what is different |
//! |---|---|
//! | `s['a']`, and functions into which nested values go | no values below a null parent |
//! | `sum`, `avg` | never wrap (`sum.rs`, `average.rs`, and `frame.rs` where rows leave a window's frame) |
//! | `min`, `max` | know infinities and NaN (`extreme.rs`) |
//! | `date_bin`, `date_trunc` | every time that a column can hold, not only those between 1677 and 2262 |
//! | `now()`, `to_timestamp` | microseconds, as `TIMESTAMP` is everywhere |
//! | `at_time_zone`, `zoned_plus` | local times that a clock change skips or repeats; what `AT TIME ZONE` and `+ INTERVAL` become |
//! | `like_pattern`, `similar_pattern`, `time_pattern` | other spellings of patterns (`patterns.rs`) |
//! | `float_value` | one zero and one NaN; what comparisons of floats compare |
//!
//! What tells rows apart or orders them by floats sees one NaN and one zero too (`canonical.rs`).

mod average;
mod bytes_text;
mod calendar;
mod canonical;
mod date_bin;
mod date_trunc;
mod extreme;
mod field;
mod float_value;
mod frame;
mod now;
pub(crate) mod patterns;
mod settle;
mod sum;
mod to_timestamp;
mod zone;

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

use crate::semantics::Semantics;

pub(crate) use bytes_text::bytes_text;
pub(crate) use canonical::CanonicalFloats;

pub(crate) use float_value::{float_scalar, float_value};
pub(crate) use zone::{AT_TIME_ZONE, at_time_zone, zoned_plus};

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
    for function in patterns::functions() {
        taken &= state.register_udf(function).is_ok();
    }
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

/// Registers the functions in place of those that have their names.
pub(crate) fn register(state: &mut SessionState) -> DfResult<()> {
    let zone = state.config_options().execution.time_zone.clone();
    let binning = state.udf("date_bin")?;
    let truncating = state.udf("date_trunc")?;
    let reading = state.udf("to_timestamp_micros")?;
    let own = [
        ScalarUDF::new_from_impl(date_bin::DateBin::new(binning)),
        ScalarUDF::new_from_impl(date_trunc::DateTrunc::new(truncating)),
        ScalarUDF::new_from_impl(to_timestamp::ToTimestamp::new(reading)),
        ScalarUDF::new_from_impl(now::Now::new(zone.as_deref())),
    ];
    for function in own.map(Arc::new).into_iter().chain([at_time_zone(), zoned_plus(), float_value()]) {
        state.register_udf(function)?;
    }
    Ok(())
}
