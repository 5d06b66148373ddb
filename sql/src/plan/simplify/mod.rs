//! Simpler expressions of the same value: in place of DataFusion's `simplify_expressions`, of whose rules some hold
//! only without NULL (`i NOT IN (1) OR i NOT IN (2)` is not true, `i ^ i` not 0 where `i` is NULL), some only
//! where nothing fails, and some take a sum apart that then overflows. Rules cannot be left out there one by one.
//!
//! Each rule here holds for every value, NULL and NaN among them, and takes away an operand only if that cannot
//! fail: whether a row has a value does not depend on how the query was optimized.
//!
//! | from | to | |
//! |---|---|---|
//! | a constant | its value | [`constant`] |
//! | `true AND a`, `a OR a`, `(a AND b) OR (a AND c)` | `a`, `a`, `a AND (b OR c)` | [`logic`] |
//! | `NOT a < b`, `NOT (a OR b)`, `a = true` | `a >= b`, `NOT a AND NOT b`, `a` | [`logic`] |
//! | `a BETWEEN b AND c`, `a LIKE 'x'`, `CASE WHEN true …` | comparisons; the branch | [`shapes`] |
//! | `CAST(i AS BIGINT) > 5`, where `i` is narrower | `i > 5` in its type | [`shapes`] |
//! | `c = 1 OR c = 2 OR …` | `c IN (1, 2, …)`, and back where the list is short | [`lists`] |
//! | `coalesce`, `nvl`, `arrow_cast` … | what they stand for | [`shapes`] |

mod constant;
mod lists;
mod logic;
mod shapes;

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan, Operator, TableScan};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// The rule. It has the name of the one whose place it takes.
#[derive(Debug)]
pub(super) struct Simplify;

impl OptimizerRule for Simplify {
    fn name(&self) -> &str {
        "simplify_expressions"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let info = SimplifyContext::builder()
            .with_schema(schema_of(&plan)?)
            .with_config_options(config.options())
            .with_query_execution_start_time(config.query_execution_start_time())
            .build();
        let names = NamePreserver::new(&plan);
        let mut one = |expr: Expr| {
            let name = names.save(&expr);
            let simple = simplified(expr, &info)?;
            Ok(match simple.transformed {
                true => Transformed::yes(name.restore(simple.data)),
                false => simple,
            })
        };
        plan.map_expressions(|expr| match expr {
            // The sets of a GROUP BY keep their names each.
            Expr::GroupingSet(_) => expr.map_children(&mut one),
            expr => one(expr),
        })
    }
}

/// The columns that the expressions of a node can name.
fn schema_of(plan: &LogicalPlan) -> Result<DFSchemaRef> {
    Ok(Arc::new(match plan {
        // Filters that were pushed into a scan see all of its columns.
        LogicalPlan::TableScan(TableScan { table_name, source, .. }) => {
            DFSchema::try_from_qualified_schema(table_name.clone(), &source.schema())?
        }
        plan => merge_schema(&plan.inputs()),
    }))
}

/// How often all rules are tried: what one has made may be what another looks for.
const ROUNDS: usize = 4;

/// The simplest form of an expression; an error where a constant that every row needs has no value.
fn simplified(expr: Expr, info: &SimplifyContext) -> Result<Transformed<Expr>> {
    constant::refuse_wrong(&expr, info)?;
    let given = expr.clone();
    let mut expr = expr;
    for _ in 0..ROUNDS {
        let round = expr.transform_up(|e| one_rule(e, info))?;
        expr = round.data;
        if !round.transformed {
            break;
        }
    }
    let expr = expr.transform_up(|e| Ok(lists::spell_out(e)))?.data;
    let changed = expr != given;
    Ok(Transformed::new_transformed(expr, changed))
}

/// Looks at one expression, whose operands are simple.
type Rule = fn(Expr, &SimplifyContext) -> Result<Transformed<Expr>>;

/// The first rule that has something to say about an expression whose operands are simple.
fn one_rule(expr: Expr, info: &SimplifyContext) -> Result<Transformed<Expr>> {
    let rules: [Rule; 4] = [constant::fold, logic::simplify, lists::gather, shapes::simplify];
    let mut expr = expr;
    for rule in rules {
        let tried = rule(expr, info)?;
        if tried.transformed {
            return Ok(tried);
        }
        expr = tried.data;
    }
    Ok(Transformed::no(expr))
}

/// Whether an expression has a value, if only NULL, for every row.
fn cannot_fail(expr: &Expr) -> bool {
    let itself = match expr {
        // A common part that was taken out is a column by name only.
        Expr::Column(c) => !c.name.starts_with("__common_expr"),
        Expr::Literal(..) | Expr::Alias(_) => true,
        Expr::Not(_) | Expr::IsNull(_) | Expr::IsNotNull(_) | Expr::IsTrue(_) | Expr::IsFalse(_) => true,
        Expr::IsNotTrue(_) | Expr::IsNotFalse(_) | Expr::IsUnknown(_) | Expr::IsNotUnknown(_) => true,
        Expr::Case(_) | Expr::InList(_) | Expr::Between(_) => true,
        Expr::BinaryExpr(b) => b.op.is_logic_operator() || is_comparison(b.op),
        Expr::ScalarFunction(f) => f.name() == "float_value",
        _ => false,
    };
    let mut all = itself;
    // The walk itself does not fail.
    let _ = expr.apply_children(|child| {
        all = all && cannot_fail(child);
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    });
    all
}

fn is_comparison(op: Operator) -> bool {
    use Operator::*;
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

#[cfg(test)]
mod tests;
