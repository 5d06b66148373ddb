//! `DELETE`, `UPDATE`, `TRUNCATE`, and `ON CONFLICT` of INSERT: what they say, and the clauses that have no meaning here.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, Assignment, AssignmentTarget, Expr, FromTable, ObjectName, OnConflict, OnConflictAction, OnInsert, Spanned,
    TableFactor, TableWithJoins, UpdateTableFromKind, Visit, Visitor, visit_expressions,
};
use datafusion::sql::sqlparser::tokenizer::{Span, TokenWithSpan};

use super::check::{Clause, check_parts, refuse};
use super::display::fold;
use super::{Insert, Name};
use crate::error::{Error, Position, Result};

/// `DELETE`, `UPDATE` or `TRUNCATE`.
#[derive(Clone, Debug)]
pub struct Change {
    /// The stream whose rows change.
    pub target: Name,
    /// The statement.
    pub statement: ast::Statement,
}

/// A column and what it is set to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SetColumn<'a> {
    pub(crate) column: &'a ObjectName,
    pub(crate) value: &'a Expr,
}

impl SetColumn<'_> {
    /// The column's name.
    pub(crate) fn name(&self) -> Result<String> {
        let at = self.place();
        let name = Name::from_object_name(self.column).map_err(|e| e.or_at(at))?;
        match name.schema {
            None => Ok(name.name),
            // PostgreSQL would take the first word for a column of a composite type.
            Some(_) => Err(Error::invalid(format!("SET {}: a column is named without its stream", self.column))
                .with_hint("Write SET column = value.")
                .or_at(at)),
        }
    }

    /// Where it stands.
    pub(crate) fn place(&self) -> Option<Position> {
        Position::from_location(self.column.span().start)
    }
}

impl Change {
    /// The statement's word.
    pub(crate) fn verb(&self) -> &'static str {
        match &self.statement {
            ast::Statement::Delete(_) => "DELETE",
            ast::Statement::Update(_) => "UPDATE",
            _ => "TRUNCATE",
        }
    }

    /// The stream with what the statement calls it; TRUNCATE calls it nothing.
    pub(crate) fn table(&self) -> Option<&TableWithJoins> {
        match &self.statement {
            ast::Statement::Delete(delete) => first_of(&delete.from),
            ast::Statement::Update(update) => Some(&update.table),
            _ => None,
        }
    }

    /// What stands behind USING or FROM.
    pub(crate) fn others(&self) -> &[TableWithJoins] {
        match &self.statement {
            ast::Statement::Delete(delete) => delete.using.as_deref().unwrap_or_default(),
            ast::Statement::Update(update) => match &update.from {
                Some(UpdateTableFromKind::AfterSet(from) | UpdateTableFromKind::BeforeSet(from)) => from,
                None => &[],
            },
            _ => &[],
        }
    }

    /// What stands behind WHERE.
    pub(crate) fn condition(&self) -> Option<&Expr> {
        match &self.statement {
            ast::Statement::Delete(delete) => delete.selection.as_ref(),
            ast::Statement::Update(update) => update.selection.as_ref(),
            _ => None,
        }
    }

    /// What UPDATE sets.
    pub(crate) fn assignments(&self) -> Result<Vec<SetColumn<'_>>> {
        match &self.statement {
            ast::Statement::Update(update) => set_columns(&update.assignments),
            _ => Ok(vec![]),
        }
    }

    /// Whether it, or how many rows it touches, tells of what the stream holds more than how much.
    pub(crate) fn tells(&self) -> bool {
        let values = match &self.statement {
            ast::Statement::Update(update) => update.assignments.as_slice(),
            _ => &[],
        };
        let mut read = values.iter().map(|a| &a.value).chain(self.condition());
        !self.others().is_empty() || read.any(names_something)
    }

    /// Takes `statement`, unless it has a clause that has no meaning.
    pub(super) fn read(statement: ast::Statement, tokens: &[TokenWithSpan]) -> Result<Self> {
        let start = tokens.first().map_or_else(Span::empty, |token| token.span);
        let target = match &statement {
            ast::Statement::Delete(delete) => {
                let tables = from_of(&delete.from);
                let clauses: [Clause; 7] = [
                    (!delete.tables.is_empty() || tables.len() > 1, "DELETE from several streams", ONE_EACH),
                    (joins(tables), "JOIN in DELETE", "Write DELETE FROM s USING t WHERE …."),
                    (delete.returning.is_some(), "RETURNING", NO_ROWS),
                    (delete.output.is_some(), "OUTPUT", NO_ROWS),
                    (!delete.order_by.is_empty(), "ORDER BY in DELETE", NO_LIMIT),
                    (delete.limit.is_some(), "LIMIT in DELETE", NO_LIMIT),
                    (!delete.optimizer_hints.is_empty(), "an optimizer hint", ""),
                ];
                refuse(&clauses, start, tokens)?;
                plain(first_of(&delete.from))?
            }
            ast::Statement::Update(update) => {
                let before = matches!(update.from, Some(UpdateTableFromKind::BeforeSet(_)));
                let joined = joins(std::slice::from_ref(&update.table));
                let clauses: [Clause; 8] = [
                    (update.or.is_some(), "OR after UPDATE", ""),
                    (joined, "JOIN in UPDATE", "Write UPDATE s SET … FROM t WHERE …."),
                    (before, "FROM before SET", "Write it behind: UPDATE s SET … FROM t WHERE …."),
                    (update.returning.is_some(), "RETURNING", NO_ROWS),
                    (update.output.is_some(), "OUTPUT", NO_ROWS),
                    (!update.order_by.is_empty(), "ORDER BY in UPDATE", NO_LIMIT),
                    (update.limit.is_some(), "LIMIT in UPDATE", NO_LIMIT),
                    (!update.optimizer_hints.is_empty(), "an optimizer hint", ""),
                ];
                refuse(&clauses, start, tokens)?;
                set_columns(&update.assignments)?;
                plain(Some(&update.table))?
            }
            ast::Statement::Truncate(truncate) => {
                let name = truncate.table_names.first().filter(|_| truncate.table_names.len() == 1);
                let clauses: [Clause; 6] = [
                    (name.is_none(), "TRUNCATE of several streams", ONE_EACH),
                    (truncate.if_exists, "IF EXISTS in TRUNCATE", "Leave it out."),
                    (name.is_some_and(|n| n.only || n.has_asterisk), "ONLY or *", "Leave it out."),
                    (truncate.partitions.is_some(), "PARTITION in TRUNCATE", "Write DELETE FROM s WHERE …."),
                    (
                        truncate.identity.is_some() || truncate.cascade.is_some(),
                        "a clause of TRUNCATE",
                        "Leave it out.",
                    ),
                    (truncate.on_cluster.is_some(), "ON CLUSTER", "Leave it out."),
                ];
                refuse(&clauses, start, tokens)?;
                let name = name.ok_or_else(|| Error::invalid("TRUNCATE names no stream"))?;
                Name::from_object_name(&name.name)?
            }
            _ => return Err(Error::internal("a change that is none")),
        };
        check_parts(&statement, tokens)?;
        Ok(Change { target, statement })
    }
}

const ONE_EACH: &str = "Write one statement for each.";
const NO_ROWS: &str = "SELECT the rows before or after: the answer is how many there were.";
const NO_LIMIT: &str = "Say which rows in WHERE: key IN (SELECT key FROM s ORDER BY … LIMIT …).";

fn from_of(from: &FromTable) -> &[TableWithJoins] {
    match from {
        FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables) => tables,
    }
}

fn first_of(from: &FromTable) -> Option<&TableWithJoins> {
    from_of(from).first()
}

fn joins(tables: &[TableWithJoins]) -> bool {
    tables.iter().any(|table| !table.joins.is_empty())
}

/// The name of a table that is nothing but that.
fn plain(table: Option<&TableWithJoins>) -> Result<Name> {
    match table.map(|table| &table.relation) {
        Some(TableFactor::Table { name, args: None, alias, .. })
            if alias.as_ref().is_none_or(|alias| alias.columns.is_empty()) =>
        {
            Name::from_object_name(name)
        }
        other => {
            let at = other.and_then(|other| Position::from_location(other.span().start));
            Err(Error::invalid("a stream's name is expected")
                .with_hint("Write DELETE FROM s or UPDATE s SET ….")
                .or_at(at))
        }
    }
}

/// What is set: each column once.
fn set_columns(assignments: &[Assignment]) -> Result<Vec<SetColumn<'_>>> {
    let mut set: Vec<SetColumn<'_>> = vec![];
    for assignment in assignments {
        match (&assignment.target, &assignment.value) {
            (AssignmentTarget::ColumnName(column), value) => set.push(SetColumn { column, value }),
            (AssignmentTarget::Tuple(columns), Expr::Tuple(values)) if columns.len() == values.len() => {
                set.extend(columns.iter().zip(values).map(|(column, value)| SetColumn { column, value }));
            }
            (AssignmentTarget::Tuple(columns), value) => {
                let at = columns.first().and_then(|column| Position::from_location(column.span().start));
                let message = match value {
                    Expr::Tuple(values) => format!("SET gives {} values to {} columns", values.len(), columns.len()),
                    _ => "SET of several columns at once to one value is not supported".to_owned(),
                };
                let hint = "Write SET a = (SELECT …), b = (SELECT …), or SET (a, b) = (1, 2).";
                return Err(Error::unsupported(message).with_hint(hint).or_at(at));
            }
        }
    }
    for (i, one) in set.iter().enumerate() {
        let name = one.name()?;
        let default =
            matches!(one.value, Expr::Identifier(word) if fold(word) == "default" && word.quote_style.is_none());
        if default {
            let e = Error::unsupported("DEFAULT is not supported: columns have no defaults");
            return Err(e.with_hint("Write NULL, or the value.").or_at(one.place()));
        }
        for other in &set[..i] {
            if other.name()? == name {
                return Err(Error::invalid(format!("SET names column \"{name}\" twice")).or_at(one.place()));
            }
        }
    }
    Ok(set)
}

/// The calls of functions in `exprs` that stand in no query of their own and have no window.
pub(crate) fn calls<'a>(exprs: impl Iterator<Item = &'a Expr>) -> Vec<(String, Option<Position>)> {
    let mut calls = Calls { inside: 0, found: vec![] };
    for expr in exprs {
        // The visitor never breaks.
        let _ = expr.visit(&mut calls);
    }
    calls.found
}

struct Calls {
    /// Queries that the walk is inside of.
    inside: usize,
    found: Vec<(String, Option<Position>)>,
}

impl Visitor for Calls {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &ast::Query) -> ControlFlow<()> {
        self.inside += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &ast::Query) -> ControlFlow<()> {
        self.inside -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && self.inside == 0
            && function.over.is_none()
        {
            let at = Position::from_location(function.name.span().start);
            self.found.push((function.name.to_string().to_lowercase(), at));
        }
        ControlFlow::Continue(())
    }
}

/// Whether an expression names a column, or has a query in it.
fn names_something(expr: &Expr) -> bool {
    let found = visit_expressions(expr, |expr| match expr {
        Expr::Identifier(_)
        | Expr::CompoundIdentifier(_)
        | Expr::CompoundFieldAccess { .. }
        | Expr::Subquery(_)
        | Expr::InSubquery { .. }
        | Expr::Exists { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

/// `ON CONFLICT` of an INSERT, in our terms.
#[derive(Clone, Debug)]
pub(crate) struct Conflict<'a> {
    /// The columns that rows conflict by, where they are named.
    pub(crate) columns: Option<Vec<String>>,
    /// Where they stand.
    pub(crate) place: Option<Position>,
    /// What becomes of the row that is there; nothing where there is none.
    pub(crate) set: Option<Vec<SetColumn<'a>>>,
    /// Under which condition.
    pub(crate) condition: Option<&'a Expr>,
}

impl Insert {
    /// What is said of rows whose key is there.
    pub(crate) fn conflict(&self) -> Result<Option<Conflict<'_>>> {
        let ast::Statement::Insert(insert) = &self.statement else { return Ok(None) };
        match &insert.on {
            Some(OnInsert::OnConflict(on)) => conflict(on).map(Some),
            _ => Ok(None),
        }
    }

    /// Whether there is `ON CONFLICT`.
    pub(crate) fn has_conflict(&self) -> bool {
        matches!(&self.statement, ast::Statement::Insert(insert) if insert.on.is_some())
    }

    /// The statement without `ON CONFLICT`.
    pub(crate) fn alone(&self) -> ast::Statement {
        match self.statement.clone() {
            ast::Statement::Insert(insert) => ast::Statement::Insert(ast::Insert { on: None, ..insert }),
            other => other,
        }
    }
}

fn conflict(on: &OnConflict) -> Result<Conflict<'_>> {
    let (columns, place) = match &on.conflict_target {
        None => (None, None),
        Some(ast::ConflictTarget::Columns(columns)) => {
            let place = columns.first().and_then(|column| Position::from_location(column.span.start));
            (Some(columns.iter().map(fold).collect()), place)
        }
        Some(ast::ConflictTarget::OnConstraint(name)) => {
            return Err(Error::unsupported("ON CONFLICT ON CONSTRAINT is not supported")
                .with_hint("Write the columns of the key: ON CONFLICT (key) ….")
                .or_at(Position::from_location(name.span().start)));
        }
    };
    match &on.action {
        OnConflictAction::DoNothing => Ok(Conflict { columns, place, set: None, condition: None }),
        OnConflictAction::DoUpdate(update) => {
            if columns.is_none() {
                return Err(Error::invalid("ON CONFLICT DO UPDATE does not say by which columns")
                    .with_hint("Write ON CONFLICT (key) DO UPDATE SET …."));
            }
            let set = Some(set_columns(&update.assignments)?);
            Ok(Conflict { columns, place, set, condition: update.selection.as_ref() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::{Statement, parse};

    fn change(sql: &str) -> Change {
        match parse(sql).map(|mut all| all.remove(0).statement) {
            Ok(Statement::Change(change)) => *change,
            other => panic!("{sql}: {other:?}"),
        }
    }

    #[test]
    fn what_they_say() {
        let update =
            change("UPDATE public.S AS x SET a = 1, (\"B\", c) = (x.a, (SELECT max(b) FROM t)) FROM t WHERE x.a > 2");
        assert_eq!((update.verb(), update.target.to_string().as_str()), ("UPDATE", "s"));
        let set = update.assignments().unwrap();
        assert_eq!(set.iter().map(|s| s.name().unwrap()).collect::<Vec<_>>(), ["a", "B", "c"]);
        assert_eq!((update.others().len(), update.condition().is_some()), (1, true));
        let delete = change("DELETE FROM s USING t, u WHERE s.a = t.a");
        assert_eq!((delete.verb(), delete.others().len()), ("DELETE", 2));
        assert_eq!(change("TRUNCATE TABLE s").verb(), "TRUNCATE");
    }

    #[test]
    fn what_tells_of_rows() {
        for (sql, tells) in [
            ("TRUNCATE s", false),
            ("DELETE FROM s", false),
            ("DELETE FROM s WHERE true", false),
            ("DELETE FROM s WHERE a = 1", true),
            ("DELETE FROM s USING t", true),
            ("UPDATE s SET a = 1 + 2", false),
            ("UPDATE s SET a = b", true),
            ("UPDATE s SET a = 1 WHERE EXISTS (SELECT 1)", true),
            ("UPDATE s SET a = (SELECT 1)", true),
        ] {
            assert_eq!(change(sql).tells(), tells, "{sql}");
        }
    }

    #[test]
    fn what_they_may_not_say_and_where() {
        for (sql, word, column) in [
            ("DELETE FROM s WHERE a = 1 LIMIT 3", "LIMIT", 27),
            ("DELETE FROM s ORDER BY a", "ORDER BY", 15),
            ("DELETE FROM s, t WHERE true", "several streams", 1),
            ("DELETE FROM s (a) WHERE true", "a stream's name", 13),
            ("DELETE FROM s AS x (b) WHERE b = 1", "a stream's name", 13),
            ("UPDATE s JOIN t ON true SET a = 1", "JOIN", 10),
            ("UPDATE s SET a = 1, A = 2", "twice", 21),
            ("UPDATE s SET (a, b) = (1, 2, 3)", "3 values to 2 columns", 15),
            ("UPDATE s SET a = DEFAULT", "DEFAULT", 14),
            ("UPDATE s SET a = (SELECT b FROM t TABLESAMPLE (1))", "TABLESAMPLE", 35),
            ("TRUNCATE s, t", "several streams", 1),
            ("TRUNCATE ONLY s", "ONLY", 10),
            ("INSERT INTO s VALUES (1) ON CONFLICT ON CONSTRAINT k DO NOTHING", "ON CONSTRAINT", 52),
            ("INSERT INTO s VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 1, a = 2", "twice", 63),
        ] {
            let e = parse(sql).map(|_| ()).expect_err(sql);
            assert!(e.message().contains(word), "{sql}: {e}");
            assert_eq!(e.position().map(|at| at.column), Some(column), "{sql}: {e}");
        }
    }

    #[test]
    fn calls_outside_of_queries() {
        let update =
            change("UPDATE s SET a = Sum(a) + abs(b), c = (SELECT max(b) FROM t), d = rank() OVER (ORDER BY a)");
        let set = update.assignments().unwrap();
        let calls: Vec<String> = calls(set.iter().map(|s| s.value)).into_iter().map(|(name, _)| name).collect();
        assert_eq!(calls, ["sum", "abs"]);
    }
}
