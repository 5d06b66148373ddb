//! ASOF joins in batch: both sides sorted by key and time, and merged.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::SortOptions;
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::DataFusionError;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{
    Distribution, EquivalenceProperties, LexOrdering, OrderingRequirements, Partitioning, PhysicalExpr,
    PhysicalExprRef, PhysicalSortExpr,
};
use datafusion::physical_plan::execution_plan::{EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, InputDistributionRequirements, PlanProperties,
};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use futures::stream;

use super::AsOfJoin;
use super::merge::{Merge, Merging};
use crate::function::CanonicalFloats;

/// Merges both sides.
#[derive(Clone)]
struct AsOfExec {
    /// Each with its key and its time behind its columns.
    sides: [Arc<dyn ExecutionPlan>; 2],
    merging: Merging,
    properties: Arc<PlanProperties>,
}

impl AsOfExec {
    fn new(sides: [Arc<dyn ExecutionPlan>; 2], merging: Merging) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&merging.schema)),
            Partitioning::UnknownPartitioning(sides[0].output_partitioning().partition_count()),
            EmissionType::Incremental,
            sides[0].boundedness(),
        );
        AsOfExec { sides, merging, properties: Arc::new(properties) }
    }

    /// The columns of the key of a side, then that of its time.
    fn by(&self, side: usize) -> Vec<PhysicalExprRef> {
        let schema = self.sides[side].schema();
        let given = self.merging.given[side];
        let fields = schema.fields().iter().enumerate().skip(given);
        fields.map(|(at, field)| Arc::new(Column::new(field.name(), at)) as PhysicalExprRef).collect()
    }

    fn over(&self, children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        let sides = <[Arc<dyn ExecutionPlan>; 2]>::try_from(children).map_err(|_| two_sides())?;
        Ok(Arc::new(AsOfExec::new(sides, self.merging.clone())))
    }
}

fn two_sides() -> DataFusionError {
    DataFusionError::Internal("an ASOF join has two sides".to_owned())
}

impl fmt::Debug for AsOfExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsOfExec").field("merging", &self.merging).finish_non_exhaustive()
    }
}

impl DisplayAs for AsOfExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.merging.left_outer { "left" } else { "inner" };
        write!(f, "AsOfExec: {kind}, {}", self.merging.way.text())
    }
}

impl ExecutionPlan for AsOfExec {
    fn name(&self) -> &str {
        "AsOfExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.sides.iter().collect()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        let of = |side: usize| {
            let mut key = self.by(side);
            key.pop();
            match key.is_empty() {
                true => Distribution::SinglePartition,
                false => Distribution::KeyPartitioned(key),
            }
        };
        InputDistributionRequirements::co_partitioned(vec![of(0), of(1)])
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        let of = |side: usize| {
            let by = self.by(side).into_iter().map(|e| PhysicalSortExpr::new(e, SortOptions::default()));
            LexOrdering::new(by).map(OrderingRequirements::from)
        };
        vec![of(0), of(1)]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
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
        let left = self.sides[0].execute(partition, Arc::clone(&context))?;
        let right = self.sides[1].execute(partition, context)?;
        let merge = Merge::new(self.merging.clone(), left, right);
        let batches = stream::try_unfold(merge, |mut merge| async move {
            let batch: Option<RecordBatch> = merge.batch().await?;
            Ok(batch.map(|batch| (batch, merge)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}

/// Plans [`AsOfJoin`] for batch.
#[derive(Debug)]
pub(in crate::plan) struct AsOfPlanner;

#[async_trait]
impl ExtensionPlanner for AsOfPlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        _context: &PhysicalPlanningContext,
    ) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
        let Some(join) = node.as_any().downcast_ref::<AsOfJoin>() else { return Ok(None) };
        let [left, right] = physical_inputs else { return Err(two_sides()) };
        let given = [left, right].map(|side| side.schema().fields().len());
        let sides = [with_key(join, 0, left, session)?, with_key(join, 1, right, session)?];
        let (way, left_outer) = (join.way, join.left_outer);
        let merging = Merging { way, left_outer, given, schema: Arc::clone(join.schema.inner()) };
        Ok(Some(Arc::new(AsOfExec::new(sides, merging))))
    }
}

/// A side with its key and its time, as they are compared, behind its columns.
fn with_key(
    join: &AsOfJoin,
    side: usize,
    input: &Arc<dyn ExecutionPlan>,
    session: &dyn Session,
) -> DfResult<Arc<dyn ExecutionPlan>> {
    let schema = if side == 0 { join.left.schema() } else { join.right.schema() };
    let columns = input.schema();
    let columns = columns.fields().iter().enumerate();
    let mut exprs: Vec<(PhysicalExprRef, String)> =
        columns.map(|(at, f)| (Arc::new(Column::new(f.name(), at)) as PhysicalExprRef, f.name().clone())).collect();
    for (at, expr) in join.on[side].iter().chain([&join.times[side]]).enumerate() {
        let expr: Expr = CanonicalFloats::new().wrap(expr.clone(), schema)?;
        exprs.push((session.create_physical_expr(expr, schema)?, format!("__by_{at}")));
    }
    Ok(Arc::new(ProjectionExec::try_new(exprs, Arc::clone(input))?))
}
