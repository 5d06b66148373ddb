//! Messages to people: errors with their place and hint, notices, tags. All of it goes to stderr.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};

use millstream_sql::{Error, ErrorKind};

use crate::terminal::paint;

/// A text of statements and what to call it in messages.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// The file, for `file:line:column`.
    pub(crate) name: Option<String>,
    /// The statements.
    pub(crate) text: String,
}

/// An error of this program itself.
pub(crate) fn fail(kind: ErrorKind, message: impl Into<String>) -> Error {
    Error::new(kind, message)
}

/// An operation on a file or the terminal that failed.
pub(crate) fn io_error(what: impl fmt::Display, e: io::Error) -> Error {
    let kind = match e.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Unavailable,
    };
    fail(kind, what.to_string()).with_source(e)
}

/// Whether the reader of our output has gone away, as `head` does.
pub(crate) fn is_broken_pipe(error: &Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|e| e.downcast_ref::<io::Error>());
    cause.is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// Prints a line; a terminal that has gone away is no reason to fail.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Prints an error; `script` is what was parsed.
pub(crate) fn error(error: &Error, script: Option<&Script>) {
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    say(format_args!("{}", describe(error, script, colour)));
}

/// The error as text: `file:line:column: error: message`, the line with a caret, the cause and the hint.
pub(crate) fn describe(error: &Error, script: Option<&Script>, colour: bool) -> String {
    let mut text = String::new();
    let name = script.and_then(|s| s.name.as_deref());
    match (name, error.position()) {
        (Some(name), Some(at)) => {
            let _ = write!(text, "{name}:{}:{}: ", at.line, at.column);
        }
        (Some(name), None) => {
            let _ = write!(text, "{name}: ");
        }
        (None, _) => {}
    }
    let _ = write!(text, "{} {}", paint("error:", "1;31", colour), error.message());
    if let Some(caret) = script.and_then(|s| millstream_sql::statement::caret(error, &s.text)) {
        for line in caret.lines() {
            let _ = write!(text, "\n  {line}");
        }
    }
    if let Some(cause) = std::error::Error::source(error).map(ToString::to_string).filter(|c| !says(error.message(), c))
    {
        let _ = write!(text, "\n{} {cause}", paint("cause:", "1", colour));
    }
    if let Some(hint) = error.hint() {
        let _ = write!(text, "\n{} {hint}", paint("hint:", "1;36", colour));
    }
    text
}

/// Whether `message` says what `cause` says, maybe behind the name of its kind ("Arrow error: ").
fn says(message: &str, cause: &str) -> bool {
    let (message, cause) = (message.to_lowercase(), cause.to_lowercase());
    let cause = cause.trim_end_matches('.');
    message.contains(cause) || cause.ends_with(&format!(": {message}"))
}

/// `1234567` as `1 234 567`.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// `1 row`, `2 rows`.
pub(crate) fn rows(n: u64) -> String {
    counted(n, "row")
}

/// `1 job`, `2 jobs`.
pub(crate) fn counted(n: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(n), if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use millstream_sql::error::Position;

    use super::*;

    #[test]
    fn an_error_names_its_place_and_hint() {
        let mut e = fail(ErrorKind::NotFound, "stream \"bidz\" does not exist");
        e = e.at(Position { line: 3, column: 15 });
        e = e.with_hint("Did you mean \"bids\"?");
        let script = Script { name: Some("a.sql".into()), text: String::new() };
        assert_eq!(
            describe(&e, Some(&script), false),
            "a.sql:3:15: error: stream \"bidz\" does not exist\nhint: Did you mean \"bids\"?"
        );
        assert_eq!(describe(&e, None, false), "error: stream \"bidz\" does not exist\nhint: Did you mean \"bids\"?");
    }

    #[test]
    fn the_cause_is_shown_once() {
        let e = io_error("cannot read \"a.sql\"", io::Error::other("gone"));
        assert_eq!(describe(&e, None, false), "error: cannot read \"a.sql\"\ncause: gone");
        let again =
            fail(ErrorKind::Data, "divide by zero").with_source(io::Error::other("Arrow error: Divide by zero."));
        assert_eq!(describe(&again, None, false), "error: divide by zero");
        assert!(is_broken_pipe(&io_error("x", io::ErrorKind::BrokenPipe.into())));
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1 234 567");
        assert_eq!(rows(1), "1 row");
    }
}
