//! What an entry of the catalog says.

use crate::error::{Error, Result};
use crate::statement::Statement;

/// The statement of an entry of the catalog.
pub(super) fn statement_of(sql: &str) -> Result<Statement> {
    let mut all = crate::statement::parse(sql)?;
    match all.pop() {
        Some(one) if all.is_empty() => Ok(one.statement),
        _ => Err(Error::internal("an entry of the catalog is not one statement")),
    }
}
