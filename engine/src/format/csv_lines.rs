//! Rows as lines of CSV that read back as they were: NULL is empty and the empty text is in quotes.
//!
//! A row of one NULL is an empty line, as PostgreSQL and DuckDB write and read it. Structs, lists and maps are JSON.

use std::fmt::Write as _;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::error::{Error, Result};
use crate::format::convert::as_json;
use crate::format::options::CsvOptions;

/// How values print.
const PRINTED: FormatOptions<'static> = FormatOptions::new();

/// What gives the text of a column's values.
enum Texts<'a> {
    Views(&'a arrow::array::StringViewArray),
    Plain(&'a arrow::array::StringArray),
    Printed(ArrayFormatter<'a>),
}

/// Appends `rows` to `out`.
pub(super) fn append_rows(options: &CsvOptions, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
    let nested = |c: &ArrayRef| if c.data_type().is_nested() { as_json(c) } else { Ok(c.clone()) };
    let columns = rows.columns().iter().map(nested).collect::<Result<Vec<_>>>()?;
    let nulls: Vec<_> = columns.iter().map(|c| c.logical_nulls()).collect();
    let texts = columns.iter().map(texts).collect::<Result<Vec<_>>>()?;
    let mut printed = String::new();
    for row in 0..rows.num_rows() {
        for (i, (texts, nulls)) in texts.iter().zip(&nulls).enumerate() {
            if i > 0 {
                out.push(options.delimiter);
            }
            if nulls.as_ref().is_some_and(|n| n.is_null(row)) {
                continue;
            }
            match texts {
                Texts::Views(array) => append_field(options, array.value(row), out),
                Texts::Plain(array) => append_field(options, array.value(row), out),
                Texts::Printed(formatter) => {
                    printed.clear();
                    write!(printed, "{}", formatter.value(row))
                        .map_err(|_| Error::data(format!("a value of column {} cannot be printed", i + 1)))?;
                    append_field(options, &printed, out);
                }
            }
        }
        out.push(b'\n');
    }
    Ok(())
}

fn texts(column: &ArrayRef) -> Result<Texts<'_>> {
    Ok(match column.data_type() {
        DataType::Utf8View => Texts::Views(column.as_string_view()),
        DataType::Utf8 => Texts::Plain(column.as_string()),
        _ => Texts::Printed(ArrayFormatter::try_new(column.as_ref(), &PRINTED)?),
    })
}

/// Appends the names of the columns.
pub(super) fn append_header(options: &CsvOptions, schema: &Schema, out: &mut Vec<u8>) {
    for (i, field) in schema.fields().iter().enumerate() {
        if i > 0 {
            out.push(options.delimiter);
        }
        append_field(options, field.name(), out);
    }
    out.push(b'\n');
}

/// Whether a reader would take `text` for something else if it stood without quotes.
fn needs_quotes(options: &CsvOptions, text: &[u8]) -> bool {
    let special = |b: &u8| [options.delimiter, options.quote, b'\n', b'\r'].contains(b);
    let blank = |b: Option<&u8>| b.is_none_or(u8::is_ascii_whitespace);
    blank(text.first()) || blank(text.last()) || text.iter().any(special) || options.null_values.has(text)
}

fn append_field(options: &CsvOptions, text: &str, out: &mut Vec<u8>) {
    let text = text.as_bytes();
    if !needs_quotes(options, text) {
        return out.extend_from_slice(text);
    }
    let escape = options.escape.unwrap_or(options.quote);
    out.push(options.quote);
    for byte in text {
        if *byte == options.quote || *byte == escape {
            out.push(escape);
        }
        out.push(*byte);
    }
    out.push(options.quote);
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Arc;

    use crate::format::{Place, csv};
    use crate::options::Options;

    fn rows() -> RecordBatch {
        let texts = vec![Some("plain"), None, Some(""), Some(" a,b "), Some("say \"so\""), Some("NA"), Some("x\\y")];
        let numbers: ArrayRef = Arc::new(arrow::array::Int64Array::from_iter((0..7).map(|i| (i != 3).then_some(i))));
        let lists = (0..7).map(|i| (i != 2).then(|| (0..i).map(Some)));
        let lists: ArrayRef =
            Arc::new(arrow::array::ListArray::from_iter_primitive::<arrow::datatypes::Int64Type, _, _>(lists));
        let texts: ArrayRef = Arc::new(arrow::array::StringViewArray::from(texts));
        let all = [("t", texts, true), ("n", numbers, true), ("l", lists, true)];
        RecordBatch::try_from_iter_with_nullable(all).expect("equal lengths")
    }

    fn options(of: &[(&str, &str)]) -> CsvOptions {
        let values = of.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        CsvOptions::take(&mut Options::new("stream \"s\"", values)).expect("options")
    }

    #[test]
    fn rows_read_back_as_they_were() {
        for options in [
            options(&[]),
            options(&[("delimiter", ";"), ("quote", "'"), ("null_values", "NA, plain")]),
            options(&[("escape", "\\"), ("header", "false")]),
        ] {
            for width in 1..=3 {
                let rows = rows().project(&(0..width).collect::<Vec<_>>()).expect("columns");
                let mut text = vec![];
                if options.header {
                    append_header(&options, &rows.schema(), &mut text);
                }
                append_rows(&options, &rows, &mut text).expect("writes");
                let projection: Vec<usize> = (0..width).collect();
                let mut decoder =
                    csv::decoder(&rows.schema(), &projection, &options, "s".into(), None).expect("decoder");
                let decoded = decoder.decode(&text, Place { position: 0, line: Some(1) }).expect("decodes");
                let shown = String::from_utf8_lossy(&text).into_owned();
                assert_eq!((decoded.dead.len(), &decoded.rows), (0, &rows), "{shown}");
            }
        }
    }

    #[test]
    fn as_documented() {
        let mut text = vec![];
        append_rows(&options(&[]), &rows(), &mut text).expect("writes");
        let expected = "plain,0,[]\n,1,[0]\n\"\",2,\n\" a,b \",,\"[0,1,2]\"\n\"say \"\"so\"\"\",4,\"[0,1,2,3]\"\n\
                        NA,5,\"[0,1,2,3,4]\"\nx\\y,6,\"[0,1,2,3,4,5]\"\n";
        assert_eq!(String::from_utf8(text).expect("text"), expected);
    }
}
