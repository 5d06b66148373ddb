//! `OVER` as scripts, and against what each partition gives when it is sorted.

use std::collections::BTreeMap;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion_expr::{WindowFrame, WindowFunctionDefinition};
use datafusion_functions_aggregate::sum::sum_udaf;
use datafusion_physical_expr::PhysicalSortExpr;
use datafusion_physical_expr::expressions::Column;
use datafusion_physical_plan::windows::create_window_expr;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::changes::Changes;
use crate::testing::Step::{Mark, Recover, Rows};
use crate::testing::{Bench, check, show};
use crate::time::EventTime;

const UP: SortOptions = SortOptions { descending: false, nulls_first: false };

fn input() -> SchemaRef {
    let field = |name| Field::new(name, DataType::Int64, true);
    Arc::new(Schema::new(vec![field("k"), field("v")]))
}

/// Calls by `k` in order of `v`.
fn over(functions: Vec<Function>, first: Option<First>, append_only: bool) -> Over {
    let mut fields = input().fields().to_vec();
    for (i, function) in functions.iter().enumerate() {
        let (of, nullable) = match function {
            Function::Other(_) => (DataType::Int64, true),
            _ => (DataType::UInt64, false),
        };
        fields.push(Arc::new(Field::new(format!("c{i}"), of, nullable)));
    }
    let calls = functions.into_iter().enumerate().map(|(i, function)| Call { name: format!("c{i}"), function });
    Over {
        input: input(),
        key: vec![0],
        order: vec![(1, UP)],
        calls: calls.collect(),
        first,
        append_only,
        settles: false,
        of_each_task: false,
        expiry: None,
        one_of: None,
        schema: Arc::new(Schema::new(fields)),
    }
}

/// The sum of `v` up to its row and those that are alike.
fn running_sum() -> Function {
    let (k, v) = (Arc::new(Column::new("k", 0)), Arc::new(Column::new("v", 1)));
    let order = [PhysicalSortExpr::new(v.clone(), UP)];
    let frame = Arc::new(WindowFrame::new(Some(false)));
    let function = WindowFunctionDefinition::AggregateUDF(sum_udaf());
    let made = create_window_expr(&function, "sum".into(), &[v], &[k], &order, frame, input(), false, false, None);
    Function::Other(made.expect("sum of integers"))
}

#[test]
fn values_change_with_the_rows_of_the_partition() {
    let all = vec![Function::RowNumber, Function::Rank, Function::DenseRank, running_sum()];
    let script = [
        Rows("+1 1 10; +1 1 10; +1 1 30; +1 2 5; +1 null 7"),
        Mark(0, "+1 1 10 1 1 1 20; +1 1 10 2 1 1 20; +1 1 30 3 3 2 50; +1 2 5 1 1 1 5; +1 null 7 1 1 1 7"),
        Rows("-1 1 10; +1 null null"),
        Mark(
            0,
            "-1 1 10 2 1 1 20; -1 1 10 1 1 1 20; +1 1 10 1 1 1 10; -1 1 30 3 3 2 50; +1 1 30 2 2 2 40; +1 null null 2 2 2 7",
        ),
        Recover,
        Rows("-1 2 5; +1 3 1; -1 3 1"),
        Mark(0, "-1 2 5 1 1 1 5"),
        Rows("-1 1 10; +1 1 10"),
        Mark(0, ""),
    ];
    check(Arc::new(over(all, None, false)), &input(), &script).expect("values of all rows");
}

#[test]
fn only_the_first_rows_are_given() {
    let first = Some(First { call: 0, most: 2 });
    let script = [
        Rows("+1 1 10; +1 1 20; +1 1 30; +1 2 5"),
        Mark(0, "+1 1 10 1; +1 1 20 2; +1 2 5 1"),
        Recover,
        Rows("+1 1 15"),
        Mark(0, "-1 1 20 2; +1 1 15 2"),
    ];
    check(Arc::new(over(vec![Function::RowNumber], first, true)), &input(), &script).expect("two of each");
    let back = [
        Rows("-1 1 10; -1 2 5"),
        Mark(0, "-1 1 10 1; -1 1 15 2; +1 1 15 1; +1 1 20 2; -1 2 5 1"),
        Recover,
        Rows("-1 1 15"),
        Mark(0, "-1 1 15 1; -1 1 20 2; +1 1 20 1; +1 1 30 2"),
    ];
    let script = [&script[..], &back[..]].concat();
    check(Arc::new(over(vec![Function::RowNumber], first, false)), &input(), &script).expect("others move up");
}

#[test]
fn rows_that_only_come_are_kept_as_far_as_they_are_wanted() {
    let spec = over(vec![Function::RowNumber], Some(First { call: 0, most: 3 }), true);
    assert_eq!(spec.state_bound(), StateBound::Rows(3, "k".to_owned()));
    let mut bench = Bench::new(Arc::new(spec)).expect("built");
    for epoch in 0..50 {
        let v: Int64Array = (0..100).map(|i| Some((i * 7919 + epoch * 31) % 1000)).collect();
        let k: Int64Array = (0..100).map(|i| Some(i % 5)).collect();
        let rows = RecordBatch::try_new(input(), vec![Arc::new(k), Arc::new(v)]).expect("two columns");
        bench.changes(0, Changes::insertions(rows)).expect("rows");
        bench.mark(EventTime(0)).expect("a mark");
    }
    bench.recover().expect("a checkpoint");
    // Layers hold some that have gone.
    assert!(bench.bytes() < 5 * 3 * 24 * 20, "{} bytes", bench.bytes());
}

#[test]
fn without_an_order_those_stay_that_are_there() {
    let some =
        Over { key: vec![], order: vec![], ..over(vec![Function::RowNumber], Some(First { call: 0, most: 2 }), true) };
    assert_eq!(some.state_bound(), StateBound::Rows(2, String::new()));
    let script =
        [Rows("+1 5 5"), Mark(0, "+1 5 5 1"), Rows("+1 4 4; +1 3 3"), Mark(0, "+1 3 3 2"), Rows("+1 1 1"), Mark(0, "")];
    check(Arc::new(some), &input(), &script).expect("the first two that came");
}

#[test]
fn partitions_go_when_they_get_no_more_rows() {
    let at = DataType::Timestamp(TimeUnit::Microsecond, None);
    let fields = [Field::new("w", at, true), Field::new("v", DataType::Int64, true)];
    let input = Arc::new(Schema::new(fields.to_vec()));
    let schema = [&fields[..], &[Field::new("n", DataType::UInt64, false)]].concat();
    let spec = Over {
        input: input.clone(),
        expiry: Some(Expiry { column: 0, after: -1 }),
        schema: Arc::new(Schema::new(schema)),
        ..over(vec![Function::RowNumber], None, true)
    };
    assert_eq!(spec.state_bound(), StateBound::Watermark);
    let (first, second) = ("1970-01-01T00:00:10", "1970-01-01T00:00:20");
    let rows = |weight, at, v| format!("{weight} {at} {v}");
    let said = |at, v, n| format!("+1 {at} {v} {n}");
    let (a, b, c) = (rows("+1", first, 1), rows("+1", first, 2), rows("+1", second, 1));
    let script = [
        Rows(&a),
        Mark(5, &said(first, 1, 1)),
        // The epoch in which a window closes may have rows of it.
        Rows(&b),
        Mark(10, &said(first, 2, 2)),
        Rows(&c),
        Mark(11, &said(second, 1, 1)),
    ];
    check(Arc::new(spec.clone()), &input, &script).expect("numbers of each window");
    let settles = Over { settles: true, ..spec };
    let script = [Rows(&a), Mark(5, &said(first, 1, 1)), Recover, Rows(&c), Mark(6, &said(second, 1, 1))];
    check(Arc::new(settles), &input, &script).expect("all rows of a window at once");
}

type Row = (Option<i64>, Option<i64>);

/// What `first` rows of each partition of `rows` have as number, rank and dense rank.
fn sorted(rows: &BTreeMap<Row, i64>, first: Option<u64>) -> BTreeMap<String, i64> {
    // Nulls are the last.
    let order = |v: Option<i64>| (v.is_none(), v);
    let mut all: Vec<Row> = rows.iter().flat_map(|(row, n)| vec![*row; *n as usize]).collect();
    all.sort_by_key(|(k, v)| (*k, order(*v)));
    let text = |v: Option<i64>| v.map_or("null".to_owned(), |v| v.to_string());
    let mut given = BTreeMap::new();
    for partition in all.chunk_by(|a, b| a.0 == b.0) {
        let (mut rank, mut dense) = (0, 0);
        for (i, row) in partition.iter().enumerate() {
            if i == 0 || partition[i - 1].1 != row.1 {
                (rank, dense) = (i + 1, dense + 1);
            }
            if first.is_none_or(|most| rank as u64 <= most) {
                *given.entry(format!("{} {} {} {rank} {dense}", text(row.0), text(row.1), i + 1)).or_default() += 1;
            }
        }
    }
    given
}

#[test]
fn random_changes_give_what_sorting_gives() {
    for (seed, first, append_only) in [(1, None, false), (2, Some(2), false), (3, Some(2), true), (4, Some(1), false)] {
        let mut random = StdRng::seed_from_u64(seed);
        let first = first.map(|most| First { call: 1, most });
        let spec = over(vec![Function::RowNumber, Function::Rank, Function::DenseRank], first, append_only);
        let mut bench = Bench::new(Arc::new(spec)).expect("built");
        let (mut rows, mut said): (BTreeMap<Row, i64>, BTreeMap<String, i64>) = Default::default();
        for epoch in 0..60 {
            for _ in 0..random.random_range(0..3) {
                let (mut columns, mut weights) = ((vec![], vec![]), vec![]);
                for _ in 0..random.random_range(1..20) {
                    let some = |n| Some(n).filter(|n| *n > 0);
                    let row = (some(random.random_range(0..6)), some(random.random_range(0..5)));
                    let there = rows.entry(row).or_default();
                    let weight = if !append_only && *there > 0 && random.random_bool(0.5) { -1 } else { 1 };
                    *there += weight;
                    columns.0.push(row.0);
                    columns.1.push(row.1);
                    weights.push(weight);
                }
                let columns: Vec<arrow::array::ArrayRef> =
                    vec![Arc::new(Int64Array::from(columns.0)), Arc::new(Int64Array::from(columns.1))];
                let batch = RecordBatch::try_new(input(), columns).expect("two columns");
                bench.changes(0, Changes::weighted(batch, weights.into()).expect("weights")).expect("rows");
            }
            for changes in bench.mark(EventTime(0)).expect("a mark") {
                for line in show(&changes).expect("text") {
                    let (weight, row) = line.split_once(' ').expect("a weight");
                    *said.entry(row.to_owned()).or_default() += weight.parse::<i64>().expect("a number");
                }
            }
            said.retain(|_, n| *n != 0);
            assert_eq!(said, sorted(&rows, first.map(|f| f.most)), "seed {seed}, epoch {epoch}");
            if random.random_bool(0.1) {
                bench.recover().expect("a checkpoint");
            }
        }
    }
}
