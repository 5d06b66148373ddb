//! Values as Debezium writes them, where that is not how JSON says them: days and instants as numbers since 1970, times of day
//! as numbers since midnight, exact decimals and bytes in base64.
//!
//! ```text
//! with a schema   its logical type says which: io.debezium.time.Date, …MicroTimestamp, org.apache.kafka.connect.data.Decimal, …
//! without         DATE          days
//!                 TIMESTAMP(p)  p <= 3 milliseconds, p <= 6 microseconds, else nanoseconds, unless timestamp_format says
//!                 TIME          microseconds
//!                 BYTEA         base64
//!                 DECIMAL       digits, as a number or a text
//! ```
//! Values are rewritten as texts, column by column, and then read as others are.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryViewBuilder};
use arrow::datatypes::{DataType, FieldRef, TimeUnit, i256};
use chrono::{DateTime, NaiveTime};

use crate::error::Result;
use crate::format::json::nested::build;
use crate::format::json::pointer::find;
use crate::format::spans::{BadRows, Dialect, Kind, Span, Target, Tokens};
use crate::format::timestamp::TimeFormat;
use crate::format::values::read_i64;
use crate::time::per_second;

/// How values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As JSON says them.
    AsIs,
    /// Days since 1970.
    Days,
    /// An instant: units since 1970.
    Epoch(TimeUnit),
    /// A time of day: units since midnight.
    Clock(TimeUnit),
    /// A decimal with so many digits behind the point: the number without the point, in base64.
    Decimal(i32),
    /// The same with its own number of digits: `{"scale": 2, "value": "…"}`.
    Scaled,
    /// Bytes.
    Base64,
}

impl Encoding {
    /// What a column of `data_type` holds where no schema says it.
    pub(super) fn usual(data_type: &DataType, time: &TimeFormat) -> Self {
        match (data_type, time) {
            (DataType::Date32 | DataType::Date64, _) => Encoding::Days,
            (DataType::Timestamp(_, _), TimeFormat::Epoch(unit)) => Encoding::Epoch(*unit),
            (DataType::Timestamp(TimeUnit::Second, _), _) => Encoding::Epoch(TimeUnit::Millisecond),
            (DataType::Timestamp(unit, _), _) => Encoding::Epoch(*unit),
            (DataType::Time32(_) | DataType::Time64(_), _) => Encoding::Clock(TimeUnit::Microsecond),
            (DataType::Binary | DataType::LargeBinary | DataType::BinaryView, _) => Encoding::Base64,
            _ => Encoding::AsIs,
        }
    }

    /// What Kafka Connect's logical type `name` means, or its plain type `of`.
    pub(super) fn named(name: &str, of: &str, scale: Option<i32>) -> Option<Self> {
        use TimeUnit::{Microsecond, Millisecond, Nanosecond};
        Some(match name {
            "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" => Encoding::Days,
            "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp" => Encoding::Epoch(Millisecond),
            "io.debezium.time.MicroTimestamp" => Encoding::Epoch(Microsecond),
            "io.debezium.time.NanoTimestamp" => Encoding::Epoch(Nanosecond),
            "io.debezium.time.Time" | "org.apache.kafka.connect.data.Time" => Encoding::Clock(Millisecond),
            "io.debezium.time.MicroTime" => Encoding::Clock(Microsecond),
            "io.debezium.time.NanoTime" => Encoding::Clock(Nanosecond),
            "org.apache.kafka.connect.data.Decimal" => Encoding::Decimal(scale?),
            "io.debezium.data.VariableScaleDecimal" => Encoding::Scaled,
            _ if of == "bytes" => Encoding::Base64,
            _ => Encoding::AsIs,
        })
    }

    /// What of it matters for a column of type `target`: a number stays one where a number is wanted.
    pub(super) fn on(self, target: &DataType) -> Self {
        let bytes = matches!(target, DataType::Binary | DataType::LargeBinary | DataType::BinaryView);
        match self {
            Encoding::Days | Encoding::Epoch(_) | Encoding::Clock(_) if target.is_numeric() => Encoding::AsIs,
            Encoding::Base64 if !bytes => Encoding::AsIs,
            other => other,
        }
    }
}

/// Builds column `column` of `tokens`, whose values are written as `encoding` says of each row.
pub(super) fn rewritten(
    field: &FieldRef,
    dialect: &Dialect,
    tokens: Tokens<'_>,
    column: usize,
    encoding: impl Fn(usize) -> Encoding,
    bad: &mut BadRows,
) -> Result<ArrayRef> {
    let target = Target { data_type: field.data_type(), name: field.name(), owners: None };
    let (mut block, mut spans, mut bytes) = (vec![], Vec::with_capacity(tokens.rows), BinaryViewBuilder::new());
    let binary = *field.data_type() == DataType::BinaryView;
    for (row, span) in tokens.column(column).enumerate() {
        let (start, raw) = (block.len(), tokens.bytes(span));
        let kind = match span.kind {
            Kind::Null => Some(Kind::Null),
            kind if binary => base64(raw).filter(|_| kind == Kind::Text).map(|value| {
                block.extend(value);
                Kind::Text
            }),
            kind => rewrite(encoding(row).on(field.data_type()), raw, kind, &mut block),
        };
        if kind.is_none() {
            block.truncate(start);
            target.reject_value(row, raw, span.kind, bad);
        }
        let kind = kind.unwrap_or(Kind::Null);
        if binary {
            bytes.append_option((kind != Kind::Null).then(|| &block[start..]));
        }
        spans.push(Span { start: start as u32, end: block.len() as u32, kind });
    }
    if binary {
        return Ok(Arc::new(bytes.finish()));
    }
    let text = std::str::from_utf8(&block).ok();
    build(field, dialect, Tokens { block: &block, text, spans: &spans, width: 1, rows: tokens.rows }, 0, bad)
}

/// Writes the value `raw` as JSON says it; gives as what. None where it is not of that form.
fn rewrite(encoding: Encoding, raw: &[u8], kind: Kind, out: &mut Vec<u8>) -> Option<Kind> {
    let text = match (encoding, kind) {
        (Encoding::Days, Kind::Bare) => {
            let seconds = read_i64(raw)?.checked_mul(86_400)?;
            DateTime::from_timestamp(seconds, 0)?.date_naive().to_string()
        }
        (Encoding::Epoch(unit), Kind::Bare) => {
            let (seconds, nanos) = parted(read_i64(raw)?, unit);
            DateTime::from_timestamp(seconds, nanos)?.naive_utc().format("%Y-%m-%dT%H:%M:%S%.f").to_string()
        }
        (Encoding::Clock(unit), Kind::Bare) => {
            let (seconds, nanos) = parted(read_i64(raw)?, unit);
            let time = NaiveTime::from_num_seconds_from_midnight_opt(seconds.try_into().ok()?, nanos)?;
            time.format("%H:%M:%S%.f").to_string()
        }
        (Encoding::Decimal(scale), Kind::Text) => {
            out.extend_from_slice(decimal(raw, scale)?.as_bytes());
            return Some(Kind::Bare);
        }
        (Encoding::Scaled, Kind::Nested) => {
            let scale = std::str::from_utf8(find(raw, "/scale").ok()??).ok()?.parse().ok()?;
            let value = find(raw, "/value").ok()??;
            let value = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
            out.extend_from_slice(decimal(value, scale)?.as_bytes());
            return Some(Kind::Bare);
        }
        _ => {
            out.extend_from_slice(raw);
            return Some(kind);
        }
    };
    out.extend_from_slice(text.as_bytes());
    Some(Kind::Text)
}

/// Whole seconds, rounded down, and the rest.
fn parted(n: i64, unit: TimeUnit) -> (i64, u32) {
    let scale = per_second(unit);
    (n.div_euclid(scale), (n.rem_euclid(scale) * (1_000_000_000 / scale)) as u32)
}

/// The digits of a decimal: `text` is its number without the point, as bytes of which the first is the highest.
fn decimal(text: &[u8], scale: i32) -> Option<String> {
    let bytes = base64(text)?;
    let negative = bytes.first()? & 0x80 != 0;
    let mut all = [if negative { 0xFF } else { 0 }; 32];
    let start = all.len().checked_sub(bytes.len())?;
    all[start..].copy_from_slice(&bytes);
    let number = i256::from_be_bytes(all).to_string();
    let digits = number.trim_start_matches('-');
    let sign = if negative { "-" } else { "" };
    let Ok(behind) = usize::try_from(scale) else {
        return Some(format!("{sign}{digits}e{}", scale.unsigned_abs()));
    };
    // Nothing has more digits than that.
    if behind == 0 || behind > 1000 {
        return (behind == 0).then_some(number);
    }
    let digits = format!("{digits:0>width$}", width = behind + 1);
    let (whole, rest) = digits.split_at(digits.len() - behind);
    Some(format!("{sign}{whole}.{rest}"))
}

/// The bytes that `text` stands for (RFC 4648), padded or not.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let padding = text.iter().rev().take_while(|b| **b == b'=').count();
    let text = text.get(..text.len() - padding).filter(|_| padding < 3)?;
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for chunk in text.chunks(4) {
        let mut bits = 0u32;
        for i in 0..4 {
            bits = bits << 6 | chunk.get(i).map_or(Some(0), |b| sextet(*b))?;
        }
        // One character alone is no byte.
        let whole = chunk.len().checked_sub(1).filter(|whole| *whole > 0)?;
        bytes.extend((0..whole).map(|i| (bits >> (16 - 8 * i)) as u8));
    }
    Some(bytes)
}

fn sextet(character: u8) -> Option<u32> {
    Some(match character {
        b'A'..=b'Z' => u32::from(character - b'A'),
        b'a'..=b'z' => u32::from(character - b'a') + 26,
        b'0'..=b'9' => u32::from(character - b'0') + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_numbers_without_their_point() {
        let pairs = [
            ("D3J5", 5, "10.12345"),
            ("D3J5", 0, "1012345"),
            ("AA==", 2, "0.00"),
            ("/w==", 2, "-0.01"),
            ("gA==", 1, "-12.8"),
            ("AIA=", 1, "12.8"),
            ("BQ==", -3, "5e3"),
            ("/////////////////////w==", 0, "-1"),
        ];
        for (text, scale, expected) in pairs {
            assert_eq!(decimal(text.as_bytes(), scale).as_deref(), Some(expected), "{text}");
        }
        for (text, scale) in [("", 2), ("A", 2), ("A!==", 2), ("12.5", 2), ("AA==", i32::MAX)] {
            assert_eq!(decimal(text.as_bytes(), scale), None, "{text}");
        }
    }

    #[test]
    fn numbers_of_time_become_texts() {
        let text = |encoding, raw: &str| {
            let mut out = vec![];
            rewrite(encoding, raw.as_bytes(), Kind::Bare, &mut out).map(|_| String::from_utf8(out).expect("text"))
        };
        let epoch = |raw, unit| text(Encoding::Epoch(unit), raw);
        assert_eq!(text(Encoding::Days, "19782").as_deref(), Some("2024-02-29"));
        assert_eq!(text(Encoding::Days, "-1").as_deref(), Some("1969-12-31"));
        assert_eq!(epoch("1709164800123456", TimeUnit::Microsecond).as_deref(), Some("2024-02-29T00:00:00.123456"));
        assert_eq!(epoch("-1", TimeUnit::Millisecond).as_deref(), Some("1969-12-31T23:59:59.999"));
        assert_eq!(text(Encoding::Clock(TimeUnit::Microsecond), "62944000000").as_deref(), Some("17:29:04"));
        for wrong in ["1.5", "x", "99999999999999"] {
            assert_eq!(text(Encoding::Days, wrong), None, "{wrong}");
        }
        assert_eq!(text(Encoding::Clock(TimeUnit::Millisecond), "86400000"), None);
    }
}
