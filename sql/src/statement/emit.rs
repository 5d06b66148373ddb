//! `EMIT ON WINDOW CLOSE | CHANGES | EVERY interval`, and how a query is followed.

use std::time::Duration;

use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::parser::StatementParser;
use super::{Emit, Follow, Since};
use crate::error::{Error, Result};

const FORMS: &str = "Write EMIT ON WINDOW CLOSE, EMIT CHANGES, or EMIT EVERY INTERVAL '10 seconds'.";

impl StatementParser<'_> {
    /// Reads `EMIT …`, if it is there, of a query that is not followed.
    pub(super) fn emit(&mut self) -> Result<Option<Emit>> {
        let at = self.position();
        let (emit, follow) = self.emit_follow()?;
        if follow == Follow::default() {
            return Ok(emit);
        }
        let error = Error::invalid(format!("EMIT CHANGES{follow} is for a SELECT that is followed"));
        Err(error.with_hint("Write EMIT CHANGES alone here: a stream begins with all that its sources have.").or_at(at))
    }

    /// Reads `EMIT …`, if it is there, and what says how the query is followed.
    pub(super) fn emit_follow(&mut self) -> Result<(Option<Emit>, Follow)> {
        let emit = self.emit_alone()?;
        let follow = if emit == Some(Emit::Changes) { self.follow()? } else { Follow::default() };
        if emit.is_some() {
            self.refuse_late_to()?;
            self.refuse_clause_after()?;
        }
        Ok((emit, follow))
    }

    /// `[WITH SNAPSHOT] [SINCE EPOCH n [OF 'incarnation']] [LIMIT rows]`.
    fn follow(&mut self) -> Result<Follow> {
        let mut follow = Follow { snapshot: self.words(&["WITH", "SNAPSHOT"]), ..Follow::default() };
        let at = self.position();
        if self.words(&["SINCE", "EPOCH"]) {
            let epoch = self.parser.parse_literal_uint()?;
            let incarnation = if self.word("OF") { Some(self.parser.parse_literal_string()?) } else { None };
            follow.since = Some(Since { epoch, incarnation });
        }
        if follow.snapshot && follow.since.is_some() {
            let error = Error::invalid("WITH SNAPSHOT and SINCE EPOCH: a query begins anew or goes on, not both");
            return Err(error.with_hint("Leave one of them out.").or_at(at));
        }
        if self.word("LIMIT") {
            let at = self.position();
            let limit = self.parser.parse_literal_uint()?;
            if limit == 0 {
                return Err(Error::invalid("LIMIT 0 follows nothing")
                    .with_hint("Write how many rows to wait for.")
                    .or_at(at));
            }
            follow.limit = Some(limit);
        }
        Ok(follow)
    }

    fn emit_alone(&mut self) -> Result<Option<Emit>> {
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
