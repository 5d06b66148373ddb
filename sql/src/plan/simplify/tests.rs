//! Expressions and what they become, by their text.

use arrow::datatypes::{Field, Schema};
use datafusion::common::DFSchema;
use datafusion::execution::context::SessionState;
use datafusion::optimizer::AnalyzerRule;
use datafusion::prelude::SessionContext;

use super::*;
use crate::plan::session_state;

/// `i` and `j BIGINT`, `small INT`, `x DOUBLE`, `a` and `b BOOLEAN`, `s TEXT`.
fn columns() -> DFSchema {
    use arrow::datatypes::DataType::*;
    let columns =
        [("i", Int64), ("j", Int64), ("small", Int32), ("x", Float64), ("a", Boolean), ("b", Boolean), ("s", Utf8View)];
    let fields: Vec<Field> = columns.into_iter().map(|(name, t)| Field::new(name, t, true)).collect();
    DFSchema::try_from(Schema::new(fields)).unwrap()
}

fn parsed(state: &SessionState, sql: &str, columns: &DFSchema) -> Expr {
    let context = SessionContext::new_with_state(state.clone());
    let expr = context.parse_sql_expr(sql, columns).unwrap();
    let input = datafusion::logical_expr::EmptyRelation { produce_one_row: false, schema: Arc::new(columns.clone()) };
    let plan = LogicalPlan::EmptyRelation(input);
    let plan =
        datafusion::logical_expr::LogicalPlanBuilder::from(plan).project([expr.alias("e")]).unwrap().build().unwrap();
    let plan =
        state.analyzer().execute_and_check(plan, state.config_options(), |_: &LogicalPlan, _: &dyn AnalyzerRule| {});
    let LogicalPlan::Projection(p) = plan.unwrap() else { panic!("{sql}") };
    p.expr[0].clone().unalias()
}

fn simple(sql: &str) -> String {
    let (state, columns) = (session_state(), columns());
    let expr = parsed(&state, sql, &columns);
    let info = SimplifyContext::builder().with_schema(Arc::new(columns)).build();
    simplified(expr, &info).map_or_else(|e| format!("error: {e}"), |t| t.data.to_string())
}

#[test]
fn what_holds_for_null_is_simplified() {
    let cases = [
        ("1 + 2 * 3 > 6", "Boolean(true)"),
        ("a AND true AND a", "a"),
        ("a AND b AND a", "a AND b"),
        ("a OR b OR true", "Boolean(true)"),
        ("a AND i = 1 AND false", "Boolean(false)"),
        ("(a AND b) OR (a AND i = 1)", "a AND (b OR i = Int64(1))"),
        ("(a AND b) OR a", "a"),
        ("coalesce(i, 3, j)", "CASE WHEN i IS NOT NULL THEN i ELSE Int64(3) END"),
        ("coalesce(CASE WHEN a THEN 1 ELSE 2 END, i)", "CASE WHEN a THEN Int64(1) ELSE Int64(2) END"),
        ("NOT (i < 3 OR a)", "i >= Int64(3) AND NOT a"),
        ("NOT (i IS NULL AND s LIKE 'x%')", "i IS NOT NULL OR s NOT LIKE Utf8View(\"x%\")"),
        ("a = true", "a"),
        ("a <> true", "NOT a"),
        ("i BETWEEN 1 AND 3", "i >= Int64(1) AND i <= Int64(3)"),
        ("small > 5", "small > Int32(5)"),
        ("5 = small", "small = Int32(5)"),
        ("small IN (1, 2)", "small = Int32(1) OR small = Int32(2)"),
        ("i = 1 OR i = 2 OR i = 3 OR i = 4", "i IN ([Int64(1), Int64(2), Int64(3), Int64(4)])"),
        ("i <> 1 AND i NOT IN (2, 3, 4, 1)", "i NOT IN ([Int64(1), Int64(2), Int64(3), Int64(4)])"),
        (
            "CASE WHEN false THEN i WHEN i > 0 THEN 1 WHEN true THEN j ELSE 2 END",
            "CASE WHEN i > Int64(0) THEN Int64(1) ELSE j END",
        ),
        ("s LIKE 'x'", "s = Utf8View(\"x\")"),
        ("i + NULL", "Int64(NULL)"),
        ("x = -0.0e0", "float_value(x) = Float64(0)"),
    ];
    for (sql, expected) in cases {
        assert_eq!(simple(sql), expected, "{sql}");
    }
}

#[test]
fn what_does_not_hold_for_null_stays() {
    let same = [
        ("i NOT IN (1) OR i NOT IN (2)", "i != Int64(1) OR i != Int64(2)"),
        ("i IN (1) AND i IN (2)", "i = Int64(1) AND i = Int64(2)"),
        ("i ^ i", "i BIT_XOR i"),
        ("i = i", "i = i"),
        ("a OR NOT a", "a OR NOT a"),
        ("i * 0", "i * Int64(0)"),
        ("i >= 1 AND i <= 1", "i >= Int64(1) AND i <= Int64(1)"),
    ];
    for (sql, expected) in same {
        assert_eq!(simple(sql).replace('#', "BIT_XOR"), expected, "{sql}");
    }
}

#[test]
fn what_may_fail_is_not_taken_away() {
    let fails = "CAST(s AS Int64) > Int64(0)";
    assert_eq!(simple("s::BIGINT > 0 AND false"), format!("{fails} AND Boolean(false)"));
    assert_eq!(simple("false AND s::BIGINT > 0"), "Boolean(false)");
    assert_eq!(simple("a OR (a AND s::BIGINT > 0)"), format!("a OR a AND {fails}"));
    assert_eq!(simple("10 / i + NULL"), "Int64(10) / i + Int64(NULL)");
    assert_eq!(simple("CASE WHEN a THEN 1 / 0 END"), "CASE WHEN a THEN Int64(1) / Int64(0) END");
    assert_eq!(simple("CASE WHEN a THEN 'x'::BIGINT END"), "CASE WHEN a THEN CAST(Utf8(\"x\") AS Int64) END");
    assert!(simple("i + 'x'::BIGINT").starts_with("error: "));
}
