//! Random columns of every type, with the values on which engines differ: nulls, NaN, infinities, -0.0, empty
//! and long texts, times before 1970.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array, Int32Array,
    Int64Array, StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field};
use rand::Rng;
use rand::rngs::StdRng;

use crate::Result;

const TEXTS: [&str; 9] =
    ["", "a", "b", "ab", "Ünïcode ✓", "a text that is too long to lie in a view", "A", "x-1,y-2", "  padded  "];
const FLOATS: [f64; 7] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1.5, -2.25];

/// `n` values for a column. By name: `id` counts up, `x` has only finite values, `k` few different ones.
pub fn column(rng: &mut StdRng, field: &Field, n: usize) -> Result<ArrayRef> {
    let name = field.name().as_str();
    if name == "id" {
        return Ok(Arc::new(Int64Array::from_iter_values(0..n as i64)));
    }
    let present: Vec<bool> = (0..n).map(|_| !field.is_nullable() || rng.random_bool(0.9)).collect();
    macro_rules! some {
        ($array:ty, $value:expr) => {
            Arc::new(present.iter().map(|p| p.then(|| $value)).collect::<$array>()) as ArrayRef
        };
    }
    Ok(match field.data_type() {
        DataType::Int64 => some!(Int64Array, integer(rng)),
        DataType::Int32 => some!(Int32Array, rng.random_range(-2..5)),
        DataType::Int16 => some!(Int16Array, rng.random_range(-300..300)),
        DataType::Float64 => some!(Float64Array, float(rng, name == "x")),
        DataType::Float32 => some!(Float32Array, float(rng, true) as f32),
        DataType::Boolean => some!(BooleanArray, rng.random_bool(0.6)),
        DataType::Utf8View => some!(StringViewArray, TEXTS[rng.random_range(0..TEXTS.len())]),
        DataType::Date32 => some!(Date32Array, rng.random_range(-400..20_000)),
        DataType::Decimal128(p, s) => {
            let values = some!(Decimal128Array, i128::from(rng.random_range(-100_000_i64..100_000)));
            let values = values.as_any().downcast_ref::<Decimal128Array>().ok_or("no decimals")?.clone();
            Arc::new(values.with_precision_and_scale(*p, *s)?)
        }
        DataType::Timestamp(_, zone) => {
            let times = some!(TimestampMicrosecondArray, rng.random_range(-1_000_000_000_000..1_700_000_000_000_000));
            let times = times.as_any().downcast_ref::<TimestampMicrosecondArray>().ok_or("no times")?.clone();
            Arc::new(times.with_timezone_opt(zone.clone()))
        }
        other => return Err(format!("no random values of {other}").into()),
    })
}

fn integer(rng: &mut StdRng) -> i64 {
    match rng.random_range(0..20) {
        0 => rng.random_range(-1_000_000_000_000..1_000_000_000_000),
        1..4 => rng.random_range(0..1000),
        _ => rng.random_range(-5..20),
    }
}

/// Quarters, so that sums come out alike in any order; now and then a special value or one of any size.
fn float(rng: &mut StdRng, finite: bool) -> f64 {
    match rng.random_range(0..20) {
        0 if !finite => FLOATS[rng.random_range(0..FLOATS.len())],
        1 => rng.random_range(-1e6..1e6),
        _ => f64::from(rng.random_range(-40..40)) / 4.0,
    }
}

/// Event times of `n` rows in the order in which they are read: within `span`, out of order by less than
/// `bound`; one in 50 is null.
pub fn event_times(rng: &mut StdRng, n: usize, start: i64, span: i64, bound: i64) -> Vec<Option<i64>> {
    let mut times: Vec<(i64, i64)> = (0..n)
        .map(|_| {
            // Half of them whole seconds: the bounds of windows.
            let unit = if rng.random_bool(0.5) { 1_000_000 } else { 1_000 };
            let t = start + rng.random_range(0..span) / unit * unit;
            (t + rng.random_range(0..bound), t)
        })
        .collect();
    times.sort_unstable();
    times.into_iter().map(|(_, t)| (!rng.random_bool(0.02)).then_some(t)).collect()
}
