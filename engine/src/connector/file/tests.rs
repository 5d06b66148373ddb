//! Files of each format read in units, whole, compressed, broken and growing.

use std::collections::{BTreeMap, HashSet};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::source::{FileSource, OpenFiles};
use super::*;
use crate::changes::Changes;
use crate::connector::{Commit, DeadLetter, Intake, Offsets, Opening, Readers, Staged, Start, Unit};
use crate::epoch::EpochMark;
use crate::memory::MemoryBudget;

mod metadata;

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
        metadata: BTreeMap::new(),
        options: options(pairs),
        key: vec![],
        event_time: None,
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

/// Begins to read what was not `consumed`.
async fn begun(source: &FileSource, consumed: &Offsets, state: Option<&serde_json::Value>) -> Result<Arc<OpenFiles>> {
    let (consumed, state) = (consumed.clone(), state.cloned());
    source.begin(Opening { consumed, state, ..Opening::new(MemoryBudget::new(0)) }).await
}

/// Begins to read everything.
async fn anew(source: &FileSource) -> Arc<OpenFiles> {
    begun(source, &Offsets::default(), None).await.expect("starts")
}

/// Reads until the input ends, or stops after `reads` reads as if the job had been killed.
async fn read(source: &FileSource, got: &mut Got, reads: usize) -> Result<bool> {
    read_on(&*begun(source, &got.consumed, None).await?, got, reads).await
}

async fn read_on(source: &OpenFiles, got: &mut Got, mut reads: usize) -> Result<bool> {
    while let Some(unit) = source.next_unit().await? {
        let mut reader = source.readers.read(&unit).await?;
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
    let source = FileSource::new(request).expect("good options");
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

/// What readers get that know the plan alone, of the units of an intake that is elsewhere.
async fn read_elsewhere(source: &FileSource, there: FileSource) -> Got {
    let (intake, mut got) = (anew(source).await, Got::default());
    let there = Arc::new(there).readers().expect("any process can");
    while let Some(unit) = intake.next_unit().await.expect("readable") {
        let mut reader = there.read(&unit).await.expect("opens");
        let mut at = unit.start;
        while let Some(read) = reader.next().await.expect("readable") {
            got.rows.extend(lines(&read.rows));
            got.dead.extend(read.dead);
            at = read.position;
        }
        assert!(reader.is_whole());
        got.consumed.add(&unit.split, unit.start..at);
        if unit.end == u64::MAX {
            intake.ended(&unit, at);
        }
    }
    for split in intake.splits() {
        assert_eq!(split.end, Some(got.consumed.prefix(&split.name)), "{split:?}");
    }
    got
}

#[tokio::test]
async fn files_that_stay_as_they_are_can_be_read_elsewhere() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().to_str().expect("a plain path").to_owned();
    let csv = (0..500).fold("id\n".to_owned(), |text, i| text + &format!("{i}\n"));
    put(&dir.path().join("a.csv"), &csv);
    put(&dir.path().join("b.csv.gz"), gzip(csv.as_bytes()));
    put(&dir.path().join("c.csv"), "id\n1\nx\n2");
    let mut parquet = vec![];
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut parquet, batch(0, 1).schema(), None).expect("a writer");
    for from in [0, 700] {
        writer.write(&batch(from, 700)).expect("writes");
        writer.flush().expect("ends a row group");
    }
    writer.close().expect("ends");
    let other = tempfile::tempdir().expect("a temporary folder");
    let file = put(&other.path().join("d.parquet"), parquet);
    let shared = ("shared", "true");
    let csv = [("path", folder.as_str()), ("format", "csv"), shared];
    // A row group is a unit.
    for (column, pairs) in [("id", &csv[..]), ("Id", &[("path", file.as_str()), shared])] {
        let wanted = || {
            let request = request(&[(column, DataType::Int64)], &[0], pairs);
            FileSource::new(request).expect("opens").with_unit_bytes(100)
        };
        let mut here = Got::default();
        assert!(read(&wanted(), &mut here, usize::MAX).await.expect("readable"));
        assert!(here.rows.len() > 1000);
        assert_eq!(read_elsewhere(&wanted(), wanted()).await, here, "{pairs:?}");
    }
    for (n, more) in [(3, ("follow", "true")), (3, ("rate", "10")), (2, ("ordered", "true"))] {
        let request = request(&[("id", DataType::Int64)], &[0], &[&csv[..n], &[more]].concat());
        assert!(Arc::new(FileSource::new(request).expect("opens")).readers().is_none(), "{more:?}");
    }
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
            (Some(6), "column \"VENDOR\": x is not an INTEGER"),
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
    let wanted = |pairs: &[(&str, &str)]| request(&[("fare", DataType::Int64)], &[0], pairs);
    let open = |pairs: &[(&str, &str)]| FileSource::new(wanted(pairs));
    let e = check_source(wanted(&[("path", &path)])).expect_err("no such column");
    assert_eq!(e.message(), format!("file \"{path}\" has no column \"fare\""));
    assert!(e.hint().is_some_and(|h| h.contains("a, b")));
    let gz = put(&dir.path().join("z.csv.gz"), gzip(b"\"x\ny\",b\n1,2\n"));
    let e = check_source(wanted(&[("path", &gz), ("newlines_in_values", "true")])).expect_err("no such column");
    assert!(e.hint().is_some_and(|h| h.contains("x\ny, b")), "{e:?}");
    // By position, or where there is no header yet, nothing is known.
    assert!(check_source(wanted(&[("path", &path), ("header", "false")])).is_ok());
    // It is checked once: what is there later is input.
    assert!(open(&[("path", &path)]).is_ok());
    let folder = dir.path().join("more");
    std::fs::create_dir(&folder).expect("a folder");
    let first = put(&folder.join("a.csv"), "fa");
    let path = folder.to_str().expect("a plain path");
    check_source(wanted(&[("path", path), ("follow", "true"), ("format", "csv")])).expect("has no whole line");
    // One among others is put aside, whichever comes first.
    let (one, other) = ("fare\n1\n2\n", "a,b\n1,2\n3,4\n5,6\n");
    let second = folder.join("b.csv");
    for (a, b, odd) in [(one, other, second.to_str().expect("plain").to_owned()), (other, one, first.clone())] {
        put(Path::new(&first), a);
        put(&second, b);
        let message = format!("file \"{odd}\" has no column \"fare\"");
        for size in [2, 1 << 20] {
            for stop in [1, 2, usize::MAX] {
                let mut got = Got::default();
                let open = || open(&[("path", path), ("format", "csv")]).expect("opens").with_unit_bytes(size);
                while !read(&open(), &mut got, stop).await.expect("goes on") {}
                got.rows.sort();
                assert_eq!(got.rows, ["1", "2"]);
                assert!(got.dead.iter().all(|d| *d.split == *odd && d.reason.starts_with(&message)), "{:?}", got.dead);
                assert!(stop < usize::MAX || got.dead.len() == 1, "it is told once: {:?}", got.dead);
            }
        }
        let source = open(&[("path", path), ("format", "csv"), ("on_error", "fail")]).expect("opens");
        let e = read(&source, &mut Got::default(), usize::MAX).await.expect_err("no such column");
        assert_eq!(e.message(), message);
    }
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
            let source = FileSource::new(request(&trips(), &[0, 2, 4], &[("path", path), ("null_values", "NA")]));
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
    let source = FileSource::new(request(&columns, &[0], &[("path", &path)])).expect("opens");
    let mut again = Got { consumed: got.consumed.clone(), ..Got::default() };
    read(&source, &mut again, usize::MAX).await.expect("reads");
    assert_eq!(again, Got { consumed: got.consumed, ..Got::default() });
    // A job may also refuse.
    let source = FileSource::new(request(&columns, &[0], &[("path", &path), ("on_error", "fail")])).expect("opens");
    let e = read(&source, &mut Got::default(), usize::MAX).await.expect_err("is damaged");
    assert!(e.message().contains("unexpected end of gzip data") && e.message().contains(&path), "{e}");
}

#[tokio::test]
async fn following_sees_whole_lines_and_new_files() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().to_str().expect("a plain path").to_owned();
    put(&dir.path().join("a.json"), "{\"id\":1}\n{\"id\":");
    let pairs = [("path", folder.as_str()), ("format", "json"), ("follow", "true"), ("poll_interval", "5ms")];
    let source = FileSource::new(request(&[("id", DataType::Int64)], &[0], &pairs)).expect("opens");
    assert!(!source.bounded());
    let source = anew(&source).await;
    let next = async || {
        let wait = Duration::from_millis(100);
        let unit = tokio::time::timeout(wait, source.next_unit()).await.ok()?.expect("readable").expect("open");
        let mut reader = source.readers.read(&unit).await.expect("opens");
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
    assert!(e.expect_err("cut").message().contains("was cut from 36 to 0 bytes"));
}

#[tokio::test]
async fn a_followed_file_that_is_cut_or_replaced_is_an_error() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let at = dir.path().join("app.json");
    let path = put(&at, "{\"id\":1}\n{\"id\":2}\n");
    let pairs = [("path", path.as_str()), ("follow", "true"), ("poll_interval", "5ms")];
    let open = || FileSource::new(request(&[("id", DataType::Int64)], &[0], &pairs)).expect("opens");
    // A store that keeps offsets only.
    let mut consumed = Offsets::default();
    consumed.add(&path, 0..18);
    put(&at, "{\"id\":3}\n");
    let e = begun(&open(), &consumed, None).await.err().expect("rows would be passed over");
    assert_eq!(
        e.message(),
        format!("file \"{path}\" has 9 bytes, of which 18 were read before: it was cut or replaced")
    );
    assert!(e.hint().is_some_and(|h| h.contains("rotation")), "{e:?}");
    put(&at, "{\"id\":1}\n{\"id\":2}\n");
    let source = begun(&open(), &consumed, None).await.expect("all was read");
    let state = source.state().await.expect("known");
    // Removed and written anew, longer than before.
    std::fs::remove_file(&at).expect("removes");
    put(&at, "{\"id\":3}\n".repeat(9));
    let e = begun(&open(), &consumed, Some(&state)).await.err().expect("it is another file");
    let replaced = "was replaced by another file after 18 bytes of it were taken, and is not found beside it";
    assert_eq!(e.message(), format!("file \"{path}\" {replaced}"));
    // It may be away at the start, but not when the stream is created.
    std::fs::remove_file(&at).expect("removes");
    let source = begun(&open(), &consumed, Some(&state)).await.expect("may come back");
    put(&at, "{\"id\":1}\n{\"id\":2}\n{\"id\":3}\n");
    let unit = tokio::time::timeout(Duration::from_secs(5), source.next_unit()).await.expect("soon");
    assert_eq!(unit.expect("is the same"), Some(Unit { split: path.as_str().into(), start: 18, end: 27 }));
    std::fs::remove_file(&at).expect("removes");
    let e = check_source(request(&[("id", DataType::Int64)], &[0], &pairs)).expect_err("is not there");
    assert!(e.message().contains("does not exist"), "{e}");
}

/// Reads units until `rows` rows have come, with the dead letters.
async fn read_some(source: &OpenFiles, rows: usize, dead: usize) -> Got {
    let mut got = Got::default();
    while got.rows.len() < rows || got.dead.len() < dead {
        let unit = tokio::time::timeout(Duration::from_secs(5), source.next_unit()).await;
        let Ok(unit) = unit else { panic!("no more than {got:?}") };
        let unit = unit.expect("readable").expect("open");
        let mut reader = source.readers.read(&unit).await.expect("opens");
        while let Some(read) = reader.next().await.expect("readable") {
            got.rows.extend(lines(&read.rows));
            got.dead.extend(read.dead);
        }
    }
    got
}

#[tokio::test]
async fn a_file_that_moves_before_it_is_opened_is_read_where_it_is_then() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().to_str().expect("a plain path").to_owned();
    let pairs = [
        ("path", folder.as_str()),
        ("format", "json"),
        ("follow", "true"),
        ("poll_interval", "5ms"),
        ("settle", "200ms"),
    ];
    let source = anew(&FileSource::new(request(&[("id", DataType::Int64)], &[0], &pairs)).expect("opens")).await;
    put(&dir.path().join("z.json.gz"), gzip(b"{\"id\":1}\n{\"id\":2}\n"));
    let unit = source.next_unit().await.expect("readable").expect("open");
    std::fs::rename(dir.path().join("z.json.gz"), dir.path().join("y.json.gz")).expect("moves");
    let mut reader = source.readers.read(&unit).await.expect("opens");
    assert!(reader.next().await.expect("readable").is_none() && !reader.is_whole(), "is given back");
    let got = read_some(&source, 2, 0).await;
    assert_eq!(got.rows, ["1", "2"]);
    // One that does not come back is told of, and read should it do so after all.
    let other = tempfile::tempdir().expect("a temporary folder");
    let (x, away) = (dir.path().join("x.json.gz"), other.path().join("away"));
    put(&x, gzip(b"{\"id\":3}\n"));
    let unit = source.next_unit().await.expect("readable").expect("open");
    std::fs::rename(&x, &away).expect("moves");
    let reader = source.readers.read(&unit).await.expect("opens");
    assert!(!reader.is_whole());
    let got = read_some(&source, 0, 1).await;
    assert_eq!(got.dead[0].reason, format!("file \"{}\" vanished before it was read to its end", unit.split));
    std::fs::rename(&away, &x).expect("moves");
    let got = read_some(&source, 1, 0).await;
    assert_eq!(got.rows, ["3"]);
    // Another name in the folder does not hide it, nor how it is compressed.
    put(&x.with_file_name("w.json.gz"), gzip(b"{\"id\":4}\n"));
    let unit = source.next_unit().await.expect("readable").expect("open");
    std::fs::rename(dir.path().join("w.json.gz"), dir.path().join(".w")).expect("moves");
    assert!(!source.readers.read(&unit).await.expect("opens").is_whole());
    let got = read_some(&source, 1, 0).await;
    assert_eq!(got.rows, ["4"]);
}

/// A source that follows `name` in `dir`.
fn follower(dir: &Path, name: &str) -> FileSource {
    let path = dir.join(name).to_string_lossy().into_owned();
    let pairs = [
        ("path", path.as_str()),
        ("format", "json"),
        ("follow", "true"),
        ("poll_interval", "5ms"),
        ("settle", "200ms"),
    ];
    FileSource::new(request(&[("id", DataType::Int64)], &[0], &pairs)).expect("opens")
}

#[tokio::test]
async fn lines_that_were_cut_before_they_were_read_are_read_of_the_copy() {
    for then in ["", "{\"id\":3}\n", "{\"id\":3}\n{\"id\":4}\n{\"id\":5}\n"] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let log = dir.path().join("app.log");
        put(&log, "{\"id\":1}\n{\"id\":2}\n");
        let source = anew(&follower(dir.path(), "app.log*")).await;
        let unit = source.next_unit().await.expect("readable").expect("open");
        std::fs::copy(&log, dir.path().join("app.log.1")).expect("copies");
        let file = std::fs::OpenOptions::new().write(true).truncate(true).open(&log).expect("opens");
        std::io::Write::write_all(&mut &file, then.as_bytes()).expect("writable");
        let mut reader = source.readers.read(&unit).await.expect("opens");
        assert!(reader.next().await.expect("readable").is_none() && !reader.is_whole(), "{then:?}: is given back");
        let more = then.lines().count();
        let mut got = read_some(&source, 2 + more, 0).await.rows;
        got.sort();
        assert_eq!(got, ["1", "2", "3", "4", "5"][..2 + more], "{then:?}");
    }
}

#[tokio::test]
async fn a_copy_of_a_file_that_is_as_new_waits() {
    for name in ["app.log.1", "app.log-20260102"] {
        for path in ["app.log", "app.log*"] {
            let dir = tempfile::tempdir().expect("a temporary folder");
            let log = dir.path().join("app.log");
            put(&log, "{\"id\":1}\n");
            let source = anew(&follower(dir.path(), path)).await;
            assert_eq!(read_some(&source, 1, 0).await.rows, ["1"]);
            // Between two looks the file is rotated, the next one is written and is being copied and cut.
            std::fs::rename(&log, dir.path().join("app.log.2")).expect("moves");
            put(&log, "{\"id\":2}\n");
            std::fs::copy(&log, dir.path().join(name)).expect("copies");
            assert_eq!(read_some(&source, 1, 0).await.rows, ["2"]);
            put(&log, "");
            tokio::time::sleep(Duration::from_millis(300)).await;
            put(&log, "{\"id\":3}\n");
            assert_eq!(read_some(&source, 1, 0).await.rows, ["3"], "{name}, {path}: nothing comes twice");
        }
    }
}

#[tokio::test]
async fn a_known_file_that_takes_the_place_of_a_new_one_is_not_taken_for_it() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (log, new) = (dir.path().join("app.log"), dir.path().join("app.log.1"));
    put(&log, "{\"id\":1}\n");
    let source = anew(&follower(dir.path(), "app.log*")).await;
    assert_eq!(read_some(&source, 1, 0).await.rows, ["1"]);
    // It is listed, and then others are renamed.
    put(&new, "{\"id\":2}\n");
    let stamp = super::print::Stamp::of(&std::fs::metadata(&new).expect("is there"));
    std::fs::rename(&new, dir.path().join("app.log.2")).expect("moves");
    std::fs::rename(&log, &new).expect("moves");
    let file = FoundFile { name: new.to_string_lossy().into(), path: new, alone: false, plain: false, object: None };
    source.scanner.lock().take(file, stamp, &HashSet::new(), &source.queue).expect("readable");
    assert_eq!(read_some(&source, 1, 0).await.rows, ["2"]);
    put(&log, "{\"id\":3}\n");
    assert_eq!(read_some(&source, 1, 0).await.rows, ["3"], "nothing comes twice");
}

#[tokio::test]
async fn a_file_that_is_not_followed_must_stay_the_same() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let at = dir.path().join("a.csv");
    let path = put(&at, "id\n1\n2\n3\n");
    let open = || {
        let request = request(&[("id", DataType::Int64)], &[0], &[("path", path.as_str())]);
        FileSource::new(request).expect("opens").with_unit_bytes(5)
    };
    let mut got = Got::default();
    let source = anew(&open()).await;
    assert!(!read_on(&source, &mut got, 1).await.expect("reads"));
    let state = source.state().await.expect("known");
    for (text, error) in
        [("id\n7\n8\n9\n", "was replaced by another file after 9 bytes"), ("id\n1\n", "was cut from 9 to 5 bytes")]
    {
        put(&at, text);
        let e = begun(&open(), &got.consumed, Some(&state)).await.err().expect("is another");
        assert!(e.message().contains(error), "{e}");
    }
    put(&at, "id\n1\n2\n3\n4\n");
    let source = begun(&open(), &got.consumed, Some(&state)).await.expect("is longer");
    assert!(read_on(&source, &mut got, usize::MAX).await.expect("reads"));
    assert_eq!(got.rows, ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn what_a_path_means() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| dir.path().join(name).to_str().expect("a plain path").to_owned();
    let wanted = |pairs: &[(&str, &str)]| request(&[("a", DataType::Int64)], &[0], pairs);
    let open = |pairs: &[(&str, &str)]| FileSource::new(wanted(pairs));
    let e = check_source(wanted(&[("path", &at("none.csv"))])).expect_err("does not exist");
    assert_eq!(e.message(), format!("file \"{}\" does not exist", at("none.csv")));
    assert!(e.hint().is_some());
    // Only a start and a check look.
    let source = open(&[("path", &at("none.csv")), ("format", "csv")]).expect("opens nothing");
    let e = begun(&source, &Offsets::default(), None).await.err().expect("is not there");
    assert!(e.message().contains("does not exist"), "{e}");
    assert!(check_source(wanted(&[("path", &at("")), ("format", "csv")])).is_err());
    assert!(check_source(wanted(&[("path", &at("")), ("format", "csv"), ("follow", "true")])).is_ok());
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
    let source = anew(&open(&[("path", &at("")), ("ordered", "true")]).expect("opens")).await;
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

#[tokio::test]
async fn both_rows_of_a_change_are_read_together() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut text = "{\"_op\":\"+I\",\"id\":0}\n".to_owned();
    // More than a batch, and more than a block.
    for i in 0..60_000 {
        text += &format!("{{\"_op\":\"-U\",\"id\":{i}}}\n{{\"id\":{},\"_op\":\"+U\"}}\n", i + 1);
    }
    let all_rows = 120_001;
    let path = put(&dir.path().join("a.json"), text);
    let pairs = [("path", path.as_str()), ("changes", "true")];
    let source = anew(&FileSource::new(request(&[("id", DataType::Int64)], &[0], &pairs)).expect("opens")).await;
    let (mut rows, mut sum, mut reads) = (0, 0, 0);
    while let Some(unit) = source.next_unit().await.expect("more") {
        let mut reader = source.readers.read(&unit).await.expect("opens");
        while let Some(read) = reader.next().await.expect("reads") {
            rows += read.rows.num_rows();
            sum += (0..read.rows.num_rows()).map(|i| read.rows.weight(i)).sum::<i64>();
            reads += 1;
            assert_eq!(sum, 1, "after {rows} rows");
        }
    }
    assert!(rows == all_rows && reads > 6, "{rows} rows in {reads} reads");
}

fn batch(from: i64, rows: i64) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + rows));
    let names: ArrayRef = Arc::new(StringArray::from_iter_values((from..from + rows).map(|i| format!("n{i}"))));
    let times = TimestampNanosecondArray::from_iter_values((from..from + rows).map(|i| (i + 5) * 1_000_001));
    let wide: ArrayRef = Arc::new(Int64Array::from_iter_values((from..from + rows).map(|i| i << 20)));
    let columns = [("Id", ids), ("name", names), ("at", Arc::new(times) as ArrayRef), ("wide", wide)];
    RecordBatch::try_from_iter(columns).expect("equal lengths")
}

fn parquet(rows: i64, group: usize) -> Vec<u8> {
    let properties = parquet::file::properties::WriterProperties::builder().set_max_row_group_row_count(Some(group));
    let first = batch(0, rows);
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(vec![], first.schema(), Some(properties.build())).expect("ok");
    writer.write(&first).expect("writes");
    writer.into_inner().expect("ends")
}

#[tokio::test]
async fn parquet_and_arrow_are_read_by_name_and_cast() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = put(&dir.path().join("a.parquet"), parquet(1000, 300));
    let mut ipc = arrow::ipc::writer::FileWriter::try_new(vec![], &batch(0, 1).schema()).expect("ok");
    let mut stream = arrow::ipc::writer::StreamWriter::try_new(vec![], &batch(0, 1).schema()).expect("ok");
    for from in [0, 400] {
        ipc.write(&batch(from, 400 + from / 2)).expect("writes");
        stream.write(&batch(from, 400 + from / 2)).expect("writes");
    }
    let ipc = put(&dir.path().join("a.arrow"), ipc.into_inner().expect("ends"));
    let stream = put(&dir.path().join("b.arrow"), stream.into_inner().expect("ends"));
    let columns = [("at", TIME), ("name", DataType::Utf8View), ("id", DataType::Int64), ("wide", DataType::Int32)];
    for path in [&file, &ipc, &stream] {
        let got = all(request(&columns, &[2, 0, 1], &[("path", path)])).await;
        assert_eq!(got.rows.len(), 1000);
        for (i, row) in got.rows.iter().enumerate() {
            let us = (i + 5) * 1_000_001 / 1000;
            let time = crate::time::EventTime(us as i64).to_string().replace(' ', "T");
            assert!(row.starts_with(&format!("{i}|{time}")) && row.ends_with(&format!("|n{i}")), "{row}, not {time}");
        }
        let bad = all(request(&[("wide", DataType::Int16)], &[0], &[("path", path)])).await;
        assert_eq!((bad.rows.len(), bad.dead.len()), (1, 999), "only 0 is small enough");
        assert_eq!(bad.dead[1].position, 2);
        assert_eq!(bad.dead[1].reason, "column \"wide\": 2097152 is not a SMALLINT");
        for stop in [1, 2, 5] {
            let mut again = Got::default();
            let open = || FileSource::new(request(&columns, &[2, 0, 1], &[("path", path)])).expect("opens");
            while !read(&open(), &mut again, stop).await.expect("reads") {}
            assert_eq!(again.rows, got.rows, "{path}, killed after {stop} reads");
        }
        assert_eq!(all(request(&columns, &[], &[("path", path)])).await.rows.len(), 1000);
        let schema = infer_schema(options(&[("path", path)])).expect("has a schema");
        assert_eq!(schema.field(1).data_type(), &DataType::Utf8View);
        let e = check_source(request(&[("none", TIME)], &[0], &[("path", path)])).expect_err("no such column");
        assert_eq!(e.message(), format!("file \"{path}\" has no column \"none\""));
    }
    for (event_time, min) in [(None, None), (Some(0), Some(crate::time::EventTime(5_000)))] {
        // No other timestamp counts.
        let request = request(&[&columns[..], &[("at2", TIME)]].concat(), &[2], &[("path", &file)]);
        let source = anew(&FileSource::new(SourceRequest { event_time, ..request }).expect("opens")).await;
        assert_eq!(source.splits()[0].min_time, min);
    }
    put(&dir.path().join("bad.parquet"), "not parquet");
    let path = dir.path().join("bad.parquet").to_str().expect("a plain path").to_owned();
    let e = check_source(request(&columns, &[2], &[("path", &path)])).expect_err("not Parquet");
    assert!(e.message().contains("bad.parquet"), "{e}");
}

fn sink(pairs: &[(&str, &str)], retracts: bool) -> Arc<dyn Sink> {
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
    let request =
        SinkRequest { stream: "s".into(), schema, retracts, key: None, options: options(pairs), parallelism: 2 };
    sink::open(request).expect("good options")
}

fn changes(values: &[i64]) -> Changes {
    let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
    Changes::insertions(RecordBatch::try_from_iter([("a", column)]).expect("one column"))
}

fn mark(epoch: u64) -> EpochMark {
    EpochMark {
        epoch,
        now: crate::time::EventTime::MIN,
        watermark: crate::time::EventTime::MIN,
        checkpoint: None,
        end: false,
        depth: 0,
    }
}

async fn commit(sink: &dyn Sink, checkpoint: u64, staged: &[Staged]) {
    let watermark = crate::time::EventTime::MIN;
    let commit = Commit { checkpoint, epoch: checkpoint, watermark, end: false, staged };
    sink.commit(&commit).await.expect("commits");
}

/// Two tasks write and stage, the commit comes zero to two times, a crash comes, and another run goes on.
#[tokio::test]
async fn rows_are_written_once_whatever_crashes() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for target in ["one.csv", "one.json", "zipped.csv.gz", "csv", "json", "parquet"] {
        for commits in 0..3 {
            let path = dir.path().join(format!("{commits}")).join(target);
            std::fs::create_dir_all(path.parent().expect("has one")).expect("writable");
            let path = path.to_str().expect("a plain path").to_owned();
            let format = if target.contains("csv") { "csv" } else { target.rsplit('.').next().expect("one") };
            let pairs = [("path", path.as_str()), ("format", format)];
            let mut committed = vec![];
            for run in 0..3i64 {
                let sink = sink(&pairs, false);
                sink.start(Start::new(&committed, 1)).await.expect("starts");
                let mut writers = [sink.open(0).expect("opens"), sink.open(1).expect("opens")];
                for checkpoint in 1..3 {
                    committed.clear();
                    let id = run * 2 + checkpoint as i64;
                    for (task, writer) in writers.iter_mut().enumerate() {
                        writer.write(changes(&[id * 10 + task as i64])).await.expect("writes");
                        committed.extend(writer.stage(run as u64 * 2 + checkpoint).await.expect("stages"));
                    }
                    let times = if checkpoint == 1 { 1 } else { commits };
                    for _ in 0..times {
                        commit(&*sink, run as u64 * 2 + checkpoint, &committed).await;
                    }
                }
                writers[0].write(changes(&[-1])).await.expect("writes");
                writers[1].write(changes(&[-2])).await.expect("writes");
                writers[1].stage(99).await.expect("stages");
            }
            sink(&pairs, false).start(Start::new(&committed, 1)).await.expect("starts");
            sink(&pairs, false).start(Start::new(&committed, 1)).await.expect("starts");
            let mut rows = all(request(&[("a", DataType::Int64)], &[0], &pairs)).await.rows;
            rows.sort_by_key(|r| r.parse::<i64>().ok());
            let expected: Vec<_> = (1..7).flat_map(|id| [id * 10, id * 10 + 1]).map(|n| n.to_string()).collect();
            assert_eq!(rows, expected, "{target}, committed {commits} times before the crash");
        }
    }
}

#[tokio::test]
async fn a_writer_gives_back_the_rows_of_its_row_group() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().to_str().expect("a plain path");
    let sink = sink(&[("path", path), ("format", "parquet")], false);
    sink.start(Start::new(&[], 1)).await.expect("starts");
    let mut writer = sink.open(0).expect("opens");
    assert_eq!(writer.bytes(), 0);
    // Values that differ in all their bits, so that they take what they take.
    let values: Vec<i64> = (0..200_000i64).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64)).collect();
    for some in values.chunks(10_000) {
        writer.write(changes(some)).await.expect("writes");
    }
    let before = writer.bytes();
    assert!(before > 1_000_000, "{before}");
    writer.shrink().await.expect("writes");
    assert!(writer.bytes() < 400_000, "{} of {before}", writer.bytes());
    writer.write(changes(&[1, 2, 3])).await.expect("writes");
    let staged = writer.stage(1).await.expect("stages");
    assert_eq!(writer.bytes(), 0);
    commit(&*sink, 1, &staged).await;
    let rows = all(request(&[("a", DataType::Int64)], &[0], &[("path", path), ("format", "parquet")])).await.rows;
    assert_eq!(rows.len(), 200_003);
}

#[test]
fn an_export_gives_back_what_it_can() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for format in [Format::Parquet, Format::Csv] {
        let target = dir.path().join(format.name());
        let fields = ["k", "v"].map(|name| Field::new(name, DataType::Int64, true));
        let schema = Arc::new(Schema::new(fields.to_vec()));
        let mut export = export::Export::begin(export::ExportRequest {
            target: target.to_str().expect("a plain path").to_owned(),
            format: Some(format),
            schema: schema.clone(),
            partition_by: vec!["k".to_owned()],
            existing: export::Existing::default(),
            options: options(&[]),
        })
        .expect("begins");
        for _ in 0..4 {
            let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((0..40_000).map(|i| i % 40)));
            let values = (0..40_000i64).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64));
            let columns = vec![keys, Arc::new(Int64Array::from_iter_values(values)) as ArrayRef];
            export.write(&RecordBatch::try_new(schema.clone(), columns).expect("rows")).expect("writes");
            let before = export.bytes();
            assert!(before > 1 << 20, "{before}");
            export.shrink(false).expect("writes");
            assert_eq!(export.bytes(), before, "none of it is worth it");
            export.shrink(true).expect("writes");
            assert!(export.bytes() <= before / 2, "{} of {before}", export.bytes());
        }
        assert_eq!(export.rows(), 160_000);
        export.finish().expect("ends");
        let files = glob::glob(&format!("{}/k=*/*", target.display())).expect("a pattern").count();
        assert!(files >= 40 && (files > 40) == format.is_text(), "{files}: row groups end before files do");
    }
}

#[tokio::test]
async fn a_crash_inside_an_append_is_repaired() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("out.csv");
    let pairs = [("path", path.to_str().expect("a plain path"))];
    let first = sink(&pairs, true);
    first.start(Start::new(&[], 1)).await.expect("starts");
    let mut writer = first.open(0).expect("opens");
    let mut stage = async |n: u64| {
        writer.write(changes(&[n as i64; 3])).await.expect("writes");
        writer.epoch(&mark(n)).await.expect("ends");
        writer.stage(n).await.expect("stages")
    };
    let one = stage(1).await;
    commit(&*first, 1, &one).await;
    let two = stage(2).await;
    let staging = dir.path().join(".out.csv.staging");
    let kept = std::fs::read(staging.join("part-0-000002.csv")).expect("staged");
    commit(&*first, 2, &two).await;
    // As if the process had ended in the middle of the second append.
    std::fs::write(staging.join("part-0-000002.csv"), kept).expect("writable");
    let text = std::fs::read_to_string(&path).expect("committed");
    std::fs::write(&path, &text[..text.len() - 4]).expect("writable");
    sink(&pairs, true).start(Start::new(&two, 2)).await.expect("starts");
    assert_eq!(std::fs::read_to_string(&path).expect("committed"), "_op,a\n+I,1\n+I,1\n+I,1\n+I,2\n+I,2\n+I,2\n");
    // Another job with checkpoints of the same numbers appends behind.
    let other = sink(&pairs, true);
    other.start(Start::new(&[], 1)).await.expect("starts");
    let mut writer = other.open(0).expect("opens");
    writer.write(changes(&[7])).await.expect("writes");
    writer.epoch(&mark(2)).await.expect("ends");
    let staged = writer.stage(2).await.expect("stages");
    commit(&*other, 2, &staged).await;
    assert!(std::fs::read_to_string(&path).expect("committed").ends_with("+I,2\n+I,7\n"));
    assert!(matches!(
        sink::open(SinkRequest {
            stream: "s".into(),
            schema: Arc::new(Schema::empty()),
            retracts: false,
            key: None,
            options: options(&[("path", "x.parquet")]),
            parallelism: 1
        }),
        Err(e) if e.hint().is_some_and(|h| h.contains("folder"))
    ));
}

#[tokio::test]
async fn a_paced_file_keeps_its_rate() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = put(&dir.path().join("a.json"), "{\"id\":1}\n".repeat(50));
    let columns = [("id", DataType::Int64)];
    let source = FileSource::new(request(&columns, &[0], &[("path", &path), ("rate", "500")])).expect("opens");
    let start = tokio::time::Instant::now();
    let mut got = Got::default();
    assert!(read(&source, &mut got, usize::MAX).await.expect("reads"));
    assert_eq!(got.rows.len(), 50);
    assert!(start.elapsed() >= Duration::from_millis(100), "{:?}", start.elapsed());
    let e = FileSource::new(request(&columns, &[0], &[("path", &path), ("rate", "0")])).err().expect("is refused");
    assert_eq!(e.message(), "option \"rate\" of stream \"s\" is 0, which is not above 0");
}
