//! Arithmetic that says when its result does not fit.
//!
//! DataFusion's binary expression can check integers; decimals of full precision and negation are left here.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::kernels::numeric::neg;
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Decimal128Type, Decimal256Type, FieldRef, Schema,
};
use datafusion_common::{DataFusionError, Result as DfResult};
use datafusion_expr::ColumnarValue;
use datafusion_physical_expr::PhysicalExpr;

/// Whether decimals of `data_type` may come out of arithmetic with more digits than it has: with fewer the
/// type was made wide enough for any result.
pub(super) fn may_not_fit(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Decimal128(DECIMAL128_MAX_PRECISION, _) | DataType::Decimal256(DECIMAL256_MAX_PRECISION, _)
    )
}

/// Decimal arithmetic whose result is checked against the digits that its type has.
#[derive(Debug, Eq)]
pub(super) struct Fitting(pub(super) Arc<dyn PhysicalExpr>);

// Written out: the derived ones move out of the reference.
impl PartialEq for Fitting {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq(&other.0)
    }
}

impl Hash for Fitting {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Fitting {
    fn check(values: &dyn Array) -> DfResult<()> {
        match values.data_type() {
            DataType::Decimal128(precision, _) => {
                values.as_primitive::<Decimal128Type>().validate_decimal_precision(*precision)?;
            }
            DataType::Decimal256(precision, _) => {
                values.as_primitive::<Decimal256Type>().validate_decimal_precision(*precision)?;
            }
            _ => {}
        }
        Ok(())
    }
}

impl fmt::Display for Fitting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PhysicalExpr for Fitting {
    fn data_type(&self, schema: &Schema) -> DfResult<DataType> {
        self.0.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> DfResult<bool> {
        self.0.nullable(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> DfResult<ColumnarValue> {
        let values = self.0.evaluate(batch)?;
        match &values {
            ColumnarValue::Array(array) => Fitting::check(array)?,
            ColumnarValue::Scalar(scalar) => Fitting::check(&scalar.to_array()?)?,
        }
        Ok(values)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.0]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> DfResult<Arc<dyn PhysicalExpr>> {
        let child = children.pop().ok_or_else(|| DataFusionError::Internal("no child to check".to_owned()))?;
        Ok(Arc::new(Fitting(child)))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_sql(f)
    }
}

/// `-x`, an error where the type has no such number: the smallest integer has no opposite.
#[derive(Debug, Eq)]
pub(super) struct Negative(pub(super) Arc<dyn PhysicalExpr>);

// Written out: the derived ones move out of the reference.
impl PartialEq for Negative {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq(&other.0)
    }
}

impl Hash for Negative {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Display for Negative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "(- {})", self.0)
    }
}

impl PhysicalExpr for Negative {
    fn data_type(&self, schema: &Schema) -> DfResult<DataType> {
        self.0.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> DfResult<bool> {
        self.0.nullable(schema)
    }

    fn return_field(&self, schema: &Schema) -> DfResult<FieldRef> {
        self.0.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> DfResult<ColumnarValue> {
        Ok(match self.0.evaluate(batch)? {
            ColumnarValue::Array(array) => ColumnarValue::Array(neg(&array)?),
            ColumnarValue::Scalar(scalar) => ColumnarValue::Scalar(scalar.arithmetic_negate()?),
        })
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.0]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> DfResult<Arc<dyn PhysicalExpr>> {
        let child = children.pop().ok_or_else(|| DataFusionError::Internal("no child to negate".to_owned()))?;
        Ok(Arc::new(Negative(child)))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("- ")?;
        self.0.fmt_sql(f)
    }
}
