//! A rough reading of SQL text: enough to see where a statement ends, which words are names, and whether a
//! statement reads results. It never fails; the real parser is in `millstream_sql::statement`.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A keyword or a bare name.
    Word,
    /// A number.
    Number,
    /// A string literal.
    Text,
    /// A name in double quotes.
    Name,
    /// A comment.
    Comment,
    /// White space.
    Space,
    /// Anything else, one character.
    Symbol,
}

/// A piece of the text; pieces follow each other without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    /// What it is.
    pub(crate) kind: Kind,
    /// Its text.
    pub(crate) text: &'a str,
    /// Where it begins, in bytes.
    pub(crate) start: usize,
    /// Whether it ends; a string whose quote is missing does not.
    pub(crate) closed: bool,
}

impl Token<'_> {
    /// Whether it is the keyword `word`, in any case.
    pub(crate) fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    /// Whether it means something to the parser.
    pub(crate) fn counts(&self) -> bool {
        !matches!(self.kind, Kind::Space | Kind::Comment)
    }

    /// The name it spells: bare names are folded to lower case.
    pub(crate) fn name(&self) -> Option<String> {
        match self.kind {
            Kind::Word => Some(self.text.to_lowercase()),
            Kind::Name => Some(self.text.trim_matches('"').replace("\"\"", "\"")),
            _ => None,
        }
    }
}

/// The tokens of `sql`.
pub(crate) fn tokens(sql: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut start = 0;
    while let Some(rest) = sql.get(start..).filter(|rest| !rest.is_empty()) {
        let (kind, length, closed) = next(rest);
        let text = rest.get(..length).unwrap_or(rest);
        found.push(Token { kind, text, start, closed });
        start += text.len();
    }
    found
}

/// The kind of the token at the start of `rest` (not empty), its length in bytes, and whether it is closed.
fn next(rest: &str) -> (Kind, usize, bool) {
    let first = rest.chars().next().unwrap_or(' ');
    let run = |accept: fn(char) -> bool| rest.find(|c| !accept(c)).unwrap_or(rest.len());
    if first.is_whitespace() {
        (Kind::Space, run(char::is_whitespace), true)
    } else if rest.starts_with("--") {
        (Kind::Comment, rest.find('\n').unwrap_or(rest.len()), true)
    } else if rest.starts_with("/*") {
        let (length, closed) = block_comment(rest);
        (Kind::Comment, length, closed)
    } else if first == '\'' {
        let (length, closed) = quoted(rest, '\'', false);
        (Kind::Text, length, closed)
    } else if rest.starts_with("E'") || rest.starts_with("e'") {
        let (length, closed) = quoted(rest.get(1..).unwrap_or(""), '\'', true);
        (Kind::Text, length + 1, closed)
    } else if first == '"' {
        let (length, closed) = quoted(rest, '"', false);
        (Kind::Name, length, closed)
    } else if let Some((length, closed)) = dollar_quoted(rest) {
        (Kind::Text, length, closed)
    } else if first.is_ascii_digit() {
        (Kind::Number, run(|c| c.is_alphanumeric() || c == '.' || c == '_'), true)
    } else if is_word(first) {
        (Kind::Word, run(|c| is_word(c) || c == '$'), true)
    } else {
        (Kind::Symbol, first.len_utf8(), true)
    }
}

/// Whether `c` may stand in a bare name.
pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn quoted(rest: &str, quote: char, backslashes: bool) -> (usize, bool) {
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if backslashes && c == '\\' {
            chars.next();
        } else if c == quote {
            if chars.peek().is_some_and(|(_, next)| *next == quote) {
                chars.next();
            } else {
                return (at + c.len_utf8(), true);
            }
        }
    }
    (rest.len(), false)
}

/// Comments nest, as in PostgreSQL.
fn block_comment(rest: &str) -> (usize, bool) {
    let mut depth = 0;
    let bytes = rest.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes.get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") if depth == 1 => return (at + 2, true),
            Some(b"*/") => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    (rest.len(), false)
}

/// `$$ … $$` or `$tag$ … $tag$`.
fn dollar_quoted(rest: &str) -> Option<(usize, bool)> {
    let inner = rest.strip_prefix('$')?;
    let tag = inner.find('$')?;
    let name = inner.get(..tag)?;
    if !name.chars().all(is_word) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (open, body) = (rest.get(..tag + 2)?, rest.get(tag + 2..)?);
    Some(match body.find(open) {
        Some(at) => (open.len() + at + open.len(), true),
        None => (rest.len(), false),
    })
}

/// Whether what is typed can be executed: nothing at all, or statements of which the last ends with `;`.
pub(crate) fn is_complete(sql: &str) -> bool {
    let tokens = tokens(sql);
    if tokens.iter().any(|t| !t.closed) {
        return false;
    }
    tokens.iter().rev().find(|t| t.counts()).is_none_or(|t| t.text == ";")
}

/// Whether a statement reads results that have to be complete: a SELECT that ends, or a COPY.
pub(crate) fn reads_results(statement: &str) -> bool {
    let tokens: Vec<_> = tokens(statement).into_iter().filter(Token::counts).collect();
    let Some(first) = tokens.iter().find(|t| t.text != "(") else { return false };
    if first.is("COPY") {
        return true;
    }
    ["SELECT", "WITH", "VALUES", "TABLE", "FROM"].iter().any(|word| first.is(word)) && !emits(&tokens)
}

/// Whether a query has an EMIT clause, and so goes on.
pub(crate) fn emits(tokens: &[Token<'_>]) -> bool {
    let tokens = tokens.iter().filter(|t| t.counts()).collect::<Vec<_>>();
    tokens.windows(2).any(|pair| match pair {
        [emit, then] => emit.is("EMIT") && ["CHANGES", "EVERY", "ON"].iter().any(|word| then.is(word)),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_cover_the_text() {
        for sql in [
            "SELECT 'it''s', \"a\"\"b\" -- c\n/* x /* y */ z */ , $$ ; $$, E'\\';' , 1.5e3 <> é;",
            "'open",
            "/* open",
            "$tag$ open $$",
            "$1 + $2",
            "日本 ",
        ] {
            let found = tokens(sql);
            assert_eq!(found.iter().map(|t| t.text).collect::<String>(), sql);
        }
    }

    #[test]
    fn a_statement_ends_with_a_semicolon_outside_of_quotes() {
        for complete in ["", "  ", "-- nothing\n", "SELECT 1;", "SELECT ';' ; -- done", "a; b;", "SELECT E'\\'';"] {
            assert!(is_complete(complete), "{complete}");
        }
        for open in ["SELECT 1", "SELECT ';", "SELECT 1; SELECT", "SELECT 1 -- ;", "SELECT $$ ; ", "/* ;"] {
            assert!(!is_complete(open), "{open}");
        }
    }

    #[test]
    fn what_reads_results_waits_for_them() {
        for sql in [
            "SELECT 1",
            "-- x\n(select 1) UNION (select 2)",
            "with a as (select 1) select * from a",
            "COPY (SELECT * FROM t) TO 'x.csv'",
            "VALUES (1)",
            "SELECT emit FROM t",
        ] {
            assert!(reads_results(sql), "{sql}");
        }
        for sql in [
            "SELECT * FROM t EMIT CHANGES",
            "CREATE STREAM a AS SELECT 1",
            "INSERT INTO t SELECT 1",
            "SET a = 1",
            "",
            "EXPLAIN SELECT 1",
            "SELECT * FROM t EMIT EVERY INTERVAL '1 second'",
        ] {
            assert!(!reads_results(sql), "{sql}");
        }
    }

    #[test]
    fn names_fold_unless_quoted() {
        let names: Vec<_> = tokens("Bids \"Bids\"").iter().filter_map(Token::name).collect();
        assert_eq!(names, ["bids", "Bids"]);
    }
}
