//! The one error type of this crate.
//!
//! The kind says what a caller can do next; the message names the object and says what is wrong
//! (lowercase, no full stop); the hint is a sentence that says what to write instead.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The request is wrong: change it.
    Invalid,
    /// The request is understood and cannot be done: write it another way.
    Unsupported,
    /// The named object does not exist.
    NotFound,
    /// The named object exists already.
    Exists,
    /// Something outside (a file, a server, the store) did not answer: try again later.
    Unavailable,
    /// Another process owns what this one tried to write.
    Fenced,
    /// Input bytes or stored bytes are not what they should be.
    Data,
    /// A limit (memory, disk) was reached: raise it or ask for less.
    Exhausted,
    /// The query was cancelled.
    Cancelled,
    /// Who asks may not: log in, or have the right granted.
    Denied,
    /// A defect of Millstream.
    Internal,
}

/// An error with its kind, message, hint and cause.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync + 'static>>,
    lost: Option<Box<str>>,
}

/// The result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), hint: None, source: None, lost: None }
    }

    /// The request is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// The request cannot be done.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// The named object does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// The outside did not answer.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// Bytes are not what they should be.
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    /// A defect of Millstream.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Adds the sentence that says what to write instead.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// It comes of the node at `address`, whose work can be done elsewhere: it is not there any more, if the kind is `Unavailable`,
    /// else it is not fit for that work.
    #[must_use]
    pub fn of_lost_node(mut self, address: &str) -> Self {
        self.lost = Some(address.into());
        self
    }

    /// Puts `context: ` before the message.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// The same error for one more who waits, without its cause.
    #[must_use]
    pub fn again(&self) -> Self {
        let (message, hint, lost) = (self.message.clone(), self.hint.clone(), self.lost.clone());
        Error { kind: self.kind, message, hint, source: None, lost }
    }

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message, without the hint.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The node without which it would not have come, if there is one.
    pub fn lost_node(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// The hint, if there is one.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(e: arrow::error::ArrowError) -> Self {
        full_disk(&e).unwrap_or_else(|| Error::data(e.to_string())).with_source(e)
    }
}

impl From<&datafusion_common::DataFusionError> for Error {
    fn from(e: &datafusion_common::DataFusionError) -> Self {
        let kind = match e.find_root() {
            datafusion_common::DataFusionError::NotImplemented(_) => ErrorKind::Unsupported,
            datafusion_common::DataFusionError::ResourcesExhausted(_) => ErrorKind::Exhausted,
            datafusion_common::DataFusionError::Internal(_) => ErrorKind::Internal,
            datafusion_common::DataFusionError::Plan(_) | datafusion_common::DataFusionError::SchemaError(_, _) => {
                ErrorKind::Invalid
            }
            _ => ErrorKind::Data,
        };
        Error::new(kind, e.find_root().strip_backtrace())
    }
}

impl From<datafusion_common::DataFusionError> for Error {
    fn from(e: datafusion_common::DataFusionError) -> Self {
        full_disk(&e).unwrap_or_else(|| Error::from(&e)).with_source(e)
    }
}

impl From<parquet::errors::ParquetError> for Error {
    fn from(e: parquet::errors::ParquetError) -> Self {
        full_disk(&e).unwrap_or_else(|| Error::data(e.to_string())).with_source(e)
    }
}

impl From<object_store::Error> for Error {
    fn from(e: object_store::Error) -> Self {
        let kind = match &e {
            object_store::Error::NotFound { .. } => ErrorKind::NotFound,
            object_store::Error::AlreadyExists { .. } => ErrorKind::Exists,
            _ => ErrorKind::Unavailable,
        };
        full_disk(&e).unwrap_or_else(|| Error::new(kind, deepest(&e))).with_source(e)
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        let kind = match e.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => ErrorKind::Data,
            _ => ErrorKind::Unavailable,
        };
        full_disk(&e).unwrap_or_else(|| Error::new(kind, e.to_string())).with_source(e)
    }
}

impl From<serde_json::Error> for Error {
    fn from(e: serde_json::Error) -> Self {
        Error::data(e.to_string()).with_source(e)
    }
}

/// What to say where a full disk is below `e`, however many layers took it for something of their own.
fn full_disk(e: &(dyn std::error::Error + 'static)) -> Option<Error> {
    let mut at = Some(e);
    while let Some(e) = at {
        let kind = e.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if let Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) = kind {
            let full = Error::new(ErrorKind::Exhausted, "no space left on the disk");
            return Some(full.with_hint("Make room on it, or write to another one."));
        }
        // An IO error may be made of another error, which it does not call its source.
        let inner = e.downcast_ref::<std::io::Error>().and_then(|e| e.get_ref());
        at = inner.map(|e| e as &(dyn std::error::Error + 'static)).or_else(|| e.source());
    }
    None
}

/// The message of the innermost cause after the outer one, so that "no space left on device" is seen.
fn deepest(e: &dyn std::error::Error) -> String {
    let mut last = e;
    while let Some(next) = last.source() {
        last = next;
    }
    let (outer, inner) = (e.to_string(), last.to_string());
    if outer.contains(&inner) { outer } else { format!("{outer}: {inner}") }
}
