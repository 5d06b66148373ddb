//! Bytes to Arrow and back.
//!
//! Text formats are read in blocks of whole lines: a [`LineDecoder`] turns a block into one batch of
//! exactly the columns asked for, and each line that it cannot read into a dead letter, so that one bad
//! line costs nothing but itself. Columnar files (Parquet, Arrow) are read batch by batch and cast to the
//! declared types. What arrives in messages is read in batches of [`records`], by the same code.

pub(crate) mod ahead;
mod arrow_records;
pub(crate) mod blocks;
pub mod body;
pub mod columnar;
pub(crate) mod columns;
pub mod compression;
mod content;
pub mod convert;
pub mod csv;
mod csv_lines;
mod dead_letter;
pub(crate) mod digits;
pub mod form;
pub mod infer;
pub mod ipc;
pub mod json;
pub mod metadata;
mod ops;
pub mod options;
pub mod records;
pub(crate) mod rows;
pub(crate) mod spans;
pub mod stored;
pub mod timestamp;
pub(crate) mod tokenizer;
pub mod union;
pub(crate) mod values;
pub mod write;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::DataType;

pub use dead_letter::DeadLetter;

use crate::error::Result;

/// What the bytes of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// Comma-separated values.
    Csv,
    /// Apache Parquet.
    Parquet,
    /// Arrow IPC, file or stream.
    Arrow,
}

impl Format {
    /// The format that a file name's ending stands for, without regard to a compression's ending.
    pub fn of_name(name: &str) -> Option<Self> {
        let (_, inner) = compression::Compression::of_name(name);
        match inner.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
            "json" | "jsonl" | "ndjson" => Some(Format::Json),
            "csv" => Some(Format::Csv),
            "parquet" | "pq" => Some(Format::Parquet),
            "arrow" | "arrows" | "feather" | "ipc" => Some(Format::Arrow),
            _ => None,
        }
    }

    /// Its name as an option's value.
    pub fn name(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Csv => "csv",
            Format::Parquet => "parquet",
            Format::Arrow => "arrow",
        }
    }

    /// Whether it is made of lines.
    pub fn is_text(self) -> bool {
        matches!(self, Format::Json | Format::Csv)
    }
}

/// Where a block begins in its split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The offset of its first byte.
    pub position: u64,
    /// The number of its first line (1-based), where known.
    pub line: Option<u64>,
}

/// What a decoder made of a block.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The rows of the good lines, in order.
    pub rows: RecordBatch,
    /// Their weights, where the lines say changes.
    pub weights: Option<ScalarBuffer<i64>>,
    /// The lines that could not be read, in order.
    pub dead: Vec<DeadLetter>,
    /// How many bytes were taken: all, unless the block has more rows than a batch should.
    pub bytes: usize,
    /// How many lines these were.
    pub lines: u64,
    /// Whether the next line, of those that were left or of the next block, is half of a change: what follows most likely
    /// tells the rest. Of a line that was taken, that it is such a half itself.
    pub is_half: bool,
    /// Where each row stands, if that was asked for.
    pub places: Vec<Place>,
}

/// Turns whole lines into rows of the columns that it was made for.
pub trait LineDecoder: Send {
    /// Decodes lines from the start of `block`, at least one; the last need not end in a newline. At
    /// position 0 a byte order mark and a header are skipped. Errors are about the whole file (a header
    /// that lacks a column), never about one line.
    fn decode(&mut self, block: &[u8], at: Place) -> Result<Decoded>;

    /// Asks for the places of rows from now on.
    fn keep_places(&mut self);
}

/// The SQL name of a type with its article.
pub(crate) fn a_sql_name(data_type: &DataType) -> String {
    let name = sql_name(data_type);
    let article = if name.starts_with(['A', 'E', 'I', 'O']) { "an" } else { "a" };
    format!("{article} {name}")
}

/// The SQL name of a type, for messages.
pub fn sql_name(data_type: &DataType) -> Arc<str> {
    match data_type {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INTEGER",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "TINYINT UNSIGNED",
        DataType::UInt16 => "SMALLINT UNSIGNED",
        DataType::UInt32 => "INTEGER UNSIGNED",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "TEXT",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BYTEA",
        DataType::Timestamp(_, None) => "TIMESTAMP",
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE",
        DataType::Date32 | DataType::Date64 => "DATE",
        DataType::Time32(_) | DataType::Time64(_) => "TIME",
        DataType::Interval(_) => "INTERVAL",
        other => return nested_name(other).into(),
    }
    .into()
}

fn nested_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => format!("DECIMAL({p}, {s})"),
        DataType::Dictionary(_, value) => sql_name(value).to_string(),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            format!("{}[]", sql_name(item.data_type()))
        }
        DataType::Struct(fields) => {
            let fields: Vec<_> = fields.iter().map(|f| format!("{} {}", f.name(), sql_name(f.data_type()))).collect();
            format!("STRUCT<{}>", fields.join(", "))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 => {
                format!("MAP({}, {})", sql_name(pair[0].data_type()), sql_name(pair[1].data_type()))
            }
            other => other.to_string(),
        },
        other => other.to_string(),
    }
}
