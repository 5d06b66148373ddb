//! Statements back to SQL, as `SHOW CREATE` prints them: what is printed parses to the same statement.

use std::fmt;

use datafusion::common::TableReference;
use datafusion::sql::sqlparser::ast::{self, Ident};

use super::{ColumnDef, CreateStream, CreateView, Emit, Follow, Name, ObjectKind, Query, Since, Watermark};
use crate::error::{Error, Result};
use crate::quote::quote_name;

/// An identifier as PostgreSQL takes it: lower case unless quoted.
pub(crate) fn fold(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// `text` as an SQL string.
fn quote_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl Name {
    /// A name in schema `public`.
    pub fn bare(name: impl Into<String>) -> Self {
        Name { schema: None, name: name.into() }
    }

    /// The name that was written, folded.
    pub(crate) fn from_object_name(name: &ast::ObjectName) -> Result<Self> {
        let mut idents = Vec::new();
        for part in &name.0 {
            let ident = part.as_ident().ok_or_else(|| Error::invalid(format!("{name} is not a name")))?;
            idents.push(fold(ident));
        }
        let last = idents.pop().ok_or_else(|| Error::invalid("a name is missing"))?;
        match (idents.pop(), idents.is_empty()) {
            (Some(schema), true) if schema == "public" => Ok(Name::bare(last)),
            (schema, true) => Ok(Name { schema, name: last }),
            _ => Err(Error::invalid(format!("name \"{name}\" has too many parts")).with_hint("Write schema.name.")),
        }
    }

    /// The name for DataFusion.
    pub fn to_reference(&self) -> TableReference {
        match &self.schema {
            Some(schema) => TableReference::partial(schema.clone(), self.name.clone()),
            None => TableReference::bare(self.name.clone()),
        }
    }
}

/// As SQL.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{}.", quote_name(schema))?;
        }
        f.write_str(&quote_name(&self.name))
    }
}

/// As in a message: `materialized view`.
impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ObjectKind::Stream => "stream",
            ObjectKind::Source => "source",
            ObjectKind::Sink => "sink",
            ObjectKind::Table => "table",
            ObjectKind::MaterializedView => "materialized view",
            ObjectKind::View => "view",
        })
    }
}

impl fmt::Display for Emit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Emit::OnWindowClose => f.write_str("EMIT ON WINDOW CLOSE"),
            Emit::Changes => f.write_str("EMIT CHANGES"),
            Emit::Every(every) => match every.subsec_nanos() {
                0 => write!(f, "EMIT EVERY INTERVAL '{} seconds'", every.as_secs()),
                _ => write!(f, "EMIT EVERY INTERVAL '{} microseconds'", every.as_micros()),
            },
        }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if let Some(emit) = &self.emit {
            write!(f, "\n{emit}{}", self.follow)?;
        }
        Ok(())
    }
}

impl fmt::Display for Follow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.snapshot {
            f.write_str(" WITH SNAPSHOT")?;
        }
        if let Some(Since { epoch, incarnation }) = &self.since {
            write!(f, " SINCE EPOCH {epoch}")?;
            if let Some(incarnation) = incarnation {
                write!(f, " OF {}", quote_text(incarnation))?;
            }
        }
        match self.limit {
            Some(limit) => write!(f, " LIMIT {limit}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ColumnDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", quote_name(&self.name), self.sql_type)?;
        if let Some(key) = &self.metadata {
            write!(f, " METADATA FROM {}", quote_text(key))?;
        }
        if self.not_null { f.write_str(" NOT NULL") } else { Ok(()) }
    }
}

impl fmt::Display for Watermark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WATERMARK FOR {} AS {}", quote_name(&self.column), self.expr)
    }
}

/// Always in the words of `CREATE STREAM`, whatever alias was used.
impl fmt::Display for CreateStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CREATE STREAM {}", self.name)?;
        let mut items: Vec<String> = self.columns.iter().map(ColumnDef::to_string).collect();
        items.extend(self.query.iter().flat_map(|query| &query.columns).map(|name| quote_name(name)));
        if let Some(key) = &self.primary_key {
            let key: Vec<_> = key.iter().map(|k| quote_name(k)).collect();
            items.push(format!("PRIMARY KEY ({})", key.join(", ")));
        }
        items.extend(self.watermark.as_ref().map(Watermark::to_string));
        if !items.is_empty() {
            write!(f, " (\n  {}\n)", items.join(",\n  "))?;
        }
        if !self.options.is_empty() {
            let option = |(key, value): (&String, &String)| {
                let key: Vec<_> = key.split('.').map(quote_name).collect();
                format!("{} = {}", key.join("."), quote_text(value))
            };
            let options: Vec<_> = self.options.iter().map(option).collect();
            write!(f, " WITH (\n  {}\n)", options.join(",\n  "))?;
        }
        match &self.query {
            Some(query) => write!(f, " AS\n{query}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for CreateView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<_> = self.query.columns.iter().map(|name| quote_name(name)).collect();
        let columns = if columns.is_empty() { String::new() } else { format!(" ({})", columns.join(", ")) };
        write!(f, "CREATE VIEW {}{columns} AS\n{}", self.name, self.query)
    }
}
