//! Queries planned and run over changing inputs, against what DataFusion answers in batch.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray, TimestampSecondArray};
use arrow::datatypes::{DataType, Schema, TimeUnit};
use arrow::util::pretty::pretty_format_batches;
use datafusion::common::TableReference;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::context::{SessionContext, SessionState};
use datafusion::logical_expr::{LogicalPlan, TableSource};

use super::*;
use crate::error::{Error, ErrorKind, Result};
use crate::statement::{Statement, parse};

struct Tables(HashMap<String, Arc<dyn TableSource>>);

impl TableResolver for Tables {
    fn table(&self, name: &TableReference) -> Result<Option<Arc<dyn TableSource>>> {
        Ok(self.0.get(&name.to_string()).cloned())
    }
}

const S: i64 = 1_000_000;

/// `bids(id, ts, at)`: ts in µs, at in s in UTC; the last row has no time.
fn tables() -> Arc<dyn TableResolver> {
    let seconds = [Some(1), Some(7), Some(-1), Some(12), None];
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5]))),
        ("ts", Arc::new(TimestampMicrosecondArray::from_iter(seconds.map(|s| s.map(|s| s * S))))),
        ("at", Arc::new(TimestampSecondArray::from_iter(seconds).with_timezone("UTC"))),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))
        .expect("columns of one length");
    let source = |batch: RecordBatch| {
        let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).expect("one schema");
        provider_as_source(Arc::new(table))
    };
    let names = ["bids", "millstream.dead_letters"];
    Arc::new(Tables(names.map(|name| (name.to_owned(), source(batch.clone()))).into()))
}

fn plan_in(state: &SessionState, sql: &str) -> Result<LogicalPlan> {
    match parse(sql)?.remove(0).statement {
        Statement::Query(query) => query_plan(state, tables(), &query.query),
        Statement::CopyTo(copy) => {
            statement_plan(state, tables(), datafusion::sql::parser::Statement::CopyTo(copy.statement))
        }
        Statement::Insert(insert) => {
            let statement = datafusion::sql::parser::Statement::Statement(Box::new(insert.statement));
            statement_plan(state, tables(), statement)
        }
        other => panic!("not a query: {other:?}"),
    }
}

fn plan(sql: &str) -> Result<LogicalPlan> {
    plan_in(&session_state(), sql)
}

fn optimized(sql: &str, for_streaming: bool) -> String {
    let state = session_state();
    let plan = plan_in(&state, sql).and_then(|plan| optimize(&state, plan, for_streaming));
    plan.unwrap_or_else(|e| panic!("{sql}: {e}")).display_indent().to_string()
}

async fn rows(sql: &str) -> String {
    let state = session_state();
    let plan = plan_in(&state, sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    let frame = SessionContext::new_with_state(state).execute_logical_plan(plan).await.expect("a frame");
    let batches = frame.collect().await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let table = pretty_format_batches(&batches).expect("a table").to_string();
    let cells = |line: &str| line.split('|').map(str::trim).filter(|c| !c.is_empty()).collect::<Vec<_>>().join(" ");
    let lines: Vec<_> = table.lines().skip(3).filter(|l| l.starts_with('|')).map(cells).collect();
    lines.join("\n")
}

/// Windows of `bids` as `id start end` in seconds, in order.
async fn windows(call: &str) -> String {
    let second = |column: &str| format!("date_part('epoch', {column})::bigint AS {column}");
    let sql = format!(
        "SELECT id, {}, {} FROM {call} ORDER BY id, window_start, window_end",
        second("window_start"),
        second("window_end")
    );
    rows(&sql).await
}

#[tokio::test]
async fn tumble_puts_each_row_into_one_window() {
    let expect = "1 0 10\n2 0 10\n3 -10 0\n4 10 20";
    assert_eq!(windows("TUMBLE(bids, ts, INTERVAL '10 seconds')").await, expect);
    // The same over TIMESTAMPTZ(0).
    assert_eq!(windows("TUMBLE(bids, at, INTERVAL '10 seconds')").await, expect);
    let shifted = windows("TUMBLE(bids, ts, INTERVAL '10 seconds', INTERVAL '5 seconds')").await;
    assert_eq!(shifted, "1 -5 5\n2 5 15\n3 -5 5\n4 5 15");
}

#[tokio::test]
async fn hop_puts_a_row_into_overlapping_windows() {
    let found = windows("HOP(bids, ts, INTERVAL '5 seconds', INTERVAL '10 seconds')").await;
    assert_eq!(found, "1 -5 5\n1 0 10\n2 0 10\n2 5 15\n3 -10 0\n3 -5 5\n4 5 15\n4 10 20");
}

#[tokio::test]
async fn cumulate_grows_windows_from_one_start() {
    let found = windows("CUMULATE(bids, ts, INTERVAL '5 seconds', INTERVAL '15 seconds')").await;
    assert_eq!(found, "1 0 5\n1 0 10\n1 0 15\n2 0 10\n2 0 15\n3 -15 0\n4 0 15");
}

#[tokio::test]
async fn months_follow_the_calendar() {
    let found = windows("TUMBLE(bids, ts, INTERVAL '1 month')").await;
    assert_eq!(found, "1 0 2678400\n2 0 2678400\n3 -2678400 0\n4 0 2678400");
}

#[tokio::test]
async fn windows_are_grouped_joined_and_filtered_like_columns() {
    let sql = "SELECT window_end, count(*) AS n FROM TUMBLE(bids, ts, INTERVAL '10 seconds') \
               WHERE id > 1 AND window_start >= TIMESTAMP '1970-01-01' GROUP BY window_start, window_end ORDER BY 1";
    assert_eq!(rows(sql).await, "1970-01-01T00:00:10 1\n1970-01-01T00:00:20 1");
    let sql = "SELECT a.id, b.id FROM TUMBLE(bids, ts, INTERVAL '10 seconds') a \
               JOIN TUMBLE(bids, ts, INTERVAL '10 seconds') AS b USING (window_start) \
               WHERE a.id < b.id AND a.window_end = b.window_end";
    assert_eq!(rows(sql).await, "1 2");
    let sql = "SELECT id FROM TUMBLE((SELECT id, window_start AS w FROM TUMBLE(bids, ts, INTERVAL '1 second')), w, \
               INTERVAL '10 seconds') WHERE window_start < TIMESTAMP '1970-01-01'";
    assert_eq!(rows(sql).await, "3");
}

#[test]
fn all_spellings_give_the_same_plan() {
    let same = [
        &[
            "TUMBLE(bids, ts, INTERVAL '10 seconds')",
            "tumble(public.bids, bids.ts, INTERVAL '10' SECOND)",
            "TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '10' SECONDS)",
            "TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '10' SECOND))",
            "TUMBLE(data => bids, timecol => ts, size => INTERVAL '10 seconds')",
            "TABLE(TUMBLE(DATA => TABLE bids, TIMECOL => DESCRIPTOR(ts), SIZE => INTERVAL '10' SECOND))",
            "TUMBLE(bids, size => INTERVAL '5 seconds' + INTERVAL '5 seconds', timecol => ts, offset => INTERVAL '0 seconds')",
        ][..],
        &[
            "HOP(bids, ts, INTERVAL '2 seconds', INTERVAL '10 seconds')",
            "TABLE(HOP(DATA => TABLE bids, TIMECOL => DESCRIPTOR(ts), SLIDE => INTERVAL '2' SECOND, SIZE => INTERVAL '10' SECOND))",
            "HOP(bids, ts, hop => INTERVAL '2 seconds', size => INTERVAL '10 seconds')",
        ],
        &[
            "CUMULATE(bids, ts, INTERVAL '1 hour', INTERVAL '1 day')",
            "TABLE(CUMULATE(TABLE bids, DESCRIPTOR(ts), INTERVAL '60' MINUTES, INTERVAL '24' HOURS))",
            "CUMULATE(data => bids, timecol => ts, step => INTERVAL '1 hour', size => INTERVAL '1 day')",
        ],
    ];
    for spellings in same {
        let plans: Vec<_> =
            spellings.iter().map(|call| optimized(&format!("SELECT count(*) FROM {call}"), true)).collect();
        for (plan, spelling) in plans.iter().zip(spellings) {
            assert_eq!(plan.replace("public.bids", "bids"), plans[0], "{spelling}");
        }
    }
}

#[test]
fn projections_and_filters_go_below_a_window() {
    let sql = "SELECT window_start, ts FROM TUMBLE(bids, ts, INTERVAL '10 seconds') WHERE id = 3 AND window_end > ts";
    let expect = "\
Projection: bids.window_start, bids.ts
  Filter: bids.window_end > bids.ts
    Projection: bids.ts, bids.window_start, bids.window_end
      WindowAssign: bids.ts, TUMBLE size=10 seconds
        Filter: bids.id = Int64(3)
          TableScan: bids projection=[id, ts]";
    assert_eq!(optimized(sql, true), expect);
}

#[test]
fn streaming_plans_keep_what_changes_need() {
    let sql = "SELECT count(DISTINCT id) FROM bids WHERE ts < now()";
    let plan = optimized(sql, true);
    assert!(plan.contains("now()") && plan.contains("count(DISTINCT bids.id)"), "{plan}");
    assert!(!optimized(sql, false).contains("now()"));
    // No subquery is left in an expression, in batch or in streams.
    let sql = "SELECT id FROM bids WHERE id > (SELECT avg(id) FROM bids) AND id IN (SELECT id FROM bids)";
    for for_streaming in [false, true] {
        let plan = optimized(sql, for_streaming);
        assert!(plan.contains("Join") && !plan.contains("Subquery:"), "{plan}");
    }
}

#[test]
fn the_same_text_gives_the_same_plan() {
    let sql =
        "SELECT id FROM bids b WHERE EXISTS (SELECT 1 FROM bids WHERE id = b.id) AND id > (SELECT min(id) FROM bids)";
    assert_eq!(optimized(sql, true), optimized(sql, true));
}

#[test]
fn types_in_queries_are_those_of_columns() {
    let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
    let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let row = DataType::Struct(vec![arrow::datatypes::Field::new("a", DataType::Int32, true)].into());
    for (expr, expect) in [
        ("CAST(id AS TIMESTAMP)", micros.clone()),
        ("TIMESTAMP '2024-01-01'", micros),
        ("id::timestamptz", zoned.clone()),
        ("CAST(id AS TIMESTAMP WITH TIME ZONE)", zoned),
        ("id::timestamp(3)", DataType::Timestamp(TimeUnit::Millisecond, None)),
        ("CAST(id AS TEXT)", DataType::Utf8View),
        ("CAST(id AS STRING)", DataType::Utf8View),
        ("CAST(NULL AS ROW<a INT>)", row),
    ] {
        let plan = plan(&format!("SELECT {expr} FROM bids")).unwrap_or_else(|e| panic!("{expr}: {e}"));
        assert_eq!(plan.schema().field(0).data_type(), &expect, "{expr}");
    }
}

#[test]
fn tables_are_found_by_schema() {
    assert!(plan("SELECT id FROM public.bids, millstream.dead_letters d").is_err()); // ambiguous
    assert!(plan("SELECT b.id FROM public.bids b, millstream.dead_letters d").is_ok());
    assert!(plan("COPY (SELECT id FROM bids) TO '/tmp/x.parquet'").is_ok());
    assert!(plan("INSERT INTO bids (id) VALUES (1)").is_ok());
    assert!(
        plan("WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT * FROM n").is_ok()
    );
    assert!(plan("SELECT * FROM generate_series(1, 3)").is_ok());
    assert!(plan("SELECT * FROM TABLE(generate_series(1, 3))").is_ok());
}

#[test]
fn expressions_are_planned_over_a_schema() {
    let state = session_state();
    let Statement::CreateStream(create) =
        parse("CREATE STREAM s (ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '4 seconds')")
            .expect("it parses")
            .remove(0)
            .statement
    else {
        panic!("not CREATE STREAM")
    };
    let fields: Vec<_> = create.columns.iter().map(|c| c.field()).collect();
    let schema = datafusion::common::DFSchema::try_from(Schema::new(fields)).expect("a schema");
    let watermark = create.watermark.expect("a watermark");
    let expr = expression(&state, tables(), &watermark.expr, &schema).expect("it plans");
    assert!(expr.to_string().starts_with("ts - "), "{expr}");
}

fn error(sql: &str) -> Error {
    match plan(sql) {
        Err(e) => e,
        Ok(plan) => panic!("{sql} was planned:\n{plan}"),
    }
}

#[test]
fn errors_say_what_is_wrong_and_where() {
    let t = |args: &str| format!("SELECT * FROM {args}");
    let mut wrong = Vec::new();
    for (sql, message, column) in [
        (t("bidz"), "stream \"bidz\" does not exist", 15),
        ("SELECT idd FROM bids".into(), "column \"idd\" does not exist", 8),
        (t("TUMBLE(bidz, ts, INTERVAL '1 s')"), "stream \"bidz\" does not exist", 22),
        (t("TUMBLE(bids, tss, INTERVAL '1 s')"), "column \"tss\" does not exist", 28),
        (t("TUMBLE(bids, id, INTERVAL '1 s')"), "column \"id\" in TUMBLE is not a timestamp", 28),
        (t("TUMBLE(bids, ts + INTERVAL '1 s', INTERVAL '1 s')"), "argument \"timecol\" of TUMBLE is a column", 28),
        (t("TUMBLE(bids, ts)"), "TUMBLE needs argument \"size\"", 15),
        (t("TUMBLE(bids, ts, 10)"), "argument \"size\" of TUMBLE is an interval, not 10", 32),
        (t("TUMBLE(bids, ts, INTERVAL '0 s')"), "argument \"size\" of TUMBLE must be above zero", 28),
        (t("TUMBLE(bids, ts, INTERVAL '1 month 1 day')"), "argument \"size\" of TUMBLE mixes months", 41),
        (t("TUMBLE(bids, at, INTERVAL '10 ms')"), "argument \"size\" of TUMBLE is finer than the time column", 28),
        (t("TUMBLE(bids, ts, gap => INTERVAL '1 s')"), "TUMBLE has no argument \"gap\"", 32),
        (t("TUMBLE(bids, ts, timecol => ts)"), "an argument of TUMBLE is written more than once", 32),
        (t("TUMBLE(bids, ts, INTERVAL '1 s', INTERVAL '0 s', 1)"), "TUMBLE has too many arguments", 64),
        (t("TUMBLE(1, ts, INTERVAL '1 s')"), "the first argument of a window function is a stream", 22),
        (t("HOP(bids, ts, INTERVAL '10 s', INTERVAL '5 s')"), "argument \"slide\" of HOP must not be longer", 25),
        (t("HOP(bids, ts, INTERVAL '1 s', INTERVAL '1 month')"), "arguments \"slide\" and \"size\" of HOP mix", 25),
        (t("HOP(bids, ts, INTERVAL '1 ms', INTERVAL '1 day')"), "HOP would put each row into 86400000 windows", 25),
        (
            t("CUMULATE(bids, ts, INTERVAL '2 s', INTERVAL '5 s')"),
            "argument \"size\" of CUMULATE must be a multiple",
            30,
        ),
        (t("SESSION(bids, ts, INTERVAL '0 s')"), "argument \"gap\" of SESSION must be above zero", 29),
        (t("SESSION(bids, ts)"), "SESSION needs argument \"gap\"", 15),
        (
            t("SESSION(bids, ts, INTERVAL '5 s', PARTITION BY id + 1)"),
            "PARTITION BY of SESSION has id + 1, which is not a column",
            62,
        ),
        (t("TABLE(1)"), "TABLE(1) is not a call of a table function", 21),
        (
            t("TUMBLE(TUMBLE(bids, ts, INTERVAL '1 s'), ts, INTERVAL '1 s')"),
            "the input of TUMBLE has a column \"window_start\" already",
            56,
        ),
    ] {
        let e = error(&sql);
        let at = e.position().map(|p| (p.line, p.column));
        if !e.message().starts_with(message) || at != Some((1, column)) {
            wrong.push(format!("{sql}\n  {} at {at:?}, not {message} at {column}", e.message()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(error("SELECT * FROM bidz").kind(), ErrorKind::NotFound);
    assert_eq!(error("SELECT * FROM nothing(1)").message(), "table function \"nothing\" does not exist");
    assert_eq!(error("SELECT idd FROM bids").hint(), Some("Did you mean id?"));
    assert_eq!(error("SELECT nothing FROM bids").hint(), Some("The columns are: id, ts, at."));
    assert_eq!(error("SELECT summ(id) FROM bids").hint(), Some("Did you mean sum?"));
}
