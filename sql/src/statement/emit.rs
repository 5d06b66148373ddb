//! `EMIT ON WINDOW CLOSE | CHANGES | EVERY interval`.

use std::time::Duration;

use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::Emit;
use super::parser::StatementParser;
use crate::error::{Error, Result};

const FORMS: &str = "Write EMIT ON WINDOW CLOSE, EMIT CHANGES, or EMIT EVERY INTERVAL '10 seconds'.";

impl StatementParser<'_> {
    /// Reads `EMIT …`, if it is there.
    pub(super) fn emit(&mut self) -> Result<Option<Emit>> {
        if !self.word("EMIT") {
            return self.refuse_late_to().map(|()| None);
        }
        let form = self.position();
        let emit = if self.words(&["ON", "WINDOW", "CLOSE"]) {
            Emit::OnWindowClose
        } else if self.word("CHANGES") {
            Emit::Changes
        } else if self.word("EVERY") {
            let at = self.position();
            let every = self.parser.parse_expr()?;
            Emit::Every(length(&every).map_err(|e| e.or_at(at))?)
        } else {
            let error = match &self.parser.peek_token_ref().token {
                Token::EOF => Error::invalid("syntax error at end of input: EMIT what?"),
                token => Error::unsupported(format!("EMIT {} is not supported", token.to_string().to_uppercase())),
            };
            return Err(error.with_hint(FORMS).or_at(form));
        };
        self.refuse_late_to()?;
        self.refuse_clause_after()?;
        Ok(Some(emit))
    }

    fn refuse_clause_after(&mut self) -> Result<()> {
        let at = self.position();
        let clauses = ["WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "OFFSET", "FETCH", "UNION", "EXCEPT", "INTERSECT"];
        let Some(clause) = clauses.into_iter().find(|c| self.word(c)) else { return Ok(()) };
        let error = Error::invalid(format!("syntax error at or near \"{clause}\": EMIT is followed by a clause"));
        Err(error.with_hint(format!("EMIT comes last: write {clause} … before it.")).or_at(at))
    }

    fn refuse_late_to(&mut self) -> Result<()> {
        let at = self.position();
        if !self.words(&["LATE", "TO"]) {
            return Ok(());
        }
        let error = Error::unsupported("LATE TO is not supported")
            .with_hint("Leave it out: late rows are dropped and counted; EXPLAIN ANALYZE STREAM shows how many.");
        Err(error.or_at(at))
    }
}

/// A length of time written as an interval or as text.
fn length(expr: &ast::Expr) -> Result<Duration> {
    let wrong = || {
        Error::invalid(format!("EMIT EVERY needs a length of time, not {expr}"))
            .with_hint("Write it like EMIT EVERY INTERVAL '10 seconds'.")
    };
    let text = match expr {
        ast::Expr::Interval(interval) => {
            let ast::Expr::Value(value) = interval.value.as_ref() else { return Err(wrong()) };
            let number = match &value.value {
                ast::Value::Number(number, _) => number.to_string(),
                ast::Value::SingleQuotedString(text) => text.clone(),
                _ => return Err(wrong()),
            };
            match &interval.leading_field {
                Some(unit) => format!("{number} {unit}"),
                None => number,
            }
        }
        ast::Expr::Value(value) => match &value.value {
            ast::Value::SingleQuotedString(text) => text.clone(),
            _ => return Err(wrong()),
        },
        _ => return Err(wrong()),
    };
    let interval = parse_interval_month_day_nano(&text).map_err(|_| wrong())?;
    if interval.months != 0 {
        return Err(Error::invalid("EMIT EVERY cannot count months, which differ in length")
            .with_hint("Write the length in days or less."));
    }
    let nanos = i128::from(interval.days) * 86_400_000_000_000 + i128::from(interval.nanoseconds);
    match u64::try_from(nanos) {
        Ok(nanos) if nanos > 0 => Ok(Duration::from_nanos(nanos)),
        _ => Err(Error::invalid("EMIT EVERY needs a length of time above zero")),
    }
}
