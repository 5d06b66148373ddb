//! Rows that come over the network, made rows of a stored stream.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{DataType, SchemaRef};
use millstream_engine::format::convert::convert;

use crate::error::{Error, Result};

/// `rows` as stream `name` with `schema` takes them. Columns, and the fields of structs, are found by their names,
/// first to the letter, then without regard to case; missing ones are null. A value that does not fit is an error
/// that names the column and the value, and none of the rows go in.
pub(super) fn ingested(rows: &RecordBatch, schema: &SchemaRef, name: &str) -> Result<RecordBatch> {
    let given = rows.schema();
    let places = given.fields().iter().map(|f| {
        let exact = schema.index_of(f.name()).ok();
        let folded = || schema.fields().iter().position(|c| c.name().eq_ignore_ascii_case(f.name()));
        let missing = || Error::invalid(format!("stream \"{name}\" has no column \"{}\"", f.name()));
        exact.or_else(folded).ok_or_else(missing)
    });
    let places = places.collect::<Result<Vec<usize>>>()?;
    let mut misfits = vec![];
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for (i, field) in schema.fields().iter().enumerate() {
        let mut found = places.iter().enumerate().filter(|(_, place)| **place == i).map(|(given, _)| given);
        // Of two names that differ by case only, the one to the letter.
        let exact = found.clone().find(|at| given.field(*at).name() == field.name());
        let column = match exact.or_else(|| found.next()) {
            Some(at) => Arc::clone(rows.column(at)),
            None => new_null_array(&DataType::Null, rows.num_rows()),
        };
        columns.push(convert(&column, field, &mut misfits)?);
    }
    if let Some(first) = misfits.iter().min_by_key(|m| m.row) {
        let message = format!("stream \"{name}\", row {}: {}", first.row + 1, first.reason);
        return Err(Error::invalid(message).with_hint("Rows count from the beginning of their batch."));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int64Array};
    use arrow::datatypes::{Field, Schema};

    #[test]
    fn names_by_case_and_values_without_loss() {
        let field = |name| Field::new(name, DataType::Int64, true);
        let schema: SchemaRef = Arc::new(Schema::new(vec![field("userid"), field("other")]));
        let batch = |name, values: Vec<f64>| {
            RecordBatch::try_from_iter([(name, Arc::new(Float64Array::from(values)) as ArrayRef)]).expect("one column")
        };
        let rows = ingested(&batch("userId", vec![1.0, 2.0]), &schema, "s").expect("fits");
        assert_eq!(rows.column(0).as_ref(), &Int64Array::from(vec![1, 2]) as &dyn arrow::array::Array);
        assert_eq!(rows.column(1).null_count(), 2);
        let refused = ingested(&batch("userid", vec![1.0, 2.999]), &schema, "s").expect_err("a fraction");
        assert!(refused.to_string().contains("row 2: column \"userid\": 2.999 is not a BIGINT"), "{refused}");
        let refused = ingested(&batch("nobody", vec![1.0]), &schema, "s").expect_err("no such column");
        assert!(refused.to_string().contains("no column \"nobody\""), "{refused}");
    }
}
