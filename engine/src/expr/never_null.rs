//! What is known not to be NULL stays known.
//!
//! DataFusion finds that `CASE WHEN x > 0 THEN - x ELSE 0 END` is never NULL by looking into its branches, and does not know the
//! expressions that [`harden`](super::harden()) puts there. A column that was said to have no NULLs must not become one that may.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use datafusion_common::{DataFusionError, Result as DfResult};
use datafusion_expr::ColumnarValue;
use datafusion_physical_expr::PhysicalExpr;

/// An expression whose values are never NULL.
#[derive(Debug, Eq)]
pub(super) struct NeverNull(pub(super) Arc<dyn PhysicalExpr>);

// Written out: the derived ones move out of the reference.
impl PartialEq for NeverNull {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq(&other.0)
    }
}

impl Hash for NeverNull {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Display for NeverNull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PhysicalExpr for NeverNull {
    fn data_type(&self, schema: &Schema) -> DfResult<DataType> {
        self.0.data_type(schema)
    }

    fn nullable(&self, _schema: &Schema) -> DfResult<bool> {
        Ok(false)
    }

    fn evaluate(&self, batch: &RecordBatch) -> DfResult<ColumnarValue> {
        self.0.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.0]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> DfResult<Arc<dyn PhysicalExpr>> {
        let child = children.pop().ok_or_else(|| DataFusionError::Internal("no child to vouch for".to_owned()))?;
        Ok(Arc::new(NeverNull(child)))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_sql(f)
    }
}
