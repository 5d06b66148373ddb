//! `millstream export`: a stream to a file.

use std::process::ExitCode;

use millstream_sql::catalog::is_store;
use millstream_sql::{ErrorKind, Result};

use crate::args::ExportArgs;
use crate::backend::{Backend, Embedded};
use crate::output::Format;
use crate::report::Script;
use crate::{config, lex, report, run};

/// Writes the stream to the file.
pub(crate) async fn run(store: Option<String>, args: ExportArgs) -> Result<ExitCode> {
    let script = Script { name: None, text: statement(&args.stream, &args.file)? };
    let store = existing(config::store(store)).await?;
    let backend = Embedded::open(config::engine(store, &args.engine)?).await?;
    run::execute_and_close(&backend as &dyn Backend, &[script], Format::Table).await
}

/// `store`, if there is one: an export from a new store would find nothing.
async fn existing(store: String) -> Result<String> {
    if is_store(&store).await? {
        return Ok(store);
    }
    let e = report::fail(ErrorKind::NotFound, format!("there is no store at \"{store}\""));
    Err(e.with_hint("Name its folder or URL with --store or in MILLSTREAM_STORE."))
}

/// The COPY statement; the extension decides the format.
fn statement(stream: &str, file: &str) -> Result<String> {
    let known = [".parquet", ".csv", ".json", ".ndjson", ".jsonl"];
    let lower = file.to_lowercase();
    if !known.iter().any(|ending| lower.ends_with(ending)) && !file.ends_with('/') {
        let e = report::fail(ErrorKind::Invalid, format!("the format of \"{file}\" is not known"));
        return Err(e.with_hint("End the name with .parquet, .csv or .json, or with / for a folder of Parquet files."));
    }
    Ok(format!("COPY (SELECT * FROM {}) TO '{}'", quoted(stream), file.replace('\'', "''")))
}

/// The name as SQL: as it is where it can stand so (`hot`, `millstream.dead_letters`, `"Hot"`), else in quotes.
pub(crate) fn quoted(name: &str) -> String {
    let bare = |part: &str| {
        part.chars().all(|c| lex::is_word(c) && !c.is_uppercase()) && !part.starts_with(|c: char| c.is_ascii_digit())
    };
    if name.starts_with('"') || (!name.is_empty() && name.split('.').all(|part| !part.is_empty() && bare(part))) {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn export_is_a_copy() {
        assert_eq!(statement("hot", "it's.csv").unwrap(), "COPY (SELECT * FROM hot) TO 'it''s.csv'");
        assert_eq!(statement("Hot Items", "a.parquet").unwrap(), "COPY (SELECT * FROM \"Hot Items\") TO 'a.parquet'");
        assert_eq!(statement("hot", "a.xls").unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn names_are_quoted_where_they_must_be() {
        assert_eq!(quoted("millstream.dead_letters"), "millstream.dead_letters");
        assert_eq!(quoted("Hot"), "\"Hot\"");
        assert_eq!(quoted("\"Hot\""), "\"Hot\"");
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
        assert_eq!(quoted("1a"), "\"1a\"");
    }
}
