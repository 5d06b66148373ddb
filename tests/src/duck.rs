//! The second oracle: DuckDB, in a Python process of its own that `tests/python/duck.py` runs.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Cursor, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use millstream_sql::statement::Query;
use serde_json::{Value, json};

use crate::Result;
use crate::dialect::{self, Asked};
use crate::oracle::{equal, equal_within};
use crate::pending::{Pending, is_pending};
use crate::world::Content;

/// A DuckDB that holds the tables of one world at a time, and what it was asked so far.
pub struct Duck {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    /// Queries whose answers were compared.
    pub compared: usize,
    /// Queries that it cannot say, with the reason, by how many there were.
    pub unsaid: BTreeMap<&'static str, usize>,
}

impl std::fmt::Debug for Duck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Duck({} compared)", self.compared)
    }
}

impl Drop for Duck {
    fn drop(&mut self) {
        // It may be in the middle of anything; what it says no longer matters.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The interpreter that has DuckDB: the tests' own, unless another is named.
fn python() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("MILLSTREAM_PYTHON") {
        return Ok(named.into());
    }
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.venv/bin/python");
    match own.exists() {
        true => Ok(own),
        false => Err("the tests' Python is not there: run tests/run.sh once, which makes .venv, or name one that has \
                      duckdb and pyarrow with MILLSTREAM_PYTHON"
            .into()),
    }
}

impl Duck {
    /// Starts one.
    pub fn start() -> Result<Self> {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("python/duck.py");
        let mut command = Command::new(python()?);
        let mut child = command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let to = child.stdin.take().ok_or("no pipe to DuckDB")?;
        let from = BufReader::new(child.stdout.take().ok_or("no pipe from DuckDB")?);
        let mut duck = Duck { child, to, from, compared: 0, unsaid: BTreeMap::new() };
        duck.ask(&json!({ "run": dialect::set_up() }), &[])?;
        Ok(duck)
    }

    /// Replaces tables.
    pub fn load(&mut self, tables: &Content) -> Result<()> {
        let mut bodies = vec![];
        let mut names = vec![];
        for (name, rows) in tables {
            let mut body = vec![];
            let mut writer = StreamWriter::try_new(&mut body, &rows.schema())?;
            writer.write(rows)?;
            writer.finish()?;
            drop(writer);
            names.push(json!([name, body.len()]));
            bodies.push(body);
        }
        self.ask(&json!({ "tables": names }), &bodies).map(|_| ())
    }

    /// The rows of a query in DuckDB's own SQL.
    pub fn query(&mut self, sql: &str) -> Result<Vec<RecordBatch>> {
        let body = self.ask(&json!({ "query": sql }), &[])?;
        let reader = StreamReader::try_new(Cursor::new(body), None)?;
        let schema = reader.schema();
        let mut batches = reader.collect::<Result<Vec<_>, _>>()?;
        batches.push(RecordBatch::new_empty(schema));
        Ok(batches)
    }

    fn ask(&mut self, request: &Value, bodies: &[Vec<u8>]) -> Result<Vec<u8>> {
        let gone = |e: std::io::Error| format!("the process that runs DuckDB has ended: {e}");
        writeln!(self.to, "{request}").map_err(gone)?;
        for body in bodies {
            self.to.write_all(body).map_err(gone)?;
        }
        self.to.flush().map_err(gone)?;
        let mut line = String::new();
        self.from.read_line(&mut line).map_err(gone)?;
        let head: Value = serde_json::from_str(&line).map_err(|e| format!("DuckDB says {line:?}: {e}"))?;
        if let Some(error) = head["error"].as_str() {
            return Err(error.to_owned().into());
        }
        let mut body = vec![0; head["bytes"].as_u64().unwrap_or_default() as usize];
        self.from.read_exact(&mut body).map_err(gone)?;
        Ok(body)
    }

    /// Compares DataFusion's answer to `query` over `content` with DuckDB's.
    pub fn check(&mut self, query: &Query, content: &Content, expected: &[RecordBatch]) -> Result<()> {
        let sql = match dialect::rewrite(&query.query)? {
            Asked::Sql(sql) => sql,
            Asked::Unsaid(reason) => {
                *self.unsaid.entry(reason).or_default() += 1;
                return Ok(());
            }
        };
        let told = |e: crate::Error| format!("{e}\n  DuckDB was asked: {sql}");
        self.load(content)?;
        let found = self.query(&sql).map_err(told)?;
        let schema = expected.first().ok_or("no result")?.schema();
        let found = arrow::compute::concat_batches(&found[0].schema(), &found)?;
        same(expected, &schema, &found).map_err(told)?;
        self.compared += 1;
        Ok(())
    }

    /// What share was compared; an error where it is less than 90 %.
    pub fn report(&self) -> Result<String> {
        let unsaid: usize = self.unsaid.values().sum();
        let all = self.compared + unsaid;
        let share = 100.0 * self.compared as f64 / all.max(1) as f64;
        let reasons: Vec<String> = self.unsaid.iter().map(|(reason, n)| format!("\n  {n}: {reason}")).collect();
        let text = format!("DuckDB compared {} of {all} answers, {share:.1} %{}", self.compared, reasons.concat());
        if all > 0 && share < 90.0 { Err(text.into()) } else { Ok(text) }
    }
}

/// Compares as what DataFusion's columns are. Where DuckDB gives a DOUBLE and we an exact decimal, the two may be
/// half of the decimal's last digit apart.
fn same(expected: &[RecordBatch], schema: &Schema, found: &RecordBatch) -> Result<()> {
    if schema.fields().len() != found.num_columns() {
        return Err(format!("DuckDB gives {} columns, not {}", found.num_columns(), schema.fields().len()).into());
    }
    let digits = if is_pending(Pending::DecimalAverages) { 1.0 } else { 0.5 };
    let mut columns: Vec<ArrayRef> = vec![];
    let mut within = vec![];
    for (field, column) in schema.fields().iter().zip(found.columns()) {
        let (to, tolerance) = match field.data_type() {
            DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) if column.data_type().is_floating() => {
                (&DataType::Float64, Some(digits * 1.000_001 * 10_f64.powi(-i32::from(*scale))))
            }
            other => (other, None),
        };
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        let cast = cast_with_options(column, to, &strict);
        let told = |e| format!("DuckDB's {} for column {} of {to}: {e}", column.data_type(), field.name());
        columns.push(cast.map_err(told)?);
        within.push(tolerance);
    }
    let fields: Vec<Field> =
        schema.fields().iter().zip(&columns).map(|(f, c)| Field::new(f.name(), c.data_type().clone(), true)).collect();
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(found.num_rows()));
    let found = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?;
    let result = match within.iter().all(Option::is_none) {
        true => equal(expected, &found),
        false => equal_within(expected, &found, &within),
    };
    result.map_err(|e| format!("in DuckDB {e}").into())
}
