//! Columns and their types from a sample of a text file.

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::format::columnar::native_schema;
use crate::format::csv::header_names;
use crate::format::options::{CsvOptions, JsonOptions};
use crate::format::timestamp::TimeFormat;
use crate::format::values::{read_f64, read_i64};

/// How many lines are looked at.
const SAMPLE: usize = 1000;

/// What the values of a column can all be read as; the order is from the narrow to the wide.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guess {
    Nothing,
    Boolean,
    Whole,
    Float,
    Time,
    Text,
}

impl Guess {
    fn and(self, other: Guess) -> Guess {
        match (self, other) {
            (Guess::Nothing, g) | (g, Guess::Nothing) => g,
            (a, b) if a == b => a,
            (Guess::Whole | Guess::Float, Guess::Whole | Guess::Float) => Guess::Float,
            _ => Guess::Text,
        }
    }

    fn data_type(self) -> DataType {
        match self {
            Guess::Boolean => DataType::Boolean,
            Guess::Whole => DataType::Int64,
            Guess::Float => DataType::Float64,
            Guess::Time => DataType::Timestamp(TimeUnit::Microsecond, None),
            Guess::Nothing | Guess::Text => DataType::Utf8View,
        }
    }
}

/// The columns of a CSV file that begins with `sample` (`name` goes into errors).
pub fn csv_schema(sample: &[u8], options: &CsvOptions, name: &str) -> Result<Schema> {
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
            fields.iter().zip(&mut guesses).for_each(|(f, g)| *g = g.and(guess_text(f.as_deref(), &options.time)));
        }
    }
    let names = names.ok_or_else(|| empty(name))?;
    Ok(Schema::new(names.into_iter().zip(guesses).map(|(n, g)| Field::new(n, g.data_type(), true)).collect::<Vec<_>>()))
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
    if !matches!(time, TimeFormat::Epoch(_)) && time.read(value, TimeUnit::Microsecond).is_some() {
        return Guess::Time;
    }
    if value.eq_ignore_ascii_case(b"true") || value.eq_ignore_ascii_case(b"false") {
        return Guess::Boolean;
    }
    // Leading zeros are kept by text only (post codes).
    let zeros = matches!(value, [b'0', b'0'..=b'9', ..]);
    match (read_i64(value), read_f64(value)) {
        _ if zeros => Guess::Text,
        (Some(_), _) => Guess::Whole,
        (None, Some(_)) if value.iter().any(u8::is_ascii_digit) => Guess::Float,
        _ => Guess::Text,
    }
}

/// The columns of a JSON lines file that begins with `sample`, in the order in which they first appear.
pub fn json_schema(sample: &[u8], options: &JsonOptions, name: &str) -> Result<Schema> {
    let mut columns: Vec<(String, Guess)> = vec![];
    let mut nested = false;
    let mut objects = 0;
    for line in sample.split(|b| *b == b'\n').take(SAMPLE) {
        let Ok(Value::Object(object)) = serde_json::from_slice::<Value>(line) else { continue };
        objects += 1;
        for (key, value) in object {
            nested |= matches!(value, Value::Object(_) | Value::Array(_));
            let guess = guess_json(&value, options);
            match columns.iter_mut().find(|(k, _)| *k == key) {
                Some((_, known)) => *known = known.and(guess),
                None => columns.push((key, guess)),
            }
        }
    }
    if objects == 0 {
        return Err(empty(name).with_hint("JSON files hold one object a line; declare the columns if it is empty now."));
    }
    order_as_written(&mut columns, sample);
    // Where objects and scalars are mixed, text can hold them all.
    let inner = if nested { nested_types(sample).ok() } else { None };
    let field = |(name, guess): (String, Guess)| {
        let found = inner.as_ref().and_then(|s| s.field_with_name(&name).ok()).map(|f| f.data_type().clone());
        let data_type = found.filter(DataType::is_nested).unwrap_or_else(|| guess.data_type());
        Field::new(name, data_type, true)
    };
    Ok(Schema::new(columns.into_iter().map(field).collect::<Vec<_>>()))
}

/// Objects come from the parser with their keys sorted; columns should stand as in the file.
fn order_as_written(columns: &mut [(String, Guess)], sample: &[u8]) {
    let place = |key: &str| {
        let quoted = serde_json::to_string(key).unwrap_or_default();
        memchr::memmem::find(sample, quoted.as_bytes()).unwrap_or(usize::MAX)
    };
    columns.sort_by_cached_key(|(key, _)| place(key));
}

fn nested_types(sample: &[u8]) -> Result<Schema> {
    let good = sample.split(|b| *b == b'\n').take(SAMPLE).filter_map(|l| serde_json::from_slice::<Value>(l).ok());
    let schema = arrow::json::reader::infer_json_schema_from_iterator(good.map(Ok::<_, arrow::error::ArrowError>))?;
    Ok(native_schema(&schema))
}

fn guess_json(value: &Value, options: &JsonOptions) -> Guess {
    match value {
        Value::Null => Guess::Nothing,
        Value::Bool(_) => Guess::Boolean,
        Value::Number(n) if n.is_i64() => Guess::Whole,
        Value::Number(_) => Guess::Float,
        Value::String(s) if !matches!(options.text_time, TimeFormat::Epoch(_)) => {
            match options.text_time.read(s.as_bytes(), TimeUnit::Microsecond) {
                Some(_) => Guess::Time,
                None => Guess::Text,
            }
        }
        Value::String(_) | Value::Array(_) | Value::Object(_) => Guess::Text,
    }
}

fn empty(name: &str) -> Error {
    Error::invalid(format!("the columns of file \"{name}\" cannot be found out: it has no rows"))
        .with_hint("Declare them: CREATE STREAM s (a BIGINT, …) WITH (…).")
}
