//! Columns of before against plans of now.

use std::sync::Arc;

use arrow::datatypes::TimeUnit;
use datafusion::logical_expr::builder::table_scan;

use super::*;
use crate::catalog::columns_of;

fn schema(columns: &[(&str, DataType)]) -> Schema {
    Schema::new(columns.iter().map(|(n, t)| Field::new(*n, t.clone(), true)).collect::<Vec<_>>())
}

fn planned(columns: &[(&str, DataType)]) -> LogicalPlan {
    table_scan(Some("t"), &schema(columns), None).unwrap().build().unwrap()
}

fn fit(now: &[(&str, DataType)], kept: &[(&str, DataType)]) -> Result<LogicalPlan> {
    conform(planned(now), &schema(kept), ObjectKind::Derived, "Price list")
}

#[test]
fn a_plan_that_gives_the_same_is_left_alone() {
    let columns = [("a", DataType::Int64), ("b", DataType::Utf8View)];
    assert_eq!(fit(&columns, &columns).unwrap(), planned(&columns));
}

#[test]
fn what_has_another_type_now_is_cast_back() {
    let now = [("a", DataType::Int64), ("p", DataType::Decimal128(12, 3)), ("s", DataType::Utf8)];
    let kept = [("a", DataType::Int64), ("p", DataType::Float64), ("s", DataType::Utf8View)];
    let plan = fit(&now, &kept).unwrap();
    let types: Vec<_> = plan.schema().fields().iter().map(|f| f.data_type().clone()).collect();
    assert_eq!(types, kept.map(|(_, t)| t));
    assert_eq!(plan.schema().iter().next().unwrap().0.map(ToString::to_string), Some("t".to_owned()));
    assert!(plan.display_indent().to_string().contains("CAST(t.p AS Float64)"), "{}", plan.display_indent());
}

#[test]
fn what_says_something_else_now_is_refused_by_name() {
    let e = fit(&[("a", DataType::Utf8View)], &[("a", DataType::Int64)]).unwrap_err();
    assert_eq!(
        e.message(),
        "stream \"Price list\" cannot go on: it has column \"a\" as BIGINT, and its query now gives TEXT"
    );
    assert!(e.hint().unwrap().contains("CREATE OR REPLACE STREAM \"Price list\" AS"), "{e:?}");
    let e = fit(&[("a", DataType::Int64), ("b", DataType::Int64)], &[("a", DataType::Int64)]).unwrap_err();
    assert!(e.message().ends_with("it has columns a, and its query now gives a, b"), "{e}");
    let zone = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    assert!(!goes_on(&zone, &DataType::Timestamp(TimeUnit::Microsecond, None)));
    assert!(goes_on(&zone, &DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))));
}

#[test]
fn files_decide_about_types() {
    let planned = |changelog, columns: &[(&str, DataType)]| Resolved {
        columns: columns_of(&schema(columns)).unwrap(),
        changelog,
        key: Some(vec![0]),
        ..Resolved::by(Semantics::FIRST)
    };
    let written = |columns: &[(&str, DataType)]| Written::of(&schema(columns));
    let now = planned(true, &[("k", DataType::Utf8View), ("v", DataType::Decimal128(20, 1))]);
    let files = [("k", DataType::Utf8), ("v", DataType::Float64), (OP, DataType::Utf8), (EPOCH, DataType::UInt64)];
    let found = written(&files).over(now.clone()).unwrap();
    assert_eq!(found, planned(true, &[("k", DataType::Utf8View), ("v", DataType::Float64)]));
    // Other columns, or rows that cannot be taken back: its job is refused, the files can be read.
    let found = written(&files[..2]).over(now.clone()).unwrap();
    assert!(!found.changelog && found.key.is_none());
    let found = written(&[("k", DataType::Utf8), ("x", DataType::Int64)]).over(now).unwrap();
    assert_eq!(found.columns, columns_of(&schema(&[("k", DataType::Utf8View), ("x", DataType::Int64)])).unwrap());
}

#[test]
fn inferred_columns_are_written_where_sql_has_their_names() {
    let at = DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into()));
    let inner = DataType::Struct(vec![Field::new("x Y", DataType::Int64, false)].into());
    let list = DataType::List(Arc::new(Field::new("element", DataType::UInt16, true)));
    let found = schema(&[("id", DataType::Int64), ("At \"it\"", at), ("s", inner), ("l", list)]);
    let columns = as_written(&found).unwrap();
    let text: Vec<_> = columns.iter().map(ToString::to_string).collect();
    assert_eq!(text[0], "id BIGINT");
    assert_eq!(text[1], "\"At \"\"it\"\"\" TIMESTAMP(9) WITH TIME ZONE");
    assert_eq!(columns.len(), 4);
    assert!(as_written(&schema(&[("a", DataType::Int64), ("a", DataType::Int64)])).is_none());
    assert!(as_written(&schema(&[("m", DataType::Duration(TimeUnit::Second))])).is_none());
}
