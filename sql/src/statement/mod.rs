//! Statements: a script's text becomes plain data.
//!
//! A thin parser of our own ([`parse`]) reads the statements that are Millstream's and gives every query to
//! DataFusion's parser. Nothing is read and then ignored: what has no meaning here is refused by name.

mod access;
mod as_of;
mod change;
mod check;
mod create;
mod cut;
mod data_type;
mod depth;
mod dialect;
mod display;
mod drain;
mod emit;
mod parser;
mod place;
mod session;
mod source;
mod tokens;
mod trailing;
mod words;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use arrow::datatypes::{DataType, Field};
use datafusion::sql::parser::CopyToStatement;
use datafusion::sql::sqlparser::ast;
use millstream_engine::connector::file::export::Existing;

use crate::error::Position;

pub use crate::quote::quote_name;
pub use access::{AccessStatement, Grant};
pub use change::Change;
pub(crate) use change::{Conflict, SetColumn, calls};
pub use check::check_query;
pub(crate) use check::{RowFunction, is_now, row_function};
pub use cut::{caret, cut_secrets};
pub use data_type::arrow_type;
pub use depth::STACK;
pub(crate) use display::fold;
pub use parser::{parse, parse_condition, parse_query};

/// A statement with where it stands.
#[derive(Clone)]
pub struct Parsed {
    /// What it says.
    pub statement: Statement,
    /// Its text as written, without the `;`. What is kept or shown of it is [`cut_secrets`].
    pub text: String,
    /// Where in the script it starts.
    pub position: Position,
}

impl fmt::Debug for Parsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, position) = (cut_secrets(&self.text), self.position);
        f.debug_struct("Parsed").field("text", &text).field("position", &position).finish_non_exhaustive()
    }
}

/// What a user can say.
#[derive(Clone, Debug)]
pub enum Statement {
    /// `CREATE STREAM …` and its aliases.
    CreateStream(Box<CreateStream>),
    /// `CREATE VIEW …`.
    CreateView(CreateView),
    /// `DROP …`.
    Drop(DropObject),
    /// `SHOW STREAMS` (also `TABLES`, `SOURCES`, `SINKS`).
    ShowStreams,
    /// `SHOW JOBS`.
    ShowJobs,
    /// `SHOW VIEWS`.
    ShowViews,
    /// `SHOW NODES`.
    ShowNodes,
    /// `DRAIN NODE 'host:port'`.
    DrainNode(String),
    /// `SHOW FUNCTIONS`.
    ShowFunctions {
        /// `LIKE 'pattern'`: of their names, in any case.
        like: Option<String>,
    },
    /// `SHOW CONNECTORS`.
    ShowConnectors {
        /// `LIKE 'pattern'`: of their names, in any case.
        like: Option<String>,
    },
    /// `SHOW CREATE STREAM name`.
    ShowCreate(Name),
    /// `SHOW name`, or `SHOW ALL` for none.
    ShowSetting(Option<String>),
    /// `DESCRIBE name`.
    Describe(Name),
    /// `EXPLAIN …`.
    Explain(Explain),
    /// `PAUSE STREAM name`.
    Pause(Name),
    /// `RESUME STREAM name`.
    Resume(Name),
    /// `INSERT INTO …`.
    Insert(Box<Insert>),
    /// `DELETE …`, `UPDATE …` or `TRUNCATE …`.
    Change(Box<Change>),
    /// `SELECT …`, `VALUES …`, `WITH … SELECT …`.
    Query(Query),
    /// `COPY … TO …`. Plan it with [`crate::plan::statement_plan`].
    CopyTo(Copy),
    /// `SET name = value`.
    Set {
        /// The setting.
        name: String,
        /// Its value, without quotes.
        value: String,
    },
    /// `RESET name`, or `RESET ALL` for none.
    Reset(Option<String>),
    /// `FLUSH`.
    Flush,
    /// What is about users, rights and secrets.
    Access(AccessStatement),
    /// `BEGIN`: read so that clients that always send it can be answered.
    Begin,
    /// `COMMIT`.
    Commit,
    /// `ROLLBACK`.
    Rollback,
}

/// `COPY … TO …`.
#[derive(Clone, Debug)]
pub struct Copy {
    /// The statement, without what [`Copy::existing`] says.
    pub statement: CopyToStatement,
    /// `OVERWRITE` or `APPEND`: what becomes of files that are there.
    pub existing: Existing,
}

/// The name of a stream or view: `name` in schema `public`, or `schema.name`. Folded to lower case unless it
/// was quoted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The schema, where one was written.
    pub schema: Option<String>,
    /// The name proper.
    pub name: String,
}

/// A query with its text.
#[derive(Clone, Debug)]
pub struct Query {
    /// The query.
    pub query: Box<ast::Query>,
    /// Its text as written, without `EMIT`.
    pub text: String,
    /// `EMIT …`, where it was written.
    pub emit: Option<Emit>,
    /// What follows `EMIT CHANGES`, of a query that is followed.
    pub follow: Follow,
    /// Names for its first columns, in place of those that it gives: `CREATE STREAM s (a, b) AS`.
    pub columns: Vec<String>,
    /// Where in the script it starts.
    pub position: Option<Position>,
}

/// From where on a query is followed, and for how long: `[WITH SNAPSHOT] [SINCE EPOCH n [OF 'incarnation']] [LIMIT rows]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Follow {
    /// It begins with the present content, in one epoch.
    pub snapshot: bool,
    /// It goes on behind an epoch.
    pub since: Option<Since>,
    /// It ends after so many rows.
    pub limit: Option<u64>,
}

/// A position in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since {
    /// The last epoch that was seen.
    pub epoch: u64,
    /// Which making of the stream it is of, where that was said.
    pub incarnation: Option<String>,
}

/// When a continuous query says its results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emit {
    /// `EMIT ON WINDOW CLOSE`: each result once, when it is final.
    OnWindowClose,
    /// `EMIT CHANGES`: a changelog, per epoch.
    Changes,
    /// `EMIT EVERY interval`: a changelog at most that often.
    Every(Duration),
}

/// The word after CREATE or DROP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// `STREAM`.
    Stream,
    /// `SOURCE`: a stream with a connector.
    Source,
    /// `SINK`: a derived stream that is written out.
    Sink,
    /// `TABLE`: a stored stream, or one with a connector.
    Table,
    /// `MATERIALIZED VIEW`: a derived stream.
    MaterializedView,
    /// `VIEW`.
    View,
}

/// `CREATE STREAM …`.
#[derive(Clone, Debug)]
pub struct CreateStream {
    /// Which word was used for STREAM.
    pub kind: ObjectKind,
    /// The stream.
    pub name: Name,
    /// `OR REPLACE`.
    pub or_replace: bool,
    /// `IF NOT EXISTS`.
    pub if_not_exists: bool,
    /// The columns; none for a derived stream, and for an external one whose connector knows them.
    pub columns: Vec<ColumnDef>,
    /// `WATERMARK FOR …`.
    pub watermark: Option<Watermark>,
    /// `PRIMARY KEY (…)`, from the list or from a column.
    pub primary_key: Option<Vec<String>>,
    /// `WITH (…)`.
    pub options: BTreeMap<String, String>,
    /// `AS …`, or `FROM stream` of a sink. Its `emit` is the statement's.
    pub query: Option<Query>,
}

/// The forms of `CREATE STREAM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamForm {
    /// Read from a connector, not stored.
    External,
    /// Rows arrive by INSERT or Flight.
    Stored,
    /// A continuous query whose result is kept.
    Derived,
    /// A continuous query whose result is written to a connector.
    WrittenOut,
}

impl CreateStream {
    /// Which form this is.
    pub fn form(&self) -> StreamForm {
        match (self.query.is_some(), self.options.contains_key("connector")) {
            (false, true) => StreamForm::External,
            (false, false) => StreamForm::Stored,
            (true, false) => StreamForm::Derived,
            (true, true) => StreamForm::WrittenOut,
        }
    }

    /// `EMIT …`, where it was written.
    pub fn emit(&self) -> Option<Emit> {
        self.query.as_ref().and_then(|q| q.emit)
    }
}

/// A column.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnDef {
    /// Its name.
    pub name: String,
    /// The type as written.
    pub sql_type: ast::DataType,
    /// The type in Arrow.
    pub data_type: DataType,
    /// `NOT NULL`, or part of the primary key.
    pub not_null: bool,
    /// What of a record it is, by the connector's name for it, where it is not of the content.
    pub metadata: Option<String>,
}

impl ColumnDef {
    /// The column as an Arrow field.
    pub fn field(&self) -> Field {
        Field::new(&self.name, self.data_type.clone(), !self.not_null)
    }
}

/// `WATERMARK FOR column AS expr`.
#[derive(Clone, Debug, PartialEq)]
pub struct Watermark {
    /// The column with the event time.
    pub column: String,
    /// No row with an earlier event time is expected any more.
    pub expr: ast::Expr,
}

/// `CREATE VIEW name AS query`.
#[derive(Clone, Debug)]
pub struct CreateView {
    /// The view.
    pub name: Name,
    /// `OR REPLACE`.
    pub or_replace: bool,
    /// `IF NOT EXISTS`.
    pub if_not_exists: bool,
    /// What it stands for; it has no `emit`.
    pub query: Query,
}

/// `DROP kind name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropObject {
    /// What is said to be dropped.
    pub kind: ObjectKind,
    /// Its name.
    pub name: Name,
    /// `IF EXISTS`.
    pub if_exists: bool,
    /// `CASCADE`: also what reads it.
    pub cascade: bool,
}

/// `EXPLAIN [ANALYZE] [VERBOSE] …`.
#[derive(Clone, Debug)]
pub struct Explain {
    /// With the live (or measured) figures.
    pub analyze: bool,
    /// With all there is to say.
    pub verbose: bool,
    /// Of what.
    pub target: ExplainTarget,
}

/// What EXPLAIN explains.
#[derive(Clone, Debug)]
pub enum ExplainTarget {
    /// A query.
    Query(Query),
    /// A stream that is not created.
    CreateStream(Box<CreateStream>),
    /// A stream that there is.
    Stream(Name),
}

/// `INSERT INTO target [(columns)] source [ON CONFLICT …]`.
#[derive(Clone, Debug)]
pub struct Insert {
    /// Where the rows go.
    pub target: Name,
    /// The columns as listed; none means all.
    pub columns: Vec<String>,
    /// Where the rows come from, with its text.
    pub source: Query,
    /// The whole statement.
    pub statement: ast::Statement,
}
