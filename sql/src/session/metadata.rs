//! Columns that are metadata of a connector.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use millstream_engine::connector::registry::Connector;
use millstream_engine::format::form::{Form, told};

use crate::error::{Error, Result};
use crate::statement::{ColumnDef, CreateStream};

fn declared(create: &CreateStream) -> impl Iterator<Item = (&ColumnDef, &str)> {
    create.columns.iter().filter_map(|column| Some((column, column.metadata.as_deref()?)))
}

/// Errors when a column of `create` is metadata that neither `connector` has nor records of `form` tell, or cannot be it.
pub(super) fn check_metadata(create: &CreateStream, connector: &Arc<dyn Connector>, form: Form) -> Result<()> {
    let owner = format!("stream \"{}\"", create.name.name);
    for (column, key) in declared(create) {
        if is_own(connector, key)? || !form.tells(key) {
            connector.check_metadata(&owner, &column.field(), key)?;
        } else if column.not_null {
            let message = format!("column \"{}\" of {owner}: metadata '{key}' may be null", column.name);
            return Err(Error::invalid(message).with_hint("Leave NOT NULL out."));
        }
    }
    Ok(())
}

/// Whether `key` is metadata of the connector itself.
fn is_own(connector: &Arc<dyn Connector>, key: &str) -> Result<bool> {
    Ok(connector.readable()?.metadata().iter().any(|known| known.name == key))
}

/// The columns `schema`, those marked that are what records say besides their rows, and which others are `metadata` of
/// `connector`.
pub(super) fn told_apart(
    connector: &Arc<dyn Connector>,
    schema: &SchemaRef,
    metadata: &BTreeMap<usize, String>,
) -> Result<(SchemaRef, BTreeMap<usize, String>)> {
    let mut own = BTreeMap::new();
    let mut fields = schema.fields().to_vec();
    for (column, key) in metadata {
        match is_own(connector, key)? {
            true => drop(own.insert(*column, key.clone())),
            false => fields[*column] = Arc::new(told(&fields[*column], key)),
        }
    }
    Ok((Arc::new(Schema::new(fields)), own))
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
