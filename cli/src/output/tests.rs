//! How rows look in each format, and rows for the tests of the formats.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::Int32Type;

use super::*;

/// Three rows with a number, a text with everything nasty, a time, a float, a flag and a list.
pub(crate) fn sample() -> RecordBatch {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from(vec![Some(1), None, Some(-300)]))),
        ("name", Arc::new(StringViewArray::from(vec![Some("a,\"b\"\n日本"), Some(""), None]))),
        (
            "at",
            Arc::new(TimestampMicrosecondArray::from(vec![Some(978_307_500_000_000), Some(978_307_500_500_000), None])),
        ),
        ("mean", Arc::new(Float64Array::from(vec![Some(0.1), Some(1.0), None]))),
        ("ok", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))),
        (
            "list",
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
                Some(vec![Some(1), None]),
                Some(vec![]),
                None,
            ])),
        ),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
}

pub(crate) fn written(format: Format, view: View, batches: &[RecordBatch]) -> String {
    let mut out = Vec::new();
    let mut writer = RowWriter::new(format, batches[0].schema(), view);
    for batch in batches {
        writer.write(batch, &mut out).unwrap();
    }
    writer.finish(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn csv() {
    assert_eq!(
        written(Format::Csv, View::PLAIN, &[sample(), sample().slice(0, 0), sample().slice(2, 1)]),
        "id,name,at,mean,ok,list\n\
         1,\"a,\"\"b\"\"\n日本\",2001-01-01 00:05:00,0.1,true,\"[1, ]\"\n\
         ,\"\",2001-01-01 00:05:00.500,1.0,false,[]\n\
         -300,,,,,\n\
         -300,,,,,\n"
    );
}

#[test]
fn csv_without_rows_has_its_header() {
    assert_eq!(written(Format::Csv, View::PLAIN, &[sample().slice(0, 0)]), "id,name,at,mean,ok,list\n");
    let mut out = Vec::new();
    let mut writer = RowWriter::new(Format::Csv, sample().schema(), View::PLAIN);
    writer.finish(&mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "id,name,at,mean,ok,list\n");
}

#[test]
fn nulls_without_a_type_are_nulls() {
    let columns: Vec<(&str, ArrayRef)> =
        vec![("a", Arc::new(Int64Array::from(vec![1]))), ("b", Arc::new(arrow::array::NullArray::new(1)))];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    assert_eq!(written(Format::Csv, View::PLAIN, std::slice::from_ref(&batch)), "a,b\n1,\n");
    assert!(written(Format::Table, View::PLAIN, &[batch]).ends_with(" 1 │ NULL\n"));
}

#[test]
fn json() {
    assert_eq!(
        written(Format::Json, View::PLAIN, &[sample()]),
        "{\"id\":1,\"name\":\"a,\\\"b\\\"\\n日本\",\"at\":\"2001-01-01T00:05:00\",\"mean\":0.1,\"ok\":true,\"list\":[1,null]}\n\
         {\"id\":null,\"name\":\"\",\"at\":\"2001-01-01T00:05:00.500\",\"mean\":1.0,\"ok\":false,\"list\":[]}\n\
         {\"id\":-300,\"name\":null,\"at\":null,\"mean\":null,\"ok\":null,\"list\":null}\n"
    );
}

#[test]
fn the_extension_decides_the_format() {
    assert_eq!(Format::of_file("a.CSV"), Format::Csv);
    assert_eq!(Format::of_file("a.ndjson"), Format::Json);
    assert_eq!(Format::of_file("a.txt"), Format::Table);
}
