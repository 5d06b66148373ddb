//! Why a row has no value, in words.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use datafusion_common::DataFusionError;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{CaseExpr, CastExpr};

use super::failures::Failure;
use super::guarded::Guarded;
use super::text::text;
use crate::error::{Error, ErrorKind};
use crate::format::a_sql_name;

/// Whether an error tells of the data of a row; others (no memory, defects) concern the query.
pub(super) fn is_of_row(error: &DataFusionError) -> bool {
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
pub(super) fn failure(expr: &Arc<dyn PhysicalExpr>, row: &RecordBatch, error: &DataFusionError) -> Failure {
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
