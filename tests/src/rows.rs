//! Random columns of every type, with the values on which engines differ: nulls, NaN of any bits, infinities, -0.0,
//! the extremes of each type, empty and long texts, times before 1970, null structs with values below them.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryViewArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
    Int8Array, Int16Array, Int32Array, Int64Array, ListArray, StringViewArray, StructArray, TimestampMicrosecondArray,
    UInt64Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::nullif;
use arrow::datatypes::{DataType, Field};
use rand::Rng;
use rand::rngs::StdRng;

use crate::Result;
use crate::pending::{Pending, is_pending};

const TEXTS: [&str; 9] =
    ["", "a", "b", "ab", "Ünïcode ✓", "a text that is too long to lie in a view", "A", "x-1,y-2", "  padded  "];
const FLOATS: [f64; 7] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1.5, -2.25];
const WILD: [f64; 9] =
    [f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 7.0];
/// NaN as arithmetic makes it, and with other bits.
const NANS: [u64; 3] = [0x7ff8_0000_0000_0000, 0xfff8_0000_0000_0000, 0x7ff8_0000_0000_0001];
/// The numbers at which a DOUBLE no longer tells integers apart.
const EXACT: i64 = 1 << 53;

/// One row in so many is poisoned: its `p` is 0.
const POISONED: u32 = 20;

/// `n` values for a column. By name: `id` counts up, `x` has only finite values, `k` few different ones, `p` is 0 in
/// some rows and small in the others, and those that begin with `w` have the extremes of their types.
pub fn column(rng: &mut StdRng, field: &Field, n: usize) -> Result<ArrayRef> {
    match field.name().as_str() {
        "id" => Ok(Arc::new(Int64Array::from_iter_values(0..n as i64))),
        "p" => {
            let value = |rng: &mut StdRng| if rng.random_ratio(1, POISONED) { 0 } else { rng.random_range(1..5) };
            Ok(Arc::new(Int32Array::from_iter_values((0..n).map(|_| value(rng)))))
        }
        name if name.starts_with('w') => wild(rng, field, n),
        _ => tame(rng, field, n),
    }
}

/// Values at the edges of a type.
fn wild(rng: &mut StdRng, field: &Field, n: usize) -> Result<ArrayRef> {
    let present: Vec<bool> = (0..n).map(|_| rng.random_bool(0.9)).collect();
    macro_rules! one_of {
        ($array:ty, $values:expr) => {{
            let values = $values;
            let pick = |p: &bool| p.then(|| values[rng.random_range(0..values.len())]);
            present.iter().map(pick).collect::<$array>()
        }};
    }
    let nan =
        if is_pending(Pending::NanBits) { f64::NAN } else { f64::from_bits(NANS[rng.random_range(0..NANS.len())]) };
    Ok(match field.data_type() {
        DataType::Int8 => Arc::new(one_of!(Int8Array, [i8::MIN, i8::MAX, 0, 1, -1])),
        DataType::Int64 => Arc::new(one_of!(
            Int64Array,
            [i64::MIN, i64::MIN + 1, i64::MAX, i64::MAX - 1, EXACT, EXACT + 1, -EXACT - 1, 0, -1, 1]
        )),
        DataType::UInt64 => Arc::new(one_of!(UInt64Array, [0, 1, u64::MAX, u64::MAX - 1, i64::MAX as u64 + 1])),
        DataType::Float64 => {
            let values: Vec<f64> = WILD.iter().copied().chain([nan, f64::NAN]).collect();
            Arc::new(one_of!(Float64Array, values))
        }
        DataType::Float32 => {
            Arc::new(one_of!(Float32Array, [f32::MAX, f32::MIN, f32::MIN_POSITIVE, f32::NAN, f32::INFINITY, 0.0, -0.0]))
        }
        DataType::Date32 => {
            // From the year 1 to 9999, and where nanoseconds end.
            Arc::new(one_of!(Date32Array, [-719_162, 2_932_896, 0, -1, 106_751, 106_752, -106_752]))
        }
        DataType::Timestamp(_, zone) => {
            let last = 2_932_896 * 86_400_000_000_i64 + 86_399_999_999;
            let nanos = i64::MAX / 1000;
            let values = [-719_162 * 86_400_000_000, last, 0, -1, nanos, nanos + 1, -nanos - 2];
            Arc::new(one_of!(TimestampMicrosecondArray, values).with_timezone_opt(zone.clone()))
        }
        DataType::Decimal128(p, s) => {
            let most = 10_i128.pow(u32::from(*p)) - 1;
            let values = [most, -most, most - 1, 0, 1, -1];
            Arc::new(one_of!(Decimal128Array, values).with_precision_and_scale(*p, *s)?)
        }
        other => return Err(format!("no extremes of {other}").into()),
    })
}

fn tame(rng: &mut StdRng, field: &Field, n: usize) -> Result<ArrayRef> {
    let name = field.name().as_str();
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
        DataType::BinaryView => {
            let bytes = |rng: &mut StdRng| vec![rng.random_range(0..3) * 127; rng.random_range(0..3)];
            let values: Vec<Option<Vec<u8>>> = present.iter().map(|p| p.then(|| bytes(rng))).collect();
            Arc::new(values.iter().map(|v| v.as_deref()).collect::<BinaryViewArray>())
        }
        DataType::Struct(fields) => {
            let children = fields.iter().map(|f| tame(rng, f, n)).collect::<Result<Vec<_>>>()?;
            let present = BooleanArray::from(present);
            let children = match is_pending(Pending::BelowNull) {
                false => children,
                // Nothing may lie below a null struct.
                true => {
                    let absent = arrow::compute::not(&present)?;
                    children.iter().map(|c| nullif(c, &absent)).collect::<Result<Vec<_>, _>>()?
                }
            };
            Arc::new(StructArray::new(fields.clone(), children, Some(NullBuffer::new(present.values().clone()))))
        }
        DataType::List(item) => {
            let hides = !is_pending(Pending::BelowNull);
            let lengths: Vec<usize> =
                present.iter().map(|p| if *p || hides { rng.random_range(0..3) } else { 0 }).collect();
            let items = tame(rng, item, lengths.iter().sum())?;
            let present = NullBuffer::from(present);
            Arc::new(ListArray::new(item.clone(), OffsetBuffer::from_lengths(lengths), items, Some(present)))
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

/// Event times of rows of which half come late for some window: those that lead are whole seconds, and so is the watermark
/// `bound` behind them; the others are at the bounds of windows or a microsecond to either side, behind it by up to four
/// times `bound`.
pub fn tardy_times(rng: &mut StdRng, n: usize, start: i64, bound: i64) -> Vec<Option<i64>> {
    // Of windows that are shifted others are met.
    let (start, steps) = match rng.random_bool(0.6) {
        true => (start.div_euclid(10_000_000) * 10_000_000, [0, 0, 0, 5]),
        false => (start.div_euclid(1_000_000) * 1_000_000, [0, 0, 1, 2]),
    };
    let mut now = start;
    (0..n)
        .map(|_| {
            now += 1_000_000 * steps[rng.random_range(0..4)];
            if rng.random_bool(0.5) {
                return Some(now);
            }
            let back = rng.random_range(0..4 * bound) / 1_000_000 * 1_000_000;
            Some(now - bound - back + [-1, 0, 0, 1][rng.random_range(0..4)])
        })
        .collect()
}

/// Event times of `n` rows in the order in which they are read: within `span`, out of order by less than
/// `bound`; one in 50 is null.
pub fn event_times(rng: &mut StdRng, n: usize, start: i64, span: i64, bound: i64) -> Vec<Option<i64>> {
    let mut times: Vec<(i64, i64)> = (0..n)
        .map(|_| {
            // Half of them whole seconds: the bounds of windows.
            let unit = if rng.random_bool(0.5) && span >= 1_000_000 { 1_000_000 } else { 1_000 };
            let t = start + rng.random_range(0..span) / unit * unit;
            (t + rng.random_range(0..bound), t)
        })
        .collect();
    times.sort_unstable();
    times.into_iter().map(|(_, t)| (!rng.random_bool(0.02)).then_some(t)).collect()
}
