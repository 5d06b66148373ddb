//! Timestamps in text: ISO 8601, a strftime pattern, or a number since 1970.

use arrow::datatypes::TimeUnit;
use chrono::format::{Item, Parsed, StrftimeItems, parse};

use crate::error::{Error, Result};
use crate::time::per_second;

/// How timestamps are written.
#[derive(Clone, Debug, PartialEq)]
pub enum TimeFormat {
    /// `YYYY-MM-DD`, then perhaps `T` or a blank and `HH:MM[:SS[.fraction]]`, then perhaps a zone.
    Iso,
    /// Whole units since 1970-01-01 UTC.
    Epoch(TimeUnit),
    /// A strftime pattern, taken apart.
    Pattern(Vec<Item<'static>>),
}

impl TimeFormat {
    /// Reads the value of option `timestamp_format`.
    pub fn of_option(text: &str) -> Result<Self> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "iso" | "iso8601" => TimeFormat::Iso,
            "epoch_s" => TimeFormat::Epoch(TimeUnit::Second),
            "epoch_ms" => TimeFormat::Epoch(TimeUnit::Millisecond),
            "epoch_us" => TimeFormat::Epoch(TimeUnit::Microsecond),
            "epoch_ns" => TimeFormat::Epoch(TimeUnit::Nanosecond),
            _ if text.contains('%') => {
                TimeFormat::Pattern(StrftimeItems::new(text).parse_to_owned().map_err(|_| unreadable(text))?)
            }
            _ => return Err(unreadable(text)),
        })
    }

    /// The instant that `text` says, in `unit`, rounded down; `None` when it is not written this way.
    pub fn read(&self, text: &[u8], unit: TimeUnit) -> Option<i64> {
        match self {
            TimeFormat::Iso => read_iso(text)?.in_unit(unit),
            TimeFormat::Epoch(from) => read_epoch(text, *from)?.in_unit(unit),
            TimeFormat::Pattern(items) => read_pattern(std::str::from_utf8(text).ok()?, items)?.in_unit(unit),
        }
    }
}

fn unreadable(text: &str) -> Error {
    Error::invalid(format!("'{text}' is not a timestamp format"))
        .with_hint("Write 'iso', 'epoch_s', 'epoch_ms', 'epoch_us', or a pattern like '%m/%d/%Y %H:%M:%S'.")
}

/// An instant: seconds since 1970-01-01 UTC, rounded down, and the rest.
struct Instant {
    seconds: i64,
    nanos: u32,
}

impl Instant {
    fn in_unit(&self, unit: TimeUnit) -> Option<i64> {
        let scale = per_second(unit);
        let rest = i64::from(self.nanos) / (1_000_000_000 / scale);
        self.seconds.checked_mul(scale)?.checked_add(rest)
    }
}

fn read_epoch(text: &[u8], unit: TimeUnit) -> Option<Instant> {
    let scale = per_second(unit);
    if let Some(n) = super::values::read_i64(text) {
        let nanos = n.rem_euclid(scale) * (1_000_000_000 / scale);
        return Some(Instant { seconds: n.div_euclid(scale), nanos: nanos as u32 });
    }
    let n: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    let seconds = (n / scale as f64).floor();
    // Past this an i64 of microseconds is full; it also keeps the cast below exact.
    if seconds.is_nan() || seconds.abs() > 9.2e12 {
        return None;
    }
    let nanos = ((n / scale as f64 - seconds) * 1e9) as u32;
    Some(Instant { seconds: seconds as i64, nanos: nanos.min(999_999_999) })
}

fn read_pattern(text: &str, items: &[Item<'static>]) -> Option<Instant> {
    let mut parsed = Parsed::new();
    parse(&mut parsed, text, items.iter()).ok()?;
    let at = if parsed.offset().is_some() {
        parsed.to_datetime().ok()?.to_utc()
    } else if parsed.hour_div_12().is_some() || parsed.hour_mod_12().is_some() || parsed.timestamp().is_some() {
        parsed.to_naive_datetime_with_offset(0).ok()?.and_utc()
    } else {
        parsed.to_naive_date().ok()?.and_hms_opt(0, 0, 0)?.and_utc()
    };
    Some(Instant { seconds: at.timestamp(), nanos: at.timestamp_subsec_nanos().min(999_999_999) })
}

/// The number that the digits of `text` make, when all are digits.
fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0i64, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
}

fn read_iso(text: &[u8]) -> Option<Instant> {
    let (date, rest) = text.split_at_checked(10)?;
    let days = read_date(date)?;
    let midnight = Instant { seconds: days * 86_400, nanos: 0 };
    let Some((separator, rest)) = rest.split_first() else { return Some(midnight) };
    if !matches!(separator, b'T' | b't' | b' ') {
        return None;
    }
    let (clock, mut rest) = rest.split_at_checked(5)?;
    let (hour, minute) = (digits(&clock[..2])?, digits(&clock[3..])?);
    if clock[2] != b':' || hour > 23 || minute > 59 {
        return None;
    }
    let (mut second, mut nanos) = (0, 0);
    if let [b':', a, b, after @ ..] = rest {
        second = digits(&[*a, *b])?;
        rest = after;
        if second > 60 {
            return None;
        }
        if let [b'.' | b',', after @ ..] = rest {
            (nanos, rest) = read_fraction(after)?;
        }
    }
    let seconds = midnight.seconds + hour * 3600 + minute * 60 + second - read_zone(rest)?;
    Some(Instant { seconds, nanos })
}

/// `YYYY-MM-DD` as days since 1970-01-01 (H. Hinnant, "chrono-compatible low-level date algorithms").
fn read_date(text: &[u8]) -> Option<i64> {
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1] = text else { return None };
    let (year, month, day) = (digits(&[*y0, *y1, *y2, *y3])?, digits(&[*m0, *m1])?, digits(&[*d0, *d1])?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if day < 1 || day > length {
        return None;
    }
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// The digits of a fraction of a second as nanoseconds (later digits are dropped), and what follows.
fn read_fraction(text: &[u8]) -> Option<(u32, &[u8])> {
    let length = text.iter().take_while(|b| b.is_ascii_digit()).count();
    if length == 0 {
        return None;
    }
    let kept = length.min(9);
    let nanos = digits(&text[..kept])? * 10i64.pow(9 - kept as u32);
    Some((nanos as u32, &text[length..]))
}

/// A zone's seconds east of UTC: none or `Z` is 0; `+HH`, `+HHMM`, `+HH:MM`.
fn read_zone(text: &[u8]) -> Option<i64> {
    let (sign, rest) = match text {
        [] | [b'Z' | b'z'] | [b' ', b'U', b'T', b'C'] => return Some(0),
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = match rest {
        [a, b] => (digits(&[*a, *b])?, 0),
        [a, b, c, d] | [a, b, b':', c, d] => (digits(&[*a, *b])?, digits(&[*c, *d])?),
        _ => return None,
    };
    (hours <= 18 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: TimeUnit = TimeUnit::Microsecond;

    #[test]
    fn iso_agrees_with_chrono() {
        for days in (-200_000..200_000).step_by(37) {
            let at = chrono::DateTime::from_timestamp(days * 86_400 + 3_723, 120_450_000).expect("in range");
            let text = at.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
            if text.len() == 27 {
                assert_eq!(TimeFormat::Iso.read(text.as_bytes(), US), Some(at.timestamp_micros()), "{text}");
            }
        }
    }

    #[test]
    fn iso_in_its_forms() {
        let noon = 1_696_161_600_000_000;
        let cases = [
            ("2023-10-01 12:00:00", Some(noon)),
            ("2023-10-01T12:00", Some(noon)),
            ("2023-10-01 12:00:00.000001", Some(noon + 1)),
            ("2023-10-01T14:00:00+02:00", Some(noon)),
            ("2023-10-01T14:00:00.0000019+0200", Some(noon + 1)),
            ("2023-10-01", Some(noon - 43_200_000_000)),
            ("1969-12-31 23:59:59.5", Some(-500_000)),
            ("2023-02-29", None),
            ("2023-10-01 24:00:00", None),
            ("2023-10-01 12:00:00 PM", None),
            ("10/01/2023", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(TimeFormat::Iso.read(text.as_bytes(), US), expected, "{text}");
        }
    }

    #[test]
    fn numbers_and_patterns() {
        let read = |format: &str, text: &str| TimeFormat::of_option(format).expect("format").read(text.as_bytes(), US);
        assert_eq!(read("epoch_ms", "1500"), Some(1_500_000));
        assert_eq!(read("epoch_ms", "-1"), Some(-1_000));
        assert_eq!(read("epoch_s", "1.5"), Some(1_500_000));
        assert_eq!(read("epoch_us", "x"), None);
        assert_eq!(read("%m/%d/%Y %I:%M:%S %p", "10/01/2023 12:00:00 PM"), Some(1_696_161_600_000_000));
        assert_eq!(read("%d.%m.%Y", "01.10.2023"), Some(1_696_118_400_000_000));
        assert_eq!(read("%Y-%m-%dT%H:%M:%S%z", "2023-10-01T14:00:00+0200"), Some(1_696_161_600_000_000));
        assert!(TimeFormat::of_option("yesterday").is_err());
    }
}
