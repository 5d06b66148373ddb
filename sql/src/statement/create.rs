//! `CREATE STREAM` in all its forms and under all its names, and `CREATE VIEW`.

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::ast::ColumnOption;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_engine::nearest::nearest;

use super::data_type::arrow_type;
use super::display::fold;
use super::parser::StatementParser;
use super::words::is_word;
use super::{ColumnDef, CreateStream, CreateView, Name, ObjectKind, Query, Statement, StreamForm, Watermark};
use crate::error::{Error, Position, Result};
use crate::quote::quote_name;

/// What stands between the parentheses after the name.
#[derive(Default)]
struct Items {
    columns: Vec<ColumnDef>,
    /// Columns without a type, which only the names of a query's columns may be, and where the first stands.
    names: Vec<String>,
    names_at: Option<Position>,
    watermark: Option<Watermark>,
    primary_key: Option<Vec<String>>,
}

impl StatementParser<'_> {
    /// What follows the word CREATE.
    pub(super) fn create(&mut self) -> Result<Statement> {
        let or_replace = self.words(&["OR", "REPLACE"]);
        let at = self.position();
        let kind = match self.create_kind() {
            Some(kind) => kind,
            None => return Err(self.not_created().or_at(at)),
        };
        let if_not_exists = self.words(&["IF", "NOT", "EXISTS"]);
        if or_replace && if_not_exists {
            let error = Error::invalid("OR REPLACE and IF NOT EXISTS exclude each other");
            return Err(error.with_hint("Write one of the two.").or_at(at));
        }
        let name = self.name()?;
        if kind == ObjectKind::View {
            let query = self.view_query(&name)?;
            return Ok(Statement::CreateView(CreateView { name, or_replace, if_not_exists, query }));
        }
        let items = if self.parser.consume_token(&Token::LParen) { self.items()? } else { Items::default() };
        self.refuse_clauses()?;
        let options = if self.word("WITH") { self.options()? } else { BTreeMap::new() };
        self.refuse_clauses()?;
        let mut query = self.body(kind)?;
        let Items { mut columns, names, names_at, watermark, primary_key } = items;
        match (&mut query, names.first()) {
            (Some(query), _) if columns.is_empty() => query.columns = names,
            (_, Some(name)) => {
                return Err(Error::invalid(format!("column \"{name}\" has no type"))
                    .with_hint(format!("Write it behind the name, such as {} BIGINT.", quote_name(name)))
                    .or_at(names_at));
            }
            (_, None) => {}
        }
        let key = primary_key.as_deref().unwrap_or_default();
        columns.iter_mut().filter(|c| key.contains(&c.name)).for_each(|c| c.not_null = true);
        let create =
            CreateStream { kind, name, or_replace, if_not_exists, columns, watermark, primary_key, options, query };
        check_form(&create).map_err(|e| e.or_at(at))?;
        Ok(Statement::CreateStream(Box::new(create)))
    }

    fn create_kind(&mut self) -> Option<ObjectKind> {
        let kinds = [
            ("STREAM", ObjectKind::Stream),
            ("SOURCE", ObjectKind::Source),
            ("SINK", ObjectKind::Sink),
            ("TABLE", ObjectKind::Table),
            ("VIEW", ObjectKind::View),
        ];
        for (word, kind) in kinds {
            if self.word(word) {
                return Some(kind);
            }
        }
        self.words(&["MATERIALIZED", "VIEW"]).then_some(ObjectKind::MaterializedView)
    }

    fn not_created(&mut self) -> Error {
        let token = self.parser.peek_token_ref().token.clone();
        if token == Token::EOF {
            return Error::invalid("syntax error at end of input: CREATE what?")
                .with_hint("Write CREATE STREAM name ….");
        }
        let word = token.to_string().to_uppercase();
        match word.as_str() {
            "EXTERNAL" | "TEMPORARY" | "TEMP" | "UNBOUNDED" | "UNLOGGED" => Error::unsupported(format!(
                "CREATE {word} is not supported"
            ))
            .with_hint("Write CREATE STREAM name (columns) WITH (connector = 'file', path = '…', format = 'parquet')."),
            _ => match nearest(&word, ["STREAM", "SOURCE", "SINK", "TABLE", "VIEW", "MATERIALIZED"]) {
                Some(near) => Error::invalid(format!("syntax error at or near \"{word}\""))
                    .with_hint(format!("Did you mean CREATE {near}?")),
                None => Error::unsupported(format!("CREATE {word} is not supported"))
                    .with_hint("Write CREATE STREAM, SOURCE, SINK, TABLE, VIEW or MATERIALIZED VIEW."),
            },
        }
    }

    fn view_query(&mut self, name: &Name) -> Result<Query> {
        let mut columns: Vec<String> = vec![];
        if self.parser.consume_token(&Token::LParen) {
            for column in self.parser.parse_comma_separated(|p| p.parse_identifier())? {
                let column = fold(&column);
                if columns.contains(&column) {
                    return Err(Error::invalid(format!("column \"{column}\" is written more than once")));
                }
                columns.push(column);
            }
            if !self.parser.consume_token(&Token::RParen) {
                return self.expected(", or )");
            }
        }
        self.refuse_clauses()?;
        if !self.word("AS") {
            return self.expected("AS");
        }
        let query = self.query()?;
        let at = self.position();
        if self.emit()?.is_some() {
            let error = Error::unsupported(format!("view \"{name}\": a view does not emit"));
            return Err(error.with_hint("Write CREATE STREAM … AS …, or EMIT where the view is read.").or_at(at));
        }
        Ok(Query { columns, ..query })
    }

    /// `AS query`, or `FROM stream` of a sink, and `EMIT`.
    fn body(&mut self, kind: ObjectKind) -> Result<Option<Query>> {
        if self.word("AS") {
            return self.query_emit().map(Some);
        }
        if kind == ObjectKind::Sink && self.word("FROM") {
            let name = self.name()?;
            let query = super::parse_query(&format!("SELECT * FROM {name}"))?;
            return Ok(Some(Query { emit: self.emit()?, position: None, ..query }));
        }
        let at = self.position();
        match self.emit()? {
            Some(_) => Err(Error::invalid("EMIT without a query").with_hint("It follows AS SELECT ….").or_at(at)),
            None => Ok(None),
        }
    }

    fn items(&mut self) -> Result<Items> {
        let mut items = Items::default();
        loop {
            self.item(&mut items)?;
            if !self.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        if self.parser.consume_token(&Token::RParen) { Ok(items) } else { self.expected(", or )") }
    }

    fn item(&mut self, items: &mut Items) -> Result<()> {
        let at = self.position();
        if self.words(&["WATERMARK", "FOR"]) {
            let watermark = self.watermark()?;
            return match items.watermark.replace(watermark) {
                None => Ok(()),
                Some(_) => Err(Error::invalid("WATERMARK is written more than once").or_at(at)),
            };
        }
        if self.words(&["PRIMARY", "KEY"]) {
            return self.primary_key(items, at);
        }
        if self.word("CONSTRAINT") {
            self.parser.parse_identifier()?;
            if !self.words(&["PRIMARY", "KEY"]) {
                let error = Error::unsupported("this constraint is not supported");
                return Err(error.with_hint("PRIMARY KEY is the one there is.").or_at(self.position()));
            }
            return self.primary_key(items, at);
        }
        for words in [&["UNIQUE", "("][..], &["FOREIGN", "KEY"], &["CHECK", "("], &["LIKE"], &["PERIOD", "FOR"]] {
            if self.starts(words) {
                let clause = words.iter().filter(|w| **w != "(").copied().collect::<Vec<_>>().join(" ");
                let error = Error::unsupported(format!("{clause} is not supported"));
                return Err(error.with_hint("PRIMARY KEY is the one constraint there is.").or_at(at));
            }
        }
        self.column(items, at)
    }

    /// Whether the next tokens read so. A column may have the same name as a constraint, so what follows decides.
    fn starts(&self, words: &[&str]) -> bool {
        let next_is_type = matches!(self.parser.peek_nth_token_ref(2).token, Token::Comma | Token::RParen);
        let all = words.iter().enumerate().all(|(i, word)| {
            let token = &self.parser.peek_nth_token_ref(i).token;
            is_word(token, word) || (*word == "(" && *token == Token::LParen)
        });
        all && !(words == ["LIKE"] && next_is_type && is_type(&self.parser.peek_nth_token_ref(1).token))
    }

    fn watermark(&mut self) -> Result<Watermark> {
        let column = fold(&self.parser.parse_identifier()?);
        if self.parser.peek_token_ref().token == Token::Period {
            let error = Error::unsupported("a watermark on a field of a struct is not supported");
            return Err(error.with_hint("Give the event time a column of its own.").or_at(self.position()));
        }
        if !self.word("AS") {
            return self.expected("AS");
        }
        Ok(Watermark { column, expr: self.parser.parse_expr()? })
    }

    fn primary_key(&mut self, items: &mut Items, at: Option<Position>) -> Result<()> {
        if !self.parser.consume_token(&Token::LParen) {
            return self.expected("(");
        }
        let columns = self.parser.parse_comma_separated(|p| p.parse_identifier())?;
        if !self.parser.consume_token(&Token::RParen) {
            return self.expected(", or )");
        }
        self.words(&["NOT", "ENFORCED"]);
        self.set_key(items, columns.iter().map(fold).collect(), at)
    }

    fn set_key(&mut self, items: &mut Items, key: Vec<String>, at: Option<Position>) -> Result<()> {
        match items.primary_key.replace(key) {
            None => Ok(()),
            Some(_) => Err(Error::invalid("PRIMARY KEY is written more than once")
                .with_hint("Write PRIMARY KEY (a, b) for a key of several columns.")
                .or_at(at)),
        }
    }

    fn column(&mut self, items: &mut Items, at: Option<Position>) -> Result<()> {
        let name = fold(&self.parser.parse_identifier()?);
        if items.columns.iter().any(|c| c.name == name) || items.names.contains(&name) {
            return Err(Error::invalid(format!("column \"{name}\" is written more than once")).or_at(at));
        }
        if self.word("AS") {
            let error = Error::unsupported(format!("column \"{name}\": computed columns are not supported"));
            return Err(error.with_hint("Compute it in CREATE STREAM … AS SELECT, or in a view.").or_at(at));
        }
        if matches!(self.parser.peek_token_ref().token, Token::Comma | Token::RParen) {
            items.names_at = items.names_at.or(at);
            items.names.push(name);
            return Ok(());
        }
        let type_at = self.position();
        let sql_type = self.parser.parse_data_type()?;
        let data_type = arrow_type(&sql_type).map_err(|e| e.context(format!("column \"{name}\"")).or_at(type_at))?;
        let mut column = ColumnDef { name, sql_type, data_type, not_null: false, metadata: None };
        loop {
            let at = self.position();
            if matches!(self.parser.peek_token_ref().token, Token::Comma | Token::RParen | Token::EOF) {
                break;
            }
            if column.metadata.is_none() && self.word("METADATA") {
                column.metadata = Some(self.metadata_key(&column.name)?);
                continue;
            }
            let refuse = |what: &str| {
                let error = Error::unsupported(format!("column \"{}\": {what} is not supported", column.name));
                let hint = match what {
                    "VIRTUAL" => "Leave it out: metadata is read, and never written.",
                    _ => "NOT NULL, PRIMARY KEY and METADATA FROM '…' are what can follow the type.",
                };
                Err(error.with_hint(hint).or_at(at))
            };
            match self.parser.parse_optional_column_option()? {
                Some(ColumnOption::Null) => {}
                Some(ColumnOption::NotNull) => column.not_null = true,
                Some(ColumnOption::PrimaryKey(_)) => {
                    self.words(&["NOT", "ENFORCED"]);
                    self.set_key(items, vec![column.name.clone()], at)?;
                }
                Some(option) => return refuse(&option.to_string()),
                None => return refuse(&self.parser.peek_token_ref().token.to_string().to_uppercase()),
            }
        }
        items.columns.push(column);
        Ok(())
    }

    /// What follows the word METADATA: which it is, or nothing where it is called like the `column`.
    fn metadata_key(&mut self, column: &str) -> Result<String> {
        if !self.word("FROM") {
            return Ok(column.to_owned());
        }
        match &self.parser.peek_token_ref().token {
            Token::SingleQuotedString(key) => {
                let key = key.clone();
                self.parser.next_token();
                Ok(key)
            }
            _ => self.expected("the name of the metadata in quotes"),
        }
    }

    /// `(key = value, …)`; keys may be quoted either way and dotted.
    fn options(&mut self) -> Result<BTreeMap<String, String>> {
        if !self.parser.consume_token(&Token::LParen) {
            return self.expected("(");
        }
        let mut options = BTreeMap::new();
        while self.parser.peek_token_ref().token != Token::RParen {
            let at = self.position();
            let key = match &self.parser.peek_token_ref().token {
                Token::SingleQuotedString(key) => {
                    let key = key.clone();
                    self.parser.next_token();
                    key
                }
                _ => self.setting()?,
            };
            if !self.parser.consume_token(&Token::Eq) {
                return self.expected("=");
            }
            let value = self.value()?;
            if options.insert(key.clone(), value).is_some() {
                return Err(Error::invalid(format!("option \"{key}\" is written more than once")).or_at(at));
            }
            if !self.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        if self.parser.consume_token(&Token::RParen) { Ok(options) } else { self.expected(", or )") }
    }

    /// Clauses of other systems that would have to do something.
    fn refuse_clauses(&mut self) -> Result<()> {
        let clauses: [(&[&str], &str); 9] = [
            (&["PARTITIONED", "BY"], "Leave it out: streams are routed by the keys of the queries that read them."),
            (&["DISTRIBUTED"], "Leave it out: streams are routed by the keys of the queries that read them."),
            (&["CLUSTER", "BY"], "Leave it out."),
            (&["COMMENT"], "Write it as -- a comment."),
            (&["LIKE"], "Write the columns out."),
            (&["STORED", "AS"], "Write WITH (connector = 'file', path = '…', format = 'parquet')."),
            (&["LOCATION"], "Write WITH (connector = 'file', path = '…', format = 'parquet')."),
            (&["FORMAT"], "Write WITH (connector = '…', format = '…')."),
            (&["INCLUDE"], "Declare a column for it: name TYPE METADATA FROM '…'."),
        ];
        let at = self.position();
        for (words, hint) in clauses {
            if self.words(words) {
                let error = Error::unsupported(format!("{} is not supported", words.join(" ")));
                return Err(error.with_hint(hint).or_at(at));
            }
        }
        Ok(())
    }
}

fn is_type(token: &Token) -> bool {
    matches!(token, Token::Word(w) if w.keyword != Keyword::NoKeyword)
}

/// What each form must and must not have.
fn check_form(create: &CreateStream) -> Result<()> {
    let (kind, form) = (create.kind, create.form());
    let what = format!("{kind} \"{}\"", create.name.name);
    let derived = matches!(form, StreamForm::Derived | StreamForm::WrittenOut);
    let wrong = |message: String, hint: &str| Err(Error::invalid(message).with_hint(hint));
    if derived && !create.columns.is_empty() {
        return wrong(
            format!("{what} has both columns and AS SELECT"),
            "Leave the columns out: a derived stream has those of its query; name and cast them there.",
        );
    }
    if derived && create.watermark.is_some() {
        return wrong(
            format!("{what} has both WATERMARK and AS SELECT"),
            "Leave WATERMARK out: a derived stream has the event time of its query.",
        );
    }
    match (kind, form) {
        (ObjectKind::Source, StreamForm::External) | (ObjectKind::Sink, StreamForm::WrittenOut) => {}
        (ObjectKind::Source, _) => return wrong(format!("{what} needs a connector"), "Add WITH (connector = '…', …)."),
        (ObjectKind::Sink, _) => {
            return wrong(
                format!("{what} needs a query and a connector"),
                "Write CREATE SINK name FROM stream WITH (connector = '…', …).",
            );
        }
        (ObjectKind::MaterializedView, StreamForm::Derived) => {}
        (ObjectKind::MaterializedView, _) if derived => {
            return wrong(format!("{what} cannot have a connector"), "Write CREATE STREAM … WITH (…) AS SELECT ….");
        }
        (ObjectKind::MaterializedView, _) => return wrong(format!("{what} needs a query"), "Add AS SELECT …."),
        (ObjectKind::Table, StreamForm::Derived | StreamForm::WrittenOut) => {
            return wrong(
                format!("{what} has AS SELECT, which would keep running"),
                "Write CREATE STREAM … AS SELECT …, or CREATE TABLE (columns) and INSERT INTO … SELECT ….",
            );
        }
        _ => {}
    }
    if form == StreamForm::Stored && create.columns.is_empty() && !create.options.is_empty() {
        let hint = match nearest("connector", create.options.keys().map(String::as_str)) {
            Some(near) => format!("Write connector instead of \"{near}\"."),
            None => "Add connector = '…': one of those that SHOW CONNECTORS lists.".to_owned(),
        };
        return wrong(format!("{what} has options and no connector"), &hint);
    }
    if form == StreamForm::Stored && create.columns.is_empty() {
        return wrong(
            format!("{what} has neither columns, nor a connector, nor a query"),
            "Write CREATE STREAM name (columns), … WITH (connector = '…'), or … AS SELECT ….",
        );
    }
    check_columns(create, &what)
}

/// The names in PRIMARY KEY and WATERMARK are columns, where columns are given.
fn check_columns(create: &CreateStream, what: &str) -> Result<()> {
    // Those of the content are found out.
    if create.columns.iter().all(|column| column.metadata.is_some()) {
        return Ok(());
    }
    let missing = |name: &str, clause: &str| {
        let names: Vec<_> = create.columns.iter().map(|c| c.name.as_str()).collect();
        Error::invalid(format!("column \"{name}\" in {clause} of {what} does not exist"))
            .with_hint(format!("The columns are: {}.", names.join(", ")))
    };
    let find = |name: &str| create.columns.iter().find(|c| c.name == name);
    let key = create.primary_key.as_deref().unwrap_or_default();
    for (i, name) in key.iter().enumerate() {
        find(name).ok_or_else(|| missing(name, "PRIMARY KEY"))?;
        if key[..i].contains(name) {
            return Err(Error::invalid(format!("column \"{name}\" is twice in PRIMARY KEY of {what}")));
        }
    }
    if let Some(watermark) = &create.watermark {
        let column = find(&watermark.column).ok_or_else(|| missing(&watermark.column, "WATERMARK"))?;
        if !matches!(column.data_type, arrow::datatypes::DataType::Timestamp(..)) {
            let error = Error::invalid(format!("column \"{}\" in WATERMARK of {what} is not a timestamp", column.name));
            return Err(error.with_hint("An event time is a TIMESTAMP or TIMESTAMPTZ."));
        }
    }
    Ok(())
}
