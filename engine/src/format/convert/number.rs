//! Numbers to other numbers.

use std::sync::Arc;

use arrow::array::types::{
    ArrowPrimitiveType, Decimal128Type, Decimal256Type, DecimalType, Float32Type, Float64Type, Int64Type, UInt64Type,
};
use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::cast_with_options;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::SAFE;
use crate::format::digits::Digits;
use crate::format::values::read_float;

/// Doubles below this tell all whole numbers apart.
const WHOLE: f64 = 9_007_199_254_740_992.0;

/// `array` as `to`, null where a value does not fit; `None` where Arrow's cast will do.
pub(super) fn convert(array: &ArrayRef, to: &DataType) -> Result<Option<ArrayRef>, ArrowError> {
    use DataType as T;
    let from = array.data_type();
    Ok(Some(match (from, to) {
        (T::Float16, _) if to.is_numeric() => {
            let wide = cast_with_options(array, &T::Float32, &SAFE)?;
            return Ok(Some(convert(&wide, to)?.unwrap_or(cast_with_options(&wide, to, &SAFE)?)));
        }
        (T::Float32, T::Float64) => return Ok(None),
        (T::Float32 | T::Float64, t) if t.is_integer() => floats_to_whole(array, to)?,
        (T::Float64, T::Float32) => {
            let narrow = |x: f64| Some(x as f32).filter(|n| n.is_finite() || !x.is_finite());
            Arc::new(array.as_primitive::<Float64Type>().unary_opt::<_, Float32Type>(narrow))
        }
        (T::Float32 | T::Float64, T::Decimal128(p, s)) => floats_to_decimals::<Decimal128Type>(array, *p, *s)?,
        (T::Float32 | T::Float64, T::Decimal256(p, s)) => floats_to_decimals::<Decimal256Type>(array, *p, *s)?,
        (t, T::Float32) if t.is_decimal() => by_text::<Float32Type>(array, read_float)?,
        (t, T::Float64) if t.is_decimal() => decimals_to_doubles(array)?,
        (t, T::Decimal128(p, s)) if t.is_string() => {
            let read = |text: &[u8]| decimal::<Decimal128Type>(text, *p, *s, false);
            Arc::new(by_text_of::<Decimal128Type>(array, read)?.with_data_type(to.clone()))
        }
        (t, T::Decimal256(p, s)) if t.is_string() => {
            let read = |text: &[u8]| decimal::<Decimal256Type>(text, *p, *s, false);
            Arc::new(by_text_of::<Decimal256Type>(array, read)?.with_data_type(to.clone()))
        }
        _ => return Ok(None),
    }))
}

/// Through the widest whole number, whose casts to the others know their ranges.
fn floats_to_whole(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    let doubles = cast_with_options(array, &DataType::Float64, &SAFE)?;
    let doubles = doubles.as_primitive::<Float64Type>();
    let whole = |x: f64| (x.fract() == 0.0).then_some(x);
    let wide: ArrayRef = if *to == DataType::UInt64 {
        let read = |x: f64| whole(x).filter(|x| (0.0..18_446_744_073_709_551_616.0).contains(x)).map(|x| x as u64);
        Arc::new(doubles.unary_opt::<_, UInt64Type>(read))
    } else {
        let range = -9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0;
        let read = |x: f64| whole(x).filter(|x| range.contains(x)).map(|x| x as i64);
        Arc::new(doubles.unary_opt::<_, Int64Type>(read))
    };
    cast_with_options(&wide, to, &SAFE)
}

/// A float is the decimal that it is printed as: 0.1 is one tenth.
fn floats_to_decimals<T: DecimalType>(array: &ArrayRef, precision: u8, scale: i8) -> Result<ArrayRef, ArrowError> {
    let read = |text: String| decimal::<T>(text.as_bytes(), precision, scale, true);
    let values: PrimitiveArray<T> = match array.data_type() {
        DataType::Float32 => array.as_primitive::<Float32Type>().unary_opt(|x| read(format!("{x:e}"))),
        _ => array.as_primitive::<Float64Type>().unary_opt(|x| read(format!("{x:e}"))),
    };
    Ok(Arc::new(values.with_data_type(T::TYPE_CONSTRUCTOR(precision, scale))))
}

fn decimal<T: DecimalType>(text: &[u8], precision: u8, scale: i8, exact: bool) -> Option<T::Native> {
    let n = Digits::read(text.trim_ascii())?.scaled(scale, exact)?;
    T::is_valid_decimal_precision(n, precision).then_some(n)
}

/// The nearest double.
fn decimals_to_doubles(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    if let DataType::Decimal128(_, scale @ 0..=22) = array.data_type() {
        let values = array.as_primitive::<Decimal128Type>();
        let power = 10f64.powi(i32::from(*scale));
        // Both are exact below 2^53, so that the quotient is rounded once.
        if values.values().iter().all(|n| n.unsigned_abs() < WHOLE as u128) {
            return Ok(Arc::new(values.unary::<_, Float64Type>(|n| n as f64 / power)));
        }
    }
    by_text::<Float64Type>(array, read_float)
}

fn by_text<T: ArrowPrimitiveType>(
    array: &ArrayRef,
    read: impl Fn(&[u8]) -> Option<T::Native>,
) -> Result<ArrayRef, ArrowError> {
    Ok(Arc::new(by_text_of::<T>(array, read)?))
}

/// Reads each value from its text, for pairs of types that are rare.
fn by_text_of<T: ArrowPrimitiveType>(
    array: &ArrayRef,
    read: impl Fn(&[u8]) -> Option<T::Native>,
) -> Result<PrimitiveArray<T>, ArrowError> {
    let show = ArrayFormatter::try_new(array, &FormatOptions::default())?;
    let value = |row: usize| {
        let text = array.is_valid(row).then(|| show.value(row).to_string())?;
        read(text.as_bytes())
    };
    Ok((0..array.len()).map(value).collect())
}
