//! Case files: queries with a name each.
//!
//! ```text
//! # what it is about, which is its name
//! SELECT … FROM bids …
//!
//! # the next one
//! SELECT … EMIT CHANGES
//! ```
//! A blank line ends a case. A query without EMIT runs as it is, and once more with EMIT CHANGES where that is
//! another thing.

use std::path::Path;

use millstream_sql::statement::{Query, Statement, parse};

use crate::Result;

/// A query to check.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it is about.
    pub name: String,
    /// The query.
    pub query: Query,
}

/// The cases of file `name` in `tests/sql`.
pub fn cases(name: &str) -> Result<Vec<Case>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql").join(name);
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let wanted = std::env::var("MILLSTREAM_CASE").unwrap_or_default();
    let blocks = text.split("\n\n").map(str::trim).filter(|b| !b.is_empty());
    let all = blocks.map(case).collect::<Result<Vec<_>>>()?;
    Ok(all.into_iter().filter(|c| c.name.contains(&wanted)).collect())
}

fn case(block: &str) -> Result<Case> {
    let (title, sql): (Vec<&str>, Vec<&str>) = block.lines().partition(|l| l.starts_with('#'));
    let name = title.iter().map(|l| l.trim_start_matches('#').trim()).collect::<Vec<_>>().join(" ");
    Ok(Case { query: query(&sql.join("\n")).map_err(|e| format!("case \"{name}\": {e}"))?, name })
}

/// A single query with its EMIT.
pub fn query(sql: &str) -> Result<Query> {
    match parse(sql)?.pop().map(|p| p.statement) {
        Some(Statement::Query(query)) => Ok(query),
        _ => Err("this is not a query".into()),
    }
}
