//! Envelopes, and the rows that they say.

use std::sync::Arc;

use arrow::array::{BinaryArray, RecordBatch};
use arrow::datatypes::Field;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::*;
use crate::format::form::{Form, told};
use crate::format::json::json_schema;
use crate::format::metadata::Layout;
use crate::format::records::{RecordDecoder, RecordFormat, RecordOptions, Records};
use crate::format::{Decoded, Place, json};

fn options() -> JsonOptions {
    JsonOptions { form: Form::Debezium, ..JsonOptions::default() }
}

fn fields(columns: &[(&str, DataType)]) -> Schema {
    Schema::new(columns.iter().map(|(name, t)| Field::new(*name, t.clone(), true)).collect::<Vec<_>>())
}

fn people() -> Schema {
    fields(&[("id", DataType::Int64), ("name", DataType::Utf8View)])
}

fn decoded(schema: Schema, key: &[&str], text: &str) -> Decoded {
    let key: Vec<String> = key.iter().map(|k| (*k).to_owned()).collect();
    let mut decoder = json::decoder(Arc::new(schema), &options(), &key, "s".into());
    let decoded = decoder.decode(text.as_bytes(), Place { position: 0, line: Some(1) }).expect("decodes");
    assert_eq!(decoded.bytes, text.len());
    decoded
}

fn lines(rows: &RecordBatch, weights: Option<&[i64]>) -> Vec<String> {
    let format = FormatOptions::default().with_null("-");
    let columns: Vec<_> = rows.columns().iter().map(|c| ArrayFormatter::try_new(c, &format).expect("shows")).collect();
    let line = |row: usize| {
        let values: Vec<_> = columns.iter().map(|c| c.value(row).to_string()).collect();
        let weight = weights.expect("of a changelog").get(row).copied().expect("a weight");
        format!("{weight:+} {}", values.join(" "))
    };
    (0..rows.num_rows()).map(line).collect()
}

fn shown(decoded: &Decoded) -> Vec<String> {
    lines(&decoded.rows, decoded.weights.as_deref())
}

fn dead(decoded: &Decoded) -> Vec<(u64, String)> {
    decoded.dead.iter().map(|d| (d.line.expect("known"), d.reason.clone())).collect()
}

const STORY: &str = r#"{"before":null,"after":{"id":1,"name":"a"},"op":"r","source":{"table":"t"},"ts_ms":1}
{"op":"c","after":{"name":"b","id":2}}
{"before":{"id":1,"name":"a"},"after":{"id":1,"name":"c"},"op":"u"}
{"before":{"id":2,"name":"b"},"after":{"id":3,"name":"b"},"op":"u"}
{"before":{"id":3,"name":"b"},"after":null,"op":"d"}
null
{"schema":null,"payload":null}

{}
"#;

#[test]
fn without_a_key_both_rows_are_told() {
    let decoded = decoded(people(), &[], STORY);
    let expected = ["+1 1 a", "+1 2 b", "-1 1 a", "+1 1 c", "-1 2 b", "+1 3 b", "-1 3 b"];
    assert_eq!((shown(&decoded), dead(&decoded)), (expected.map(str::to_owned).to_vec(), vec![]));
}

#[test]
fn by_a_key_the_row_after_counts_and_one_goes_by_its_key() {
    let decoded = decoded(people(), &["id"], STORY);
    let expected = ["+1 1 a", "+1 2 b", "+1 1 c", "-1 2 -", "+1 3 b", "-1 3 -"];
    assert_eq!((shown(&decoded), dead(&decoded)), (expected.map(str::to_owned).to_vec(), vec![]));
}

#[test]
fn what_cannot_be_followed_is_put_aside_with_what_to_do() {
    let text = r#"{"before":null,"after":{"id":1,"name":"b"},"op":"u"}
{"before":null,"after":null,"op":"d"}
{"op":"c","after":null}
{"op":"t","before":null,"after":null}
{"op":"m","message":{}}
{"id":1,"name":"x"}
{"op":"c","after":{"id":"one"}}
{"before":{"id":"one"},"after":{"id":1},"op":"u"}
{"op":"u","before":{"id":1,"name":"a"},"after":{"id":1,"name":"__debezium_unavailable_value"}}
[1]
{"op":"c","after":{"id":9}}
"#;
    let letters = |key: &[&str]| {
        let decoded = decoded(people(), key, text);
        assert_eq!(shown(&decoded).last().map(String::as_str), Some("+1 9 -"));
        dead(&decoded)
    };
    let without = letters(&[]);
    let what = "without the row before: declare a PRIMARY KEY, or set REPLICA IDENTITY FULL for its table";
    assert_eq!(without[0], (1, format!("op 'u' comes {what}")));
    assert_eq!(without[1], (2, format!("op 'd' comes {what}")));
    assert_eq!(without[2], (3, "op 'c' comes without the row after".to_owned()));
    assert!(without[3].1.starts_with("op 't' has emptied a table"), "{without:?}");
    assert_eq!(without[4], (5, "its op is \"m\", not one of c, r, u and d".to_owned()));
    assert_eq!(without[5], (6, "it has no op, as an envelope of Debezium has".to_owned()));
    let misfit = "column \"id\": \"one\" is not a BIGINT".to_owned();
    assert_eq!(without[6..8], [(7, misfit.clone()), (8, misfit)], "of both rows none counts");
    let untold = "column \"name\" has not changed and was not told: set REPLICA IDENTITY FULL for its table";
    assert_eq!(without[8], (9, untold.to_owned()));
    assert_eq!((without[9].0, without.len()), (10, 10));
    assert_eq!(letters(&["id"])[0].0, 2, "a row after is enough by a key");
}

/// What may stand around an envelope: its schema, with these fields of the rows.
fn with_schema(fields: &str, payload: &str) -> String {
    let image = |name: &str| format!(r#"{{"type":"struct","fields":[{fields}],"optional":true,"field":"{name}"}}"#);
    let op = r#"{"type":"string","optional":false,"field":"op"}"#;
    let fields = format!("{},{},{op}", image("before"), image("after"));
    format!(r#"{{"schema":{{"type":"struct","fields":[{fields}],"optional":false}},"payload":{payload}}}"#)
}

fn field(name: &str, of: &str, logical: &str) -> String {
    format!(r#"{{"type":"{of}","optional":true,"name":"{logical}","field":"{name}"}}"#)
}

fn decimal_field(name: &str, scale: u8) -> String {
    let parameters = format!(r#""parameters":{{"scale":"{scale}","connect.decimal.precision":"10"}}"#);
    format!(
        r#"{{"type":"bytes","optional":true,"name":"org.apache.kafka.connect.data.Decimal",{parameters},"field":"{name}"}}"#
    )
}

fn instants() -> Schema {
    let time = |unit| DataType::Timestamp(unit, None);
    fields(&[
        ("day", DataType::Date32),
        ("at", time(TimeUnit::Microsecond)),
        ("ms", time(TimeUnit::Millisecond)),
        ("clock", DataType::Time64(TimeUnit::Nanosecond)),
        ("price", DataType::Decimal128(10, 2)),
        ("raw", DataType::BinaryView),
    ])
}

#[test]
fn a_schema_says_how_values_are_written() {
    let all = [
        field("day", "int32", "io.debezium.time.Date"),
        field("at", "int64", "io.debezium.time.Timestamp"),
        field("ms", "string", "io.debezium.time.ZonedTimestamp"),
        field("clock", "int32", "io.debezium.time.Time"),
        decimal_field("price", 3),
        r#"{"type":"bytes","optional":true,"field":"raw"}"#.to_owned(),
    ];
    let row = r#"{"day":19782,"at":1709164800123,"ms":"2024-02-29T00:00:00.5Z","clock":62944000,"price":"MDk=","raw":"AQI="}"#;
    let first = with_schema(&all.join(","), &format!(r#"{{"op":"c","after":{row}}}"#));
    // The same values under other types, in the same block.
    let others = [field("at", "int64", "io.debezium.time.NanoTimestamp"), decimal_field("price", 1)];
    let second = with_schema(
        &others.join(","),
        r#"{"op":"c","after":{"at":1709164800123456789,"price":"MDk=","day":"2024-03-01"}}"#,
    );
    let text = format!("{first}\n{first}\n{second}\n{first}\n");
    let decoded = decoded(instants(), &[], &text);
    let one = "+1 2024-02-29 2024-02-29T00:00:00.123 2024-02-29T00:00:00.500 17:29:04 12.35 0102";
    let two = "+1 2024-03-01 2024-02-29T00:00:00.123456 - - 1234.50 -";
    assert_eq!((shown(&decoded), dead(&decoded)), ([one, one, two, one].map(str::to_owned).to_vec(), vec![]));
    // By it alone the columns are known.
    let schema = json_schema(text.as_bytes(), &options()).expect("rows");
    let types: Vec<_> = schema.fields().iter().map(|f| crate::format::sql_name(f.data_type()).to_string()).collect();
    let expected = ["DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIME", "DECIMAL(10, 3)", "BYTEA"];
    assert_eq!(types, expected);
}

#[test]
fn without_a_schema_types_say_it() {
    let row =
        r#"{"day":19782,"at":1709164800123456,"ms":1709164800123,"clock":62944000000,"price":"12.345","raw":"AQI="}"#;
    let texts = r#"{"day":"2024-03-01","at":"2024-03-01T01:00:00+01:00","ms":"2024-03-01","clock":"17:29:04","price":7,"raw":"_"}"#;
    let nulls = r#"{"day":null,"price":"MDk="}"#;
    let text = format!(
        "{{\"op\":\"c\",\"after\":{row}}}\n{{\"op\":\"c\",\"after\":{texts}}}\n{{\"op\":\"c\",\"after\":{nulls}}}\n"
    );
    let decoded = decoded(instants(), &[], &text);
    let expected = "+1 2024-02-29 2024-02-29T00:00:00.123456 2024-02-29T00:00:00.123 17:29:04 12.35 0102";
    assert_eq!(shown(&decoded), [expected]);
    let reasons = ["column \"raw\": \"_\" is not a BYTEA", "column \"price\": \"MDk=\" is not a DECIMAL(10, 2)"];
    assert_eq!(dead(&decoded), [(2, reasons[0].to_owned()), (3, reasons[1].to_owned())]);
}

#[test]
fn columns_may_be_what_is_said_besides() {
    let mut columns = people().fields().to_vec();
    let at = DataType::Timestamp(TimeUnit::Microsecond, None);
    for (name, key, data_type) in
        [("o", "op", DataType::Utf8View), ("t", "source.table", DataType::Utf8View), ("at", "source.ts_ms", at)]
    {
        columns.push(Arc::new(told(&Field::new(name, data_type, true), key)));
    }
    let text = r#"{"op":"c","after":{"id":1,"o":"mine"},"source":{"ts_ms":1500,"table":"people"}}
{"op":"d","before":{"id":1,"name":"x"},"source":{"ts_ms":1600,"table":"people"}}
"#;
    let decoded = decoded(Schema::new(columns), &["id"], text);
    assert_eq!(shown(&decoded), ["+1 1 - c people 1970-01-01T00:00:01.500", "-1 1 - - - -"]);
}

#[test]
fn records_without_a_value_are_tombstones() {
    let schema = Arc::new(people());
    let mut layout = Layout::new(&schema, &[0, 1], &Default::default()).expect("columns");
    layout.key = vec!["id".to_owned()];
    let options = RecordOptions { format: RecordFormat::Json(options()), fail: false };
    let mut decoder = RecordDecoder::new(&options, layout, "0".into()).expect("a decoder");
    let contents = [
        Some(r#"{"op":"c","after":{"id":1,"name":"a"}}"#),
        None,
        Some(""),
        Some(r#"[{"op":"c","after":{"id":2}}, {"op":"d","before":{"id":1}}]"#),
        Some("{"),
    ];
    let values: BinaryArray = contents.iter().map(|c| c.map(str::as_bytes)).collect();
    let records = Records::new(values, (10..15).collect()).expect("records");
    let (rows, dead) = decoder.decode(&records).expect("decodes").into_changes().expect("weights");
    assert_eq!(lines(rows.rows(), rows.weights().map(|w| &w[..])), ["+1 1 a", "+1 2 -", "-1 1 -"]);
    assert_eq!(dead.iter().map(|d| d.position).collect::<Vec<_>>(), [14]);
}

#[test]
fn columns_are_found_in_the_images() {
    let schema = json_schema(STORY.as_bytes(), &options()).expect("rows");
    let found: Vec<_> = schema.fields().iter().map(|f| (f.name().as_str(), f.data_type().clone())).collect();
    assert_eq!(found, [("id", DataType::Int64), ("name", DataType::Utf8View)]);
    assert!(json_schema(b"{\"id\":1}\n{}\nnull\n", &options()).is_none());
}
