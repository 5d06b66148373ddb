//! Columns and their types from a sample of a text file.
//!
//! A type is chosen only if values that differ stay different in it, as far as the sample tells: what no number
//! type or timestamp tells apart is text, which takes everything as it is written.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

use crate::changelog::OP;
use crate::format::csv::header_names;
use crate::format::digits::{Digits, is_double, read_unsigned};
use crate::format::form::Form;
use crate::format::options::CsvOptions;
use crate::format::timestamp::TimeFormat;
use crate::format::values::read_i64;

/// How many lines are looked at.
pub(crate) const SAMPLE: usize = 1000;

/// What the values of a column can all be read as.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Guess {
    Nothing,
    Boolean,
    Number(Number),
    Time(Time),
    Text,
    /// Arrays of such items.
    List(Box<Guess>),
    /// Objects with such fields, in the order in which they were met.
    Struct(Vec<(String, Guess)>),
}

/// Which types have all the numbers there are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Number {
    /// All are written without point and exponent.
    plain: bool,
    signed: bool,
    unsigned: bool,
    double: bool,
}

/// What timestamps there are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Time {
    /// Some count nanoseconds.
    fine: bool,
    /// All are so near 1970 that nanoseconds can be counted.
    near: bool,
}

impl Guess {
    pub(super) fn and(self, other: Guess) -> Guess {
        match (self, other) {
            (Guess::Nothing, g) | (g, Guess::Nothing) => g,
            (Guess::Number(a), Guess::Number(b)) => Guess::Number(Number {
                plain: a.plain && b.plain,
                signed: a.signed && b.signed,
                unsigned: a.unsigned && b.unsigned,
                double: a.double && b.double,
            }),
            (Guess::Time(a), Guess::Time(b)) => Guess::Time(Time { fine: a.fine || b.fine, near: a.near && b.near }),
            (Guess::List(a), Guess::List(b)) => Guess::List(Box::new(a.and(*b))),
            (Guess::Struct(mut fields), Guess::Struct(others)) => {
                others.into_iter().for_each(|(name, guess)| add_field(&mut fields, name, guess));
                Guess::Struct(fields)
            }
            (a, b) if a == b => a,
            _ => Guess::Text,
        }
    }

    /// The guess for a number, which `text` is.
    pub(super) fn number(text: &[u8]) -> Guess {
        let plain = Digits::is_plain(text);
        Guess::Number(Number {
            plain,
            signed: plain && read_i64(text).is_some(),
            unsigned: plain && read_unsigned(text).is_some(),
            double: is_double(text),
        })
    }

    /// The guess for a timestamp, if `text` is one.
    pub(super) fn time(text: &[u8], format: &TimeFormat) -> Option<Guess> {
        if matches!(format, TimeFormat::Epoch(_)) {
            return None;
        }
        format.read(text, TimeUnit::Microsecond)?;
        let nanos = format.read(text, TimeUnit::Nanosecond);
        // Readers drop what is behind the nanoseconds.
        let behind = |dot: usize| text[dot + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
        if *format == TimeFormat::Iso && memchr::memchr2(b'.', b',', text).is_some_and(|dot| behind(dot) > 9) {
            return Some(Guess::Text);
        }
        Some(Guess::Time(Time { fine: nanos.is_some_and(|n| n % 1000 != 0), near: nanos.is_some() }))
    }

    pub(super) fn data_type(self) -> DataType {
        match self {
            Guess::Boolean => DataType::Boolean,
            Guess::Number(Number { plain: true, signed: true, .. }) => DataType::Int64,
            Guess::Number(Number { plain: true, unsigned: true, .. }) => DataType::UInt64,
            Guess::Number(Number { plain: false, double: true, .. }) => DataType::Float64,
            Guess::Time(Time { fine: false, .. }) => DataType::Timestamp(TimeUnit::Microsecond, None),
            Guess::Time(Time { near: true, .. }) => DataType::Timestamp(TimeUnit::Nanosecond, None),
            Guess::List(item) => DataType::List(Arc::new(Field::new_list_field(item.data_type(), true))),
            // Nothing can hold objects without fields; text holds them, and what may come.
            Guess::Struct(fields) if !fields.is_empty() => {
                DataType::Struct(fields.into_iter().map(|(name, g)| Field::new(name, g.data_type(), true)).collect())
            }
            Guess::Nothing | Guess::Text | Guess::Number(_) | Guess::Time(_) | Guess::Struct(_) => DataType::Utf8View,
        }
    }
}

/// Adds what is known of field `name`.
pub(super) fn add_field(fields: &mut Vec<(String, Guess)>, name: String, guess: Guess) {
    match fields.iter_mut().find(|(known, _)| *known == name) {
        Some((_, known)) => *known = std::mem::replace(known, Guess::Nothing).and(guess),
        None => fields.push((name, guess)),
    }
}

/// The type that holds all of `texts`, which stand for themselves: dates, else as a column of CSV.
pub(crate) fn type_of_texts<'a>(texts: impl Iterator<Item = &'a str> + Clone) -> DataType {
    let is_date = |text: &str| {
        let digits =
            |range: std::ops::Range<usize>| text.get(range).is_some_and(|d| d.bytes().all(|b| b.is_ascii_digit()));
        let shape = text.len() == 10 && digits(0..4) && digits(5..7) && digits(8..10);
        shape && TimeFormat::Iso.read(text.as_bytes(), TimeUnit::Microsecond).is_some()
    };
    if texts.clone().next().is_some() && texts.clone().all(is_date) {
        return DataType::Date32;
    }
    let guesses = texts.map(|text| guess_text(Some(text.as_bytes()), &TimeFormat::Iso));
    guesses.fold(Guess::Nothing, Guess::and).data_type()
}

/// The columns of a CSV file that begins with `sample`. None if that has no record.
pub fn csv_schema(sample: &[u8], options: &CsvOptions) -> Option<Schema> {
    let mut start = 0;
    let mut names: Option<Vec<String>> = None;
    let mut guesses: Vec<Guess> = vec![];
    for _ in 0..=SAMPLE {
        let Some(end) = record_end(sample, start, options) else { break };
        let record = &sample[start..end];
        start = end + 1;
        let fields = super::csv::values(record, options);
        let Some(known) = &names else {
            let header = header_names(record, options);
            guesses = vec![Guess::Nothing; header.len()];
            if options.header {
                names = Some(header);
                continue;
            }
            names = Some((1..=header.len()).map(|i| format!("column_{i}")).collect());
            fields.iter().zip(&mut guesses).for_each(|(f, g)| *g = guess_text(f.as_deref(), &options.time));
            continue;
        };
        if fields.len() == known.len() {
            fields.iter().zip(&mut guesses).for_each(|(f, g)| {
                *g = std::mem::replace(g, Guess::Nothing).and(guess_text(f.as_deref(), &options.time))
            });
        }
    }
    let op = match (options.form, options.header) {
        (Form::Ops, true) => names.as_ref()?.iter().position(|name| name == OP),
        // Where no header names it, it stands first.
        (Form::Ops, false) => Some(0),
        _ => None,
    };
    let columns = names?.into_iter().zip(guesses).enumerate().filter(|(i, _)| Some(*i) != op).map(|(_, column)| column);
    Some(Schema::new(columns.map(|(n, g)| Field::new(n, g.data_type(), true)).collect::<Vec<_>>()))
}

fn record_end(sample: &[u8], start: usize, options: &CsvOptions) -> Option<usize> {
    if start >= sample.len() {
        return None;
    }
    if options.newlines_in_values {
        return super::csv::record_end(sample, start, options);
    }
    Some(memchr::memchr(b'\n', &sample[start..]).map_or(sample.len(), |i| start + i))
}

fn guess_text(value: Option<&[u8]>, time: &TimeFormat) -> Guess {
    let Some(value) = value else { return Guess::Nothing };
    if let Some(guess) = Guess::time(value, time) {
        return guess;
    }
    if value.eq_ignore_ascii_case(b"true") || value.eq_ignore_ascii_case(b"false") {
        return Guess::Boolean;
    }
    let unsigned = value.strip_prefix(b"-").or_else(|| value.strip_prefix(b"+")).unwrap_or(value);
    match unsigned {
        // Leading zeros are kept by text only (post codes).
        [b'0', b'0'..=b'9', ..] => Guess::Text,
        _ if Digits::read(value).is_some() => Guess::number(value),
        _ => Guess::Text,
    }
}
