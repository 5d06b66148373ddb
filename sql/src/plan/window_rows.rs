//! Which windows a row is in, a batch at a time.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{
    DataType, Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use chrono::{DateTime, Datelike, NaiveDate};
use std::sync::Arc;

use super::windows::{WindowLength, WindowSpec};
use crate::error::{Error, Result};

/// The batch with each row once for each of its windows, in the order of the rows and then of the windows' ends,
/// and the windows' bounds in two more columns. Rows without a countable time are left out.
pub(crate) fn assign(batch: &RecordBatch, time: usize, spec: &WindowSpec, schema: &SchemaRef) -> Result<RecordBatch> {
    let column = batch.column(time);
    let DataType::Timestamp(unit, zone) = column.data_type() else {
        return Err(Error::internal("a window's time column is not a timestamp"));
    };
    let capacity = batch.num_rows() * spec.windows_per_row();
    let mut rows = Vec::with_capacity(capacity);
    let mut starts = Vec::with_capacity(capacity);
    let mut ends = Vec::with_capacity(capacity);
    let times = ticks(column, *unit);
    let countable = millstream_engine::time::countable(column.data_type(), span(spec.size()));
    let grid = Grid::new(spec);
    for row in 0..times.len() {
        let micros = times.is_valid(row).then(|| to_micros(times.value(row), *unit)).flatten();
        let Some(micros) = micros.filter(|t| countable.contains(t)) else { continue };
        let index = u32::try_from(row).map_err(|_| Error::internal("a batch has more than 2^32 rows"))?;
        let found = grid.windows_of(micros, |start, end| {
            rows.push(index);
            starts.push(from_micros(start, *unit));
            ends.push(from_micros(end, *unit));
        });
        found.ok_or_else(|| out_of_range(times.value(row)))?;
    }
    let rows = UInt32Array::from(rows);
    let mut columns = batch.columns().iter().map(|c| take(c, &rows, None)).collect::<Result<Vec<_>, _>>()?;
    columns.push(from_ticks(Int64Array::from(starts), *unit, zone.clone()));
    columns.push(from_ticks(Int64Array::from(ends), *unit, zone.clone()));
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// A length in microseconds; months are long.
fn span(length: WindowLength) -> i64 {
    match length {
        WindowLength::Micros(micros) => micros,
        WindowLength::Months(months) => i64::from(months).saturating_mul(31 * 86_400_000_000),
    }
}

fn out_of_range(ticks: i64) -> Error {
    Error::new(crate::ErrorKind::Data, format!("timestamp {ticks} is out of the range of windows"))
}

/// Time in the windows' own unit (microseconds, or months), from the first window's start.
struct Grid {
    by_month: bool,
    cumulates: bool,
    size: i64,
    step: i64,
    shift_micros: i64,
    shift_months: i64,
}

impl Grid {
    fn new(spec: &WindowSpec) -> Self {
        let (shift_micros, shift_months) = match spec.offset() {
            WindowLength::Micros(micros) => (micros, 0),
            WindowLength::Months(months) => (0, i64::from(months)),
        };
        Grid {
            by_month: matches!(spec.size(), WindowLength::Months(_)),
            cumulates: matches!(spec, WindowSpec::Cumulate { .. }),
            size: spec.size().count(),
            step: spec.step().count(),
            shift_micros,
            shift_months,
        }
    }

    /// Calls `each` with the bounds of every window with `micros` in it; none if a bound cannot be represented.
    #[inline]
    fn windows_of(&self, micros: i64, mut each: impl FnMut(i64, i64)) -> Option<()> {
        let position = self.position(micros)?;
        let (size, step) = (self.size, self.step);
        if self.cumulates {
            let start = position.div_euclid(size) * size;
            let mut length = ((position - start) / step + 1) * step;
            while length <= size {
                each(self.micros(start)?, self.micros(start.checked_add(length)?)?);
                length += step;
            }
            return Some(());
        }
        let last = position.div_euclid(step) * step;
        // The first window that ends after the position.
        let mut start = last - (size - 1 - (position - last)).div_euclid(step) * step;
        while start <= last {
            each(self.micros(start)?, self.micros(start.checked_add(size)?)?);
            start += step;
        }
        Some(())
    }

    #[inline]
    fn position(&self, micros: i64) -> Option<i64> {
        let micros = micros.checked_sub(self.shift_micros)?;
        if !self.by_month {
            return Some(micros);
        }
        let date = DateTime::from_timestamp_micros(micros)?;
        Some((i64::from(date.year()) - 1970) * 12 + i64::from(date.month0()) - self.shift_months)
    }

    #[inline]
    fn micros(&self, position: i64) -> Option<i64> {
        if !self.by_month {
            return position.checked_add(self.shift_micros);
        }
        let month = position.checked_add(self.shift_months)?;
        let year = i32::try_from(month.div_euclid(12)).ok()?.checked_add(1970)?;
        let first = NaiveDate::from_ymd_opt(year, u32::try_from(month.rem_euclid(12)).ok()? + 1, 1)?;
        let micros = first.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros();
        micros.checked_add(self.shift_micros)
    }
}

/// A timestamp column's values as they are.
fn ticks(column: &ArrayRef, unit: TimeUnit) -> Int64Array {
    match unit {
        TimeUnit::Second => column.as_primitive::<TimestampSecondType>().reinterpret_cast::<Int64Type>(),
        TimeUnit::Millisecond => column.as_primitive::<TimestampMillisecondType>().reinterpret_cast(),
        TimeUnit::Microsecond => column.as_primitive::<TimestampMicrosecondType>().reinterpret_cast(),
        TimeUnit::Nanosecond => column.as_primitive::<TimestampNanosecondType>().reinterpret_cast(),
    }
}

fn from_ticks(ticks: Int64Array, unit: TimeUnit, zone: Option<Arc<str>>) -> ArrayRef {
    match unit {
        TimeUnit::Second => Arc::new(ticks.reinterpret_cast::<TimestampSecondType>().with_timezone_opt(zone)),
        TimeUnit::Millisecond => Arc::new(ticks.reinterpret_cast::<TimestampMillisecondType>().with_timezone_opt(zone)),
        TimeUnit::Microsecond => Arc::new(ticks.reinterpret_cast::<TimestampMicrosecondType>().with_timezone_opt(zone)),
        TimeUnit::Nanosecond => Arc::new(ticks.reinterpret_cast::<TimestampNanosecondType>().with_timezone_opt(zone)),
    }
}

/// Nanoseconds round down, also before 1970: bounds are whole microseconds, so the window stays the same.
fn to_micros(ticks: i64, unit: TimeUnit) -> Option<i64> {
    match unit {
        TimeUnit::Second => ticks.checked_mul(1_000_000),
        TimeUnit::Millisecond => ticks.checked_mul(1_000),
        TimeUnit::Microsecond => Some(ticks),
        TimeUnit::Nanosecond => Some(ticks.div_euclid(1_000)),
    }
}

/// Exact for seconds and milliseconds, because the spec was checked against the column's precision.
fn from_micros(micros: i64, unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => micros.div_euclid(1_000_000),
        TimeUnit::Millisecond => micros.div_euclid(1_000),
        TimeUnit::Microsecond => micros,
        TimeUnit::Nanosecond => micros.saturating_mul(1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000;
    const ZERO: WindowLength = WindowLength::Micros(0);

    fn seconds(n: i64) -> WindowLength {
        WindowLength::Micros(n * S)
    }

    /// The windows' bounds in seconds.
    fn windows(spec: WindowSpec, at: i64) -> Vec<(i64, i64)> {
        let mut found = Vec::new();
        Grid::new(&spec).windows_of(at * S, |start, end| found.push((start / S, end / S))).expect("in range");
        found
    }

    #[test]
    fn tumbling_windows_touch_and_do_not_overlap() {
        let spec = WindowSpec::Tumble { size: seconds(10), offset: ZERO };
        assert_eq!(windows(spec, 0), [(0, 10)]);
        assert_eq!(windows(spec, 9), [(0, 10)]);
        assert_eq!(windows(spec, 10), [(10, 20)]);
        assert_eq!(windows(spec, -1), [(-10, 0)]);
        let shifted = WindowSpec::Tumble { size: seconds(10), offset: seconds(3) };
        assert_eq!(windows(shifted, 2), [(-7, 3)]);
        assert_eq!(windows(shifted, 3), [(3, 13)]);
    }

    #[test]
    fn rows_that_windows_cannot_be_computed_for_are_left_out() {
        let times = |unit: TimeUnit, ticks: Vec<i64>| {
            let column = from_ticks(Int64Array::from(ticks), unit, None);
            let fields = ["t", "window_start", "window_end"]
                .map(|n| arrow::datatypes::Field::new(n, column.data_type().clone(), true));
            let schema = Arc::new(arrow::datatypes::Schema::new(fields.to_vec()));
            let only = Arc::new(schema.project(&[0]).expect("the first column"));
            let batch = RecordBatch::try_new(only, vec![column]).expect("one column");
            let spec = WindowSpec::Hop { slide: seconds(5), size: seconds(10), offset: ZERO };
            assign(&batch, 0, &spec, &schema).expect("rows").num_rows()
        };
        assert_eq!(times(TimeUnit::Second, vec![i64::MAX, 7, i64::MIN]), 2);
        assert_eq!(times(TimeUnit::Microsecond, vec![i64::MAX, 7, i64::MIN, i64::MAX / 4 + 1]), 2);
        assert_eq!(times(TimeUnit::Nanosecond, vec![i64::MAX, 7, i64::MIN]), 2);
    }

    #[test]
    fn hopping_windows_overlap() {
        let spec = WindowSpec::Hop { slide: seconds(5), size: seconds(10), offset: ZERO };
        assert_eq!(windows(spec, 7), [(0, 10), (5, 15)]);
        assert_eq!(windows(spec, -1), [(-10, 0), (-5, 5)]);
        let uneven = WindowSpec::Hop { slide: seconds(4), size: seconds(10), offset: ZERO };
        assert_eq!(windows(uneven, 8), [(0, 10), (4, 14), (8, 18)]);
        assert_eq!(windows(uneven, 11), [(4, 14), (8, 18)]);
    }

    #[test]
    fn cumulating_windows_share_their_start() {
        let spec = WindowSpec::Cumulate { step: seconds(5), size: seconds(15), offset: ZERO };
        assert_eq!(windows(spec, 0), [(0, 5), (0, 10), (0, 15)]);
        assert_eq!(windows(spec, 12), [(0, 15)]);
        assert_eq!(windows(spec, -1), [(-15, 0)]);
    }

    #[test]
    fn months_follow_the_calendar() {
        let day = |y, m, d| NaiveDate::from_ymd_opt(y, m, d).expect("a day").and_time(Default::default()).and_utc();
        let at = |y, m, d| day(y, m, d).timestamp();
        let month = WindowSpec::Tumble { size: WindowLength::Months(1), offset: ZERO };
        assert_eq!(windows(month, at(2024, 2, 29)), [(at(2024, 2, 1), at(2024, 3, 1))]);
        assert_eq!(windows(month, at(1969, 12, 31)), [(at(1969, 12, 1), at(1970, 1, 1))]);
        let quarter = WindowSpec::Hop { slide: WindowLength::Months(1), size: WindowLength::Months(3), offset: ZERO };
        let bounds = windows(quarter, at(2024, 1, 15));
        assert_eq!(bounds[0], (at(2023, 11, 1), at(2024, 2, 1)));
        assert_eq!(bounds[2], (at(2024, 1, 1), at(2024, 4, 1)));
        let fiscal = WindowSpec::Tumble { size: WindowLength::Months(12), offset: WindowLength::Months(3) };
        assert_eq!(windows(fiscal, at(2024, 3, 31)), [(at(2023, 4, 1), at(2024, 4, 1))]);
        let from_fifth = WindowSpec::Tumble { size: WindowLength::Months(1), offset: seconds(4 * 86_400) };
        assert_eq!(windows(from_fifth, at(2024, 3, 4)), [(at(2024, 2, 5), at(2024, 3, 5))]);
    }
}
