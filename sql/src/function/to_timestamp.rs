//! `to_timestamp(x [, format …])` in microseconds: of a number, the seconds since 1970; of a text, the time that it
//! shows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::compute::{CastOptions, cast};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit};
use datafusion::common::{ScalarValue, exec_datafusion_err};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// Texts and times are read as `to_timestamp_micros` does.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ToTimestamp {
    signature: Signature,
    texts: Arc<ScalarUDF>,
}

impl ToTimestamp {
    pub(super) fn new(texts: Arc<ScalarUDF>) -> Self {
        ToTimestamp { signature: Signature::variadic_any(Volatility::Immutable), texts }
    }
}

impl ScalarUDFImpl for ToTimestamp {
    fn name(&self) -> &str {
        "to_timestamp"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.texts.return_type(arg_types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [number] = &args.args[..] else { return self.texts.invoke_with_args(args) };
        if number.data_type().is_string() {
            // The function reads by way of nanoseconds, which end in 2262.
            let strict = CastOptions { safe: false, ..CastOptions::default() };
            return number.cast_to(args.return_type(), Some(&strict));
        }
        if !number.data_type().is_numeric() {
            return self.texts.invoke_with_args(args);
        }
        let DataType::Timestamp(TimeUnit::Microsecond, zone) = args.return_type() else {
            return self.texts.invoke_with_args(args);
        };
        let is_scalar = matches!(number, ColumnarValue::Scalar(_));
        let micros = micros(&number.to_array(1)?)?.with_timezone_opt(zone.clone());
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&micros, 0)?),
            false => ColumnarValue::Array(Arc::new(micros)),
        })
    }
}

/// Seconds as microseconds.
fn micros(seconds: &ArrayRef) -> Result<TimestampMicrosecondArray> {
    let beyond =
        |v: &dyn std::fmt::Display| exec_datafusion_err!("to_timestamp: {v} seconds are beyond all timestamps");
    let micros: Result<TimestampMicrosecondArray> = match seconds.data_type() {
        DataType::Decimal128(..) | DataType::Decimal256(..) | DataType::Decimal32(..) | DataType::Decimal64(..) => {
            let exact = cast(seconds, &DataType::Decimal128(38, 6))?;
            let exact = exact.as_primitive::<arrow::datatypes::Decimal128Type>();
            let one = |v: i128| i64::try_from(v).map_err(|_| beyond(&(v / 1_000_000)));
            exact.iter().map(|v| v.map(one).transpose()).collect()
        }
        t if t.is_floating() => {
            let seconds = cast(seconds, &DataType::Float64)?;
            let one = |v: f64| {
                let micros = (v * 1e6).round();
                // The largest double below 2^63 fits, 2^63 does not.
                let fits = micros >= -(2_f64.powi(63)) && micros < 2_f64.powi(63);
                if fits { Ok(micros as i64) } else { Err(beyond(&v)) }
            };
            seconds.as_primitive::<Float64Type>().iter().map(|v| v.map(one).transpose()).collect()
        }
        _ => {
            let seconds = cast(seconds, &DataType::Int64)?;
            let one = |v: i64| v.checked_mul(1_000_000).ok_or_else(|| beyond(&v));
            seconds.as_primitive::<Int64Type>().iter().map(|v| v.map(one).transpose()).collect()
        }
    };
    debug_assert!(micros.as_ref().map_or(true, |m| m.len() == seconds.len()));
    micros
}
