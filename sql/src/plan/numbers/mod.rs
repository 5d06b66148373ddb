//! Numbers: what a literal with a point is, which type numbers of different types meet in, how results are rounded.
//!
//! `docs/numbers.md` is the table; this folder is its rules.
//!
//! - [`literals`]: in the syntax tree, before planning. A literal with a point becomes an exact decimal (the planner's
//!   option), one with an exponent a double.
//! - [`typing`] and [`arithmetic`]: on the plan, from the leaves up, in place of DataFusion's coercion, which
//!   takes a double beside a decimal for a decimal of 15 digits behind the point. Each expression first gets the types of
//!   the table and then what else DataFusion coerces, so that no expression sees operands of a type that later changes.
//! - [`loose`]: functions of arrays, which would refuse decimals beside doubles before they can be typed.
//! - [`assign`]: values on their way into a column.
//! - [`names`]: columns that have no name are called as they are written.

mod arithmetic;
mod assign;
mod digits;
mod floats;
mod literals;
mod loose;
mod names;
mod nearest;
mod typing;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result as DfResult;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercionRewriter;

use crate::semantics::Semantics;
pub(crate) use assign::{assign_columns, assign_last, lost};
pub(super) use literals::{NumberLiterals, mark_literals, marked};
pub(super) use loose::planned;
pub(super) use names::name_columns;
use typing::Typing;

/// The analyzer's rules, with ours in place of DataFusion's coercion, for statements that have them.
pub(super) fn analyzer_rules(semantics: Semantics) -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    let mut rules = datafusion::optimizer::Analyzer::new().rules;
    if !semantics.exact_literals() {
        return rules;
    }
    if let Some(coercion) = rules.iter_mut().find(|rule| rule.name() == "type_coercion") {
        *coercion = Arc::new(Numbers);
    }
    rules
}

/// The types of the table, for an expression over `schema` that is in no plan.
pub(super) fn typed(state: &SessionState, expr: Expr, schema: &DFSchema) -> DfResult<Expr> {
    if !Semantics::of(state).exact_literals() {
        return Ok(expr);
    }
    Ok(expr.rewrite(&mut Typing::new(schema))?.data)
}

/// Gives every expression of a plan the types of the table.
#[derive(Debug)]
struct Numbers;

impl AnalyzerRule for Numbers {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> DfResult<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(node)?.data)
    }

    fn name(&self) -> &str {
        "numbers"
    }
}

/// One node whose inputs are done.
fn node(plan: LogicalPlan) -> DfResult<Transformed<LogicalPlan>> {
    let plan = typing::align_rows(plan)?;
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = &plan {
        schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
    }
    let plan = match plan {
        // A condition that is NULL has no type of its own.
        LogicalPlan::Filter(mut filter) => {
            filter.predicate = filter.predicate.cast_to(&DataType::Boolean, &schema)?;
            LogicalPlan::Filter(filter)
        }
        plan => plan,
    };
    let names = NamePreserver::new(&plan);
    let mut typing = Typing::new(&schema);
    plan.map_expressions(|expr| {
        let name = names.save(&expr);
        Ok(expr.rewrite(&mut typing)?.update_data(|expr| name.restore(expr)))
    })?
    .map_data(|plan| TypeCoercionRewriter::new(&schema).coerce_plan(plan))?
    .map_data(LogicalPlan::recompute_schema)
}
