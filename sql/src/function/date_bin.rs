//! `date_bin(stride, time [, origin])` for every timestamp: DataFusion's counts in nanoseconds and gives NULL after
//! 2262, so that all later times fall into one group.
//!
//! A bin is counted in the column's own unit where stride and origin are whole in it, else in 128 bits. A bin that
//! begins before all timestamps is an error.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{
    ArrowTimestampType, DataType, FieldRef, IntervalMonthDayNano, IntervalUnit, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use datafusion::common::{ScalarValue, exec_datafusion_err, exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::calendar::{MonthDay, day_of, month_day};

const DAY_NANOS: i128 = 86_400_000_000_000;

/// Bins of times of day are DataFusion's.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct DateBin {
    signature: Signature,
    of_day: Arc<ScalarUDF>,
}

impl DateBin {
    pub(super) fn new(of_day: Arc<ScalarUDF>) -> Self {
        DateBin { signature: Signature::user_defined(Volatility::Immutable), of_day }
    }
}

impl ScalarUDFImpl for DateBin {
    fn name(&self) -> &str {
        "date_bin"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(arg_types[1].clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let nullable = args.arg_fields.iter().any(|f| f.is_nullable());
        let field = args.arg_fields[1].as_ref().clone();
        Ok(Arc::new(field.with_name(self.name()).with_nullable(nullable)))
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        if !matches!(given.len(), 2 | 3) {
            return plan_err!("date_bin takes a stride, a time and, if need be, an origin");
        }
        let stride = match &given[0] {
            DataType::Interval(_) | DataType::Null => DataType::Interval(IntervalUnit::MonthDayNano),
            t if is_text(t) => DataType::Interval(IntervalUnit::MonthDayNano),
            other => return plan_err!("the stride of date_bin is an INTERVAL, not {other}"),
        };
        let time = binned_type(&given[1])?;
        let mut types = vec![stride, time.clone()];
        if let Some(origin) = given.get(2) {
            types.push(match (&time, origin) {
                // An origin may be finer than the times.
                (DataType::Timestamp(_, zone), DataType::Timestamp(TimeUnit::Nanosecond, _)) => {
                    DataType::Timestamp(TimeUnit::Nanosecond, zone.clone())
                }
                (DataType::Timestamp(_, zone), _) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
                _ => time,
            });
        }
        Ok(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if !matches!(args.args[1].data_type(), DataType::Timestamp(..)) {
            return self.of_day.invoke_with_args(args);
        }
        let nothing = || ScalarValue::try_new_null(args.return_type()).map(ColumnarValue::Scalar);
        let ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(stride)) = &args.args[0] else {
            return exec_err!("the stride of date_bin must be a constant");
        };
        let origin = match args.args.get(2) {
            None => Some(0),
            Some(ColumnarValue::Scalar(origin)) => nanos(origin)?,
            Some(ColumnarValue::Array(_)) => return exec_err!("the origin of date_bin must be a constant"),
        };
        let (Some(stride), Some(origin)) = (stride, origin) else { return nothing() };
        let bins = Bins::new(*stride, origin)?;
        Ok(match &args.args[1] {
            ColumnarValue::Array(times) => ColumnarValue::Array(bins.array(times)?),
            ColumnarValue::Scalar(time) => {
                ColumnarValue::Scalar(ScalarValue::try_from_array(&bins.array(&time.to_array()?)?, 0)?)
            }
        })
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        let steady = inputs.iter().enumerate().all(|(i, p)| i == 1 || p.sort_properties == SortProperties::Singleton);
        Ok(if steady { inputs[1].sort_properties } else { SortProperties::Unordered })
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.of_day.documentation()
    }
}

pub(super) fn is_text(t: &DataType) -> bool {
    matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// What a time is binned or truncated as.
pub(super) fn binned_type(given: &DataType) -> Result<DataType> {
    match given {
        DataType::Timestamp(..) | DataType::Time32(_) | DataType::Time64(_) => Ok(given.clone()),
        DataType::Date32 | DataType::Date64 | DataType::Null => Ok(DataType::Timestamp(TimeUnit::Microsecond, None)),
        t if is_text(t) => Ok(DataType::Timestamp(TimeUnit::Microsecond, None)),
        other => plan_err!("{other} is no time"),
    }
}

/// The nanoseconds of one unit.
fn unit_nanos(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

fn nanos(time: &ScalarValue) -> Result<Option<i128>> {
    let (value, unit) = match time {
        ScalarValue::TimestampSecond(v, _) => (v, TimeUnit::Second),
        ScalarValue::TimestampMillisecond(v, _) => (v, TimeUnit::Millisecond),
        ScalarValue::TimestampMicrosecond(v, _) => (v, TimeUnit::Microsecond),
        ScalarValue::TimestampNanosecond(v, _) => (v, TimeUnit::Nanosecond),
        other => return exec_err!("{} is no timestamp", other.data_type()),
    };
    Ok(value.map(|v| i128::from(v) * i128::from(unit_nanos(unit))))
}

/// The bins: of one length, or of whole months.
enum Bins {
    /// Nanoseconds.
    Length { stride: i128, origin: i128 },
    /// Months; the origin in nanoseconds.
    Months { stride: i64, origin: i128 },
}

impl Bins {
    fn new(stride: IntervalMonthDayNano, origin: i128) -> Result<Self> {
        let length = i128::from(stride.days) * DAY_NANOS + i128::from(stride.nanoseconds);
        match (stride.months, length) {
            (months, 0) if months > 0 => Ok(Bins::Months { stride: i64::from(months), origin }),
            (0, stride) if stride > 0 => Ok(Bins::Length { stride, origin }),
            (0, 0) => exec_err!("the stride of date_bin must not be zero"),
            (0, _) | (_, 0) => exec_err!("the stride of date_bin must not be negative"),
            _ => exec_err!("the stride of date_bin is whole months, or days and less"),
        }
    }

    fn array(&self, times: &ArrayRef) -> Result<ArrayRef> {
        match times.data_type() {
            DataType::Timestamp(TimeUnit::Second, _) => self.typed::<TimestampSecondType>(times),
            DataType::Timestamp(TimeUnit::Millisecond, _) => self.typed::<TimestampMillisecondType>(times),
            DataType::Timestamp(TimeUnit::Microsecond, _) => self.typed::<TimestampMicrosecondType>(times),
            _ => self.typed::<TimestampNanosecondType>(times),
        }
    }

    fn typed<T: ArrowTimestampType>(&self, times: &ArrayRef) -> Result<ArrayRef> {
        let times = times.as_primitive::<T>();
        let unit = i128::from(unit_nanos(T::UNIT));
        let beyond = |v: i64| exec_datafusion_err!("date_bin: the bin of {v} begins before all timestamps");
        let wide = |v: i64| self.start(i128::from(v) * unit, unit).ok_or_else(|| beyond(v));
        let whole = match self {
            Bins::Length { stride, origin } if stride % unit == 0 && origin % unit == 0 => {
                i64::try_from(stride / unit).ok().zip(i64::try_from(origin / unit).ok())
            }
            _ => None,
        };
        let binned: PrimitiveArray<T> = match whole {
            Some((stride, origin)) => times.try_unary(|v| {
                let start = v.checked_sub(origin).and_then(|d| v.checked_sub(d.rem_euclid(stride)));
                start.map_or_else(|| wide(v), Ok)
            })?,
            None => times.try_unary(wide)?,
        };
        Ok(Arc::new(binned.with_data_type(times.data_type().clone())))
    }

    /// The start of a time's bin in units of `unit` nanoseconds, rounded down to one.
    fn start(&self, time: i128, unit: i128) -> Option<i64> {
        let start = match self {
            Bins::Length { stride, origin } => time - (time - origin).rem_euclid(*stride),
            Bins::Months { stride, origin } => {
                let (first, at) = (at_month(*origin)?, at_month(time)?);
                let months = (at.0.month - first.0.month).div_euclid(*stride) * stride;
                let start = |months: i64| {
                    let day = day_of(MonthDay { month: first.0.month + months, day: first.0.day });
                    i128::from(day) * DAY_NANOS + first.1
                };
                match start(months) {
                    // An origin within its month: the bin begins later in the month than the time is.
                    late if late > time => start(months - stride),
                    start => start,
                }
            }
        };
        i64::try_from(start.div_euclid(unit)).ok()
    }
}

/// The month and day of a time, and the nanoseconds of its day.
fn at_month(nanos: i128) -> Option<(MonthDay, i128)> {
    let days = i64::try_from(nanos.div_euclid(DAY_NANOS)).ok()?;
    Some((month_day(days), nanos.rem_euclid(DAY_NANOS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000;

    fn bin(stride: IntervalMonthDayNano, origin: i64, time: i64) -> Option<i64> {
        let times: ArrayRef = Arc::new(PrimitiveArray::<TimestampMicrosecondType>::from_value(time, 1));
        let bins = Bins::new(stride, i128::from(origin) * 1_000).unwrap();
        let bins = bins.array(&times).ok()?;
        Some(bins.as_primitive::<TimestampMicrosecondType>().value(0))
    }

    fn days(n: i32) -> IntervalMonthDayNano {
        IntervalMonthDayNano::new(0, n, 0)
    }

    #[test]
    fn far_times_have_bins_of_their_own() {
        let (year_3000, year_9999) = (32_503_680_000_000_000, 253_370_764_800_000_000);
        assert_eq!(bin(days(1), 0, year_3000 + 5), Some(year_3000));
        assert_eq!(bin(days(1), 0, year_9999 + DAY - 1), Some(year_9999));
        assert_eq!(bin(IntervalMonthDayNano::new(12, 0, 0), 0, year_9999 + 40 * DAY), Some(year_9999));
        assert_eq!(bin(days(1), 0, i64::MAX), Some(i64::MAX - i64::MAX % DAY));
        assert_eq!(bin(days(1), 0, i64::MIN), None);
    }

    #[test]
    fn bins_go_down_before_the_origin_and_before_1970() {
        assert_eq!(bin(days(1), 0, -1), Some(-DAY));
        assert_eq!(bin(days(7), 3 * DAY, 0), Some(-4 * DAY));
        assert_eq!(bin(days(7), 3 * DAY, 3 * DAY), Some(3 * DAY));
        // 1.5 µs: counted in nanoseconds, begun at the microsecond below.
        assert_eq!(bin(IntervalMonthDayNano::new(0, 0, 1_500), 0, -1), Some(-2));
        // Months from 31 January on: 1 March is in the bin of 28 February.
        let month = IntervalMonthDayNano::new(1, 0, 0);
        assert_eq!(bin(month, 30 * DAY, 59 * DAY), Some(58 * DAY));
        assert_eq!(bin(month, 30 * DAY, 29 * DAY), Some(-DAY));
    }
}
