//! A filter of a batch plan that no rule moves: neither the logical ones nor the physical ones know it.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchemaRef, DataFusionError};
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::ReplaceChildrenOptions;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use millstream_engine::expr::harden;

use crate::error::Error;

/// A filter that is not moved.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub(super) struct StayPut {
    pub(super) predicate: Expr,
    pub(super) input: LogicalPlan,
}

impl UserDefinedLogicalNodeCore for StayPut {
    fn name(&self) -> &str {
        "StayPut"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![self.predicate.clone()]
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filter: {}", self.predicate)
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        match (exprs.pop(), inputs.pop()) {
            (Some(predicate), Some(input)) => Ok(StayPut { predicate, input }),
            _ => Err(DataFusionError::Internal("a filter without a condition or an input".to_owned())),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let mut columns = output_columns.to_vec();
        for column in self.predicate.column_refs() {
            columns.push(self.input.schema().index_of_column(column).ok()?);
        }
        columns.sort_unstable();
        columns.dedup();
        Some(vec![columns])
    }
}

/// Runs a [`FilterExec`] that its neighbours do not see.
#[derive(Clone, Debug)]
struct StayPutExec {
    filter: Arc<FilterExec>,
}

impl StayPutExec {
    fn over(&self, mut children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        let none = || DataFusionError::Internal("a filter without an input".to_owned());
        let filter = FilterExec::try_new(self.filter.predicate().clone(), children.pop().ok_or_else(none)?)?;
        Ok(Arc::new(StayPutExec { filter: Arc::new(filter) }))
    }
}

impl DisplayAs for StayPutExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StayPutExec: {}", self.filter.predicate())
    }
}

impl ExecutionPlan for StayPutExec {
    fn name(&self) -> &str {
        "StayPutExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.filter.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![self.filter.input()]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        f(self.filter.predicate())
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        self.over(children)
    }

    // Required by the trait though it is deprecated there; replace_children is what is called.
    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        self.over(children)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        self.filter.execute(partition, context)
    }
}

/// Makes the filter of [`StayPut`].
#[derive(Debug)]
pub(super) struct StayPutPlanner;

#[async_trait]
impl ExtensionPlanner for StayPutPlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        _context: &PhysicalPlanningContext,
    ) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
        let Some(filter) = node.as_any().downcast_ref::<StayPut>() else { return Ok(None) };
        let [input] = physical_inputs else {
            return Err(DataFusionError::Internal("a filter has one input".to_owned()));
        };
        let predicate = session.create_physical_expr(filter.predicate.clone(), filter.input.schema())?;
        let predicate = harden(predicate, &input.schema()).map_err(Error::from)?;
        Ok(Some(Arc::new(StayPutExec { filter: Arc::new(FilterExec::try_new(predicate, input.clone())?) })))
    }
}
