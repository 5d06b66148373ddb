//! The types that leave and enter by Flight: inside, text is kept as views and may be dictionary-encoded; most
//! clients know only the plain layouts, so schemas and batches are cast to those, nested ones too.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::{IpcMessage, SchemaAsIpc};
use bytes::Bytes;

/// The schema in which rows of `schema` are sent.
pub(crate) fn wire_schema(schema: &Schema) -> SchemaRef {
    let fields: Vec<FieldRef> = schema.fields().iter().map(wire_field).collect();
    Arc::new(Schema::new(fields).with_metadata(schema.metadata().clone()))
}

fn wire_field(field: &FieldRef) -> FieldRef {
    let data_type = wire_type(field.data_type());
    if &data_type == field.data_type() {
        return Arc::clone(field);
    }
    Arc::new(Field::new(field.name(), data_type, field.is_nullable()).with_metadata(field.metadata().clone()))
}

fn wire_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => wire_type(values),
        DataType::RunEndEncoded(_, values) => wire_type(values.data_type()),
        DataType::List(item) | DataType::ListView(item) => DataType::List(wire_field(item)),
        DataType::LargeList(item) | DataType::LargeListView(item) => DataType::LargeList(wire_field(item)),
        DataType::FixedSizeList(item, len) => DataType::FixedSizeList(wire_field(item), *len),
        DataType::Map(entries, sorted) => DataType::Map(wire_field(entries), *sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(wire_field).collect()),
        other => other.clone(),
    }
}

/// `batch` with the types of `schema`, column by column: what a client was told it gets.
pub(crate) fn cast_batch(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    if batch.schema_ref() == schema {
        return Ok(batch.clone());
    }
    if batch.num_columns() != schema.fields().len() {
        let (got, told) = (batch.num_columns(), schema.fields().len());
        return Err(ArrowError::SchemaError(format!("the result has {got} columns where {told} were announced")));
    }
    // A value that does not fit is an error here, never a silent null.
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        if column.data_type() == field.data_type() {
            Ok(Arc::clone(column))
        } else {
            cast_with_options(column, field.data_type(), &options)
        }
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &rows)
}

/// `schema` in the form in which Flight keeps schemas inside other messages.
pub(crate) fn schema_bytes(schema: &Schema) -> Result<Bytes, ArrowError> {
    let IpcMessage(bytes) = SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into()?;
    Ok(bytes)
}

/// The schema in `bytes`, as [`schema_bytes`] made them.
pub(crate) fn schema_of_bytes(bytes: Bytes) -> Result<Schema, ArrowError> {
    Schema::try_from(IpcMessage(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        Array, ArrayRef, AsArray, BinaryViewArray, DictionaryArray, Int32Array, ListArray, StringViewArray, StructArray,
    };
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::Int32Type;

    fn nested() -> RecordBatch {
        let text: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a"), None, Some("a text longer than twelve")]));
        let bytes: ArrayRef = Arc::new(BinaryViewArray::from(vec![b"x".as_slice(), b"y", b"z"]));
        let dict: DictionaryArray<Int32Type> = vec!["u", "v", "u"].into_iter().collect();
        let item = Arc::new(Field::new("item", DataType::Utf8View, true));
        let list = ListArray::new(item, OffsetBuffer::from_lengths([1, 0, 2]), Arc::clone(&text), None);
        let pair = StructArray::from(vec![(Arc::new(Field::new("t", DataType::Utf8View, true)), Arc::clone(&text))]);
        RecordBatch::try_from_iter_with_nullable([
            ("n", Arc::new(Int32Array::from(vec![1, 2, 3])) as ArrayRef, false),
            ("t", text, true),
            ("b", bytes, false),
            ("d", Arc::new(dict) as ArrayRef, true),
            ("l", Arc::new(list) as ArrayRef, true),
            ("s", Arc::new(pair) as ArrayRef, true),
        ])
        .unwrap()
    }

    #[test]
    fn views_and_dictionaries_leave_as_plain_text_at_every_depth() {
        let batch = nested();
        let schema = wire_schema(batch.schema_ref());
        let types: Vec<String> = schema.fields().iter().map(|f| f.data_type().to_string()).collect();
        assert!(types.iter().all(|t| !t.contains("View") && !t.contains("Dictionary")), "{types:?}");
        assert!(!schema.field(0).is_nullable());

        let cast = cast_batch(&batch, &schema).unwrap();
        assert_eq!(cast.schema(), schema);
        assert_eq!(cast.column(1).as_string::<i32>().value(2), "a text longer than twelve");
        assert!(cast.column(1).is_null(1));
        assert_eq!(cast.column(3).as_string::<i32>().value(1), "v");
        assert_eq!(cast.column(4).as_list::<i32>().value(2).as_string::<i32>().value(1), "a text longer than twelve");
        assert_eq!(cast.column(5).as_struct().column(0).as_string::<i32>().value(0), "a");
    }

    #[test]
    fn a_schema_that_needs_nothing_stays_and_survives_bytes() {
        let schema = wire_schema(nested().schema_ref());
        assert_eq!(wire_schema(&schema), schema);
        assert_eq!(schema_of_bytes(schema_bytes(&schema).unwrap()).unwrap(), *schema);
        let empty = Schema::empty();
        assert_eq!(schema_of_bytes(schema_bytes(&empty).unwrap()).unwrap(), empty);
    }

    #[test]
    fn other_columns_than_announced_are_refused() {
        let batch = nested();
        let fewer = Arc::new(Schema::new(vec![Field::new("n", DataType::Int32, false)]));
        assert!(cast_batch(&batch, &fewer).unwrap_err().to_string().contains("6 columns where 1"));
    }
}
