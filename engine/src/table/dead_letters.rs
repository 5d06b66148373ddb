//! The stream `millstream.dead_letters`: input that could not be decoded, of all jobs.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;

use super::parquet_file::FileWriter;
use crate::connector::DeadLetter;
use crate::error::Result;

/// Its columns.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("stream", DataType::Utf8, false),
        Field::new("source", DataType::Utf8, false),
        Field::new("position", DataType::UInt64, false),
        Field::new("line", DataType::Int64, true),
        Field::new("reason", DataType::Utf8, false),
        Field::new("raw", DataType::Binary, false),
    ]))
}

/// A Parquet file of the dead letters of the job that feeds `stream`.
pub(crate) fn encode(stream: &str, letters: &[DeadLetter]) -> Result<Bytes> {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(letters.iter().map(|_| stream))),
        Arc::new(StringArray::from_iter_values(letters.iter().map(|d| &*d.split))),
        Arc::new(UInt64Array::from_iter_values(letters.iter().map(|d| d.position))),
        Arc::new(Int64Array::from_iter(letters.iter().map(|d| d.line.map(|l| l as i64)))),
        Arc::new(StringArray::from_iter_values(letters.iter().map(|d| &d.reason))),
        Arc::new(BinaryArray::from_iter_values(letters.iter().map(|d| &d.raw))),
    ];
    let mut file = FileWriter::new(&schema())?;
    file.write(&RecordBatch::try_new(schema(), columns)?)?;
    Ok(file.finish()?.1)
}
