//! Results in the formats people and programs read: a table, CSV, or JSON with one object per line.
//!
//! Rows are written as they come. Only a table looks ahead, by a bounded number of rows, to choose its widths.

mod changes;
mod csv;
mod table;
mod value;

use std::io::{self, Write};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::json::writer::{JsonFormat, LineDelimited, Writer, WriterBuilder};
use clap::ValueEnum;
use millstream_sql::Result;
use millstream_sql::plan::told_apart;

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

/// Rows as objects. Keys are told apart where columns are not: `a`, `a_1`.
fn write_json(batch: &RecordBatch, out: &mut dyn Write) -> Result<()> {
    let batch = &with_own_names(batch)?;
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

fn with_own_names(batch: &RecordBatch) -> Result<RecordBatch> {
    let fields = batch.schema_ref().fields();
    let names: Vec<String> = fields.iter().map(|f| f.name().clone()).collect();
    let own = told_apart(&names);
    if own == names {
        return Ok(batch.clone());
    }
    let own = fields.iter().zip(own).map(|(field, name)| field.as_ref().clone().with_name(name));
    let schema = Arc::new(Schema::new(own.collect::<Vec<_>>()));
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema, batch.columns().to_vec(), &options)?)
}

#[cfg(test)]
pub(crate) mod tests;
