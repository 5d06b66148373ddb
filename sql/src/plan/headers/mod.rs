//! What the columns of a query are called.
//!
//! A column without a name is called by its expression as it was written, so `sum(price * 2)` is the column
//! `sum(price * 2)` ([`written`]). Several columns may have one name: the result of a query shows each under its own
//! ([`Headed`]), where it is kept, and in a subquery, the second `a` is `a_1` ([`apart`]).
//!
//! Both are done in the syntax tree, before planning: the planner makes up names of its own and refuses equal ones.

mod apart;
mod written;

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::Column;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection};
use datafusion::sql::parser::{CopyToSource, Statement as DfStatement};
use datafusion::sql::sqlparser::ast::{self, Query};

use crate::error::{Error, Result};

pub(super) use apart::{CastNames, are_equal_names, has_equal_names, is_missing, tell_apart};
pub(super) use written::name_items;

/// A plan whose columns have names of their own, and what a result calls them.
pub struct Headed {
    /// The plan. `COPY` and `INSERT` have no headers.
    pub plan: LogicalPlan,
    /// The names to show, one for each column; some may be equal.
    pub headers: Vec<String>,
}

/// Stands behind a name that is there already, with a number behind it. No SQL text has it: it is not a character.
const AGAIN: char = '\u{fdd0}';

/// The `n`-th column called `name`.
fn again(name: &str, n: usize) -> String {
    format!("{name}{AGAIN}{n}")
}

/// A name as it is shown.
fn shown(name: &str) -> &str {
    name.split_once(AGAIN).map_or(name, |(name, _)| name)
}

/// The query of a statement.
fn query_of(statement: &mut DfStatement) -> Option<&mut Query> {
    match statement {
        DfStatement::Statement(statement) => match statement.as_mut() {
            ast::Statement::Query(query) => Some(query),
            ast::Statement::Insert(insert) => insert.source.as_deref_mut(),
            _ => None,
        },
        DfStatement::CopyTo(copy) => match &mut copy.source {
            CopyToSource::Query(query) => Some(query),
            CopyToSource::Relation(_) => None,
        },
        _ => None,
    }
}

/// A name that `taken` does not have yet: `name`, `name_1`, `name_2`, ….
fn unique(name: &str, taken: &mut HashSet<String>) -> String {
    let mut unique = name.to_owned();
    let mut n = 0;
    while !taken.insert(unique.clone()) {
        n += 1;
        unique = format!("{name}_{n}");
    }
    unique
}

/// `names`, each as another: the first of its name keeps it, the next `a` is `a_1`.
pub fn told_apart(names: &[String]) -> Vec<String> {
    let mut taken: HashSet<String> = names.iter().cloned().collect();
    let mut first = HashSet::new();
    let name = |name: &String| if first.insert(name.clone()) { name.clone() } else { unique(name, &mut taken) };
    names.iter().map(name).collect()
}

/// Gives a planned statement its headers, and its columns names of their own.
pub(super) fn headed(plan: LogicalPlan) -> DfResult<Headed> {
    match plan {
        LogicalPlan::Copy(mut copy) => {
            copy.input = Arc::new(headed(Arc::unwrap_or_clone(copy.input))?.plan);
            Ok(Headed { plan: LogicalPlan::Copy(copy), headers: vec![] })
        }
        plan @ LogicalPlan::Dml(_) => Ok(Headed { plan, headers: vec![] }),
        plan => {
            let fields = plan.schema().fields();
            let headers: Vec<_> = fields.iter().map(|f| shown(f.name()).to_owned()).collect();
            Ok(Headed { plan: renamed(plan, &told_apart(&headers))?, headers })
        }
    }
}

/// `plan` with its first columns called `names`, each of which is another. `what` is what they are columns of.
pub(super) fn with_names(plan: LogicalPlan, names: &[String], what: &str) -> Result<LogicalPlan> {
    let fields = plan.schema().fields();
    if names.len() > fields.len() {
        let (names, columns) = (names.len(), fields.len());
        return Err(Error::invalid(format!("{what} has names for {names} columns, and its query gives {columns}"))
            .with_hint("Write as many names as the query has columns, or fewer."));
    }
    let mut taken: HashSet<String> = names.iter().cloned().collect();
    let rest = fields.iter().skip(names.len()).map(|f| unique(f.name(), &mut taken));
    let names: Vec<_> = names.iter().cloned().chain(rest).collect();
    Ok(renamed(plan, &names)?)
}

/// `plan` with its columns called `names`.
fn renamed(plan: LogicalPlan, names: &[String]) -> DfResult<LogicalPlan> {
    if plan.schema().fields().iter().zip(names).all(|(field, name)| field.name() == name) {
        return Ok(plan);
    }
    let rename = |(expr, name): (Expr, &String)| {
        let (relation, is) = expr.qualified_name();
        match &is == name {
            true => expr,
            false => expr.alias_qualified(relation, name),
        }
    };
    let (exprs, input): (Vec<_>, _) = match plan {
        LogicalPlan::Projection(Projection { expr, input, .. }) => (expr, input),
        plan => {
            let schema = Arc::clone(plan.schema());
            (schema.iter().map(|field| Expr::Column(Column::from(field))).collect(), Arc::new(plan))
        }
    };
    let exprs = exprs.into_iter().zip(names).map(rename).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, input)?))
}

/// A word of SQL text in a message or a name, on one line.
fn one_line(text: &str) -> Cow<'_, str> {
    match text.contains(char::is_control) {
        true => Cow::Owned(text.split(char::is_control).map(str::trim).collect::<Vec<_>>().join(" ")),
        false => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests;
