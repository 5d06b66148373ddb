//! The stream `millstream.dead_letters`: input that could not be decoded and rows on which an expression
//! failed, of all jobs.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array, new_null_array,
};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::{Deserialize, Serialize};

use super::parquet_file::FileWriter;
use crate::connector::DeadLetter;
use crate::error::Result;

/// A row of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Letter {
    /// The split it came from; empty where that is not known any more.
    #[serde(with = "crate::plain::text")]
    pub(crate) source: Arc<str>,
    /// Where in the split, in its coordinate.
    pub(crate) position: Option<u64>,
    /// Which line of a text file (1-based).
    pub(crate) line: Option<u64>,
    /// The expression that failed; `None` where the input could not be decoded.
    #[serde(with = "crate::plain::maybe_text")]
    pub(crate) expression: Option<Arc<str>>,
    /// Why, in words.
    pub(crate) reason: String,
    /// The bytes as they were, or the row as JSON.
    #[serde(with = "crate::plain::bytes")]
    pub(crate) raw: Vec<u8>,
    /// How often the row arrived; below 0 it was taken back.
    pub(crate) weight: i64,
}

impl Letter {
    /// About how many bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.raw.len() + 100
    }
}

impl From<DeadLetter> for Letter {
    fn from(d: DeadLetter) -> Self {
        Letter {
            source: d.split,
            position: Some(d.position),
            line: d.line,
            expression: None,
            reason: d.reason,
            raw: d.raw,
            weight: 1,
        }
    }
}

/// Its columns.
pub fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("stream", DataType::Utf8, false),
        Field::new("source", DataType::Utf8, false),
        Field::new("position", DataType::UInt64, true),
        Field::new("line", DataType::Int64, true),
        Field::new("reason", DataType::Utf8, false),
        Field::new("raw", DataType::Binary, false),
        Field::new("expression", DataType::Utf8, true),
        Field::new("weight", DataType::Int64, true),
        Field::new("at", time, true),
    ]))
}

/// A Parquet file of `before`, the rows of an older file, and the dead letters of the job that feeds
/// `stream`, committed at `at` (in microseconds since 1970).
pub(crate) fn encode(stream: &str, before: Option<RecordBatch>, letters: &[Letter], at: i64) -> Result<Bytes> {
    let times = TimestampMicrosecondArray::from(vec![at; letters.len()]).with_timezone("UTC");
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(letters.iter().map(|_| stream))),
        Arc::new(StringArray::from_iter_values(letters.iter().map(|d| &*d.source))),
        Arc::new(UInt64Array::from_iter(letters.iter().map(|d| d.position))),
        Arc::new(Int64Array::from_iter(letters.iter().map(|d| d.line.map(|l| l as i64)))),
        Arc::new(StringArray::from_iter_values(letters.iter().map(|d| &d.reason))),
        Arc::new(BinaryArray::from_iter_values(letters.iter().map(|d| &d.raw))),
        Arc::new(StringArray::from_iter(letters.iter().map(|d| d.expression.as_deref()))),
        Arc::new(Int64Array::from_iter_values(letters.iter().map(|d| d.weight))),
        Arc::new(times),
    ];
    let new = RecordBatch::try_new(schema(), columns)?;
    let mut file = FileWriter::new(&schema())?;
    file.write(&match before {
        None => new,
        Some(before) => concat_batches(&schema(), [&before, &new])?,
    })?;
    Ok(Bytes::from(file.finish()?.1))
}

/// The rows of a file that [`encode`] wrote, or that a build without its last columns did.
pub(crate) fn decode(bytes: Bytes) -> Result<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()?;
    let mut parts = vec![];
    for batch in reader {
        let batch = batch?;
        let column = |f: &Arc<Field>| match batch.column_by_name(f.name()) {
            Some(column) => cast(column, f.data_type()),
            None => Ok(new_null_array(f.data_type(), batch.num_rows())),
        };
        let columns = schema().fields().iter().map(column).collect::<Result<Vec<_>, _>>()?;
        parts.push(RecordBatch::try_new(schema(), columns)?);
    }
    Ok(concat_batches(&schema(), &parts)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_made_longer() {
        let letter = |reason: &str| Letter {
            source: "a.csv".into(),
            position: None,
            line: Some(3),
            expression: Some("10 / y".into()),
            reason: reason.to_owned(),
            raw: b"{}".to_vec(),
            weight: -1,
        };
        let first = encode("s", None, &[letter("one")], 5).unwrap();
        let second = encode("s", Some(decode(first).unwrap()), &[letter("two"), letter("three")], 7).unwrap();
        let rows = decode(second).unwrap();
        assert_eq!(rows.num_rows(), 3);
        let reasons = cast(rows.column(4), &DataType::Utf8).unwrap();
        let reasons = reasons.as_any().downcast_ref::<StringArray>().unwrap();
        assert_eq!(reasons.iter().flatten().collect::<Vec<_>>(), ["one", "two", "three"]);
    }
}
