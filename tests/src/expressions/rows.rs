//! The rows over which expressions are evaluated: for each type NULL and the values at which engines differ.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array, Int32Array,
    Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray, UInt64Array,
};
use rand::Rng;
use rand::rngs::StdRng;

use super::grammar::Kind;
use crate::Result;

/// A table `t` of `n` rows: `id`, and two columns of each type.
pub fn rows(rng: &mut StdRng, n: usize) -> Result<RecordBatch> {
    let mut columns: Vec<(&str, ArrayRef, bool)> =
        vec![("id", Arc::new(Int64Array::from_iter_values(0..n as i64)), false)];
    for kind in Kind::ALL {
        for name in kind.columns() {
            columns.push((name, column(rng, kind, n)?, true));
        }
    }
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

const TEXTS: [&str; 11] = [
    "",
    "a",
    "b",
    "ab",
    "A",
    "1",
    "-7",
    "Ünïcode ✓",
    "a text that is too long to lie in a view",
    "x-1,y-2",
    "  padded  ",
];

/// From year 1 to year 9999, around 1970, and around clock changes.
const SECONDS: [i64; 12] = [
    -62_135_596_800,
    -1,
    0,
    59,
    951_782_400,
    1_774_747_800,
    1_774_751_400,
    1_792_888_200,
    1_792_891_800,
    32_503_680_000,
    253_402_300_799,
    9_244_800_000,
];

fn column(rng: &mut StdRng, kind: Kind, n: usize) -> Result<ArrayRef> {
    macro_rules! column {
        ($array:ty, $values:expr) => {{
            let values = $values;
            let value = |rng: &mut StdRng| rng.random_bool(0.8).then(|| values[rng.random_range(0..values.len())]);
            (0..n).map(|_| value(rng)).collect::<$array>()
        }};
    }
    Ok(match kind {
        Kind::Bool => Arc::new(column!(BooleanArray, [true, false])),
        Kind::Small => Arc::new(column!(Int16Array, [0, 1, 2, 3, -1, 7, i16::MIN, i16::MAX])),
        Kind::Int => Arc::new(column!(Int32Array, [0, 1, 2, 3, -1, 7, 100, i32::MIN, i32::MAX])),
        Kind::Big => Arc::new(column!(Int64Array, [0, 1, 2, 3, -1, 7, 1 << 53, i64::MIN, i64::MAX])),
        Kind::Unsigned => Arc::new(column!(UInt64Array, [0, 1, 2, 7, 1 << 63, u64::MAX])),
        Kind::Real => {
            let odd =
                [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, f32::MIN, f32::MAX, 1.5, 1.0, -2.25];
            Arc::new(column!(Float32Array, odd))
        }
        Kind::Double => {
            let odd = [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, f64::MIN, f64::MAX, 1e-300];
            let plain = [1.0, 1.5, 2.0, -2.25, 7.0, 1e300];
            let all: Vec<f64> = odd.into_iter().chain(plain).collect();
            Arc::new(column!(Float64Array, all))
        }
        Kind::Decimal => {
            let cents = [0_i128, 100, 125, -350, 1, 99_999_999_999, 999_999_999_999, -999_999_999_999];
            Arc::new(column!(Decimal128Array, cents).with_precision_and_scale(12, 2)?)
        }
        Kind::Text => Arc::new(column!(StringViewArray, TEXTS)),
        Kind::Date => Arc::new(column!(Date32Array, [0, -1, 19_782, 20_541, 2_932_896, -719_162, 376_200])),
        Kind::Stamp => Arc::new(times(rng, n)),
        Kind::Zoned => Arc::new(times(rng, n).with_timezone("UTC")),
    })
}

fn times(rng: &mut StdRng, n: usize) -> TimestampMicrosecondArray {
    let time = |rng: &mut StdRng| {
        let second = SECONDS[rng.random_range(0..SECONDS.len())];
        let micros = if rng.random_bool(0.3) { rng.random_range(0..1_000_000) } else { 0 };
        // Not behind year 9999, where texts end.
        rng.random_bool(0.8).then_some(second * 1_000_000 + micros)
    };
    (0..n).map(|_| time(rng)).collect()
}
