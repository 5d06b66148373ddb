//! Writes random expressions with their outcomes, and the rows for them, for another engine to compare.
//!
//! ```text
//! expressions SEED COUNT FOLDER
//! ```
//! `FOLDER/rows.parquet` is table `t`; each line of `FOLDER/expressions.jsonl` is an expression in our SQL and in
//! DuckDB's, with its value for each row. Stamps are microseconds since 1970, dates are days.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::ScalarValue;
use millstream_tests::Result;
use millstream_tests::expressions::evaluate::Outcome;
use millstream_tests::expressions::{Evaluated, Run, print};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [seed, count, folder] = &args[..] else { return Err("expressions SEED COUNT FOLDER".into()) };
    let folder = Path::new(folder);
    let mut run = Run::of(seed.parse()?)?;
    let mut rows = ArrowWriter::try_new(File::create(folder.join("rows.parquet"))?, run.rows.schema(), None)?;
    rows.write(&run.rows)?;
    rows.close()?;
    let mut lines = BufWriter::new(File::create(folder.join("expressions.jsonl"))?);
    for _ in 0..count.parse::<usize>()? {
        writeln!(lines, "{}", line(&run.draw()?)?)?;
    }
    Ok(lines.flush()?)
}

fn line(given: &Evaluated) -> Result<Value> {
    let (duckdb, rule) = match print::duckdb(&given.expr) {
        Ok(sql) => (Some(sql), None),
        Err(rule) => (None, Some(format!("{}: {}", rule.ours, rule.why))),
    };
    let values = given.outcomes.iter().map(value).collect::<Result<Vec<_>>>()?;
    let kind = format!("{:?}", given.expr.kind());
    Ok(json!({ "sql": given.sql, "duckdb": duckdb, "rule": rule, "kind": kind, "values": values }))
}

fn value(outcome: &Outcome) -> Result<Value> {
    let value = match outcome {
        Outcome::Failed(why) => return Ok(json!({ "error": why })),
        Outcome::Value(value) => value,
    };
    Ok(match value {
        v if v.is_null() => Value::Null,
        ScalarValue::Float64(Some(v)) => json!(v.to_string()),
        ScalarValue::Float32(Some(v)) => json!(v.to_string()),
        ScalarValue::TimestampMicrosecond(Some(v), _) => json!(v.to_string()),
        ScalarValue::Date32(Some(v)) => json!(v.to_string()),
        v => json!(ArrayFormatter::try_new(&v.to_array()?, &FormatOptions::default())?.value(0).to_string()),
    })
}
