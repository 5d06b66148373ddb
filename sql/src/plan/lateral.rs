//! `FROM t, unnest(t.l) AS u(x)`, `LATERAL (SELECT …)` without FROM: rows that are made of one row each.
//!
//! The planner leaves a subquery right of a join, and what makes joins of subqueries finds no table in it (DataFusion 55). It is computed
//! of each row by itself, so it is computed over the left side, whose columns go along:
//!
//! ```text
//! t JOIN (SELECT unnest(t.l) AS x)        SELECT t.*, x FROM (SELECT t.*, unnest(t.l) AS x FROM t)
//! ```
//! Of a LEFT JOIN a row stays whose list is empty, with NULL.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, JoinType, NullHandling, ScalarValue};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, Filter, Join, LogicalPlan, LogicalPlanBuilder, Projection, Unnest};

/// What columns are called on the way.
const MADE: &str = "_made";

/// `plan` with such subqueries computed over the left sides of their joins.
pub(super) fn beside_rows(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let beside = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Join(join) if matches!(join.join_type, JoinType::Inner | JoinType::Left) => {
            Ok(match over_left(&join)? {
                Some(plan) => Transformed::yes(plan),
                None => Transformed::no(LogicalPlan::Join(join)),
            })
        }
        plan => Ok(Transformed::no(plan)),
    })?;
    Ok(beside.data)
}

fn over_left(join: &Join) -> DfResult<Option<LogicalPlan>> {
    let Some(subquery) = subquery_of(&join.right) else { return Ok(None) };
    let keeps = join.join_type == JoinType::Left;
    let is_true = |e: &Expr| matches!(e, Expr::Literal(ScalarValue::Boolean(Some(true)), _));
    let mut conditions: Vec<Expr> = join.on.iter().map(|(a, b)| a.clone().eq(b.clone())).collect();
    conditions.extend(join.filter.clone().filter(|filter| !is_true(filter)));
    if keeps && !conditions.is_empty() {
        return Ok(None);
    }
    let over = Over { left: Arc::clone(&join.left), keeps };
    let Some(made) = over.made(subquery)? else { return Ok(None) };
    // What is said of a row without elements has to be NULL.
    if keeps && made.unnests > 0 && !made.columns.iter().all(|column| column.is_element) {
        return Ok(None);
    }
    let made_columns = made.columns.iter().map(|made| made.column.clone());
    let given = join.left.schema().columns().into_iter().chain(made_columns).map(Expr::Column);
    let named = given.zip(join.schema.iter()).map(|(e, (of, field))| e.alias_qualified(of.cloned(), field.name()));
    let rows = Projection::try_new_with_schema(named.collect(), Arc::new(made.plan), Arc::clone(&join.schema))?;
    let rows = LogicalPlan::Projection(rows);
    Ok(Some(match conjunction(conditions) {
        Some(condition) => LogicalPlan::Filter(Filter::try_new(condition, Arc::new(rows))?),
        None => rows,
    }))
}

/// The subquery that the right side of a join is, under other names maybe.
fn subquery_of(plan: &LogicalPlan) -> Option<&LogicalPlan> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => subquery_of(&alias.input),
        LogicalPlan::Subquery(subquery) => Some(&subquery.subquery),
        _ => None,
    }
}

/// A part of a subquery, computed over the left side: behind the columns of that.
struct Made {
    plan: LogicalPlan,
    columns: Vec<MadeColumn>,
    unnests: usize,
}

#[derive(Clone)]
struct MadeColumn {
    column: Column,
    /// It has the elements of a list.
    is_element: bool,
}

struct Over {
    left: Arc<LogicalPlan>,
    /// Whether rows stay of which nothing is made.
    keeps: bool,
}

impl Over {
    /// `part` over the left side; nothing where it is more than what is made of one row.
    fn made(&self, part: &LogicalPlan) -> DfResult<Option<Made>> {
        match part {
            LogicalPlan::EmptyRelation(e) if e.produce_one_row => {
                Ok(Some(Made { plan: self.left.as_ref().clone(), columns: vec![], unnests: 0 }))
            }
            LogicalPlan::SubqueryAlias(alias) => self.made(&alias.input),
            LogicalPlan::Subquery(subquery) => self.made(&subquery.subquery),
            LogicalPlan::Projection(projection) => match self.made(&projection.input)? {
                Some(input) => self.project(projection, input),
                None => Ok(None),
            },
            LogicalPlan::Filter(filter) if !self.keeps => {
                let Some(Made { plan, columns, unnests }) = self.made(&filter.input)? else { return Ok(None) };
                let Some(predicate) = self.seen(&filter.predicate, &filter.input, &columns)? else { return Ok(None) };
                let plan = LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(plan))?);
                Ok(Some(Made { plan, columns, unnests }))
            }
            LogicalPlan::Unnest(unnest) => match self.made(&unnest.input)? {
                Some(input) => self.unnest(unnest, input),
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }

    fn project(&self, projection: &Projection, input: Made) -> DfResult<Option<Made>> {
        let mut all: Vec<Expr> = self.left.schema().columns().into_iter().map(Expr::Column).collect();
        let mut columns = vec![];
        for (i, expr) in projection.expr.iter().enumerate() {
            let Some(seen) = self.seen(expr, &projection.input, &input.columns)? else { return Ok(None) };
            let seen = seen.unalias_nested().data;
            let is_element = input.columns.iter().any(|c| c.is_element && seen == Expr::Column(c.column.clone()));
            let name = format!("{MADE}_{i}");
            columns.push(MadeColumn { column: Column::from_name(&name), is_element });
            all.push(seen.alias(name));
        }
        let plan = LogicalPlan::Projection(Projection::try_new(all, Arc::new(input.plan))?);
        Ok(Some(Made { plan, columns, unnests: input.unnests }))
    }

    fn unnest(&self, unnest: &Unnest, input: Made) -> DfResult<Option<Made>> {
        if self.keeps && input.unnests > 0 {
            return Ok(None);
        }
        let place = |column: &Column| unnest.input.schema().index_of_column(column);
        let made = |column: &Column| Ok(input.columns[place(column)?].column.clone());
        let lists = unnest.exec_columns.iter().map(made).collect::<DfResult<Vec<_>>>()?;
        let mut options = unnest.options.clone();
        for (i, recursion) in options.recursions.iter_mut().enumerate() {
            recursion.input_column = made(&recursion.input_column)?;
            recursion.output_column = Column::from_name(format!("{MADE}_of_{i}"));
        }
        if self.keeps {
            options.null_handling = NullHandling::PreserveAndExpandEmpty;
        }
        let plan = LogicalPlanBuilder::from(input.plan).unnest_columns_with_options(lists, options)?.build()?;
        let given = plan.schema().columns().into_iter().skip(self.left.schema().fields().len());
        let is_list = |from: &usize| unnest.list_type_columns.iter().any(|(list, _)| list == from);
        let columns = given.zip(&unnest.dependency_indices);
        let columns = columns.map(|(column, from)| MadeColumn { column, is_element: is_list(from) }).collect();
        Ok(Some(Made { plan, columns, unnests: input.unnests + 1 }))
    }

    /// `expr` over the rows of `input`, as it is over those of the left side and what has been made of them.
    fn seen(&self, expr: &Expr, input: &LogicalPlan, columns: &[MadeColumn]) -> DfResult<Option<Expr>> {
        let has_query = |e: &Expr| {
            Ok(matches!(e, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_)))
        };
        if expr.exists(has_query)? {
            return Ok(None);
        }
        let seen = expr.clone().transform_up(|e| match e {
            Expr::Column(column) => {
                let at = input.schema().index_of_column(&column)?;
                Ok(Transformed::yes(Expr::Column(columns[at].column.clone())))
            }
            Expr::OuterReferenceColumn(_, column) if self.left.schema().has_column(&column) => {
                Ok(Transformed::yes(Expr::Column(column)))
            }
            e => Ok(Transformed::no(e)),
        })?;
        Ok(Some(seen.data))
    }
}
