//! ASOF joins as they are written, in a form that the planner plans.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::{DFSchemaRef, DataFusionError};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion::sql::sqlparser::ast::{
    self, Join, JoinConstraint, JoinOperator, Select, TableFactor, TableWithJoins, VisitMut, VisitorMut,
};

use crate::plan::syntax::nothing;

/// Makes other joins of the ASOF joins in `syntax`, whose right sides say what they are.
pub(in crate::plan) fn as_joins(syntax: &mut impl VisitMut) {
    let _ = syntax.visit(&mut Joins);
}

struct Joins;

impl VisitorMut for Joins {
    type Break = ();

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        select.from.iter_mut().for_each(|table| table.joins.iter_mut().for_each(reworded));
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::NestedJoin { table_with_joins, .. } = factor {
            table_with_joins.joins.iter_mut().for_each(reworded);
        }
        ControlFlow::Continue(())
    }
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
