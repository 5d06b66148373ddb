//! Parameters as clients send them. DBAPI drivers and SQLAlchemy write `?` where SQL here knows `$1`, `$2`, …; and
//! values come in the client's types, not in those of the statement.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use millstream_engine::format::convert::convert;
use millstream_sql::session::Prepared;
use tonic::Status;

/// `values`, a column per parameter in order, in the types that the statement has for them.
pub(crate) fn typed_parameters(values: &RecordBatch, prepared: &Prepared) -> Result<RecordBatch, Status> {
    let (given, wanted) = (values.num_columns(), prepared.parameters.fields().len());
    if given != wanted {
        return Err(Status::invalid_argument(format!("the statement has {wanted} parameters, but {given} were given")));
    }
    let cast = cast_parameters(values, prepared);
    cast.map_err(|e| Status::invalid_argument(format!("a parameter is of the wrong type: {e}")))
}

fn cast_parameters(values: &RecordBatch, prepared: &Prepared) -> Result<RecordBatch, ArrowError> {
    let parameters = &prepared.parameters;
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let columns = values.columns().iter().zip(parameters.fields()).zip(&prepared.untyped);
    let columns = columns.map(|((column, parameter), untyped)| {
        // Where no type is known the value brings its own.
        if *untyped || parameter.data_type() == column.data_type() {
            return Ok(Arc::clone(column));
        }
        let typed = match parameter.data_type().is_integer() && !column.data_type().is_integer() {
            true => whole(column, parameter),
            false => cast_with_options(column, parameter.data_type(), &options),
        };
        match typed {
            // So does a number that would lose something, or a time where the other operand is an interval.
            Err(_) if prepared.is_query && !is_text(column.data_type()) => Ok(Arc::clone(column)),
            typed => typed,
        }
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let fields = columns.iter().zip(parameters.fields());
    let fields: Vec<Field> = fields.map(|(c, p)| Field::new(p.name(), c.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Values for a parameter that is a whole number: one that would lose its fraction is refused.
fn whole(column: &ArrayRef, parameter: &Field) -> Result<ArrayRef, ArrowError> {
    let mut misfits = vec![];
    let converted = convert(column, parameter, &mut misfits).map_err(|e| ArrowError::CastError(e.to_string()))?;
    match misfits.into_iter().next() {
        None => Ok(converted),
        Some(misfit) => Err(ArrowError::CastError(misfit.reason)),
    }
}

/// `sql` with its question marks numbered. One in text, in a quoted name or in a comment is none.
pub(crate) fn number_parameters(sql: &str) -> Cow<'_, str> {
    let mut numbered = String::new();
    let mut copied = 0;
    let mut count = 0;
    let mut at = 0;
    while let Some(byte) = sql.as_bytes().get(at) {
        if *byte == b'?' {
            count += 1;
            numbered.push_str(&sql[copied..at]);
            numbered.push_str(&format!("${count}"));
            copied = at + 1;
            at = copied;
        } else {
            at += opaque_len(&sql[at..]).max(1);
            // The next byte looked at must begin a character.
            while !sql.is_char_boundary(at) {
                at += 1;
            }
        }
    }
    if count == 0 {
        return Cow::Borrowed(sql);
    }
    numbered.push_str(&sql[copied..]);
    Cow::Owned(numbered)
}

/// The length of the text, quoted name or comment that `sql` begins with; 0 if it begins with something else.
fn opaque_len(sql: &str) -> usize {
    let rest_after = |start: usize, end: &str| match sql[start..].find(end) {
        Some(found) => start + found + end.len(),
        None => sql.len(),
    };
    // A doubled quote ends one text and begins the next, which comes to the same.
    match sql.as_bytes() {
        [b'\'', ..] => rest_after(1, "'"),
        [b'"', ..] => rest_after(1, "\""),
        [b'-', b'-', ..] => rest_after(2, "\n"),
        [b'/', b'*', ..] => comment_len(sql),
        [b'$', ..] => match dollar_tag(sql) {
            Some(tag) => rest_after(tag.len(), tag),
            None => 0,
        },
        _ => 0,
    }
}

/// Comments in `/* */` nest.
fn comment_len(sql: &str) -> usize {
    let mut depth = 0_usize;
    let bytes = sql.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// `$tag$` or `$$` at the start: what begins dollar-quoted text. `$1` does not.
fn dollar_tag(sql: &str) -> Option<&str> {
    let end = 1 + sql[1..].find('$')?;
    let tag = &sql[1..end];
    let named = !tag.starts_with(|c: char| c.is_ascii_digit());
    (named && tag.chars().all(|c| c.is_alphanumeric() || c == '_')).then(|| &sql[..=end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, ArrayRef, AsArray, Int64Array, NullArray, StringArray};

    #[test]
    fn values_take_the_types_of_the_statement() {
        let types = [DataType::Utf8View, DataType::Int32, DataType::Utf8, DataType::Float64];
        let fields: Vec<Field> = (1..).zip(types).map(|(i, t)| Field::new(format!("${i}"), t, true)).collect();
        let parameters = Arc::new(Schema::new(fields));
        let prepared = Prepared {
            sql: String::new(),
            schema: Arc::new(Schema::empty()),
            parameters,
            untyped: vec![false, false, true, false],
            is_query: false,
        };
        let values = |number: i64| {
            let columns: [(&str, ArrayRef); 4] = [
                ("0", Arc::new(StringArray::from(vec!["a"]))),
                ("1", Arc::new(Int64Array::from(vec![number]))),
                ("2", Arc::new(Int64Array::from(vec![5]))),
                ("3", Arc::new(NullArray::new(1))),
            ];
            RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
        };
        let typed = typed_parameters(&values(7), &prepared).unwrap();
        let types: Vec<_> = typed.columns().iter().map(|c| c.data_type().clone()).collect();
        assert_eq!(types, [DataType::Utf8View, DataType::Int32, DataType::Int64, DataType::Float64]);
        assert_eq!(typed.column(0).as_string_view().value(0), "a");
        assert!(typed.column(3).is_null(0));
        assert!(typed_parameters(&values(1 << 40), &prepared).unwrap_err().message().contains("wrong type"));
        let fewer = values(7).project(&[0]).unwrap();
        assert!(typed_parameters(&fewer, &prepared).unwrap_err().message().contains("has 4 parameters, but 1"));
    }

    #[test]
    fn question_marks_are_numbered() {
        for (sql, want) in [
            ("SELECT 1", "SELECT 1"),
            ("VALUES (?, ?,?)", "VALUES ($1, $2,$3)"),
            ("SELECT '?', 'it''s ?', ?", "SELECT '?', 'it''s ?', $1"),
            ("SELECT \"a?\" -- why?\n, ?", "SELECT \"a?\" -- why?\n, $1"),
            ("SELECT /* ? /* ? */ ? */ ?", "SELECT /* ? /* ? */ ? */ $1"),
            ("SELECT $$?$$, $q$ ? $q$, $1, ?", "SELECT $$?$$, $q$ ? $q$, $1, $1"),
            ("SELECT 'ä?' || ü || ? || 'ö", "SELECT 'ä?' || ü || $1 || 'ö"),
            ("SELECT ? -- and?", "SELECT $1 -- and?"),
            ("SELECT ? /* open ?", "SELECT $1 /* open ?"),
            ("?", "$1"),
            ("", ""),
        ] {
            assert_eq!(number_parameters(sql), want);
        }
    }
}
