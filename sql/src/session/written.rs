//! Rows that an INSERT writes out, or that are bound to it: made columns without a plan.
//!
//! Planned, each cell costs some microseconds as an expression of its own, and each row of parameters a plan. Most that is inserted is
//! literals and parameters, whose columns can be made at once. What is anything else, or does not fit, is left to the planner,
//! which then says why; the two must give the same.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array, StringArray, new_null_array};
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, Schema};
use datafusion::logical_expr::ColumnarValue;
use datafusion::sql::sqlparser::ast::{self, Expr, SetExpr, UnaryOperator, Value, ValueWithSpan};

use super::tables::StreamDef;
use crate::plan::lost;
use crate::statement::Insert;

/// The rows of `insert`, with `parameters` a row of them for each, if there is nothing to plan: named as the columns of stream `def` and
/// of their types.
pub(super) fn written(insert: &Insert, def: &StreamDef, parameters: Option<&RecordBatch>) -> Option<RecordBatch> {
    let rows = values(insert)?;
    let fields = def.schema.fields();
    let targets: Vec<&Field> = match insert.columns.is_empty() {
        true => fields.iter().map(AsRef::as_ref).collect(),
        false => insert.columns.iter().map(|name| def.schema.field_with_name(name).ok()).collect::<Option<_>>()?,
    };
    let is_twice = |(i, field): (usize, &&Field)| targets[..i].iter().any(|other| other.name() == field.name());
    if targets.iter().enumerate().any(is_twice) || rows.iter().any(|row| row.content.len() != targets.len()) {
        return None;
    }
    let count = match parameters {
        None => rows.len(),
        Some(parameters) if rows.len() == 1 => parameters.num_rows(),
        Some(_) => return None,
    };
    let mut columns = Vec::with_capacity(targets.len());
    for (place, field) in targets.iter().enumerate() {
        columns.push(match (parameters, rows) {
            (Some(parameters), [row]) => given(&row.content[place], parameters, field.data_type())?,
            _ => column(rows.iter().map(|row| &row.content[place]), field.data_type())?,
        });
    }
    let fields: Vec<Field> =
        targets.iter().map(|field| Field::new(field.name(), field.data_type().clone(), true)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).ok()
}

/// The rows of a VALUES that is all there is.
fn values(insert: &Insert) -> Option<&[ast::Parens<Vec<Expr>>]> {
    let ast::Statement::Insert(statement) = &insert.statement else { return None };
    let ast::Query {
        with: None,
        body,
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks,
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators,
    } = statement.source.as_deref()?
    else {
        return None;
    };
    let SetExpr::Values(values) = body.as_ref() else { return None };
    let is_more = !locks.is_empty() || !pipe_operators.is_empty() || insert.source.emit.is_some();
    (!is_more && !insert.has_conflict()).then_some(values.rows.as_slice())
}

/// A literal.
#[derive(Clone, Copy)]
enum Cell<'a> {
    Null,
    Whole(i64),
    /// The digits of a decimal, and whether they are negative.
    Decimal(&'a str, bool),
    Text(&'a str),
    Bool(bool),
}

impl<'a> Cell<'a> {
    fn of(expr: &'a Expr) -> Option<Self> {
        match expr {
            Expr::Value(ValueWithSpan { value, .. }) => match value {
                Value::Null => Some(Cell::Null),
                Value::Boolean(value) => Some(Cell::Bool(*value)),
                Value::SingleQuotedString(text) => Some(Cell::Text(text)),
                Value::Number(digits, false) => Self::number(digits, false),
                _ => None,
            },
            Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match expr.as_ref() {
                Expr::Value(ValueWithSpan { value: Value::Number(digits, false), .. }) => Self::number(digits, true),
                _ => None,
            },
            _ => None,
        }
    }

    fn number(digits: &'a str, negative: bool) -> Option<Self> {
        let (mut points, mut whole) = (0, 0_i64);
        let sign = if negative { -1 } else { 1 };
        for byte in digits.bytes() {
            match byte {
                b'0'..=b'9' if points == 0 => {
                    // What is larger is no BIGINT, but may be another number.
                    whole = whole.checked_mul(10)?.checked_add(sign * i64::from(byte - b'0'))?;
                }
                b'0'..=b'9' => {}
                b'.' => points += 1,
                _ => return None,
            }
        }
        match points {
            0 if !digits.is_empty() => Some(Cell::Whole(whole)),
            1 if digits.len() > 1 && digits.len() <= usize::from(DECIMAL128_MAX_PRECISION) => {
                Some(Cell::Decimal(digits, negative))
            }
            _ => None,
        }
    }
}

/// Literals as a column of type `to`.
fn column<'a>(cells: impl Iterator<Item = &'a Expr>, to: &DataType) -> Option<ArrayRef> {
    let cells: Vec<Cell<'_>> = cells.map(Cell::of).collect::<Option<_>>()?;
    let are = |fits: fn(&Cell<'_>) -> bool| cells.iter().all(|cell| matches!(cell, Cell::Null) || fits(cell));
    let none = |_: &Cell<'_>| false;
    let whole = |cell: &Cell<'_>| matches!(cell, Cell::Whole(_));
    let number = |cell: &Cell<'_>| matches!(cell, Cell::Whole(_) | Cell::Decimal(..));
    if are(none) {
        return Some(new_null_array(to, cells.len()));
    }
    let made: ArrayRef = if are(whole) && to.is_numeric() {
        let value = |cell: &Cell<'_>| if let Cell::Whole(value) = cell { Some(*value) } else { None };
        Arc::new(cells.iter().map(value).collect::<Int64Array>())
    } else if are(|cell| matches!(cell, Cell::Text(_))) && is_told_by_text(to) {
        let value = |cell: &Cell<'a>| if let Cell::Text(text) = *cell { Some(text) } else { None };
        Arc::new(cells.iter().map(value).collect::<StringArray>())
    } else if are(|cell| matches!(cell, Cell::Bool(_))) && *to == DataType::Boolean {
        let value = |cell: &Cell<'_>| if let Cell::Bool(value) = cell { Some(*value) } else { None };
        Arc::new(cells.iter().map(value).collect::<BooleanArray>())
    } else if are(number) && *to == DataType::Float64 {
        doubles(&cells)?
    } else if are(number) && matches!(to, DataType::Decimal128(..)) {
        decimals(&cells)?
    } else {
        return None;
    };
    fitted(made, to)
}

fn is_told_by_text(to: &DataType) -> bool {
    to.is_string() || matches!(to, DataType::Timestamp(..) | DataType::Date32)
}

/// Each as the double that is nearest to what is written.
fn doubles(cells: &[Cell<'_>]) -> Option<ArrayRef> {
    let mut made = Vec::with_capacity(cells.len());
    for cell in cells {
        made.push(match cell {
            Cell::Whole(value) => Some(*value as f64),
            Cell::Decimal(digits, negative) => {
                let value: f64 = digits.parse().ok()?;
                // A decimal has one zero.
                Some(if *negative && value != 0.0 { -value } else { value })
            }
            _ => None,
        });
    }
    Some(Arc::new(Float64Array::from(made)))
}

/// All with as many digits behind the point as the one that has most.
fn decimals(cells: &[Cell<'_>]) -> Option<ArrayRef> {
    let scale_of = |digits: &str| digits.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let scale = |cell: &Cell<'_>| if let Cell::Decimal(digits, _) = cell { scale_of(digits) } else { 0 };
    let most = cells.iter().map(scale).max()?;
    let mut made = Vec::with_capacity(cells.len());
    for cell in cells {
        let value = match cell {
            Cell::Whole(value) => i128::from(*value),
            Cell::Decimal(digits, negative) => {
                let add = |value: i128, digit: u8| value.checked_mul(10)?.checked_add(i128::from(digit - b'0'));
                let value = digits.bytes().filter(u8::is_ascii_digit).try_fold(0, add)?;
                if *negative { -value } else { value }
            }
            _ => {
                made.push(None);
                continue;
            }
        };
        let missing = u32::try_from(most - scale(cell)).ok()?;
        let value = value.checked_mul(10_i128.checked_pow(missing)?)?;
        // More would be another type.
        if value.unsigned_abs() >= 10_u128.pow(u32::from(DECIMAL128_MAX_PRECISION)) {
            return None;
        }
        made.push(Some(value));
    }
    let made = Decimal128Array::from(made).with_precision_and_scale(DECIMAL128_MAX_PRECISION, i8::try_from(most).ok()?);
    Some(Arc::new(made.ok()?))
}

/// What stands in each row for `cell`: the values of a parameter, or a literal.
fn given(cell: &Expr, parameters: &RecordBatch, to: &DataType) -> Option<ArrayRef> {
    let Expr::Value(ValueWithSpan { value: Value::Placeholder(id), .. }) = cell else {
        return column(std::iter::repeat_n(cell, parameters.num_rows()), to);
    };
    let number: usize = id.strip_prefix('$')?.parse().ok()?;
    let values = parameters.columns().get(number.checked_sub(1)?)?;
    let from = values.data_type();
    let fits = match from {
        DataType::Null => return Some(new_null_array(to, values.len())),
        _ if from == to => true,
        DataType::Boolean => false,
        _ if from.is_string() => is_told_by_text(to),
        // A decimal is read as a double by its digits.
        _ if from.is_decimal() => to.is_decimal() || to.is_integer(),
        _ => from.is_numeric() && to.is_numeric(),
    };
    if fits { fitted(values.clone(), to) } else { None }
}

/// `values` as INSERT assigns them to a column of type `to`, if none is lost.
fn fitted(values: ArrayRef, to: &DataType) -> Option<ArrayRef> {
    if values.data_type() == to {
        return Some(values);
    }
    if lost(&values, to, None).is_some() {
        return None;
    }
    let rows = values.len();
    ColumnarValue::Array(values).cast_to(to, None).ok()?.into_array(rows).ok()
}
