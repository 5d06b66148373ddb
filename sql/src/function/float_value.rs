//! `float_value(x)`: the value of a float whatever its bits.
//!
//! A float has two zeros and millions of NaNs, and what compares bits tells them apart: `0.0 / 0.0` makes another
//! NaN than the text `NaN`, and sorts below all numbers. Comparisons go over this function, so that there is one
//! zero and one NaN, which is equal to itself and larger than all numbers, as in PostgreSQL.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{ArrowPrimitiveType, DataType, FieldRef, Float32Type, Float64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// The function, shared by all expressions.
pub(crate) fn float_value() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
        let signature = Signature::any(1, Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(FloatValue { signature }))
    });
    Arc::clone(&FUNCTION)
}

/// The value of a scalar: the same for both zeros, and for all NaNs.
pub(crate) fn float_scalar(value: ScalarValue) -> ScalarValue {
    match value {
        ScalarValue::Float64(Some(v)) => ScalarValue::Float64(Some(Plain::plain(v))),
        ScalarValue::Float32(Some(v)) => ScalarValue::Float32(Some(Plain::plain(v))),
        other => other,
    }
}

/// A float whose bits can be made those of its value.
trait Plain: Copy {
    fn is_odd(self) -> bool;
    fn plain(self) -> Self;
}

macro_rules! plain {
    ($float:ty) => {
        impl Plain for $float {
            fn is_odd(self) -> bool {
                let bits = self.to_bits();
                (self != self && bits != <$float>::NAN.to_bits()) || bits == (-0.0 as $float).to_bits()
            }

            fn plain(self) -> Self {
                // Adding zero leaves all as it is but the negative zero.
                if self != self { <$float>::NAN } else { self + 0.0 }
            }
        }
    };
}

plain!(f32);
plain!(f64);

#[derive(Debug, PartialEq, Eq, Hash)]
struct FloatValue {
    signature: Signature,
}

impl ScalarUDFImpl for FloatValue {
    fn name(&self) -> &str {
        "float_value"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(arg_types[0].clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(args.arg_fields[0].as_ref().clone().with_name(self.name())))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(match args.args.into_iter().next() {
            Some(ColumnarValue::Scalar(s)) => ColumnarValue::Scalar(float_scalar(s)),
            Some(ColumnarValue::Array(a)) => ColumnarValue::Array(match a.data_type() {
                DataType::Float64 => plain_array::<Float64Type>(a),
                DataType::Float32 => plain_array::<Float32Type>(a),
                _ => a,
            }),
            None => ColumnarValue::Scalar(ScalarValue::Null),
        })
    }
}

/// The array itself where all is plain, as it mostly is.
fn plain_array<T>(array: ArrayRef) -> ArrayRef
where
    T: ArrowPrimitiveType,
    T::Native: Plain,
{
    let floats = array.as_primitive::<T>();
    if !floats.values().iter().fold(false, |odd, v| odd | v.is_odd()) {
        return array;
    }
    Arc::new(floats.unary::<_, T>(Plain::plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_and_nans_are_one_each() {
        for (given, plain) in [(-0.0, 0.0), (-f64::NAN, f64::NAN), (f64::NAN, f64::NAN), (1.5, 1.5)] {
            assert_eq!(Plain::plain(given).to_bits(), plain.to_bits());
        }
        assert!((-0.0_f64).is_odd() && (-f64::NAN).is_odd());
        assert!(!f64::NAN.is_odd() && !0.0_f64.is_odd() && !f64::NEG_INFINITY.is_odd());
        assert!((-0.0_f32).is_odd() && !1.0_f32.is_odd());
    }
}
