//! Tests of aggregation, as scripts.

use arrow::datatypes::TimeUnit;
use datafusion_expr::AggregateUDF;
use datafusion_functions_aggregate::count::count_udaf;
use datafusion_functions_aggregate::min_max::max_udaf;
use datafusion_functions_aggregate::sum::sum_udaf;
use datafusion_physical_expr::aggregate::AggregateExprBuilder;
use datafusion_physical_expr::expressions::Column;

use super::*;
use crate::operator::window::{Length, Panes};
use crate::testing::Step::{self, End, Mark, Recover, Rows};
use crate::testing::check;

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
    Aggregate { groups, calls, time, phase, emit, append_only, input: input(), output, units }
}

fn counted(groups: &[usize], append_only: bool) -> Aggregate {
    aggregate(groups, vec![call(count_udaf(), 1), call(sum_udaf(), 1)], None, append_only)
}

fn windowed(windows: WindowSpec, panes: bool) -> Aggregate {
    let time = TimeKey { columns: vec![(1, TimeColumn::End)], windows: Some(windows), panes };
    aggregate(&[0, 2], vec![call(count_udaf(), 1), call(max_udaf(), 1)], Some(time), true)
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
