//! A part of a stream or view, by a condition and a number of rows that do not come as a statement.

use datafusion::sql::sqlparser::ast::SetExpr;

use super::Session;
use super::outcome::Outcome;
use crate::error::{Error, Result};
use crate::statement::{Follow, Parsed, Query, Statement, parse_condition, parse_query, quote_name};

impl Session {
    /// What `SELECT * FROM name` gives where `condition` holds, an expression as stands behind WHERE; at most `limit` rows.
    ///
    /// Errors point into the condition.
    pub async fn part(&self, name: &str, condition: Option<&str>, limit: Option<u64>) -> Result<Outcome> {
        self.execute(&part_of(name, condition, limit, "")?).await
    }

    /// The changes of `SELECT * FROM name EMIT CHANGES` where `condition` holds, followed as `follow` says.
    pub async fn part_changes(&self, name: &str, condition: Option<&str>, follow: Follow) -> Result<Outcome> {
        let mut parsed = part_of(name, condition, None, " EMIT CHANGES")?;
        if let Statement::Query(query) = &mut parsed.statement {
            query.follow = follow;
        }
        self.execute(&parsed).await
    }
}

/// The statement for it, with `behind` after the query.
fn part_of(name: &str, condition: Option<&str>, limit: Option<u64>, behind: &str) -> Result<Parsed> {
    let limit = limit.map(|n| format!(" LIMIT {n}")).unwrap_or_default();
    let text = format!("SELECT * FROM {}{limit}{behind}", quote_name(name));
    let mut query: Query = parse_query(&text)?;
    if let Some(condition) = condition {
        // It is read as an expression and put in its place, so that it cannot say anything else.
        let condition = parse_condition(condition)?;
        let SetExpr::Select(select) = query.query.body.as_mut() else {
            return Err(Error::internal("a SELECT that is none"));
        };
        select.selection = Some(condition);
        query.text = query.query.to_string();
    }
    let position = query.position.unwrap_or(crate::error::Position { line: 1, column: 1 });
    Ok(Parsed { text: query.text.clone(), statement: Statement::Query(query), position })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_an_expression_and_nothing_else() {
        let of = |condition| part_of("s", Some(condition), Some(3), "").map(|p| p.text);
        assert_eq!(of("a > 1 OR b = ';'").expect("reads"), "SELECT * FROM s WHERE a > 1 OR b = ';' LIMIT 3");
        for bad in [
            "",
            " ",
            "a > 1; DROP STREAM s",
            "a > 1 LIMIT 5",
            "a > 1) OR (b",
            "a >",
            "1 UNION SELECT 2",
            "a > 1 --\n x",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
        assert_eq!(part_of("a\"b", None, None, "").expect("reads").text, "SELECT * FROM \"a\"\"b\"");
    }
}
