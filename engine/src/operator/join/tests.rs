//! Joins against nested loops.

mod lookups;

use std::collections::BTreeMap;

use arrow::array::{Int64Array, StringViewArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion_physical_expr::expressions::{BinaryExpr, Column};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::changes::Changes;
use crate::testing::Step::{At, Mark, Recover, Rows};
use crate::testing::{Bench, check};
use crate::time::EventTime;
use arrow::array::RecordBatch;

type Row = (Option<i64>, Option<i64>);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("v", DataType::Int64, true)]))
}

const KINDS: [JoinKind; 10] = [
    JoinKind::Inner,
    JoinKind::Left,
    JoinKind::Right,
    JoinKind::Full,
    JoinKind::Semi(0),
    JoinKind::Semi(1),
    JoinKind::Anti(0),
    JoinKind::Anti(1),
    JoinKind::Mark(0),
    JoinKind::Mark(1),
];

/// A join of `k, v` with `k, v` by `keys` columns, with `left.v < right.v` where there is a condition.
fn join(kind: JoinKind, keys: &[usize], nulls_equal: bool, condition: bool) -> Arc<Join> {
    let sides: &[usize] = match kind {
        JoinKind::Semi(of) | JoinKind::Anti(of) | JoinKind::Mark(of) => &[[0], [1]][of],
        _ => &[0, 1],
    };
    let mut columns: Vec<JoinColumn> =
        sides.iter().flat_map(|s| [JoinColumn::Of(*s, 0), JoinColumn::Of(*s, 1)]).collect();
    let mut fields: Vec<Field> =
        (0..columns.len()).map(|i| Field::new(format!("c{i}"), DataType::Int64, true)).collect();
    if matches!(kind, JoinKind::Mark(_)) {
        columns.push(JoinColumn::Mark);
        fields.push(Field::new("mark", DataType::Boolean, false));
    }
    let read =
        Arc::new(Schema::new(vec![Field::new("r", DataType::Int64, true), Field::new("l", DataType::Int64, true)]));
    let column = |name: &str, at: usize| -> Arc<dyn PhysicalExpr> { Arc::new(Column::new(name, at)) };
    let less = BinaryExpr::new(column("l", 1), datafusion_expr::Operator::Lt, column("r", 0));
    let condition = condition.then(|| Condition { expr: Arc::new(less), columns: vec![(1, 1), (0, 1)], schema: read });
    Arc::new(Join {
        kind,
        inputs: [schema(), schema()],
        keys: [keys.to_vec(), keys.to_vec()],
        nulls_equal,
        condition,
        expiry: [None, None],
        one_of: [None, None],
        settles: false,
        lookup: false,
        right_ends: false,
        columns,
        schema: Arc::new(Schema::new(fields)),
    })
}

fn text(row: &Row) -> String {
    let one = |v: Option<i64>| v.map_or("null".to_owned(), |v| v.to_string());
    format!("{} {}", one(row.0), one(row.1))
}

/// What a join of `sides` is.
fn nested_loops(of: &Join, sides: &[BTreeMap<Row, i64>; 2]) -> BTreeMap<String, i64> {
    let matches = |l: &Row, r: &Row| {
        let same = |a: Option<i64>, b: Option<i64>| if of.nulls_equal { a == b } else { a.is_some() && a == b };
        let keys = of.keys[0].iter().all(|k| if *k == 0 { same(l.0, r.0) } else { same(l.1, r.1) });
        keys && (of.condition.is_none() || l.1.zip(r.1).is_some_and(|(l, r)| l < r))
    };
    let mut all = BTreeMap::new();
    let mut say = |text: String, weight: i64| *all.entry(text).or_default() += weight;
    if of.kind.gives_pairs() {
        for (l, m) in &sides[0] {
            for (r, n) in sides[1].iter().filter(|(r, _)| matches(l, r)) {
                say(format!("{} {}", text(l), text(r)), m * n);
            }
        }
    }
    for side in [0, 1] {
        let Some(alone) = of.kind.alone(side) else { continue };
        for (row, n) in &sides[side] {
            let met = |other: &Row| if side == 0 { matches(row, other) } else { matches(other, row) };
            let matched = sides[1 - side].keys().any(met);
            match (alone, of.kind.gives_pairs()) {
                (Alone::Marked, _) => say(format!("{} {matched}", text(row)), *n),
                (Alone::Matched, _) if matched => say(text(row), *n),
                (Alone::Unmatched, true) if !matched && side == 0 => say(format!("{} null null", text(row)), *n),
                (Alone::Unmatched, true) if !matched => say(format!("null null {}", text(row)), *n),
                (Alone::Unmatched, false) if !matched => say(text(row), *n),
                _ => {}
            }
        }
    }
    all
}

/// Random changes of `side`, which may take back what is there.
fn random(rng: &mut StdRng, side: &mut BTreeMap<Row, i64>) -> Changes {
    let (mut k, mut v, mut weights) = (vec![], vec![], vec![]);
    let value = |rng: &mut StdRng, of: i64| Some(rng.random_range(0..of)).filter(|v| *v != 0);
    for _ in 0..rng.random_range(1..12) {
        let there = side.len();
        let (row, weight) = match there > 0 && rng.random_bool(0.45) {
            true => {
                let (row, n) = side.iter().nth(rng.random_range(0..there)).map(|(r, n)| (*r, *n)).expect("a row");
                (row, if rng.random_bool(0.5) { -n } else { -1 })
            }
            false => ((value(rng, 5), value(rng, 6)), rng.random_range(1..3)),
        };
        let n = side.entry(row).or_default();
        *n += weight;
        if *n == 0 {
            side.remove(&row);
        }
        k.push(row.0);
        v.push(row.1);
        weights.push(weight);
    }
    // Within an epoch what is taken back may come before what it takes back.
    let mut order: Vec<usize> = (0..k.len()).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, rng.random_range(0..=i));
    }
    let pick = |of: &[Option<i64>]| order.iter().map(|i| of[*i]).collect::<Int64Array>();
    let rows = RecordBatch::try_new(schema(), vec![Arc::new(pick(&k)), Arc::new(pick(&v))]).expect("rows");
    Changes::weighted(rows, order.iter().map(|i| weights[*i]).collect()).expect("weights")
}

#[test]
fn any_join_is_that_of_nested_loops_after_each_epoch() {
    for kind in KINDS {
        for keys in [&[0][..], &[0, 1], &[]] {
            for (nulls_equal, condition) in [(false, false), (true, false), (false, true), (true, true)] {
                let of = join(kind, keys, nulls_equal, condition);
                let seed = (keys.len() * 4 + usize::from(nulls_equal) * 2 + usize::from(condition)) as u64;
                let mut rng = StdRng::seed_from_u64(seed);
                let mut bench = Bench::new(of.clone()).expect("builds");
                let (mut sides, mut said) = ([BTreeMap::new(), BTreeMap::new()], BTreeMap::<String, i64>::new());
                for epoch in 0..30 {
                    for _ in 0..rng.random_range(0..4) {
                        let port = rng.random_range(0..2);
                        let changes = random(&mut rng, &mut sides[port]);
                        bench.changes(port, changes).expect("takes them");
                    }
                    for changes in bench.mark(EventTime(epoch)).expect("a mark") {
                        let (rows, weights) = changes.into_parts();
                        let lines = crate::testing::show(&Changes::insertions(rows)).expect("text");
                        for (i, line) in lines.iter().enumerate() {
                            let line = line.trim_start_matches("+1 ").to_owned();
                            *said.entry(line).or_default() += weights.as_ref().map_or(1, |w| w[i]);
                        }
                    }
                    said.retain(|_, n| *n != 0);
                    assert_eq!(said, nested_loops(&of, &sides), "{}, seed {seed}, epoch {epoch}", of.describe());
                    if rng.random_bool(0.2) {
                        bench.recover().expect("restores");
                    }
                }
            }
        }
    }
}

#[test]
fn an_outer_join_takes_back_what_it_said_of_rows_without_a_match() {
    let script = [
        Rows("+1 1 10; +1 null 11"),
        Mark(0, "+1 1 10 null null; +1 null 11 null null"),
        At(1, "+1 1 20; +1 1 21"),
        Mark(0, "-1 1 10 null null; +1 1 10 1 20; +1 1 10 1 21"),
        At(1, "-1 1 20"),
        Mark(0, "-1 1 10 1 20"),
        Recover,
        At(1, "-1 1 21; +1 null 22"),
        Mark(0, "-1 1 10 1 21; +1 1 10 null null"),
        Rows("-1 1 10"),
        Mark(0, "-1 1 10 null null"),
        At(1, "+1 1 23"),
        Mark(0, ""),
    ];
    check(join(JoinKind::Left, &[0], false, false), &schema(), &script).expect("a left join");
}

#[test]
fn rows_are_said_once_however_many_they_match() {
    let script = [
        At(1, "+1 1 1; +1 1 2"),
        Mark(0, ""),
        Rows("+2 1 10"),
        Mark(0, "+2 1 10"),
        At(1, "-1 1 1; +3 1 5"),
        Mark(0, ""),
        At(1, "-1 1 2; -3 1 5"),
        Mark(0, "-2 1 10"),
    ];
    check(join(JoinKind::Semi(0), &[0], false, false), &schema(), &script).expect("a semi join");
}

/// `rows` rows with the key 1.
fn skewed(rows: i64) -> Changes {
    let columns: Vec<arrow::array::ArrayRef> =
        vec![Arc::new(Int64Array::from(vec![1; rows as usize])), Arc::new(Int64Array::from_iter_values(0..rows))];
    Changes::insertions(RecordBatch::try_new(schema(), columns).expect("rows"))
}

#[test]
fn a_key_that_many_rows_have_is_said_piece_by_piece() {
    for kind in [JoinKind::Inner, JoinKind::Full] {
        let mut bench = Bench::new(join(kind, &[0], false, false)).expect("builds");
        bench.changes(0, skewed(20_000)).expect("takes them");
        bench.mark(EventTime(0)).expect("a mark");
        let before = bench.rounds();
        bench.changes(1, skewed(100)).expect("takes them");
        let said = bench.mark(EventTime(0)).expect("a mark");
        let pairs: usize = said.iter().filter(|c| c.rows().column(2).null_count() == 0).map(Changes::num_rows).sum();
        assert_eq!(pairs, 2_000_000);
        let most = said.iter().map(Changes::bytes).max().expect("it is said");
        assert!(most <= 4 << 20 && bench.rounds() - before > 10, "{most} bytes at once, {} rounds", bench.rounds());
    }
}

#[test]
fn texts_are_kept_without_what_else_lies_in_their_buffers() {
    let text = Arc::new(Schema::new(vec![Field::new("k", DataType::Utf8View, true)]));
    let of = Join {
        inputs: [text.clone(), text.clone()],
        columns: vec![JoinColumn::Of(0, 0), JoinColumn::Of(1, 0)],
        schema: Arc::new(Schema::new(vec![
            Field::new("a", DataType::Utf8View, true),
            Field::new("b", DataType::Utf8View, true),
        ])),
        ..(*join(JoinKind::Inner, &[0], false, false)).clone()
    };
    let mut bench = Bench::new(Arc::new(of)).expect("builds");
    let long = StringViewArray::from_iter_values((0..10_000).map(|i| format!("a text of more than twelve bytes {i}")));
    for at in (0..10_000).step_by(1000) {
        let rows = RecordBatch::try_new(text.clone(), vec![Arc::new(long.slice(at, 1))]).expect("a row");
        bench.changes(0, Changes::insertions(rows.clone())).expect("takes it");
        bench.changes(1, Changes::insertions(rows)).expect("takes it");
    }
    let said = bench.mark(EventTime(0)).expect("a mark");
    assert_eq!(said.iter().map(Changes::num_rows).sum::<usize>(), 10);
    assert!(bench.bytes() < 10_000, "{} bytes", bench.bytes());
}

/// Rows with a key and a time.
fn timed(rows: impl Iterator<Item = (i64, i64)>) -> Changes {
    let (keys, times): (Vec<i64>, Vec<i64>) = rows.unzip();
    let at = TimestampMillisecondArray::from(times);
    let columns: Vec<arrow::array::ArrayRef> = vec![Arc::new(Int64Array::from(keys)), Arc::new(at)];
    Changes::insertions(RecordBatch::try_new(times_schema(), columns).expect("rows"))
}

fn times_schema() -> SchemaRef {
    let at = DataType::Timestamp(TimeUnit::Millisecond, None);
    Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("at", at, true)]))
}

#[test]
fn rows_that_match_nothing_any_more_go() {
    let expiry = Expiry { column: 1, after: 2_000_000 };
    let of = Join {
        inputs: [times_schema(), times_schema()],
        expiry: [Some(expiry), Some(expiry)],
        columns: vec![JoinColumn::Of(0, 0), JoinColumn::Of(1, 1)],
        schema: times_schema(),
        ..(*join(JoinKind::Inner, &[0], false, false)).clone()
    };
    assert_eq!(of.state_bound(), StateBound::Watermark);
    let mut bench = Bench::new(Arc::new(of)).expect("builds");
    let (mut most, mut said, mut last) = (0, 0, 0);
    for second in 0..300 {
        for port in 0..2 {
            bench.changes(port, timed((0..1000).map(|i| (second * 1000 + i, second * 1000)))).expect("takes them");
        }
        said += bench.mark(EventTime(second * 1_000_000)).expect("a mark").iter().map(Changes::num_rows).sum::<usize>();
        // What is held for the next checkpoint is no part of it.
        bench.checkpoint().expect("a checkpoint");
        (most, last) = (most.max(bench.bytes()), bench.bytes());
        if second == 150 {
            bench.recover().expect("restores");
        }
    }
    assert_eq!(said, 300_000, "each row meets the one of its second");
    assert!(most < 16 * 2 * 1000 * 48 && last > 0, "{most} bytes at most for the rows of a few seconds");
}

#[test]
fn what_is_left_at_the_end_of_an_epoch_is_said_once() {
    let of = Arc::new(Join { settles: true, ..(*join(JoinKind::Left, &[0], false, false)).clone() });
    let script = [
        Rows("+1 1 10; +1 2 20"),
        At(1, "+1 1 11"),
        Mark(0, "+1 1 10 1 11; +1 2 20 null null"),
        Recover,
        At(1, "+1 3 31"),
        Rows("+1 3 30"),
        Mark(0, "+1 3 30 3 31"),
    ];
    check(of, &schema(), &script).expect("a left join that settles");
}

#[test]
fn expired_rows_are_those_before_the_watermark_less_what_they_wait() {
    let seconds = Arc::new(Schema::new(vec![Field::new("s", DataType::Timestamp(TimeUnit::Second, None), true)]));
    let bound = |after: i64, watermark: i64| Expiry { column: 0, after }.bound(&seconds, EventTime(watermark));
    assert_eq!(bound(0, 10_000_000), Some(10));
    assert_eq!(bound(0, 10_999_999), Some(10), "a row of second 10 may still be met at 10.5");
    assert_eq!(bound(3_000_000, 10_000_000), Some(7));
    assert_eq!(bound(-1, 9_999_999), Some(10), "the end of a window that has closed");
    assert_eq!(Expiry { column: 0, after: 0 }.bound(&seconds, EventTime::MIN), None);
}
