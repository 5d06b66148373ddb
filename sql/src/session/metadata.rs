//! Columns that are metadata of a connector.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use millstream_engine::connector::registry::Connector;

use crate::error::{Error, Result};
use crate::statement::{ColumnDef, CreateStream};

fn declared(create: &CreateStream) -> impl Iterator<Item = (&ColumnDef, &str)> {
    create.columns.iter().filter_map(|column| Some((column, column.metadata.as_deref()?)))
}

/// Errors when a column of `create` is metadata that `connector` does not have, or cannot be it.
pub(super) fn check_metadata(create: &CreateStream, connector: &Arc<dyn Connector>) -> Result<()> {
    let owner = format!("stream \"{}\"", create.name.name);
    for (column, key) in declared(create) {
        connector.check_metadata(&owner, &column.field(), key)?;
    }
    Ok(())
}

/// Errors when a column of `create`, which has no connector, is metadata.
pub(super) fn refuse_metadata(create: &CreateStream) -> Result<()> {
    let Some((column, _)) = declared(create).next() else { return Ok(()) };
    let name = &create.name.name;
    Err(Error::invalid(format!("column \"{}\" of stream \"{name}\" is metadata of no connector", column.name))
        .with_hint("Leave METADATA out, or say where the rows come from: WITH (connector = '…', …)."))
}

/// The columns that were found in the content, but for those whose names `create` has for metadata; and all columns.
pub(super) fn with_metadata(found: &SchemaRef, create: &CreateStream) -> (Schema, SchemaRef) {
    let is_metadata = |field: &Field| declared(create).any(|(column, _)| column.name == *field.name());
    let content: Vec<_> = found.fields().iter().filter(|field| !is_metadata(field)).cloned().collect();
    let metadata = declared(create).map(|(column, _)| Arc::new(column.field()));
    let all = content.iter().cloned().chain(metadata).collect::<Vec<_>>();
    (Schema::new(content), Arc::new(Schema::new(all)))
}
