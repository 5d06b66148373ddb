//! Where the row stands on which an expression of a batch statement has failed.
//!
//! Operators see columns without a trace of where their rows come from. So the row is looked for once the statement has
//! failed: what is computed straight from a scan, through filters and projections, is computed again over what is scanned
//! again, batch by batch, until a row fails with the same words.

use std::sync::Arc;

use arrow::array::{Array as _, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{filter, filter_record_batch};
use arrow::datatypes::{SchemaRef, UInt32Type};
use datafusion::common::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::streaming::StreamingTableExec;
use futures::TryStreamExt as _;
use millstream_engine::expr::{Failure, Failures, evaluate};

use super::source_part::SourcePart;
use crate::error::{Error, Result};

/// Nodes that give the rows that they get.
const SAME_ROWS: [&str; 6] = [
    "BufferExec",
    "CoalesceBatchesExec",
    "CoalescePartitionsExec",
    "CooperativeExec",
    "RepartitionExec",
    "SortPreservingMergeExec",
];

/// What runs for a statement.
pub(super) struct Executed {
    pub(super) plan: Arc<dyn ExecutionPlan>,
    /// Those of its leaves that read external streams.
    pub(super) parts: Vec<Arc<SourcePart>>,
    pub(super) context: Arc<TaskContext>,
}

impl Executed {
    /// The error of the statement for `error`: says where the row stands, and in which expression it failed, where that
    /// can be found out.
    pub(super) async fn told(&self, error: DataFusionError) -> Error {
        let words = of_row(&error);
        let said = Error::from(error);
        let Some(words) = words else { return said };
        let mut chains = vec![];
        let top = self.chain_of(&self.plan, &mut chains);
        chains.extend(top);
        for chain in chains {
            // That it cannot be read again is not what the statement failed with.
            if let Ok(Some((failure, place))) = self.look(&chain, &words).await {
                let said = match said.message().contains(&*failure.expression) {
                    true => said,
                    false => said.context(failure.expression),
                };
                return match place {
                    Some(place) => said.context(place),
                    None => said,
                };
            }
        }
        said
    }

    /// What leads to the rows of `node` straight from a scan. What else stands below it goes to `others`.
    fn chain_of(&self, node: &Arc<dyn ExecutionPlan>, others: &mut Vec<Chain>) -> Option<Chain> {
        let children: Vec<_> = node.children().into_iter().cloned().collect();
        if children.is_empty() {
            return Some(Chain { scan: self.scan_of(node), steps: vec![] });
        }
        let mut inputs: Vec<_> = children.iter().map(|child| self.chain_of(child, others)).collect();
        if let Some(join) = node.downcast_ref::<HashJoinExec>() {
            let (left, right) = join.on().iter().cloned().unzip();
            for (input, keys) in inputs.iter_mut().zip([left, right]) {
                input.iter_mut().for_each(|chain| chain.steps.push(Step::Compute(Vec::clone(&keys))));
            }
        }
        if children.len() == 1 && SAME_ROWS.contains(&node.name()) {
            return inputs.pop().flatten();
        }
        if let ([_], Some(step)) = (children.as_slice(), step_of(node)) {
            let mut chain = inputs.pop().flatten()?;
            let goes_on = !matches!(step, Step::Compute(_)) || node.downcast_ref::<SortExec>().is_some();
            chain.steps.push(step);
            if goes_on {
                return Some(chain);
            }
            others.push(chain);
            return None;
        }
        others.extend(inputs.into_iter().flatten());
        None
    }

    fn scan_of(&self, leaf: &Arc<dyn ExecutionPlan>) -> Scan {
        let streaming = leaf.downcast_ref::<StreamingTableExec>();
        let is_of = |part: &&Arc<SourcePart>| {
            let partitions = streaming.map_or(&[][..], |s| s.partitions());
            partitions.iter().any(|p| std::ptr::addr_eq(Arc::as_ptr(p), Arc::as_ptr(part)))
        };
        match (self.parts.iter().find(is_of), streaming) {
            (Some(part), Some(streaming)) => {
                let columns = streaming.projection().as_ref().map(|columns| columns.to_vec());
                Scan::Part(part.clone(), columns)
            }
            (None, Some(_)) => Scan::Once,
            _ => Scan::Leaf(leaf.clone()),
        }
    }

    /// The row on which `chain` fails with `words`: what fails, and where the row stands.
    async fn look(&self, chain: &Chain, words: &str) -> Result<Option<(Failure, Option<String>)>> {
        match &chain.scan {
            Scan::Once => {}
            Scan::Part(part, columns) => {
                let mut reads = part.begin().await?;
                while let Some((unit, from, read)) = reads.next().await? {
                    let rows = match columns {
                        Some(columns) => read.rows.rows().project(columns)?,
                        None => read.rows.rows().clone(),
                    };
                    if let Some((row, failure)) = chain.fails(rows, words)? {
                        let place = reads.source.intake.place(&unit.split, from, &read, row).await?;
                        return Ok(Some((failure, place)));
                    }
                    tokio::task::yield_now().await;
                }
            }
            Scan::Leaf(leaf) => {
                for partition in 0..leaf.properties().partitioning.partition_count() {
                    let mut rows = leaf.execute(partition, self.context.clone())?;
                    while let Some(batch) = rows.try_next().await? {
                        if let Some((_, failure)) = chain.fails(batch, words)? {
                            return Ok(Some((failure, None)));
                        }
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
        Ok(None)
    }
}

/// Where rows come from.
enum Scan {
    /// Some columns of what a part reads.
    Part(Arc<SourcePart>, Option<Vec<usize>>),
    Leaf(Arc<dyn ExecutionPlan>),
    /// It can be read once only.
    Once,
}

/// What becomes of rows.
enum Step {
    /// Those on which it is true stay, with these columns.
    Keep(Arc<dyn PhysicalExpr>, Option<Vec<usize>>),
    /// They get other columns.
    Make(Vec<Arc<dyn PhysicalExpr>>, SchemaRef),
    /// Something is computed of them.
    Compute(Vec<Arc<dyn PhysicalExpr>>),
}

/// What is computed, row by row, of what is scanned.
struct Chain {
    scan: Scan,
    steps: Vec<Step>,
}

/// What a node with one input computes of each of its rows; none for one that may leave some of them alone.
fn step_of(node: &Arc<dyn ExecutionPlan>) -> Option<Step> {
    if let Some(filter) = node.downcast_ref::<FilterExec>() {
        let columns = filter.projection().as_ref().map(|columns| columns.to_vec());
        return Some(Step::Keep(filter.predicate().clone(), columns));
    }
    if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
        let exprs = projection.expr().iter().map(|e| e.expr.clone()).collect();
        return Some(Step::Make(exprs, projection.schema()));
    }
    if let Some(sort) = node.downcast_ref::<SortExec>() {
        return Some(Step::Compute(sort.expr().iter().map(|key| key.expr.clone()).collect()));
    }
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        let keys = aggregate.group_expr().expr().iter().map(|(key, _)| key.clone());
        let calls = aggregate.aggr_expr().iter().zip(aggregate.filter_expr());
        // Which rows reach the arguments of a call with FILTER, it alone knows.
        let args = calls.filter(|(_, filter)| filter.is_none()).flat_map(|(call, _)| call.expressions());
        return Some(Step::Compute(keys.chain(args).collect()));
    }
    None
}

impl Chain {
    /// The first of `rows` that fails with `words`, and what fails.
    fn fails(&self, mut rows: RecordBatch, words: &str) -> Result<Option<(usize, Failure)>> {
        let mut places = UInt32Array::from_iter_values(0..rows.num_rows() as u32);
        for step in &self.steps {
            let exprs = match step {
                Step::Keep(predicate, _) => std::slice::from_ref(predicate),
                Step::Make(exprs, _) | Step::Compute(exprs) => exprs,
            };
            let (mut values, mut failed) = (Vec::with_capacity(exprs.len()), Failures::default());
            for expr in exprs {
                let (array, failures) = evaluate(expr, &rows)?;
                if let Some((row, failure)) = with_words(expr, &rows, &failures, words) {
                    return Ok(Some((places.value(row) as usize, failure)));
                }
                failed.merge(failures);
                values.push(array);
            }
            // What stands in their places means nothing.
            let good = failed.good(rows.num_rows());
            let (next, keep) = match step {
                Step::Compute(_) => (rows, good),
                Step::Make(_, schema) => {
                    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
                    (RecordBatch::try_new_with_options(schema.clone(), values, &options)?, good)
                }
                Step::Keep(_, columns) => {
                    let mask = values.pop().ok_or_else(|| Error::internal("a filter without a condition"))?;
                    let mask = mask.as_boolean();
                    let mut bits = mask.values().clone();
                    for known in
                        mask.nulls().map(|nulls| nulls.inner()).into_iter().chain(good.as_ref().map(|g| g.values()))
                    {
                        bits = &bits & known;
                    }
                    let mask = BooleanArray::new(bits, None);
                    let next = columns.as_ref().map(|columns| rows.project(columns)).transpose()?;
                    (next.unwrap_or(rows), Some(mask))
                }
            };
            rows = next;
            if let Some(keep) = keep {
                rows = kept(&rows, &keep)?;
                places = filter(&places, &keep)?.as_primitive::<UInt32Type>().clone();
            }
        }
        Ok(None)
    }
}

/// The rows of `batch`, which may have no columns, on which `keep` is true.
fn kept(batch: &RecordBatch, keep: &BooleanArray) -> Result<RecordBatch> {
    if batch.num_columns() > 0 {
        return Ok(filter_record_batch(batch, keep)?);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(keep.true_count()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), vec![], &options)?)
}

/// The first of the rows that failed to do so with `words`.
fn with_words(
    expr: &Arc<dyn PhysicalExpr>,
    rows: &RecordBatch,
    failures: &Failures,
    words: &str,
) -> Option<(usize, Failure)> {
    let says_so = |row: u32| {
        let alone = rows.slice(row as usize, 1);
        let error = expr.evaluate(&alone).and_then(|v| v.into_array(1)).err();
        error.as_ref().and_then(of_row).is_some_and(|said| said == words)
    };
    let (row, failure) = failures.iter().find(|(row, _)| says_so(*row))?;
    Some((row as usize, failure.clone()))
}

/// What an error says of the data of a row; none where something else went wrong.
fn of_row(error: &DataFusionError) -> Option<String> {
    let is_of_data = |e: &millstream_engine::Error| {
        matches!(e.kind(), millstream_engine::ErrorKind::Data | millstream_engine::ErrorKind::Invalid)
    };
    match error.find_root() {
        DataFusionError::ArrowError(e, _) => Some(e.to_string()),
        DataFusionError::Execution(text) => Some(text.clone()),
        DataFusionError::External(e) => e.downcast_ref().filter(|e| is_of_data(e)).map(ToString::to_string),
        _ => None,
    }
}
