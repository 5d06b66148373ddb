//! Results in the formats people and programs read: a table, CSV, or JSON with one object per line.
//!
//! Rows are written as they come. Only a table looks ahead, by a bounded number of rows, to choose its widths.

mod changes;
mod csv;
mod table;
mod value;

use std::io::{self, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::json::writer::{JsonFormat, LineDelimited, Writer, WriterBuilder};
use clap::ValueEnum;
use millstream_sql::Result;

use crate::report;
use crate::terminal::Screen;

pub(crate) use changes::ChangeTable;
pub(crate) use table::{Expanded, Table, render};

/// How results look.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// Aligned columns
    #[default]
    Table,
    /// Comma-separated values with a header line; NULL is empty
    Csv,
    /// One JSON object per line
    Json,
}

impl Format {
    /// The format that a file's extension asks for.
    pub(crate) fn of_file(file: &str) -> Format {
        let lower = file.to_lowercase();
        if lower.ends_with(".csv") {
            Format::Csv
        } else if [".json", ".jsonl", ".ndjson"].iter().any(|ending| lower.ends_with(ending)) {
            Format::Json
        } else {
            Format::Table
        }
    }
}

/// How a table is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    /// Where.
    pub(crate) screen: Screen,
    /// One line per column instead of one line per row.
    pub(crate) expanded: Expanded,
    /// How many rows; all if absent.
    pub(crate) limit: Option<usize>,
}

impl View {
    /// All rows, no limits.
    #[cfg(test)]
    pub(crate) const PLAIN: View = View { screen: Screen::PLAIN, expanded: Expanded::Off, limit: None };
}

/// Writes the rows of one result.
pub(crate) enum RowWriter {
    /// As a table.
    Table(table::TableWriter),
    /// As CSV.
    Csv(csv::CsvWriter),
    /// As JSON.
    Json,
}

impl RowWriter {
    /// A writer for rows of `schema`.
    pub(crate) fn new(format: Format, schema: SchemaRef, view: View) -> Self {
        match format {
            Format::Table => RowWriter::Table(table::TableWriter::new(schema, view)),
            Format::Csv => RowWriter::Csv(csv::CsvWriter::new(schema)),
            Format::Json => RowWriter::Json,
        }
    }

    /// Writes rows; a table may keep some back.
    pub(crate) fn write(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<()> {
        match self {
            RowWriter::Table(writer) => writer.write(batch, out),
            RowWriter::Csv(writer) => writer.write(batch, out),
            RowWriter::Json => write_json(batch, out),
        }
    }

    /// Writes what was kept back, and the header of a result without rows. Gives the number of rows shown.
    pub(crate) fn finish(&mut self, out: &mut dyn Write) -> Result<Option<u64>> {
        let shown = match self {
            RowWriter::Table(writer) => Some(writer.finish(out)?),
            RowWriter::Csv(writer) => {
                writer.finish(out)?;
                None
            }
            RowWriter::Json => None,
        };
        out.flush().map_err(cannot_write)?;
        Ok(shown)
    }
}

/// An output that does not take what we write.
pub(crate) fn cannot_write(e: io::Error) -> millstream_sql::Error {
    report::io_error("cannot write the output", e)
}

fn write_json(batch: &RecordBatch, out: &mut dyn Write) -> Result<()> {
    fn go<W: Write, F: JsonFormat>(mut writer: Writer<W, F>, batch: &RecordBatch) -> arrow::error::Result<()> {
        writer.write(batch)?;
        writer.finish()
    }
    let writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(out);
    go(writer, batch).map_err(|e| match e {
        arrow::error::ArrowError::IoError(_, e) => cannot_write(e),
        e => report::fail(millstream_sql::ErrorKind::Unsupported, format!("cannot write the rows as JSON: {e}"))
            .with_hint("Cast the column to TEXT."),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, StringViewArray, TimestampMicrosecondArray,
    };
    use arrow::datatypes::Int32Type;

    use super::*;

    /// Three rows with a number, a text with everything nasty, a time, a float, a flag and a list.
    pub(crate) fn sample() -> RecordBatch {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("id", Arc::new(Int64Array::from(vec![Some(1), None, Some(-300)]))),
            ("name", Arc::new(StringViewArray::from(vec![Some("a,\"b\"\n日本"), Some(""), None]))),
            (
                "at",
                Arc::new(TimestampMicrosecondArray::from(vec![
                    Some(978_307_500_000_000),
                    Some(978_307_500_500_000),
                    None,
                ])),
            ),
            ("mean", Arc::new(Float64Array::from(vec![Some(0.1), Some(1.0), None]))),
            ("ok", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))),
            (
                "list",
                Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
                    Some(vec![Some(1), None]),
                    Some(vec![]),
                    None,
                ])),
            ),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
    }

    pub(crate) fn written(format: Format, view: View, batches: &[RecordBatch]) -> String {
        let mut out = Vec::new();
        let mut writer = RowWriter::new(format, batches[0].schema(), view);
        for batch in batches {
            writer.write(batch, &mut out).unwrap();
        }
        writer.finish(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn csv() {
        assert_eq!(
            written(Format::Csv, View::PLAIN, &[sample(), sample().slice(0, 0), sample().slice(2, 1)]),
            "id,name,at,mean,ok,list\n\
             1,\"a,\"\"b\"\"\n日本\",2001-01-01 00:05:00,0.1,true,\"[1, ]\"\n\
             ,\"\",2001-01-01 00:05:00.500,1.0,false,[]\n\
             -300,,,,,\n\
             -300,,,,,\n"
        );
    }

    #[test]
    fn csv_without_rows_has_its_header() {
        assert_eq!(written(Format::Csv, View::PLAIN, &[sample().slice(0, 0)]), "id,name,at,mean,ok,list\n");
        let mut out = Vec::new();
        let mut writer = RowWriter::new(Format::Csv, sample().schema(), View::PLAIN);
        writer.finish(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "id,name,at,mean,ok,list\n");
    }

    #[test]
    fn nulls_without_a_type_are_nulls() {
        let columns: Vec<(&str, ArrayRef)> =
            vec![("a", Arc::new(Int64Array::from(vec![1]))), ("b", Arc::new(arrow::array::NullArray::new(1)))];
        let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
        assert_eq!(written(Format::Csv, View::PLAIN, std::slice::from_ref(&batch)), "a,b\n1,\n");
        assert!(written(Format::Table, View::PLAIN, &[batch]).ends_with(" 1 │ NULL\n"));
    }

    #[test]
    fn json() {
        assert_eq!(
            written(Format::Json, View::PLAIN, &[sample()]),
            "{\"id\":1,\"name\":\"a,\\\"b\\\"\\n日本\",\"at\":\"2001-01-01T00:05:00\",\"mean\":0.1,\"ok\":true,\"list\":[1,null]}\n\
             {\"id\":null,\"name\":\"\",\"at\":\"2001-01-01T00:05:00.500\",\"mean\":1.0,\"ok\":false,\"list\":[]}\n\
             {\"id\":-300,\"name\":null,\"at\":null,\"mean\":null,\"ok\":null,\"list\":null}\n"
        );
    }

    #[test]
    fn the_extension_decides_the_format() {
        assert_eq!(Format::of_file("a.CSV"), Format::Csv);
        assert_eq!(Format::of_file("a.ndjson"), Format::Json);
        assert_eq!(Format::of_file("a.txt"), Format::Table);
    }
}
