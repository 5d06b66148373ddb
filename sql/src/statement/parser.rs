//! The parser: dispatches on the first words, reads the statements that are Millstream's, and gives queries
//! to DataFusion's parser.

use std::borrow::Cow;

use datafusion::sql::parser::{CopyToSource, DFParserBuilder, Statement as DfStatement};
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan, Word};
use millstream_engine::connector::file::export::Existing;
use millstream_engine::nearest::nearest;

use super::check::{check_condition, check_insert, check_parts, check_query_in, known_form};
use super::cut::cut_secrets;
use super::dialect::StreamDialect;
use super::display::fold;
use super::source::Source;
use super::tokens::put_for_the_parser;
use super::words::{is_keyword, is_word};
use super::{
    Change, Copy, DropObject, Explain, ExplainTarget, Follow, Insert, Name, ObjectKind, Parsed, Query, Statement,
};
use crate::error::{Error, Position, Result};

/// Reads a script: statements with `;` between them, comments anywhere.
pub fn parse(sql: &str) -> Result<Vec<Parsed>> {
    let source = Source::new(sql);
    source.statements()?.into_iter().map(|tokens| StatementParser::new(&source, tokens)?.parse_all()).collect()
}

/// Reads one query, as for a view's text.
pub fn parse_query(sql: &str) -> Result<Query> {
    let mut statements = parse(sql)?;
    match (statements.pop(), statements.is_empty()) {
        (Some(Parsed { statement: Statement::Query(query), .. }), true) => Ok(query),
        (Some(parsed), true) => Err(Error::invalid("a query is expected").at(parsed.position)),
        _ => Err(Error::invalid("one query is expected")),
    }
}

/// Reads a condition, as stands behind WHERE, and nothing else.
pub fn parse_condition(sql: &str) -> Result<ast::Expr> {
    let source = Source::new(sql);
    let mut statements = source.statements()?;
    match (statements.pop(), statements.is_empty()) {
        (Some(tokens), true) => StatementParser::new(&source, tokens)?.condition(),
        (None, _) => Err(Error::invalid("the condition is empty")),
        _ => Err(Error::invalid("one condition is expected").with_hint("Leave out the semicolon.")),
    }
}

/// Reads one statement.
pub(super) struct StatementParser<'a> {
    pub(super) parser: Parser<'static>,
    source: &'a Source<'a>,
    tokens: Vec<TokenWithSpan>,
    first: Span,
    last: Span,
}

impl<'a> StatementParser<'a> {
    fn new(source: &'a Source<'a>, mut tokens: Vec<TokenWithSpan>) -> Result<Self> {
        let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else {
            return Err(Error::invalid("the statement is empty"));
        };
        let (first, last) = (first.span, last.span);
        put_for_the_parser(&mut tokens);
        let parser = Parser::new(&StreamDialect).with_tokens_with_locations(tokens.clone());
        Ok(StatementParser { parser, source, tokens, first, last })
    }

    fn parse_all(mut self) -> Result<Parsed> {
        let text = self.source.slice(self.first, self.last).to_owned();
        let start = Position::from_location(self.first.start);
        // An error without a place is about what comes after the last token.
        let end = Position::from_location(self.last.end);
        let result = self.statement().and_then(|statement| self.end().map(|()| statement));
        let statement = result.map_err(|e| {
            if e.message().starts_with("syntax error")
                && let Some(known) = known_form(&self.tokens)
            {
                return known;
            }
            let at_end = e.message().starts_with("syntax error at end of input");
            without_secrets(e, &text).or_at(if at_end { end } else { start })
        })?;
        Ok(Parsed { statement, text, position: start.unwrap_or(Position { line: 1, column: 1 }) })
    }

    fn condition(mut self) -> Result<ast::Expr> {
        let condition = self.parser.parse_expr()?;
        if self.parser.peek_token_ref().token != Token::EOF {
            return self.expected("the end of the condition");
        }
        check_condition(&condition, &self.tokens)?;
        Ok(condition)
    }

    fn end(&mut self) -> Result<()> {
        if self.parser.peek_token_ref().token == Token::EOF { Ok(()) } else { self.expected("end of statement") }
    }

    fn statement(&mut self) -> Result<Statement> {
        let keyword = match &self.parser.peek_token_ref().token {
            Token::LParen => return Ok(Statement::Query(self.query_follow()?)),
            Token::Word(Word { quote_style: None, value, .. }) => value.to_uppercase(),
            _ => return self.expected("a statement"),
        };
        if matches!(keyword.as_str(), "SELECT" | "WITH" | "VALUES" | "FROM" | "TABLE") {
            return Ok(Statement::Query(self.query_follow()?));
        }
        match keyword.as_str() {
            "INSERT" => return self.insert(),
            "DELETE" | "UPDATE" | "TRUNCATE" => {
                let statement = self.parser.parse_statement()?;
                return Ok(Statement::Change(Box::new(Change::read(statement, &self.tokens)?)));
            }
            "COPY" => return self.copy(),
            _ => {}
        }
        let at = self.position();
        self.parser.next_token();
        if let Some(access) = self.access(&keyword)? {
            return Ok(Statement::Access(access));
        }
        match keyword.as_str() {
            "CREATE" => self.create(),
            "DROP" => self.drop_object(),
            "SHOW" => self.show(),
            "DESCRIBE" | "DESC" => self.describe(),
            "EXPLAIN" => self.explain(),
            "PAUSE" => self.named(&["STREAM"]).map(Statement::Pause),
            "RESUME" => self.named(&["STREAM"]).map(Statement::Resume),
            "SET" => self.set(),
            "RESET" => self.reset(),
            "FLUSH" => Ok(Statement::Flush),
            "DRAIN" => self.drain(),
            "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" => self.transaction(&keyword),
            _ => Err(unknown(&keyword).or_at(at)),
        }
    }

    /// A query with its text, checked, without `EMIT`.
    pub(super) fn query(&mut self) -> Result<Query> {
        let first = self.parser.peek_token_ref().span;
        let query = self.parser.parse_query()?;
        let last = self.parser.get_current_token().span;
        check_query_in(&query, &self.tokens)?;
        let text = self.source.slice(first, last).to_owned();
        Ok(Query {
            query,
            text,
            emit: None,
            follow: Follow::default(),
            columns: vec![],
            position: Position::from_location(first.start),
        })
    }

    pub(super) fn query_emit(&mut self) -> Result<Query> {
        let query = self.query()?;
        Ok(Query { emit: self.emit()?, ..query })
    }

    /// A query that may be followed.
    fn query_follow(&mut self) -> Result<Query> {
        let query = self.query()?;
        let (emit, follow) = self.emit_follow()?;
        Ok(Query { emit, follow, ..query })
    }

    fn insert(&mut self) -> Result<Statement> {
        let statement = self.parser.parse_statement()?;
        let ast::Statement::Insert(insert) = &statement else { return self.expected("INSERT INTO") };
        check_insert(insert)?;
        let ast::TableObject::TableName(target) = &insert.table else { return self.expected("a stream's name") };
        let target = Name::from_object_name(target)?;
        let columns =
            insert.columns.iter().map(|c| Name::from_object_name(c).map(|n| n.name)).collect::<Result<_>>()?;
        let query = insert.source.clone().ok_or_else(|| {
            Error::invalid(format!("insert into \"{target}\" has no rows")).with_hint("Add VALUES (…) or SELECT ….")
        })?;
        check_parts(&statement, &self.tokens)?;
        let text = self.source.slice(self.insert_source(), self.parser.get_current_token().span).to_owned();
        let source =
            Query { query, text, emit: self.emit()?, follow: Follow::default(), columns: vec![], position: None };
        let insert = Insert { target, columns, source, statement };
        insert.conflict()?;
        Ok(Statement::Insert(Box::new(insert)))
    }

    /// Where the rows of an INSERT start: the syntax tree has no place for VALUES.
    fn insert_source(&self) -> Span {
        let starts = |t: &TokenWithSpan| ["SELECT", "VALUES", "WITH", "FROM"].iter().any(|w| is_word(&t.token, w));
        let mut depth = 0;
        for (i, token) in self.tokens.iter().enumerate() {
            match token.token {
                Token::LParen if depth == 0 && self.tokens.get(i + 1).is_some_and(starts) => return token.span,
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ if depth == 0 && i > 2 && starts(token) => return token.span,
                _ => {}
            }
        }
        self.first
    }

    fn copy(&mut self) -> Result<Statement> {
        let at = self.position();
        let inside = "Read files with CREATE STREAM … WITH (connector = 'file', path = '…').";
        if self.tokens.iter().any(|t| is_keyword(&t.token, Keyword::FROM)) && !self.has_top_level(Keyword::TO) {
            return Err(Error::unsupported("COPY … FROM is not supported").with_hint(inside).or_at(at));
        }
        let (tokens, existing) = self.without_existing()?;
        let mut df = DFParserBuilder::new(tokens).with_dialect(&StreamDialect).build()?;
        let DfStatement::CopyTo(copy) = df.parse_statement()? else { return self.expected("COPY … TO") };
        if let CopyToSource::Query(query) = &copy.source {
            check_query_in(query, &self.tokens)?;
        }
        // DataFusion's parser has read up to the end.
        while self.parser.next_token().token != Token::EOF {}
        Ok(Statement::CopyTo(Copy { statement: copy, existing }))
    }

    /// The tokens of a COPY without `OVERWRITE` or `APPEND` behind its target, which DataFusion's parser does not know.
    fn without_existing(&self) -> Result<(Vec<TokenWithSpan>, Existing)> {
        let (mut depth, mut to, mut existing) = (0, false, Existing::Refuse);
        let mut kept = Vec::with_capacity(self.tokens.len());
        for token in &self.tokens {
            match token.token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            to |= depth == 0 && is_keyword(&token.token, Keyword::TO);
            let said = [("OVERWRITE", Existing::Overwrite), ("APPEND", Existing::Append)];
            let said = said.into_iter().find(|(word, _)| to && depth == 0 && is_word(&token.token, word));
            match said {
                None => kept.push(token.clone()),
                Some((_, said)) if existing == Existing::Refuse => existing = said,
                Some((word, _)) => {
                    let at = Position::from_location(token.span.start);
                    let e =
                        Error::invalid(format!("COPY says {word} besides what it said before of files that are there"));
                    return Err(e.with_hint("Write OVERWRITE or APPEND, once.").or_at(at));
                }
            }
        }
        Ok((kept, existing))
    }

    fn has_top_level(&self, keyword: Keyword) -> bool {
        let mut depth = 0;
        self.tokens.iter().any(|t| {
            match t.token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            depth == 0 && is_keyword(&t.token, keyword)
        })
    }

    fn drop_object(&mut self) -> Result<Statement> {
        let kind = self.object_kind("DROP")?;
        let if_exists = self.words(&["IF", "EXISTS"]);
        let name = self.name()?;
        if self.parser.peek_token_ref().token == Token::Comma {
            let error = Error::unsupported("DROP of several objects at once is not supported");
            return Err(error.with_hint("Write one DROP for each.").or_at(self.position()));
        }
        let cascade = self.word("CASCADE");
        if !cascade {
            self.word("RESTRICT"); // the default
        }
        Ok(Statement::Drop(DropObject { kind, name, if_exists, cascade }))
    }

    fn show(&mut self) -> Result<Statement> {
        for (word, statement) in [
            ("STREAMS", Statement::ShowStreams),
            ("TABLES", Statement::ShowStreams),
            ("SOURCES", Statement::ShowStreams),
            ("SINKS", Statement::ShowStreams),
            ("JOBS", Statement::ShowJobs),
            ("NODES", Statement::ShowNodes),
            ("VIEWS", Statement::ShowViews),
            ("ALL", Statement::ShowSetting(None)),
        ] {
            if self.word(word) {
                return Ok(statement);
            }
        }
        if self.word("FUNCTIONS") {
            return Ok(Statement::ShowFunctions { like: self.like()? });
        }
        if self.word("CONNECTORS") {
            return Ok(Statement::ShowConnectors { like: self.like()? });
        }
        if self.words(&["MATERIALIZED", "VIEWS"]) {
            return Ok(Statement::ShowStreams);
        }
        if self.word("CREATE") {
            self.object_kind("SHOW CREATE")?;
            return Ok(Statement::ShowCreate(self.name()?));
        }
        Ok(Statement::ShowSetting(Some(self.setting()?)))
    }

    fn like(&mut self) -> Result<Option<String>> {
        Ok(if self.word("LIKE") { Some(self.parser.parse_literal_string()?) } else { None })
    }

    fn describe(&mut self) -> Result<Statement> {
        // `DESCRIBE table` may also be about a stream with that name.
        if matches!(self.parser.peek_nth_token_ref(1).token, Token::Word(_)) {
            self.object_kind("DESCRIBE")?;
        }
        Ok(Statement::Describe(self.name()?))
    }

    fn explain(&mut self) -> Result<Statement> {
        let analyze = self.word("ANALYZE");
        let verbose = self.word("VERBOSE");
        let at = self.position();
        let starts_query = |token: &Token| match token {
            Token::LParen => true,
            Token::Word(w) => matches!(w.keyword, Keyword::SELECT | Keyword::WITH | Keyword::VALUES | Keyword::FROM),
            _ => false,
        };
        let target = if self.word("STREAM") {
            ExplainTarget::Stream(self.name()?)
        } else if starts_query(&self.parser.peek_token_ref().token) {
            ExplainTarget::Query(self.query_follow()?)
        } else if self.word("CREATE") {
            match self.create()? {
                Statement::CreateStream(create) => ExplainTarget::CreateStream(create),
                _ => return Err(Error::unsupported("EXPLAIN CREATE VIEW is not supported").or_at(at)),
            }
        } else {
            let error = Error::unsupported("EXPLAIN of this is not supported");
            let hint = "Write EXPLAIN [ANALYZE] [VERBOSE] SELECT …, CREATE STREAM … or STREAM name.";
            return Err(error.with_hint(hint).or_at(at));
        };
        if analyze && matches!(target, ExplainTarget::CreateStream(_)) {
            let error = Error::unsupported("EXPLAIN ANALYZE CREATE is not supported");
            return Err(error.with_hint("Create it, then write EXPLAIN ANALYZE STREAM name.").or_at(at));
        }
        Ok(Statement::Explain(Explain { analyze, verbose, target }))
    }

    fn set(&mut self) -> Result<Statement> {
        let name = self.setting()?;
        if !self.parser.consume_token(&Token::Eq) && !self.word("TO") {
            return self.expected("= or TO");
        }
        Ok(Statement::Set { name, value: self.value()? })
    }

    fn reset(&mut self) -> Result<Statement> {
        if self.word("ALL") {
            return Ok(Statement::Reset(None));
        }
        Ok(Statement::Reset(Some(self.setting()?)))
    }

    fn transaction(&mut self, keyword: &str) -> Result<Statement> {
        if keyword == "START" && !self.word("TRANSACTION") {
            return self.expected("TRANSACTION");
        }
        let _ = self.word("TRANSACTION") || self.word("WORK");
        Ok(match keyword {
            "BEGIN" | "START" => Statement::Begin,
            "COMMIT" | "END" => Statement::Commit,
            _ => Statement::Rollback,
        })
    }

    /// The kind of object that `verb` is about.
    fn object_kind(&mut self, verb: &str) -> Result<ObjectKind> {
        for (words, kind) in OBJECT_KINDS {
            if self.words(words) {
                return Ok(kind);
            }
        }
        let at = self.position();
        let found = self.parser.peek_token_ref().token.to_string();
        let error = Error::invalid(format!("{verb} {} is not known", found.to_uppercase()))
            .with_hint("Write STREAM, SOURCE, SINK, TABLE, VIEW or MATERIALIZED VIEW and the name.");
        Err(error.or_at(at))
    }

    fn named(&mut self, kind: &[&str]) -> Result<Name> {
        if self.words(kind) { self.name() } else { self.expected(kind.join(" ").as_str()) }
    }

    /// A name: `a`, `schema.a`.
    pub(super) fn name(&mut self) -> Result<Name> {
        let at = self.position();
        let name = self.parser.parse_object_name(false)?;
        Name::from_object_name(&name).map_err(|e| e.or_at(at))
    }

    /// A setting: `a`, `a.b.c`.
    pub(super) fn setting(&mut self) -> Result<String> {
        let mut name = fold(&self.parser.parse_identifier()?);
        while self.parser.consume_token(&Token::Period) {
            name = format!("{name}.{}", fold(&self.parser.parse_identifier()?));
        }
        Ok(name)
    }

    /// A value of a setting or option: text, a number, or a bare word.
    pub(super) fn value(&mut self) -> Result<String> {
        let sign = if self.parser.consume_token(&Token::Minus) { "-" } else { "" };
        let text = match &self.parser.peek_token_ref().token {
            Token::Number(number, _) => format!("{sign}{number}"),
            Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) if sign.is_empty() => text.clone(),
            Token::Word(word) if sign.is_empty() && word.quote_style.is_none() => word.value.clone(),
            _ => return self.expected("a value in single quotes, a number, or a word"),
        };
        self.parser.next_token();
        Ok(text)
    }

    /// Takes `word` if it is next, whether or not sqlparser knows it as a keyword.
    pub(super) fn word(&mut self, word: &str) -> bool {
        self.words(&[word])
    }

    /// Takes all of `words`, or none.
    pub(super) fn words(&mut self, words: &[&str]) -> bool {
        let all = words.iter().enumerate().all(|(i, word)| is_word(&self.parser.peek_nth_token_ref(i).token, word));
        if all {
            words.iter().for_each(|_| drop(self.parser.next_token()));
        }
        all
    }

    /// The place of the next token.
    pub(super) fn position(&self) -> Option<Position> {
        Position::from_location(self.parser.peek_token_ref().span.start)
    }

    /// The error that something else was expected here.
    pub(super) fn expected<T>(&self, what: &str) -> Result<T> {
        Ok(self.parser.expected_ref(what, self.parser.peek_token_ref())?)
    }
}

const OBJECT_KINDS: [(&[&str], ObjectKind); 6] = [
    (&["STREAM"], ObjectKind::Stream),
    (&["SOURCE"], ObjectKind::Source),
    (&["SINK"], ObjectKind::Sink),
    (&["TABLE"], ObjectKind::Table),
    (&["VIEW"], ObjectKind::View),
    (&["MATERIALIZED", "VIEW"], ObjectKind::MaterializedView),
];

/// An error tells what it has met. In a statement with a secret that may be the secret.
fn without_secrets(e: Error, text: &str) -> Error {
    match cut_secrets(text) {
        Cow::Borrowed(_) => e,
        Cow::Owned(_) => {
            let position = e.position();
            Error::new(e.kind(), "syntax error in a statement with a password or a secret")
                .with_hint("What it says is not repeated here.")
                .or_at(position)
        }
    }
}

/// A statement that is not ours: known elsewhere, mistyped, or neither.
fn unknown(word: &str) -> Error {
    let other = match word {
        "MERGE" => "Write INSERT … ON CONFLICT (key) DO UPDATE SET …, UPDATE … FROM, or DELETE … USING.",
        "ALTER" => "Write CREATE OR REPLACE STREAM, or ALTER USER name PASSWORD '…'.",
        "USE" | "ANALYZE" | "VACUUM" | "PREPARE" | "EXECUTE" | "DEALLOCATE" | "DECLARE" | "CALL" | "COMMENT"
        | "LOCK" | "KILL" | "CACHE" | "REFRESH" | "ATTACH" | "LOAD" | "INSTALL" | "PRAGMA" => {
            "The statements are SELECT, INSERT, UPDATE, DELETE, TRUNCATE, CREATE, DROP, SHOW, DESCRIBE, EXPLAIN, PAUSE, RESUME, COPY, SET, FLUSH."
        }
        _ => {
            let error = Error::invalid(format!("syntax error at or near \"{word}\""));
            return match nearest(word, STATEMENTS) {
                Some(near) => error.with_hint(format!("Did you mean {near}?")),
                None => error,
            };
        }
    };
    Error::unsupported(format!("{word} is not supported")).with_hint(other)
}

const STATEMENTS: [&str; 27] = [
    "SELECT", "WITH", "VALUES", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "CREATE", "DROP", "SHOW", "DESCRIBE",
    "EXPLAIN", "PAUSE", "RESUME", "COPY", "SET", "RESET", "FLUSH", "BEGIN", "COMMIT", "ROLLBACK", "FROM", "TABLE",
    "GRANT", "REVOKE", "ALTER", "DRAIN",
];
