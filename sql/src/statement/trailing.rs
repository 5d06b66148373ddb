//! Options behind the query of a CREATE, where other systems have them.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::words::is_word;

/// `CREATE … AS SELECT … WITH (…)`: sqlparser would take a trailing WITH for a hint of the last table, so it is
/// moved to where CREATE STREAM has it, before AS (or FROM, of a sink).
pub(super) fn trailing_options_first(tokens: &mut [TokenWithSpan]) {
    let Some(first) = tokens.first() else { return };
    if !is_word(&first.token, "CREATE") && !is_word(&first.token, "EXPLAIN") {
        return;
    }
    let mut depth = 0;
    let (mut body, mut with, mut close) = (None, None, None);
    for (i, token) in tokens.iter().enumerate() {
        let opens = tokens.get(i + 1).is_some_and(|t| t.token == Token::LParen);
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ if depth > 0 => continue,
            Token::Word(_) if body.is_none() && (is_word(&token.token, "AS") || is_word(&token.token, "FROM")) => {
                body = Some(i);
            }
            Token::Word(_) if opens && body.is_some() && is_word(&token.token, "WITH") => {
                (with, close) = (Some(i), None)
            }
            _ => {}
        }
        if depth == 0 && token.token == Token::RParen && with.is_some() && close.is_none() {
            close = Some(i);
        }
    }
    let (Some(body), Some(with), Some(close)) = (body, with, close) else { return };
    let last = tokens.get(close + 1).is_none_or(|t| is_word(&t.token, "EMIT"));
    if last {
        tokens[body..=close].rotate_left(with - body);
    }
}
