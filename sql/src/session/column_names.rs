//! Names that the columns of a stream may have.

use arrow::datatypes::{DataType, Schema};

use crate::error::{Error, Result};

/// Errors when `stream` has no columns, two of one name, one with a name of our own, or one without a type.
pub(super) fn unique_names(schema: &Schema, stream: &str) -> Result<()> {
    if schema.fields().is_empty() {
        return Err(Error::invalid(format!("stream \"{stream}\" would have no columns"))
            .with_hint("Name what to select: SELECT * FROM …."));
    }
    let mut seen = std::collections::BTreeSet::new();
    for f in schema.fields() {
        if !seen.insert(f.name()) {
            return Err(Error::invalid(format!("stream \"{stream}\" would have two columns \"{}\"", f.name()))
                .with_hint("Give one of them another name: SELECT a AS b."));
        }
        if matches!(f.name().as_str(), "_op" | "_epoch") {
            return Err(Error::invalid(format!("column \"{}\" of stream \"{stream}\" has a reserved name", f.name()))
                .with_hint("Names _op and _epoch belong to changelogs: choose another."));
        }
        if f.data_type() == &DataType::Null {
            return Err(Error::invalid(format!("column \"{}\" of stream \"{stream}\" has no type", f.name()))
                .with_hint("Cast it: CAST(NULL AS BIGINT)."));
        }
    }
    Ok(())
}
