//! In batch, too, a row decides alone whether an expression fails on it.
//!
//! [`HardenExpressions`] comes before all other rules of a physical plan and rewrites the expressions of its
//! nodes with the engine's `harden`. [`CheckConstants`] comes before the logical rules: those fold constants
//! with arithmetic that wraps.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_empty_array};
use arrow::datatypes::{DataType, Schema};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, ScalarValue, plan_err};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use datafusion::physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr, create_physical_expr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, PhysicalGroupBy};
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::sorts::sort::SortExec;
use millstream_engine::expr::{harden, harden_aggregate};

use crate::error::Error;

/// Rewrites the expressions of a physical plan that no other rule has seen yet.
#[derive(Debug)]
pub(super) struct HardenExpressions;

impl PhysicalOptimizerRule for HardenExpressions {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> DfResult<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| Ok(node_of(&node)?.map_or_else(|| Transformed::no(node), Transformed::yes))).data()
    }

    fn name(&self) -> &str {
        "harden_expressions"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

type Physical = Arc<dyn PhysicalExpr>;

fn hard(expr: &Physical, schema: &Schema) -> DfResult<Physical> {
    harden(expr.clone(), schema).map_err(|e| Error::from(e).into())
}

fn node_of(node: &Arc<dyn ExecutionPlan>) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(filter) = node.downcast_ref::<FilterExec>() {
        let predicate = hard(filter.predicate(), &filter.input().schema())?;
        return Ok(Some(Arc::new(FilterExecBuilder::from(filter).with_predicate(predicate).build()?)));
    }
    if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
        let schema = projection.input().schema();
        let one = |e: &ProjectionExpr| -> DfResult<ProjectionExpr> {
            Ok(ProjectionExpr { expr: hard(&e.expr, &schema)?, alias: e.alias.clone() })
        };
        let all = projection.expr().iter().map(one).collect::<DfResult<Vec<_>>>()?;
        return Ok(Some(Arc::new(ProjectionExec::try_new(all, projection.input().clone())?)));
    }
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        return aggregate_of(aggregate).map(Some);
    }
    if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        let (left, right) = (join.left().schema(), join.right().schema());
        let on = join.on().iter().map(|(l, r)| Ok((hard(l, &left)?, hard(r, &right)?)));
        let on = on.collect::<DfResult<Vec<_>>>()?;
        let filter = join.filter().map(filter_of).transpose()?;
        return Ok(Some(join.builder().with_on(on).with_filter(filter).build_exec()?));
    }
    if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        let filter = join.filter().map(filter_of).transpose()?;
        let builder = NestedLoopJoinExecBuilder::new(join.left().clone(), join.right().clone(), *join.join_type());
        let builder = builder.with_filter(filter).with_projection_ref(join.projection().clone());
        return Ok(Some(Arc::new(builder.build()?)));
    }
    let Some(sort) = node.downcast_ref::<SortExec>() else { return Ok(None) };
    let schema = sort.input().schema();
    let key = |e: &PhysicalSortExpr| Ok(PhysicalSortExpr { expr: hard(&e.expr, &schema)?, options: e.options });
    let keys = sort.expr().iter().map(key).collect::<DfResult<Vec<_>>>()?;
    let Some(keys) = LexOrdering::new(keys) else { return Ok(None) };
    let sorted = SortExec::new(keys, sort.input().clone()).with_preserve_partitioning(sort.preserve_partitioning());
    Ok(Some(Arc::new(sorted.with_fetch(sort.fetch()))))
}

fn filter_of(filter: &JoinFilter) -> DfResult<JoinFilter> {
    let expression = hard(filter.expression(), filter.schema())?;
    Ok(JoinFilter::new(expression, filter.column_indices().to_vec(), filter.schema().clone()))
}

fn aggregate_of(aggregate: &AggregateExec) -> DfResult<Arc<dyn ExecutionPlan>> {
    let (input, rows) = (aggregate.input().schema(), aggregate.input_schema());
    let group = aggregate.group_expr();
    let keys = group.expr().iter().map(|(e, name)| Ok((hard(e, &input)?, name.clone())));
    let keys = keys.collect::<DfResult<Vec<_>>>()?;
    let group =
        PhysicalGroupBy::new(keys, group.null_expr().to_vec(), group.groups().to_vec(), group.has_grouping_set());
    let (mut calls, mut filters) = (vec![], vec![]);
    for (call, filter) in aggregate.aggr_expr().iter().zip(aggregate.filter_expr()) {
        let (call, filter) = harden_aggregate(call, filter.clone(), &rows).map_err(Error::from)?;
        calls.push(call);
        filters.push(filter);
    }
    let new = AggregateExec::try_new(*aggregate.mode(), group, calls, filters, aggregate.input().clone(), rows)?;
    Ok(Arc::new(new.with_limit_options(aggregate.limit_options())))
}

/// Folds arithmetic of constants with checks; what overflows stays as a call that fails where it is evaluated,
/// as in a CASE it may never be.
#[derive(Debug)]
pub(super) struct CheckConstants;

impl OptimizerRule for CheckConstants {
    fn name(&self) -> &str {
        "check_constants"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|e| {
            let name = names.save(&e);
            Ok(e.transform_up(fold)?.update_data(|e| name.restore(e)))
        })
    }
}

fn fold(e: Expr) -> DfResult<Transformed<Expr>> {
    let constant = |e: &Expr| matches!(e, Expr::Literal(_, _));
    let folds = match &e {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus | Operator::Minus | Operator::Multiply, right }) => {
            constant(left) && constant(right)
        }
        Expr::Negative(inner) | Expr::Cast(datafusion::logical_expr::Cast { expr: inner, .. }) => constant(inner),
        _ => false,
    };
    let schema = DFSchema::empty();
    if !folds || !e.get_type(&schema).is_ok_and(|t| t.is_integer() || t.is_decimal()) {
        return Ok(Transformed::no(e));
    }
    Ok(Transformed::yes(match value_of(&e, &schema) {
        Ok(value) => Expr::Literal(value, None),
        Err(error) => {
            let reason = match error.find_root() {
                DataFusionError::ArrowError(e, _) => e.to_string(),
                other => other.strip_backtrace(),
            };
            let function = Impossible::new(e.to_string(), reason, e.get_type(&schema)?);
            ScalarUDF::new_from_impl(function).call(vec![])
        }
    }))
}

fn value_of(e: &Expr, schema: &DFSchema) -> DfResult<ScalarValue> {
    let context = PhysicalPlanningContext::default();
    let physical = create_physical_expr(e, schema, &ExecutionProps::new(), &context)?;
    let physical = hard(&physical, schema.as_arrow())?;
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::clone(schema.inner()), vec![], &options)?;
    match physical.evaluate(&row)? {
        ColumnarValue::Scalar(value) => Ok(value),
        ColumnarValue::Array(array) => ScalarValue::try_from_array(&array, 0),
    }
}

/// A constant without a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Impossible {
    text: String,
    reason: String,
    data_type: DataType,
    signature: Signature,
}

impl Impossible {
    fn new(text: String, reason: String, data_type: DataType) -> Self {
        Impossible { text, reason, data_type, signature: Signature::nullary(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Impossible {
    fn name(&self) -> &str {
        &self.text
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> DfResult<DataType> {
        if !arg_types.is_empty() {
            return plan_err!("a constant has no arguments");
        }
        Ok(self.data_type.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        if args.number_rows == 0 {
            let none: ArrayRef = new_empty_array(&self.data_type);
            return Ok(ColumnarValue::Array(none));
        }
        Err(DataFusionError::Execution(format!("{}: {}", self.text, self.reason)))
    }
}
