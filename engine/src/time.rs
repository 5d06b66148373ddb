//! Event time and watermarks, and the clock, all in microseconds since 1970-01-01 UTC.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::kernels::aggregate;
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};

use crate::error::{Error, Result};

/// A point in event time: microseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct EventTime(pub i64);

impl EventTime {
    /// Before all others: nothing is known yet.
    pub const MIN: EventTime = EventTime(i64::MIN);
    /// After all others: the input has ended.
    pub const MAX: EventTime = EventTime(i64::MAX);
}

impl fmt::Debug for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            EventTime::MIN => f.write_str("none"),
            EventTime::MAX => f.write_str("end"),
            EventTime(us) => match chrono::DateTime::from_timestamp_micros(us) {
                Some(t) => write!(f, "{}", t.format("%Y-%m-%d %H:%M:%S%.f")),
                None => write!(f, "{us} us"),
            },
        }
    }
}

impl std::str::FromStr for EventTime {
    type Err = chrono::ParseError;

    /// Takes back what [`fmt::Display`] gave.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(EventTime::MIN),
            "end" => Ok(EventTime::MAX),
            time => {
                let time = chrono::NaiveDateTime::parse_from_str(time, "%Y-%m-%d %H:%M:%S%.f")?;
                Ok(EventTime(time.and_utc().timestamp_micros()))
            }
        }
    }
}

/// A bound on event time that never goes back: no row before it is still expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Watermark(EventTime);

impl Watermark {
    /// Nothing is known yet.
    pub const NONE: Watermark = Watermark(EventTime::MIN);

    /// A watermark at `time`.
    pub fn at(time: EventTime) -> Self {
        Watermark(time)
    }

    /// The bound.
    pub fn time(self) -> EventTime {
        self.0
    }

    /// Moves forward to `time`; an earlier one changes nothing. Says whether it moved.
    pub fn advance(&mut self, time: EventTime) -> bool {
        let moved = time > self.0;
        if moved {
            self.0 = time;
        }
        moved
    }
}

/// `now()` of continuous queries goes in steps of so many microseconds.
pub const CLOCK_STEP: i64 = 10_000;

/// What the clock says, in microseconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// How many of `unit` make a second.
pub fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// A value in `unit` as event time, rounded down.
pub fn to_micros(value: i64, unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => value.saturating_mul(1_000_000),
        TimeUnit::Millisecond => value.saturating_mul(1_000),
        TimeUnit::Microsecond => value,
        TimeUnit::Nanosecond => value.div_euclid(1_000),
    }
}

/// Event time as a value in `unit`, rounded down.
pub fn from_micros(micros: i64, unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => micros.div_euclid(1_000_000),
        TimeUnit::Millisecond => micros.div_euclid(1_000),
        TimeUnit::Microsecond => micros,
        TimeUnit::Nanosecond => micros.saturating_mul(1_000),
    }
}

/// The values of a time column (timestamp, date) as microseconds; nulls keep whatever lies under them.
pub fn micros_of(array: &ArrayRef) -> Result<PrimitiveArray<Int64Type>> {
    let scale = |unit: TimeUnit, values: PrimitiveArray<Int64Type>| match unit {
        TimeUnit::Microsecond => values,
        unit => values.unary(|v| to_micros(v, unit)),
    };
    Ok(match array.data_type() {
        DataType::Timestamp(unit, _) => scale(*unit, raw_timestamps(array, *unit)),
        DataType::Date32 => array.as_primitive::<Date32Type>().unary(|d| i64::from(d).saturating_mul(86_400_000_000)),
        DataType::Date64 => array.as_primitive::<Date64Type>().unary(|ms| ms.saturating_mul(1_000)),
        other => return Err(Error::internal(format!("{other} is not a time"))),
    })
}

fn raw_timestamps(array: &ArrayRef, unit: TimeUnit) -> PrimitiveArray<Int64Type> {
    match unit {
        TimeUnit::Second => array.as_primitive::<TimestampSecondType>().reinterpret_cast(),
        TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().reinterpret_cast(),
        TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().reinterpret_cast(),
        TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().reinterpret_cast(),
    }
}

/// The values of a time column that count as event times, in microseconds. Where nanoseconds end, in 2262,
/// a window of `span` and at least a year must fit; elsewhere it is 73,069 years around 1970.
///
/// Values beyond, like the `i64::MAX` that stands for "never" in some data, are as good as null: no window
/// holds them, and the watermark does not follow them.
pub fn countable(data_type: &DataType, span: i64) -> RangeInclusive<i64> {
    const YEAR: i64 = 366 * 86_400_000_000;
    let most = match data_type {
        DataType::Timestamp(TimeUnit::Nanosecond, _) => (i64::MAX / 1_000).saturating_sub(span.max(YEAR)),
        _ => i64::MAX / 4,
    };
    -most..=most
}

/// The event times of a time column in microseconds, with null for those that are not [`countable`].
pub fn event_times(array: &ArrayRef, span: i64) -> Result<PrimitiveArray<Int64Type>> {
    let micros = micros_of(array)?;
    let range = countable(array.data_type(), span);
    // Nulls may hide anything: those with some go the long way.
    let all = micros.values().iter().fold(true, |all, t| all & range.contains(t));
    Ok(if all { micros } else { micros.iter().map(|t| t.filter(|t| range.contains(t))).collect() })
}

/// The largest event time of a time column, or `None` when there is none.
pub fn max_time(array: &ArrayRef) -> Result<Option<EventTime>> {
    let max = match array.data_type() {
        DataType::Timestamp(unit, _) => aggregate::max(&raw_timestamps(array, *unit)).map(|v| to_micros(v, *unit)),
        _ => aggregate::max(&micros_of(array)?),
    };
    let counts = max.is_none_or(|t| countable(array.data_type(), 0).contains(&t));
    Ok(if counts { max } else { aggregate::max(&event_times(array, 0)?) }.map(EventTime))
}

/// `time` as an array of one row of the time type `data_type`.
pub fn time_array(time: EventTime, data_type: &DataType) -> Result<ArrayRef> {
    use std::sync::Arc;
    let DataType::Timestamp(unit, zone) = data_type else {
        return Err(Error::internal(format!("{data_type} is not a timestamp")));
    };
    let v = from_micros(time.0, *unit);
    Ok(match unit {
        TimeUnit::Second => {
            Arc::new(PrimitiveArray::<TimestampSecondType>::from(vec![v]).with_timezone_opt(zone.clone()))
        }
        TimeUnit::Millisecond => {
            Arc::new(PrimitiveArray::<TimestampMillisecondType>::from(vec![v]).with_timezone_opt(zone.clone()))
        }
        TimeUnit::Microsecond => {
            Arc::new(PrimitiveArray::<TimestampMicrosecondType>::from(vec![v]).with_timezone_opt(zone.clone()))
        }
        TimeUnit::Nanosecond => {
            Arc::new(PrimitiveArray::<TimestampNanosecondType>::from(vec![v]).with_timezone_opt(zone.clone()))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watermark_never_goes_back() {
        let mut w = Watermark::NONE;
        assert!(w.advance(EventTime(5)));
        assert!(!w.advance(EventTime(3)));
        assert_eq!(w.time(), EventTime(5));
    }

    #[test]
    fn nanoseconds_round_down_before_1970_too() {
        assert_eq!(to_micros(-1, TimeUnit::Nanosecond), -1);
        assert_eq!(from_micros(-1, TimeUnit::Second), -1);
        assert_eq!(from_micros(to_micros(7, TimeUnit::Second), TimeUnit::Second), 7);
    }

    #[test]
    fn a_time_that_no_clock_shows_is_not_the_latest() {
        use arrow::array::{Date32Array, TimestampMicrosecondArray, TimestampNanosecondArray, TimestampSecondArray};
        use std::sync::Arc;
        let latest = |array: ArrayRef| max_time(&array).expect("times").map(|t| t.0);
        let micros = |times: Vec<i64>| latest(Arc::new(TimestampMicrosecondArray::from(times)));
        assert_eq!(micros(vec![i64::MIN, 7, i64::MAX]), Some(7));
        assert_eq!(micros(vec![i64::MAX / 4, i64::MAX / 4 + 1]), Some(i64::MAX / 4));
        assert_eq!(micros(vec![i64::MIN]), None);
        assert_eq!(latest(Arc::new(TimestampSecondArray::from(vec![i64::MAX, 7]))), Some(7_000_000));
        assert_eq!(latest(Arc::new(TimestampNanosecondArray::from(vec![i64::MAX, 7_000]))), Some(7));
        assert_eq!(latest(Arc::new(Date32Array::from(vec![i32::MAX, 1]))), Some(86_400_000_000));
    }

    #[test]
    fn event_time_prints_as_a_timestamp() {
        assert_eq!(EventTime(1_436_918_400_500_000).to_string(), "2015-07-15 00:00:00.500");
        assert_eq!(EventTime::MAX.to_string(), "end");
    }
}
