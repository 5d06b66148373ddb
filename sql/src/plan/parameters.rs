//! Parameters: `?` and `$1` with the values that are bound to them.
//!
//! A value takes the place of its parameter in the syntax tree, so that it may stand wherever a literal may: in LIMIT,
//! in the arguments of a window function. It brings its type, which SQL text could not say of every value: it is kept
//! as an Arrow message that only [`BoundParameters`] plans.

use std::collections::BTreeMap;
use std::fmt::Write;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::sqlparser::ast::{self, BinaryOperator, Expr as Ast, Value, ValueWithSpan, VisitMut};

use super::syntax::each_expression;
use crate::error::{Error, Position, Result};

/// An operator that no SQL text can have: the value on its left is bound to the parameter that its right names.
const BOUND: &str = "is bound";

/// The number of the parameter that `expr` is, if it is one.
fn number_of(expr: &Ast) -> Result<Option<usize>> {
    let Ast::Value(ValueWithSpan { value: Value::Placeholder(id), span }) = expr else { return Ok(None) };
    match number(id) {
        Some(number) => Ok(Some(number)),
        None => {
            let error = Error::unsupported(format!("parameter \"{id}\" has no number"));
            Err(error.with_hint("Write ?, or $1, $2, ….").or_at(Position::from_location(span.start)))
        }
    }
}

fn number(id: &str) -> Option<usize> {
    id.strip_prefix('$')?.parse().ok().filter(|n| *n > 0)
}

/// The largest number of a parameter in `syntax`; 0 if there is none.
pub(crate) fn count_parameters(syntax: &mut impl VisitMut) -> Result<usize> {
    let mut most = 0;
    each_expression(syntax, |expr| {
        most = most.max(number_of(expr)?.unwrap_or(0));
        Ok(())
    })?;
    Ok(most)
}

/// Puts `values`, arrays of one value each, in the place of the parameters in `syntax`.
pub(crate) fn bind_parameters(syntax: &mut impl VisitMut, values: &[ArrayRef]) -> Result<()> {
    each_expression(syntax, |expr| {
        if let Ast::Interval(interval) = expr {
            return bind_interval(interval);
        }
        let Some(number) = number_of(expr)? else { return Ok(()) };
        let value = values.get(number - 1);
        let value = value.ok_or_else(|| Error::invalid(format!("parameter ${number} has no value")))?;
        let text = |text: String| Box::new(Ast::Value(Value::SingleQuotedString(text).with_empty_span()));
        let op = BinaryOperator::Custom(BOUND.to_owned());
        *expr = Ast::BinaryOp { left: text(message_of(value)?), op, right: text(format!("${number}")) };
        Ok(())
    })
}

/// INTERVAL takes nothing but text.
fn bind_interval(interval: &mut ast::Interval) -> Result<()> {
    let Some((message, id)) = bound(&interval.value) else { return Ok(()) };
    match value_of(message)? {
        ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) | ScalarValue::LargeUtf8(Some(text)) => {
            *interval.value = Ast::Value(Value::SingleQuotedString(text).with_empty_span());
            Ok(())
        }
        _ => Err(Error::invalid(format!("parameter {id} after INTERVAL is not a text"))
            .with_hint("Bind a text like '5 minutes'.")),
    }
}

/// The message and the name of a bound parameter.
fn bound(expr: &Ast) -> Option<(&str, &str)> {
    let Ast::BinaryOp { left, op: BinaryOperator::Custom(op), right } = expr else { return None };
    match (left.as_ref(), right.as_ref()) {
        _ if op != BOUND => None,
        (
            Ast::Value(ValueWithSpan { value: Value::SingleQuotedString(message), .. }),
            Ast::Value(ValueWithSpan { value: Value::SingleQuotedString(id), .. }),
        ) => Some((message, id)),
        _ => None,
    }
}

/// The name of the parameter that `expr` was before it was bound.
pub(super) fn written_parameter(expr: &Ast) -> Option<Ast> {
    let (_, id) = bound(expr)?;
    Some(Ast::Value(Value::Placeholder(id.to_owned()).with_empty_span()))
}

/// A value with its type, in letters.
fn message_of(value: &ArrayRef) -> Result<String> {
    let batch = RecordBatch::try_from_iter_with_nullable([("v", value.clone(), true)])?;
    let mut writer = StreamWriter::try_new(Vec::new(), batch.schema_ref())?;
    writer.write(&batch)?;
    let bytes = writer.into_inner()?;
    let mut letters = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(letters, "{byte:02x}").map_err(|_| Error::internal("a parameter that cannot be kept"))?;
    }
    Ok(letters)
}

fn value_of(letters: &str) -> DfResult<ScalarValue> {
    let broken = || DataFusionError::Internal("a parameter that cannot be read".to_owned());
    let byte = |i: usize| u8::from_str_radix(letters.get(i..i + 2)?, 16).ok();
    let bytes: Vec<u8> = (0..letters.len()).step_by(2).map(byte).collect::<Option<_>>().ok_or_else(broken)?;
    let batch = StreamReader::try_new(bytes.as_slice(), None)?.next().ok_or_else(broken)??;
    let scalar = ScalarValue::try_from_array(batch.columns().first().ok_or_else(broken)?, 0)?;
    // Text is one type inside.
    Ok(match scalar {
        ScalarValue::LargeUtf8(text) | ScalarValue::Utf8View(text) => ScalarValue::Utf8(text),
        scalar => scalar,
    })
}

/// Plans what [`bind_parameters`] bound.
#[derive(Debug)]
pub(super) struct BoundParameters;

impl ExprPlanner for BoundParameters {
    fn plan_binary_op(&self, expr: RawBinaryExpr, _schema: &DFSchema) -> DfResult<PlannerResult<RawBinaryExpr>> {
        match (&expr.op, &expr.left) {
            (BinaryOperator::Custom(op), Expr::Literal(ScalarValue::Utf8(Some(letters)), _)) if op == BOUND => {
                Ok(PlannerResult::Planned(Expr::Literal(value_of(letters)?, None)))
            }
            _ => Ok(PlannerResult::Original(expr)),
        }
    }
}

/// The types of the parameters in `plan`, by number, where it says one.
pub(crate) fn parameter_types(plan: &LogicalPlan) -> Result<BTreeMap<usize, DataType>> {
    let mut types: BTreeMap<usize, Vec<DataType>> = BTreeMap::new();
    let mut add = |id: &str, data_type: DataType| {
        if let Some(number) = number(id) {
            types.entry(number).or_default().push(data_type);
        }
    };
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Limit(limit) = node {
            for count in [&limit.skip, &limit.fetch].into_iter().flatten() {
                if let Expr::Placeholder(p) = count.as_ref() {
                    add(&p.id, DataType::Int64);
                }
            }
        }
        node.apply_expressions(|expr| {
            use datafusion::common::tree_node::TreeNode;
            expr.apply(|expr| {
                if let Expr::Placeholder(p) = expr
                    && let Some(field) = &p.field
                {
                    add(&p.id, field.data_type().clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    // One that is asked for as several types has none of them.
    let agreed = |(number, all): (usize, Vec<DataType>)| {
        let first = all.first().filter(|t| **t != DataType::Null)?;
        all.iter().all(|t| t == first).then(|| (number, first.clone()))
    };
    Ok(types.into_iter().filter_map(agreed).collect())
}
