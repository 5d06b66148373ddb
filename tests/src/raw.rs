//! Text of a dialect of its own in the place of a name or a table.

use datafusion::sql::sqlparser::ast::{Ident, ObjectName, TableAlias, TableFactor};

/// A name without quotes is printed as it is: any text can stand where a name stands.
pub(crate) fn raw(text: String) -> Ident {
    Ident::new(text)
}

/// A table that is written as `text`.
pub(crate) fn raw_table(text: String, alias: Option<TableAlias>) -> TableFactor {
    TableFactor::Table {
        name: ObjectName::from(vec![raw(text)]),
        alias,
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    }
}
