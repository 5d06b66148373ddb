//! Tests of aggregation, as scripts.

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::TimeUnit;
use datafusion_expr::AggregateUDF;
use datafusion_functions_aggregate::count::count_udaf;
use datafusion_functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion_functions_aggregate::sum::sum_udaf;
use datafusion_physical_expr::aggregate::AggregateExprBuilder;
use datafusion_physical_expr::expressions::Column;

use super::*;
use crate::changes::Changes;
use crate::operator::window::{Length, Panes};
use crate::state::{Owner, State};
use crate::testing::Step::{self, End, Mark, Recover, Rows};
use crate::testing::{Bench, check, parse, show};
use crate::time::EventTime;

const S: i64 = 1_000_000;

fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

fn input() -> SchemaRef {
    let fields = [("k", DataType::Utf8View), ("v", DataType::Int64), ("window_end", time())];
    Arc::new(Schema::new(fields.map(|(n, t)| Field::new(n, t, true)).to_vec()))
}

fn column(at: usize) -> Arc<dyn PhysicalExpr> {
    Arc::new(Column::new(input().field(at).name(), at))
}

fn call(function: Arc<AggregateUDF>, at: usize) -> Call {
    let name = function.name().to_owned();
    let builder = AggregateExprBuilder::new(function, vec![column(at)]).schema(input()).alias(name);
    Call { function: Arc::new(builder.build().expect("an aggregate")), filter: None }
}

/// `SELECT k[, window_end], count(v), sum(v) or max(v) … GROUP BY` the columns `groups`.
fn aggregate(groups: &[usize], calls: Vec<Call>, time: Option<TimeKey>, append_only: bool) -> Aggregate {
    let emit = if time.is_some() { EmitMode::OnClose } else { EmitMode::Changes };
    let groups: Vec<_> = groups.iter().map(|g| (column(*g), Arc::new(input().field(*g).clone()))).collect();
    let mut fields: Vec<_> = groups.iter().map(|g| g.1.clone()).collect();
    fields.extend(calls.iter().map(|c| c.function.field()));
    let output = Arc::new(Schema::new(fields));
    let (phase, units) = (Phase::Single, Default::default());
    Aggregate { groups, calls, time, cut: None, phase, emit, append_only, input: input(), output, units }
}

fn counted(groups: &[usize], append_only: bool) -> Aggregate {
    aggregate(groups, vec![call(count_udaf(), 1), call(sum_udaf(), 1)], None, append_only)
}

fn windowed(windows: WindowSpec, panes: bool) -> Aggregate {
    let time = TimeKey { columns: vec![(1, TimeColumn::End)], windows: Some(windows), panes };
    aggregate(&[0, 2], vec![call(count_udaf(), 1), call(max_udaf(), 1)], Some(time), true)
}

/// As [`check`], with what was put aside: its rows, weights and reasons.
fn says(bench: &mut Bench, step: Step<'_>) -> (Vec<String>, Vec<String>) {
    let seconds = match step {
        Rows(text) | Step::At(_, text) => {
            bench.changes(0, parse(&input(), text).expect("rows")).expect("taken in");
            return (vec![], vec![]);
        }
        Recover => {
            bench.recover().expect("restored");
            return (vec![], vec![]);
        }
        Mark(seconds, _) => EventTime(seconds * S),
        End(_) => EventTime::MAX,
    };
    let said = bench.mark(seconds).expect("an epoch");
    let mut said: Vec<String> = said.iter().flat_map(|c| show(c).expect("text")).collect();
    let aside = bench.take_aside().into_iter().flat_map(|a| {
        let rows = show(&a.changes).expect("text");
        rows.into_iter().zip(a.failures).map(|(row, why)| format!("{row}: {why}")).collect::<Vec<_>>()
    });
    let mut aside: Vec<String> = aside.collect();
    said.sort();
    aside.sort();
    (said, aside)
}

/// Runs steps; each mark says what is emitted, and behind `|` what is put aside.
fn run_with_aside(spec: Aggregate, script: &[Step<'_>]) {
    let mut bench = Bench::new(Arc::new(spec)).expect("built");
    for (i, step) in script.iter().enumerate() {
        let expected = match step {
            Mark(_, text) | End(text) => *text,
            _ => "",
        };
        let (emitted, aside) = expected.split_once('|').unwrap_or((expected, ""));
        let lines = |text: &str| {
            let mut lines: Vec<String> =
                text.split(" & ").map(|l| l.trim().to_owned()).filter(|l| !l.is_empty()).collect();
            lines.sort();
            lines
        };
        assert_eq!(says(&mut bench, *step), (lines(emitted), lines(aside)), "step {i}");
    }
}

const MAX: i64 = i64::MAX;

#[test]
fn a_sum_that_does_not_fit_is_put_aside_and_comes_back() {
    let over = |weight: &str, n: i64, sum: &str| {
        format!("{weight} a {n} null: sum(v): {sum} does not fit BIGINT; write sum(v::DECIMAL(38, 0))")
    };
    let first = format!("+1 a {MAX} null; +1 b 1 null");
    let says = format!("+1 a 1 {MAX} & +1 b 1 1");
    let too_much = format!("-1 a 1 {MAX} | {}", over("+1", 2, "9223372036854775808"));
    let other = format!(" | {} & {}", over("-1", 2, "9223372036854775808"), over("+1", 3, "9223372036854775810"));
    let back = format!("+1 a 2 3 | {}", over("-1", 3, "9223372036854775810"));
    let gone = format!("+1 c {MAX} null; +1 c 1 null");
    let new = format!("| {}", over("+1", 2, "9223372036854775808").replace(" a ", " c "));
    let never = format!("| {}", over("-1", 2, "9223372036854775808").replace(" a ", " c "));
    let minus = format!("-1 a {MAX} null");
    let minus_c = format!("-1 c {MAX} null; -1 c 1 null");
    let script = [
        Rows(&first),
        Mark(0, &says),
        Rows("+1 a 1 null"),
        Mark(0, &too_much),
        Recover,
        // A group that is touched and stays as it is says nothing.
        Rows("+1 a null null; +1 b null null"),
        Mark(0, ""),
        Rows("+1 a 2 null"),
        Mark(0, &other),
        Recover,
        Rows(&minus),
        Mark(0, &back),
        Rows(&gone),
        Mark(0, &new),
        Recover,
        Rows(&minus_c),
        Mark(0, &never),
    ];
    run_with_aside(counted(&[0], false), &script);
}

#[test]
fn within_an_epoch_only_the_end_counts() {
    let rows = format!("+1 a {MAX} null; +1 a {MAX} null; -1 a {MAX} null; +3 a 7 null; -3 a 7 null");
    let says = format!("+1 a 1 {MAX}");
    run_with_aside(counted(&[0], false), &[Rows(&rows), Mark(0, &says)]);
}

#[test]
fn a_window_whose_sum_does_not_fit_is_put_aside_when_it_closes() {
    let windows = WindowSpec::Hop { slide: Length::Micros(5 * S), size: Length::Micros(10 * S), offset: 0 };
    let time = TimeKey { columns: vec![(1, TimeColumn::End)], windows: Some(windows), panes: true };
    let spec = aggregate(&[0, 2], vec![call(sum_udaf(), 1)], Some(time), true);
    let at = |s: i64| format!("1970-01-01T00:00:{s:02}");
    let rows = format!("+1 a {MAX} {}; +1 a 1 {}", at(5), at(10));
    let reason = "sum(v): 9223372036854775808 does not fit BIGINT; write sum(v::DECIMAL(38, 0))";
    let says = format!("+1 a {} {MAX} & +1 a {} 1 | +1 a {} null: {reason}", at(5), at(15), at(10));
    run_with_aside(spec, &[Rows(&rows), Recover, End(&says)]);
}

#[test]
fn two_phases_carry_what_does_not_fit() {
    let partial = Aggregate { phase: Phase::Partial, ..counted(&[0], false) };
    let mut first = Bench::new(Arc::new(partial.clone())).expect("built");
    let mut last = Bench::new(Arc::new(Aggregate { phase: Phase::Final, ..partial })).expect("built");
    let rows = format!("+1 a {MAX} null; +1 a {MAX} null");
    first.changes(0, parse(&input(), &rows).expect("rows")).expect("taken in");
    for states in first.mark(EventTime(0)).expect("states") {
        last.changes(0, states).expect("taken in");
    }
    let (said, aside) = says(&mut last, Mark(0, ""));
    assert!(said.is_empty() && aside[0].contains("18446744073709551614 does not fit BIGINT"), "{said:?} {aside:?}");
    first.changes(0, parse(&input(), &format!("-1 a {MAX} null")).expect("rows")).expect("taken in");
    for states in first.mark(EventTime(0)).expect("states") {
        last.changes(0, states).expect("taken in");
    }
    assert_eq!(says(&mut last, Mark(0, "")).0, [format!("+1 a 1 {MAX}")]);
}

#[test]
fn a_state_without_carries_is_restored() {
    // As builds before wrote it: key, rows, then count(v), and sum(v) with its number of values.
    let old: [(&str, ArrayRef); 6] = [
        ("w", Arc::new(Int64Array::from(vec![0, 0]))),
        ("k:k", Arc::new(StringViewArray::from(vec!["a", "b"]))),
        ("__rows", Arc::new(Int64Array::from(vec![2, 1]))),
        ("a0:0", Arc::new(Int64Array::from(vec![2, 0]))),
        ("a1:0", Arc::new(Int64Array::from(vec![5, 0]))),
        ("a1:1", Arc::new(Int64Array::from(vec![2, 0]))),
    ];
    let old = RecordBatch::try_from_iter(old).expect("a state");
    let mut tables = tables::Tables::new(Arc::new(counted(&[0], false))).expect("tables");
    tables.restore(&old, Owner { task: 0, parallelism: 1 }).expect("restores");
    let table = tables.table(0).expect("a table");
    let (values, failures) = table.values(&[0, 1]).expect("values");
    let sum = values[1].as_primitive::<Int64Type>();
    assert!(failures.is_empty() && sum.value(0) == 5 && sum.is_null(1));
    let short = old.project(&[0, 1, 2, 4, 5]).expect("fewer columns");
    assert!(tables.restore(&short, Owner { task: 0, parallelism: 1 }).is_err());
}

#[test]
fn nan_is_the_largest_number_whatever_its_bits() {
    let fields = vec![Field::new("v", DataType::Float64, true)];
    let schema = Arc::new(Schema::new(fields));
    let v: Arc<dyn PhysicalExpr> = Arc::new(Column::new("v", 0));
    let call = |function: Arc<AggregateUDF>| {
        let name = function.name().to_owned();
        let builder = AggregateExprBuilder::new(function, vec![v.clone()]).schema(schema.clone()).alias(name);
        Call { function: Arc::new(builder.build().expect("an aggregate")), filter: None }
    };
    let calls = vec![call(min_udaf()), call(max_udaf()), call(count_udaf())];
    let output = Arc::new(Schema::new(calls.iter().map(|c| c.function.field()).collect::<Vec<_>>()));
    let spec = Aggregate { output, input: schema.clone(), ..aggregate(&[], calls, None, true) };
    let mut bench = Bench::new(Arc::new(spec)).expect("built");
    let values = Float64Array::from(vec![-f64::NAN, f64::INFINITY, 2.0]);
    let rows = RecordBatch::try_new(schema, vec![Arc::new(values)]).expect("a column");
    bench.changes(0, Changes::insertions(rows)).expect("taken in");
    let said = bench.mark(EventTime(0)).expect("an epoch");
    assert_eq!(show(&said[0]).expect("text"), ["+1 2.0 NaN 3"]);
}

fn run(spec: Aggregate, script: &[Step<'_>]) {
    check(Arc::new(spec), &input(), script).expect("what the script says");
}

#[test]
fn a_touched_group_says_its_old_and_its_new_row_once_an_epoch() {
    let script = [
        Rows("+1 a 1 null; +1 b 2 null"),
        Rows("+1 a null null"),
        Mark(0, "+1 a 1 1; +1 b 1 2"),
        Mark(0, ""),
        Rows("+1 a 3 null"),
        Rows("+1 a 4 null; +1 null 5 null"),
        Mark(0, "-1 a 1 1; +1 a 3 8; +1 null 1 5"),
        Rows("+1 a null null"),
        Mark(0, ""),
    ];
    run(counted(&[0], true), &script);
}

#[test]
fn rows_taken_back_leave_no_trace_and_an_empty_group_vanishes() {
    let script = [
        Rows("+2 a 5 null; +1 b 1 null"),
        Mark(0, "+1 a 2 10; +1 b 1 1"),
        Rows("-1 a 5 null; -1 b 1 null"),
        Mark(0, "-1 a 2 10; +1 a 1 5; -1 b 1 1"),
        // Within an epoch a retraction may come before its row.
        Rows("-1 c 3 null"),
        Rows("+1 c 3 null; +1 b 9 null; -1 a 5 null; +1 a 5 null"),
        Mark(0, "+1 b 1 9"),
    ];
    run(counted(&[0], false), &script);
}

#[test]
fn what_has_vanished_is_not_held_and_not_written() {
    let mut bench = Bench::new(Arc::new(counted(&[0], false))).expect("built");
    let rows = |bench: &mut Bench, weight: &str, of: std::ops::Range<usize>| {
        let text: Vec<String> = of.map(|k| format!("{weight} key{k} {k} null")).collect();
        bench.changes(0, parse(&input(), &text.join("; ")).expect("rows")).expect("taken in");
        bench.mark(EventTime(0)).expect("an epoch").iter().map(Changes::num_rows).sum::<usize>()
    };
    assert_eq!(rows(&mut bench, "+1", 0..10), 10);
    let (few, _) = (bench.bytes(), bench.checkpoint().expect("written"));
    assert_eq!(rows(&mut bench, "+1", 10..20_000), 19_990);
    assert_eq!(bench.checkpoint().expect("written"), 20_000);
    let many = bench.bytes();
    assert_eq!(rows(&mut bench, "-1", 10..20_000), 19_990);
    assert!(bench.bytes() < few * 4 && few * 100 < many, "{few}, {many}, {}", bench.bytes());
    assert_eq!(bench.checkpoint().expect("written"), 10);
    // What comes again is as new, before and after a restart; what stayed is as it was.
    assert_eq!(rows(&mut bench, "+1", 5..15), 5 * 2 + 5);
    bench.recover().expect("restored");
    assert_eq!(rows(&mut bench, "-1", 0..15), 15 + 5);
    assert_eq!(rows(&mut bench, "-1", 5..10), 5);
    bench.recover().expect("restored");
    assert_eq!(bench.checkpoint().expect("written"), 0);
    assert_eq!(rows(&mut bench, "+1", 0..3), 3);
    // Those that had vanished before a restart count among those that are gone after it.
    assert_eq!(rows(&mut bench, "+1", 100..10_100), 10_000);
    bench.recover().expect("restored");
    assert_eq!(bench.checkpoint().expect("written"), 10_003);
    assert_eq!(rows(&mut bench, "-1", 100..5_000), 4_900);
    bench.recover().expect("restored");
    bench.mark(EventTime(0)).expect("an epoch");
    let both = bench.bytes();
    assert_eq!(rows(&mut bench, "-1", 5_000..5_200), 200);
    assert!(bench.bytes() < both * 3 / 4, "{} of {both}", bench.bytes());
    assert_eq!(bench.checkpoint().expect("written"), 4_903);
}

/// `n` keys with the value `v`, in the window that ends at 10 s.
fn many(n: usize, v: i64) -> Changes {
    let keys = StringViewArray::from_iter_values((0..n).map(|k| format!("the key of group {k}")));
    let values = Int64Array::from(vec![v; n]);
    let ends = TimestampMicrosecondArray::from(vec![10 * S; n]);
    let columns: Vec<ArrayRef> = vec![Arc::new(keys), Arc::new(values), Arc::new(ends)];
    Changes::insertions(RecordBatch::try_new(input(), columns).expect("rows"))
}

#[test]
fn rows_of_one_key_in_a_row_count_as_they_do_apart() {
    // 40 keys of 30 rows each; a key is its rows' value, so that some sums fit in no BIGINT.
    let key = |k: i64| k - 20 + if k % 5 == 0 { i64::MAX / 8 } else { 0 };
    let batch = |keys: Vec<i64>| {
        let (n, values) = (keys.len(), Int64Array::from_iter_values(keys));
        let text = StringViewArray::from_iter_values(vec!["k"; n]);
        let ends = TimestampMicrosecondArray::from(vec![10 * S; n]);
        let columns: Vec<ArrayRef> = vec![Arc::new(text), Arc::new(values), Arc::new(ends)];
        Changes::insertions(RecordBatch::try_new(input(), columns).expect("rows"))
    };
    let said = |keys: Vec<i64>| {
        let calls = vec![call(count_udaf(), 1), call(sum_udaf(), 1), call(max_udaf(), 1), call(min_udaf(), 2)];
        let mut bench = Bench::new(Arc::new(aggregate(&[1], calls, None, true))).expect("built");
        for _ in 0..2 {
            bench.changes(0, batch(keys.clone())).expect("taken in");
        }
        let mut rows: Vec<String> =
            bench.mark(EventTime(0)).expect("an epoch").iter().flat_map(|c| show(c).expect("text")).collect();
        let mut aside: Vec<String> = bench.take_aside().iter().flat_map(|a| show(&a.changes).expect("text")).collect();
        rows.sort();
        aside.sort();
        (rows, aside)
    };
    let in_a_row = said((0..1200).map(|row| key(row / 30)).collect());
    assert_eq!((in_a_row.0.len(), in_a_row.1.len()), (32, 8));
    assert!(in_a_row.0[0].starts_with("+1"), "{:?}", in_a_row.0);
    assert_eq!(said((0..1200).map(|row| key(row % 40)).collect()), in_a_row);
}

#[test]
fn much_is_said_in_pieces() {
    let n = 200_000;
    let said = |bench: &mut Bench, mark: i64| {
        let (before, said) = (bench.rounds(), bench.mark(EventTime(mark * S)).expect("an epoch"));
        let largest = said.iter().map(Changes::num_rows).max().unwrap_or(0);
        assert!(largest <= 2 * PIECE as usize, "{largest} at once");
        let keys: std::collections::HashSet<String> = said
            .iter()
            .flat_map(|c| {
                c.rows().column(0).as_string_view().iter().map(|k| k.expect("a key").to_owned()).collect::<Vec<_>>()
            })
            .collect();
        (bench.rounds() - before, said.iter().map(Changes::num_rows).sum::<usize>(), keys.len())
    };
    let mut updating = Bench::new(Arc::new(counted(&[0], true))).expect("built");
    updating.changes(0, many(n, 1)).expect("taken in");
    let (rounds, rows, keys) = said(&mut updating, 0);
    assert!(rounds > 0, "it comes back");
    assert_eq!((rows, keys), (n, n));
    updating.changes(0, many(n + 10, 1)).expect("taken in");
    updating.changes(0, many(5, 1)).expect("taken in");
    let (rounds, rows, keys) = said(&mut updating, 0);
    assert!(rounds > 0, "it comes back");
    assert_eq!((rows, keys), (2 * n + 10, n + 10), "old and new rows, and new ones");
    assert_eq!(said(&mut updating, 0), (0, 0, 0));
    for panes in [false, true] {
        let windows = WindowSpec::Tumble { size: Length::Micros(10 * S), offset: 0 };
        let mut closing = Bench::new(Arc::new(windowed(windows, panes))).expect("built");
        closing.changes(0, many(n, 1)).expect("taken in");
        assert_eq!(said(&mut closing, 9), (0, 0, 0));
        let (rounds, rows, keys) = said(&mut closing, 30);
        assert!(rounds > 0, "it comes back");
        assert_eq!((rows, keys), (n, n));
        assert_eq!(closing.bytes(), 0);
    }
    let partial = Aggregate { phase: Phase::Partial, ..counted(&[0], true) };
    let mut partial = Bench::new(Arc::new(partial)).expect("built");
    partial.changes(0, many(n, 1)).expect("taken in");
    assert!(partial.rounds() > 0, "it comes back");
}

#[test]
fn the_largest_of_what_is_left() {
    let spec = aggregate(&[0], vec![call(max_udaf(), 1)], None, false);
    let script = [
        Rows("+1 a 5 null; +1 a 7 null; +1 a null null"),
        Mark(0, "+1 a 7"),
        Rows("-1 a 7 null"),
        Mark(0, "-1 a 7; +1 a 5"),
        Recover,
        Rows("-1 a 5 null"),
        Mark(0, "-1 a 5; +1 a null"),
        Rows("-1 a null null"),
        Mark(0, "-1 a null"),
    ];
    run(spec, &script);
}

#[test]
fn without_groups_there_is_a_row_from_the_start() {
    let script = [
        Mark(0, "+1 0 null"),
        Rows("+1 a 2 null"),
        Mark(0, "-1 0 null; +1 1 2"),
        Recover,
        Mark(0, ""),
        Rows("-1 a 2 null"),
        Mark(0, "-1 1 2; +1 0 null"),
    ];
    run(counted(&[], false), &script);
}

#[test]
fn state_comes_back_from_a_checkpoint_and_its_changes() {
    let script = [
        Rows("+1 a 1 null; +1 b 2 null"),
        Mark(0, "+1 a 1 1; +1 b 1 2"),
        Recover,
        Rows("+1 b 3 null"),
        Mark(0, "-1 b 1 2; +1 b 2 5"),
        Recover,
        Rows("+1 a 1 null; +1 b 1 null; +1 c 1 null"),
        Mark(0, "-1 a 1 1; +1 a 2 2; -1 b 2 5; +1 b 3 6; +1 c 1 1"),
    ];
    run(counted(&[0], true), &script);
}

#[test]
fn a_window_is_said_once_when_it_closes_and_late_rows_are_dropped() {
    let (ten, twenty) = ("1970-01-01T00:00:10", "1970-01-01T00:00:20");
    let first = format!("+1 a 1 {ten}; +1 a 5 {ten}; +1 b 2 {twenty}");
    let late = format!("+1 a 9 {ten}; +1 b 3 {twenty}");
    let (of_ten, of_twenty) = (format!("+1 a {ten} 2 5"), format!("+1 b {twenty} 2 3"));
    let script =
        [Rows(&first), Mark(9, ""), Recover, Mark(10, &of_ten), Rows(&late), Mark(19, ""), Recover, End(&of_twenty)];
    run(windowed(WindowSpec::Tumble { size: Length::Micros(10 * S), offset: 0 }, false), &script);
}

#[test]
fn hopping_windows_are_made_of_panes() {
    let windows = WindowSpec::Hop { slide: Length::Micros(5 * S), size: Length::Micros(10 * S), offset: 0 };
    assert_eq!(windows.panes(), Some(Panes { len: 5 * S, offset: 0 }));
    // Rows come with the end of their pane.
    let at = |s: i64| format!("1970-01-01T00:00:{s:02}");
    let first = format!("+1 a 1 {}; +1 a 2 {}", at(5), at(10));
    let more = format!("+1 a 7 {}; +1 a 3 {}", at(10), at(15));
    let says = |end: i64, n: i64, max: i64| format!("+1 a {} {n} {max}", at(end));
    let (five, ten, rest) = (says(5, 1, 1), says(10, 3, 7), format!("{}; {}", says(15, 3, 7), says(20, 1, 3)));
    let script = [Rows(&first), Mark(4, ""), Mark(5, &five), Rows(&more), Recover, Mark(12, &ten), Recover, End(&rest)];
    run(windowed(windows, true), &script);
}

#[test]
fn a_group_whose_time_is_null_closes_with_the_input() {
    let expr: Arc<dyn PhysicalExpr> = Arc::new(Column::new("t", 0));
    let key = TimeKey { columns: vec![(0, TimeColumn::Function { expr, time: time() })], windows: None, panes: false };
    let spec = aggregate(&[2], vec![call(count_udaf(), 1)], Some(key), true);
    let script = [
        Rows("+1 a 1 null; +1 a 1 1970-01-01T00:00:03"),
        Mark(3, ""),
        Mark(4, "+1 1970-01-01T00:00:03 1"),
        Recover,
        Rows("+1 b 1 null"),
        End("+1 null 2"),
    ];
    run(spec, &script);
}

#[test]
fn state_is_cut_by_the_keys_by_which_rows_lie() {
    use crate::key::{hash_rows, task_of};
    // By (k, v), spread by v alone, which is the second of the two.
    let spec = Aggregate { cut: Some(vec![1]), ..counted(&[0, 1], true) };
    let mut whole = tables::Tables::new(Arc::new(spec.clone())).expect("tables");
    let keys: [ArrayRef; 2] = [
        Arc::new(StringViewArray::from_iter_values((0..300).map(|i| format!("k{}", i % 7)))),
        Arc::new(Int64Array::from_iter_values(0..300)),
    ];
    let state = {
        let ones: ArrayRef = Arc::new(Int64Array::from(vec![1; 300]));
        let schema = spec.timed_schema().expect("a schema");
        let windows: ArrayRef = Arc::new(Int64Array::from(vec![0; 300]));
        let mut columns = vec![windows, keys[0].clone(), keys[1].clone()];
        columns.resize(schema.fields().len(), ones);
        RecordBatch::try_new(schema, columns).expect("a state")
    };
    whole.restore(&state, Owner { task: 0, parallelism: 1 }).expect("restores");
    let mut hashes = vec![];
    hash_rows(&keys[1..], 300, &mut hashes).expect("hashable");
    for task in 0..3 {
        let mut part = tables::Tables::new(Arc::new(spec.clone())).expect("tables");
        part.restore(&state, Owner { task, parallelism: 3 }).expect("restores");
        let rows = part.snapshot(true).expect("a snapshot").remove(0);
        let mine: Vec<i64> = (0..300).filter(|v| task_of(hashes[*v as usize], 3) == task).collect();
        assert!(mine.len() > 50, "task {task} has {} keys", mine.len());
        assert_eq!(rows.column(2).as_primitive::<Int64Type>().values().to_vec(), mine, "task {task}");
    }
}

#[test]
fn what_state_is_cut_by_is_part_of_its_meaning() {
    let meaning = |cut: Option<Vec<usize>>| Aggregate { cut, ..counted(&[0, 1], true) }.fingerprint();
    assert_eq!(meaning(Some(vec![0, 1])), meaning(None));
    let said = |cut| meaning(Some(cut)).expect("it keeps state");
    let all = meaning(None).expect("it keeps state");
    assert_eq!(said(vec![1]), format!("{all}, spread by key 2"));
    assert_eq!(said(vec![1, 0]), format!("{all}, spread by key 2, 1"));
}
