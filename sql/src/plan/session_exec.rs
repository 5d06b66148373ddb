//! Sessions in batch: rows come by partition and time, and wait until their session has ended.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{SortOptions, take_record_batch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result as DfResult;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{
    Distribution, EquivalenceProperties, LexOrdering, OrderingRequirements, PhysicalSortExpr,
};
use datafusion::physical_plan::distribution_requirements::InputDistributionRequirements;
use datafusion::physical_plan::execution_plan::{EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PhysicalExpr, PlanProperties,
};
use futures::{StreamExt, stream};
use millstream_engine::changes::row_bytes;
use millstream_engine::operator::gap::Sessions;
use millstream_engine::time::{event_times, from_micros};

use super::windows::window_fields;

/// Appends `window_start` and `window_end` of sessions.
#[derive(Debug, Clone)]
pub(super) struct SessionExec {
    input: Arc<dyn ExecutionPlan>,
    time: usize,
    partition: Vec<usize>,
    sessions: Sessions,
    properties: Arc<PlanProperties>,
}

impl SessionExec {
    /// Of the rows of `input` by its column `time`, within what the columns `partition` tell apart.
    pub(super) fn new(input: Arc<dyn ExecutionPlan>, time: usize, partition: Vec<usize>, sessions: Sessions) -> Self {
        let schema = input.schema();
        let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
        fields.extend(window_fields(schema.field(time).data_type()));
        let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            input.output_partitioning().clone(),
            EmissionType::Incremental,
            input.boundedness(),
        );
        SessionExec { input, time, partition, sessions, properties: Arc::new(properties) }
    }

    fn column(&self, at: usize) -> Arc<dyn PhysicalExpr> {
        Arc::new(Column::new(self.input.schema().field(at).name(), at))
    }
}

impl DisplayAs for SessionExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionExec: {}@{}, {}", self.input.schema().field(self.time).name(), self.time, self.sessions)
    }
}

impl ExecutionPlan for SessionExec {
    fn name(&self) -> &str {
        "SessionExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        let by = self.partition.iter().map(|at| self.column(*at)).collect::<Vec<_>>();
        InputDistributionRequirements::new(vec![match by.is_empty() {
            true => Distribution::SinglePartition,
            false => Distribution::KeyPartitioned(by),
        }])
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        let options = SortOptions { descending: false, nulls_first: true };
        let columns = self.partition.iter().chain([&self.time]);
        let order = columns.map(|at| PhysicalSortExpr::new(self.column(*at), options));
        vec![LexOrdering::new(order).map(OrderingRequirements::from)]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
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
        Ok(Arc::new(SessionExec::new(input, self.time, self.partition.clone(), self.sessions)))
    }

    // Required by the trait though it is deprecated there; replace_children is what is called.
    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let input = children.swap_remove(0);
        Ok(Arc::new(SessionExec::new(input, self.time, self.partition.clone(), self.sessions)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let memory = MemoryConsumer::new("SESSION").register(context.memory_pool());
        let open = OpenSession::new(self, memory)?;
        let batches = stream::unfold((input, Some(open)), |(mut input, open)| async move {
            let mut open = open?;
            match input.next().await {
                Some(Ok(batch)) => Some((open.take_in(&batch), (input, Some(open)))),
                Some(Err(e)) => Some((Err(e), (input, None))),
                None => Some((open.end(), (input, None))),
            }
        });
        let batches = batches.flat_map(|given| match given {
            Ok(batches) => stream::iter(batches.into_iter().map(Ok).collect::<Vec<_>>()),
            Err(e) => stream::iter(vec![Err(e)]),
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}

/// The rows of a session that may go on.
struct OpenSession {
    time: usize,
    partition: Vec<usize>,
    sessions: Sessions,
    schema: SchemaRef,
    converter: RowConverter,
    memory: MemoryReservation,
    /// Its partition, its first and its last time.
    now: Option<(Option<OwnedRow>, i64, i64)>,
    held: Vec<RecordBatch>,
}

impl OpenSession {
    fn new(exec: &SessionExec, memory: MemoryReservation) -> DfResult<Self> {
        let input = exec.input.schema();
        let fields = exec.partition.iter().map(|at| SortField::new(input.field(*at).data_type().clone()));
        Ok(OpenSession {
            time: exec.time,
            partition: exec.partition.clone(),
            sessions: exec.sessions,
            schema: exec.schema(),
            converter: RowConverter::new(fields.collect())?,
            memory,
            now: None,
            held: vec![],
        })
    }

    /// Takes in the next rows; gives those whose sessions have ended.
    fn take_in(&mut self, batch: &RecordBatch) -> DfResult<Vec<RecordBatch>> {
        let times = event_times(batch.column(self.time), self.sessions.gap.micros()).map_err(crate::Error::from)?;
        let there: UInt32Array =
            (0..batch.num_rows()).filter(|row| times.is_valid(*row)).map(|row| row as u32).collect();
        let batch = if there.len() == batch.num_rows() { batch.clone() } else { take_record_batch(batch, &there)? };
        let times: Vec<i64> = times.iter().flatten().collect();
        let keys: Vec<ArrayRef> = self.partition.iter().map(|at| Arc::clone(batch.column(*at))).collect();
        let keys = if keys.is_empty() { None } else { Some(self.converter.convert_columns(&keys)?) };
        let key = |row: usize| keys.as_ref().map(|keys| keys.row(row));
        let (mut given, mut from, mut bounds) = (vec![], 0, Vec::with_capacity(times.len()));
        for (row, time) in times.iter().enumerate() {
            let goes_on = self.now.as_ref().is_some_and(|(of, first, last)| {
                of.as_ref().map(OwnedRow::row) == key(row) && *time < self.sessions.end(*first, *last)
            });
            match &mut self.now {
                Some((_, _, last)) if goes_on => *last = *time,
                _ => {
                    self.close(row - from, &mut bounds, &mut given)?;
                    from = row;
                    self.now = Some((key(row).map(|key| key.owned()), *time, *time));
                }
            }
        }
        if !bounds.is_empty() {
            given.push(self.bounded(&batch.slice(0, from), &bounds)?);
        }
        let rest = batch.slice(from, batch.num_rows() - from);
        if rest.num_rows() > 0 {
            self.memory.try_grow(row_bytes(&rest))?;
            self.held.push(rest);
        }
        Ok(given)
    }

    /// The session has ended with the last `rows` rows of a batch: notes their bounds, and gives what was held of it.
    fn close(&mut self, rows: usize, bounds: &mut Vec<(i64, i64)>, given: &mut Vec<RecordBatch>) -> DfResult<()> {
        let Some((_, first, last)) = self.now.take() else { return Ok(()) };
        let of = (first, self.sessions.end(first, last));
        bounds.extend(std::iter::repeat_n(of, rows));
        for held in std::mem::take(&mut self.held) {
            given.push(self.bounded(&held, &vec![of; held.num_rows()])?);
        }
        self.memory.free();
        Ok(())
    }

    /// What is left when no more rows come.
    fn end(&mut self) -> DfResult<Vec<RecordBatch>> {
        let Some((_, first, last)) = self.now.take() else { return Ok(vec![]) };
        let of = (first, self.sessions.end(first, last));
        let held = std::mem::take(&mut self.held);
        held.iter().map(|held| self.bounded(held, &vec![of; held.num_rows()])).collect()
    }

    fn bounded(&self, rows: &RecordBatch, bounds: &[(i64, i64)]) -> DfResult<RecordBatch> {
        let time_type = self.schema.field(self.time).data_type();
        let DataType::Timestamp(unit, _) = time_type else {
            return Err(crate::Error::internal("a session's time column is not a timestamp").into());
        };
        let column = |of: fn(&(i64, i64)) -> i64| -> DfResult<ArrayRef> {
            let ticks: Int64Array = bounds.iter().map(|bound| Some(from_micros(of(bound), *unit))).collect();
            Ok(arrow::compute::cast(&ticks, time_type)?)
        };
        let mut columns = rows.columns().to_vec();
        columns.extend([column(|b| b.0)?, column(|b| b.1)?]);
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}
