//! What a view is.

use arrow::datatypes::SchemaRef;

use crate::catalog::{Maker, Resolved, columns_of};
use crate::error::Result;
use crate::plan::Semantics;
use crate::statement::CreateView;

/// A view.
pub(super) struct ViewDef {
    pub(super) sql: String,
    pub(super) create: CreateView,
    pub(super) schema: SchemaRef,
    /// The rules by which its query is planned.
    pub(super) semantics: Semantics,
    /// The streams and views that it reads, also through others.
    pub(super) reads: Vec<String>,
    /// In whose name it reads them.
    pub(super) maker: Maker,
}

impl ViewDef {
    /// What the catalog keeps of it.
    pub(super) fn resolved(&self) -> Result<Resolved> {
        Ok(Resolved { columns: columns_of(&self.schema)?, ..Resolved::by(self.semantics) })
    }
}
