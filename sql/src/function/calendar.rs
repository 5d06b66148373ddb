//! Days and months of the Gregorian calendar, continued in both directions without end.
//!
//! Years are counted from March, so that the leap day is the last of its year; 400 such years have as many days
//! always. Plain integers: a time in microseconds can lie 290,000 years away, where `chrono` does not reach.

const DAYS_OF_400_YEARS: i64 = 146_097;
/// From 0000-03-01 to 1970-01-01.
const DAYS_TO_1970: i64 = 719_468;

/// A month, counted from January of year 0, and the day in it, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MonthDay {
    pub(super) month: i64,
    pub(super) day: i64,
}

/// The month and day of a day since 1970.
pub(super) fn month_day(days: i64) -> MonthDay {
    let days = days + DAYS_TO_1970;
    let (era, day) = (days.div_euclid(DAYS_OF_400_YEARS), days.rem_euclid(DAYS_OF_400_YEARS));
    // A leap day every fourth year, none in three of four centuries.
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Months of 31, 30, 31, 30, 31 days take turns from March on.
    let month = (5 * day + 2) / 153;
    let day = day - first_day(month) + 1;
    MonthDay { month: (era * 400 + year) * 12 + month + 2, day }
}

/// The day since 1970 of a month and a day; a day that the month does not have is its last.
pub(super) fn day_of(at: MonthDay) -> i64 {
    let from_march = at.month - 2;
    let (year, month) = (from_march.div_euclid(12), from_march.rem_euclid(12));
    let first = years(year) + first_day(month) - DAYS_TO_1970;
    let next = at.month - 1;
    let next = years(next.div_euclid(12)) + first_day(next.rem_euclid(12)) - DAYS_TO_1970;
    (first + at.day - 1).min(next - 1)
}

/// The days before a month of a year that begins in March.
fn first_day(month: i64) -> i64 {
    (153 * month + 2) / 5
}

/// The days before a year that begins in March.
fn years(year: i64) -> i64 {
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400)
}

#[cfg(test)]
mod tests {
    use chrono::{Datelike, NaiveDate};

    use super::*;

    #[test]
    fn days_are_those_of_chrono() {
        let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
        for days in (-90_000_000..90_000_000).step_by(12_347).chain(-800..800) {
            let date = epoch + chrono::Duration::days(days);
            let at = month_day(days);
            let month = i64::from(date.year()) * 12 + i64::from(date.month0());
            assert_eq!(at, MonthDay { month, day: i64::from(date.day()) }, "{date}");
            assert_eq!(day_of(at), days, "{date}");
        }
        let (common, leap) = (1970 * 12 + 1, 1972 * 12 + 1);
        assert_eq!(day_of(MonthDay { month: common, day: 31 }), day_of(MonthDay { month: common, day: 28 }));
        assert_eq!(day_of(MonthDay { month: leap, day: 30 }), day_of(MonthDay { month: leap, day: 29 }));
    }
}
