//! Evaluating a batch row by row where it must be: values, and the rows that have none.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::concat;
use arrow::error::ArrowError;
use datafusion_common::{DataFusionError, Result as DfResult};
use datafusion_expr::ColumnarValue;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{CaseExpr, CastExpr};

use super::guarded::Guarded;
use super::logic::Logic;
use super::text::text;
use crate::error::{Error, ErrorKind, Result};
use crate::format::a_sql_name;

/// Why a row has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The expression that failed, as SQL.
    pub expression: Arc<str>,
    /// What was wrong with the row.
    pub reason: Arc<str>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.expression, self.reason)
    }
}

/// The rows of a batch on which an expression failed, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    rows: Vec<(u32, Failure)>,
}

impl Failures {
    /// Whether no row failed.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many rows failed.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The rows in order, each with its failure.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Failure)> {
        self.rows.iter().map(|(row, failure)| (*row, failure))
    }

    /// Adds a row behind those there are.
    pub fn push(&mut self, row: u32, failure: Failure) {
        debug_assert!(self.rows.last().is_none_or(|last| last.0 < row));
        self.rows.push((row, failure));
    }

    /// Those of rows that were taken from `places` of a batch, as rows of that batch.
    pub(super) fn at(mut self, places: &[u32]) -> Self {
        for (row, _) in &mut self.rows {
            *row = places[*row as usize];
        }
        self
    }

    /// Takes in the failures of another expression over the same rows; a row keeps its first.
    pub fn merge(&mut self, other: Failures) {
        if self.rows.is_empty() {
            self.rows = other.rows;
            return;
        }
        self.rows.extend(other.rows);
        // The sort is stable: of two failures of a row the earlier comes first.
        self.rows.sort_by_key(|(row, _)| *row);
        self.rows.dedup_by_key(|(row, _)| *row);
    }

    /// Keeps those for which `keep` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(u32) -> bool) {
        self.rows.retain(|(row, _)| keep(*row));
    }

    /// The rows of a batch of `rows` rows that did not fail; `None` when none failed.
    pub fn good(&self, rows: usize) -> Option<BooleanArray> {
        if self.rows.is_empty() {
            return None;
        }
        let mut good = arrow::array::BooleanBufferBuilder::new(rows);
        good.append_n(rows, true);
        for (row, _) in &self.rows {
            good.set_bit(*row as usize, false);
        }
        Some(BooleanArray::new(good.finish(), None))
    }

    /// The first failure as an error of whoever cannot put rows aside.
    pub fn error(&self) -> Option<DataFusionError> {
        let (_, failure) = self.rows.first()?;
        Some(DataFusionError::Execution(failure.to_string()))
    }
}

/// The values of `expr` over `batch`, and the rows on which it fails. What stands in a failed row's place
/// means nothing.
///
/// Errors where it is not the row that is at fault: memory, a defect, something not implemented.
pub fn evaluate(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<(ArrayRef, Failures)> {
    let failed = match expr.evaluate(batch).and_then(|v| v.into_array(batch.num_rows())) {
        Ok(array) => return Ok((array, Failures::default())),
        Err(e) => e,
    };
    if !is_of_row(&failed) {
        return Err(failed.into());
    }
    if let Some(logic) = expr.downcast_ref::<Logic>() {
        return logic.rows(batch);
    }
    if let Some(guarded) = expr.downcast_ref::<Guarded>() {
        return guarded.rows(batch);
    }
    let mut found = Found { parts: vec![], failures: Failures::default() };
    halves(expr, batch, 0, failed, &mut found)?;
    let parts: Vec<&dyn Array> = found.parts.iter().map(AsRef::as_ref).collect();
    Ok((concat(&parts)?, found.failures))
}

struct Found {
    parts: Vec<ArrayRef>,
    failures: Failures,
}

/// Halves a batch that failed with `error` until what fails is a row.
fn halves(
    expr: &Arc<dyn PhysicalExpr>,
    batch: &RecordBatch,
    offset: u32,
    error: DataFusionError,
    found: &mut Found,
) -> Result<()> {
    if !is_of_row(&error) {
        return Err(error.into());
    }
    let rows = batch.num_rows();
    if rows <= 1 {
        found.failures.push(offset, failure(expr, batch, &error));
        found.parts.push(new_null_array(&expr.data_type(batch.schema_ref())?, rows));
        return Ok(());
    }
    let middle = rows / 2;
    for (from, n) in [(0, middle), (middle, rows - middle)] {
        let half = batch.slice(from, n);
        match expr.evaluate(&half).and_then(|v| v.into_array(n)) {
            Ok(values) => found.parts.push(values),
            Err(e) => halves(expr, &half, offset + from as u32, e, found)?,
        }
    }
    Ok(())
}

/// What an expression gives for all rows at once or, where that fails because of a row, what `rows` gives row by row:
/// an error if a row fails after all.
pub(super) fn at_once_or_by_row(
    at_once: DfResult<ColumnarValue>,
    rows: impl FnOnce() -> Result<(ArrayRef, Failures)>,
) -> DfResult<ColumnarValue> {
    match at_once {
        Err(e) if is_of_row(&e) => {}
        other => return other,
    }
    let (values, failures) = rows().map_err(|e| DataFusionError::External(Box::new(e)))?;
    match failures.error() {
        None => Ok(ColumnarValue::Array(values)),
        Some(e) => Err(e),
    }
}

/// Whether an error tells of the data of a row; others (no memory, defects) concern the query.
fn is_of_row(error: &DataFusionError) -> bool {
    match error.find_root() {
        DataFusionError::ArrowError(e, _) => {
            !matches!(**e, ArrowError::MemoryError(_) | ArrowError::IoError(_, _) | ArrowError::NotYetImplemented(_))
        }
        DataFusionError::Execution(_) => true,
        DataFusionError::External(e) => {
            e.downcast_ref::<Error>().is_some_and(|e| matches!(e.kind(), ErrorKind::Data | ErrorKind::Invalid))
        }
        _ => false,
    }
}

/// Says which part of `expr` fails on `row`, a batch of one row, and why.
fn failure(expr: &Arc<dyn PhysicalExpr>, row: &RecordBatch, error: &DataFusionError) -> Failure {
    // What a CASE or a guard evaluates depends on the row: its parts are not tried on their own.
    let lazy = expr.downcast_ref::<CaseExpr>().is_some() || expr.downcast_ref::<Guarded>().is_some();
    if !lazy {
        for child in expr.children() {
            if let Err(e) = child.evaluate(row)
                && is_of_row(&e)
            {
                return failure(child, row, &e);
            }
        }
    }
    let reason = cast_reason(expr, row).unwrap_or_else(|| reason(error));
    Failure { expression: text(expr.as_ref(), row.schema_ref()).into(), reason: reason.into() }
}

/// A cast names the value and the type in the words of SQL.
fn cast_reason(expr: &Arc<dyn PhysicalExpr>, row: &RecordBatch) -> Option<String> {
    let cast = expr.downcast_ref::<CastExpr>()?;
    let from = cast.expr().evaluate(row).and_then(|v| v.into_array(1)).ok()?;
    let options = arrow::util::display::FormatOptions::default();
    let shown = arrow::util::display::ArrayFormatter::try_new(&from, &options).ok()?.value(0).to_string();
    let to = expr.data_type(row.schema_ref()).ok()?;
    let quote = if from.data_type().is_string() { "'" } else { "" };
    Some(format!("{quote}{}{quote} is not {}", shortened(&shown), a_sql_name(&to)))
}

/// Long values would hide the rest of a message.
fn shortened(text: &str) -> String {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}

fn reason(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::ArrowError(e, _) => match &**e {
            ArrowError::DivideByZero => "division by zero".to_owned(),
            ArrowError::ArithmeticOverflow(text) => {
                format!("{} overflows", text.trim_start_matches("Overflow happened on: "))
            }
            ArrowError::CastError(text)
            | ArrowError::ParseError(text)
            | ArrowError::ComputeError(text)
            | ArrowError::InvalidArgumentError(text) => text.clone(),
            other => other.to_string(),
        },
        DataFusionError::Execution(text) => text.clone(),
        DataFusionError::External(e) => e.to_string(),
        other => other.strip_backtrace(),
    }
}

/// The rows of a mask that are true; null counts as false.
pub(super) fn true_rows(mask: &BooleanArray) -> BooleanBuffer {
    match mask.nulls() {
        None => mask.values().clone(),
        Some(nulls) => mask.values() & nulls.inner(),
    }
}
