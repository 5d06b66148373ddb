//! `PARTITION BY` among the arguments of `SESSION`, which sqlparser does not read there.
//!
//! ```text
//! SESSION(t, ts, INTERVAL '1 hour', PARTITION BY a, b)                     SESSION(t, ts, INTERVAL '1 hour', partition => (a, b))
//! SESSION(TABLE t PARTITION BY a, DESCRIPTOR(ts), INTERVAL '1' HOUR)  ->  SESSION(TABLE t, DESCRIPTOR(ts), …, partition => (a))
//! ```

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::words::is_word;

/// Makes each `PARTITION BY` in a `SESSION(…)` the last of its arguments, by name.
pub(super) fn partition_last(tokens: &mut Vec<TokenWithSpan>) {
    let mut at = 0;
    while at + 1 < tokens.len() {
        if is_word(&tokens[at].token, "SESSION")
            && tokens[at + 1].token == Token::LParen
            && let Some((by, close)) = partition_in(tokens, at + 2)
        {
            rewrite(tokens, by, close);
        }
        at += 1;
    }
}

/// Where `PARTITION BY` stands among the arguments that begin at `from`, and where these end.
fn partition_in(tokens: &[TokenWithSpan], from: usize) -> Option<(usize, usize)> {
    let (mut depth, mut by) = (0, None);
    for (at, token) in tokens.iter().enumerate().skip(from) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 0 => return by.map(|by| (by, at)),
            Token::RParen => depth -= 1,
            _ => {}
        }
        let next = tokens.get(at + 1).is_some_and(|t| is_word(&t.token, "BY"));
        if depth == 0 && by.is_none() && next && is_word(&token.token, "PARTITION") {
            by = Some(at);
        }
    }
    None
}

/// The arguments end at `close`; `PARTITION BY` stands at `by`.
fn rewrite(tokens: &mut Vec<TokenWithSpan>, by: usize, close: usize) {
    let (mut end, mut depth) = (by + 2, 0);
    // What is named, and Flink's DESCRIPTOR(…), is the next argument.
    while end < close {
        let next = |n: usize| tokens.get(end + n).map(|t| &t.token);
        match tokens[end].token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            Token::Comma if depth == 0 => {
                let named = matches!(next(2), Some(Token::RArrow | Token::Assignment));
                let described = next(1).is_some_and(|t| is_word(t, "DESCRIPTOR")) && next(2) == Some(&Token::LParen);
                if named || described {
                    break;
                }
            }
            _ => {}
        }
        end += 1;
    }
    let span = tokens[by].span;
    let new = |token: Token| TokenWithSpan { token, span };
    let word = Token::make_word("partition", None);
    let wrapped = tokens[by + 2].token == Token::LParen && tokens[end - 1].token == Token::RParen;
    let mut argument = vec![new(Token::Comma), new(word), new(Token::RArrow)];
    argument.extend((!wrapped).then(|| new(Token::LParen)));
    argument.extend(tokens[by + 2..end].iter().cloned());
    argument.extend((!wrapped).then(|| new(Token::RParen)));
    tokens.splice(close..close, argument);
    // A comma before it goes with it.
    let from = if tokens[by - 1].token == Token::Comma { by - 1 } else { by };
    tokens.drain(from..end);
}
