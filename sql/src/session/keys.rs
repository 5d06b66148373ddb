//! The columns of a `PRIMARY KEY`.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};

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
