//! Where in a query a clause stands that was refused once it was planned: a plan has no places.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::Query;
use super::dialect::StreamDialect;
use super::words::is_word;
use crate::error::Position;

impl Query {
    /// Where the clause stands that `message` begins with; where the query does if it is not found, as it may be in
    /// a view.
    pub(crate) fn place_of(&self, message: &str) -> Option<Position> {
        let start = self.position?;
        let tokens = Tokenizer::new(&StreamDialect, &self.text).tokenize_with_location().ok()?;
        let tokens: Vec<_> = tokens.into_iter().filter(|t| !matches!(t.token, Token::Whitespace(_))).collect();
        let found = clause(message).and_then(|words| find(&tokens, words));
        Some(found.and_then(|token| Position::from_location(token.span.start)).map_or(start, |at| match at.line {
            1 => Position { line: start.line, column: start.column + at.column - 1 },
            line => Position { line: start.line + line - 1, column: at.column },
        }))
    }
}

/// Ways to write a clause, by how its message begins.
fn clause(message: &str) -> Option<&'static [&'static [&'static str]]> {
    const CLAUSES: [(&str, &[&[&str]]); 15] = [
        ("JOIN", &[&["JOIN"], &["FROM"]]),
        ("OVER", &[&["OVER"]]),
        ("ORDER BY", &[&["ORDER", "BY"]]),
        ("LIMIT", &[&["LIMIT"], &["OFFSET"]]),
        ("DISTINCT ON", &[&["DISTINCT", "ON"]]),
        ("INTERSECT", &[&["INTERSECT"]]),
        ("EXCEPT", &[&["EXCEPT"]]),
        ("IN (SELECT", &[&["IN", "("]]),
        ("EXISTS", &[&["EXISTS"]]),
        ("ANY or ALL", &[&["ANY", "("], &["ALL", "("], &["SOME", "("]]),
        ("a subquery as a value", &[&["(", "SELECT"]]),
        ("UNNEST", &[&["UNNEST"]]),
        ("WITH RECURSIVE", &[&["WITH", "RECURSIVE"]]),
        ("now()", &[&["NOW"]]),
        ("current_", &[&["CURRENT_TIMESTAMP"], &["CURRENT_DATE"], &["CURRENT_TIME"]]),
    ];
    let grouping: &[&[&str]] = &[&["ROLLUP"], &["CUBE"], &["GROUPING", "SETS"]];
    let known = CLAUSES.iter().find(|(begin, _)| message.starts_with(begin)).map(|(_, words)| *words);
    known.or_else(|| ["ROLLUP", "GROUPING SETS", "CUBE"].iter().any(|w| message.contains(w)).then_some(grouping))
}

/// The first of `ways` that is there: outside parentheses, or else anywhere.
fn find<'a>(tokens: &'a [TokenWithSpan], ways: &[&[&str]]) -> Option<&'a TokenWithSpan> {
    let is = |i: usize, word: &str| match (tokens.get(i).map(|t| &t.token), word) {
        (Some(token), "(") => *token == Token::LParen,
        (Some(token), word) => is_word(token, word),
        (None, _) => false,
    };
    let starts = |i: usize, words: &[&str]| words.iter().enumerate().all(|(n, word)| is(i + n, word));
    for words in ways {
        let mut depth = 0_i32;
        let mut inside = None;
        for (i, token) in tokens.iter().enumerate() {
            if starts(i, words) {
                if depth == 0 {
                    return Some(token);
                }
                inside = inside.or(Some(token));
            }
            match token.token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
        }
        if inside.is_some() {
            return inside;
        }
    }
    None
}
