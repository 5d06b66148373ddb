//! ASOF joins as they are written, in a form that the planner plans.
//!
//! `l JOIN r FOR SYSTEM_TIME AS OF l.ts` is one: each row of `r` is a version, from its event time on, of what has its key.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::{DFSchemaRef, DataFusionError};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, Cte, Ident, Join, JoinConstraint, JoinOperator, ObjectName, Query, Select, Spanned,
    TableFactor, TableVersion, TableWithJoins, VisitMut, VisitorMut,
};

use crate::error::{Error, Position, Result};
use crate::plan::syntax::nothing;
use crate::statement::{fold, is_now};

/// Makes other joins of the ASOF joins in `syntax`, whose right sides say what they are. `time_of` is asked for the event-time
/// column of a stream whose rows are versions.
pub(in crate::plan) fn as_joins(
    syntax: &mut impl VisitMut,
    time_of: &dyn Fn(&ObjectName) -> Result<String>,
) -> Result<()> {
    match syntax.visit(&mut Joins { time_of, named: vec![] }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(e) => Err(e),
    }
}

struct Joins<'a> {
    time_of: &'a dyn Fn(&ObjectName) -> Result<String>,
    /// What WITH names: no streams.
    named: Vec<Ident>,
}

fn ctes_of(query: &Query) -> impl Iterator<Item = &Cte> {
    query.with.iter().flat_map(|with| &with.cte_tables)
}

impl VisitorMut for Joins<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        self.named.extend(ctes_of(query).map(|cte| cte.alias.name.clone()));
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        // Outside of it they are streams again.
        self.named.truncate(self.named.len().saturating_sub(ctes_of(query).count()));
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        select.from.iter_mut().flat_map(|table| &mut table.joins).try_for_each(|join| self.join(join))
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        match factor {
            TableFactor::NestedJoin { table_with_joins, .. } => {
                table_with_joins.joins.iter_mut().try_for_each(|join| self.join(join))
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

impl Joins<'_> {
    fn join(&self, join: &mut Join) -> ControlFlow<Error> {
        if let Err(e) = self.by_version(join) {
            return ControlFlow::Break(e);
        }
        reworded(join);
        ControlFlow::Continue(())
    }

    /// `LEFT JOIN r FOR SYSTEM_TIME AS OF l.ts ON x` as `ASOF LEFT JOIN r MATCH_CONDITION (l.ts >= r.time) ON x`.
    fn by_version(&self, join: &mut Join) -> Result<()> {
        let TableFactor::Table { name, alias, version, .. } = &mut join.relation else { return Ok(()) };
        let time = match version {
            Some(TableVersion::ForSystemTimeAsOf(time)) if !is_now(time) => time.clone(),
            _ => return Ok(()),
        };
        let last = name.0.last().and_then(|part| part.as_ident()).cloned();
        let is_named = self.named.iter().any(|cte| last.as_ref().is_some_and(|last| fold(cte) == fold(last)));
        let column = match (&last, is_named) {
            (Some(_), false) => {
                (self.time_of)(name).map_err(|e| e.or_at(Position::from_location(name.span().start)))?
            }
            _ => return Err(no_versions(&name.to_string())),
        };
        let table = alias.as_ref().map(|alias| alias.name.clone()).or(last);
        let right = table.into_iter().chain([Ident::with_quote('"', column)]).collect();
        let match_condition = ast::Expr::BinaryOp {
            left: Box::new(time),
            op: BinaryOperator::GtEq,
            right: Box::new(ast::Expr::CompoundIdentifier(right)),
        };
        let (left_outer, constraint) = match &join.join_operator {
            JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => (false, constraint.clone()),
            JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => (true, constraint.clone()),
            _ => return Ok(()),
        };
        *version = None;
        join.join_operator = JoinOperator::AsOf { match_condition, constraint };
        join.global = left_outer;
        Ok(())
    }
}

/// `name` is nothing whose rows are versions.
pub(in crate::plan) fn no_versions(name: &str) -> Error {
    Error::unsupported(format!("\"{name}\" has no versions to be looked up AS OF a time")).with_hint(
        "Its rows have to be versions: a stream to which they are only added, without a PRIMARY KEY, and with a WATERMARK for the time from which \
         each is valid. Or write ASOF JOIN … MATCH_CONDITION (l.ts >= r.ts).",
    )
}

/// `ASOF JOIN r MATCH_CONDITION (c) ON x` as `JOIN (r ASOF JOIN … MATCH_CONDITION (c)) ON x`.
fn reworded(join: &mut Join) {
    let JoinOperator::AsOf { match_condition, constraint } = &mut join.join_operator else { return };
    let condition = std::mem::replace(match_condition, nothing());
    let constraint = match std::mem::replace(constraint, JoinConstraint::None) {
        JoinConstraint::None => JoinConstraint::On(ast::Expr::Value(ast::Value::Boolean(true).with_empty_span())),
        constraint => constraint,
    };
    let left_outer = std::mem::take(&mut join.global);
    join.join_operator = match left_outer {
        true => JoinOperator::LeftOuter(constraint),
        false => JoinOperator::Inner(constraint),
    };
    let none = || TableFactor::TableFunction { expr: nothing(), alias: None };
    let says = Join {
        relation: none(),
        global: false,
        join_operator: JoinOperator::AsOf { match_condition: condition, constraint: JoinConstraint::None },
    };
    let relation = std::mem::replace(&mut join.relation, none());
    let table_with_joins = Box::new(TableWithJoins { relation, joins: vec![says] });
    join.relation = TableFactor::NestedJoin { table_with_joins, alias: None };
}

/// The right side of an ASOF join, until the join is planned.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub(super) struct Matched {
    pub(super) input: LogicalPlan,
    pub(super) condition: ast::Expr,
}

impl Matched {
    /// The node, if `plan` is one.
    pub(super) fn of(plan: &LogicalPlan) -> Option<&Matched> {
        match plan {
            LogicalPlan::Extension(e) => e.node.as_any().downcast_ref(),
            _ => None,
        }
    }
}

impl UserDefinedLogicalNodeCore for Matched {
    fn name(&self) -> &str {
        "Matched"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![]
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Matched: {}", self.condition)
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let none = || DataFusionError::Internal("an ASOF join without a right side".to_owned());
        Ok(Matched { input: inputs.pop().ok_or_else(none)?, condition: self.condition.clone() })
    }
}

/// Plans such right sides.
#[derive(Debug)]
pub(in crate::plan) struct Matches;

impl RelationPlanner for Matches {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> DfResult<RelationPlanning> {
        if let TableFactor::NestedJoin { table_with_joins, alias: None } = &relation
            && let [Join { join_operator: JoinOperator::AsOf { match_condition, .. }, .. }] =
                &table_with_joins.joins[..]
        {
            let input = context.plan(table_with_joins.relation.clone())?;
            let node = Matched { input, condition: match_condition.clone() };
            let plan = LogicalPlan::Extension(Extension { node: Arc::new(node) });
            return Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))));
        }
        Ok(RelationPlanning::Original(Box::new(relation)))
    }
}
