//! One NaN, larger than all other numbers, and one zero, in every place where floats are told apart.
//!
//! DataFusion groups, hashes, joins, sorts and searches lists by bits or by total order, of each place
//! another; only `=` and the like make one of the zeros. [`CanonicalFloats`] puts `canonical_float(x)` around
//! what a plan compares, groups by, joins on, orders or partitions by, and around what aggregates and functions
//! tell apart, wherever it is a float or holds some. What is only passed on keeps its bits. It is the last to
//! touch a plan, batch or continuous: it sees the joins that subqueries have become, and no rule of DataFusion
//! prunes files or folds constants by what it has put in.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::{Case, GroupingSet, InList, ScalarFunction, Sort};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Between, BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ReturnFieldArgs,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, WindowFunctionDefinition,
};
use millstream_engine::float::{canonical, canonical_value, has_floats};

/// The function's name.
const NAME: &str = "canonical_float";

/// `canonical_float(x)`: `x` with one NaN and one zero, at any depth.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CanonicalFloat {
    signature: Signature,
}

/// The function.
pub(super) fn function() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(CanonicalFloat { signature: Signature::any(1, Volatility::Immutable) }))
}

impl ScalarUDFImpl for CanonicalFloat {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        arg_types.first().cloned().ok_or_else(|| DataFusionError::Plan(format!("{NAME} takes an argument")))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let argument: &Field = args.arg_fields[0].as_ref();
        Ok(Arc::new(argument.clone().with_name(NAME)))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(match &args.args[0] {
            ColumnarValue::Array(a) => ColumnarValue::Array(canonical(a)?),
            ColumnarValue::Scalar(v) => {
                ColumnarValue::Scalar(ScalarValue::try_from_array(&canonical(&v.to_array()?)?, 0)?)
            }
        })
    }
}

/// See the module's text.
pub(crate) struct CanonicalFloats {
    function: Arc<ScalarUDF>,
}

/// Functions that compare elements of their arguments with each other, or whole arguments.
const COMPARING: [&str; 21] = [
    "array_distinct",
    "array_except",
    "array_has",
    "array_has_all",
    "array_has_any",
    "array_intersect",
    "array_max",
    "array_min",
    "array_position",
    "array_positions",
    "array_remove",
    "array_remove_all",
    "array_remove_n",
    "array_replace",
    "array_replace_all",
    "array_replace_n",
    "array_sort",
    "array_union",
    "greatest",
    "least",
    "nullif",
];

/// Aggregates that tell the values of their arguments apart or order them, also without DISTINCT.
const ORDERING: [&str; 9] = [
    "approx_distinct",
    "approx_median",
    "approx_percentile_cont",
    "approx_percentile_cont_with_weight",
    "max",
    "median",
    "min",
    "percentile_cont",
    "quantile_cont",
];

impl CanonicalFloats {
    pub(crate) fn new() -> Self {
        CanonicalFloats { function: function() }
    }

    /// Rewrites `plan`, which is optimized.
    pub(crate) fn rewrite(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(|node| self.node(node))?.data)
    }

    fn node(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let schema = match &plan {
            LogicalPlan::TableScan(scan) if scan.filters.is_empty() => return Ok(Transformed::no(plan)),
            LogicalPlan::TableScan(scan) => {
                DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?
            }
            plan => merge_schema(&plan.inputs()),
        };
        if !schema.fields().iter().any(|f| has_floats(f.data_type())) && !computes_floats(&plan, &schema)? {
            return Ok(Transformed::no(plan));
        }
        let names = NamePreserver::new(&plan);
        match plan {
            LogicalPlan::Aggregate(aggregate) => {
                let mut aggregate = aggregate;
                for e in &mut aggregate.group_expr {
                    let (name, inner) = (names.save(e), self.expr(e.clone(), &schema)?);
                    let key = self.key(inner, &schema)?;
                    // The columns of a grouping set have names, it has none.
                    *e = if matches!(key, Expr::GroupingSet(_)) { key } else { name.restore(key) };
                }
                for e in &mut aggregate.aggr_expr {
                    *e = names.save(e).restore(self.expr(e.clone(), &schema)?);
                }
                Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
            }
            LogicalPlan::Sort(mut sort) => {
                sort.expr = self.sorts(sort.expr, &schema)?;
                Ok(Transformed::yes(LogicalPlan::Sort(sort)))
            }
            LogicalPlan::Join(mut join) => {
                for (left, right) in &mut join.on {
                    *left = self.wrap(self.expr(left.clone(), &schema)?, &schema)?;
                    *right = self.wrap(self.expr(right.clone(), &schema)?, &schema)?;
                }
                join.filter = join.filter.map(|f| self.expr(f, &schema)).transpose()?;
                Ok(Transformed::yes(LogicalPlan::Join(join)))
            }
            plan => plan.map_expressions(|e| {
                let name = names.save(&e);
                Ok(Transformed::yes(name.restore(self.expr(e, &schema)?)))
            }),
        }
    }

    /// A group key: each of its columns, where it is a grouping set.
    fn key(&self, e: Expr, schema: &DFSchema) -> Result<Expr> {
        let all = |keys: Vec<Expr>| {
            let named = |e: Expr| {
                let name = NamePreserver::new_for_projection().save(&e);
                Ok(name.restore(self.wrap(e, schema)?))
            };
            keys.into_iter().map(named).collect::<Result<Vec<_>>>()
        };
        Ok(match e {
            Expr::GroupingSet(GroupingSet::Rollup(keys)) => Expr::GroupingSet(GroupingSet::Rollup(all(keys)?)),
            Expr::GroupingSet(GroupingSet::Cube(keys)) => Expr::GroupingSet(GroupingSet::Cube(all(keys)?)),
            Expr::GroupingSet(GroupingSet::GroupingSets(sets)) => {
                Expr::GroupingSet(GroupingSet::GroupingSets(sets.into_iter().map(all).collect::<Result<_>>()?))
            }
            e => self.wrap(e, schema)?,
        })
    }

    fn sorts(&self, sorts: Vec<Sort>, schema: &DFSchema) -> Result<Vec<Sort>> {
        let one = |s: Sort| Ok(Sort { expr: self.wrap(self.expr(s.expr, schema)?, schema)?, ..s });
        sorts.into_iter().map(one).collect()
    }

    /// `e` with all comparisons within it made canonical.
    fn expr(&self, e: Expr, schema: &DFSchema) -> Result<Expr> {
        Ok(e.transform_up(|e| Ok(Transformed::yes(self.compared(e, schema)?)))?.data)
    }

    fn compared(&self, e: Expr, schema: &DFSchema) -> Result<Expr> {
        let wrap = |e: Expr| self.wrap(e, schema);
        let wrap_box = |e: Box<Expr>| Ok::<_, DataFusionError>(Box::new(self.wrap(*e, schema)?));
        let wrap_all = |all: Vec<Expr>| all.into_iter().map(wrap).collect::<Result<Vec<_>>>();
        Ok(match e {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(op) => {
                Expr::BinaryExpr(BinaryExpr { left: wrap_box(left)?, op, right: wrap_box(right)? })
            }
            Expr::Between(Between { expr, negated, low, high }) => {
                Expr::Between(Between { expr: wrap_box(expr)?, negated, low: wrap_box(low)?, high: wrap_box(high)? })
            }
            Expr::InList(InList { expr, list, negated }) => {
                Expr::InList(InList { expr: wrap_box(expr)?, list: wrap_all(list)?, negated })
            }
            Expr::Case(Case { expr: Some(expr), when_then_expr, else_expr }) => {
                let arm = |(when, then)| Ok::<_, DataFusionError>((wrap_box(when)?, then));
                let when_then_expr = when_then_expr.into_iter().map(arm).collect::<Result<_>>()?;
                Expr::Case(Case { expr: Some(wrap_box(expr)?), when_then_expr, else_expr })
            }
            Expr::ScalarFunction(f) if COMPARING.contains(&f.name()) => {
                Expr::ScalarFunction(ScalarFunction { args: wrap_all(f.args)?, func: f.func })
            }
            Expr::AggregateFunction(mut f) => {
                f.params.order_by = self.sorts(f.params.order_by, schema)?;
                if f.params.distinct || ORDERING.contains(&f.func.name()) {
                    f.params.args = wrap_all(f.params.args)?;
                }
                Expr::AggregateFunction(f)
            }
            Expr::WindowFunction(mut f) => {
                let ordering = match &f.fun {
                    WindowFunctionDefinition::AggregateUDF(u) => ORDERING.contains(&u.name()),
                    WindowFunctionDefinition::WindowUDF(_) => false,
                };
                if ordering || f.params.distinct {
                    f.params.args = wrap_all(f.params.args)?;
                }
                f.params.partition_by = wrap_all(f.params.partition_by)?;
                f.params.order_by = self.sorts(f.params.order_by, schema)?;
                Expr::WindowFunction(f)
            }
            e => e,
        })
    }

    /// `e` in canonical form, if it is a float or holds some.
    pub(crate) fn wrap(&self, e: Expr, schema: &DFSchema) -> Result<Expr> {
        match &e {
            Expr::Literal(ScalarValue::Float64(Some(v)), m) => {
                return Ok(Expr::Literal(ScalarValue::Float64(Some(canonical_value(*v))), m.clone()));
            }
            Expr::Literal(ScalarValue::Float32(Some(v)), m) => {
                let v = canonical_value(f64::from(*v)) as f32;
                return Ok(Expr::Literal(ScalarValue::Float32(Some(v)), m.clone()));
            }
            // An alias may stand within a key that has been named.
            Expr::Alias(a) => {
                let mut alias = a.clone();
                *alias.expr = self.wrap(*alias.expr, schema)?;
                return Ok(Expr::Alias(alias));
            }
            Expr::ScalarFunction(f) if f.name() == NAME => return Ok(e),
            Expr::Cast(c) if c.expr.get_type(schema).is_ok_and(|t| is_exact(&t)) => return Ok(e),
            _ => {}
        }
        if !e.get_type(schema).is_ok_and(|t| has_floats(&t)) {
            return Ok(e);
        }
        Ok(Expr::ScalarFunction(ScalarFunction { func: self.function.clone(), args: vec![e] }))
    }
}

/// Whether numbers of this type become neither NaN nor -0.0 when they become floats.
fn is_exact(t: &DataType) -> bool {
    t.is_integer() || t.is_decimal()
}

fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// Whether an expression of `plan`, or within one, gives floats where no column holds some.
fn computes_floats(plan: &LogicalPlan, schema: &DFSchema) -> Result<bool> {
    let mut found = false;
    plan.apply_expressions(|e| {
        // What an operator gives of operands without floats has none.
        let given = |e: &Expr| !matches!(e, Expr::BinaryExpr(_)) && e.get_type(schema).is_ok_and(|t| has_floats(&t));
        found |= e.exists(|e| Ok(given(e)))?;
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}
