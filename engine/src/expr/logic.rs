//! AND and OR of operands that may fail.
//!
//! A false operand decides an AND and a true one an OR, wherever it stands; the others need not have a value
//! then. So a row fails only when no operand decides and one of them fails. This does not depend on the order
//! in which an optimizer has put the operands.
//!
//! ```text
//! y <> 0 AND 10 / y > 1       y = 0: false      y = 5: true
//! 10 / y > 1 AND y <> 0       y = 0: false      y = 5: true
//! 10 / y > 1 AND x > 7        y = 0: fails where x > 7, else false
//! ```

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Schema};
use datafusion_common::Result as DfResult;
use datafusion_expr::{ColumnarValue, Operator};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::BinaryExpr;

use super::failures::{Failures, at_once_or_by_row, evaluate};
use crate::error::Result;

/// `a AND b AND …` or `a OR b OR …`.
#[derive(Debug)]
pub struct Logic {
    op: Operator,
    operands: Vec<Arc<dyn PhysicalExpr>>,
    /// All operands over all rows: right while none of them fails.
    fast: Arc<dyn PhysicalExpr>,
}

impl Logic {
    /// `op` (AND or OR) over at least one operand.
    pub fn new(op: Operator, operands: Vec<Arc<dyn PhysicalExpr>>) -> Option<Self> {
        let chain = |left, right: &Arc<dyn PhysicalExpr>| -> Arc<dyn PhysicalExpr> {
            Arc::new(BinaryExpr::new(left, op, right.clone()))
        };
        let (first, others) = operands.split_first()?;
        let fast = others.iter().fold(first.clone(), chain);
        Some(Logic { op, operands, fast })
    }

    /// AND or OR.
    pub(super) fn op(&self) -> Operator {
        self.op
    }

    /// The values by row, with the rows that fail.
    pub(super) fn rows(&self, batch: &RecordBatch) -> Result<(ArrayRef, Failures)> {
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

impl PartialEq for Logic {
    fn eq(&self, other: &Self) -> bool {
        self.op == other.op && self.operands == other.operands
    }
}

impl Eq for Logic {}

impl Hash for Logic {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.op.hash(state);
        self.operands.hash(state);
    }
}

impl fmt::Display for Logic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fast.fmt(f)
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
