//! Clocks of time zones: `t AT TIME ZONE 'z'` as `at_time_zone(t, 'z')`, and `t ± INTERVAL` where `t` has a zone as
//! `zoned_plus(t, interval)`.
//!
//! Twice a year a clock is set. A local time that it skips is read with the offset before the change, and so is an
//! hour later on the clock (02:30 is 03:30); of a local time that comes twice the later is meant. So do PostgreSQL
//! and DuckDB. Months and days are added on the clock, hours and less to the instant.

use std::sync::{Arc, LazyLock};

use arrow::array::temporal_conversions::as_datetime;
use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowTimestampType, DataType, Field, FieldRef, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
    TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use chrono::{Days, Duration, LocalResult, Months, NaiveDateTime, Offset, TimeZone};
use datafusion::common::{ScalarValue, exec_datafusion_err, internal_err, plan_datafusion_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::date_bin::is_text;

/// The function that `AT TIME ZONE` becomes.
pub(crate) const AT_TIME_ZONE: &str = "at_time_zone";

/// A zone whose clock is ever set, or none where local time and UTC differ by nothing.
pub(super) fn zone_of(name: &str) -> Result<Option<Tz>> {
    if matches!(name, "UTC" | "Z" | "+00:00" | "Etc/UTC") {
        return Ok(None);
    }
    name.parse().map(Some).map_err(|_| plan_datafusion_err!("there is no time zone \"{name}\""))
}

/// Which of two instants at which a clock shows the same.
#[derive(Clone, Copy, Debug)]
pub(super) enum Twice {
    First,
    Last,
}

/// What the clock of `zone` shows at `time`, as if it were UTC.
pub(super) fn local<T: ArrowTimestampType>(time: i64, zone: Tz) -> Option<i64> {
    let utc = as_datetime::<T>(time)?;
    let offset = zone.offset_from_utc_datetime(&utc).fix();
    T::from_naive_datetime(utc.checked_add_offset(offset)?, None)
}

/// The instant at which the clock of `zone` shows `local`.
pub(super) fn instant<T: ArrowTimestampType>(local: i64, zone: Tz, twice: Twice) -> Option<i64> {
    T::from_naive_datetime(utc_of(as_datetime::<T>(local)?, zone, twice)?, None)
}

fn utc_of(local: NaiveDateTime, zone: Tz, twice: Twice) -> Option<NaiveDateTime> {
    match zone.offset_from_local_datetime(&local) {
        LocalResult::Single(offset) => local.checked_sub_offset(offset.fix()),
        LocalResult::Ambiguous(a, b) => {
            let (a, b) = (local.checked_sub_offset(a.fix())?, local.checked_sub_offset(b.fix())?);
            Some(match twice {
                Twice::First => a.min(b),
                Twice::Last => a.max(b),
            })
        }
        LocalResult::None => {
            // Few changes skip more than an hour, none more than a day.
            let before =
                |hours| match zone.offset_from_local_datetime(&local.checked_sub_signed(Duration::hours(hours))?) {
                    LocalResult::Single(offset) => Some(offset),
                    LocalResult::Ambiguous(_, later) => Some(later),
                    LocalResult::None => None,
                };
            local.checked_sub_offset((1..=25).find_map(before)?.fix())
        }
    }
}

/// The function `at_time_zone`, shared by all expressions.
pub(crate) fn at_time_zone() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(AtTimeZone { signature }))
    });
    Arc::clone(&FUNCTION)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AtTimeZone {
    signature: Signature,
}

impl ScalarUDFImpl for AtTimeZone {
    fn name(&self) -> &str {
        AT_TIME_ZONE
    }

    /// The time's own name, as a cast has it.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.first().map(|a| a.schema_name().to_string()).unwrap_or_default())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        internal_err!("at_time_zone has a field, not a type")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let zone = args.scalar_arguments.get(1).copied().flatten().and_then(|z| z.try_as_str().flatten());
        let Some(zone) = zone else { return plan_err!("AT TIME ZONE needs the name of a zone in quotes") };
        zone_of(zone)?;
        let unit = match args.arg_fields[0].data_type() {
            DataType::Timestamp(unit, _) => *unit,
            _ => TimeUnit::Microsecond,
        };
        let data_type = DataType::Timestamp(unit, Some(zone.into()));
        Ok(Arc::new(Field::new(self.name(), data_type, args.arg_fields[0].is_nullable())))
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let [time, zone] = given else { return plan_err!("at_time_zone takes a time and the name of a zone") };
        let time = match time {
            DataType::Timestamp(..) => time.clone(),
            t if is_text(t) => DataType::Utf8View,
            DataType::Date32 | DataType::Date64 | DataType::Null => DataType::Timestamp(TimeUnit::Microsecond, None),
            other => return plan_err!("AT TIME ZONE is for times, not for {other}"),
        };
        Ok(vec![time, zone.clone()])
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let DataType::Timestamp(_, Some(zone)) = args.return_type() else {
            return internal_err!("a time without a zone");
        };
        let zone = zone_of(zone)?;
        let is_scalar = matches!(args.args[0], ColumnarValue::Scalar(_));
        let times = args.args[0].to_array(1)?;
        let instants = match times.data_type() {
            DataType::Timestamp(_, Some(_)) => times,
            DataType::Timestamp(unit, None) => match zone {
                None => times,
                Some(zone) => instants(&times, *unit, zone)?,
            },
            _ => shown(&times, zone)?,
        };
        // Instants are the same in all zones.
        let instants = cast_zone(&instants, args.return_type())?;
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&instants, 0)?),
            false => ColumnarValue::Array(instants),
        })
    }
}

/// The same instants with another zone, or none, in their type.
fn cast_zone(times: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let data = times.to_data().into_builder().data_type(to.clone()).build()?;
    Ok(arrow::array::make_array(data))
}

fn instants(times: &ArrayRef, unit: TimeUnit, zone: Tz) -> Result<ArrayRef> {
    match unit {
        TimeUnit::Second => typed_instants::<TimestampSecondType>(times, zone),
        TimeUnit::Millisecond => typed_instants::<TimestampMillisecondType>(times, zone),
        TimeUnit::Microsecond => typed_instants::<TimestampMicrosecondType>(times, zone),
        TimeUnit::Nanosecond => typed_instants::<TimestampNanosecondType>(times, zone),
    }
}

fn typed_instants<T: ArrowTimestampType>(times: &ArrayRef, zone: Tz) -> Result<ArrayRef> {
    let beyond = |v: i64| exec_datafusion_err!("AT TIME ZONE: {v} is beyond all clocks");
    let one = |v| instant::<T>(v, zone, Twice::Last).ok_or_else(|| beyond(v));
    let instants: PrimitiveArray<T> = times.as_primitive::<T>().try_unary(one)?;
    Ok(Arc::new(instants))
}

/// Texts: with an offset of their own they are instants, without one local times.
fn shown(texts: &ArrayRef, zone: Option<Tz>) -> Result<ArrayRef> {
    let read = |zone: &str| -> Result<ArrayRef> {
        let in_zone = cast_text(texts, &DataType::Timestamp(TimeUnit::Microsecond, Some(zone.into())))?;
        cast_zone(&in_zone, &DataType::Timestamp(TimeUnit::Microsecond, None))
    };
    let utc = read("+00:00")?;
    let Some(zone) = zone else { return Ok(utc) };
    // What two offsets do not move has one of its own.
    let moved = read("+01:00")?;
    let (utc, moved) =
        (utc.as_primitive::<TimestampMicrosecondType>(), moved.as_primitive::<TimestampMicrosecondType>());
    let beyond = |v: i64| exec_datafusion_err!("AT TIME ZONE: {v} is beyond all clocks");
    let one = |(at, moved): (Option<i64>, Option<i64>)| match at {
        Some(v) if at != moved => {
            instant::<TimestampMicrosecondType>(v, zone, Twice::Last).ok_or_else(|| beyond(v)).map(Some)
        }
        at => Ok(at),
    };
    let instants = utc.iter().zip(moved).map(one).collect::<Result<PrimitiveArray<TimestampMicrosecondType>>>()?;
    Ok(Arc::new(instants))
}

fn cast_text(texts: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    debug_assert!(texts.as_any().is::<StringViewArray>());
    let strict = arrow::compute::CastOptions { safe: false, ..Default::default() };
    Ok(arrow::compute::cast_with_options(texts, to, &strict)?)
}

/// The function `zoned_plus`, shared by all expressions.
pub(crate) fn zoned_plus() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
        let signature = Signature::any(3, Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(ZonedPlus { signature }))
    });
    Arc::clone(&FUNCTION)
}

/// `zoned_plus(time, interval, sign)`, of which the sign is 1 or -1.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ZonedPlus {
    signature: Signature,
}

impl ScalarUDFImpl for ZonedPlus {
    fn name(&self) -> &str {
        "zoned_plus"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(arg_types[0].clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let nullable = args.arg_fields.iter().any(|f| f.is_nullable());
        let field = args.arg_fields[0].as_ref().clone();
        Ok(Arc::new(field.with_name(self.name()).with_nullable(nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if is_scalar { 1 } else { args.number_rows };
        let times = args.args[0].to_array(rows)?;
        let intervals = cast(&args.args[1].to_array(rows)?, &DataType::Interval(IntervalUnit::MonthDayNano))?;
        let back = matches!(&args.args[2], ColumnarValue::Scalar(ScalarValue::Int64(Some(sign))) if *sign < 0);
        let DataType::Timestamp(unit, Some(zone)) = times.data_type() else {
            return internal_err!("a time without a zone");
        };
        let zone: Tz = zone.parse()?;
        let moved = match unit {
            TimeUnit::Second => moved::<TimestampSecondType>(&times, &intervals, zone, back),
            TimeUnit::Millisecond => moved::<TimestampMillisecondType>(&times, &intervals, zone, back),
            TimeUnit::Microsecond => moved::<TimestampMicrosecondType>(&times, &intervals, zone, back),
            TimeUnit::Nanosecond => moved::<TimestampNanosecondType>(&times, &intervals, zone, back),
        }?;
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&moved, 0)?),
            false => ColumnarValue::Array(moved),
        })
    }
}

fn moved<T: ArrowTimestampType>(times: &ArrayRef, intervals: &ArrayRef, zone: Tz, back: bool) -> Result<ArrayRef> {
    let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
    let beyond = |v: i64| exec_datafusion_err!("timestamp {v} and an interval: the sum is beyond all timestamps");
    let one = |(time, interval): (Option<i64>, Option<IntervalMonthDayNano>)| match (time, interval) {
        (Some(time), Some(by)) => plus::<T>(time, by, zone, back).ok_or_else(|| beyond(time)).map(Some),
        _ => Ok(None),
    };
    let sums = times.as_primitive::<T>().iter().zip(intervals).map(one).collect::<Result<PrimitiveArray<T>>>()?;
    Ok(Arc::new(sums.with_data_type(times.data_type().clone())))
}

/// Months on the clock, then days on the clock, then the rest on the instant.
fn plus<T: ArrowTimestampType>(time: i64, by: IntervalMonthDayNano, zone: Tz, back: bool) -> Option<i64> {
    let mut utc = as_datetime::<T>(time)?;
    let shown = |utc: NaiveDateTime| utc.checked_add_offset(zone.offset_from_utc_datetime(&utc).fix());
    if by.months != 0 {
        let months = Months::new(by.months.unsigned_abs());
        let local = shown(utc)?;
        let forth = (by.months > 0) != back;
        let local = if forth { local.checked_add_months(months) } else { local.checked_sub_months(months) }?;
        utc = utc_of(local, zone, Twice::Last)?;
    }
    if by.days != 0 {
        let days = Days::new(u64::from(by.days.unsigned_abs()));
        let local = shown(utc)?;
        let forth = (by.days > 0) != back;
        let local = if forth { local.checked_add_days(days) } else { local.checked_sub_days(days) }?;
        utc = utc_of(local, zone, Twice::Last)?;
    }
    let rest = Duration::nanoseconds(by.nanoseconds);
    let utc = if back { utc.checked_sub_signed(rest) } else { utc.checked_add_signed(rest) }?;
    T::from_naive_datetime(utc, None)
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};

    use super::*;

    fn micros(time: &str) -> i64 {
        DateTime::parse_from_rfc3339(time).unwrap().timestamp_micros()
    }

    fn text(micros: i64) -> String {
        DateTime::<Utc>::from_timestamp_micros(micros).unwrap().to_rfc3339()
    }

    #[test]
    fn skipped_and_repeated_times() {
        let zone: Tz = "Europe/Berlin".parse().unwrap();
        let at = |local: &str| text(instant::<TimestampMicrosecondType>(micros(local), zone, Twice::Last).unwrap());
        assert_eq!(at("2026-03-29T02:30:00Z"), "2026-03-29T01:30:00+00:00");
        assert_eq!(at("2026-03-29T01:59:59Z"), "2026-03-29T00:59:59+00:00");
        assert_eq!(at("2026-10-25T02:30:00Z"), "2026-10-25T01:30:00+00:00");
        // A day that Samoa did not have.
        let zone: Tz = "Pacific/Apia".parse().unwrap();
        let at = |local: &str| text(instant::<TimestampMicrosecondType>(micros(local), zone, Twice::Last).unwrap());
        assert_eq!(at("2011-12-30T12:00:00Z"), "2011-12-30T22:00:00+00:00");
    }

    #[test]
    fn days_and_hours_across_a_change() {
        let zone: Tz = "Europe/Berlin".parse().unwrap();
        let plus = |time: &str, by, back| text(plus::<TimestampMicrosecondType>(micros(time), by, zone, back).unwrap());
        let day = IntervalMonthDayNano::new(0, 1, 0);
        let hours = IntervalMonthDayNano::new(0, 0, 24 * 3_600_000_000_000);
        let month = IntervalMonthDayNano::new(1, 0, 0);
        // 02:30 the day before: a day later the clock shows 03:30.
        assert_eq!(plus("2026-03-28T01:30:00Z", day, false), "2026-03-29T01:30:00+00:00");
        assert_eq!(plus("2026-03-28T11:00:00Z", day, false), "2026-03-29T10:00:00+00:00");
        assert_eq!(plus("2026-03-28T11:00:00Z", hours, false), "2026-03-29T11:00:00+00:00");
        assert_eq!(plus("2026-02-28T11:00:00Z", month, false), "2026-03-28T11:00:00+00:00");
        assert_eq!(plus("2026-04-29T00:30:00Z", month, true), "2026-03-29T01:30:00+00:00");
        assert_eq!(plus("2026-10-24T00:30:00Z", day, false), "2026-10-25T01:30:00+00:00");
    }
}
