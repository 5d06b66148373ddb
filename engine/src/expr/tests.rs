//! Which rows fail, whatever stands around them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast as cast_array;
use arrow::datatypes::{DataType, Int64Type};
use datafusion_expr::Operator::{self, *};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{BinaryExpr, NegativeExpr, case, cast, col, lit};

use super::*;

type Expr = Arc<dyn PhysicalExpr>;

fn rows() -> RecordBatch {
    let x: ArrayRef = Arc::new(Int64Array::from(vec![Some(10), Some(10), None, Some(i64::MAX), Some(10)]));
    let y: ArrayRef = Arc::new(Int64Array::from(vec![Some(5), Some(0), Some(0), Some(1), None]));
    let s: ArrayRef = Arc::new(StringArray::from(vec![Some("1"), Some("x"), Some("3"), None, Some("")]));
    let n: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, i32::MIN, 4, i32::MAX]));
    let d = Decimal128Array::from(vec![10_i128.pow(37) * 9, 1, 1, 1, 1]).with_precision_and_scale(38, 0).unwrap();
    RecordBatch::try_from_iter([("x", x), ("y", y), ("s", s), ("n", n), ("d", Arc::new(d) as ArrayRef)]).unwrap()
}

fn column(name: &str) -> Expr {
    col(name, &rows().schema()).unwrap()
}

fn binary(left: Expr, op: Operator, right: Expr) -> Expr {
    Arc::new(BinaryExpr::new(left, op, right))
}

fn hard(e: Expr) -> Expr {
    let hard = harden(e, &rows().schema()).unwrap();
    assert_eq!(harden(hard.clone(), &rows().schema()).unwrap().to_string(), hard.to_string(), "twice is as once");
    hard
}

/// The values as text (`-` for null, `!` for a row that failed), over the whole batch and row by row.
fn outcome(e: &Expr) -> String {
    let over = |batch: &RecordBatch| -> Vec<String> {
        let (values, failures) = evaluate(e, batch).unwrap();
        let texts = cast_array(&values, &DataType::Utf8).unwrap();
        let texts = texts.as_string::<i32>();
        let failed: Vec<u32> = failures.iter().map(|(row, _)| row).collect();
        let one = |i: usize| match failed.contains(&(i as u32)) {
            true => "!".to_owned(),
            false if texts.is_null(i) => "-".to_owned(),
            false => texts.value(i).to_owned(),
        };
        (0..batch.num_rows()).map(one).collect()
    };
    let all = over(&rows());
    let one_by_one: Vec<String> = (0..rows().num_rows()).flat_map(|i| over(&rows().slice(i, 1))).collect();
    assert_eq!(all, one_by_one, "{e}");
    all.join(" ")
}

#[test]
fn a_row_fails_alone() {
    let quotient = hard(binary(column("x"), Divide, column("y")));
    assert_eq!(outcome(&quotient), format!("2 ! - {} -", i64::MAX));
    let (_, failures) = evaluate(&quotient, &rows()).unwrap();
    assert_eq!(failures.iter().map(|(_, f)| f.to_string()).collect::<Vec<_>>(), ["x / y: division by zero"]);
    let number = hard(cast(column("s"), &rows().schema(), DataType::Int64).unwrap());
    assert_eq!(outcome(&number), "1 ! 3 - !");
    let deep = hard(binary(number, Plus, lit(1_i64)));
    let (_, failures) = evaluate(&deep, &rows()).unwrap();
    let why: Vec<String> = failures.iter().map(|(_, f)| f.to_string()).collect();
    assert_eq!(why, ["CAST(s AS BIGINT): 'x' is not a BIGINT", "CAST(s AS BIGINT): '' is not a BIGINT"]);
}

#[test]
fn an_expression_is_told_as_it_was_written() {
    let schema = rows().schema();
    let told = |e: &Expr| super::text::text(e.as_ref(), &schema);
    let (x, y, n) = (column("x"), column("y"), column("n"));
    let wide = |e: Expr| cast(e, &schema, DataType::Int64).unwrap();
    assert_eq!(told(&hard(binary(x.clone(), Divide, wide(n.clone())))), "x / n");
    assert_eq!(told(&hard(binary(x.clone(), Minus, binary(y.clone(), Minus, wide(n.clone()))))), "x - (y - n)");
    assert_eq!(told(&hard(binary(binary(x.clone(), Plus, y.clone()), Multiply, x.clone()))), "(x + y) * x");
    assert_eq!(told(&hard(binary(binary(x.clone(), Multiply, y.clone()), Plus, x.clone()))), "x * y + x");
    assert_eq!(told(&hard(Arc::new(NegativeExpr::new(binary(x.clone(), Plus, y))))), "- (x + y)");
    let narrow = cast(wide(binary(n.clone(), Plus, n)), &schema, DataType::Int16).unwrap();
    assert_eq!(told(&hard(narrow)), "CAST(n + n AS SMALLINT)");
    let text = cast(x, &schema, DataType::Utf8View).unwrap();
    assert_eq!(told(&text), "CAST(x AS TEXT)");
}

#[test]
fn what_is_never_null_stays_so() {
    let schema = rows().schema();
    let negative: Expr = Arc::new(NegativeExpr::new(column("x")));
    let known = case(None, vec![(binary(column("x"), Gt, lit(0_i64)), negative)], Some(lit(0_i64))).unwrap();
    assert!(column("x").nullable(&schema).unwrap() && !known.nullable(&schema).unwrap());
    let hard = hard(known);
    assert!(!hard.nullable(&schema).unwrap());
    assert_eq!(outcome(&hard), format!("-10 -10 0 -{} -10", i64::MAX));
}

#[test]
fn arithmetic_that_does_not_fit_fails() {
    let max = i64::MAX;
    assert_eq!(outcome(&hard(binary(column("x"), Plus, lit(1_i64)))), "11 11 - ! 11");
    assert_eq!(outcome(&hard(binary(column("x"), Multiply, lit(2_i64)))), "20 20 - ! 20");
    assert_eq!(outcome(&hard(binary(column("n"), Minus, lit(1_i32)))), "0 1 ! 3 2147483646");
    assert_eq!(outcome(&hard(Arc::new(NegativeExpr::new(column("n"))))), "-1 -2 ! -4 -2147483647");
    assert_eq!(outcome(&hard(Arc::new(NegativeExpr::new(column("x"))))), format!("-10 -10 - -{max} -10"));
    // 9 times 10^37 twice has more than 38 digits, and still fits 128 bits.
    let twice = hard(binary(column("d"), Plus, column("d")));
    assert_eq!(outcome(&twice), "! 2 2 2 2");
}

#[test]
fn an_operand_counts_where_the_others_leave_it_open() {
    let quotient = || binary(binary(column("x"), Divide, column("y")), Gt, lit(1_i64));
    let guard = || binary(column("y"), NotEq, lit(0_i64));
    for (left, right) in [(guard(), quotient()), (quotient(), guard())] {
        assert_eq!(outcome(&hard(binary(left, And, right))), "true false false true -");
    }
    let zero = || binary(column("y"), Eq, lit(0_i64));
    for (left, right) in [(zero(), quotient()), (quotient(), zero())] {
        assert_eq!(outcome(&hard(binary(left, Or, right))), "true true true true -");
    }
    // Nothing decides row 1: it fails.
    let open = binary(binary(column("n"), Lt, lit(3_i32)), And, quotient());
    assert_eq!(outcome(&hard(open)), "true ! - false false");
    // Two that may fail, each where the other decides.
    let number = || cast(column("s"), &rows().schema(), DataType::Int64).unwrap();
    let both = binary(binary(number(), Gt, lit(1_i64)), And, quotient());
    assert_eq!(outcome(&hard(both)), "false ! - - !");
}

#[test]
fn a_case_evaluates_what_it_takes() {
    let when = binary(column("y"), NotEq, lit(0_i64));
    let then = binary(column("x"), Divide, column("y"));
    let e = hard(case(None, vec![(when, then)], Some(lit(-1_i64))).unwrap());
    assert_eq!(outcome(&e), format!("2 -1 -1 {} -1", i64::MAX));
}

#[test]
fn an_argument_counts_where_the_filter_is_true() {
    let guard = binary(column("y"), NotEq, lit(0_i64));
    let value = binary(column("x"), Divide, column("y"));
    let e: Expr = Arc::new(Guarded::new(hard(guard), hard(value.clone())));
    let (values, failures) = evaluate(&e, &rows()).unwrap();
    assert!(failures.is_empty());
    let values = values.as_primitive::<Int64Type>();
    assert_eq!((values.value(0), values.value(3)), (2, i64::MAX));
    // A filter that fails is a failure of the row.
    let bad: Expr = Arc::new(Guarded::new(hard(binary(value.clone(), Gt, lit(0_i64))), hard(value)));
    let (_, failures) = evaluate(&bad, &rows()).unwrap();
    assert_eq!(failures.iter().map(|(row, _)| row).collect::<Vec<_>>(), [1]);
}

#[test]
fn failures_of_several_expressions_are_one_per_row() {
    let failure = |text: &str| Failure { expression: text.into(), reason: "no".into() };
    let mut all = Failures::default();
    all.push(2, failure("a"));
    all.push(5, failure("a"));
    let mut more = Failures::default();
    more.push(1, failure("b"));
    more.push(2, failure("b"));
    all.merge(more);
    let found: Vec<(u32, &str)> = all.iter().map(|(row, f)| (row, &*f.expression)).collect();
    assert_eq!(found, [(1, "b"), (2, "a"), (5, "a")]);
    assert_eq!(all.good(6).unwrap().iter().flatten().collect::<Vec<_>>(), [true, false, false, true, true, false]);
}
