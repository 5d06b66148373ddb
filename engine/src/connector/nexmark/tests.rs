//! Checks the events byte for byte against the JSON lines of the reference generator, and the source
//! against its own whole output.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Instant;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType};
use futures::executor::block_on;
use xxhash_rust::xxh3::xxh3_64;

use super::*;
use crate::connector::{Offsets, Opened};
use crate::memory::MemoryBudget;

fn options(pairs: &[(&str, &str)]) -> Options {
    let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Options::new("stream \"s\"", pairs.collect::<BTreeMap<_, _>>())
}

fn open_as(schema: SchemaRef, pairs: &[(&str, &str)], projection: Option<Vec<usize>>) -> Result<Arc<dyn Source>> {
    open_source(SourceRequest {
        stream: "s".to_owned(),
        projection: projection.unwrap_or_else(|| (0..schema.fields().len()).collect()),
        schema,
        metadata: BTreeMap::new(),
        options: options(pairs),
        key: vec![],
        event_time: None,
        parallelism: 1,
    })
}

fn open(pairs: &[(&str, &str)]) -> Arc<dyn Source> {
    open_as(infer_schema(options(pairs)).expect("a schema"), pairs, None).expect("opens")
}

/// What `source` has besides what was `consumed`.
fn opened(source: &Arc<dyn Source>, consumed: Offsets) -> Opened {
    let opening = Opening { consumed, ..Opening::new(MemoryBudget::new(0)) };
    block_on(Opened::of(source, opening)).expect("opens")
}

/// Reads one unit, and adds it to `done`.
fn read_unit(source: &Opened, unit: &Unit, done: &mut Offsets) -> Vec<RecordBatch> {
    block_on(async {
        let mut reader = source.readers.read(unit).await.expect("opens");
        let (mut at, mut batches) = (unit.start, vec![]);
        while let Some(read) = reader.next().await.expect("reads") {
            assert!(read.position > at && read.position <= unit.end);
            done.add(&unit.split, at..read.position);
            at = read.position;
            batches.push(read.rows.into_rows());
        }
        assert_eq!(at, unit.end);
        batches
    })
}

fn read_all(source: &Arc<dyn Source>) -> RecordBatch {
    read_rest(&opened(source, Offsets::default()))
}

fn read_rest(source: &Opened) -> RecordBatch {
    let mut batches = vec![];
    while let Some(unit) = block_on(source.intake.next_unit()).expect("no error") {
        batches.extend(read_unit(source, &unit, &mut Offsets::default()));
    }
    concat_batches(&batches[0].schema(), &batches).expect("one schema")
}

/// `{"id":1,"dateTime":1436918400000,…}`, as the reference writes it.
fn json(line: &mut String, names: &[String], columns: &[ArrayRef], row: usize) {
    line.push('{');
    for (i, (name, column)) in names.iter().zip(columns).enumerate() {
        let comma = if i > 0 { "," } else { "" };
        match column.data_type() {
            DataType::Int64 => write!(line, "{comma}\"{name}\":{}", column.as_primitive::<Int64Type>().value(row)),
            DataType::Timestamp(TimeUnit::Microsecond, None) => {
                let micros = column.as_primitive::<TimestampMicrosecondType>().value(row);
                assert_eq!(micros % 1000, 0);
                write!(line, "{comma}\"{name}\":{}", micros / 1000)
            }
            _ => write!(line, "{comma}\"{name}\":\"{}\"", column.as_string_view().value(row)),
        }
        .expect("writes to a string");
    }
    line.push('}');
}

/// The names of the reference: `dateTime` for `date_time`.
fn camel(fields: &arrow::datatypes::Fields) -> Vec<String> {
    let part = |(i, part): (usize, &str)| match i {
        0 => part.to_owned(),
        _ => part[..1].to_ascii_uppercase() + &part[1..],
    };
    fields.iter().map(|f| f.name().split('_').enumerate().map(part).collect()).collect()
}

fn table_lines(rows: &RecordBatch) -> String {
    let mut lines = String::new();
    let names = camel(rows.schema().fields());
    for row in 0..rows.num_rows() {
        json(&mut lines, &names, rows.columns(), row);
        lines.push('\n');
    }
    lines
}

fn combined_lines(rows: &RecordBatch) -> String {
    let mut lines = String::new();
    let kinds = rows.column(0).as_primitive::<Int32Type>();
    let structs: Vec<_> = (1..4).map(|i| rows.column(i).as_struct()).collect();
    let names: Vec<_> = structs.iter().map(|s| camel(s.fields())).collect();
    let times = rows.column(4).as_primitive::<TimestampMicrosecondType>();
    for row in 0..rows.num_rows() {
        let kind = kinds.value(row) as usize;
        for (i, s) in structs.iter().enumerate() {
            assert_eq!(s.is_valid(row), i == kind);
            assert!(s.columns().iter().all(|c| c.is_valid(row) == (i == kind)));
        }
        let own = structs[kind].column_by_name("date_time").expect("all have a time");
        assert_eq!(own.as_primitive::<TimestampMicrosecondType>().value(row), times.value(row));
        write!(lines, "{{\"event_type\":{kind},\"{}\":", rows.schema().field(kind + 1).name()).expect("writes");
        json(&mut lines, &names[kind], structs[kind].columns(), row);
        lines.push_str("}\n");
    }
    lines
}

/// `--events 100020 --rate 1000 --base-time 1436918300000 --ooo 1000 --seed 7`
const SHUFFLED: [(&str, &str); 5] =
    [("events", "100020"), ("rate", "1000"), ("base_time", "1436918300000"), ("ooo", "1000"), ("seed", "7")];
/// `--events 100020`
const IN_ORDER: [(&str, &str); 1] = [("events", "100020")];

fn with<'a>(pairs: &[(&'a str, &'a str)], more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [pairs, more].concat()
}

#[test]
fn events_are_those_of_the_reference_generator() {
    // Bytes and xxh3 of events.jsonl, person.jsonl, auction.jsonl and bid.jsonl.
    type Golden = (&'static [(&'static str, &'static str)], [(usize, u64); 4]);
    let golden: [Golden; 2] = [
        (
            &SHUFFLED,
            [
                (28_994_678, 0x94e3_c984_4daa_2454),
                (609_733, 0x9799_1d47_c2f2_b757),
                (3_726_157, 0xd228_ac27_bce4_51f6),
                (22_328_313, 0x1a07_f6d2_2b4d_993e),
            ],
        ),
        (
            &IN_ORDER,
            [
                (29_032_965, 0x520e_84d0_2b19_0a2e),
                (609_542, 0xd4de_e32c_ae3b_8adf),
                (3_720_210, 0x5fb0_9035_c587_b93b),
                (22_372_738, 0xc963_2cc7_b305_ebec),
            ],
        ),
    ];
    for (pairs, expected) in golden {
        let hash = |lines: String| (lines.len(), xxh3_64(lines.as_bytes()));
        assert_eq!(hash(combined_lines(&read_all(&open(pairs)))), expected[0]);
        for (table, expected) in ["person", "auction", "bid"].into_iter().zip(&expected[1..]) {
            let lines = table_lines(&read_all(&open(&with(pairs, &[("table", table)]))));
            assert_eq!(hash(lines), *expected, "{table}");
        }
    }
}

#[test]
fn the_first_and_last_lines_are_those_of_the_reference_generator() {
    let lines = combined_lines(&read_all(&open(&SHUFFLED)));
    let first = concat!(
        r#"{"event_type":0,"person":{"id":1000,"name":"Ada Baker","emailAddress":"ickpfb@ccb.com","#,
        r#""creditCard":"5708 7345 3513 8768","city":"Nampa","state":"CA","dateTime":1436918300000,"#,
        r#""extra":"ctballqysvcmyipqkcafobcdaqmsdpivcangisjxskhryieuphxellfnmhfiyavbwwktiqoncqfpcdrijogdvawiacu"#,
        r#"yyqfdbsiajikhphprgwtnzbuclusfochliysczkaxxyentj"}}"#
    );
    let last = concat!(
        r#"{"event_type":2,"bid":{"auction":6977,"bidder":3001,"price":106,"channel":"channel-5155","#,
        r#""url":"https://www.nexmark.com/ebjd/xk_z/cknx/item.htm?query=1&channel_id=1645477888","#,
        r#""dateTime":1436918400019,"extra":"qugbrpelwgffuhzbfyaqqgamnttvbgvlfhymgqjyaysokfihmokekibyccvo"}}"#
    );
    assert_eq!(lines.lines().next(), Some(first));
    assert_eq!(lines.lines().last(), Some(last));
}

#[test]
fn each_table_alone_is_its_part_of_the_combined_stream() {
    for ooo in ["1", "1000"] {
        let pairs = [("events", "70030"), ("ooo", ooo)];
        let all = read_all(&open(&pairs));
        let kinds = all.column(0).as_primitive::<Int32Type>().clone();
        for (kind, table) in ["person", "auction", "bid"].into_iter().enumerate() {
            let rows: UInt32Array =
                (0..kinds.len() as u32).filter(|i| kinds.value(*i as usize) == kind as i32).collect();
            let part = take_record_batch(&all, &rows).expect("in range");
            let own = read_all(&open(&with(&pairs, &[("table", table)])));
            assert_eq!(part.column(kind + 1).as_struct().columns(), own.columns());
        }
    }
}

#[test]
fn only_the_projection_is_made() {
    let pairs = [("events", "9000"), ("table", "bid")];
    let schema = infer_schema(options(&pairs)).expect("a schema");
    let all = read_all(&open(&pairs));
    let two = read_all(&open_as(schema.clone(), &pairs, Some(vec![4, 2])).expect("opens"));
    assert_eq!(two, all.project(&[4, 2]).expect("in range"));
    let none = read_all(&open_as(schema, &pairs, Some(vec![])).expect("opens"));
    assert_eq!((none.num_rows(), none.num_columns()), (8280, 0));
}

#[test]
fn columns_are_found_by_name_and_cast_to_the_declared_type() {
    let millis = DataType::Timestamp(TimeUnit::Millisecond, None);
    let declared = Arc::new(Schema::new(vec![
        Field::new("DateTime", millis, true),
        Field::new("price", DataType::Int32, true),
        Field::new("extra", DataType::Utf8, true),
    ]));
    let pairs = [("events", "500"), ("table", "bid")];
    let rows = read_all(&open_as(declared.clone(), &pairs, None).expect("opens"));
    let all = read_all(&open(&pairs));
    assert_eq!(rows.schema(), declared);
    assert_eq!(&arrow::compute::cast(rows.column(1), &DataType::Int64).expect("casts"), all.column(2));
    assert_eq!(&arrow::compute::cast(rows.column(2), &DataType::Utf8View).expect("casts"), all.column(6));

    let part = Field::new_struct("bid", vec![Field::new("url", DataType::Utf8View, true)], true);
    let rows = read_all(&open_as(Arc::new(Schema::new(vec![part])), &[("events", "500")], None).expect("opens"));
    let bids = rows.column(0).as_struct();
    assert_eq!((bids.num_columns(), bids.null_count(), bids.len()), (1, 40, 500));
}

#[test]
fn wrong_columns_and_options_are_named() {
    let error = |pairs: &[(&str, &str)], name: &str, data_type| {
        let schema = Arc::new(Schema::new(vec![Field::new(name, data_type, true)]));
        let e = open_as(schema, pairs, None).expect_err("is refused");
        (e.message().to_owned(), e.hint().unwrap_or_default().to_owned())
    };
    let (message, hint) = error(&[("table", "bid")], "prize", DataType::Int64);
    assert_eq!(message, "connector 'nexmark' has no column \"prize\" for stream \"s\"");
    assert_eq!(hint, "Its columns are: auction, bidder, price, channel, url, date_time, extra.");
    let (message, hint) = error(&[("table", "bid")], "price", DataType::Boolean);
    assert_eq!(message, "column \"price\" of stream \"s\" cannot be Boolean");
    assert_eq!(hint, "Connector 'nexmark' makes it a BIGINT.");
    let (message, _) = error(&[], "person", DataType::Int64);
    assert_eq!(message, "column \"person\" of stream \"s\" cannot be Int64");
    let (message, _) = error(&[("rate", "0")], "person", DataType::Int64);
    assert_eq!(message, "option \"rate\" of stream \"s\" is 0");
    let (message, _) = error(&[("ooo", "1906")], "person", DataType::Int64);
    assert_eq!(message, "option \"ooo\" of stream \"s\" is 1906, which is too large or a multiple of 953");
    let (message, _) = error(&[("event", "5")], "person", DataType::Int64);
    assert_eq!(message, "stream \"s\" has no option \"event\"");
}

#[test]
fn a_restart_gives_exactly_the_rest() {
    for table in ["events", "bid"] {
        let pairs = [("events", "400000"), ("table", table), ("ooo", "1000")];
        let whole = table_of(&read_all(&open(&pairs)));
        // Read units 0, 2 and half of 3, then start again.
        let source = opened(&open(&pairs), Offsets::default());
        let mut done = Offsets::default();
        let mut rows = vec![];
        for i in 0..4 {
            let mut unit = block_on(source.intake.next_unit()).expect("no error").expect("not at the end");
            if i == 3 {
                unit.end -= 30_001;
            }
            if i != 1 {
                rows.extend(read_unit(&source, &unit, &mut done));
            }
        }
        let again = opened(&open(&pairs), done.clone());
        let first = block_on(again.intake.next_unit()).expect("no error").expect("not at the end");
        assert_eq!(first.start, done.prefix("nexmark"), "the gap comes first");
        rows.extend(read_unit(&again, &first, &mut done));
        rows.push(read_rest(&again));
        let rows = concat_batches(&rows[0].schema(), &rows).expect("one schema");
        assert_eq!(table_of(&rows), whole);
    }
}

/// The rows as sorted text, as order between units does not matter.
fn table_of(rows: &RecordBatch) -> Vec<String> {
    let lines = match rows.num_columns() {
        5 => combined_lines(rows),
        _ => table_lines(rows),
    };
    let mut lines: Vec<_> = lines.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn tasks_in_turn_cover_everything_once() {
    let pairs = [("events", "500000"), ("table", "auction")];
    let source = opened(&open(&pairs), Offsets::default());
    let split = source.intake.splits().remove(0);
    assert_eq!((split.end, split.min_time), (Some(500_000), Some(EventTime(1_436_918_400_000_000))));
    let task = || {
        let source = source.clone();
        std::thread::spawn(move || {
            let (mut done, mut rows) = (vec![], 0);
            while let Some(unit) = block_on(source.intake.next_unit()).expect("no error") {
                let mut one = Offsets::default();
                rows += read_unit(&source, &unit, &mut one).iter().map(RecordBatch::num_rows).sum::<usize>();
                done.extend(one.splits.remove("nexmark").expect("was read"));
            }
            (done, rows)
        })
    };
    let tasks: Vec<_> = (0..3).map(|_| task()).collect();
    let (mut ranges, mut rows) = (vec![], 0);
    for task in tasks {
        let (done, made) = task.join().expect("no panic");
        ranges.extend(done);
        rows += made;
    }
    ranges.sort_unstable_by_key(|r| r.start);
    assert!(ranges.windows(2).all(|w| w[0].end <= w[1].start));
    assert_eq!(ranges.iter().map(|r| r.end - r.start).sum::<u64>(), 500_000);
    assert_eq!(rows, 30_000);
}

#[test]
fn an_unbounded_stream_goes_on() {
    let source = open(&[("table", "person"), ("ooo", "7")]);
    assert!(!source.bounded());
    let intake = opened(&source, Offsets::default()).intake;
    assert_eq!(intake.splits()[0].end, None);
    let unit = block_on(intake.next_unit()).expect("no error").expect("no end");
    assert!(unit.end > unit.start && unit.end < u64::MAX);
}

/// Whole events a second of one core: `cargo test --release -- --ignored --nocapture nexmark`.
#[test]
#[ignore = "measures"]
fn speed() {
    let made = |pairs: &[(&str, &str)], columns: Option<Vec<usize>>| {
        let pairs = with(pairs, &[("events", "10000000")]);
        let schema = infer_schema(options(&pairs)).expect("a schema");
        let source = opened(&open_as(schema, &pairs, columns).expect("opens"), Offsets::default());
        let start = Instant::now();
        while let Some(unit) = block_on(source.intake.next_unit()).expect("no error") {
            let mut reader = block_on(source.readers.read(&unit)).expect("opens");
            while block_on(reader.next()).expect("reads").is_some() {}
        }
        start.elapsed()
    };
    for ooo in ["1", "1000"] {
        let kinds = ["person", "auction", "bid"].map(|table| made(&[("table", table), ("ooo", ooo)], None));
        let combined = made(&[("ooo", ooo)], None);
        let rate = |time: std::time::Duration| 10.0 / time.as_secs_f64();
        println!("ooo {ooo}: {kinds:?}, together {:.1} M events/s", rate(kinds.iter().sum()));
        println!("ooo {ooo}: combined {:.1} M events/s", rate(combined));
    }
    for (i, column) in Kind::Bid.columns().iter().enumerate() {
        let time = made(&[("table", "bid")], Some(vec![i]));
        println!("{}: {:.1} ns a bid", column.name, time.as_nanos() as f64 / 9.2e6);
    }
}
