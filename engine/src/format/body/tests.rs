//! Bodies of each format: rows, lines of what does not fit, and bodies that are broken.

use std::io::Cursor;

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type};
use arrow::ipc::writer::StreamWriter;

use super::*;
use crate::error::ErrorKind;
use crate::memory::MemoryBudget;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false), Field::new("t", DataType::Utf8View, true)]))
}

/// The numbers and texts that are read, and the line and reason of what is not.
type Found = (Vec<(i64, Option<String>)>, Vec<(u64, String)>);

fn decode(format: BodyFormat, body: impl Into<Vec<u8>>) -> Result<Found> {
    let input: Box<dyn Read + Send> = Box::new(Cursor::new(body.into()));
    let mut decoder = BodyDecoder::new(format, schema(), input, MemoryBudget::new(1 << 30).account("a body"), 1 << 30)?;
    let (mut rows, mut dead) = (vec![], vec![]);
    while let Some(decoded) = decoder.next_rows()? {
        assert_eq!(decoded.rows.schema(), schema());
        let (n, t) = (decoded.rows.column(0).as_primitive::<Int64Type>(), decoded.rows.column(1).as_string_view());
        rows.extend(n.values().iter().zip(t).map(|(n, t)| (*n, t.map(str::to_owned))));
        dead.extend(decoded.dead.into_iter().map(|d| (d.line.unwrap_or(0), d.reason)));
    }
    Ok((rows, dead))
}

fn row(n: i64, t: Option<&str>) -> (i64, Option<String>) {
    (n, t.map(str::to_owned))
}

#[test]
fn lines_of_json() {
    let (rows, dead) =
        decode(BodyFormat::JsonLines, "{\"n\":1,\"t\":\"a\"}\n\n{\"n\":\"x\"}\n{\"t\":\"b\"}\n{\"n\":2}")
            .expect("reads");
    assert_eq!(rows, [row(1, Some("a")), row(2, None)]);
    assert_eq!(dead.iter().map(|d| d.0).collect::<Vec<_>>(), [3, 4]);
    assert!(dead[0].1.contains("\"n\""), "{dead:?}");
    assert_eq!(decode(BodyFormat::JsonLines, "").expect("reads"), (vec![], vec![]));
}

#[test]
fn lines_beyond_a_block_keep_their_numbers() {
    let mut body = String::new();
    for n in 0..200_000 {
        body.push_str(if n % 50_000 == 49_999 { "{\"n\":true}\n" } else { "{\"n\":7}\n" });
    }
    let (rows, dead) = decode(BodyFormat::JsonLines, body).expect("reads");
    assert_eq!(rows.len(), 199_996);
    assert_eq!(dead.iter().map(|d| d.0).collect::<Vec<_>>(), [50_000, 100_000, 150_000, 200_000]);
}

#[test]
fn documents_of_json() {
    let (rows, dead) =
        decode(BodyFormat::Json, "[{\"n\":1},\n {\"n\":1.5},\n\n {\"n\":3,\"t\":\"c\"}, 4]").expect("reads");
    assert_eq!(rows, [row(1, None), row(3, Some("c"))]);
    assert_eq!(dead.iter().map(|d| d.0).collect::<Vec<_>>(), [2, 4]);
    assert_eq!(decode(BodyFormat::Json, " {\"n\":\n1}\n").expect("reads").0, [row(1, None)]);
    assert_eq!(decode(BodyFormat::Json, "[]").expect("reads"), (vec![], vec![]));
    for broken in ["[{\"n\":1}", "[{\"n\":1},]", "[{\"n\":1}] x", "", "nonsense", "\"a\""] {
        let (rows, dead) = decode(BodyFormat::Json, broken).expect("reads");
        assert_eq!((rows.len(), dead.len()), (0, 1), "{broken}: {dead:?}");
    }
    let (rows, dead) = decode(BodyFormat::Json, b"[{\"n\":1,\"t\":\"\xff\"},{\"n\":2}]".to_vec()).expect("reads");
    assert_eq!((rows.len(), dead.len()), (1, 1), "{dead:?}");
    let many = format!("[{}]", vec!["{\"n\":1}"; 3 * ITEMS + 1].join(","));
    assert_eq!(decode(BodyFormat::Json, many).expect("reads").0.len(), 3 * ITEMS + 1);
}

#[test]
fn csv_by_its_header() {
    let (rows, dead) = decode(BodyFormat::Csv, "T,other,N\n\"a\nb\",x,1\nc,y,zwei\nd,z,3\n").expect("reads");
    assert_eq!(rows, [row(1, Some("a\nb")), row(3, Some("d"))]);
    assert_eq!(dead.iter().map(|d| d.0).collect::<Vec<_>>(), [4]);
    assert_eq!(decode(BodyFormat::Csv, "n\n5\n").expect("reads").0, [row(5, None)]);
    assert_eq!(decode(BodyFormat::Csv, "n,t").expect("reads").0, []);
    let e = decode(BodyFormat::Csv, "t\na\n").expect_err("n must not be null");
    assert_eq!(e.message(), "the header lacks column \"n\", which must not be null");
    let e = decode(BodyFormat::Csv, "1,2\n").expect_err("no header");
    assert_eq!(e.kind(), ErrorKind::Invalid);
}

fn arrow_stream(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(vec![], &batches[0].schema()).expect("in memory");
    batches.iter().for_each(|batch| writer.write(batch).expect("in memory"));
    writer.into_inner().expect("in memory")
}

#[test]
fn arrow_by_names_and_values() {
    let batch = |n: Vec<Option<i64>>| {
        let t: ArrayRef = Arc::new(StringArray::from(vec!["x"; n.len()]));
        RecordBatch::try_from_iter([("T", t), ("n", Arc::new(Int64Array::from(n)) as ArrayRef)]).expect("two columns")
    };
    let body = arrow_stream(&[batch(vec![Some(1), None]), batch(vec![None, Some(2)])]);
    let (rows, dead) = decode(BodyFormat::Arrow, body.clone()).expect("reads");
    assert_eq!(rows, [row(1, Some("x")), row(2, Some("x"))]);
    assert_eq!(dead.iter().map(|d| d.0).collect::<Vec<_>>(), [2, 3]);
    let cut = body[..body.len() / 2].to_vec();
    assert_eq!(decode(BodyFormat::Arrow, cut).expect_err("half of it").kind(), ErrorKind::Data);
    assert_eq!(decode(BodyFormat::Arrow, "nonsense").expect_err("text").kind(), ErrorKind::Data);
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let other = arrow_stream(&[RecordBatch::try_from_iter([("m", column)]).expect("one column")]);
    assert_eq!(decode(BodyFormat::Arrow, other).expect_err("no column").message(), "the stream has no column \"m\"");
}

#[test]
fn a_document_is_a_part_of_the_budget() {
    let text = format!("[{}]", vec!["{\"n\":1}"; 1 << 20].join(","));
    let held = MemoryBudget::new(1 << 20).account("a body");
    let decoder = BodyDecoder::new(BodyFormat::Json, schema(), Box::new(Cursor::new(text.into_bytes())), held, 1 << 30);
    assert_eq!(decoder.err().expect("too much").kind(), ErrorKind::Exhausted);
}
