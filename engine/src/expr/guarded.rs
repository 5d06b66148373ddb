//! An argument of an aggregate with FILTER: evaluated on the rows that the filter lets through.
//!
//! ```text
//! sum(10 / v) FILTER (WHERE v <> 0)     v = 5, 0, 2  ->  2, null, 5
//! ```
//! The others get NULL, which nobody looks at.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{filter_record_batch, take};
use arrow::datatypes::{DataType, Schema};
use datafusion_common::Result as DfResult;
use datafusion_expr::ColumnarValue;
use datafusion_physical_expr::PhysicalExpr;

use super::failures::{Failures, at_once_or_by_row, evaluate, true_rows};
use crate::error::Result;

/// `value` where `guard` is true.
#[derive(Debug, Eq)]
pub struct Guarded {
    guard: Arc<dyn PhysicalExpr>,
    value: Arc<dyn PhysicalExpr>,
}

// Written out: the derived ones move out of the references.
impl PartialEq for Guarded {
    fn eq(&self, other: &Self) -> bool {
        self.guard.eq(&other.guard) && self.value.eq(&other.value)
    }
}

impl Hash for Guarded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.guard.hash(state);
        self.value.hash(state);
    }
}

impl Guarded {
    /// `value` on the rows on which `guard`, a boolean, is true.
    pub fn new(guard: Arc<dyn PhysicalExpr>, value: Arc<dyn PhysicalExpr>) -> Self {
        Guarded { guard, value }
    }

    /// The values by row, with the rows on which the guard or, where that is true, the value fails.
    pub(super) fn rows(&self, batch: &RecordBatch) -> Result<(ArrayRef, Failures)> {
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

impl fmt::Display for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
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
