//! Lengths of time: so many microseconds, or months, which differ in length.

use std::fmt;

use chrono::{DateTime, Months};

/// A length of time: fixed, or calendar months.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub enum Length {
    /// Microseconds.
    Micros(i64),
    /// Calendar months.
    Months(i32),
}

impl Length {
    /// So much later than `t`.
    pub fn after(self, t: i64) -> i64 {
        match self {
            Length::Micros(us) => t.saturating_add(us),
            Length::Months(n) => add_months(t, n).unwrap_or(i64::MAX / 2),
        }
    }

    /// About how long it is in microseconds, and not less.
    pub fn micros(self) -> i64 {
        match self {
            Length::Micros(us) => us,
            Length::Months(n) => i64::from(n).saturating_mul(31 * 86_400_000_000),
        }
    }
}

/// So many months later; `None` where the calendar ends.
pub(super) fn add_months(t: i64, months: i32) -> Option<i64> {
    let date = DateTime::from_timestamp_micros(t)?;
    let moved = if months >= 0 {
        date.checked_add_months(Months::new(months as u32))
    } else {
        date.checked_sub_months(Months::new(months.unsigned_abs()))
    };
    moved.map(|d| d.timestamp_micros())
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Length::Months(n) => write!(f, "{n} months"),
            Length::Micros(us) => {
                for (unit, len) in [("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000)]
                {
                    if us != 0 && us % len == 0 {
                        return write!(f, "{} {unit}", us / len);
                    }
                }
                if us % 1000 == 0 { write!(f, "{} ms", us / 1000) } else { write!(f, "{us} us") }
            }
        }
    }
}
