//! The one error type of this crate: PostgreSQL's manner, with the place in the script.
//!
//! The message is lowercase and names the object in double quotes; the hint is a sentence that says what
//! to write instead; the position is where in the script, so that a shell can point at it.

mod wording;

use std::fmt;
use std::sync::Arc;

use datafusion::common::{DataFusionError, SchemaError};
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::Location;

use millstream_engine::nearest::nearest;

use crate::quote::quote_name;
use wording::{Worded, reword};

pub use millstream_engine::ErrorKind;

/// A place in a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
}

impl Position {
    /// The parser marks places that it does not know with line 0.
    pub(crate) fn from_location(location: Location) -> Option<Self> {
        (location.line > 0).then_some(Position { line: location.line, column: location.column })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// An error with its kind, message, hint, place and cause.
#[derive(Debug)]
pub struct Error {
    // Boxed: results are returned by value through every planning function.
    inner: Box<Inner>,
}

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    position: Option<Position>,
    source: Option<Box<dyn std::error::Error + Send + Sync + 'static>>,
}

/// The result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let inner = Inner { kind, message: message.into(), hint: None, position: None, source: None };
        Error { inner: Box::new(inner) }
    }

    /// The request is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// The request is understood and cannot be done.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// The named object does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// The named object exists already.
    pub fn exists(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Exists, message)
    }

    /// A defect of Millstream.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Adds the sentence that says what to write instead.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.inner.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.inner.source = Some(Box::new(source));
        self
    }

    /// Without its place, which is in another text than the one that is looked at.
    #[must_use]
    pub(crate) fn elsewhere(mut self) -> Self {
        self.inner.position = None;
        self
    }

    /// Says where in the script.
    #[must_use]
    pub fn at(mut self, position: Position) -> Self {
        self.inner.position = Some(position);
        self
    }

    /// Says where in the script, unless a closer place is known or there is none to say.
    #[must_use]
    pub fn or_at(mut self, position: Option<Position>) -> Self {
        self.inner.position = self.inner.position.or(position);
        self
    }

    /// Puts `context: ` before the message.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.inner.message = format!("{context}: {}", self.inner.message);
        self
    }

    /// The same error for one more who waits, without its cause.
    #[must_use]
    pub fn again(&self) -> Self {
        let again = Error::new(self.kind(), self.message()).or_at(self.position());
        match self.hint() {
            Some(hint) => again.with_hint(hint),
            None => again,
        }
    }

    /// The same for the engine, to whom positions say nothing, without its cause.
    #[must_use]
    pub fn to_engine(&self) -> millstream_engine::Error {
        let told = millstream_engine::Error::new(self.kind(), self.message());
        match self.hint() {
            Some(hint) => told.with_hint(hint),
            None => told,
        }
    }

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// The message, without the hint.
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// The hint, if there is one.
    pub fn hint(&self) -> Option<&str> {
        self.inner.hint.as_deref()
    }

    /// The place in the script, if it is known.
    pub fn position(&self) -> Option<Position> {
        self.inner.position
    }

    /// The line of `sql` that the error is about with a `^` under the place:
    ///
    /// ```text
    /// LINE 2: FROM bidz
    ///              ^
    /// ```
    pub(crate) fn caret(&self, sql: &str) -> Option<String> {
        let position = self.position()?;
        let line = sql.lines().nth(usize::try_from(position.line.checked_sub(1)?).ok()?)?;
        let label = format!("LINE {}: ", position.line);
        let before = line.chars().take(usize::try_from(position.column.checked_sub(1)?).ok()?);
        // Tabs stay tabs, so that the caret stands right whatever their width is.
        let indent: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        Some(format!("{label}{line}\n{}{indent}^", " ".repeat(label.len())))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source.as_deref().map(|e| e as _)
    }
}

impl From<millstream_engine::Error> for Error {
    fn from(e: millstream_engine::Error) -> Self {
        let Worded { message, hint } = reword(e.message());
        let says_the_same = e.message().ends_with(message.as_str());
        let mut error = Error::new(e.kind(), message);
        error.inner.hint = e.hint().map(str::to_owned).or(hint);
        // In other words it would be told twice.
        if says_the_same { error.with_source(e) } else { error }
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(e: arrow::error::ArrowError) -> Self {
        millstream_engine::Error::from(e).into()
    }
}

/// For code that DataFusion calls: the error comes back whole through `From<DataFusionError>`.
impl From<Error> for DataFusionError {
    fn from(e: Error) -> Self {
        DataFusionError::External(Box::new(e))
    }
}

impl From<ParserError> for Error {
    fn from(e: ParserError) -> Self {
        let text = match &e {
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.clone(),
            ParserError::RecursionLimitExceeded => "statement nests too deeply".to_owned(),
        };
        let (text, position) = lift_position(&text);
        Error::invalid(syntax_message(&text)).or_at(position)
    }
}

impl From<DataFusionError> for Error {
    fn from(e: DataFusionError) -> Self {
        match e {
            DataFusionError::SQL(e, _) => Error::from(*e),
            DataFusionError::External(e) => from_external(e),
            DataFusionError::ObjectStore(e) => Error::from(millstream_engine::Error::from(*e)),
            // What several partitions of a plan are told.
            DataFusionError::Shared(e) => Arc::try_unwrap(e).map_or_else(|e| from_shared(&e), Error::from),
            DataFusionError::Diagnostic(diagnostic, e) => {
                let span = diagnostic.span.map(|span| Position { line: span.start.line, column: span.start.column });
                Error::from(*e).or_at(span)
            }
            DataFusionError::Context(context, e) => from_context(&context, *e),
            DataFusionError::Collection(mut all) if !all.is_empty() => Error::from(all.swap_remove(0)),
            DataFusionError::SchemaError(e, backtrace) => {
                schema_error(&e).unwrap_or_else(|| from_plain(DataFusionError::SchemaError(e, backtrace)))
            }
            e => from_plain(e),
        }
    }
}

/// An error that others hold, too: without its cause.
fn from_shared(e: &DataFusionError) -> Error {
    match e {
        DataFusionError::Shared(e) => from_shared(e),
        DataFusionError::Context(_, e) | DataFusionError::Diagnostic(_, e) => from_shared(e),
        DataFusionError::External(e) => match (e.downcast_ref::<Error>(), e.downcast_ref::<millstream_engine::Error>())
        {
            (Some(e), _) => e.again(),
            (_, Some(e)) => Error::from(e.again()),
            _ => Error::new(ErrorKind::Data, e.to_string()),
        },
        e => plain(millstream_engine::Error::from(e)),
    }
}

fn from_external(e: Box<dyn std::error::Error + Send + Sync>) -> Error {
    let e = match e.downcast::<Error>() {
        Ok(e) => return *e,
        Err(e) => e,
    };
    match e.downcast::<millstream_engine::Error>() {
        Ok(e) => Error::from(*e),
        Err(e) => {
            let mut error = Error::new(ErrorKind::Data, e.to_string());
            error.inner.source = Some(e);
            error
        }
    }
}

/// DataFusion's contexts name its own rules and files. Those help only whoever mends a defect.
fn from_context(context: &str, e: DataFusionError) -> Error {
    let error = Error::from(e);
    if error.kind() == ErrorKind::Internal { error.context(context) } else { error }
}

/// What DataFusion says, in our words, with a lowercase start.
/// What to do where a statement does not fit into the budget.
const MORE_MEMORY: &str =
    "Raise it with SET memory_limit = '8GB', or let the statement hold less: filter or aggregate before a join.";

fn from_plain(e: DataFusionError) -> Error {
    // The engine's conversion owns the mapping from variants to kinds.
    plain(millstream_engine::Error::from(e))
}

fn plain(engine: millstream_engine::Error) -> Error {
    let message = engine.message();
    let message = message.strip_prefix("Resources exhausted: ").unwrap_or(message);
    let Worded { message, hint } = reword(message);
    let mut error = Error::new(engine.kind(), lower_first(&message));
    let hint = hint.or_else(|| message.starts_with("out of memory: ").then(|| MORE_MEMORY.to_owned()));
    error.inner.hint = engine.hint().map(str::to_owned).or(hint);
    error
}

/// What is wrong with a column, in our words.
fn schema_error(e: &SchemaError) -> Option<Error> {
    Some(match e {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let names: Vec<_> = valid_fields.iter().map(|c| c.name.as_str()).collect();
            let error = Error::not_found(format!("column \"{}\" does not exist", field.flat_name()));
            match &field.relation {
                Some(table) if !valid_fields.iter().any(|c| c.relation.as_ref() == Some(table)) => {
                    error.with_hint(format!("There is no \"{table}\" in FROM, and no column of that name with fields."))
                }
                _ => match column_hint(&field.name, &names) {
                    Some(hint) => error.with_hint(hint),
                    None => error,
                },
            }
        }
        SchemaError::AmbiguousReference { field } => {
            let name = &field.name;
            Error::invalid(format!("column \"{name}\" is ambiguous: several tables have one"))
                .with_hint(format!("Write whose it is: a.{}.", quote_name(name)))
        }
        SchemaError::DuplicateQualifiedField { qualifier, .. } => {
            Error::invalid(format!("two tables are called \"{qualifier}\""))
                .with_hint(format!("Give one of them another name: FROM {qualifier} AS b."))
        }
        SchemaError::DuplicateUnqualifiedField { name } => {
            Error::invalid(format!("column \"{name}\" is there more than once"))
        }
    })
}

/// What may have been meant by the column `name`, or which there are, where they are few enough to be read.
fn column_hint(name: &str, names: &[&str]) -> Option<String> {
    let spelt = names.iter().find(|n| n.eq_ignore_ascii_case(name));
    if let Some(spelt) = spelt {
        return Some(match quote_name(spelt) {
            // Quotes keep the case of a name: it is small letters without.
            plain if plain == **spelt => format!("Write {plain} without quotes: its letters are small."),
            quoted => format!("Write {quoted} with the quotes: a name without is read in small letters."),
        });
    }
    if let Some(near) = nearest(name, names.iter().copied()) {
        return Some(format!("Did you mean {}?", quote_name(near)));
    }
    let mut seen = std::collections::HashSet::new();
    let all: Vec<_> = names.iter().filter(|n| seen.insert(**n)).map(|n| quote_name(n)).collect();
    (!all.is_empty() && all.len() <= 20).then(|| format!("The columns are: {}.", all.join(", ")))
}

/// Splits ` at Line: 1, Column: 15` from the end of a parser's message.
fn lift_position(text: &str) -> (String, Option<Position>) {
    let read = |rest: &str| {
        let (line, column) = rest.split_once(", Column: ")?;
        Some(Position { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? })
    };
    match text.rsplit_once(" at Line: ") {
        Some((before, rest)) => (before.trim_end().to_owned(), read(rest)),
        None => (text.to_owned(), None),
    }
}

/// `Expected: ), found: x` in PostgreSQL's words.
fn syntax_message(text: &str) -> String {
    let text = text.trim_start_matches("sql parser error: ").trim_end_matches('.');
    let Some((expected, found)) = text.strip_prefix("Expected: ").and_then(|t| t.rsplit_once(", found: ")) else {
        return lower_first(text);
    };
    match found.trim() {
        "EOF" => format!("syntax error at end of input: expected {expected}"),
        found => format!("syntax error at or near \"{found}\": expected {expected}"),
    }
}

/// Lowercases the first letter unless the word is an acronym or a name in capitals.
fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if first.is_uppercase() && !second.is_uppercase() => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parse_error_gives_up_its_position() {
        let e = Error::from(ParserError::ParserError("Expected: ), found: x at Line: 2, Column: 15".to_owned()));
        assert_eq!(e.message(), "syntax error at or near \"x\": expected )");
        assert_eq!(e.position(), Some(Position { line: 2, column: 15 }));
    }

    #[test]
    fn an_error_of_ours_comes_back_whole_through_datafusion() {
        let ours = Error::unsupported("no").with_hint("Do.").at(Position { line: 3, column: 4 });
        let back = Error::from(DataFusionError::from(ours).context("in a rule"));
        assert_eq!((back.kind(), back.message(), back.hint()), (ErrorKind::Unsupported, "no", Some("Do.")));
        assert_eq!(back.position(), Some(Position { line: 3, column: 4 }));
    }

    #[test]
    fn an_error_that_partitions_share_keeps_its_words() {
        let ours = || DataFusionError::from(Error::not_found("no file").with_hint("Make it."));
        let shared = Arc::new(ours());
        let both =
            [DataFusionError::Shared(shared.clone()), DataFusionError::Shared(Arc::new(ours().context("a rule")))];
        for e in both.map(Error::from) {
            assert_eq!((e.kind(), e.message(), e.hint()), (ErrorKind::NotFound, "no file", Some("Make it.")));
        }
        drop(shared);
    }

    #[test]
    fn the_caret_stands_under_the_place() {
        let e = Error::invalid("no").at(Position { line: 2, column: 6 });
        assert_eq!(e.caret("SELECT *\nFROM bidz").as_deref(), Some("LINE 2: FROM bidz\n             ^"));
        assert_eq!(e.caret("one line"), None);
    }

    #[test]
    fn plan_errors_lose_their_label() {
        let e = Error::from(DataFusionError::Plan("Table not found.".to_owned()));
        assert_eq!((e.kind(), e.message()), (ErrorKind::Invalid, "table not found"));
    }
}
