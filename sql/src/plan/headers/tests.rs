//! What columns are called, shown and kept.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::TableReference;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::TableSource;

use crate::error::Result;
use crate::plan::{Semantics, TableResolver, optimize, result_plan, session_state, session_state_of};
use crate::statement::parse_query;

struct Tables;

impl TableResolver for Tables {
    fn table(&self, name: &TableReference) -> Result<Option<Arc<dyn TableSource>>> {
        let field = |name: &str, data_type: DataType| Field::new(name, data_type, true);
        let fields = match name.table() {
            "hot" => {
                let inner = vec![field("f", DataType::Int64)];
                vec![
                    field("id", DataType::Int64),
                    field("bids", DataType::Int64),
                    field("Mixed", DataType::Utf8),
                    field("v", DataType::Struct(inner.into())),
                ]
            }
            "other" => vec![field("id", DataType::Int64), field("k", DataType::Utf8)],
            _ => return Ok(None),
        };
        let table = MemTable::try_new(Arc::new(Schema::new(fields)), vec![vec![]])?;
        Ok(Some(provider_as_source(Arc::new(table))))
    }
}

/// The headers of `sql`, and the names of its columns where they are kept. It must be accepted to the end.
fn names(sql: &str) -> (String, String) {
    let of = || -> Result<(String, String)> {
        let state = session_state();
        let result = result_plan(&state, Arc::new(Tables), &parse_query(sql)?.query)?;
        let names: Vec<_> = result.plan.schema().fields().iter().map(|f| f.name().clone()).collect();
        let analyzed = optimize(&state, result.plan, false)?;
        let after: Vec<_> = analyzed.schema().fields().iter().map(|f| f.name().clone()).collect();
        assert_eq!(names, after, "{sql}");
        Ok((result.headers.join(", "), names.join(", ")))
    };
    of().unwrap_or_else(|e| panic!("{sql}: {e}"))
}

fn check(cases: &[(&str, &str)]) {
    for (sql, want) in cases {
        assert_eq!(names(sql), (want.to_string(), want.to_string()), "{sql}");
    }
}

#[test]
fn a_column_without_a_name_is_called_by_its_expression() {
    check(&[
        ("SELECT 'x', 1.50, 1e3, NULL, true FROM hot", "'x', 1.50, 1e3, NULL, true"),
        ("SELECT ID+1, - id, hot.id, (bids) FROM hot", "id + 1, -id, id, bids"),
        ("SELECT COUNT(*), sum( hot.id ) FROM hot", "count(*), sum(hot.id)"),
        ("SELECT count(*) FILTER (WHERE id > 1) FROM hot", "count(*) FILTER (WHERE id > 1)"),
        ("SELECT sum(id) OVER (ORDER BY id) FROM hot", "sum(id) OVER (ORDER BY id)"),
        ("SELECT id::text, CAST(id AS text) FROM hot", "id::TEXT, CAST(id AS TEXT)"),
        ("SELECT INTERVAL '1 day', DATE '2020-01-01'", "INTERVAL '1 day', DATE '2020-01-01'"),
        ("SELECT \"Mixed\" || 'a' FROM hot", "\"Mixed\" || 'a'"),
        ("SELECT v.f, hot.v.f + 1, (v).f AS g FROM hot", "f, hot.v.f + 1, g"),
        ("SELECT CASE WHEN id > 1 THEN 'a' END FROM hot", "CASE WHEN id > 1 THEN 'a' END"),
        ("SELECT (SELECT max(id) FROM other)", "(SELECT max(id) FROM other)"),
        ("SELECT unnest([1, 2])", "unnest([1, 2])"),
        ("SELECT $1", "$1"),
        ("SELECT 'a\nb'", "'a b'"),
        ("SELECT \"id + 1\" * 2 FROM (SELECT id + 1 FROM hot)", "\"id + 1\" * 2"),
        ("FROM other", "id, k"),
        ("SELECT * FROM (FROM other)", "id, k"),
        ("SELECT id + 1 FROM hot UNION ALL SELECT id FROM other", "id + 1"),
        ("VALUES (1, 2)", "column1, column2"),
    ]);
    let long = format!("SELECT {}", vec!["1"; 100].join(" + "));
    assert_eq!(names(&long).0.chars().count(), 121);
}

#[test]
fn columns_of_one_name_are_shown_so_and_kept_apart() {
    for (sql, headers, kept) in [
        ("SELECT 1, 1", "1, 1", "1, 1_1"),
        ("SELECT *, bids FROM hot", "id, bids, Mixed, v, bids", "id, bids, Mixed, v, bids_1"),
        ("SELECT *, bids * 2 AS bids FROM hot", "id, bids, Mixed, v, bids", "id, bids, Mixed, v, bids_1"),
        ("SELECT bids AS id, * FROM other, (SELECT bids FROM hot)", "id, id, k, bids", "id, id_1, k, bids"),
        ("SELECT *, * FROM other", "id, k, id, k", "id, k, id_1, k_1"),
        ("SELECT a.id, b.id FROM hot a, other b", "id, id", "id, id_1"),
        ("SELECT a.*, b.* FROM other a, other b", "id, k, id, k", "id, k, id_1, k_1"),
        ("SELECT count(*), count(*) FROM hot", "count(*), count(*)", "count(*), count(*)_1"),
        ("SELECT 1 AS a, 2 AS a, 3 AS a_1", "a, a, a_1", "a, a_2, a_1"),
        ("SELECT id, id FROM hot UNION SELECT id, bids FROM hot", "id, id", "id, id_1"),
        ("SELECT * FROM (SELECT 1 AS a, 2 AS a)", "a, a_1", "a, a_1"),
        ("SELECT id_1 FROM (SELECT a.id, b.id FROM hot a, other b)", "id_1", "id_1"),
        ("WITH a AS (SELECT 1, 1), b AS (SELECT *, 1 FROM a) SELECT * FROM b", "1, 1_1, 1_2", "1, 1_1, 1_2"),
    ] {
        assert_eq!(names(sql), (headers.to_string(), kept.to_string()), "{sql}");
    }
}

#[test]
fn casts_of_one_column_are_keys_and_arguments_of_their_own() {
    check(&[
        ("SELECT count(*) FROM hot GROUP BY id, CAST(id AS BIGINT)", "count(*)"),
        ("SELECT count(*) FROM hot GROUP BY id, CAST(id AS TEXT), TRY_CAST(id AS INT)", "count(*)"),
        ("SELECT id::TEXT || 'x' FROM hot GROUP BY id, id::TEXT ORDER BY id::TEXT", "id::TEXT || 'x'"),
        ("SELECT sum(id), sum(id::DOUBLE) FROM hot", "sum(id), sum(id::DOUBLE)"),
        ("SELECT max(id) OVER (), max(id::TEXT) OVER () FROM hot", "max(id) OVER (), max(id::TEXT) OVER ()"),
    ]);
}

#[test]
fn a_name_of_several_columns_orders_nothing() {
    for sql in
        ["SELECT *, bids * 2 AS bids FROM hot ORDER BY bids", "SELECT a.id, b.id FROM hot a, other b ORDER BY id"]
    {
        let query = parse_query(sql).expect("a query");
        let error = result_plan(&session_state(), Arc::new(Tables), &query.query).err().expect("an error");
        assert!(error.message().contains("is ambiguous") && error.hint().is_some(), "{sql}: {error}");
        let at = error.position().expect("a place").column as usize;
        assert!(sql[at - 1..] == *"bids" || sql[at - 1..] == *"id", "{sql}: {at}");
    }
}

#[test]
fn older_streams_keep_the_names_that_they_have() {
    let state = session_state_of(serde_json::from_str::<Semantics>("2").expect("a version"));
    let sql = "SELECT id + 1, count(*), 1.5 FROM hot GROUP BY 1";
    let result = result_plan(&state, Arc::new(Tables), &parse_query(sql).expect("a query").query).expect("a plan");
    assert_eq!(result.headers, ["hot.id + Int64(1)", "count(*)", "1.5"]);
}
