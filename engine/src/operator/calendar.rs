//! Windows by the calendar: of so many months, that may grow, or be shifted by months.
//!
//! ```text
//! TUMBLE(t, ts, 12 months, 3 months)      2024-03-31  ->  [2023-04-01, 2024-04-01)
//! CUMULATE(t, ts, 1 month, 3 months)      2024-02-10  ->  [2024-01-01, 2024-03-01)  [2024-01-01, 2024-04-01)
//! ```

use std::fmt;

use chrono::{DateTime, Datelike, TimeZone, Utc};

use super::length::Length;

/// Windows that begin with months.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub struct Calendar {
    /// A window starts every so many months, or they grow by as many.
    pub step: i32,
    /// How long they are.
    pub size: i32,
    /// Whether they grow up to that.
    pub grows: bool,
    /// By how much they are shifted from January 1970.
    pub offset: Length,
}

impl Calendar {
    /// Calls `f(start, end)` for each window that holds `t`, earliest start, then end, first.
    pub(super) fn each(&self, t: i64, mut f: impl FnMut(i64, i64)) {
        let Some(at) = self.month_of(t) else { return };
        let (step, size) = (i64::from(self.step.max(1)), i64::from(self.size.max(1)));
        let mut window = |start: i64, end: i64| {
            if let (Some(start), Some(end)) = (self.begin_of(start), self.begin_of(end)) {
                f(start, end);
            }
        };
        if self.grows {
            let start = at - at.rem_euclid(size);
            let mut end = at - (at - start).rem_euclid(step) + step;
            while end <= start + size {
                window(start, end);
                end += step;
            }
            return;
        }
        let last = at - at.rem_euclid(step);
        let mut start = last - (size - 1 - (at - last)).div_euclid(step) * step;
        while start <= last {
            window(start, start + size);
            start += step;
        }
    }

    /// The start of the windows that end at `end`.
    pub(super) fn start_of(&self, end: i64) -> i64 {
        let start = self.month_of(end).and_then(|end| match self.grows {
            true => self.begin_of((end - 1).div_euclid(i64::from(self.size.max(1))) * i64::from(self.size)),
            false => self.begin_of(end - i64::from(self.size)),
        });
        start.unwrap_or(i64::MIN)
    }

    /// How many months after the first window's `t` is.
    fn month_of(&self, t: i64) -> Option<i64> {
        let (shift, months) = self.shift();
        let date = DateTime::from_timestamp_micros(t.checked_sub(shift)?)?;
        Some((i64::from(date.year()) - 1970) * 12 + i64::from(date.month0()) - months)
    }

    /// When that month begins.
    fn begin_of(&self, month: i64) -> Option<i64> {
        let (shift, months) = self.shift();
        let month = month.checked_add(months)?;
        let year = i32::try_from(month.div_euclid(12)).ok()?.checked_add(1970)?;
        let first = Utc.with_ymd_and_hms(year, month.rem_euclid(12) as u32 + 1, 1, 0, 0, 0).single()?;
        first.timestamp_micros().checked_add(shift)
    }

    /// The microseconds and the months by which windows are shifted.
    fn shift(&self) -> (i64, i64) {
        match self.offset {
            Length::Micros(us) => (us, 0),
            Length::Months(n) => (0, i64::from(n)),
        }
    }
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (step, size) = (Length::Months(self.step), Length::Months(self.size));
        match self.grows {
            true => write!(f, "cumulate {step} up to {size}")?,
            false if step == size => write!(f, "tumble {size}")?,
            false => write!(f, "hop {step} of {size}")?,
        }
        match self.offset {
            Length::Micros(0) => Ok(()),
            offset => write!(f, " offset {offset}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(spec: Calendar, year: i32, month: u32, day: u32) -> Vec<(String, String)> {
        let t = Utc.with_ymd_and_hms(year, month, day, 12, 0, 0).single().expect("a day").timestamp_micros();
        let day = |t: i64| DateTime::from_timestamp_micros(t).expect("a time").format("%Y-%m-%d").to_string();
        let mut found = vec![];
        spec.each(t, |start, end| {
            assert_eq!(spec.start_of(end), start);
            found.push((day(start), day(end)));
        });
        found
    }

    fn bounds(found: &[(&str, &str)]) -> Vec<(String, String)> {
        found.iter().map(|(start, end)| (start.to_string(), end.to_string())).collect()
    }

    #[test]
    fn years_may_begin_in_april() {
        let years = Calendar { step: 12, size: 12, grows: false, offset: Length::Months(3) };
        assert_eq!(windows(years, 2024, 3, 31), bounds(&[("2023-04-01", "2024-04-01")]));
        assert_eq!(windows(years, 1969, 4, 1), bounds(&[("1969-04-01", "1970-04-01")]));
        let half = Calendar { step: 6, ..years };
        assert_eq!(windows(half, 2024, 3, 31), bounds(&[("2023-04-01", "2024-04-01"), ("2023-10-01", "2024-10-01")]));
    }

    #[test]
    fn quarters_grow_by_months() {
        let spec = Calendar { step: 1, size: 3, grows: true, offset: Length::Micros(0) };
        assert_eq!(windows(spec, 2024, 2, 10), bounds(&[("2024-01-01", "2024-03-01"), ("2024-01-01", "2024-04-01")]));
        assert_eq!(windows(spec, 1969, 12, 31), bounds(&[("1969-10-01", "1970-01-01")]));
        let later = Calendar { offset: Length::Micros(86_400_000_000), ..spec };
        assert_eq!(windows(later, 2024, 4, 1), bounds(&[("2024-01-02", "2024-04-02")]));
    }
}
