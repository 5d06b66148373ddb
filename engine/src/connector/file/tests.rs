use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::source::FileSource;
use super::*;
use crate::changes::Changes;
use crate::connector::{DeadLetter, Offsets};

const TIME: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

fn options(pairs: &[(&str, &str)]) -> Options {
    let values: BTreeMap<_, _> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Options::new("stream \"s\"", values)
}

fn request(columns: &[(&str, DataType)], projection: &[usize], pairs: &[(&str, &str)]) -> SourceRequest {
    let fields: Vec<_> = columns.iter().map(|(n, t)| Field::new(*n, t.clone(), true)).collect();
    SourceRequest {
        stream: "s".into(),
        schema: Arc::new(Schema::new(fields)),
        projection: projection.to_vec(),
        options: options(pairs),
        parallelism: 2,
    }
}

fn lines(changes: &Changes) -> Vec<String> {
    let format = FormatOptions::default().with_null("null");
    let rows = changes.rows();
    let columns: Vec<_> =
        rows.columns().iter().map(|c| ArrayFormatter::try_new(c, &format).expect("a type that prints")).collect();
    (0..rows.num_rows()).map(|r| columns.iter().map(|c| c.value(r).to_string()).collect::<Vec<_>>().join("|")).collect()
}

#[derive(Default, Debug, PartialEq)]
struct Got {
    rows: Vec<String>,
    dead: Vec<DeadLetter>,
    consumed: Offsets,
}

/// Reads until the input ends, or stops after `reads` reads as if the job had been killed.
async fn read(source: &dyn Source, got: &mut Got, mut reads: usize) -> Result<bool> {
    source.start(&got.consumed).await?;
    while let Some(unit) = source.next_unit().await? {
        let mut reader = source.open(&unit).await?;
        let mut at = unit.start;
        while let Some(read) = reader.next().await? {
            got.rows.extend(lines(&read.rows));
            got.dead.extend(read.dead);
            got.consumed.add(&unit.split, at..read.position);
            assert!(read.position >= at && read.position <= unit.end);
            // Only progress counts: the end of a compressed file is read again by each run.
            reads -= usize::from(read.position > at);
            at = read.position;
            if reads == 0 {
                return Ok(false);
            }
        }
        assert!(at == unit.end || unit.end == u64::MAX, "the unit is not done: {at} of {unit:?}");
    }
    for split in source.splits() {
        assert_eq!(split.end, Some(got.consumed.prefix(&split.name)), "{split:?}");
    }
    Ok(true)
}

async fn all(request: SourceRequest) -> Got {
    let source = FileSource::open(request).expect("good options");
    let mut got = Got::default();
    read(&source, &mut got, usize::MAX).await.expect("readable");
    got
}

fn put(path: &Path, bytes: impl AsRef<[u8]>) -> String {
    std::fs::write(path, bytes).expect("writable");
    path.to_str().expect("a plain path").to_owned()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    crate::format::compression::Compression::Gzip.compress(bytes.to_vec()).expect("memory")
}

#[tokio::test]
async fn json_lines_with_bad_ones() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let text = concat!(
        "{\"id\":1,\"Name\":\"a\\u00e9\\n\",\"x\":1.5,\"ok\":true,\"at\":1500}\n",
        "{\"at\":\"1970-01-01T00:00:02Z\",\"skip\":{\"a\":[1,\"}\"]},\"id\":2}\n",
        "{\"id\":\"3\"}\n",
        "\n",
        "{\"id\":4,\"x\":1e2,\"name\":12}\r\n",
        "{\"id\":5\n",
        "[1]\n",
        " { \"id\" : 6 , \"ok\" : null , \"name\" : {\"b\":1} } \n",
        "{\"id\":1.5}\n",
        "{}\n",
        "{\"id\":7,\"ok\":1}"
    );
    let path = put(&dir.path().join("a.json"), text);
    let columns = [
        ("id", DataType::Int64),
        ("name", DataType::Utf8View),
        ("x", DataType::Float64),
        ("ok", DataType::Boolean),
        ("at", TIME),
    ];
    let got = all(request(&columns, &[0, 1, 2, 3, 4], &[("path", &path)])).await;
    assert_eq!(
        got.rows,
        [
            "1|aé\n|1.5|true|1970-01-01T00:00:01.500",
            "2|null|null|null|1970-01-01T00:00:02",
            "4|12|100.0|null|null",
            "6|{\"b\":1}|null|null|null",
            "null|null|null|null|null"
        ]
    );
    let dead: Vec<_> = got.dead.iter().map(|d| (d.line, d.reason.as_str())).collect();
    assert_eq!(
        dead,
        [
            (Some(3), "column \"id\": \"3\" is not a BIGINT"),
            (Some(6), "expected ',' or '}' at character 8, found the end of the line"),
            (Some(7), "expected a JSON object at character 1, found '[1]'"),
            (Some(9), "column \"id\": 1.5 is not a BIGINT"),
            (Some(11), "column \"ok\": 1 is not a BOOLEAN"),
        ]
    );
    for d in &got.dead {
        let at = d.position as usize;
        assert_eq!(&text.as_bytes()[at..at + d.raw.len()], d.raw);
    }
    // A projection decodes only what is asked for, in its order; counting needs no column at all.
    let got = all(request(&columns, &[1, 0], &[("path", &path)])).await;
    assert_eq!(got.rows[2], "12|4");
    assert_eq!(got.dead.len(), 4);
    let got = all(request(&columns, &[], &[("path", &path)])).await;
    assert_eq!(got.rows.len(), 8);
}

#[tokio::test]
async fn nested_json_goes_through_arrow() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = put(
        &dir.path().join("a.jsonl"),
        "{\"b\":{\"price\":1,\"who\":\"x\"},\"t\":[1,2]}\n{\"b\":5}\n{\"b\":null,\"t\":[]}\n{\"b\":{\"price\":2}}\n",
    );
    let inner = vec![Field::new("price", DataType::Int64, true), Field::new("who", DataType::Utf8View, true)];
    let list = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
    let columns = [("b", DataType::Struct(inner.into())), ("t", list)];
    let got = all(request(&columns, &[0, 1], &[("path", &path)])).await;
    assert_eq!(got.rows, ["{price: 1, who: x}|[1, 2]", "null|[]", "{price: 2, who: null}|null"]);
    assert_eq!(got.dead.len(), 1);
    assert_eq!(got.dead[0].line, Some(2));
    let schema = infer_schema(options(&[("path", &path)])).expect("has objects");
    let names: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(names, ["b", "t"]);
    assert!(matches!(schema.field(0).data_type(), DataType::Utf8View | DataType::Struct(_)));
}

const TRIPS: &str = concat!(
    "\u{feff}vendor,Pickup,\"total, all\",flag,note\n",
    "1,2023-10-01 00:16:44,12.5,N,\"say \"\"hi\"\", you\"\n",
    "2,10/01/2023,3,Y,\n",
    "NA,,NA,,NA\n",
    "3,2023-10-01T01:00:00.25,7,n\n",
    "x,2023-10-01,1,N,\"\"\n",
    "4,2023-10-02,1,N,\"\"\r\n",
    "5,2023-10-02,1,N,\"open\n",
);

fn trips() -> [(&'static str, DataType); 5] {
    [
        ("total, all", DataType::Float64),
        ("pickup", TIME),
        ("VENDOR", DataType::Int32),
        ("flag", DataType::Boolean),
        ("note", DataType::Utf8View),
    ]
}

#[tokio::test]
async fn csv_by_header_with_nulls_and_bad_lines() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = put(&dir.path().join("t.csv"), TRIPS);
    let got = all(request(&trips(), &[2, 1, 0, 3, 4], &[("path", &path), ("null_values", "NA, -")])).await;
    assert_eq!(
        got.rows,
        [
            "1|2023-10-01T00:16:44|12.5|false|say \"hi\", you",
            "null|null|null|null|null",
            "4|2023-10-02T00:00:00|1.0|false|"
        ]
    );
    let dead: Vec<_> = got.dead.iter().map(|d| (d.line, d.reason.as_str())).collect();
    assert_eq!(
        dead,
        [
            (Some(3), "column \"pickup\": 10/01/2023 is not a TIMESTAMP"),
            (Some(5), "expected 5 fields, found 4"),
            (Some(6), "column \"VENDOR\": x is not a INTEGER"),
            (Some(8), "field 5: its quotes do not close"),
        ]
    );
    assert_eq!(got.dead[1].raw, b"3,2023-10-01T01:00:00.25,7,n");
    assert_eq!(got.dead[1].position, TRIPS.find("3,2023-10-01T01").expect("is there") as u64);
}

#[tokio::test]
async fn csv_without_header_and_with_other_characters() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = put(&dir.path().join("t.txt"), "1\t'a\\'b\nc'\t5\n2\tb\t6000\n");
    let columns = [("a", DataType::Int64), ("b", DataType::Utf8View), ("c", TIME)];
    let pairs = [
        ("path", path.as_str()),
        ("format", "csv"),
        ("header", "false"),
        ("delimiter", "tab"),
        ("quote", "'"),
        ("escape", "\\"),
        ("newlines_in_values", "true"),
        ("timestamp_format", "epoch_s"),
    ];
    let got = all(request(&columns, &[2, 1], &pairs)).await;
    assert_eq!(got.rows, ["1970-01-01T00:00:05|a'b\nc", "1970-01-01T01:40:00|b"]);
    assert_eq!(got.dead, []);
    let missing = all(request(&columns, &[0], &pairs[..3])).await;
    assert_eq!(missing.dead.len(), 3);
}

#[tokio::test]
async fn a_column_that_the_header_lacks_is_named() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = put(&dir.path().join("t.csv"), "a,b\n1,2\n");
    let source = FileSource::open(request(&[("fare", DataType::Int64)], &[0], &[("path", &path)])).expect("opens");
    let e = read(&source, &mut Got::default(), usize::MAX).await.expect_err("no such column");
    assert_eq!(e.message(), format!("file \"{path}\" has no column \"fare\""));
    assert!(e.hint().is_some_and(|h| h.contains("a, b")));
}

/// Splitting a file and being killed anywhere change nothing.
#[tokio::test]
async fn units_of_any_size_and_restarts_anywhere_read_the_same() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let csv = put(&dir.path().join("t.csv"), TRIPS);
    let zst = put(&dir.path().join("z.csv.zst"), zstd::encode_all(TRIPS.as_bytes(), 1).expect("memory"));
    let gz = put(&dir.path().join("z.csv.gz"), gzip(TRIPS.as_bytes()));
    for (path, sizes) in [(&csv, 1..60), (&zst, 1..2), (&gz, 1..2)] {
        let open = |size| {
            let source = FileSource::open(request(&trips(), &[0, 2, 4], &[("path", path), ("null_values", "NA")]));
            source.expect("opens").with_unit_bytes(size)
        };
        let mut whole = Got::default();
        read(&open(1 << 20), &mut whole, usize::MAX).await.expect("reads");
        assert_eq!(whole.rows.len(), 4);
        for size in sizes {
            for stop in [1, 2, 3, 5, 8, usize::MAX] {
                let mut got = Got::default();
                while !read(&open(size), &mut got, stop).await.expect("reads") {}
                got.dead.iter_mut().zip(&whole.dead).for_each(|(d, w)| d.line = w.line);
                assert_eq!((&got.rows, &got.dead), (&whole.rows, &whole.dead), "{path}, units of {size}, {stop} reads");
            }
        }
    }
}

#[tokio::test]
async fn a_truncated_gzip_gives_its_rows_and_one_dead_letter() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let text: String = (0..20_000).map(|i| format!("{{\"id\":{i},\"pad\":\"{}\"}}\n", (i * 7919) % 10_007)).collect();
    let bytes = gzip(text.as_bytes());
    let path = put(&dir.path().join("a.json.gz"), &bytes[..bytes.len() / 2]);
    let columns = [("id", DataType::Int64)];
    let got = all(request(&columns, &[0], &[("path", &path)])).await;
    assert!(got.rows.len() > 5_000, "{} rows", got.rows.len());
    assert!(got.rows.iter().enumerate().all(|(i, r)| *r == i.to_string()));
    let [dead] = got.dead.as_slice() else { panic!("{:?}", got.dead) };
    assert_eq!(dead.reason, "unexpected end of gzip data");
    assert_eq!(dead.line, Some(got.rows.len() as u64 + 1));
    let at = dead.position as usize;
    assert_eq!(&text.as_bytes()[at..at + dead.raw.len()], dead.raw);
    // A restart does not tell of it again.
    let source = FileSource::open(request(&columns, &[0], &[("path", &path)])).expect("opens");
    let mut again = Got { consumed: got.consumed.clone(), ..Got::default() };
    read(&source, &mut again, usize::MAX).await.expect("reads");
    assert_eq!(again, Got { consumed: got.consumed, ..Got::default() });
    // A job may also refuse.
    let source = FileSource::open(request(&columns, &[0], &[("path", &path), ("on_error", "fail")])).expect("opens");
    let e = read(&source, &mut Got::default(), usize::MAX).await.expect_err("is damaged");
    assert!(e.message().contains("unexpected end of gzip data") && e.message().contains(&path), "{e}");
}

#[tokio::test]
async fn following_sees_whole_lines_and_new_files() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().to_str().expect("a plain path").to_owned();
    put(&dir.path().join("a.json"), "{\"id\":1}\n{\"id\":");
    let pairs = [("path", folder.as_str()), ("format", "json"), ("follow", "true"), ("poll_interval", "5ms")];
    let source = FileSource::open(request(&[("id", DataType::Int64)], &[0], &pairs)).expect("opens");
    assert!(!source.bounded());
    source.start(&Offsets::default()).await.expect("starts");
    let next = async || {
        let wait = Duration::from_millis(100);
        let unit = tokio::time::timeout(wait, source.next_unit()).await.ok()?.expect("readable").expect("open");
        let mut reader = source.open(&unit).await.expect("opens");
        let mut rows = vec![];
        while let Some(read) = reader.next().await.expect("readable") {
            rows.extend(lines(&read.rows));
        }
        Some(rows.join(","))
    };
    let append = |name: &str, text: &str| {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(dir.path().join(name));
        file.and_then(|mut f| f.write_all(text.as_bytes())).expect("writable");
    };
    assert_eq!(next().await.as_deref(), Some("1"));
    assert_eq!(next().await, None);
    append("a.json", "2");
    assert_eq!(next().await, None);
    append("a.json", "}\n{\"id\":3}\n{\"i");
    assert_eq!(next().await.as_deref(), Some("2,3"));
    append("b.json", "{\"id\":9}\n");
    assert_eq!(next().await.as_deref(), Some("9"));
    append("a.json", "d\":4}\n");
    assert_eq!(next().await.as_deref(), Some("4"));
    put(&dir.path().join("a.json"), "");
    let e = tokio::time::timeout(Duration::from_secs(5), source.next_unit()).await.expect("soon");
    assert!(e.expect_err("cut").message().contains("was cut from"));
}

#[tokio::test]
async fn what_a_path_means() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| dir.path().join(name).to_str().expect("a plain path").to_owned();
    let open = |pairs: &[(&str, &str)]| FileSource::open(request(&[("a", DataType::Int64)], &[0], pairs));
    let e = open(&[("path", &at("none.csv"))]).err().expect("does not exist");
    assert_eq!(e.message(), format!("file \"{}\" does not exist", at("none.csv")));
    assert!(e.hint().is_some());
    assert!(open(&[("path", &at("")), ("format", "csv")]).is_err());
    assert!(open(&[("path", &at("")), ("format", "csv"), ("follow", "true")]).is_ok());
    std::fs::create_dir(at("sub")).expect("writable");
    put(&dir.path().join("2.csv"), "a\n2\n");
    put(&dir.path().join("1.csv"), "a\n1\n");
    put(&dir.path().join("sub/3.csv"), "a\n3\n");
    put(&dir.path().join(".hidden.csv"), "a\n4\n");
    let columns = [("a", DataType::Int64)];
    for path in [at(""), at("**/*.csv"), format!("{},{},{}", at("sub"), at("1.csv"), at("2*"))] {
        let got = all(request(&columns, &[0], &[("path", &path)])).await;
        let rows: Vec<_> = got.rows.iter().filter(|r| *r != "4").map(String::as_str).collect();
        assert_eq!(rows, ["1", "2", "3"], "{path}");
    }
    let source = open(&[("path", &at("")), ("ordered", "true")]).expect("opens");
    source.start(&Offsets::default()).await.expect("starts");
    let holds = || source.splits().iter().map(|s| s.holds).collect::<Vec<_>>();
    assert_eq!(holds(), [true, false, false]);
    source.next_unit().await.expect("readable");
    assert_eq!(holds(), [true, true, false]);
    put(&dir.path().join("x.json"), "{}");
    assert!(open(&[("path", &at(""))]).err().is_some_and(|e| e.message().contains("several formats")));
}

#[test]
fn columns_of_text_files_are_inferred() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let types = |path: &str, pairs: &[(&str, &str)]| {
        let pairs: Vec<_> = pairs.iter().copied().chain([("path", path)]).collect();
        let schema = infer_schema(options(&pairs)).expect("inferable");
        let name = |f: &Arc<Field>| format!("{} {}", f.name(), crate::format::sql_name(f.data_type()));
        schema.fields().iter().map(name).collect::<Vec<_>>().join(", ")
    };
    let csv =
        "id,fare,when,zip,ok,none,mixed\n1,2.5,2023-10-01 10:00:00,01234,true,,1\nNA,3,2023-10-02,99999,false,,x\n";
    let path = put(&dir.path().join("a.csv"), csv);
    assert_eq!(
        types(&path, &[("null_values", "NA")]),
        "id BIGINT, fare DOUBLE, when TIMESTAMP, zip TEXT, ok BOOLEAN, none TEXT, mixed TEXT"
    );
    assert!(types(&path, &[("header", "false")]).starts_with("column_1 TEXT, column_2 TEXT"));
    let path =
        put(&dir.path().join("a.json"), "{\"z\":1,\"b\":\"2023-10-01\"}\nbad\n{\"z\":1.5,\"c\":true,\"b\":\"x\"}\n");
    assert_eq!(types(&path, &[]), "z DOUBLE, b TEXT, c BOOLEAN");
}
