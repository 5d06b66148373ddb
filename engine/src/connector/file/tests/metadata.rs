//! Columns that tell of a row's file and of its place there.

use datafusion_common::ScalarValue;
use datafusion_expr::Operator;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{BinaryExpr, Column, lit};

use super::*;

/// A request for `columns`, of which those called like metadata are that.
fn request(columns: &[(&str, DataType)], projection: &[usize], pairs: &[(&str, &str)]) -> SourceRequest {
    let is_metadata = |name: &str| [NAME, POSITION, MODIFIED].contains(&name);
    let metadata = columns.iter().enumerate().filter(|(_, (name, _))| is_metadata(name));
    let metadata = metadata.map(|(i, (name, _))| (i, (*name).to_owned())).collect();
    SourceRequest { metadata, ..super::request(columns, projection, pairs) }
}

const ID: (&str, DataType) = ("id", DataType::Int64);
const FILE: (&str, DataType) = (NAME, DataType::Utf8View);
const AT: (&str, DataType) = (POSITION, DataType::Int64);

#[tokio::test]
async fn the_position_of_a_line_is_its_first_byte_wherever_a_file_is_cut() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let csv = "n,id\n1,10\n2,x\n\n3,30\r\n4,40\n5,\"é\"\n6,60\n";
    let json = "{\"id\":10}\n{\"id\":\"x\"}\n\n{\"id\":30}\r\nbad\n{\"id\":60}\n";
    for (name, text) in [("a.csv", csv), ("a.json", json)] {
        let path = put(&dir.path().join(name), text);
        let places = text.match_indices("0").map(|(i, _)| text[..i].rfind('\n').map_or(0, |n| n + 1));
        let expected: Vec<_> = places.map(|at| format!("{at}|{}|{path}", &text[at..][..1])).collect();
        for unit_bytes in [1 << 20, 7, 3] {
            let columns = [FILE, ("n", DataType::Utf8View), AT, ID];
            let source = FileSource::new(request(&columns, &[2, 0, 3], &[("path", &path)])).expect("opens");
            let mut got = Got::default();
            assert!(read(&source.with_unit_bytes(unit_bytes), &mut got, usize::MAX).await.expect("reads"));
            let found: Vec<_> = got
                .rows
                .iter()
                .map(|row| {
                    let (at, rest) = row.split_once('|').expect("three columns");
                    let file = rest.split('|').next().expect("the second");
                    format!("{at}|{}|{file}", &text[at.parse::<usize>().expect("a number")..][..1])
                })
                .collect();
            assert_eq!(found, expected, "{unit_bytes}");
            assert_eq!(got.dead.len(), 2);
        }
    }
    let zipped = dir.path().join("b.csv.gz");
    let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    gzip.write_all(b"id\n1\n2\n").expect("memory");
    let path = put(&zipped, gzip.finish().expect("memory"));
    assert_eq!(all(request(&[AT, ID], &[0], &[("path", &path)])).await.rows, ["3", "5"]);
}

#[tokio::test]
async fn the_position_of_a_columnar_row_is_its_number() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = put(&dir.path().join("a.parquet"), parquet(10, 4));
    let mut ipc = arrow::ipc::writer::FileWriter::try_new(vec![], &batch(0, 1).schema()).expect("ok");
    ipc.write(&batch(0, 4)).expect("writes");
    ipc.write(&batch(4, 6)).expect("writes");
    let ipc = put(&dir.path().join("a.arrow"), ipc.into_inner().expect("ends"));
    for path in [&file, &ipc] {
        let got = all(request(&[AT, ID], &[1, 0], &[("path", path)])).await;
        assert_eq!(got.rows, (0..10).map(|i| format!("{i}|{i}")).collect::<Vec<_>>());
        assert_eq!(all(request(&[AT, ID], &[0], &[("path", path)])).await.rows.len(), 10);
        // Values above 32,767 do not fit: but for the first row.
        let got = all(request(&[("wide", DataType::Int16), AT], &[0, 1], &[("path", path)])).await;
        assert_eq!((got.rows, got.dead.len()), (vec!["0|0".to_owned()], 9));
        for stop in [1, 2] {
            let mut again = Got::default();
            let open = || FileSource::new(request(&[AT], &[0], &[("path", path)])).expect("opens");
            while !read(&open(), &mut again, stop).await.expect("reads") {}
            assert_eq!(again.rows, (0..10).map(|i| i.to_string()).collect::<Vec<_>>(), "killed after {stop} reads");
        }
    }
}

#[tokio::test]
async fn when_a_file_was_written_to() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = put(&dir.path().join("a.csv"), "id\n1\n");
    let file = std::fs::File::options().write(true).open(&path).expect("is there");
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    for (micros, plain, instant) in [
        (1_700_000_000_123_456i64, "2023-11-14T22:13:20.123456", "2023-11-14T22:13:20.123456Z"),
        (-1_000_000, "1969-12-31T23:59:59", "1969-12-31T23:59:59Z"),
    ] {
        let away = std::time::Duration::from_micros(micros.unsigned_abs());
        let at = if micros < 0 { std::time::UNIX_EPOCH - away } else { std::time::UNIX_EPOCH + away };
        file.set_modified(at).expect("is ours");
        let read = async |t: &DataType| all(request(&[(MODIFIED, t.clone()), ID], &[0], &[("path", &path)])).await.rows;
        assert_eq!((read(&TIME).await, read(&utc).await), (vec![plain.to_owned()], vec![instant.to_owned()]));
    }
}

#[tokio::test]
async fn folders_do_not_name_metadata() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().join("file=x").join("shop=north");
    std::fs::create_dir_all(&folder).expect("writable");
    let path = put(&folder.join("a.csv"), "id\n1\n");
    let root = dir.path().to_str().expect("a plain path");
    let mut wanted =
        request(&[("shop", DataType::Utf8View), FILE, ID, AT], &[3, 2, 1, 0], &[("path", root), ("format", "csv")]);
    wanted.options = wanted.options.with_found([("partitions".to_owned(), "true".to_owned())].into());
    assert_eq!(all(wanted.clone()).await.rows, [format!("3|1|{path}|north")]);
    // A condition on metadata leaves no file out by the name of a folder.
    let source = FileSource::new(wanted).expect("opens");
    let x = lit(ScalarValue::Utf8View(Some("x".to_owned())));
    let conditions: Vec<Vec<Arc<dyn PhysicalExpr>>> =
        vec![vec![Arc::new(BinaryExpr::new(Arc::new(Column::new(NAME, 1)), Operator::NotEq, x))]];
    let source = source.begin(Opening { conditions, ..Opening::new(MemoryBudget::new(0)) }).await.expect("starts");
    let mut got = Got::default();
    assert!(read_on(&source, &mut got, usize::MAX).await.expect("reads"));
    assert_eq!(got.rows.len(), 1);
}
