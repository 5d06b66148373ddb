//! The cells of `docs/numbers.md`, one by one, and what the rewriting must leave alone.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Decimal128Array, Float32Array, Float64Array, Int32Array, Int64Array, ListArray, RecordBatch,
    StringArray, StructArray, UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::array_value_to_string;
use datafusion::common::TableReference;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::{LogicalPlan, TableSource};
use datafusion::physical_plan::collect;
use datafusion::sql::parser::Statement as DfStatement;

use super::assign::lost;
use super::assign_columns;
use crate::error::Result;
use crate::plan::{Semantics, TableResolver, query_plan, session_state, session_state_of, statement_plan};
use crate::statement::{Statement, parse};

fn decimals(values: Vec<i128>, precision: u8, scale: i8) -> ArrayRef {
    let array = Decimal128Array::from(values).with_precision_and_scale(precision, scale);
    Arc::new(array.expect("a decimal's digits"))
}

struct Tables;

impl TableResolver for Tables {
    fn table(&self, name: &TableReference) -> Result<Option<Arc<dyn TableSource>>> {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("d", decimals(vec![250], 10, 2)),
            ("m", decimals(vec![12345678901234567891], 20, 2)),
            ("w", decimals(vec![1_500_000_000_000_000_000], 38, 18)),
            ("i", Arc::new(Int64Array::from(vec![9007199254740993]))),
            ("j", Arc::new(Int64Array::from(vec![7]))),
            ("n", Arc::new(Int32Array::from(vec![3]))),
            ("u", Arc::new(UInt64Array::from(vec![u64::MAX]))),
            ("x", Arc::new(Float64Array::from(vec![2.5]))),
            ("big", Arc::new(Float64Array::from(vec![1e20]))),
            ("tiny", Arc::new(Float64Array::from(vec![1e-20]))),
            ("r", Arc::new(Float32Array::from(vec![2.5]))),
            ("s", Arc::new(StringArray::from(vec!["2.505"]))),
        ];
        let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))?;
        Ok((name.table() == "t").then(|| {
            let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).expect("one schema");
            provider_as_source(Arc::new(table))
        }))
    }
}

fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Int32 => "INT".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::UInt64 => "UBIGINT".to_owned(),
        DataType::Float32 => "REAL".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Decimal128(p, s) => format!("DECIMAL({p},{s})"),
        DataType::List(f) => format!("{}[]", type_name(f.data_type())),
        other => other.to_string(),
    }
}

async fn run(sql: &str) -> Result<RecordBatch> {
    let state = session_state();
    let Statement::Query(query) = parse(sql)?.remove(0).statement else { panic!("{sql} is no query") };
    let plan = query_plan(&state, Arc::new(Tables), &query.query)?;
    collected(plan).await
}

async fn collected(plan: LogicalPlan) -> Result<RecordBatch> {
    let state = session_state();
    let physical = state.create_physical_plan(&plan).await?;
    let batches = collect(Arc::clone(&physical), state.task_ctx()).await?;
    Ok(concat_batches(&physical.schema(), &batches)?)
}

/// The first column's values, and its type.
async fn answer(sql: &str) -> String {
    match run(sql).await {
        Err(e) => format!("error: {e}"),
        Ok(rows) => {
            let column = rows.column(0);
            let values: Vec<_> =
                (0..column.len()).map(|i| array_value_to_string(column, i).expect("a value's text")).collect();
            format!("{} {}", values.join(" "), type_name(column.data_type()))
        }
    }
}

async fn check(cells: &[(&str, &str)]) {
    let mut wrong = vec![];
    for (expr, expected) in cells {
        let found = answer(&format!("SELECT {expr} FROM t")).await;
        let same = match expected.strip_prefix("error") {
            Some(part) => found.starts_with("error") && found.contains(part.trim()),
            None => found == *expected,
        };
        if !same {
            wrong.push(format!("{expr}: {found}, not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn literals() {
    check(&[
        ("7", "7 BIGINT"),
        ("-7", "-7 BIGINT"),
        ("18446744073709551615", "18446744073709551615 UBIGINT"),
        ("123456789012345678901", "123456789012345678901 DECIMAL(21,0)"),
        ("1.50", "1.50 DECIMAL(3,2)"),
        ("-1.50", "-1.50 DECIMAL(3,2)"),
        (".5", "0.5 DECIMAL(1,1)"),
        ("2.", "2 DECIMAL(1,0)"),
        ("0.05", "0.05 DECIMAL(2,2)"),
        ("1e3", "1000.0 DOUBLE"),
        ("-1.5E-7", "-1.5e-7 DOUBLE"),
        ("1e300", "1e300 DOUBLE"),
        ("0.1234567890123456789012345678901234567890", "0.12345678901234568 DOUBLE"),
        ("1234567890123456789012345678901234567890", "1.2345678901234568e39 DOUBLE"),
        ("12345678901234567890123456789012345678", "12345678901234567890123456789012345678 DECIMAL(38,0)"),
        ("CAST(0.1 AS DOUBLE)", "0.1 DOUBLE"),
        ("0.1234567890123456789::DOUBLE", "0.12345678901234568 DOUBLE"),
    ])
    .await;
}

#[tokio::test]
async fn a_decimal_beside_a_float_is_a_float() {
    check(&[
        ("x + 0.5", "3.0 DOUBLE"),
        ("0.5 * x", "1.25 DOUBLE"),
        ("d + x", "5.0 DOUBLE"),
        ("r + 0.1", "2.6 DOUBLE"),
        ("d * r", "6.25 DOUBLE"),
        ("x / 2.5", "1.0 DOUBLE"),
        ("x % 2.0", "0.5 DOUBLE"),
        ("0.1 + 0.2 = 0.3", "true BOOLEAN"),
        ("0.1e0 + 0.2e0 = 0.3", "false BOOLEAN"),
        ("big > 0.5", "true BOOLEAN"),
        ("0.5 < big", "true BOOLEAN"),
        ("tiny = 0.0", "false BOOLEAN"),
        ("big > d", "true BOOLEAN"),
        ("d IS DISTINCT FROM big", "true BOOLEAN"),
        ("big IN (0.5, 1.5)", "false BOOLEAN"),
        ("d IN (big, 2.5)", "true BOOLEAN"),
        ("big BETWEEN 0.5 AND 1.5", "false BOOLEAN"),
        ("1.5 BETWEEN 0.5 AND big", "true BOOLEAN"),
        ("coalesce(big, 0.5)", "1e20 DOUBLE"),
        ("nullif(big, 0.5)", "1e20 DOUBLE"),
        ("nullif(x, 2.5)", " DOUBLE"),
        ("greatest(big, 0.5)", "1e20 DOUBLE"),
        ("least(d, tiny)", "1e-20 DOUBLE"),
        ("CASE WHEN n = 3 THEN 0.5 ELSE big END", "0.5 DOUBLE"),
        ("CASE WHEN n = 3 THEN 1 WHEN n = 4 THEN big ELSE 0.5 END > 0.5", "true BOOLEAN"),
        ("CASE big WHEN 0.5 THEN 1 ELSE 2 END", "2 BIGINT"),
        ("make_array(big, 0.5)", "[1e20, 0.5] DOUBLE[]"),
        ("[0.5, 1e0]", "[0.5, 1.0] DOUBLE[]"),
        ("[0.5, 1.5]", "[0.5, 1.5] DECIMAL(2,1)[]"),
        ("array_append([big], 0.5)", "[1e20, 0.5] DOUBLE[]"),
        ("array_has([big, 0.5e0], 0.5)", "true BOOLEAN"),
        ("named_struct('a', big, 'b', 0.50)['b']", "0.50 DECIMAL(2,2)"),
        ("sqrt(0.25)", "0.5 DOUBLE"),
        ("sqrt(d)", "1.5811388300841898 DOUBLE"),
        ("power(x, 0.5)", "1.5811388300841898 DOUBLE"),
        ("power(d, 2)", "6.25 DOUBLE"),
        ("round(x, 1)", "2.5 DOUBLE"),
        ("x > (SELECT 0.5)", "true BOOLEAN"),
        ("max(big) > 0.5", "true BOOLEAN"),
    ])
    .await;
}

#[tokio::test]
async fn rows_of_decimals_and_floats() {
    let cells = [
        ("SELECT v FROM (VALUES (0.5), (1e20)) AS a(v)", "0.5 1e20 DOUBLE"),
        (
            "SELECT v FROM (VALUES (0.5), (CAST(1e0 AS DECIMAL(30,15)))) AS a(v)",
            "0.500000000000000 1.000000000000000 DECIMAL(30,15)",
        ),
        ("SELECT v FROM (VALUES (1), (2.5)) AS a(v)", "1.0 2.5 DECIMAL(21,1)"),
        ("SELECT v > 0.5 FROM (SELECT 1 AS v FROM t UNION ALL SELECT big FROM t)", "true true BOOLEAN"),
        ("SELECT v FROM (SELECT 0.5 AS v FROM t UNION ALL SELECT big FROM t)", "0.5 1e20 DOUBLE"),
        ("SELECT count(*) FROM (SELECT big AS v FROM t INTERSECT SELECT d FROM t)", "0 BIGINT"),
        ("SELECT count(*) FROM (SELECT big AS v FROM t EXCEPT SELECT d FROM t)", "1 BIGINT"),
        ("SELECT count(*) FROM t a JOIN t b ON a.big = b.d", "0 BIGINT"),
        ("SELECT count(*) FROM t a JOIN t b ON a.x = b.d", "1 BIGINT"),
        ("SELECT count(*) FROM (SELECT d AS v FROM t) a JOIN (SELECT big AS v FROM t) b USING (v)", "0 BIGINT"),
        ("SELECT count(*) FROM t WHERE EXISTS (SELECT 1 FROM t b WHERE b.big > t.d)", "1 BIGINT"),
        ("SELECT count(*) FROM t WHERE big IN (SELECT 0.5)", "0 BIGINT"),
        ("SELECT count(*) FROM t WHERE x IN (SELECT d FROM t)", "1 BIGINT"),
        ("SELECT count(*) FROM t WHERE d IN (SELECT big FROM t)", "0 BIGINT"),
        ("SELECT lag(x, 1, 0.5) OVER (ORDER BY j) FROM t", "0.5 DOUBLE"),
        ("SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY x) FROM t", "2.5 DOUBLE"),
        ("SELECT approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY j) FROM t", "7.0 DOUBLE"),
        ("SELECT corr(x, d) FROM t", " DOUBLE"),
        ("SELECT j + 0.5 AS k FROM t GROUP BY j + 0.5 HAVING j + 0.5 > 1.5 ORDER BY j + 0.5", "7.5 DECIMAL(22,1)"),
    ];
    let mut wrong = vec![];
    for (sql, expected) in cells {
        let found = answer(sql).await;
        if found != expected {
            wrong.push(format!("{sql}: {found}, not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn arithmetic() {
    check(&[
        ("7 / 2", "3 BIGINT"),
        ("-7 / 2", "-3 BIGINT"),
        ("j / 2.0", "3.5000000000000000 DECIMAL(37,16)"),
        ("1 / 3.0", "0.3333333333333333 DECIMAL(37,16)"),
        ("2 / 3.0", "0.6666666666666667 DECIMAL(37,16)"),
        ("-2 / 3.0", "-0.6666666666666667 DECIMAL(37,16)"),
        ("d / 3", "0.8333333333333333 DECIMAL(24,16)"),
        ("5.00 / 3.00", "1.6666666666666667 DECIMAL(19,16)"),
        ("d / d", "1.0000000000000000 DECIMAL(26,16)"),
        ("w / w", "1.000000000000000000 DECIMAL(38,18)"),
        ("w / 7", "0.214285714285714286 DECIMAL(38,18)"),
        ("m / m", "1.0000000000000000 DECIMAL(36,16)"),
        ("d / 0.0", "error"),
        ("d + 1", "3.50 DECIMAL(23,2)"),
        ("d + n", "5.50 DECIMAL(13,2)"),
        ("d + 0.005", "2.505 DECIMAL(12,3)"),
        ("d - 0.005", "2.495 DECIMAL(12,3)"),
        ("m + 0.01", "123456789012345678.92 DECIMAL(21,2)"),
        ("d * 1.1", "2.750 DECIMAL(13,3)"),
        ("m * 1.1", "135802467913580246.801 DECIMAL(23,3)"),
        ("n * 1.1", "3.3 DECIMAL(13,1)"),
        ("d * m", "308641972530864197.2750 DECIMAL(31,4)"),
        ("w * w", "2.250000000000000000 DECIMAL(38,18)"),
        ("w * 1000.0 * 1000.0", "1500000.000000000000000000 DECIMAL(38,18)"),
        ("w * j", "10.500000000000000000 DECIMAL(38,18)"),
        ("(w * 0.000000000000000001) * 1000000000000000000", "2.000000000000000000 DECIMAL(38,18)"),
        ("d % 2", "0.50 DECIMAL(10,2)"),
        ("-d % 2", "-0.50 DECIMAL(10,2)"),
        ("5.5 % 2.25", "1.00 DECIMAL(3,2)"),
        ("r + n", "5.5 REAL"),
        ("x + n", "5.5 DOUBLE"),
        ("-0.5", "-0.5 DECIMAL(1,1)"),
        ("-d", "-2.50 DECIMAL(10,2)"),
        ("99999999999999999999999999999999999999 + 0.5", "error"),
    ])
    .await;
}

#[tokio::test]
async fn comparisons_are_exact() {
    check(&[
        ("9007199254740993 = 9007199254740992.0", "false BOOLEAN"),
        ("9007199254740993 = 9007199254740993.0", "true BOOLEAN"),
        ("9007199254740993 = 9007199254740992e0", "true BOOLEAN"),
        ("i = 9007199254740992.0", "false BOOLEAN"),
        ("i = 9007199254740993.0", "true BOOLEAN"),
        ("i > 9007199254740992.5", "true BOOLEAN"),
        ("i < 9007199254740993.5", "true BOOLEAN"),
        ("i IN (9007199254740992.0, 1)", "false BOOLEAN"),
        ("i BETWEEN 9007199254740992.5 AND 9007199254740993.5", "true BOOLEAN"),
        ("9223372036854775807 < 9223372036854775807.5", "true BOOLEAN"),
        ("u = 18446744073709551615.0", "true BOOLEAN"),
        ("u < 18446744073709551615.5", "true BOOLEAN"),
        ("m = 123456789012345678.91", "true BOOLEAN"),
        ("m = 123456789012345678.92", "false BOOLEAN"),
        ("m > 123456789012345678.905", "true BOOLEAN"),
        ("d = 2.5", "true BOOLEAN"),
        ("d = 2.505", "false BOOLEAN"),
        ("d < 2.505", "true BOOLEAN"),
        ("d = '2.505'", "false BOOLEAN"),
        ("d = '2.5'", "true BOOLEAN"),
        ("'2.505' > d", "true BOOLEAN"),
        ("d IN ('2.505', '3')", "false BOOLEAN"),
        ("j > 0.123456789012345678901234567890", "true BOOLEAN"),
        ("u > 0.123456789012345678901234567890", "true BOOLEAN"),
        ("i < 0.12345678901234567890123456789012345678", "false BOOLEAN"),
        ("m <> w", "true BOOLEAN"),
        ("12345678901234567890123456789012345678 > 0.12345678901234567890123456789012345678", "true BOOLEAN"),
        ("coalesce(d, 1)", "2.50 DECIMAL(22,2)"),
        ("CASE WHEN n = 3 THEN 1 ELSE 0.25 END", "1.00 DECIMAL(22,2)"),
    ])
    .await;
}

#[tokio::test]
async fn functions_and_casts() {
    check(&[
        ("round(1.005, 2)", "1.01 DECIMAL(4,2)"),
        ("round(-1.005, 2)", "-1.01 DECIMAL(4,2)"),
        ("round(2.5)", "3 DECIMAL(2,0)"),
        ("trunc(-1.999, 2)", "-1.990 DECIMAL(4,3)"),
        ("abs(-1.5)", "1.5 DECIMAL(2,1)"),
        ("2.5::BIGINT", "3 BIGINT"),
        ("-2.5::BIGINT", "-3 BIGINT"),
        ("d::INT", "3 INT"),
        ("2.499::BIGINT", "2 BIGINT"),
        ("2.5e0::BIGINT", "2 BIGINT"),
        ("3.5e0::BIGINT", "4 BIGINT"),
        ("x::BIGINT", "2 BIGINT"),
        ("r::BIGINT", "2 BIGINT"),
        ("TRY_CAST(x AS INT)", "2 INT"),
        ("TRY_CAST(big AS INT)", " INT"),
        ("big::BIGINT", "error"),
        ("'NaN'::DOUBLE::BIGINT", "error"),
        ("1.005::DECIMAL(20, 2)", "1.01 DECIMAL(20,2)"),
        ("-1.005::DECIMAL(20, 2)", "-1.01 DECIMAL(20,2)"),
        ("1.005e0::DECIMAL(20, 2)", "1.00 DECIMAL(20,2)"),
        ("'1.005'::DECIMAL(20, 2)", "1.01 DECIMAL(20,2)"),
        ("'2.5'::BIGINT", "error"),
        ("1000.0::DECIMAL(3, 2)", "error"),
        ("TRY_CAST(1000.0 AS DECIMAL(3, 2))", " DECIMAL(3,2)"),
        ("CAST(9007199254740993.0 AS BIGINT)", "9007199254740993 BIGINT"),
        ("signum(d)", "1.0 DOUBLE"),
        ("sum(d)", "2.50 DECIMAL(20,2)"),
        ("avg(x)", "2.5 DOUBLE"),
        ("avg(j)", "7.0 DOUBLE"),
    ])
    .await;
}

#[test]
fn columns_of_older_streams_are_named_as_their_decimals_are_written() {
    let names = [
        ("SELECT 1.5, d * 1.10 FROM t", "1.5,t.d * 1.10"),
        ("SELECT sum(d * -0.05) FROM t", "sum(t.d * -0.05)"),
        ("SELECT x * 1.1 AS a, x > .5 FROM t", "a,t.x > 0.5"),
        ("SELECT * FROM (SELECT x + 0.5 FROM t) ORDER BY 1 LIMIT 1", "t.x + 0.5"),
        ("SELECT coalesce(x, 0.5) FROM t UNION ALL SELECT 1.5 FROM t", "coalesce(t.x,0.5)"),
        ("SELECT 1e3, 12 FROM t", "Float64(1000),Int64(12)"),
    ];
    let before: Semantics = serde_json::from_str("2").expect("a version");
    for (sql, expected) in names {
        let query = crate::statement::parse_query(sql).expect("a query");
        let plan = query_plan(&session_state_of(before), Arc::new(Tables), &query.query);
        let plan = plan.unwrap_or_else(|e| panic!("{sql}: {e}"));
        let found: Vec<_> = plan.schema().fields().iter().map(|f| f.name().clone()).collect();
        assert_eq!(found.join(","), expected, "{sql}");
    }
}

/// What an INSERT into `t` would put in.
async fn insert(values: &str) -> Result<RecordBatch> {
    let sql = format!("INSERT INTO t {values}");
    let Statement::Insert(insert) = parse(&sql)?.remove(0).statement else { panic!("{sql} is no INSERT") };
    let statement = DfStatement::Statement(Box::new(insert.statement));
    let LogicalPlan::Dml(dml) = statement_plan(&session_state(), Arc::new(Tables), statement)? else {
        panic!("{sql} is no INSERT");
    };
    collected(assign_columns(dml.input.as_ref().clone(), "t")?).await
}

#[tokio::test]
async fn into_columns() {
    let exact = [
        ("(m) VALUES (123456789012345678.91)", "m", "123456789012345678.91"),
        ("(m) VALUES (1), (1.005)", "m", "1.00 1.01"),
        ("(m) SELECT 1.005", "m", "1.01"),
        ("(m) SELECT x FROM t", "m", "2.50"),
        ("(d, x) SELECT x, d FROM t", "x", "2.5"),
        ("(j) VALUES (2.0), (3e0), ('4'), (CAST(2.9 AS BIGINT)), ((2.9::BIGINT)), (NULL)", "j", "2 3 4 3 3 "),
        ("(j) SELECT CAST(x AS BIGINT) FROM t", "j", "2"),
        ("(x) VALUES (0.1), ('NaN'), (1)", "x", "0.1 NaN 1.0"),
        ("(s) VALUES (1.50)", "s", "1.50"),
    ];
    for (values, column, expected) in exact {
        let rows = insert(values).await.unwrap_or_else(|e| panic!("{values}: {e}"));
        let column = rows.column_by_name(column).expect("a column of t");
        let found: Vec<_> = (0..rows.num_rows()).map(|i| array_value_to_string(column, i).expect("a text")).collect();
        assert_eq!(found.join(" "), expected, "{values}");
    }
    let refused = [
        ("(j) VALUES (1), (2.999)", "column \"j\" of stream \"t\": 2.999 is not a whole number"),
        ("(j) VALUES (2.5e0)", "column \"j\" of stream \"t\": 2.5 is not a whole number"),
        ("(n) SELECT x FROM t", "column \"n\" of stream \"t\": 2.5 is not a whole number"),
        ("(n) SELECT d FROM t", "column \"n\" of stream \"t\": 2.50 is not a whole number"),
        ("(n) SELECT r + 0.25 FROM t", "column \"n\" of stream \"t\": 2.75 is not a whole number"),
        ("(j) VALUES ('2.5')", "column \"j\" of stream \"t\""),
        ("(j) VALUES (1e300)", "column \"j\" of stream \"t\""),
        ("(d) VALUES (123456789012.5)", "column \"d\" of stream \"t\""),
    ];
    for (values, expected) in refused {
        match insert(values).await {
            Ok(rows) => panic!("{values}: {rows:?}"),
            Err(e) => assert!(e.to_string().contains(expected), "{values}: {e}"),
        }
    }
}

#[test]
fn fractions_below_nulls_do_not_count() {
    let floats = |values: Vec<f64>| Arc::new(Float64Array::from(values)) as ArrayRef;
    let list = |nulls: Option<NullBuffer>| {
        let field = Arc::new(Field::new("item", DataType::Float64, true));
        let offsets = arrow::buffer::OffsetBuffer::from_lengths(vec![1; 2]);
        Arc::new(ListArray::new(field, offsets, floats(vec![1.0, 1.5]), nulls)) as ArrayRef
    };
    let bigints = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
    let structs = |nulls: Option<NullBuffer>| {
        let fields = Schema::new(vec![Field::new("a", DataType::Float64, true)]).fields;
        Arc::new(StructArray::new(fields, vec![floats(vec![1.0, 2.5])], nulls)) as ArrayRef
    };
    let of_bigint = DataType::Struct(Schema::new(vec![Field::new("a", DataType::Int64, true)]).fields);
    let hidden = || Some(NullBuffer::from(vec![true, false]));
    let cells = [
        (floats(vec![1.0, -0.0, f64::NAN]), DataType::Int64, None),
        (floats(vec![1.0, 2.5]), DataType::Int64, Some("2.5")),
        (floats(vec![2.5]), DataType::Decimal128(20, 0), None),
        (decimals(vec![1500], 10, 3), DataType::Int64, Some("1.500")),
        (decimals(vec![15000], 10, 3), DataType::Int64, None),
        (list(None), bigints.clone(), Some("1.5")),
        (list(hidden()), bigints, None),
        (structs(None), of_bigint.clone(), Some("2.5")),
        (structs(hidden()), of_bigint, None),
    ];
    for (values, to, expected) in cells {
        assert_eq!(lost(&values, &to, None).as_deref(), expected, "{values:?} into {to}");
    }
}
