//! ASOF joins as scripts, and against a look at each row of the other side.

use std::collections::BTreeMap;

use arrow::array::{Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::changes::Changes;
use crate::testing::Step::{At, End, Mark, Recover, Rows};
use crate::testing::{Bench, check, show};
use crate::time::EventTime;

const WAYS: [Way; 5] = [Way::Last, Way::LastBefore, Way::First, Way::FirstBehind, Way::Nearest];

/// A key, a time, a value.
type Row = (Option<i64>, Option<i64>, i64);
type Side = BTreeMap<Row, i64>;

fn input(time: DataType) -> SchemaRef {
    let field = |name, of| Field::new(name, of, true);
    Arc::new(Schema::new(vec![field("k", DataType::Int64), field("t", time), field("v", DataType::Int64)]))
}

fn numbers() -> SchemaRef {
    input(DataType::Int64)
}

fn times() -> SchemaRef {
    input(DataType::Timestamp(TimeUnit::Microsecond, None))
}

fn as_of(way: Way, left_outer: bool, input: &SchemaRef) -> AsOf {
    let fields: Vec<_> = input.fields().iter().chain(input.fields()).cloned().collect();
    AsOf {
        way,
        left_outer,
        inputs: [input.clone(), input.clone()],
        keys: [vec![0], vec![0]],
        times: [1, 1],
        given: [3, 3],
        expires: Expires::None,
        settles: false,
        one_of: [None, None],
        schema: Arc::new(Schema::new(fields)),
    }
}

fn run(spec: AsOf, script: &[crate::testing::Step<'_>]) {
    let schema = spec.inputs[0].clone();
    check(Arc::new(spec), &schema, script).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn the_match_changes_with_the_rows_of_the_right_side() {
    let script = [
        Rows("+1 1 5 10; +2 1 9 20; +1 2 5 30"),
        At(1, "+1 1 1 1; +1 1 7 2"),
        Mark(0, "+1 1 5 10 1 1 1; +2 1 9 20 1 7 2; +1 2 5 30 null null null"),
        At(1, "+1 1 4 3; +1 1 9 4; +1 2 6 5"),
        Mark(0, "-1 1 5 10 1 1 1; +1 1 5 10 1 4 3; -2 1 9 20 1 7 2; +2 1 9 20 1 9 4"),
        Recover,
        At(1, "-1 1 4 3; -1 1 9 4; +1 1 9 0"),
        Rows("-1 1 9 20; +1 1 0 40"),
        Mark(
            0,
            "-1 1 5 10 1 4 3; +1 1 5 10 1 1 1; -2 1 9 20 1 9 4; +2 1 9 20 1 9 0; -1 1 9 20 1 9 0; +1 1 0 40 null null null",
        ),
        At(1, "-1 1 1 1; +1 1 1 1"),
        Mark(0, ""),
    ];
    run(as_of(Way::Last, true, &numbers()), &script);
}

#[test]
fn of_rows_with_one_time_the_last_counts_by_all_columns() {
    let script = [
        Rows("+1 1 5 0"),
        At(1, "+1 1 5 2; +1 1 5 9; +1 1 5 null"),
        Mark(0, "+1 1 5 0 1 5 9"),
        At(1, "-1 1 5 9"),
        Mark(0, "-1 1 5 0 1 5 9; +1 1 5 0 1 5 2"),
        At(1, "-1 1 5 2"),
        Mark(0, "-1 1 5 0 1 5 2; +1 1 5 0 1 5 null"),
    ];
    run(as_of(Way::Last, false, &numbers()), &script);
}

#[test]
fn each_way_has_its_match() {
    let right = "+1 1 10 1; +1 1 20 2; +1 1 20 3; +1 1 30 4";
    let expected = [
        (Way::Last, "+1 1 20 0 1 20 3; +1 1 25 0 1 20 3; +1 1 31 0 1 30 4"),
        (Way::LastBefore, "+1 1 20 0 1 10 1; +1 1 25 0 1 20 3; +1 1 31 0 1 30 4"),
        (Way::First, "+1 1 5 0 1 10 1; +1 1 20 0 1 20 3; +1 1 25 0 1 30 4"),
        (Way::FirstBehind, "+1 1 5 0 1 10 1; +1 1 20 0 1 30 4; +1 1 25 0 1 30 4"),
        (Way::Nearest, "+1 1 5 0 1 10 1; +1 1 20 0 1 20 3; +1 1 25 0 1 30 4; +1 1 31 0 1 30 4"),
    ];
    for (way, expected) in expected {
        let script = [At(1, right), Rows("+1 1 5 0; +1 1 20 0; +1 1 25 0; +1 1 31 0"), Mark(0, expected)];
        run(as_of(way, false, &numbers()), &script);
    }
}

#[test]
fn null_matches_nothing() {
    let script = [
        Rows("+1 null 5 1; +1 1 null 2; +1 1 5 3"),
        At(1, "+1 null 1 4; +1 1 null 5"),
        Mark(0, "+1 null 5 1 null null null; +1 1 null 2 null null null; +1 1 5 3 null null null"),
        Recover,
        Rows("-1 null 5 1"),
        Mark(0, "-1 null 5 1 null null null"),
    ];
    run(as_of(Way::Last, true, &numbers()), &script);
    let script = [Rows("+1 null 5 1; +1 1 null 2"), At(1, "+1 null 1 4; +1 1 1 5"), Mark(0, "")];
    run(as_of(Way::Last, false, &numbers()), &script);
}

#[test]
fn a_row_is_said_once_when_it_is_final() {
    let spec = AsOf { expires: Expires::Both, settles: true, ..as_of(Way::Last, true, &times()) };
    let at = |second: u32| format!("1970-01-01T00:00:{second:02}");
    let [a, b, c] = [5, 8, 20].map(at);
    let rows = format!("+1 1 {a} 1; +1 1 {b} 2; +1 2 {c} 3; +1 2 null 4");
    let right = format!("+1 1 {a} 10");
    let late = format!("+1 1 {b} 11");
    let first = format!("+1 1 {a} 1 1 {a} 10");
    let second = format!("+1 1 {b} 2 1 {b} 11");
    let last = format!("+1 2 {c} 3 null null null");
    let script = [
        Rows(&rows),
        At(1, &right),
        Mark(5, "+1 2 null 4 null null null"),
        Mark(6, &first),
        Recover,
        At(1, &late),
        Mark(9, &second),
        Recover,
        Mark(12, ""),
        End(&last),
    ];
    run(spec, &script);
}

/// The right row that is the match of a left row.
fn match_of(way: Way, row: &Row, right: &Side) -> Option<Row> {
    let (k, t) = (row.0?, row.1?);
    let all: Vec<Row> = right.keys().filter(|r| r.0 == Some(k) && r.1.is_some()).copied().collect();
    let time = |r: &Row| r.1.unwrap_or_default();
    let last = |of: &dyn Fn(i64) -> bool| all.iter().filter(|r| of(time(r))).max().copied();
    let first = |of: &dyn Fn(i64) -> bool| {
        let least = all.iter().map(time).filter(|t| of(*t)).min()?;
        last(&|t| t == least)
    };
    match way {
        Way::Last => last(&|r| r <= t),
        Way::LastBefore => last(&|r| r < t),
        Way::First => first(&|r| r >= t),
        Way::FirstBehind => first(&|r| r > t),
        Way::Nearest => {
            let least = all.iter().map(|r| time(r).abs_diff(t)).min()?;
            last(&|r| r.abs_diff(t) == least)
        }
    }
}

fn text(row: Option<&Row>) -> String {
    let one = |v: Option<i64>| v.map_or("null".to_owned(), |v| v.to_string());
    match row {
        Some((k, t, v)) => format!("{} {} {v}", one(*k), one(*t)),
        None => "null null null".to_owned(),
    }
}

fn expected(spec: &AsOf, sides: &[Side; 2]) -> BTreeMap<String, i64> {
    let mut all = BTreeMap::new();
    for (row, weight) in &sides[0] {
        let found = match_of(spec.way, row, &sides[1]);
        if found.is_some() || spec.left_outer {
            *all.entry(format!("{} {}", text(Some(row)), text(found.as_ref()))).or_default() += weight;
        }
    }
    all
}

/// Random changes of a side, which may take back what is there; times are `from` at least.
fn random(rng: &mut StdRng, side: &mut Side, append: bool, from: i64) -> Vec<(Row, i64)> {
    let some = |rng: &mut StdRng, to: i64| Some(rng.random_range(0..to)).filter(|v| append || *v != 0);
    let count = rng.random_range(0..14);
    let mut changes = vec![];
    for _ in 0..count {
        let there = side.len();
        let change = match there > 0 && !append && rng.random_bool(0.45) {
            true => {
                let (row, weight) = side.iter().nth(rng.random_range(0..there)).expect("it is there");
                (*row, -rng.random_range(1..=*weight))
            }
            false => {
                let time = some(rng, 12).map(|t| t + from);
                ((some(rng, 3), time, rng.random_range(0..4)), rng.random_range(1..3))
            }
        };
        *side.entry(change.0).or_default() += change.1;
        side.retain(|_, weight| *weight != 0);
        changes.push(change);
    }
    changes
}

fn as_changes(schema: &SchemaRef, changes: &[(Row, i64)]) -> Changes {
    let k: Int64Array = changes.iter().map(|(r, _)| r.0).collect();
    let t: arrow::array::ArrayRef = match schema.field(1).data_type() {
        DataType::Int64 => Arc::new(changes.iter().map(|(r, _)| r.1).collect::<Int64Array>()),
        _ => Arc::new(changes.iter().map(|(r, _)| r.1).collect::<TimestampMicrosecondArray>()),
    };
    let v: Int64Array = changes.iter().map(|(r, _)| Some(r.2)).collect();
    let rows = RecordBatch::try_new(schema.clone(), vec![Arc::new(k), t, Arc::new(v)]).expect("three columns");
    Changes::weighted(rows, changes.iter().map(|(_, w)| *w).collect()).expect("a weight each")
}

fn add_up(content: &mut BTreeMap<String, i64>, said: &[Changes]) {
    for changes in said {
        // Times as numbers.
        let columns = changes.rows().columns().iter().map(|c| arrow::compute::cast(c, &DataType::Int64));
        let columns: Vec<_> = columns.collect::<Result<_, _>>().expect("numbers");
        let fields: Vec<_> = (0..columns.len()).map(|i| Field::new(format!("c{i}"), DataType::Int64, true)).collect();
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("numbers");
        for line in show(&changes.with_rows(rows)).expect("text") {
            let (weight, row) = line.split_once(' ').expect("a weight");
            *content.entry(row.to_owned()).or_default() += weight.parse::<i64>().expect("a number");
        }
    }
    content.retain(|_, weight| *weight != 0);
}

#[test]
fn after_every_epoch_each_row_has_its_match() {
    for seed in 0..150 {
        let mut rng = StdRng::seed_from_u64(seed);
        let spec = as_of(WAYS[seed as usize % 5], rng.random_bool(0.5), &numbers());
        let mut bench = Bench::new(Arc::new(spec.clone())).expect("an operator");
        let (mut sides, mut content) = ([Side::new(), Side::new()], BTreeMap::new());
        for epoch in 0..12 {
            for port in [0, 1, 0] {
                let changes = random(&mut rng, &mut sides[port], false, 0);
                bench.changes(port, as_changes(&spec.inputs[port], &changes)).expect("changes");
            }
            add_up(&mut content, &bench.mark(EventTime(0)).expect("an epoch"));
            assert_eq!(content, expected(&spec, &sides), "seed {seed}, epoch {epoch}, {:?}", spec.way);
            if rng.random_bool(0.3) {
                bench.recover().expect("a checkpoint");
            }
        }
    }
}

/// Rows that come no earlier than the watermark; what they add up to, and how many rows are kept at the end.
fn behind_the_watermark(spec: &AsOf, seed: u64) -> usize {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut bench = Bench::new(Arc::new(spec.clone())).expect("an operator");
    let (mut sides, mut content, mut watermark) = ([Side::new(), Side::new()], BTreeMap::new(), 0);
    for epoch in 0..60 {
        for port in [0, 1] {
            let changes = random(&mut rng, &mut sides[port], true, watermark);
            bench.changes(port, as_changes(&spec.inputs[port], &changes)).expect("changes");
        }
        watermark += rng.random_range(0..10);
        add_up(&mut content, &bench.mark(EventTime(watermark)).expect("an epoch"));
        let mut of = sides.clone();
        if spec.settles {
            of[0].retain(|row, _| row.1.is_none_or(|t| t < watermark));
        }
        assert_eq!(content, expected(spec, &of), "seed {seed}, epoch {epoch}, {:?}", spec.way);
        if rng.random_bool(0.2) {
            bench.recover().expect("a checkpoint");
        }
    }
    bench.recover().expect("a checkpoint");
    for _ in 0..3 {
        watermark += 1;
        let row = ((Some(1), Some(watermark), 0), 1);
        for port in [0, 1] {
            bench.changes(port, as_changes(&spec.inputs[port], &[row])).expect("changes");
        }
        bench.mark(EventTime(watermark)).expect("an epoch");
    }
    bench.bytes()
}

#[test]
fn rows_that_nobody_needs_go_behind_the_watermark() {
    for seed in 0..40 {
        let way = WAYS[seed as usize % 5];
        let all = as_of(way, seed % 2 == 0, &times());
        for expires in [Expires::Left, Expires::Both] {
            let spec = AsOf { expires, ..all.clone() };
            let (some, all) = (behind_the_watermark(&spec, seed), behind_the_watermark(&all, seed));
            assert!(some < all, "{way:?} {expires:?}: {some} bytes of {all}");
            if expires == Expires::Both && way.is_back() {
                behind_the_watermark(&AsOf { settles: true, ..spec }, seed);
            }
        }
    }
}

#[test]
fn what_is_taken_back_of_the_left_side_when_it_is_final_need_not_be_there() {
    let spec = AsOf { expires: Expires::Left, ..as_of(Way::Last, true, &times()) };
    let at = |second: u32| format!("1970-01-01T00:00:{second:02}");
    let (row, late) = (format!("1 {} 1", at(5)), format!("1 {} 2", at(4)));
    let right = format!("1 {} 7", at(3));
    let (come, gone) = (format!("+1 {row}"), format!("-1 {row}"));
    let (right_comes, late_comes, late_goes) = (format!("+1 {right}"), format!("+2 {late}"), format!("-2 {late}"));
    let said = |weight: &str, row: &str| format!("{weight} {row} {right}");
    let (first, second) = (said("+1", &row), said("-1", &row));
    let (third, last) = (said("+2", &late), said("-2", &late));
    let script = [
        Rows(&come),
        At(1, &right_comes),
        Mark(4, &first),
        Mark(8, ""),
        Recover,
        Rows(&late_comes),
        Mark(8, &third),
        Rows(&gone),
        Mark(9, &second),
        Rows(&late_goes),
        Mark(9, &last),
    ];
    run(spec, &script);
}

#[test]
fn a_row_among_a_million_is_found_by_a_search() {
    let spec = as_of(Way::Last, true, &numbers());
    let mut bench = Bench::new(Arc::new(spec.clone())).expect("an operator");
    let right: Vec<(Row, i64)> = (0..1_000_000).map(|t| ((Some(1), Some(t * 10), t), 1)).collect();
    bench.changes(1, as_changes(&spec.inputs[1], &right)).expect("changes");
    bench.mark(EventTime(0)).expect("an epoch");
    let left: Vec<(Row, i64)> = (0..200_000).map(|t| ((Some(1), Some(t * 50 + 5), t), 1)).collect();
    bench.changes(0, as_changes(&spec.inputs[0], &left)).expect("changes");
    let said: usize = bench.mark(EventTime(0)).expect("an epoch").iter().map(Changes::num_rows).sum();
    assert_eq!(said, left.len());
    let more: Vec<(Row, i64)> = (0..10_000).map(|t| ((Some(1), Some(t * 1000 + 3), -t), 1)).collect();
    bench.changes(1, as_changes(&spec.inputs[1], &more)).expect("changes");
    let said: usize = bench.mark(EventTime(0)).expect("an epoch").iter().map(Changes::num_rows).sum();
    assert_eq!(said, 2 * more.len(), "each new row has one row of the left side before the next");
}
