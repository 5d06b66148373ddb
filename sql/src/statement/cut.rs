//! Statements as they may be kept and shown: without what they say of passwords and secrets.

use std::borrow::Cow;
use std::ops::Range;

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use millstream_engine::options::{SECRET, tells_login, tells_secret};

use super::dialect::StreamDialect;
use super::source::Source;
use super::words::is_word;
use crate::error::Error;

/// The longest text that is read for what to cut.
const LONGEST: usize = 1 << 20;
/// What stands in the place of what is cut.
const CUT: &str = "'***'";

/// `text`, one statement or several, with `'***'` for passwords, secrets, and the values of options whose names tell of
/// such. Text that cannot be read is cut off where it begins to speak of them.
pub fn cut_secrets(text: &str) -> Cow<'_, str> {
    if !speaks_of_secrets(text) {
        return Cow::Borrowed(text);
    }
    // A token takes many times the memory of its text.
    let short = (text.len() <= LONGEST).then(|| Tokenizer::new(&StreamDialect, text).tokenize_with_location().ok());
    let Some(tokens) = short.flatten() else {
        let at = first_word(text).filter(|_| !tells_login(text)).unwrap_or(0);
        return Cow::Owned(format!("{} {CUT}", text[..at].trim_end()).trim_start().to_owned());
    };
    let tokens: Vec<_> = tokens.into_iter().filter(|t| !matches!(t.token, Token::Whitespace(_))).collect();
    let source = Source::new(text);
    let mut cut = String::with_capacity(text.len());
    let mut end = 0;
    for Range { start, end: to } in tokens.split(|t| t.token == Token::SemiColon).flat_map(secrets) {
        let bytes = source.bytes(start.span, to.span);
        cut.push_str(text.get(end..bytes.start).unwrap_or_default());
        cut.push_str(CUT);
        end = bytes.end;
    }
    if end == 0 {
        return Cow::Borrowed(text);
    }
    cut.push_str(text.get(end..).unwrap_or_default());
    Cow::Owned(cut)
}

/// As `Error::caret`, unless the line that it would show tells a secret.
pub fn caret(error: &Error, sql: &str) -> Option<String> {
    let caret = error.caret(sql)?;
    match cut_secrets(sql) {
        Cow::Borrowed(_) => Some(caret),
        Cow::Owned(cut) => {
            let (_, line) = caret.lines().next()?.split_once(": ")?;
            cut.lines().any(|shown| shown == line).then_some(caret)
        }
    }
}

/// The first and the last tokens of each secret of a statement.
fn secrets(statement: &[TokenWithSpan]) -> Vec<Range<&TokenWithSpan>> {
    let is = |at: usize, word: &str| statement.get(at).is_some_and(|t| is_word(&t.token, word));
    let begin = |at: usize| statement.get(at).zip(statement.last()).map(|(start, end)| start..end);
    let verb = if is(1, "OR") && is(2, "REPLACE") { 3 } else { 1 };
    // All behind the name: what is not as it should be may be the secret.
    if (is(0, "CREATE") || is(0, "ALTER")) && is(verb, "USER") {
        let word = (verb + 2..statement.len()).find(|at| is(*at, "PASSWORD")).map_or(verb + 2, |at| at + 1);
        return begin(word).into_iter().collect();
    }
    if is(0, "CREATE") && is(verb, "SECRET") {
        let name = verb + 2;
        return begin(if is(name, "AS") { name + 1 } else { name }).into_iter().collect();
    }
    let mut found = vec![];
    for (at, token) in statement.iter().enumerate() {
        if matches!(&token.token, Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) if tells_login(text))
        {
            found.push(token..token);
            continue;
        }
        let name = match &token.token {
            Token::Word(word) => &word.value,
            Token::SingleQuotedString(name) => name,
            _ => continue,
        };
        let value = if matches!(statement.get(at + 1).map(|t| &t.token), Some(Token::Eq)) { at + 2 } else { at + 1 };
        let Some(literal) = statement.get(value).filter(|_| tells_secret(name)) else { continue };
        match &literal.token {
            Token::SingleQuotedString(text) if !text.starts_with(SECRET) && !tells_login(text) => {
                found.push(literal..literal);
            }
            Token::EscapedStringLiteral(text) if tells_login(text) => {}
            Token::EscapedStringLiteral(_) | Token::NationalStringLiteral(_) | Token::DollarQuotedString(_) => {
                found.push(literal..literal);
            }
            Token::Number(..) if value == at + 2 => found.push(literal..literal),
            _ => {}
        }
    }
    found
}

fn speaks_of_secrets(text: &str) -> bool {
    tells_login(text) || first_word(text).is_some()
}

/// Where the first word stands that tells of a secret.
fn first_word(text: &str) -> Option<usize> {
    let is_in_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut at = 0;
    for word in text.split(|c| !is_in_word(c)) {
        let is_user = word.eq_ignore_ascii_case("user");
        if tells_secret(word) || is_user {
            return Some(at);
        }
        // One separator, of as many bytes as it has.
        at += word.len() + text[at + word.len()..].chars().next().map_or(0, char::len_utf8);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Position;

    #[test]
    fn secrets_are_cut() {
        let table = [
            ("CREATE USER bob PASSWORD 'hunter2'", "CREATE USER bob PASSWORD '***'"),
            ("create user bob password 'it''s hunter2';", "create user bob password '***';"),
            ("ALTER USER bob PASSWORD  'hunter2' ; SELECT 'a'", "ALTER USER bob PASSWORD  '***' ; SELECT 'a'"),
            ("CREATE USER bob PASSWORD hunter2 x", "CREATE USER bob PASSWORD '***'"),
            ("CREATE USER bob 'hunter2'", "CREATE USER bob '***'"),
            ("CREATE SECRET k AS 'hunter2'", "CREATE SECRET k AS '***'"),
            ("CREATE OR REPLACE SECRET k AS 'hunter2'", "CREATE OR REPLACE SECRET k AS '***'"),
            ("CREATE SECRET k = 'hunter2'", "CREATE SECRET k '***'"),
            (
                "CREATE STREAM ü WITH (url = 'x', Password = 'hunter2', \"sasl.password\" = 'hunter2', api_token = 'secret:k') AS SELECT 1",
                "CREATE STREAM ü WITH (url = 'x', Password = '***', \"sasl.password\" = '***', api_token = 'secret:k') AS SELECT 1",
            ),
            ("CREATE STREAM s WITH (password 'hunter2')", "CREATE STREAM s WITH (password '***')"),
            ("CREATE STREAM s WITH (password = 12345)", "CREATE STREAM s WITH (password = '***')"),
            ("CREATE STREAM s WITH (password = E'hunter2')", "CREATE STREAM s WITH (password = '***')"),
            ("SELECT 1; CREATE USER bob PASSWORD 'hunter2", "SELECT 1; CREATE '***'"),
            ("CREATE SECRET k AS $hunter2", "CREATE SECRET k AS '***'"),
            (
                "CREATE STREAM s WITH (url = 'http://ann:hunter2@h/x', path = 'a')",
                "CREATE STREAM s WITH (url = '***', path = 'a')",
            ),
            ("SELECT password, token FROM t WHERE user = 'a'", "SELECT password, token FROM t WHERE user = 'a'"),
            ("SELECT 'a'", "SELECT 'a'"),
            ("DROP USER bob", "DROP USER bob"),
            ("CREATE USER bob", "CREATE USER bob"),
        ];
        for (text, cut) in table {
            assert_eq!(cut_secrets(text), cut);
            assert!(!cut_secrets(text).contains("hunter2"));
        }
    }

    #[test]
    fn the_line_of_an_error_is_shown_unless_it_tells_a_secret() {
        let script = "CREATE SECRET k AS 'hunter2';\nSELECT nope";
        let at = |line| Error::invalid("x").or_at(Some(Position { line, column: 8 }));
        assert_eq!(caret(&at(1), script), None);
        assert_eq!(caret(&at(2), script).unwrap(), "LINE 2: SELECT nope\n               ^");
    }
}
