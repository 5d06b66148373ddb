//! Constants become their values.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, NullArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Case, Expr, Operator, Volatility};
use datafusion::physical_expr::create_physical_expr;
use millstream_engine::expr::harden;

use crate::error::Error;

/// One row without columns that an expression could name.
static ONE_ROW: LazyLock<Option<(DFSchema, RecordBatch)>> = LazyLock::new(|| {
    let schema = Arc::new(Schema::new(vec![Field::new(".", DataType::Null, true)]));
    let nothing: ArrayRef = Arc::new(NullArray::new(1));
    let row = RecordBatch::try_new(Arc::clone(&schema), vec![nothing]).ok()?;
    Some((DFSchema::try_from(schema).ok()?, row))
});

/// Folds an expression whose operands are all constants. One that fails stays: it may never be reached.
pub(super) fn fold(expr: Expr, info: &SimplifyContext) -> Result<Transformed<Expr>> {
    if !can_fold(&expr) {
        return Ok(Transformed::no(expr));
    }
    match value(&expr, info) {
        Ok(Some(value)) => Ok(Transformed::yes(Expr::Literal(value, None))),
        Ok(None) | Err(_) => Ok(Transformed::no(expr)),
    }
}

fn can_fold(expr: &Expr) -> bool {
    let itself = match expr {
        Expr::ScalarFunction(f) => f.func.signature().volatility != Volatility::Volatile,
        Expr::BinaryExpr(_) | Expr::Not(_) | Expr::Negative(_) | Expr::Between(_) | Expr::Like(_) => true,
        Expr::SimilarTo(_) | Expr::Case(_) | Expr::Cast(_) | Expr::TryCast(_) | Expr::InList(_) => true,
        Expr::IsNull(_) | Expr::IsNotNull(_) | Expr::IsTrue(_) | Expr::IsFalse(_) | Expr::IsUnknown(_) => true,
        Expr::IsNotTrue(_) | Expr::IsNotFalse(_) | Expr::IsNotUnknown(_) => true,
        _ => false,
    };
    let mut all = itself;
    // The walk itself does not fail.
    let _ = expr.apply_children(|child| {
        all = all && matches!(child, Expr::Literal(..));
        Ok(TreeNodeRecursion::Continue)
    });
    all
}

/// The value of an expression over literals; none where it is not to be folded.
fn value(expr: &Expr, info: &SimplifyContext) -> Result<Option<ScalarValue>> {
    // Structs that are cast by the names of their fields are left to the rows.
    let data_type = info.get_data_type(expr)?;
    if matches!(data_type, DataType::Struct(_) | DataType::Map(..) | DataType::Union(..)) {
        return Ok(None);
    }
    let Some((schema, row)) = &*ONE_ROW else { return Ok(None) };
    let mut props = ExecutionProps::new();
    props.config_options = Some(Arc::clone(info.config_options()));
    let physical = create_physical_expr(expr, schema, &props, &PhysicalPlanningContext::default())?;
    // With the checks that the rows get.
    let physical = harden(physical, schema.as_arrow()).map_err(Error::from)?;
    let array = physical.evaluate(row)?.into_array(1)?;
    if array.len() != 1 || array.data_type() != &data_type {
        return Ok(None);
    }
    ScalarValue::try_from_array(&array, 0).map(Some)
}

/// An error where a constant is cast to a type that cannot take it and every row needs the value: it is told when
/// the query is planned, not row by row.
pub(super) fn refuse_wrong(expr: &Expr, info: &SimplifyContext) -> Result<()> {
    if let Expr::Cast(cast) = expr
        && matches!(&*cast.expr, Expr::Literal(v, _) if !v.is_null())
    {
        value(expr, info)?;
    }
    for operand in reached(expr) {
        refuse_wrong(operand, info)?;
    }
    Ok(())
}

/// The operands that are evaluated for every row.
fn reached(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::BinaryExpr(b) if matches!(b.op, Operator::And | Operator::Or) => vec![&b.left],
        Expr::Case(Case { expr: Some(operand), .. }) => vec![operand],
        Expr::Case(case) => case.when_then_expr.first().map(|(when, _)| when.as_ref()).into_iter().collect(),
        Expr::ScalarFunction(f) if f.func.short_circuits() => f.args.first().into_iter().collect(),
        // Of an aggregate only rows that pass its filter are evaluated.
        Expr::AggregateFunction(_) | Expr::WindowFunction(_) => vec![],
        other => {
            let mut operands = vec![];
            // The walk itself does not fail.
            let _ = other.apply_children(|child| {
                operands.push(child);
                Ok(TreeNodeRecursion::Continue)
            });
            operands
        }
    }
}
