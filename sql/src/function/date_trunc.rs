//! `date_trunc(unit, time)` for every timestamp and every zone: DataFusion's counts units from the second on in
//! nanoseconds for some types, and fails after 2262.
//!
//! A time with a zone is truncated on that zone's clock. The hour that comes twice in autumn stays two hours; a day
//! whose midnight comes twice begins with the first, and one whose midnight is skipped with the change.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{
    ArrowTimestampType, DataType, FieldRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use datafusion::common::{ScalarValue, exec_datafusion_err, exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::calendar::{MonthDay, day_of, month_day};
use super::date_bin::{binned_type, is_text};
use super::zone::{Twice, instant, local, zone_of};

/// Times of day are truncated by DataFusion's.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct DateTrunc {
    signature: Signature,
    aliases: Vec<String>,
    of_day: Arc<ScalarUDF>,
}

impl DateTrunc {
    pub(super) fn new(of_day: Arc<ScalarUDF>) -> Self {
        let aliases = vec!["datetrunc".to_owned()];
        DateTrunc { signature: Signature::user_defined(Volatility::Immutable), aliases, of_day }
    }
}

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &str {
        "date_trunc"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(arg_types[1].clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(args.arg_fields[1].as_ref().clone().with_name(self.name())))
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        match given {
            [unit, time] if is_text(unit) => Ok(vec![unit.clone(), binned_type(time)?]),
            _ => plan_err!("date_trunc takes the name of a unit and a time"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if !matches!(args.args[1].data_type(), DataType::Timestamp(..)) {
            return self.of_day.invoke_with_args(args);
        }
        let ColumnarValue::Scalar(unit) = &args.args[0] else {
            return exec_err!("the unit of date_trunc must be a constant");
        };
        let Some(unit) = unit.try_as_str().flatten() else { return exec_err!("the unit of date_trunc is NULL") };
        let unit = Unit::of(unit)?;
        Ok(match &args.args[1] {
            ColumnarValue::Array(times) => ColumnarValue::Array(truncated(unit, times)?),
            ColumnarValue::Scalar(time) => {
                ColumnarValue::Scalar(ScalarValue::try_from_array(&truncated(unit, &time.to_array()?)?, 0)?)
            }
        })
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        let steady = inputs[0].sort_properties == SortProperties::Singleton;
        Ok(if steady { inputs[1].sort_properties } else { SortProperties::Unordered })
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.of_day.documentation()
    }
}

/// What is truncated to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Unit {
    /// A length in nanoseconds, up to the hour.
    Clock(i64),
    Day,
    /// From Monday on.
    Week,
    Months(i64),
}

impl Unit {
    fn of(name: &str) -> Result<Self> {
        Ok(match name.to_lowercase().as_str() {
            "microsecond" | "microseconds" => Unit::Clock(1_000),
            "millisecond" | "milliseconds" => Unit::Clock(1_000_000),
            "second" => Unit::Clock(1_000_000_000),
            "minute" => Unit::Clock(60_000_000_000),
            "hour" => Unit::Clock(3_600_000_000_000),
            "day" => Unit::Day,
            "week" => Unit::Week,
            "month" => Unit::Months(1),
            "quarter" => Unit::Months(3),
            "year" => Unit::Months(12),
            "decade" => Unit::Months(120),
            _ => return exec_err!("date_trunc: there is no unit \"{name}\""),
        })
    }

    /// The start of the unit that holds a local time of `per_second` parts a second.
    fn start(self, time: i64, per_second: i64) -> Option<i64> {
        let day = per_second * 86_400;
        let days = time.div_euclid(day);
        match self {
            Unit::Clock(nanos) => {
                // Less than one part: nothing to take away.
                let length = i128::from(nanos) * i128::from(per_second) / 1_000_000_000;
                let length = i64::try_from(length).ok()?.max(1);
                time.checked_sub(time.rem_euclid(length))
            }
            Unit::Day => days.checked_mul(day),
            // 1970 began on a Thursday.
            Unit::Week => (days - (days + 3).rem_euclid(7)).checked_mul(day),
            Unit::Months(n) => {
                let month = month_day(days).month;
                day_of(MonthDay { month: month - month.rem_euclid(n), day: 1 }).checked_mul(day)
            }
        }
    }

    fn is_within_the_hour(self) -> bool {
        matches!(self, Unit::Clock(nanos) if nanos < 3_600_000_000_000)
    }
}

fn truncated(unit: Unit, times: &ArrayRef) -> Result<ArrayRef> {
    match times.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => typed::<TimestampSecondType>(unit, times, 1),
        DataType::Timestamp(TimeUnit::Millisecond, _) => typed::<TimestampMillisecondType>(unit, times, 1_000),
        DataType::Timestamp(TimeUnit::Microsecond, _) => typed::<TimestampMicrosecondType>(unit, times, 1_000_000),
        _ => typed::<TimestampNanosecondType>(unit, times, 1_000_000_000),
    }
}

fn typed<T: ArrowTimestampType>(unit: Unit, times: &ArrayRef, per_second: i64) -> Result<ArrayRef> {
    let zone = match times.data_type() {
        // Offsets of our times are whole minutes: finer units need no clock.
        DataType::Timestamp(_, Some(zone)) if !unit.is_within_the_hour() => zone_of(zone)?,
        _ => None,
    };
    let beyond = |v: i64| exec_datafusion_err!("date_trunc: the start of the unit of {v} is before all timestamps");
    let times = times.as_primitive::<T>();
    let starts: PrimitiveArray<T> = match zone {
        None => times.try_unary(|v| unit.start(v, per_second).ok_or_else(|| beyond(v)))?,
        Some(zone) => times.try_unary(|v| zoned::<T>(unit, v, zone, per_second).ok_or_else(|| beyond(v)))?,
    };
    Ok(Arc::new(starts.with_data_type(times.data_type().clone())))
}

fn zoned<T: ArrowTimestampType>(unit: Unit, time: i64, zone: Tz, per_second: i64) -> Option<i64> {
    let shown = local::<T>(time, zone)?;
    let start = unit.start(shown, per_second)?;
    // Within the unit the clock was not set: the same hour, whichever of the two it is.
    let same = start.checked_sub(shown - time)?;
    if matches!(unit, Unit::Clock(_)) && local::<T>(same, zone) == Some(start) {
        return Some(same);
    }
    instant::<T>(start, zone, Twice::First)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trunc(unit: &str, time: &str, zone: Option<&str>) -> String {
        let utc = ScalarValue::Utf8(Some(time.to_owned()));
        let utc = utc.cast_to(&DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))).unwrap();
        let data_type = DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
        let times = arrow::compute::cast(&utc.to_array().unwrap(), &data_type).unwrap();
        let start = truncated(Unit::of(unit).unwrap(), &times).unwrap();
        let start = arrow::compute::cast(&start, &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
        arrow::util::display::array_value_to_string(&start.unwrap(), 0).unwrap()
    }

    #[test]
    fn far_times_have_a_start() {
        assert_eq!(trunc("year", "9999-07-08T09:10:11Z", Some("UTC")), "9999-01-01T00:00:00Z");
        assert_eq!(trunc("quarter", "3000-06-30T09:10:11Z", Some("UTC")), "3000-04-01T00:00:00Z");
        assert_eq!(trunc("week", "1969-12-31T23:00:00Z", Some("UTC")), "1969-12-29T00:00:00Z");
        assert_eq!(trunc("minute", "0001-01-01T00:00:59.9Z", Some("UTC")), "0001-01-01T00:00:00Z");
    }

    #[test]
    fn clock_changes() {
        let berlin = Some("Europe/Berlin");
        // 02:30 twice on 25 October 2026.
        assert_eq!(trunc("hour", "2026-10-25T00:30:00Z", berlin), "2026-10-25T00:00:00Z");
        assert_eq!(trunc("hour", "2026-10-25T01:30:00Z", berlin), "2026-10-25T01:00:00Z");
        assert_eq!(trunc("day", "2026-10-25T12:30:00Z", berlin), "2026-10-24T22:00:00Z");
        // A midnight that is skipped, and one that comes twice.
        assert_eq!(trunc("day", "2018-11-04T12:00:00Z", Some("America/Sao_Paulo")), "2018-11-04T03:00:00Z");
        assert_eq!(trunc("day", "2026-11-01T06:30:00Z", Some("America/Havana")), "2026-11-01T04:00:00Z");
    }
}
