//! An external stream whose rows replace others, or take them back, read to its end: what is left of them, as one partition
//! of a batch plan, within the memory of the statement.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::Result as DfResult;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::{StreamExt as _, TryStreamExt as _};
use millstream_engine::connector::remainder::Remainder;
use tokio::task::spawn_blocking;

use super::left_out::LeftOutRows;
use super::source_part::{SourcePart, SourceScan};
use crate::error::{Error, Result};
use crate::plan::lower::Replaces;

/// A scan of some columns of a stream.
pub(super) struct SourceContent {
    /// It reads those columns, then others that are needed to tell what is left.
    part: Arc<SourcePart>,
    /// How rows are replaced, by the places of what is read.
    replaces: Option<Replaces>,
    name: String,
    schema: SchemaRef,
    left_out: LeftOutRows,
}

impl SourceContent {
    /// The scan of `scan`, as [`SourcePart::new`].
    pub(super) fn new(scan: SourceScan, left_out: LeftOutRows) -> Result<Self> {
        let SourceScan { stream, columns, filters, budget } = scan;
        let schema = Arc::new(stream.schema().project(&columns).map_err(millstream_engine::Error::from)?);
        let mut read = columns;
        let replaces = stream.replaces();
        for column in replaces.iter().flat_map(|replaces| &replaces.key) {
            if !read.contains(column) {
                read.push(*column);
            }
        }
        if read.is_empty() {
            // Rows are told apart by something.
            read.push(0);
        }
        let places = |columns: Vec<usize>| columns.iter().filter_map(|c| read.iter().position(|r| r == c)).collect();
        let replaces = replaces.map(|Replaces { key, beside }| Replaces { key: places(key), beside: places(beside) });
        let name = stream.name().to_owned();
        let part = SourcePart::new(SourceScan { stream, columns: read, filters, budget }, left_out.clone())?;
        Ok(SourceContent { part: Arc::new(part), replaces, name, schema, left_out })
    }
}

impl fmt::Debug for SourceContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceContent({})", self.name)
    }
}

impl PartitionStream for SourceContent {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (part, replaces, left_out) = (self.part.clone(), self.replaces.clone(), self.left_out.clone());
        let owner = format!("the content of stream \"{}\"", self.name);
        let held = MemoryConsumer::new(owner).register(context.memory_pool());
        let wanted: Vec<usize> = (0..self.schema.fields().len()).collect();
        let left = async move {
            let (left, held) = left(&part, replaces, &left_out, held).await?;
            let rows = left.into_iter().map(move |rows| {
                // As long as there are batches, what they are made of counts.
                let _ = &held;
                Ok(rows.project(&wanted)?)
            });
            Ok::<_, datafusion::common::DataFusionError>(futures::stream::iter(rows).boxed())
        };
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), futures::stream::once(left).try_flatten()))
    }
}

/// What is left of the rows of `part`, and the memory that it takes.
async fn left(
    part: &SourcePart,
    replaces: Option<Replaces>,
    left_out: &LeftOutRows,
    held: MemoryReservation,
) -> DfResult<(Vec<RecordBatch>, MemoryReservation)> {
    let schema = part.schema().clone();
    let mut remainder = match replaces {
        Some(Replaces { key, beside }) => Remainder::keyed(schema, key, beside),
        None => Remainder::netted(schema),
    }
    .map_err(Error::from)?;
    let mut reads = part.begin().await?;
    while let Some((_, _, read)) = reads.next().await? {
        left_out.add(&read.dead);
        remainder.add(read.rows).map_err(Error::from)?;
        held.try_resize(remainder.bytes())?;
        tokio::task::consume_budget().await;
    }
    // The rows are there twice for a while.
    held.try_resize(remainder.bytes() * 2)?;
    let left = spawn_blocking(move || remainder.end()).await;
    let left = left.map_err(|e| Error::internal(format!("what is left was not found: {e}")))?;
    Ok((left.map_err(Error::from)?, held))
}
