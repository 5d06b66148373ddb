//! Columns of JSON lines from a sample.

use arrow::datatypes::{Field, Schema};

use super::envelope;
use super::line::Line;
use crate::changelog::OP;
use crate::format::form::Form;
use crate::format::infer::{Guess, SAMPLE, add_field};
use crate::format::options::JsonOptions;
use crate::format::spans::{Kind, Span};
use crate::format::values::{Escapes, is_json_number};

/// Values that lie deeper are text.
const DEEPEST: usize = 32;

/// The columns of a JSON lines file that begins with `sample`, in the order in which they first appear. None if it has no
/// line with an object.
pub fn json_schema(sample: &[u8], options: &JsonOptions) -> Option<Schema> {
    if options.form == Form::Debezium {
        return envelope::columns(sample, options);
    }
    let mut columns: Vec<(String, Guess)> = vec![];
    let mut objects = 0;
    for line in sample.split(|b| *b == b'\n').take(SAMPLE) {
        let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        // Lines that cannot be read become dead letters; they say nothing of the others.
        let Some(fields) = guess_object(line, options) else { continue };
        objects += 1;
        let op = (options.form == Form::Ops).then_some(OP);
        let fields = fields.into_iter().filter(|(name, _)| Some(name.as_str()) != op);
        fields.for_each(|(name, guess)| add_field(&mut columns, name, guess));
    }
    if objects == 0 {
        return None;
    }
    let field = |(name, guess): (String, Guess)| Field::new(name, guess.data_type(), true);
    Some(Schema::new(columns.into_iter().map(field).collect::<Vec<_>>()))
}

/// The fields of the object that `line` is.
pub(super) fn guess_object(line: &[u8], options: &JsonOptions) -> Option<Vec<(String, Guess)>> {
    std::str::from_utf8(line).ok()?;
    let whole = Line { bytes: line, start: 0 };
    let start = whole.blank(0);
    if whole.at(start) != Some(b'{') {
        return None;
    }
    let whole = Line { bytes: line, start };
    let mut fields = vec![];
    let guess = |value: Span| guess(&whole, value, options, 0);
    guess_fields(&whole, guess, &mut fields)?;
    Some(fields)
}

/// The fields of the object that `line` is.
fn guess_fields(
    line: &Line<'_>,
    guess: impl Fn(Span) -> Option<Guess>,
    fields: &mut Vec<(String, Guess)>,
) -> Option<()> {
    let read = line.entries(|key, value| {
        let mut name = vec![];
        match key.kind {
            Kind::Escaped => Escapes::Json.resolve(line.span(key), &mut name).ok_or_else(String::new)?,
            _ => name.extend_from_slice(line.span(key)),
        }
        let name = String::from_utf8(name).map_err(|_| String::new())?;
        add_field(fields, name, guess(value).ok_or_else(String::new)?);
        Ok(())
    });
    read.ok()
}

/// What the value at `span` is; `None` when it cannot be read. `depth` counts the values around it.
fn guess(line: &Line<'_>, span: Span, options: &JsonOptions, depth: usize) -> Option<Guess> {
    let bytes = line.span(span);
    match span.kind {
        Kind::Null => Some(Guess::Nothing),
        Kind::Text if options.nulls.has(bytes) => Some(Guess::Nothing),
        Kind::Text if depth == 0 => Some(Guess::time(bytes, &options.text_time).unwrap_or(Guess::Text)),
        Kind::Text => Some(Guess::Text),
        Kind::Escaped => Escapes::Json.resolve(bytes, &mut vec![]).map(|()| Guess::Text),
        Kind::Bare if matches!(bytes, b"true" | b"false") => Some(Guess::Boolean),
        Kind::Bare => is_json_number(bytes).then(|| Guess::number(bytes)),
        Kind::Nested if depth == DEEPEST => Some(Guess::Text),
        Kind::Nested => {
            let inner = Line { bytes: line.bytes.get(..span.end as usize)?, start: span.start as usize };
            if bytes.first() == Some(&b'{') {
                let mut fields = vec![];
                guess_fields(&inner, |value| guess(&inner, value, options, depth + 1), &mut fields)?;
                return Some(Guess::Struct(fields));
            }
            let mut items = vec![];
            inner.items(|item| items.push(item)).ok()?;
            let mut all = Guess::Nothing;
            for item in items {
                all = all.and(guess(&inner, item, options, depth + 1)?);
            }
            Some(Guess::List(Box::new(all)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{DataType, TimeUnit};

    fn types(lines: &[&str]) -> Vec<DataType> {
        let schema = json_schema(lines.join("\n").as_bytes(), &JsonOptions::default()).expect("objects");
        schema.fields().iter().map(|f| f.data_type().clone()).collect()
    }

    fn one(values: &[&str]) -> DataType {
        let lines: Vec<String> = values.iter().map(|v| format!("{{\"v\":{v}}}")).collect();
        types(&lines.iter().map(String::as_str).collect::<Vec<_>>()).remove(0)
    }

    fn list(item: DataType) -> DataType {
        DataType::List(Field::new_list_field(item, true).into())
    }

    fn pair(fields: &[(&str, DataType)]) -> DataType {
        DataType::Struct(fields.iter().map(|(n, t)| Field::new(*n, t.clone(), true)).collect())
    }

    #[test]
    fn numbers_that_differ_stay_different() {
        assert_eq!(one(&["1", "-2"]), DataType::Int64);
        assert_eq!(one(&["1", "2.5"]), DataType::Float64);
        assert_eq!(one(&["1e3"]), DataType::Float64);
        assert_eq!(one(&["9223372036854775808", "1"]), DataType::UInt64);
        assert_eq!(one(&["9223372036854775808", "-1"]), DataType::Utf8View);
        assert_eq!(one(&["18446744073709551616"]), DataType::Utf8View);
        assert_eq!(one(&["9007199254740993", "0.5"]), DataType::Utf8View);
        assert_eq!(one(&["9007199254740992", "0.5"]), DataType::Float64);
        assert_eq!(one(&["1e400", "0.5"]), DataType::Utf8View);
        assert_eq!(one(&["[9007199254740993, 0.5]"]), list(DataType::Utf8View));
        let time = |v: &str| one(&[&format!("\"2024-01-01T00:00:00.{v}\""), "\"2024-01-01\""]);
        assert_eq!(time("123456"), DataType::Timestamp(TimeUnit::Microsecond, None));
        assert_eq!(time("1234567"), DataType::Timestamp(TimeUnit::Nanosecond, None));
        assert_eq!(time("1234567891"), DataType::Utf8View);
        assert_eq!(one(&["\"2024-01-01T00:00:00.0000001\"", "\"9999-01-01\""]), DataType::Utf8View);
    }

    #[test]
    fn text_holds_what_is_mixed() {
        assert_eq!(one(&["{\"s\":200}", "{\"s\":\"404\"}"]), pair(&[("s", DataType::Utf8View)]));
        assert_eq!(one(&["[200]", "[\"x\"]", "[true, null]"]), list(DataType::Utf8View));
        assert_eq!(one(&["{\"a\":1}", "[1]"]), DataType::Utf8View);
        assert_eq!(one(&["1", "[1]"]), DataType::Utf8View);
        assert_eq!(one(&["{}"]), DataType::Utf8View);
        assert_eq!(one(&["[]", "null"]), list(DataType::Utf8View));
        let nested = pair(&[("b", list(pair(&[("c", DataType::Int64), ("d", DataType::Boolean)])))]);
        assert_eq!(one(&["{\"b\":[{\"c\":1}, null]}", "{\"b\":[{\"d\":true}]}"]), nested);
        assert_eq!(types(&["nonsense", "{\"a\":1", "{\"a\":1}"]), vec![DataType::Int64]);
    }
}
