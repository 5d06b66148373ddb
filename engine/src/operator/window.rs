//! `TUMBLE`, `HOP` and `CUMULATE`: which windows a row belongs to, and when they close. Those of `SESSION`, of which a row alone does
//! not tell, are in [`super::session`].
//!
//! ```text
//! TUMBLE(t, ts, 10 s)     12 s  ->  [10, 20)
//! HOP(t, ts, 5 s, 10 s)   12 s  ->  [5, 15)  [10, 20)
//! CUMULATE(t, ts, 5 s, 15 s)  2 s  ->  [0, 5)  [0, 10)  [0, 15)
//! ```
//! The operator appends `window_start` and `window_end`; it keeps no state and weights pass unchanged.
//! Rows whose time is null or not countable (`time.rs`) belong to no window.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use chrono::{DateTime, Datelike, TimeZone, Utc};
use datafusion_physical_expr::PhysicalExpr;

use super::calendar::Calendar;
use super::gap::Sessions;
pub use super::length::Length;
use super::length::add_months;
use super::{BuildContext, Operator, OperatorSpec, Output};
use crate::changes::Changes;
use crate::epoch::EpochMark;
use crate::error::{Error, Result};
use crate::time::{EventTime, event_times, from_micros, time_array};

/// The windows of a window function. Offsets shift all windows from 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub enum WindowSpec {
    /// One behind the other.
    Tumble {
        /// Their length.
        size: Length,
        /// Their shift in microseconds.
        offset: i64,
    },
    /// A window of `size` starts every `slide`.
    Hop {
        /// The distance between starts.
        slide: Length,
        /// Their length.
        size: Length,
        /// Their shift in microseconds.
        offset: i64,
    },
    /// Windows that grow by `step` up to `size`, then start anew.
    Cumulate {
        /// The growth.
        step: i64,
        /// The largest length.
        size: i64,
        /// Their shift in microseconds.
        offset: i64,
    },
    /// By the calendar, where they grow or are shifted by months.
    Calendar(Calendar),
    /// As long as rows of a partition come without a gap.
    Session(Sessions),
}

/// The panes that windows are made of: `len` microseconds each, shifted by `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panes {
    /// The length of a pane.
    pub len: i64,
    /// Its shift.
    pub offset: i64,
}

impl Panes {
    /// The start of the pane that holds `t`.
    pub fn start(&self, t: i64) -> i64 {
        floor(t, self.len, self.offset)
    }
}

/// The times whose windows can be computed: all countable times, and the bounds of their windows.
const COMPUTABLE: std::ops::RangeInclusive<i64> = i64::MIN / 2..=i64::MAX / 2;

fn floor(t: i64, step: i64, offset: i64) -> i64 {
    t.saturating_sub(t.saturating_sub(offset).rem_euclid(step))
}

fn month_start(t: i64, months: i32) -> i64 {
    let Some(date) = DateTime::from_timestamp_micros(t) else { return t };
    let index = (i64::from(date.year()) - 1970) * 12 + i64::from(date.month0());
    let start = index - index.rem_euclid(i64::from(months.max(1)));
    let (year, month) = (start.div_euclid(12) as i32 + 1970, start.rem_euclid(12) as u32 + 1);
    Utc.with_ymd_and_hms(year, month, 1, 0, 0, 0).single().map_or(t, |d| d.timestamp_micros())
}

impl WindowSpec {
    /// Calls `f(start, end)` for each window that holds `t`, earliest start (then end) first; for none where
    /// windows cannot be computed, as those of sessions.
    pub fn each(&self, t: i64, mut f: impl FnMut(i64, i64)) {
        if !COMPUTABLE.contains(&t) {
            return;
        }
        match *self {
            WindowSpec::Tumble { size: Length::Micros(size), offset } => {
                let start = floor(t, size, offset);
                f(start, start.saturating_add(size));
            }
            WindowSpec::Tumble { size: Length::Months(n), offset } => {
                let start = month_start(t.saturating_sub(offset), n);
                if let Some(end) = add_months(start, n) {
                    f(start.saturating_add(offset), end.saturating_add(offset));
                }
            }
            WindowSpec::Hop { slide: Length::Micros(slide), size: Length::Micros(size), offset } => {
                let last = floor(t, slide, offset);
                // The earliest start with start + size > t.
                let mut start = last.saturating_sub((last - t + size - 1).div_euclid(slide) * slide);
                while start <= last {
                    f(start, start.saturating_add(size));
                    start += slide;
                }
            }
            WindowSpec::Hop { slide, size, offset } => {
                let (slide, size, t) = (as_months(slide), as_months(size), t.saturating_sub(offset));
                let window = |start: i64| Some((start, add_months(start, size).filter(|end| *end > t)?));
                let first = window(month_start(t, slide));
                let before = |w: &(i64, i64)| add_months(w.0, -slide).and_then(window);
                let windows: Vec<_> = std::iter::successors(first, before).collect();
                for (start, end) in windows.into_iter().rev() {
                    f(start.saturating_add(offset), end.saturating_add(offset));
                }
            }
            WindowSpec::Cumulate { step, size, offset } => {
                let start = floor(t, size, offset);
                let mut end = floor(t, step, start).saturating_add(step);
                while end <= start.saturating_add(size) {
                    f(start, end);
                    let Some(next) = end.checked_add(step) else { break };
                    end = next;
                }
            }
            WindowSpec::Calendar(calendar) => calendar.each(t, f),
            WindowSpec::Session(_) => {}
        }
    }

    /// The end of the last window that holds `t`; of sessions the first end that may be behind it: what is behind the watermark
    /// could be of one that has closed.
    pub fn last_end(&self, t: i64) -> i64 {
        match *self {
            WindowSpec::Hop { slide: Length::Micros(slide), size: Length::Micros(size), offset } => {
                floor(t, slide, offset).saturating_add(size)
            }
            WindowSpec::Cumulate { size, offset, .. } => floor(t, size, offset).saturating_add(size),
            WindowSpec::Session(_) => t.saturating_add(1),
            _ => {
                let mut last = i64::MIN;
                self.each(t, |_, end| last = last.max(end));
                last
            }
        }
    }

    /// About how long its longest window is, in microseconds, and not less.
    fn span(&self) -> i64 {
        match *self {
            WindowSpec::Tumble { size, .. } | WindowSpec::Hop { size, .. } => size.micros(),
            WindowSpec::Cumulate { size, .. } => size,
            WindowSpec::Calendar(calendar) => Length::Months(calendar.size).micros(),
            WindowSpec::Session(sessions) => sessions.gap.micros(),
        }
    }

    /// Within such a length the ends of sessions are near each other: not much longer than sessions, and not so short that it
    /// would hold few.
    pub(super) fn near_ends(&self) -> i64 {
        self.span().saturating_mul(4).clamp(10_000_000, 10 * 366 * 86_400_000_000)
    }

    /// The panes all windows are made of, where their lengths are fixed.
    pub fn panes(&self) -> Option<Panes> {
        match *self {
            WindowSpec::Tumble { size: Length::Micros(len), offset } => Some(Panes { len, offset }),
            WindowSpec::Hop { slide: Length::Micros(slide), size: Length::Micros(size), offset } => {
                Some(Panes { len: gcd(slide, size), offset })
            }
            WindowSpec::Cumulate { step, offset, .. } => Some(Panes { len: step, offset }),
            _ => None,
        }
    }

    /// Whether each row belongs to one window only.
    pub fn is_tumble(&self) -> bool {
        matches!(self, WindowSpec::Tumble { .. })
    }

    /// The start of the window that ends at `end` (of those of one end, all windows but those of
    /// `CUMULATE` start together).
    pub fn start_of(&self, end: i64) -> i64 {
        match *self {
            WindowSpec::Tumble { size, .. } | WindowSpec::Hop { size, .. } => match size {
                Length::Micros(size) => end.saturating_sub(size),
                Length::Months(n) => add_months(end, n.saturating_neg()).unwrap_or(i64::MIN),
            },
            WindowSpec::Cumulate { size, offset, .. } => floor(end.saturating_sub(1), size, offset),
            WindowSpec::Calendar(calendar) => calendar.start_of(end),
            // Their rows tell.
            WindowSpec::Session(_) => i64::MIN,
        }
    }

    /// The end of the first window that ends after `t`, for windows of fixed length.
    pub fn next_end(&self, t: i64) -> Option<i64> {
        match *self {
            WindowSpec::Tumble { size: Length::Micros(size), offset } => {
                Some(floor(t, size, offset).saturating_add(size))
            }
            WindowSpec::Hop { slide: Length::Micros(slide), size: Length::Micros(size), offset } => {
                Some(floor(t.saturating_sub(size), slide, offset).saturating_add(slide).saturating_add(size))
            }
            WindowSpec::Cumulate { step, size, offset } => {
                let start = floor(t, size, offset);
                Some(floor(t, step, start).saturating_add(step))
            }
            _ => None,
        }
    }
}

fn as_months(length: Length) -> i32 {
    match length {
        Length::Months(n) => n.max(1),
        Length::Micros(_) => 1,
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl fmt::Display for WindowSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offset = match *self {
            WindowSpec::Tumble { size, offset } => {
                write!(f, "tumble {size}")?;
                offset
            }
            WindowSpec::Hop { slide, size, offset } => {
                write!(f, "hop {slide} of {size}")?;
                offset
            }
            WindowSpec::Cumulate { step, size, offset } => {
                write!(f, "cumulate {} up to {}", Length::Micros(step), Length::Micros(size))?;
                offset
            }
            WindowSpec::Calendar(calendar) => {
                write!(f, "{calendar}")?;
                0
            }
            WindowSpec::Session(sessions) => {
                write!(f, "{sessions}")?;
                0
            }
        };
        if offset != 0 { write!(f, " offset {}", Length::Micros(offset)) } else { Ok(()) }
    }
}

/// What closes as the watermark passes: decides which rows of a scan are late.
#[derive(Clone, Debug)]
pub enum Closer {
    /// The windows of a window function over the event time.
    Window(WindowSpec),
    /// Groups by a monotone function of the event time, the only column of its input.
    Function(Arc<dyn PhysicalExpr>),
}

impl Closer {
    /// The rows of `times` (one column of event times) whose groups are closed at `watermark`. Times that are
    /// null or in no window are not late.
    pub fn late(&self, times: &ArrayRef, watermark: EventTime) -> Result<BooleanBuffer> {
        if watermark == EventTime::MIN {
            return Ok(BooleanBuffer::new_unset(times.len()));
        }
        match self {
            Closer::Window(spec) => {
                let micros = event_times(times, spec.span())?;
                let late = |i| {
                    let t = micros.value(i);
                    // A window that holds `t` ends after it, so nothing after the watermark can be late.
                    t < watermark.0 && !micros.is_null(i) && spec.last_end(t) <= watermark.0
                };
                Ok(BooleanBuffer::collect_bool(times.len(), late))
            }
            Closer::Function(expr) => {
                // A row whose group cannot be told is not late: the operator puts it aside.
                let (keys, failed) = crate::expr::evaluate(expr, &one_column(times)?)?;
                let bound = evaluate_on(expr, &time_array(watermark, times.data_type())?)?;
                let bound = arrow::array::Scalar::new(bound);
                let late: BooleanArray = arrow::compute::kernels::cmp::lt(&keys, &bound)?;
                let late = crate::state::accumulate::true_rows(&late);
                Ok(match failed.good(times.len()) {
                    None => late,
                    Some(good) => &late & good.values(),
                })
            }
        }
    }
}

/// Evaluates `expr`, which reads one column, on that column.
pub fn evaluate_on(expr: &Arc<dyn PhysicalExpr>, column: &ArrayRef) -> Result<ArrayRef> {
    Ok(expr.evaluate(&one_column(column)?)?.into_array(column.len())?)
}

fn one_column(column: &ArrayRef) -> Result<RecordBatch> {
    let schema = Arc::new(Schema::new(vec![Field::new("t", column.data_type().clone(), true)]));
    Ok(RecordBatch::try_new(schema, vec![column.clone()])?)
}

/// The description of a window function's operator.
#[derive(Clone, Debug)]
pub struct WindowAssign {
    /// The event-time column.
    pub time: usize,
    /// The windows.
    pub windows: WindowSpec,
    /// Give each row once, with its pane's bounds instead of the windows': the aggregate behind makes the
    /// windows of panes.
    pub panes: Option<Panes>,
    schema: SchemaRef,
}

impl WindowAssign {
    /// Over rows of `input`, whose column `time` is a timestamp.
    pub fn new(input: &Schema, time: usize, windows: WindowSpec, panes: Option<Panes>) -> Result<Self> {
        Ok(WindowAssign { time, windows, panes, schema: window_schema(input, time)? })
    }
}

/// `input` with `window_start` and `window_end` of the type of column `time`.
pub fn window_schema(input: &Schema, time: usize) -> Result<SchemaRef> {
    let data_type = input.field(time).data_type();
    if !matches!(data_type, DataType::Timestamp(_, _)) {
        return Err(Error::invalid(format!("\"{}\" is not a timestamp but {data_type}", input.field(time).name())));
    }
    let mut fields: Vec<Arc<Field>> = input.fields().to_vec();
    fields.push(Arc::new(Field::new("window_start", data_type.clone(), false)));
    fields.push(Arc::new(Field::new("window_end", data_type.clone(), false)));
    Ok(Arc::new(Schema::new(fields)))
}

impl OperatorSpec for WindowAssign {
    fn name(&self) -> &'static str {
        "window"
    }

    fn describe(&self) -> String {
        let by = self.schema.field(self.time).name();
        let panes = self.panes.filter(|_| !self.windows.is_tumble());
        match panes {
            Some(p) => format!("{} by {by}, panes of {}", self.windows, Length::Micros(p.len)),
            None => format!("{} by {by}", self.windows),
        }
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn place_of(&self, _port: usize, column: usize) -> Option<usize> {
        Some(column)
    }

    fn build(&self, _context: &mut BuildContext<'_>) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Assign(self.clone())))
    }
}

struct Assign(WindowAssign);

impl Operator for Assign {
    fn on_changes(&mut self, _port: usize, changes: Changes, out: &mut Output) -> Result<()> {
        let spec = &self.0;
        let (rows, starts, ends) = windows_of(changes.rows().column(spec.time), spec)?;
        let taken = match rows {
            None => changes,
            Some(rows) => changes.take(&UInt32Array::from(rows))?,
        };
        let mut columns = taken.rows().columns().to_vec();
        let unit = spec.schema.field(spec.time).data_type();
        columns.push(times(starts, unit)?);
        columns.push(times(ends, unit)?);
        let batch = RecordBatch::try_new(spec.schema.clone(), columns)?;
        out.emit(taken.with_rows(batch));
        Ok(())
    }

    fn on_epoch(&mut self, _mark: &EpochMark, _out: &mut Output) -> Result<()> {
        Ok(())
    }
}

/// Rows of windows, their starts and their ends.
type WindowRows = (Option<Vec<u32>>, Vec<i64>, Vec<i64>);

/// For a column of times, which row each window belongs to (`None`: one window per row), and the windows'
/// bounds in microseconds.
fn windows_of(column: &ArrayRef, spec: &WindowAssign) -> Result<WindowRows> {
    let micros = event_times(column, spec.windows.span())?;
    let n = column.len();
    let (mut starts, mut ends) = (Vec::with_capacity(n), Vec::with_capacity(n));
    let single = spec.panes.or_else(|| spec.windows.panes().filter(|_| spec.windows.is_tumble()));
    if let (Some(panes), 0) = (single, micros.null_count()) {
        let mut start = i64::MAX;
        for t in micros.values() {
            // Neighbours mostly share their pane, so the division is mostly spared.
            if *t < start || *t - start >= panes.len {
                start = panes.start(*t);
            }
            starts.push(start);
            ends.push(start + panes.len);
        }
        return Ok((None, starts, ends));
    }
    let mut rows = Vec::with_capacity(n);
    for (i, t) in micros.iter().enumerate() {
        let Some(t) = t else { continue };
        let mut one = |start, end| {
            rows.push(i as u32);
            starts.push(start);
            ends.push(end);
        };
        match single {
            Some(panes) => one(panes.start(t), panes.start(t) + panes.len),
            None => spec.windows.each(t, one),
        }
    }
    Ok((Some(rows), starts, ends))
}

/// Microseconds as a column of timestamps.
pub(super) fn times(micros: Vec<i64>, data_type: &DataType) -> Result<ArrayRef> {
    use arrow::array::{Int64Array, PrimitiveArray};
    use arrow::datatypes::TimeUnit;
    let DataType::Timestamp(unit, _) = data_type else {
        return Err(Error::internal(format!("{data_type} is not a timestamp")));
    };
    let array: Int64Array = match unit {
        TimeUnit::Microsecond => PrimitiveArray::new(micros.into(), None),
        unit => micros.into_iter().map(|t| from_micros(t, *unit)).collect(),
    };
    // An Int64 column takes any timestamp type without a copy.
    Ok(arrow::compute::cast(&array, data_type)?)
}

/// Appends the windows to rows that are all there: what a batch plan does.
pub fn assign_rows(rows: &RecordBatch, time: usize, windows: WindowSpec) -> Result<RecordBatch> {
    let spec = WindowAssign::new(&rows.schema(), time, windows, None)?;
    let (indices, starts, ends) = windows_of(rows.column(time), &spec)?;
    let taken = match indices {
        None => rows.clone(),
        Some(indices) => take_record_batch(rows, &UInt32Array::from(indices))?,
    };
    let unit = spec.schema.field(time).data_type();
    let mut columns = taken.columns().to_vec();
    columns.push(times(starts, unit)?);
    columns.push(times(ends, unit)?);
    Ok(RecordBatch::try_new(spec.schema.clone(), columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(spec: WindowSpec, t: i64) -> Vec<(i64, i64)> {
        let mut all = vec![];
        spec.each(t, |s, e| all.push((s, e)));
        all
    }

    const fn hop(slide: i64, size: i64, offset: i64) -> WindowSpec {
        WindowSpec::Hop { slide: Length::Micros(slide), size: Length::Micros(size), offset }
    }

    #[test]
    fn windows_hold_their_rows() {
        let tumble = WindowSpec::Tumble { size: Length::Micros(10), offset: 0 };
        assert_eq!(windows(tumble, 12), vec![(10, 20)]);
        assert_eq!(windows(tumble, -1), vec![(-10, 0)]);
        assert_eq!(windows(WindowSpec::Tumble { size: Length::Micros(10), offset: 3 }, 12), vec![(3, 13)]);
        assert_eq!(windows(hop(5, 10, 0), 12), vec![(5, 15), (10, 20)]);
        assert_eq!(windows(hop(5, 10, 0), 10), vec![(5, 15), (10, 20)]);
        assert_eq!(windows(hop(4, 10, 0), 12), vec![(4, 14), (8, 18), (12, 22)]);
        assert_eq!(windows(hop(4, 10, 0), -1), vec![(-8, 2), (-4, 6)]);
        let cumulate = WindowSpec::Cumulate { step: 5, size: 15, offset: 0 };
        assert_eq!(windows(cumulate, 2), vec![(0, 5), (0, 10), (0, 15)]);
        assert_eq!(windows(cumulate, 7), vec![(0, 10), (0, 15)]);
    }

    #[test]
    fn every_hop_window_that_holds_a_row_is_found() {
        for (slide, size, offset) in [(1, 1, 0), (2, 7, 0), (3, 9, 1), (5, 5, -2), (4, 6, 3)] {
            for t in -30..30 {
                let want: Vec<_> = (-60..60)
                    .map(|k| k * slide + offset)
                    .filter(|s| *s <= t && t < s + size)
                    .map(|s| (s, s + size))
                    .collect();
                let spec = hop(slide, size, offset);
                assert_eq!(windows(spec, t), want, "slide {slide} size {size} offset {offset} t {t}");
                assert_eq!(Some(spec.last_end(t)), want.last().map(|w| w.1));
                let next = (-90..90).map(|k| k * slide + offset + size).find(|e| *e > t);
                assert_eq!(spec.next_end(t), next);
            }
        }
    }

    #[test]
    fn a_time_that_no_clock_shows_is_in_no_window() {
        use arrow::array::{Int64Array, TimestampNanosecondArray, TimestampSecondArray};
        let day = 86_400_000_000;
        let specs = [
            WindowSpec::Tumble { size: Length::Micros(10), offset: 3 },
            WindowSpec::Tumble { size: Length::Months(1), offset: day },
            hop(5, 10, 0),
            hop(2 * day, 300 * 366 * day, 0),
            WindowSpec::Hop { slide: Length::Months(1), size: Length::Months(3), offset: -day },
            WindowSpec::Hop { slide: Length::Months(i32::MAX), size: Length::Months(i32::MAX), offset: 0 },
            WindowSpec::Cumulate { step: 5, size: 15, offset: 1 },
        ];
        for spec in specs {
            for t in [i64::MIN, i64::MAX, i64::MIN / 2 - 1, i64::MAX / 2 + 1] {
                assert_eq!(windows(spec, t), [], "{spec} at {t}");
                let _ = (spec.last_end(t), spec.next_end(t), spec.start_of(t));
            }
            let edge = i64::MAX / 4;
            let micros: ArrayRef = Arc::new(Int64Array::from(vec![i64::MIN, -edge - 1, edge + 1, i64::MAX]));
            let seconds: ArrayRef = Arc::new(TimestampSecondArray::from(vec![i64::MIN, i64::MAX]));
            let nanos: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![i64::MIN, i64::MAX]));
            let unit = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None);
            for far in [arrow::compute::cast(&micros, &unit).expect("times"), seconds, nanos] {
                let schema = Schema::new(vec![Field::new("t", far.data_type().clone(), true)]);
                let rows = RecordBatch::try_new(Arc::new(schema), vec![far.clone()]).expect("one column");
                assert_eq!(assign_rows(&rows, 0, spec).expect("times").num_rows(), 0, "{spec}");
                let late = Closer::Window(spec).late(&far, EventTime(0)).expect("times");
                assert_eq!(late.count_set_bits(), 0, "{spec}");
            }
        }
        // What is just countable has all its windows.
        for t in [-(i64::MAX / 4), i64::MAX / 4] {
            let found = windows(hop(5, 10, 0), t);
            assert!(found.len() == 2 && found.iter().all(|(s, e)| *s <= t && t < *e && e - s == 10), "{found:?}");
            assert_eq!(windows(WindowSpec::Tumble { size: Length::Months(1), offset: 0 }, t).len(), 1);
        }
    }

    #[test]
    fn months_follow_the_calendar() {
        let spec = WindowSpec::Tumble { size: Length::Months(1), offset: 0 };
        let t = |y, m, d| Utc.with_ymd_and_hms(y, m, d, 0, 0, 0).single().map(|d| d.timestamp_micros()).unwrap_or(0);
        assert_eq!(windows(spec, t(2024, 2, 29)), vec![(t(2024, 2, 1), t(2024, 3, 1))]);
        let quarters = WindowSpec::Hop { slide: Length::Months(1), size: Length::Months(3), offset: 0 };
        let want =
            vec![(t(2023, 12, 1), t(2024, 3, 1)), (t(2024, 1, 1), t(2024, 4, 1)), (t(2024, 2, 1), t(2024, 5, 1))];
        assert_eq!(windows(quarters, t(2024, 2, 10)), want);
        assert_eq!(quarters.start_of(t(2024, 3, 1)), t(2023, 12, 1));
    }

    #[test]
    fn a_row_is_late_when_its_last_window_has_closed() {
        use arrow::array::TimestampMicrosecondArray;
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![Some(4), Some(5), Some(14), None]));
        let late = Closer::Window(hop(5, 10, 0)).late(&times, EventTime(15)).expect("times");
        // 4 is in [-5, 5) and [0, 10), 5 in [0, 10) and [5, 15).
        assert_eq!(late.iter().collect::<Vec<_>>(), vec![true, true, false, false]);
        let late = Closer::Window(hop(5, 10, 0)).late(&times, EventTime(14)).expect("times");
        assert_eq!(late.iter().collect::<Vec<_>>(), vec![true, false, false, false]);
    }
}
