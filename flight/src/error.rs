//! Errors across the wire: a gRPC status carries the kind as its code and, in its message, the place and the
//! hint, in a form that reads well in any client and that [`from_status`] takes apart again.
//!
//! ```text
//! column "pric" does not exist
//! line 1, column 8:
//! LINE 1: SELECT pric FROM bids
//!                ^
//! hint: Perhaps you meant "price".
//! ```

use arrow::error::ArrowError;
use arrow_flight::error::FlightError;
use millstream_sql::error::{Error, ErrorKind, Position};
use millstream_sql::statement::caret;
use tonic::{Code, Status};

pub use millstream_sql::Result;

/// gRPC puts messages into headers, which clients limit (8 KiB in most): longer ones would be replaced by an
/// error about headers.
const LONGEST_MESSAGE: usize = 4000;

const HINT: &str = "\nhint: ";

/// `error` as a status; `sql` is the statement that its position is about.
pub fn to_status(error: &Error, sql: Option<&str>) -> Status {
    let mut text = shortened(error.message(), LONGEST_MESSAGE / 2).to_owned();
    if let Some(Position { line, column }) = error.position() {
        text.push_str(&format!("\nline {line}, column {column}"));
        let caret = sql.and_then(|sql| caret(error, sql)).filter(|c| c.len() < LONGEST_MESSAGE / 4);
        if let Some(caret) = caret {
            text.push_str(":\n");
            text.push_str(&caret);
        }
    }
    if let Some(hint) = error.hint() {
        text.push_str(HINT);
        text.push_str(shortened(hint, LONGEST_MESSAGE / 4));
    }
    Status::new(code(error.kind()), text)
}

/// A request that nobody stands for.
pub(crate) fn unknown_caller(error: &Error) -> Status {
    let status = to_status(error, None);
    match error.kind() {
        ErrorKind::Denied => Status::unauthenticated(status.message()),
        _ => status,
    }
}

/// The error that a server meant by `status`.
pub fn from_status(status: &Status) -> Error {
    let text = status.message();
    let (text, hint) = match text.rsplit_once(HINT) {
        Some((text, hint)) => (text, Some(hint)),
        None => (text, None),
    };
    let (message, position) = match text.rsplit_once("\nline ").and_then(|(m, p)| Some((m, parse_position(p)?))) {
        Some((message, position)) => (message, Some(position)),
        None => (text, None),
    };
    // A transport error's own words ("tcp connect error") are all there is to say when the server sent none.
    let message = if message.is_empty() { status.code().description() } else { message };
    let mut error = Error::new(kind(status.code()), message);
    if let Some(hint) = hint {
        error = error.with_hint(hint);
    }
    error.or_at(position)
}

/// The error of a call to the server at `address`. A status with a cause was made here, because the connection failed; one
/// that the server sent has none.
pub(crate) fn of_call(status: &Status, address: &str) -> Error {
    let Some(cause) = std::error::Error::source(status) else { return from_status(status) };
    let mut causes = std::iter::successors(Some(cause), |cause| cause.source());
    if causes.any(|cause| cause.is::<tonic::ConnectError>()) {
        return no_answer(address, cause);
    }
    Error::new(ErrorKind::Unavailable, format!("the server at \"{address}\" has gone"))
        .with_hint("What was under way may have been done or not: look before you repeat it.")
}

/// Nobody listens at `address`.
pub(crate) fn no_answer(address: &str, cause: &(dyn std::error::Error + 'static)) -> Error {
    // The deepest cause, as "connection refused", says more than "transport error".
    let deepest = std::iter::successors(Some(cause), |cause| cause.source()).last().unwrap_or(cause);
    Error::new(ErrorKind::Unavailable, format!("no server answers at \"{address}\": {deepest}"))
        .with_hint("Start one with `millstream serve`.")
}

/// What reading a Flight stream of the server at `address` failed with.
pub(crate) fn of_stream(e: FlightError, address: &str) -> Error {
    match e {
        FlightError::Tonic(status) => of_call(&status, address),
        e => from_flight(e),
    }
}

/// What decoding a Flight stream failed with.
pub(crate) fn from_flight(e: FlightError) -> Error {
    match e {
        FlightError::Tonic(status) => from_status(&status),
        FlightError::Arrow(e) => Error::from(e),
        e => Error::new(ErrorKind::Data, e.to_string()).with_source(e),
    }
}

/// A failure to put rows or a schema into Flight messages.
pub(crate) fn encoding_failed(e: ArrowError) -> Status {
    Status::internal(format!("the result cannot be sent: {e}"))
}

fn code(kind: ErrorKind) -> Code {
    match kind {
        // Bad data came in with the request, or is what the request read: not a lost or corrupted server.
        ErrorKind::Invalid | ErrorKind::Data => Code::InvalidArgument,
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Exists => Code::AlreadyExists,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Fenced => Code::FailedPrecondition,
        ErrorKind::Exhausted => Code::ResourceExhausted,
        ErrorKind::Cancelled => Code::Cancelled,
        ErrorKind::Denied => Code::PermissionDenied,
        ErrorKind::Internal => Code::Internal,
    }
}

fn kind(code: Code) -> ErrorKind {
    match code {
        Code::InvalidArgument | Code::OutOfRange => ErrorKind::Invalid,
        Code::Unauthenticated | Code::PermissionDenied => ErrorKind::Denied,
        Code::Unimplemented => ErrorKind::Unsupported,
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::Exists,
        Code::Unavailable | Code::DeadlineExceeded | Code::Aborted | Code::Unknown => ErrorKind::Unavailable,
        Code::FailedPrecondition => ErrorKind::Fenced,
        Code::ResourceExhausted => ErrorKind::Exhausted,
        Code::Cancelled => ErrorKind::Cancelled,
        Code::DataLoss => ErrorKind::Data,
        Code::Ok | Code::Internal => ErrorKind::Internal,
    }
}

/// `3, column 8`, and perhaps `:` with the caret text.
fn parse_position(text: &str) -> Option<Position> {
    let (line, rest) = text.split_once(", column ")?;
    let column = rest.split(':').next()?;
    Some(Position { line: line.parse().ok()?, column: column.parse().ok()? })
}

fn shortened(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SQL: &str = "SELECT pric FROM bids";

    fn misspelt() -> Error {
        Error::invalid("column \"pric\" does not exist")
            .at(Position { line: 1, column: 8 })
            .with_hint("Perhaps you meant \"price\".")
    }

    #[test]
    fn a_status_says_message_place_and_hint() {
        let status = to_status(&misspelt(), Some(SQL));
        assert_eq!(status.code(), Code::InvalidArgument);
        let lines: Vec<&str> = status.message().lines().collect();
        assert_eq!(lines[0], "column \"pric\" does not exist");
        assert!(lines[1].starts_with("line 1, column 8"));
        assert_eq!(lines.last(), Some(&"hint: Perhaps you meant \"price\"."));
    }

    #[test]
    fn an_error_survives_the_way_there_and_back() {
        for sql in [Some(SQL), None] {
            let error = from_status(&to_status(&misspelt(), sql));
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert_eq!(error.message(), "column \"pric\" does not exist");
            assert_eq!(error.hint(), Some("Perhaps you meant \"price\"."));
            assert_eq!(error.position(), Some(Position { line: 1, column: 8 }));
        }
        let plain = from_status(&to_status(&Error::not_found("stream \"x\" does not exist"), None));
        assert_eq!((plain.kind(), plain.message()), (ErrorKind::NotFound, "stream \"x\" does not exist"));
        assert_eq!((plain.hint(), plain.position()), (None, None));
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let error = Error::invalid("ä".repeat(5000)).with_hint("ö".repeat(5000));
        let status = to_status(&error, None);
        assert!(status.message().len() <= LONGEST_MESSAGE);
    }

    #[test]
    fn every_kind_comes_back_but_data() {
        use ErrorKind::*;
        for k in [Invalid, Unsupported, NotFound, Exists, Unavailable, Fenced, Exhausted, Cancelled, Internal] {
            assert_eq!(kind(code(k)), k);
        }
        assert_eq!(kind(code(Data)), Invalid);
    }
}
