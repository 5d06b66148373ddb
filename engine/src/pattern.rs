//! Patterns of names, of files and of objects in buckets.

use glob::PatternError;

use crate::error::Error;

/// What a pattern has that a plain name has not.
pub(crate) const SPECIAL: [char; 3] = ['*', '?', '['];

/// `text` is no pattern.
pub(crate) fn no_pattern(text: &str, why: &PatternError) -> Error {
    Error::invalid(format!("\"{text}\" is not a pattern: {}", why.msg))
        .with_hint("Use *, ?, [abc] and ** (folders at any depth).")
}
