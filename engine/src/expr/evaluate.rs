//! Evaluating an expression: all rows at once and, where that fails because of a row, row by row.
//!
//! AND, OR and what a filter guards say themselves which of their operands a row needs; each of these is
//! evaluated in the same way. Any other expression that fails has its batch halved until what fails is a row.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, RecordBatch, UInt32Array, new_null_array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::{concat, filter_record_batch, take};
use arrow::datatypes::{DataType, Schema};
use datafusion_common::{DataFusionError, Result as DfResult};
use datafusion_expr::{ColumnarValue, Operator};
use datafusion_physical_expr::PhysicalExpr;

use super::failures::Failures;
use super::guarded::Guarded;
use super::logic::Logic;
use super::reason::{failure, is_of_row};
use crate::error::Result;

/// The values of `expr` over `batch`, and the rows on which it fails. What stands in a failed row's place
/// means nothing.
///
/// Errors where it is not the row that is at fault: memory, a defect, something not implemented.
pub fn evaluate(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<(ArrayRef, Failures)> {
    let failed = match expr.evaluate(batch).and_then(|v| v.into_array(batch.num_rows())) {
        Ok(array) => return Ok((array, Failures::default())),
        Err(e) => e,
    };
    if !is_of_row(&failed) {
        return Err(failed.into());
    }
    if let Some(logic) = expr.downcast_ref::<Logic>() {
        return logic.rows(batch);
    }
    if let Some(guarded) = expr.downcast_ref::<Guarded>() {
        return guarded.rows(batch);
    }
    let mut found = Found { parts: vec![], failures: Failures::default() };
    halves(expr, batch, 0, failed, &mut found)?;
    let parts: Vec<&dyn Array> = found.parts.iter().map(AsRef::as_ref).collect();
    Ok((concat(&parts)?, found.failures))
}

struct Found {
    parts: Vec<ArrayRef>,
    failures: Failures,
}

/// Halves a batch that failed with `error` until what fails is a row.
fn halves(
    expr: &Arc<dyn PhysicalExpr>,
    batch: &RecordBatch,
    offset: u32,
    error: DataFusionError,
    found: &mut Found,
) -> Result<()> {
    if !is_of_row(&error) {
        return Err(error.into());
    }
    let rows = batch.num_rows();
    if rows <= 1 {
        found.failures.push(offset, failure(expr, batch, &error));
        found.parts.push(new_null_array(&expr.data_type(batch.schema_ref())?, rows));
        return Ok(());
    }
    let middle = rows / 2;
    for (from, n) in [(0, middle), (middle, rows - middle)] {
        let half = batch.slice(from, n);
        match expr.evaluate(&half).and_then(|v| v.into_array(n)) {
            Ok(values) => found.parts.push(values),
            Err(e) => halves(expr, &half, offset + from as u32, e, found)?,
        }
    }
    Ok(())
}

/// What an expression gives for all rows at once or, where that fails because of a row, what `rows` gives row by row:
/// an error if a row fails after all.
fn at_once_or_by_row(
    at_once: DfResult<ColumnarValue>,
    rows: impl FnOnce() -> Result<(ArrayRef, Failures)>,
) -> DfResult<ColumnarValue> {
    match at_once {
        Err(e) if is_of_row(&e) => {}
        other => return other,
    }
    let (values, failures) = rows().map_err(|e| DataFusionError::External(Box::new(e)))?;
    match failures.error() {
        None => Ok(ColumnarValue::Array(values)),
        Some(e) => Err(e),
    }
}

impl Logic {
    /// The values by row, with the rows that fail.
    fn rows(&self, batch: &RecordBatch) -> Result<(ArrayRef, Failures)> {
        let rows = batch.num_rows();
        let decides = self.op == Operator::Or;
        let mut open = vec![true; rows];
        let mut valid = vec![true; rows];
        let mut failures = Failures::default();
        for operand in &self.operands {
            let places: Vec<u32> = (0..rows as u32).filter(|row| open[*row as usize]).collect();
            if places.is_empty() {
                break;
            }
            let (values, failed) = if places.len() == rows {
                evaluate(operand, batch)?
            } else {
                evaluate(operand, &filter_record_batch(batch, &BooleanArray::from(open.clone()))?)?
            };
            let values = values.as_boolean();
            let good = failed.good(places.len());
            for (at, row) in places.iter().enumerate() {
                if good.as_ref().is_some_and(|g| !g.value(at)) {
                    continue;
                }
                match values.is_valid(at) {
                    true => open[*row as usize] = values.value(at) != decides,
                    false => valid[*row as usize] = false,
                }
            }
            failures.merge(failed.at(&places));
        }
        failures.retain(|row| open[row as usize]);
        let mut result = BooleanBufferBuilder::new(rows);
        open.iter().for_each(|open| result.append(*open != decides));
        let nulls = open.iter().zip(&valid).map(|(open, valid)| !open || *valid).collect::<NullBuffer>();
        let nulls = Some(nulls).filter(|n| n.null_count() > 0);
        Ok((Arc::new(BooleanArray::new(result.finish(), nulls)), failures))
    }
}

impl PhysicalExpr for Logic {
    fn data_type(&self, _schema: &Schema) -> DfResult<DataType> {
        Ok(DataType::Boolean)
    }

    fn nullable(&self, schema: &Schema) -> DfResult<bool> {
        self.fast.nullable(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> DfResult<ColumnarValue> {
        at_once_or_by_row(self.fast.evaluate(batch), || self.rows(batch))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.operands.iter().collect()
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> DfResult<Arc<dyn PhysicalExpr>> {
        match Logic::new(self.op, children) {
            Some(logic) => Ok(Arc::new(logic)),
            None => Ok(self),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fast.fmt_sql(f)
    }
}

impl Guarded {
    /// The values by row, with the rows on which the guard or, where that is true, the value fails.
    fn rows(&self, batch: &RecordBatch) -> Result<(ArrayRef, Failures)> {
        let (mask, mut failures) = evaluate(&self.guard, batch)?;
        let mut keep = true_rows(mask.as_boolean());
        if let Some(good) = failures.good(batch.num_rows()) {
            keep = &keep & good.values();
        }
        let places: Vec<u32> = keep.set_indices_u32().collect();
        let data_type = self.value.data_type(batch.schema_ref())?;
        if places.is_empty() {
            return Ok((new_null_array(&data_type, batch.num_rows()), failures));
        }
        let (values, failed) = evaluate(&self.value, &filter_record_batch(batch, &BooleanArray::new(keep, None))?)?;
        failures.merge(failed.at(&places));
        let mut from: Vec<Option<u32>> = vec![None; batch.num_rows()];
        for (at, row) in places.iter().enumerate() {
            from[*row as usize] = Some(at as u32);
        }
        Ok((take(&values, &UInt32Array::from(from), None)?, failures))
    }
}

impl PhysicalExpr for Guarded {
    fn data_type(&self, schema: &Schema) -> DfResult<DataType> {
        self.value.data_type(schema)
    }

    fn nullable(&self, _schema: &Schema) -> DfResult<bool> {
        Ok(true)
    }

    fn evaluate(&self, batch: &RecordBatch) -> DfResult<ColumnarValue> {
        at_once_or_by_row(self.value.evaluate(batch), || self.rows(batch))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.guard, &self.value]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> DfResult<Arc<dyn PhysicalExpr>> {
        match <[Arc<dyn PhysicalExpr>; 2]>::try_from(children) {
            Ok([guard, value]) => Ok(Arc::new(Guarded { guard, value })),
            Err(_) => Ok(self),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt_sql(f)
    }
}

/// The rows of a mask that are true; null counts as false.
fn true_rows(mask: &BooleanArray) -> BooleanBuffer {
    match mask.nulls() {
        None => mask.values().clone(),
        Some(nulls) => mask.values() & nulls.inner(),
    }
}
