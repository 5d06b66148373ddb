//! Windows in batch: the plan node that runs under DataFusion.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::ReplaceChildrenOptions;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use futures::{StreamExt, TryStreamExt, stream};

use super::session_exec::SessionExec;
use super::window_rows;
use super::windows::{WindowAssign, WindowSpec, sessions, window_fields};
use crate::error::Result;

/// Puts the rows of a batch into windows: the batch, the time column's place, the windows, and the schema of
/// the result, which is the batch's with the two bounds at the end.
pub type WindowAssigner =
    Arc<dyn Fn(&RecordBatch, usize, &WindowSpec, &SchemaRef) -> Result<RecordBatch> + Send + Sync>;

/// Rows of one output batch, about.
const OUTPUT_ROWS: usize = 8192;

/// Plans [`WindowAssign`] for batch.
pub struct WindowPlanner {
    assigner: WindowAssigner,
}

impl WindowPlanner {
    /// A planner whose plans assign rows with `assigner`.
    pub fn new(assigner: WindowAssigner) -> Self {
        WindowPlanner { assigner }
    }
}

impl Default for WindowPlanner {
    fn default() -> Self {
        WindowPlanner::new(Arc::new(window_rows::assign))
    }
}

#[async_trait]
impl ExtensionPlanner for WindowPlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        _session: &dyn Session,
        _planning_ctx: &PhysicalPlanningContext,
    ) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
        let Some(window) = node.as_any().downcast_ref::<WindowAssign>() else { return Ok(None) };
        let [input] = physical_inputs else { return Ok(None) };
        let (time, partition) = window.places()?;
        if let Some(sessions) = sessions(window.spec()) {
            return Ok(Some(Arc::new(SessionExec::new(Arc::clone(input), time, partition, sessions))));
        }
        let exec = WindowAssignExec::new(Arc::clone(input), time, window.spec(), Arc::clone(&self.assigner));
        Ok(Some(Arc::new(exec)))
    }
}

/// Appends `window_start` and `window_end`.
#[derive(Clone)]
pub struct WindowAssignExec {
    input: Arc<dyn ExecutionPlan>,
    time: usize,
    spec: WindowSpec,
    assigner: WindowAssigner,
    properties: Arc<PlanProperties>,
}

impl WindowAssignExec {
    /// Assigns the rows of `input` by its column number `time`.
    pub fn new(input: Arc<dyn ExecutionPlan>, time: usize, spec: WindowSpec, assigner: WindowAssigner) -> Self {
        let schema = input.schema();
        let time_type = schema.field(time).data_type();
        let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
        fields.extend(window_fields(time_type));
        let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            // The input's columns keep their places, so what it is partitioned by still means the same.
            input.output_partitioning().clone(),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        WindowAssignExec { input, time, spec, assigner, properties: Arc::new(properties) }
    }
}

impl fmt::Debug for WindowAssignExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WindowAssignExec").field("time", &self.time).field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl DisplayAs for WindowAssignExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WindowAssignExec: {}@{}, {}", self.input.schema().field(self.time).name(), self.time, self.spec)
    }
}

impl ExecutionPlan for WindowAssignExec {
    fn name(&self) -> &str {
        "WindowAssignExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let input = children.swap_remove(0);
        Ok(Arc::new(WindowAssignExec::new(input, self.time, self.spec, Arc::clone(&self.assigner))))
    }

    // Required by the trait though it is deprecated there; replace_children is what is called.
    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let input = children.swap_remove(0);
        Ok(Arc::new(WindowAssignExec::new(input, self.time, self.spec, Arc::clone(&self.assigner))))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let schema = self.schema();
        let (time, spec, assigner) = (self.time, self.spec, Arc::clone(&self.assigner));
        let output = Arc::clone(&schema);
        // A row may be in thousands of windows: few rows go in at a time, and each slice only when it is asked for.
        let rows = (OUTPUT_ROWS / spec.windows_per_row()).max(1);
        let slices = input.map_ok(move |batch| {
            let starts = (0..batch.num_rows()).step_by(rows);
            let slices: Vec<_> = starts.map(|at| batch.slice(at, rows.min(batch.num_rows() - at))).collect();
            stream::iter(slices.into_iter().map(DfResult::Ok))
        });
        let batches =
            slices.try_flatten().map(move |batch| batch.and_then(|batch| Ok(assigner(&batch, time, &spec, &output)?)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
}
