//! The error type of this crate.

use std::fmt;

pub use millstream_engine::ErrorKind;

/// A place in a script, both 1-based.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

/// An error of SQL: see [`millstream_engine::Error`].
#[derive(Debug)]
pub struct Error {
    /// What a caller can do.
    pub kind: ErrorKind,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
    /// Where.
    pub position: Option<Position>,
    /// The cause.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The source line with a caret under the place, for `sql`, the text that was parsed.
    pub fn caret(&self, _sql: &str) -> Option<String> {
        None
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
