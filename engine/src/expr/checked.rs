//! Arithmetic that says when its result does not fit.
//!
//! DataFusion's binary expression can check integers; decimals of full precision and negation are left here.

use arrow::array::{Array, AsArray};
use arrow::compute::kernels::numeric::neg;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Decimal128Type, Decimal256Type};
use datafusion_common::Result as DfResult;
use datafusion_expr::ColumnarValue;

use super::around::{Around, Rule};

/// Whether decimals of `data_type` may come out of arithmetic with more digits than it has: with fewer the
/// type was made wide enough for any result.
pub(super) fn may_not_fit(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Decimal128(DECIMAL128_MAX_PRECISION, _) | DataType::Decimal256(DECIMAL256_MAX_PRECISION, _)
    )
}

/// Decimal arithmetic whose result is checked against the digits that its type has.
pub(super) type Fitting = Around<Fits>;

/// See [`Fitting`].
#[derive(Debug)]
pub(super) struct Fits;

impl Fits {
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

impl Rule for Fits {
    fn values(inner: ColumnarValue) -> DfResult<ColumnarValue> {
        match &inner {
            ColumnarValue::Array(array) => Fits::check(array)?,
            ColumnarValue::Scalar(scalar) => Fits::check(&scalar.to_array()?)?,
        }
        Ok(inner)
    }
}

/// `-x`, an error where the type has no such number: the smallest integer has no opposite.
pub(super) type Negative = Around<Negates>;

/// See [`Negative`].
#[derive(Debug)]
pub(super) struct Negates;

impl Rule for Negates {
    const SIGN: &'static str = "-";

    fn values(inner: ColumnarValue) -> DfResult<ColumnarValue> {
        Ok(match inner {
            ColumnarValue::Array(array) => ColumnarValue::Array(neg(&array)?),
            ColumnarValue::Scalar(scalar) => ColumnarValue::Scalar(scalar.arithmetic_negate()?),
        })
    }
}
