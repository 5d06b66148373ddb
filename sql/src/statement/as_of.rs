//! `ASOF LEFT JOIN`: sqlparser (0.62) reads `ASOF JOIN` alone.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use super::words::is_word;

/// Makes `GLOBAL ASOF JOIN` of `ASOF LEFT [OUTER] JOIN`, which nobody may write and the parser keeps apart, and `ASOF JOIN` of
/// `ASOF INNER JOIN`.
pub(super) fn asof_kinds(tokens: &mut Vec<TokenWithSpan>) {
    let is = |tokens: &[TokenWithSpan], at: usize, word: &str| tokens.get(at).is_some_and(|t| is_word(&t.token, word));
    let mut at = 0;
    while at < tokens.len() {
        // `t AS asof LEFT JOIN u` has no condition of its own.
        let names = at > 0 && (is(tokens, at - 1, "AS") || tokens[at - 1].token == Token::Period);
        let has_condition = || (at..tokens.len()).any(|of| is(tokens, of, "MATCH_CONDITION"));
        if !is(tokens, at, "ASOF") || names || !has_condition() {
            at += 1;
            continue;
        }
        if at > 0 && is(tokens, at - 1, "GLOBAL") {
            // A global join is one that is refused.
            tokens.remove(at);
        } else if is(tokens, at + 1, "INNER") && is(tokens, at + 2, "JOIN") {
            tokens.remove(at + 1);
        } else if is(tokens, at + 1, "LEFT") {
            let outer = is(tokens, at + 2, "OUTER");
            if is(tokens, at + 2 + usize::from(outer), "JOIN") {
                if outer {
                    tokens.remove(at + 2);
                }
                tokens.swap(at, at + 1);
                let word = Word { value: "GLOBAL".to_owned(), quote_style: None, keyword: Keyword::GLOBAL };
                tokens[at].token = Token::Word(word);
                at += 1;
            }
        }
        at += 1;
    }
}
