//! A query that nobody waits for any more ends soon.
//!
//! A plan is cancelled by dropping it, and a task that runs hears of that only when an operator gives way. Many do not: a
//! join gives batch after batch, or looks for a match for minutes, while those above take what they get. So between all
//! operators a node stands that gives way when it is asked after a while, and the rows that a join probes come in as many
//! at a time as it works off quickly.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DfResult;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{Stream, StreamExt};

use super::wanted::Wanted;
use crate::error::Result;

/// For how long a task may run before it gives way.
const TURN: Duration = Duration::from_millis(2);
/// How long the work on one slice may take, and below what slices grow.
///
/// A thread looks for what comes from outside, such as that the query is cancelled, after [`TURNS`] of them.
const SLICE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));
/// After how many turns of tasks a thread that runs queries is to look for what comes from outside.
pub const TURNS: u32 = 2;
/// Rows of the first slice, and of the largest.
const ROWS: (usize, usize) = (16, 8192);
/// A nested loop join takes another way for slices of less than an eleventh of a batch (DataFusion 55), on which a row
/// takes some times as long.
const MANY: usize = 1024;
/// How many times at least.
const SLOWER: u32 = 4;

/// `plan` with pauses, and what is to be kept as long as its rows are wanted.
pub(crate) fn with_pauses(plan: Arc<dyn ExecutionPlan>) -> Result<(Arc<dyn ExecutionPlan>, Wanted)> {
    let wanted = Wanted::default();
    let paused = plan.transform_up(|node| {
        let children = node.children();
        if children.is_empty() {
            return Ok(Transformed::no(node));
        }
        // A cross join gives a batch for each row of its other side: small pieces would only make more of those.
        let probes = node.name().ends_with("JoinExec") && node.name() != "CrossJoinExec";
        let probed = probes.then(|| children.len() - 1);
        let pause = |(i, input): (usize, &Arc<dyn ExecutionPlan>)| -> Arc<dyn ExecutionPlan> {
            Arc::new(Pauses::over(Arc::clone(input), &wanted, probed == Some(i)))
        };
        let children = children.into_iter().enumerate().map(pause).collect();
        let keep = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep);
        Ok(Transformed::yes(node.replace_children(children, keep)?))
    })?;
    Ok((Arc::new(Pauses::over(paused.data, &wanted, false)), wanted))
}

/// Gives the rows of its input.
#[derive(Debug)]
struct Pauses {
    input: Arc<dyn ExecutionPlan>,
    /// Of the input as it was planned: that rows are ordered, those above go by.
    properties: Arc<PlanProperties>,
    /// A join probes them.
    slices: bool,
}

impl Pauses {
    fn over(planned: Arc<dyn ExecutionPlan>, wanted: &Wanted, slices: bool) -> Self {
        let properties = Arc::clone(planned.properties());
        Pauses { input: wanted.only(planned), properties, slices }
    }
}

impl DisplayAs for Pauses {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pauses")
    }
}

impl ExecutionPlan for Pauses {
    fn name(&self) -> &str {
        "Pauses"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
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
        let properties = Arc::clone(&self.properties);
        Ok(Arc::new(Pauses { input: children.swap_remove(0), properties, slices: self.slices }))
    }

    // Required by the trait though it is deprecated there; replace_children is what is called.
    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let slicer = self.slices.then(Slicer::default);
        Ok(Box::pin(PausingStream { input, slicer, since: None }))
    }
}

struct PausingStream {
    input: SendableRecordBatchStream,
    slicer: Option<Slicer>,
    /// Since when it has been asked again and again without giving way.
    since: Option<Instant>,
}

impl Stream for PausingStream {
    type Item = DfResult<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since) >= TURN {
            self.since = None;
            if let Some(slicer) = &mut self.slicer {
                slicer.fit(now);
            }
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let this = &mut *self;
        let Some(slicer) = &mut this.slicer else {
            let polled = this.input.poll_next_unpin(cx);
            if polled.is_pending() {
                this.since = None;
            }
            return polled;
        };
        slicer.fit(now);
        if slicer.rest.is_none() {
            let polled = this.input.poll_next_unpin(cx);
            if polled.is_pending() {
                this.since = None;
            }
            match ready!(polled) {
                Some(Ok(batch)) => slicer.rest = Some(batch),
                ended => return Poll::Ready(ended),
            }
        }
        Poll::Ready(slicer.next().map(Ok))
    }
}

impl RecordBatchStream for PausingStream {
    fn schema(&self) -> SchemaRef {
        self.input.schema()
    }
}

/// Cuts batches so that the work on each piece takes about the same time.
struct Slicer {
    rest: Option<RecordBatch>,
    rows: usize,
    /// When the last piece was given, of how many rows.
    given: Option<(Instant, usize)>,
    /// Whether [`MANY`] rows have not turned out to be too many.
    leaps: bool,
}

impl Default for Slicer {
    fn default() -> Self {
        Slicer { rest: None, rows: ROWS.0, given: None, leaps: true }
    }
}

impl Slicer {
    /// The work on the last piece is done.
    fn fit(&mut self, now: Instant) {
        let Some((given, rows)) = self.given.take() else { return };
        let took = now.duration_since(given);
        if took > SLICE.1 {
            (self.rows, self.leaps) = ((self.rows / 4).max(1), false);
        } else if rows < self.rows {
            // The rest of a batch says little.
        } else if self.leaps && rows < MANY && took * (MANY / rows) as u32 <= SLICE.1 * SLOWER {
            self.rows = MANY;
        } else if took < SLICE.0 {
            self.rows = (self.rows * 2).min(ROWS.1);
        }
    }

    fn next(&mut self) -> Option<RecordBatch> {
        let batch = self.rest.take()?;
        let rows = self.rows.min(batch.num_rows());
        if rows < batch.num_rows() {
            self.rest = Some(batch.slice(rows, batch.num_rows() - rows));
        }
        self.given = Some((Instant::now(), rows));
        Some(batch.slice(0, rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use datafusion::prelude::SessionContext;
    use futures::TryStreamExt;

    /// The longest that a query keeps its task when it is asked for rows.
    async fn longest_turn(sql: &str) -> Duration {
        let context = SessionContext::new();
        let plan = context.sql(sql).await.expect("a query").create_physical_plan().await.expect("a plan");
        let (plan, _wanted) = with_pauses(plan).expect("paused");
        let mut rows = plan.execute(0, context.task_ctx()).expect("runs");
        let (mut longest, begun) = (Duration::ZERO, Instant::now());
        while begun.elapsed() < Duration::from_secs(2) {
            let asked = Instant::now();
            match futures::poll!(rows.next()) {
                Poll::Ready(None) => break,
                Poll::Ready(Some(batch)) => drop(batch.expect("rows")),
                // The tasks of its other parts have their turns, on the same thread.
                Poll::Pending => tokio::task::yield_now().await,
            }
            longest = longest.max(asked.elapsed());
        }
        longest
    }

    #[test]
    fn joins_give_way_however_much_they_have_to_do() {
        // After each turn of a task the one that measures has its own.
        let runtime = tokio::runtime::Builder::new_current_thread().event_interval(1).build().expect("a runtime");
        let many = "(SELECT value AS a FROM generate_series(1, 100000))";
        for sql in [
            format!("SELECT count(*) FROM {many} x CROSS JOIN {many} y"),
            format!("SELECT count(*) FROM {many} x JOIN {many} y ON x.a + y.a < 0"),
            format!("SELECT count(*) FROM {many} x LEFT JOIN {many} y ON x.a * y.a = -1"),
            format!("SELECT count(*) FROM {many} x JOIN {many} y ON x.a % 2 = y.a % 2 AND x.a + y.a < 0"),
            format!("SELECT x.a FROM {many} x WHERE EXISTS (SELECT 1 FROM {many} y WHERE y.a + x.a < 0)"),
        ] {
            // A machine that is busy otherwise may hold it up once.
            let longest = (0..3).map(|_| runtime.block_on(longest_turn(&sql))).min().unwrap_or_default();
            assert!(longest < Duration::from_millis(500), "{sql}: {longest:?}");
        }
    }

    #[tokio::test]
    async fn the_answer_is_the_same() {
        for sql in [
            "SELECT x.value, count(y.value) AS n FROM generate_series(1, 300) x \
             LEFT JOIN generate_series(1, 300) y ON x.value < y.value GROUP BY x.value ORDER BY x.value",
            "SELECT value, sum(value) OVER (PARTITION BY value % 7 ORDER BY value DESC) FROM generate_series(1, 300) \
             ORDER BY value % 5, value",
        ] {
            same_answer(sql).await;
        }
    }

    async fn same_answer(sql: &str) {
        let context = SessionContext::new();
        let plan = context.sql(sql).await.expect("a query").create_physical_plan().await.expect("a plan");
        let mut batches = vec![];
        let (paused, _wanted) = with_pauses(Arc::clone(&plan)).expect("paused");
        for plan in [plan, paused] {
            let rows = datafusion::physical_plan::execute_stream(plan, context.task_ctx()).expect("runs");
            let rows: Vec<RecordBatch> = rows.try_collect().await.expect("rows");
            batches.push(arrow::compute::concat_batches(&rows[0].schema(), &rows).expect("one schema"));
        }
        assert_eq!(batches[0].num_rows(), 300);
        assert_eq!(batches[0], batches[1]);
    }
}
