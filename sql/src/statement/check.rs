//! What a query may not say: the clauses that sqlparser reads and DataFusion's planner would silently drop,
//! or refuse without saying which and where.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, Expr, FunctionArguments, GroupByExpr, Insert, Join, JoinOperator, LimitClause, OnInsert, OrderBy,
    OrderByKind, Select, SetExpr, Spanned, TableAlias, TableFactor, TableVersion, TableWithJoins, Visit, Visitor,
};
use datafusion::sql::sqlparser::tokenizer::{Span, TokenWithSpan};

use super::words::is_word;
use crate::error::{Error, Position, Result};

/// Refuses a query with a clause that would be ignored.
pub fn check_query(query: &ast::Query) -> Result<()> {
    check_query_in(query, &[])
}

/// The same, with the tokens to find the clause in.
pub(super) fn check_query_in(query: &ast::Query, tokens: &[TokenWithSpan]) -> Result<()> {
    match query.visit(&mut Check::over(tokens)) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Checks a condition that stands alone.
pub(super) fn check_condition(condition: &ast::Expr, tokens: &[TokenWithSpan]) -> Result<()> {
    match condition.visit(&mut Check::over(tokens)) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// What the parser does not read to its end, though it is known what is meant.
pub(super) fn known_form(tokens: &[TokenWithSpan]) -> Option<Error> {
    for (i, token) in tokens.iter().enumerate() {
        let next = |n: usize| tokens.get(i + n).map(|t| &t.token);
        let is = |n: usize, words: &[&str]| next(n).is_some_and(|t| words.iter().any(|word| is_word(t, word)));
        let at = Position::from_location(token.span.start);
        if is_word(&token.token, "ASOF") && is(1, &["RIGHT", "FULL"]) {
            return Some(Error::unsupported("ASOF RIGHT and FULL JOIN are not supported").with_hint(ASOF).or_at(at));
        }
        let has_condition = || tokens.iter().skip(i).any(|t| is_word(&t.token, "MATCH_CONDITION"));
        if is_word(&token.token, "ASOF") && is(1, &["JOIN", "LEFT", "INNER"]) && !has_condition() {
            return Some(Error::invalid("ASOF JOIN has no MATCH_CONDITION").with_hint(ASOF).or_at(at));
        }
    }
    None
}

/// Refuses the first of `clauses` that was written, in a statement with these tokens.
pub(super) fn refuse(clauses: &[Clause], near: Span, tokens: &[TokenWithSpan]) -> Result<()> {
    match (Check::over(tokens)).refuse(clauses, near) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Checks the expressions, tables and queries of a statement.
pub(super) fn check_parts(statement: &ast::Statement, tokens: &[TokenWithSpan]) -> Result<()> {
    match statement.visit(&mut Check::over(tokens)) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// The same for what INSERT adds.
pub(super) fn check_insert(insert: &Insert) -> Result<()> {
    let duplicate = matches!(insert.on, Some(OnInsert::DuplicateKeyUpdate(_)));
    let clauses = [
        (insert.overwrite, "OVERWRITE"),
        (insert.replace_into || insert.or.is_some(), "REPLACE"),
        (insert.ignore, "IGNORE"),
        (duplicate, "ON DUPLICATE KEY UPDATE"),
        (insert.returning.is_some(), "RETURNING"),
        (insert.partitioned.is_some(), "PARTITION"),
        (insert.table_alias.is_some() || insert.insert_alias.is_some(), "AS"),
        (!insert.assignments.is_empty(), "SET"),
    ];
    match clauses.into_iter().find(|(written, _)| *written) {
        Some((_, clause)) => Err(Error::unsupported(format!("INSERT … {clause} is not supported")).with_hint(
            "In a stream with a PRIMARY KEY, later rows replace earlier ones, or what ON CONFLICT (key) DO … says.",
        )),
        None => Ok(()),
    }
}

struct Check<'a> {
    tokens: &'a [TokenWithSpan],
    /// How many table factors the walk is inside of: there, TUMBLE is in its place.
    in_table: usize,
    /// What stands right of an inner or a left join: rows can be looked up there.
    right: Vec<Span>,
}

impl<'a> Check<'a> {
    fn over(tokens: &'a [TokenWithSpan]) -> Self {
        Check { tokens, in_table: 0, right: vec![] }
    }
}

/// One clause: whether it was written, what it is called (its first word is searched for), what to write instead.
pub(super) type Clause = (bool, &'static str, &'static str);

impl Check<'_> {
    fn refuse(&self, clauses: &[Clause], near: Span) -> ControlFlow<Error> {
        for (written, clause, hint) in clauses {
            if *written {
                let mut error = Error::unsupported(format!("{clause} is not supported"));
                if !hint.is_empty() {
                    error = error.with_hint(*hint);
                }
                return ControlFlow::Break(error.or_at(self.place(clause, near)));
            }
        }
        ControlFlow::Continue(())
    }

    /// Where the clause's first word stands, from the start of what has the clause on.
    fn place(&self, clause: &str, near: Span) -> Option<Position> {
        // Words in small letters describe a clause that has no word of its own.
        let word = clause.split(' ').next().filter(|word| word.chars().all(|c| c.is_uppercase() || c == '_'));
        let mut from = self.tokens.iter().filter(|t| t.span.start >= near.start);
        let found = word.and_then(|word| from.find(|t| is_word(&t.token, word))).map(|t| t.span.start);
        Position::from_location(found.unwrap_or(near.start))
    }

    fn alias(&self, alias: Option<&TableAlias>) -> ControlFlow<Error> {
        let Some(alias) = alias else { return ControlFlow::Continue(()) };
        let clauses = [
            (
                alias.columns.iter().any(|c| c.data_type.is_some()),
                "a type in a table's alias",
                "Write CAST in the SELECT.",
            ),
            (alias.at.is_some(), "AT", ""),
        ];
        self.refuse(&clauses, alias.name.span)
    }

    fn join(&mut self, join: &Join) -> ControlFlow<Error> {
        use JoinOperator::*;
        let operator = &join.join_operator;
        if matches!(operator, Join(_) | Inner(_) | Left(_) | LeftOuter(_)) {
            self.right.push(join.relation.span());
        }
        // What is global of an ASOF JOIN is a LEFT one: `as_of.rs`.
        let is_asof = matches!(operator, AsOf { .. });
        let clauses = [
            (join.global && !is_asof, "GLOBAL JOIN", "Write JOIN."),
            (
                is_asof && is_lateral(&join.relation),
                "LATERAL right of an ASOF JOIN",
                "Write it as a subquery of its own.",
            ),
            (matches!(operator, CrossApply), "CROSS APPLY", "Write CROSS JOIN LATERAL."),
            (matches!(operator, OuterApply), "OUTER APPLY", "Write LEFT JOIN LATERAL … ON true."),
            (matches!(operator, StraightJoin(_)), "STRAIGHT_JOIN", "Write JOIN."),
            (matches!(operator, ArrayJoin | LeftArrayJoin | InnerArrayJoin), "ARRAY JOIN", "Write UNNEST."),
        ];
        self.refuse(&clauses, join.relation.span())
    }

    fn set_expr(&self, body: &SetExpr) -> ControlFlow<Error> {
        let clauses = [
            (matches!(body, SetExpr::Insert(_)), "INSERT in a query", "Write INSERT as a statement."),
            (matches!(body, SetExpr::Update(_)), "UPDATE in a query", ""),
            (matches!(body, SetExpr::Delete(_)), "DELETE in a query", ""),
            (matches!(body, SetExpr::Merge(_)), "MERGE in a query", ""),
            (matches!(body, SetExpr::Table(_)), "TABLE name as a query", "Write SELECT * FROM name."),
        ];
        self.refuse(&clauses, body.span())?;
        match body {
            SetExpr::SetOperation { left, right, .. } => {
                self.set_expr(left)?;
                self.set_expr(right)
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn order_by(&self, order_by: &OrderBy, of_select: bool) -> ControlFlow<Error> {
        let fill = match &order_by.kind {
            OrderByKind::Expressions(exprs) => exprs.iter().any(|e| e.with_fill.is_some()),
            OrderByKind::All(_) => false,
        };
        // DataFusion drops the ORDER BY ALL of a UNION.
        let all = matches!(order_by.kind, OrderByKind::All(_)) && !of_select;
        let clauses = [
            (order_by.interpolate.is_some(), "INTERPOLATE", ""),
            (fill, "WITH FILL", ""),
            (all, "ORDER BY ALL of a set operation", "Write the columns' names."),
        ];
        self.refuse(&clauses, order_by.span())
    }
}

impl Visitor for Check<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<Error> {
        let near = query.span();
        let fetch = query.fetch.as_ref();
        let limited = match &query.limit_clause {
            Some(LimitClause::LimitOffset { limit, limit_by, .. }) => limit.is_some() || !limit_by.is_empty(),
            Some(LimitClause::OffsetCommaLimit { .. }) => true,
            None => false,
        };
        let clauses = [
            (fetch.is_some_and(|f| f.percent), "FETCH … PERCENT", "Write a number of rows."),
            (fetch.is_some() && limited, "FETCH beside LIMIT", "Write one of them, with OFFSET before it."),
            (fetch.is_some_and(|f| f.with_ties) && query.order_by.is_none(), "WITH TIES without ORDER BY", TIES),
            (!query.locks.is_empty(), "FOR UPDATE", "Leave it out: nothing is locked."),
            (query.for_clause.is_some(), "FOR XML", ""),
            (query.settings.is_some(), "SETTINGS", "Write SET name = value before the query."),
            (query.format_clause.is_some(), "FORMAT", ""),
        ];
        self.refuse(&clauses, near)?;
        self.set_expr(&query.body)?;
        if let Some(order_by) = &query.order_by {
            self.order_by(order_by, matches!(query.body.as_ref(), SetExpr::Select(_)))?;
        }
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.alias(Some(&cte.alias))?;
            let clauses = [
                (cte.materialized.is_some(), "MATERIALIZED in WITH", "Leave it out."),
                (cte.from.is_some(), "FROM in WITH", ""),
            ];
            self.refuse(&clauses, cte.alias.name.span)?;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Error> {
        let modifiers = match &select.group_by {
            GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers) => !modifiers.is_empty(),
        };
        let clauses = [
            (!select.optimizer_hints.is_empty(), "an optimizer hint", ""),
            (select.select_modifiers.is_some(), "a MySQL modifier of SELECT", ""),
            (select.top.is_some(), "TOP", "Write LIMIT."),
            (select.exclude.is_some(), "EXCLUDE after the columns", "Write SELECT * EXCEPT (…)."),
            (select.into.is_some(), "INTO", "Write CREATE STREAM … AS SELECT …."),
            (!select.lateral_views.is_empty(), "LATERAL VIEW", "Write CROSS JOIN UNNEST(…)."),
            (select.prewhere.is_some(), "PREWHERE", "Write WHERE."),
            (!select.connect_by.is_empty(), "CONNECT BY", "Write WITH RECURSIVE."),
            (modifiers, "WITH after GROUP BY", "Write GROUP BY ROLLUP (…), CUBE (…) or GROUPING SETS (…)."),
            (!select.cluster_by.is_empty(), "CLUSTER BY", "Leave it out."),
            (!select.distribute_by.is_empty(), "DISTRIBUTE BY", "Leave it out."),
            (!select.sort_by.is_empty(), "SORT BY", "Write ORDER BY."),
            (select.value_table_mode.is_some(), "AS STRUCT", "Write SELECT struct(…)."),
        ];
        let near = select.select_token.0.span;
        self.refuse(&clauses, near)?;
        let joins = |table: &TableWithJoins| table.joins.iter().try_for_each(|join| self.join(join));
        select.from.iter().try_for_each(joins)
    }

    fn post_visit_table_factor(&mut self, _factor: &TableFactor) -> ControlFlow<Error> {
        self.in_table -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Error> {
        self.in_table += 1;
        let near = factor.span();
        match factor {
            TableFactor::Table { .. } => self.table(factor),
            TableFactor::Derived { alias, sample, .. } => {
                self.refuse(&[(sample.is_some(), "TABLESAMPLE", NO_SAMPLE)], near)?;
                self.alias(alias.as_ref())
            }
            TableFactor::Function { name, with_ordinality, alias, .. } => {
                let other = *with_ordinality && row_function(name).is_none();
                self.refuse(&[(other, "WITH ORDINALITY", ORDINALITY)], near)?;
                self.alias(alias.as_ref())
            }
            TableFactor::UNNEST { alias, with_offset, .. } => {
                self.refuse(&[(*with_offset, "WITH OFFSET", "Write WITH ORDINALITY, which counts from 1.")], near)?;
                self.alias(alias.as_ref())
            }
            TableFactor::NestedJoin { table_with_joins, alias } => {
                table_with_joins.joins.iter().try_for_each(|join| self.join(join))?;
                self.alias(alias.as_ref())
            }
            TableFactor::TableFunction { alias, .. } => self.alias(alias.as_ref()),
            TableFactor::Pivot { .. } => self.refuse(&[(true, "PIVOT", "Write sum(…) FILTER (WHERE …).")], near),
            TableFactor::Unpivot { .. } => self.refuse(&[(true, "UNPIVOT", "Write UNION ALL.")], near),
            TableFactor::MatchRecognize { .. } => self.refuse(&[(true, "MATCH_RECOGNIZE", "")], near),
            TableFactor::JsonTable { .. } => self.refuse(&[(true, "JSON_TABLE", "")], near),
            TableFactor::OpenJsonTable { .. } => self.refuse(&[(true, "OPENJSON", "")], near),
            TableFactor::XmlTable { .. } => self.refuse(&[(true, "XMLTABLE", "")], near),
            TableFactor::SemanticView { .. } => self.refuse(&[(true, "SEMANTIC_VIEW", "")], near),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let parameters = !matches!(function.parameters, ast::FunctionArguments::None);
        let name = function.name.to_string().to_ascii_uppercase();
        let window = matches!(name.as_str(), "TUMBLE" | "HOP" | "CUMULATE" | "SESSION") && self.in_table == 0;
        let clauses = [
            (parameters, "a second list of arguments", ""),
            (window, "a window function outside FROM", WINDOW_IN_FROM),
        ];
        self.refuse(&clauses, function.name.span())
    }
}

const WINDOW_IN_FROM: &str =
    "Write FROM TUMBLE(t, ts, size) … GROUP BY window_start, window_end, or GROUP BY date_bin(…).";
const TIES: &str = "Write by which order rows tie: ORDER BY x FETCH FIRST 3 ROWS WITH TIES.";
const ASOF: &str = "Write l ASOF [LEFT] JOIN r MATCH_CONDITION (l.ts >= r.ts) ON l.k = r.k.";
const NO_SAMPLE: &str = "Write WHERE random() < 0.1 over what is stored.";
const AS_OF_RIGHT: &str = "Rows are looked up in it: FROM b LEFT JOIN s FOR SYSTEM_TIME AS OF now() ON b.x = s.x.";
const AS_OF_TIME: &str = "Write now(), for what there is when a row comes, or a column with a time of the left side.";
const ORDINALITY: &str = "unnest, generate_series and range have it.";

/// A function that makes rows where a table stands.
pub(crate) enum RowFunction {
    /// Of the elements of lists.
    Unnest,
    /// Of a series; its name.
    Series(&'static str),
}

/// The function of that name, if it makes rows.
pub(crate) fn row_function(name: &ast::ObjectName) -> Option<RowFunction> {
    match name.to_string().to_ascii_lowercase().as_str() {
        "unnest" => Some(RowFunction::Unnest),
        "generate_series" => Some(RowFunction::Series("generate_series")),
        "range" => Some(RowFunction::Series("range")),
        _ => None,
    }
}

fn is_column(time: &Expr) -> bool {
    matches!(time, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
}

/// Whether `factor` may look at the rows beside it.
fn is_lateral(factor: &TableFactor) -> bool {
    match factor {
        TableFactor::Derived { lateral, .. } | TableFactor::Function { lateral, .. } => *lateral,
        TableFactor::UNNEST { .. } => true,
        _ => false,
    }
}

/// `now()`, or what others write for it.
pub(crate) fn is_now(time: &Expr) -> bool {
    let Expr::Function(function) = time else { return false };
    let none = match &function.args {
        FunctionArguments::None => true,
        FunctionArguments::List(list) => list.args.is_empty() && list.clauses.is_empty(),
        FunctionArguments::Subquery(_) => false,
    };
    let name = function.name.to_string().to_ascii_lowercase();
    none && function.over.is_none() && matches!(name.as_str(), "now" | "proctime" | "current_timestamp")
}

impl Check<'_> {
    fn table(&self, factor: &TableFactor) -> ControlFlow<Error> {
        let TableFactor::Table {
            name,
            alias,
            args,
            with_hints,
            version,
            with_ordinality,
            partitions,
            json_path,
            sample,
            index_hints,
            ..
        } = factor
        else {
            return ControlFlow::Continue(());
        };
        let as_of = match version {
            Some(TableVersion::ForSystemTimeAsOf(time)) => Some(time),
            _ => None,
        };
        let right = self.right.contains(&factor.span());
        let settings = args.as_ref().is_some_and(|args| args.settings.is_some());
        let clauses = [
            (as_of.is_some() && !right, "FOR SYSTEM_TIME AS OF outside of an inner or left JOIN", AS_OF_RIGHT),
            (
                as_of.is_some_and(|time| !is_now(time) && !is_column(time)),
                "FOR SYSTEM_TIME AS OF another time",
                AS_OF_TIME,
            ),
            (version.is_some() && as_of.is_none(), "a version of a table", ""),
            (sample.is_some(), "TABLESAMPLE", NO_SAMPLE),
            (!with_hints.is_empty(), "WITH after a table", "Table hints have no meaning here: leave them out."),
            (!index_hints.is_empty(), "an index hint", "Leave it out."),
            (*with_ordinality && (args.is_none() || row_function(name).is_none()), "WITH ORDINALITY", ORDINALITY),
            (!partitions.is_empty(), "PARTITION after a table", "Write WHERE."),
            (json_path.is_some(), "a path after a table", ""),
            (settings, "SETTINGS", ""),
        ];
        self.refuse(&clauses, factor.span())?;
        self.alias(alias.as_ref())
    }
}
