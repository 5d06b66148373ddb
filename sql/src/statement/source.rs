//! The script as text and tokens: statements apart, places to slices of the text.

use std::ops::Range;

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer, Whitespace};

use super::depth::refuse_too_deep;
use super::dialect::StreamDialect;
use crate::error::{Error, Position, Result};

/// The text of a script with its lines.
pub(crate) struct Source<'a> {
    text: &'a str,
    line_starts: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        Source { text, line_starts: std::iter::once(0).chain(breaks).collect() }
    }

    /// The statements' tokens, without white space, comments and the `;` between.
    pub(crate) fn statements(&self) -> Result<Vec<Vec<TokenWithSpan>>> {
        let tokens = Tokenizer::new(&StreamDialect, self.text).tokenize_with_location().map_err(|e| {
            let position = Position::from_location(e.location);
            Error::invalid(e.message.to_lowercase()).or_at(position)
        })?;
        refuse_hints(&tokens)?;
        let tokens: Vec<_> = tokens.into_iter().filter(|t| !matches!(t.token, Token::Whitespace(_))).collect();
        let mut statements = Vec::new();
        for statement in tokens.split(|t| t.token == Token::SemiColon) {
            if !statement.is_empty() {
                refuse_too_deep(statement)?;
                statements.push(row_types_as_structs(brackets_apart(statement)));
            }
        }
        Ok(statements)
    }

    /// The text from the start of one token to the end of another.
    pub(crate) fn slice(&self, first: Span, last: Span) -> &'a str {
        self.text.get(self.bytes(first, last)).unwrap_or_default().trim()
    }

    /// Where in the text that is.
    pub(crate) fn bytes(&self, first: Span, last: Span) -> Range<usize> {
        self.byte(first.start)..self.byte(last.end)
    }

    fn byte(&self, at: Location) -> usize {
        let index = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).saturating_sub(1);
        let Some(&start) = self.line_starts.get(index(at.line)) else { return self.text.len() };
        let line = &self.text[start..];
        line.char_indices().nth(index(at.column)).map_or(self.text.len(), |(i, _)| start + i)
    }
}

/// Comments are ignored, so one that is meant to say something must not be.
fn refuse_hints(tokens: &[TokenWithSpan]) -> Result<()> {
    for token in tokens {
        if let Token::Whitespace(Whitespace::MultiLineComment(text)) = &token.token
            && text.starts_with('+')
        {
            let error = Error::unsupported("optimizer hints (/*+ … */) are not supported")
                .with_hint("Write options in WITH (…), or start the comment with a space.");
            return Err(error.or_at(Position::from_location(token.span.start)));
        }
    }
    Ok(())
}

/// `>>` before `[]` as two tokens: the parser would give the list to the inner type, and `STRUCT<a STRUCT<b INT>>[]`
/// would be a struct with a list instead of a list of structs.
fn brackets_apart(tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let mut apart = Vec::with_capacity(tokens.len());
    for (i, token) in tokens.iter().enumerate() {
        let next = |n: usize| tokens.get(i + n).map(|t| &t.token);
        if token.token == Token::ShiftRight && next(1) == Some(&Token::LBracket) && next(2) == Some(&Token::RBracket) {
            let Span { start, end } = token.span;
            let middle = Location { column: start.column + 1, ..start };
            apart.push(TokenWithSpan { token: Token::Gt, span: Span { start, end: middle } });
            apart.push(TokenWithSpan { token: Token::Gt, span: Span { start: middle, end } });
        } else {
            apart.push(token.clone());
        }
    }
    apart
}

/// Flink's `ROW<a INT>` is a struct. `row < a` stays a comparison: in a type, a name and a type follow.
fn row_types_as_structs(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    for i in 0..tokens.len().saturating_sub(3) {
        let [row, less, name, kind] = &mut tokens[i..i + 4] else { continue };
        let Token::Word(row) = &mut row.token else { continue };
        let Token::Word(kind) = &kind.token else { continue };
        let in_type = less.token == Token::Lt && matches!(name.token, Token::Word(_)) && is_type_word(kind.keyword);
        if row.keyword == Keyword::ROW && row.quote_style.is_none() && in_type {
            row.value = "STRUCT".to_owned();
            row.keyword = Keyword::STRUCT;
        }
    }
    tokens
}

fn is_type_word(keyword: Keyword) -> bool {
    use Keyword::*;
    matches!(
        keyword,
        TINYINT
            | SMALLINT
            | INT
            | INTEGER
            | BIGINT
            | INT2
            | INT4
            | INT8
            | REAL
            | FLOAT
            | FLOAT4
            | FLOAT8
            | DOUBLE
            | DECIMAL
            | NUMERIC
            | DEC
            | BOOLEAN
            | BOOL
            | TEXT
            | STRING
            | VARCHAR
            | CHAR
            | CHARACTER
            | BYTEA
            | BYTES
            | VARBINARY
            | BINARY
            | DATE
            | TIME
            | TIMESTAMP
            | TIMESTAMPTZ
            | TIMESTAMP_NTZ
            | INTERVAL
            | ARRAY
            | STRUCT
            | ROW
            | MAP
            | UUID
            | JSON
    )
}
