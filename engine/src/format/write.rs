//! Arrow to bytes, for sinks.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch};
use arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::writer::{Encoder, EncoderFactory, EncoderOptions, NullableEncoder};
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

/// Appends `rows` to `out` as JSON lines in which a float that is no number stands as text: `"NaN"`, `"Infinity"`,
/// `"-Infinity"`.
pub fn write_json_lines(rows: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
    let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
    let mut writer =
        builder.with_encoder_factory(Arc::new(WholeFloats)).build::<_, arrow::json::writer::LineDelimited>(out);
    writer.write(rows)?;
    Ok(writer.finish()?)
}

/// Encodes floats of any value, at every depth.
#[derive(Debug)]
struct WholeFloats;

impl EncoderFactory for WholeFloats {
    fn make_default_encoder<'a>(
        &self,
        _field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let encoder: Box<dyn Encoder + 'a> = match array.data_type() {
            DataType::Float64 => Box::new(Floats(array.as_primitive::<Float64Type>())),
            DataType::Float32 => Box::new(Floats(array.as_primitive::<Float32Type>())),
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(encoder, array.nulls().cloned())))
    }
}

struct Floats<'a, T: ArrowPrimitiveType>(&'a PrimitiveArray<T>);

impl<T: ArrowPrimitiveType<Native: Into<f64> + serde::Serialize>> Encoder for Floats<'_, T> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let native = self.0.value(row);
        let value: f64 = native.into();
        let text = match value {
            _ if value.is_nan() => "\"NaN\"",
            f64::INFINITY => "\"Infinity\"",
            f64::NEG_INFINITY => "\"-Infinity\"",
            // Writing a number into memory does not fail.
            _ => return serde_json::to_writer(out, &native).unwrap_or_default(),
        };
        out.extend_from_slice(text.as_bytes());
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
    use arrow::array::{ArrayRef, Float32Array, Float64Array, Int64Array, StringArray};

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

    #[test]
    fn floats_that_are_no_numbers_are_texts() {
        let a: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.5), Some(f64::NAN), None, Some(f64::INFINITY)]));
        let b: ArrayRef = Arc::new(Float32Array::from(vec![0.1, 2.0, f32::NEG_INFINITY, 1e30]));
        let rows = RecordBatch::try_from_iter([("a", a), ("b", b)]).expect("two columns");
        let mut text = vec![];
        write_json_lines(&rows, &mut text).expect("writes");
        let lines = ["1.5,\"b\":0.1", "\"NaN\",\"b\":2.0", "null,\"b\":\"-Infinity\"", "\"Infinity\",\"b\":1e+30"];
        let expected: String = lines.iter().map(|line| format!("{{\"a\":{line}}}\n")).collect();
        assert_eq!(String::from_utf8(text).expect("text"), expected);
    }
}
