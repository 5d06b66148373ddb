//! Arrow to bytes, for sinks.
//!
//! Where rows can be taken back, a leading column `_op` says what happens to a row: `+I` it arrives, `-D`
//! it is taken back. A row of weight n is written n times.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringViewArray, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::changes::Changes;
use crate::error::{Error, Result};
use crate::float::without_float_statistics;
use crate::format::Format;
use crate::format::csv_lines::{append_header, append_rows};
use crate::format::options::CsvOptions;

/// The columns that are written for rows of `schema`.
pub fn output_schema(schema: &SchemaRef, retracts: bool) -> SchemaRef {
    if !retracts {
        return schema.clone();
    }
    let op = Arc::new(Field::new("_op", DataType::Utf8View, false));
    Arc::new(Schema::new([op].into_iter().chain(schema.fields().iter().cloned()).collect::<Vec<_>>()))
}

/// `changes` as rows of `output`, which [`output_schema`] gave, perhaps with other types for the same. Errors when rows are taken back although they
/// cannot be.
pub fn output_rows(changes: &Changes, output: &SchemaRef, retracts: bool) -> Result<RecordBatch> {
    let rows = changes.rows();
    let Some(weights) = changes.weights() else {
        let op = retracts.then(|| ops(rows.num_rows(), |_| 1));
        return assemble(op, rows, output);
    };
    if !retracts && weights.iter().any(|w| *w < 0) {
        return Err(Error::internal("a sink that takes no rows back was given one to take back"));
    }
    let mut indices = Vec::with_capacity(rows.num_rows());
    for (row, weight) in weights.iter().enumerate() {
        indices.extend(std::iter::repeat_n(row as u32, weight.unsigned_abs() as usize));
    }
    let op = retracts.then(|| ops(indices.len(), |i| weights[indices[i] as usize]));
    let rows = take_record_batch(rows, &UInt32Array::from(indices))?;
    assemble(op, &rows, output)
}

fn ops(rows: usize, weight: impl Fn(usize) -> i64) -> ArrayRef {
    let name = |row| if weight(row) < 0 { "-D" } else { "+I" };
    Arc::new(StringViewArray::from_iter_values((0..rows).map(name)))
}

fn assemble(op: Option<ArrayRef>, rows: &RecordBatch, output: &SchemaRef) -> Result<RecordBatch> {
    let columns = op.into_iter().chain(rows.columns().iter().cloned()).zip(output.fields());
    let columns = columns.map(|(column, field)| match column.data_type() == field.data_type() {
        true => Ok(column),
        false => cast(&column, field.data_type()),
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(output.clone(), columns, &options)?)
}

/// Appends `rows` to `out` as lines of `format`, which is a text format; `csv` says how, if it is CSV.
pub fn write_lines(format: Format, csv: &CsvOptions, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
    match format {
        Format::Json => {
            let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
            let mut writer = builder.build::<_, arrow::json::writer::LineDelimited>(out);
            writer.write(rows)?;
            Ok(writer.finish()?)
        }
        Format::Csv => append_rows(csv, rows, out),
        Format::Parquet | Format::Arrow => Err(Error::internal(format!("{} has no lines", format.name()))),
    }
}

/// Appends the header of a CSV file to `out`.
pub fn write_header(csv: &CsvOptions, schema: &SchemaRef, out: &mut Vec<u8>) {
    append_header(csv, schema, out);
}

/// A writer of a Parquet file, compressed with zstd.
pub fn parquet_writer<W: Write + Send>(schema: &SchemaRef, out: W) -> Result<ArrowWriter<W>> {
    let codec = Codec::ZSTD(ZstdLevel::try_new(3)?);
    let properties = WriterProperties::builder().set_compression(codec);
    let properties = without_float_statistics(properties, schema)?.build();
    Ok(ArrowWriter::try_new(out, schema.clone(), Some(properties))?)
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;

    #[test]
    fn weights_become_rows() {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        let column: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
        let rows = RecordBatch::try_new(schema.clone(), vec![column]).expect("one column");
        let changes = Changes::weighted(rows, vec![2, -1].into()).expect("two weights");
        let output = output_schema(&schema, true);
        let rows = output_rows(&changes, &output, true).expect("fits");
        let mut text = vec![];
        write_lines(Format::Json, &CsvOptions::default(), &rows, &mut text).expect("writes");
        let json = "{\"_op\":\"+I\",\"a\":1}\n{\"_op\":\"+I\",\"a\":1}\n{\"_op\":\"-D\",\"a\":null}\n";
        assert_eq!(String::from_utf8(text).expect("text"), json);
        let mut text = vec![];
        let csv = CsvOptions { delimiter: b';', ..CsvOptions::default() };
        write_header(&csv, &output, &mut text);
        write_lines(Format::Csv, &csv, &rows, &mut text).expect("writes");
        assert_eq!(String::from_utf8(text).expect("text"), "_op;a\n+I;1\n+I;1\n-D;\n");
        assert!(output_rows(&changes, &schema, false).is_err());
    }
}
