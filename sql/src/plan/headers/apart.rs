//! Columns of one name told apart, for a planner that refuses them.
//!
//! Only what has been refused comes here, so a query without equal names is planned as it is written:
//! - the second column `a` of a SELECT gets the name `a_1`; at the top, where it is the result's, one that is shown
//!   as `a`. What `*` stands for is written out where one of its columns is like another;
//! - `CAST(a AS DOUBLE)` is `a` to the planner, as a key or an argument too: written casts get names with their types.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, DataFusionError, SchemaError, TableReference};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Cast, Expr as Planned, LogicalPlan, TryCast};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, Cte, Expr, Ident, OrderBy, OrderByKind, Query, Select, SelectItem, SetExpr, VisitMut,
    VisitorMut, WildcardAdditionalOptions, With,
};
use millstream_engine::format::sql_name;

use super::{again, query_of, unique};
use crate::error::{Error, Position, Result};
use crate::plan::numbers::marked;
use crate::plan::syntax::taken;
use crate::statement::fold;

/// An operator that no SQL text can have.
const CAST: &str = "is a cast";

/// Whether a statement was refused because two of its columns, keys or aggregates have one name.
pub(in crate::plan) fn are_equal_names(e: &DataFusionError) -> bool {
    match e {
        DataFusionError::SchemaError(e, _) => {
            matches!(
                e.as_ref(),
                SchemaError::DuplicateQualifiedField { .. }
                    | SchemaError::DuplicateUnqualifiedField { .. }
                    | SchemaError::AmbiguousReference { .. }
            ) || is_beside_equal(e)
        }
        DataFusionError::Plan(message) => message.contains("require unique expression names"),
        DataFusionError::Context(_, e) | DataFusionError::Diagnostic(_, e) => are_equal_names(e),
        DataFusionError::Collection(all) => all.iter().any(are_equal_names),
        _ => false,
    }
}

/// Whether a column was looked for among equal ones, which the planner may have numbered in its way: `id` and `id:1`.
fn is_beside_equal(e: &SchemaError) -> bool {
    let SchemaError::FieldNotFound { valid_fields, .. } = e else { return false };
    let mut names = HashSet::new();
    valid_fields.iter().any(|column| is_numbered(&column.name) || !names.insert(&column.name))
}

fn is_numbered(name: &str) -> bool {
    name.rsplit_once(':').is_some_and(|(name, n)| !name.is_empty() && n.parse::<u32>().is_ok())
}

/// Whether a statement was refused because of a column that there is not.
pub(in crate::plan) fn is_missing(e: &DataFusionError) -> bool {
    matches!(e.find_root(), DataFusionError::SchemaError(e, _) if matches!(e.as_ref(), SchemaError::FieldNotFound { .. }))
}

/// Whether the planner took columns, keys or aggregates of one name: it numbers columns in its way, and its
/// optimizer refuses the others.
pub(in crate::plan) fn has_equal_names(plan: &LogicalPlan) -> DfResult<bool> {
    plan.exists(|node| {
        let mut names = HashSet::new();
        let mut all_new = |exprs: &[Planned]| exprs.iter().all(|e| names.insert(e.schema_name().to_string()));
        Ok(match node {
            LogicalPlan::Aggregate(a) => !(all_new(&a.group_expr) && all_new(&a.aggr_expr)),
            LogicalPlan::Window(w) => !all_new(&w.window_expr),
            LogicalPlan::SubqueryAlias(s) => s.schema.fields().iter().any(|f| is_numbered(f.name())),
            _ => false,
        })
    })
}

/// Gives equal names in `statement` an end of their own. `plan` plans a query, for what `*` stands for in it.
pub(in crate::plan) fn tell_apart(
    statement: &mut DfStatement,
    plan: &dyn Fn(DfStatement) -> DfResult<LogicalPlan>,
) -> Result<()> {
    match query_of(statement) {
        Some(query) => Apart { plan }.query(query, &[], true),
        None => Ok(()),
    }
}

struct Apart<'a> {
    plan: &'a dyn Fn(DfStatement) -> DfResult<LogicalPlan>,
}

impl Apart<'_> {
    /// `scope` is what WITH names around `query`; `top` says that its columns are those of the result.
    fn query(&self, query: &mut Query, scope: &[Cte], top: bool) -> Result<()> {
        let mut scope = scope.to_vec();
        for cte in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
            self.query(&mut cte.query, &scope, false)?;
            scope.push(cte.clone());
        }
        self.body(&mut query.body, query.order_by.as_mut(), &scope, top)
    }

    fn body(&self, body: &mut SetExpr, order_by: Option<&mut OrderBy>, scope: &[Cte], top: bool) -> Result<()> {
        match body {
            SetExpr::Select(select) => {
                if let Some(order_by) = order_by {
                    self.inside(order_by, scope)?;
                    self.select(select, Some(order_by), scope, top)
                } else {
                    self.select(select, None, scope, top)
                }
            }
            SetExpr::Query(query) => self.query(query, scope, top),
            SetExpr::SetOperation { left, right, .. } => {
                self.body(left, None, scope, top)?;
                self.body(right, None, scope, false)
            }
            _ => Ok(()),
        }
    }

    fn select(&self, select: &mut Select, order_by: Option<&OrderBy>, scope: &[Cte], top: bool) -> Result<()> {
        self.inside(select, scope)?;
        let mut names = Names { taken: HashSet::new(), again: HashSet::new(), top };
        let mut items = Vec::with_capacity(select.projection.len());
        for item in std::mem::take(&mut select.projection) {
            match item {
                SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => {
                    let columns = self.columns(&item, select, scope);
                    names.expand(item, columns, &mut items);
                }
                SelectItem::UnnamedExpr(expr) => items.push(names.named(expr)),
                SelectItem::ExprWithAlias { expr, alias } => {
                    let alias = names.next(&fold(&alias)).map_or(alias, |other| Ident::with_quote('"', other));
                    items.push(SelectItem::ExprWithAlias { expr, alias });
                }
                item => items.push(item),
            }
        }
        select.projection = items;
        order_by.map_or(Ok(()), |order_by| names.refuse_order(order_by))
    }

    /// The queries and casts in a part of one, and not in those inside it.
    fn inside(&self, part: &mut impl VisitMut, scope: &[Cte]) -> Result<()> {
        match part.visit(&mut Inside { apart: self, scope, depth: 0 }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(e) => Err(e),
        }
    }

    /// The columns that `item` stands for; none where that cannot be told by itself.
    fn columns(&self, item: &SelectItem, select: &Select, scope: &[Cte]) -> Option<Vec<Vec<Ident>>> {
        let select = Select {
            projection: vec![item.clone()],
            distinct: None,
            selection: None,
            group_by: ast::GroupByExpr::Expressions(vec![], vec![]),
            having: None,
            named_window: vec![],
            qualify: None,
            ..select.clone()
        };
        let with = With {
            with_token: ast::helpers::attached_token::AttachedToken::empty(),
            recursive: false,
            cte_tables: scope.to_vec(),
        };
        let query = Query {
            with: (!scope.is_empty()).then_some(with),
            body: Box::new(SetExpr::Select(Box::new(select))),
            order_by: None,
            limit_clause: None,
            fetch: None,
            locks: vec![],
            for_clause: None,
            settings: None,
            format_clause: None,
            pipe_operators: vec![],
        };
        let statement = DfStatement::Statement(Box::new(ast::Statement::Query(Box::new(query))));
        // What is wrong in FROM is found, and said, where the whole is planned.
        let plan = (self.plan)(statement).ok()?;
        let column = |(table, field): (Option<&TableReference>, &arrow::datatypes::FieldRef)| {
            let parts = table.map(TableReference::to_vec).unwrap_or_default();
            parts.into_iter().chain([field.name().clone()]).map(|part| Ident::with_quote('"', part)).collect()
        };
        Some(plan.schema().iter().map(column).collect())
    }
}

struct Inside<'a, 'b> {
    apart: &'a Apart<'b>,
    scope: &'a [Cte],
    /// How many queries the walk is inside of.
    depth: usize,
}

impl VisitorMut for Inside<'_, '_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        if self.depth == 0
            && let Err(e) = self.apart.query(query, self.scope, false)
        {
            return ControlFlow::Break(e);
        }
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        // What is cast from a literal has the literal's name, and a function may ask for a literal.
        let is_cast = matches!(expr, Expr::Cast { expr, .. } if !matches!(expr.as_ref(), Expr::Value(_)));
        if self.depth == 0 && is_cast {
            *expr = marked(taken(expr), CAST);
        }
        ControlFlow::Continue(())
    }
}

/// The names that the columns of a SELECT have so far.
struct Names {
    taken: HashSet<String>,
    /// Those that several columns have.
    again: HashSet<String>,
    top: bool,
}

impl Names {
    /// What the next column called `name` is to be called instead, if anything.
    fn next(&mut self, name: &str) -> Option<String> {
        if self.taken.insert(name.to_owned()) {
            return None;
        }
        self.again.insert(name.to_owned());
        if !self.top {
            return Some(unique(name, &mut self.taken));
        }
        let other = (1..).map(|n| again(name, n)).find(|other| !self.taken.contains(other))?;
        self.taken.insert(other.clone());
        Some(other)
    }

    fn named(&mut self, expr: Expr) -> SelectItem {
        let name = match &expr {
            Expr::Identifier(name) => Some(fold(name)),
            Expr::CompoundIdentifier(parts) => parts.last().map(fold),
            _ => None,
        };
        match name.and_then(|name| self.next(&name)) {
            Some(other) => SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', other) },
            None => SelectItem::UnnamedExpr(expr),
        }
    }

    /// `*` as it is, or as its columns.
    fn expand(&mut self, item: SelectItem, columns: Option<Vec<Vec<Ident>>>, items: &mut Vec<SelectItem>) {
        let Some(columns) = columns else { return items.push(item) };
        let (SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options)) = &item else { return };
        let replaces = *options != WildcardAdditionalOptions { opt_replace: None, ..options.clone() };
        let names: Vec<_> = columns.iter().filter_map(|c| c.last()).map(|name| name.value.clone()).collect();
        let mut new = HashSet::new();
        let all_new = names.iter().all(|name| !self.taken.contains(name) && new.insert(name));
        if all_new || replaces {
            self.taken.extend(names);
            return items.push(item);
        }
        for mut column in columns {
            let expr = match column.len() {
                1 => column.pop().map(Expr::Identifier),
                _ => Some(Expr::CompoundIdentifier(column)),
            };
            items.extend(expr.map(|expr| self.named(expr)));
        }
    }

    /// Refuses to order by a name that several columns have.
    fn refuse_order(&self, order_by: &OrderBy) -> Result<()> {
        let OrderByKind::Expressions(exprs) = &order_by.kind else { return Ok(()) };
        for by in exprs {
            if let Expr::Identifier(name) = &by.expr
                && self.again.contains(&fold(name))
            {
                let error =
                    Error::invalid(format!("ORDER BY \"{}\" is ambiguous: several columns have that name", fold(name)))
                        .with_hint("Give one of them another name (SELECT a AS b), or write its number.");
                return Err(error.or_at(Position::from_location(name.span.start)));
            }
        }
        Ok(())
    }
}

/// Plans the casts that [`tell_apart`] marked.
#[derive(Debug)]
pub(in crate::plan) struct CastNames;

impl ExprPlanner for CastNames {
    fn plan_binary_op(&self, expr: RawBinaryExpr, _schema: &DFSchema) -> DfResult<PlannerResult<RawBinaryExpr>> {
        match &expr.op {
            BinaryOperator::Custom(mark) if mark == CAST => {}
            _ => return Ok(PlannerResult::Original(expr)),
        }
        let name = match &expr.left {
            Planned::Cast(Cast { expr, field }) | Planned::TryCast(TryCast { expr, field }) => {
                format!("CAST({} AS {})", expr.schema_name(), sql_name(field.data_type()))
            }
            _ => return Ok(PlannerResult::Planned(expr.left)),
        };
        Ok(PlannerResult::Planned(expr.left.alias(name)))
    }
}
