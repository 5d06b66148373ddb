//! How deep a statement may get.
//!
//! Parentheses are bounded by the parser. Operators in a row are not: `1 + 1 + …` is a tree as deep as it is long, and so
//! is a row of UNION or JOIN. Such trees are copied, compared, printed and dropped level by level, on the stack of a
//! thread, whose end would be that of the process.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::{Error, Position, Result};

/// Operators in a row.
const MOST: usize = 10_000;

/// The stack of threads that work on statements: enough for as many levels as there may be. What is not used costs nothing.
pub const STACK: usize = 128 << 20;

/// What is between two parentheses.
#[derive(Default)]
struct Level {
    /// The tokens of the expression that is being read: an operator and an operand each, at least.
    tokens: usize,
    /// Queries and tables in a row.
    joined: usize,
}

/// Refuses a statement that would be too deep.
pub(super) fn refuse_too_deep(tokens: &[TokenWithSpan]) -> Result<()> {
    let mut levels = vec![Level::default()];
    for token in tokens {
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => levels.push(Level::default()),
            Token::RParen | Token::RBracket | Token::RBrace if levels.len() > 1 => drop(levels.pop()),
            _ => {}
        }
        let Some(level) = levels.last_mut() else { return Ok(()) };
        match &token.token {
            Token::Comma => level.tokens = 0,
            Token::Word(word) if ends_expression(word.keyword) => level.tokens = 0,
            Token::Word(word) if joins(word.keyword) => (level.tokens, level.joined) = (0, level.joined + 1),
            _ => level.tokens += 1,
        }
        if level.tokens > 2 * MOST || level.joined > MOST {
            let error = Error::unsupported(format!("more than {MOST} operators follow each other")).with_hint(
                "Put the values into a stream and compute over its rows: sum(a), string_agg(a, ''), a IN (…).",
            );
            return Err(error.or_at(Position::from_location(token.span.start)));
        }
    }
    Ok(())
}

fn ends_expression(keyword: Keyword) -> bool {
    use Keyword::{ELSE, FROM, GROUP, HAVING, LIMIT, ON, ORDER, SELECT, THEN, VALUES, WHEN, WHERE};
    matches!(keyword, ELSE | FROM | GROUP | HAVING | LIMIT | ON | ORDER | SELECT | THEN | VALUES | WHEN | WHERE)
}

fn joins(keyword: Keyword) -> bool {
    matches!(keyword, Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT | Keyword::JOIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::parse;

    fn repeated(first: &str, more: &str, times: usize, last: &str) -> String {
        format!("{first}{}{last}", more.repeat(times))
    }

    #[test]
    fn what_is_long_and_not_deep_is_taken() {
        for sql in [
            repeated("SELECT 1", ", a + 1", 3 * MOST, " FROM t"),
            repeated("SELECT CASE", " WHEN a = 1 THEN 2", 3 * MOST, " END FROM t"),
            repeated("INSERT INTO t VALUES (1)", ", (1)", 3 * MOST, ""),
            repeated("SELECT a IN (1", ", 2", 3 * MOST, ") FROM t"),
            repeated("SELECT 1", " + 1", 300, ""),
        ] {
            assert!(parse(&sql).is_ok(), "{:.40}", sql);
        }
    }

    #[test]
    fn what_is_too_deep_is_refused() {
        for sql in [
            repeated("SELECT 1", " + 1", 3 * MOST, ""),
            repeated("SELECT a = 1", " OR a = 1", 3 * MOST, " FROM t"),
            repeated("SELECT (1", "::INT", 3 * MOST, ")"),
            repeated("SELECT 1", " UNION ALL SELECT 1", 3 * MOST, ""),
            repeated("SELECT * FROM t", " JOIN t ON true", 3 * MOST, ""),
        ] {
            let e = parse(&sql).expect_err("too deep");
            assert!(e.message().contains("operators follow each other"), "{e}");
        }
    }
}
