//! The form in which rows are stored in Parquet, and which types have one.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, IntervalUnit, Schema, SchemaRef, TimeUnit};

use super::sql_name;
use crate::error::{Error, Result};

/// The schema that files of a stream with `schema` have, as DuckDB, Spark and pyarrow expect it: plain
/// text and binary, no times in seconds, which Parquet does not have, and dates in days, since those in milliseconds
/// are written as bare numbers.
pub fn file_schema(schema: &Schema) -> SchemaRef {
    let plain = |f: &Arc<Field>| Arc::new(f.as_ref().clone().with_data_type(plain_type(f.data_type())));
    Arc::new(Schema::new(schema.fields().iter().map(plain).collect::<Vec<_>>()))
}

fn plain_type(t: &DataType) -> DataType {
    let field = |f: &Arc<Field>| Arc::new(f.as_ref().clone().with_data_type(plain_type(f.data_type())));
    match t {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Timestamp(TimeUnit::Second, zone) => DataType::Timestamp(TimeUnit::Millisecond, zone.clone()),
        DataType::Time32(TimeUnit::Second) => DataType::Time32(TimeUnit::Millisecond),
        DataType::Date64 => DataType::Date32,
        DataType::Dictionary(_, value) => plain_type(value),
        DataType::List(f) | DataType::LargeList(f) => DataType::List(field(f)),
        DataType::FixedSizeList(f, n) => DataType::FixedSizeList(field(f), *n),
        DataType::Map(f, ordered) => DataType::Map(field(f), *ordered),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
        other => other.clone(),
    }
}

/// Checks that files can hold rows of `schema`.
///
/// Errors with `Unsupported` for the first column whose type Parquet does not have.
pub fn check_writable(schema: &Schema) -> Result<()> {
    check(schema, |t| !matches!(t, DataType::Interval(IntervalUnit::MonthDayNano) | DataType::Union(_, _)))
}

/// Checks that others read rows of `schema` as what they are from their files.
///
/// Errors as [`check_writable`], and for types that others take for something else: intervals lose months or come
/// out as bytes, durations as bare numbers. Streams that were made before this was looked at keep theirs.
pub fn check_storable(schema: &Schema) -> Result<()> {
    check(schema, |t| !matches!(t, DataType::Interval(_) | DataType::Duration(_) | DataType::Union(_, _)))
}

fn check(schema: &Schema, good: fn(&DataType) -> bool) -> Result<()> {
    let Some(field) = schema.fields().iter().find(|f| !all_of(f.data_type(), good)) else { return Ok(()) };
    let message = format!("column \"{}\": {} cannot be stored", field.name(), sql_name(field.data_type()));
    let hint = match field.data_type() {
        DataType::Duration(_) => {
            "Store the number of seconds, date_part('epoch', a) - date_part('epoch', b), or cast to TEXT."
        }
        _ => "Store it in another form, for example cast to TEXT.",
    };
    Err(Error::unsupported(message).with_hint(hint))
}

/// Whether a type and all in it are `good`.
fn all_of(t: &DataType, good: fn(&DataType) -> bool) -> bool {
    let inner = match t {
        DataType::Dictionary(_, value) => all_of(value, good),
        DataType::List(f) | DataType::LargeList(f) | DataType::FixedSizeList(f, _) | DataType::Map(f, _) => {
            all_of(f.data_type(), good)
        }
        DataType::Struct(fields) => fields.iter().all(|f| all_of(f.data_type(), good)),
        _ => true,
    };
    inner && good(t)
}

/// Casts the columns of `rows` to `schema`, which has the same columns in other forms.
pub fn cast_rows(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let to = |(a, f): (&ArrayRef, &Arc<Field>)| match a.data_type() == f.data_type() {
        true => Ok(a.clone()),
        false => cast(a, f.data_type()),
    };
    let columns = rows.columns().iter().zip(schema.fields()).map(to).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}
