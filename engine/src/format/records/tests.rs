//! Records of each format, with what cannot be read among them.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array, StringViewArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow::ipc::writer::StreamWriter;

use super::*;

/// A decoder of the columns `id BIGINT, name TEXT, at BIGINT METADATA FROM 'position'`, of which `projection` is read.
fn decoder(format: RecordFormat, projection: &[usize]) -> RecordDecoder {
    let fields = vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8View, true),
        Field::new("at", DataType::Int64, true),
    ];
    let metadata = BTreeMap::from([(2, "position".to_owned())]);
    let layout = Layout::new(&Arc::new(Schema::new(fields)), projection, &metadata).expect("columns");
    RecordDecoder::new(&RecordOptions { format, fail: false }, layout, "topic-0".into()).expect("a decoder")
}

fn records(values: &[Option<&[u8]>]) -> Records {
    let positions: Vec<u64> = (100..).take(values.len()).collect();
    let at = Int64Array::from_iter_values(positions.iter().map(|p| *p as i64));
    let records = Records::new(values.iter().copied().collect(), positions).expect("as many");
    records.with("position", Arc::new(at)).expect("as many")
}

/// The rows as `id name@at`, and the dead letters as `position: reason`.
fn read(decoder: &mut RecordDecoder, records: &Records) -> (Vec<String>, Vec<String>) {
    let read = decoder.decode(records).expect("no error");
    let rows = &read.rows;
    let (ids, names) = (rows.column(0).as_primitive::<Int64Type>(), rows.column(1).as_string_view());
    let at = rows.column(2).as_primitive::<Int64Type>();
    let row =
        |i: usize| format!("{} {}@{}", ids.value(i), if names.is_null(i) { "-" } else { names.value(i) }, at.value(i));
    let dead = read.dead.iter().map(|d| format!("{}: {}", d.position, d.reason));
    ((0..rows.num_rows()).map(row).collect(), dead.collect())
}

fn json() -> RecordFormat {
    RecordFormat::Json(JsonOptions::default())
}

#[test]
fn json_objects_and_arrays_of_them() {
    let values: [Option<&[u8]>; 8] = [
        Some(br#"{"id":1,"name":"a"}"#),
        Some(b"{\n  \"id\": 2,\n  \"name\": \"b\"\n}\n"),
        None,
        Some(br#"{"id":"x"}"#),
        Some(br#"[{"id":3}, {"id":null}, {"id":4,"name":"d"}]"#),
        Some(b"  "),
        Some(b"[]"),
        Some(br#"[{"id":5}, {"id":6]"#),
    ];
    let (rows, dead) = read(&mut decoder(json(), &[0, 1, 2]), &records(&values));
    assert_eq!(rows, ["1 a@100", "2 b@101", "3 -@104", "4 d@104"]);
    let reasons = [
        "102: the record has no value",
        "103: column \"id\": \"x\" is not a BIGINT",
        "104: column \"id\" is null",
        "105: the record is empty",
        "107: expected ',' or ']' at character 20, found the end of the line",
    ];
    assert_eq!(dead, reasons);
}

#[test]
fn dead_letters_have_the_bytes_of_what_could_not_be_read() {
    let values: [Option<&[u8]>; 3] = [Some(br#"[{"id":1},{"id":"x"}]"#), Some(b"\xff"), Some(b"5")];
    let read = decoder(json(), &[0, 1, 2]).decode(&records(&values)).expect("no error");
    let raw: Vec<&[u8]> = read.dead.iter().map(|d| d.raw.as_slice()).collect();
    assert_eq!(raw, [&br#"{"id":"x"}"#[..], b"\xff", b"5"]);
    assert_eq!((read.rows.num_rows(), read.dead[1].reason.as_str()), (1, "not valid UTF-8"));
    assert_eq!((read.dead[0].split.as_ref(), read.dead[0].line), ("topic-0", None));
}

#[test]
fn a_character_may_not_lie_in_two_records() {
    let (a, b) = ("{\"id\":1,\"name\":\"é".as_bytes(), "{\"id\":1,\"name\":\"".len() + 1);
    let values: [Option<&[u8]>; 3] = [Some(&a[..b]), Some(&a[b..]), Some(br#"{"id":2}"#)];
    let (rows, dead) = read(&mut decoder(json(), &[0, 1, 2]), &records(&values));
    assert_eq!(rows, ["2 -@102"]);
    assert_eq!(dead, ["100: not valid UTF-8", "101: not valid UTF-8"]);
}

#[test]
fn a_row_of_csv_each() {
    let mut options = Options::new("stream \"s\"", BTreeMap::new());
    let format = RecordFormat::Csv(CsvOptions::take_for_records(&mut options).expect("options"));
    let values: [Option<&[u8]>; 5] = [Some(b"1,a\r\n"), Some(b"2,\"b\nc\""), Some(b"3,c\n4,d"), Some(b""), Some(b"5,")];
    let (rows, dead) = read(&mut decoder(format.clone(), &[0, 1, 2]), &records(&values));
    assert_eq!(rows, ["1 a@100", "2 b\nc@101", "5 -@104"]);
    assert_eq!(dead, ["102: expected 2 fields, found 3", "103: the record is empty"]);
    // What is not read is not looked at, and keeps no column.
    let read = decoder(format, &[2]).decode(&records(&values[..1])).expect("no error");
    assert_eq!(read.rows.column(0).as_primitive::<Int64Type>().value(0), 100);
}

#[test]
fn arrow_whole() {
    let schema = Arc::new(Schema::new(vec![
        Field::new("name", DataType::Utf8View, true),
        Field::new("ID", DataType::Int64, true),
    ]));
    let message = |ids: Vec<Option<i64>>| {
        let names = StringViewArray::from_iter_values(ids.iter().map(|id| format!("n{}", id.unwrap_or_default())));
        let columns: Vec<ArrayRef> = vec![Arc::new(names), Arc::new(Int64Array::from(ids))];
        let rows = RecordBatch::try_new(schema.clone(), columns).expect("rows");
        let mut bytes = vec![];
        let mut writer = StreamWriter::try_new(&mut bytes, &schema).expect("memory");
        writer.write(&rows).expect("memory");
        writer.finish().expect("memory");
        bytes
    };
    let (first, second) = (message(vec![Some(1), None, Some(2)]), message(vec![Some(3)]));
    let values: [Option<&[u8]>; 4] = [Some(&first), Some(b"not arrow"), Some(&second), None];
    let (rows, dead) = read(&mut decoder(RecordFormat::Arrow, &[0, 1, 2]), &records(&values));
    assert_eq!(rows, ["1 n1@100", "2 n2@100", "3 n3@102"]);
    assert_eq!((dead.len(), dead[0].as_str()), (3, "100: column \"id\" is null"));
    assert!(dead[1].starts_with("101: cannot be read as Arrow: "), "{dead:?}");
    assert_eq!(dead[2], "103: the record has no value");
}

#[test]
fn one_that_cannot_be_read_may_end_the_job() {
    let mut strict = decoder(json(), &[0]);
    strict.fail = true;
    let e = strict.decode(&records(&[Some(b"{}")])).expect_err("id is null");
    assert_eq!(e.message(), "\"topic-0\", position 100: column \"id\" is null");
}

#[test]
fn what_the_source_owes_is_said() {
    let e = Records::new(BinaryArray::from_iter_values([b"x"]), vec![]).expect_err("one position is missing");
    assert_eq!(e.message(), "1 records with 0 positions");
    let bare = Records::new(BinaryArray::from_iter_values([b"{\"id\":1}"]), vec![1]).expect("as many");
    let e = decoder(json(), &[0, 2]).decode(&bare).expect_err("the position is read");
    assert!(e.message().contains("without their metadata 'position'"), "{}", e.message());
    assert_eq!(decoder(json(), &[0]).decode(&bare).expect("is not read").rows.num_rows(), 1);
}
