//! `JOIN s FOR SYSTEM_TIME AS OF now()`: each row is looked up once, in what `s` holds as it comes.
//!
//! The planner drops the clause (DataFusion 55), so it becomes a node over `s`. In batch that is `s`: now is when the query runs. In a
//! continuous query it makes a lookup of the join that it is right of, wherever filters and projections come between.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchemaRef, DataFusionError};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use datafusion::sql::sqlparser::ast::TableFactor;

/// A relation in which rows are looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub(super) struct AsOfNow {
    pub(super) input: LogicalPlan,
}

impl AsOfNow {
    /// The node, if `plan` is one.
    pub(super) fn of(plan: &LogicalPlan) -> Option<&AsOfNow> {
        match plan {
            LogicalPlan::Extension(e) => e.node.as_any().downcast_ref(),
            _ => None,
        }
    }

    /// Whether `plan`, the right side of a join, is such a relation, or rows and columns of one.
    pub(super) fn is_right(plan: &LogicalPlan) -> bool {
        match plan {
            LogicalPlan::SubqueryAlias(alias) => Self::is_right(&alias.input),
            LogicalPlan::Projection(projection) => Self::is_right(&projection.input),
            LogicalPlan::Filter(filter) => Self::is_right(&filter.input),
            plan => Self::of(plan).is_some(),
        }
    }
}

impl UserDefinedLogicalNodeCore for AsOfNow {
    fn name(&self) -> &str {
        "AsOfNow"
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

    /// What is not looked for need not be kept.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        HashSet::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AsOfNow")
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let none = || DataFusionError::Internal("nothing to be looked up in".to_owned());
        Ok(AsOfNow { input: inputs.pop().ok_or_else(none)? })
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![output_columns.to_vec()])
    }
}

/// Plans a table with the clause; which clauses there may be `check_query` has said.
#[derive(Debug)]
pub(super) struct Versions;

impl RelationPlanner for Versions {
    fn plan_relation(
        &self,
        mut relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> DfResult<RelationPlanning> {
        if let TableFactor::Table { version, .. } = &mut relation
            && version.take().is_some()
        {
            let node = AsOfNow { input: context.plan(relation)? };
            let plan = LogicalPlan::Extension(Extension { node: Arc::new(node) });
            return Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))));
        }
        Ok(RelationPlanning::Original(Box::new(relation)))
    }
}

/// In batch the node is its input.
#[derive(Debug)]
pub(super) struct AsOfNowPlanner;

#[async_trait]
impl ExtensionPlanner for AsOfNowPlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        _session: &dyn Session,
        _context: &PhysicalPlanningContext,
    ) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
        let is_node = node.as_any().is::<AsOfNow>();
        Ok(physical_inputs.first().filter(|_| is_node).cloned())
    }
}

/// `inner`, which puts joins into another order, where no row is looked up: what a row is joined with before counts then.
#[derive(Debug)]
pub(super) struct InOrder(pub(super) Arc<dyn OptimizerRule + Send + Sync>);

impl OptimizerRule for InOrder {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        if plan.exists(|node| Ok(AsOfNow::of(node).is_some()))? {
            return Ok(Transformed::no(plan));
        }
        self.0.rewrite(plan, config)
    }
}
