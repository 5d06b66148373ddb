//! The columns of a `PRIMARY KEY`.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use millstream_engine::format::form::Form;

use crate::error::{Error, Result};
use crate::statement::CreateStream;

/// Columns that were found for `create`, those of its key not null.
pub(super) fn with_key(found: &SchemaRef, create: &CreateStream) -> SchemaRef {
    let key = create.primary_key.as_deref().unwrap_or_default();
    let field = |f: &Arc<Field>| match key.contains(f.name()) {
        true => Arc::new(f.as_ref().clone().with_nullable(false)),
        false => f.clone(),
    };
    Arc::new(Schema::new(found.fields().iter().map(field).collect::<Vec<_>>()))
}

/// Where the columns of the key of `create` are.
pub(super) fn key_columns(create: &CreateStream, schema: &Schema) -> Result<Vec<usize>> {
    let Some(key) = &create.primary_key else { return Ok(vec![]) };
    let place = |name: &String| {
        schema.index_of(name).map_err(|_| {
            let names: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            Error::invalid(format!("PRIMARY KEY: stream \"{}\" has no column \"{name}\"", create.name.name))
                .with_hint(format!("Its columns are: {}.", names.join(", ")))
        })
    };
    key.iter().map(place).collect()
}

/// Errors when the columns `schema` of `create`, whose records are of `form`, are not such that they can be taken back.
pub(super) fn check_form(create: &CreateStream, form: Form, schema: &Schema) -> Result<()> {
    if !form.is_changelog() {
        return Ok(());
    }
    let name = &create.name.name;
    let wrong = |message: String, hint: &str| Err(Error::invalid(message).with_hint(hint.to_owned()));
    let Some(key) = &create.primary_key else {
        let Some(told) = create.columns.iter().find(|column| column.metadata.is_some()) else { return Ok(()) };
        return wrong(
            format!("column \"{}\" of stream \"{name}\" is metadata, with which no row is found that goes", told.name),
            "Declare a PRIMARY KEY, by which rows are found, or leave the column out.",
        );
    };
    match schema.fields().iter().find(|field| !field.is_nullable() && !key.contains(field.name())) {
        Some(field) => wrong(
            format!(
                "column \"{}\" of stream \"{name}\" is NOT NULL, and a row that goes may be told by its key alone",
                field.name()
            ),
            "Leave NOT NULL out: columns of the PRIMARY KEY are it anyway.",
        ),
        None => Ok(()),
    }
}
