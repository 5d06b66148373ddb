//! Records: what arrives piece by piece, as messages of a broker, datagrams or bodies of requests do.
//!
//! A source hands over a batch of [`Records`]: their contents in one buffer, the position of each, and columns of what
//! it knows of them besides (key, headers, time). A [`RecordDecoder`] gives the rows of the columns that are read, with
//! the columns of metadata among them, and a dead letter for each record that cannot be read. What is made of lines, as
//! a file or a connection is, goes through a [`LineDecoder`](super::LineDecoder) in blocks; both take text apart by the
//! same code.
//!
//! ```text
//! values ["{"a":1}", "{"a":", null]  positions [7, 8, 9]  key ["x", "y", "z"]
//!   -> a, key: (1, "x"); dead: 8 (no value for a), 9 (no value at all)
//! ```
//!
//! Of JSON a record is an object, or an array of objects, each of which is a row; of CSV it is one row, without a header;
//! of Arrow it is a whole stream or file of the IPC format.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::take;
use arrow::datatypes::SchemaRef;

use crate::changes::Changes;
use crate::error::{Error, Result};
use crate::format::DeadLetter;
use crate::format::arrow_records::ArrowContent;
use crate::format::content::{Content, Taken};
use crate::format::form::{CHANGES, DEBEZIUM_JSON, Form};
use crate::format::metadata::Layout;
use crate::format::options::{CsvOptions, JsonOptions, ON_ERROR, RECORD_TEXT};
use crate::format::{csv, json};
use crate::options::{OptionSpec, Options, Takes};

pub use crate::format::content::Records;

const FORMAT: OptionSpec =
    OptionSpec::new("format", Takes::OneOf(&["json", "csv", "arrow", DEBEZIUM_JSON]), "csv", "what a record holds")
        .or("json");

/// What records hold.
#[derive(Clone, Debug, PartialEq)]
pub enum RecordFormat {
    /// A JSON object, or an array of them.
    Json(JsonOptions),
    /// A row of CSV.
    Csv(CsvOptions),
    /// Apache Arrow's IPC format, whole.
    Arrow,
}

/// How a connector of records reads them.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordOptions {
    /// What they hold.
    pub format: RecordFormat,
    /// Whether one that cannot be read ends the job.
    pub fail: bool,
}

impl RecordOptions {
    /// The options that [`RecordOptions::take`] reads.
    pub fn specs() -> Vec<OptionSpec> {
        [&[FORMAT, CHANGES, ON_ERROR], RECORD_TEXT].concat()
    }

    /// Takes them out of `options`.
    pub fn take(options: &mut Options) -> Result<Self> {
        let fail = options.choice(&ON_ERROR)? == Some("fail");
        let format = options.choice(&FORMAT)?.unwrap_or("json");
        let form = Form::take(options, format)?;
        let format = match format {
            "csv" => RecordFormat::Csv(CsvOptions { form, ..CsvOptions::take_for_records(options)? }),
            "arrow" => RecordFormat::Arrow,
            _ => RecordFormat::Json(JsonOptions { form, ..JsonOptions::take(options)? }),
        };
        Ok(RecordOptions { format, fail })
    }

    /// What records say under `options`.
    pub fn form(options: &Options) -> Form {
        Form::of(options, &FORMAT, "json")
    }
}

/// The rows of records.
#[derive(Clone, Debug)]
pub struct DecodedRecords {
    /// Rows of the columns that are read, in the order of the records.
    pub rows: RecordBatch,
    /// Their weights, where the records say changes.
    pub weights: Option<ScalarBuffer<i64>>,
    /// The records, or items of them, that could not be read, in order.
    pub dead: Vec<DeadLetter>,
}

impl DecodedRecords {
    /// The rows with their weights, and the records that could not be read.
    pub fn into_changes(self) -> Result<(Changes, Vec<DeadLetter>)> {
        Ok((Changes::of_rows(self.rows, self.weights)?, self.dead))
    }
}

/// Makes rows of the records of one split.
pub struct RecordDecoder {
    content: Box<dyn Content>,
    layout: Layout,
    split: Arc<str>,
    fail: bool,
}

impl RecordDecoder {
    /// A decoder to the columns of `layout`; `split` goes into dead letters.
    pub fn new(options: &RecordOptions, layout: Layout, split: Arc<str>) -> Result<Self> {
        let content: Box<dyn Content> = match &options.format {
            RecordFormat::Json(json) => json::content(layout.content.clone(), json, &layout.key, split.clone()),
            RecordFormat::Csv(csv) => csv::content(&layout.declared, &layout.projection, csv, split.clone())?,
            RecordFormat::Arrow => Box::new(ArrowContent::new(layout.content.clone(), split.clone())),
        };
        Ok(RecordDecoder { content, layout, split, fail: options.fail })
    }

    /// The columns of the rows.
    pub fn schema(&self) -> &SchemaRef {
        self.layout.schema()
    }

    /// The rows of `records`.
    ///
    /// Errors when one cannot be read and that is to end the job.
    pub fn decode(&mut self, records: &Records) -> Result<DecodedRecords> {
        let Taken { rows, weights, of, dead } = self.content.take(records)?;
        // Mostly each record is a row.
        let all = of.len() == records.len() && dead.is_empty() && of.iter().zip(0..).all(|(record, i)| *record == i);
        let of = UInt32Array::from(of);
        let rows = self.layout.compose(rows, |key| {
            let column = records.metadata(key).ok_or_else(|| {
                Error::internal(format!("records of \"{}\" came without their metadata '{key}'", self.split))
            })?;
            Ok(if all { column.clone() } else { take(column, &of, None)? })
        })?;
        let letter = |(record, reason, raw): (usize, String, Vec<u8>)| {
            let position = records.position(record);
            DeadLetter { split: self.split.clone(), position, line: None, reason, raw }
        };
        let dead: Vec<DeadLetter> = dead.into_iter().map(letter).collect();
        match dead.first() {
            Some(first) if self.fail => {
                Err(Error::data(format!("\"{}\", position {}: {}", first.split, first.position, first.reason))
                    .with_hint("Write on_error = 'dead_letter' to set such input aside and go on."))
            }
            _ => Ok(DecodedRecords { rows, weights, dead }),
        }
    }
}

#[cfg(test)]
mod tests;
