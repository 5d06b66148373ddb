//! Arrow to bytes, for sinks.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::error::{Error, Result};
use crate::float::without_float_statistics;
use crate::format::Format;
use crate::format::csv_lines::{append_header, append_rows};
use crate::format::options::CsvOptions;

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
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    #[test]
    fn rows_become_lines() {
        let a: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
        let op: ArrayRef = Arc::new(StringArray::from(vec!["+I", "-D"]));
        let rows = RecordBatch::try_from_iter([("_op", op), ("a", a)]).expect("two columns");
        let mut text = vec![];
        write_lines(Format::Json, &CsvOptions::default(), &rows, &mut text).expect("writes");
        assert_eq!(String::from_utf8(text).expect("text"), "{\"_op\":\"+I\",\"a\":1}\n{\"_op\":\"-D\",\"a\":null}\n");
        let mut text = vec![];
        let csv = CsvOptions { delimiter: b';', ..CsvOptions::default() };
        write_header(&csv, &rows.schema(), &mut text);
        write_lines(Format::Csv, &csv, &rows, &mut text).expect("writes");
        assert_eq!(String::from_utf8(text).expect("text"), "_op;a\n+I;1\n-D;\n");
    }
}
