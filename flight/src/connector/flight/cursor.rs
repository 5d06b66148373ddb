//! The cursor of a query that is polled: the largest value of a column that has been read. The next question has it in place of
//! `{cursor}`, so that each row is read once.
//!
//! ```text
//! SELECT * FROM orders WHERE id > {cursor} ORDER BY id LIMIT 1000      first_cursor = '0'
//! rows 1, 2, 5   ->  … WHERE id > 5 …      rows 7, 6, or 5 once more, or a NULL: refused, since a row could be missed or come twice
//! ```

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::kernels::cmp::gt;
use arrow::compute::{CastOptions, cast, cast_with_options, concat};
use arrow::datatypes::{DataType, SchemaRef};
use millstream_engine::error::{Error, Result};
use millstream_engine::format::sql_name;

/// What stands for it in a query.
pub(super) const PLACEHOLDER: &str = "{cursor}";

/// See the module's text.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    column: String,
    /// One value of the column's type.
    last: ArrayRef,
}

impl Cursor {
    /// At `value`, of `column` of answers with `schema`.
    pub(super) fn at(value: &str, column: &str, schema: &SchemaRef) -> Result<Self> {
        let field = schema.field_with_name(column).map_err(|_| {
            Error::invalid(format!("the answer has no column \"{column}\", which is the cursor"))
                .with_hint("Name a column that the query gives.")
        })?;
        let data_type = plain(field.data_type());
        if !is_ordered(&data_type) {
            let name = sql_name(&data_type);
            return Err(Error::unsupported(format!("column \"{column}\", the cursor, is {name}"))
                .with_hint("A cursor is a whole number, a decimal, a text, a date or a timestamp."));
        }
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        let last = cast_with_options(&StringArray::from(vec![value]), &data_type, &strict).map_err(|_| {
            Error::invalid(format!("'{value}' is no {}, as column \"{column}\" is", sql_name(&data_type)))
                .with_hint("Write first_cursor = '…' with a value that lies before all others.")
        })?;
        Ok(Cursor { column: column.to_owned(), last })
    }

    /// The same cursor at `value`.
    pub(super) fn moved_to(&self, value: &str, schema: &SchemaRef) -> Result<Self> {
        Cursor::at(value, &self.column, schema)
    }

    /// Its value as a text.
    pub(super) fn text(&self) -> Result<String> {
        let text = cast(&self.last, &DataType::Utf8)?;
        Ok(text.as_string::<i32>().value(0).to_owned())
    }

    /// Its value as a literal of SQL.
    fn literal(&self) -> Result<String> {
        let text = self.text()?;
        if text.contains(['\'', '\\']) {
            let message = format!("column \"{}\", the cursor, is {text}, with a quote or a backslash", self.column);
            return Err(Error::unsupported(message)
                .with_hint("Servers differ in how such a text is written: take another column."));
        }
        let quoted = || format!("'{text}'");
        Ok(match self.last.data_type() {
            DataType::Utf8 => quoted(),
            DataType::Date32 | DataType::Date64 => format!("DATE {}", quoted()),
            DataType::Timestamp(..) => format!("TIMESTAMP {}", quoted().replacen('T', " ", 1)),
            _ => text,
        })
    }

    /// `query` with its value.
    pub(super) fn put_into(&self, query: &str) -> Result<String> {
        Ok(query.replace(PLACEHOLDER, &self.literal()?))
    }

    /// Moves to the last of `rows`.
    ///
    /// Errors where they do not come in order, each behind the one before.
    pub(super) fn advance(&mut self, rows: &RecordBatch) -> Result<()> {
        let column = &self.column;
        let refused = |what: &str| {
            Error::data(format!("column \"{column}\", the cursor, {what}")).with_hint(format!(
                "Write WHERE {column} > {PLACEHOLDER} and ORDER BY {column}, of a column without NULLs in which all values differ."
            ))
        };
        let values = rows.column_by_name(column).ok_or_else(|| refused("is not in the answer"))?;
        if values.is_empty() {
            return Ok(());
        }
        let values = cast(values, self.last.data_type())?;
        if values.null_count() > 0 {
            return Err(refused("is NULL"));
        }
        let before = concat(&[&self.last, &values.slice(0, values.len() - 1)])?;
        if gt(&values, &before)?.true_count() < values.len() {
            return Err(refused("does not grow from row to row"));
        }
        self.last = values.slice(values.len() - 1, 1);
        Ok(())
    }
}

/// A type without the ways in which its values may be kept.
fn plain(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => plain(values),
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        other => other.clone(),
    }
}

/// Whether values have one order, and are written without loss.
fn is_ordered(data_type: &DataType) -> bool {
    let is_decimal = matches!(data_type, DataType::Decimal128(..) | DataType::Decimal256(..));
    let is_day = matches!(data_type, DataType::Date32 | DataType::Timestamp(..) | DataType::Utf8);
    data_type.is_integer() || is_decimal || is_day
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, TimestampNanosecondArray};

    use super::*;

    fn rows(column: ArrayRef) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable([("at", column, true)]).expect("one column")
    }

    fn numbers(values: &[Option<i64>]) -> RecordBatch {
        rows(Arc::new(Int64Array::from(values.to_vec())))
    }

    #[test]
    fn it_moves_to_the_last_row() {
        let schema = numbers(&[]).schema();
        let mut cursor = Cursor::at("-5", "at", &schema).expect("a number");
        assert_eq!(cursor.put_into("WHERE at > {cursor}").expect("written"), "WHERE at > -5");
        cursor.advance(&numbers(&[Some(-4), Some(0), Some(7)])).expect("grows");
        cursor.advance(&numbers(&[])).expect("nothing");
        assert_eq!(cursor.text().expect("written"), "7");
        for (wrong, why) in [
            (&[Some(7)][..], "does not grow"),
            (&[Some(9), Some(8)], "does not grow"),
            (&[Some(9), Some(9)], "does not grow"),
            (&[None], "is NULL"),
        ] {
            let e = cursor.advance(&numbers(wrong)).expect_err("refused");
            assert!(e.message().contains(why), "{e}");
            assert_eq!(cursor.text().expect("written"), "7", "it stays");
        }
    }

    #[test]
    fn what_it_is_written_as_is_read_back() {
        let at = |column: ArrayRef, value: &str| {
            let cursor = Cursor::at(value, "at", &rows(column.clone()).schema()).expect("a value");
            let again = Cursor::at(&cursor.text().expect("written"), "at", &rows(column).schema()).expect("read");
            assert_eq!(&cursor.last, &again.last);
            cursor.literal().expect("written")
        };
        let text: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
        assert_eq!(at(text.clone(), "ab c"), "'ab c'");
        for odd in ["it's", "a\\"] {
            let cursor = Cursor::at(odd, "at", &rows(text.clone()).schema()).expect("a value");
            assert!(cursor.put_into("{cursor}").expect_err("has no one form").message().contains(odd));
        }
        assert_eq!(at(text, ""), "''");
        let nanos: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1]));
        assert_eq!(at(nanos, "2026-11-29 10:00:00.000000001"), "TIMESTAMP '2026-11-29 10:00:00.000000001'");
        let floats: ArrayRef = Arc::new(arrow::array::Float64Array::from(vec![1.0]));
        let e = Cursor::at("0", "at", &rows(floats).schema()).expect_err("no order");
        assert!(e.message().contains("DOUBLE"), "{e}");
        assert!(Cursor::at("x", "at", &numbers(&[]).schema()).expect_err("no number").message().contains("BIGINT"));
        assert!(Cursor::at("1", "nope", &numbers(&[]).schema()).is_err());
    }
}
