//! CSV as RFC 4180 has it, with LF. NULL is empty and the empty text is `""`, so that a reader can tell them apart.
//!
//! The one exception: NULL in a result of one column is `""`, since many readers skip an empty line.

use std::fmt::Write as _;
use std::io::Write;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use millstream_sql::{ErrorKind, Result};

use super::{cannot_write, value};
use crate::report;

/// Writes the header once, then rows.
pub(crate) struct CsvWriter {
    schema: SchemaRef,
    has_header: bool,
    line: String,
    cell: String,
}

impl CsvWriter {
    /// A writer for rows of `schema`.
    pub(crate) fn new(schema: SchemaRef) -> Self {
        CsvWriter { schema, has_header: false, line: String::new(), cell: String::new() }
    }

    /// Writes rows.
    pub(crate) fn write(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<()> {
        self.header(out)?;
        let formatters = value::formatters(batch)?;
        // a column may have nulls that it does not store: those of the type NULL, those of a dictionary
        let nulls: Vec<_> = batch.columns().iter().map(|column| column.logical_nulls()).collect();
        let alone = batch.num_columns() == 1;
        for row in 0..batch.num_rows() {
            self.line.clear();
            for (i, (formatter, nulls)) in formatters.iter().zip(&nulls).enumerate() {
                if i > 0 {
                    self.line.push(',');
                }
                if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                    self.line.push_str(if alone { "\"\"" } else { "" });
                    continue;
                }
                self.cell.clear();
                write!(self.cell, "{}", formatter.value(row))
                    .map_err(|_| report::fail(ErrorKind::Data, format!("cannot print a value of column {}", i + 1)))?;
                push_field(&mut self.line, &self.cell);
            }
            self.line.push('\n');
            out.write_all(self.line.as_bytes()).map_err(cannot_write)?;
        }
        Ok(())
    }

    /// Writes the header if no rows came.
    pub(crate) fn finish(&mut self, out: &mut dyn Write) -> Result<()> {
        self.header(out)
    }

    fn header(&mut self, out: &mut dyn Write) -> Result<()> {
        if std::mem::replace(&mut self.has_header, true) {
            return Ok(());
        }
        let mut line = String::new();
        for (i, field) in self.schema.fields().iter().enumerate() {
            if i > 0 {
                line.push(',');
            }
            push_field(&mut line, field.name());
        }
        line.push('\n');
        out.write_all(line.as_bytes()).map_err(cannot_write)
    }
}

fn push_field(line: &mut String, text: &str) {
    if !text.is_empty() && !text.contains([',', '"', '\n', '\r']) {
        line.push_str(text);
        return;
    }
    line.push('"');
    for c in text.chars() {
        if c == '"' {
            line.push('"');
        }
        line.push(c);
    }
    line.push('"');
}
