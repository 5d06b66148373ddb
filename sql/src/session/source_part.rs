//! An external stream read to its end, as one partition of a batch plan.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::TryStreamExt as _;
use millstream_engine::connector::{Opened, Opening, Read, Source, Unit, UnitReader};
use millstream_engine::memory::MemoryBudget;

use super::left_out::LeftOutRows;
use crate::error::{Error, Result};
use crate::plan::lower::StreamScan;

/// What is to be read.
pub(super) struct SourceScan {
    pub(super) stream: Arc<dyn StreamScan>,
    pub(super) columns: Vec<usize>,
    /// Conditions over all columns: files that they leave nothing of need not be read.
    pub(super) filters: Vec<Arc<dyn PhysicalExpr>>,
    /// What is held meanwhile counts in it.
    pub(super) budget: Arc<MemoryBudget>,
}

/// A scan of some columns of a stream.
pub(super) struct SourcePart {
    source: Arc<dyn Source>,
    schema: SchemaRef,
    filters: Vec<Arc<dyn PhysicalExpr>>,
    budget: Arc<MemoryBudget>,
    left_out: LeftOutRows,
}

impl SourcePart {
    /// The scan of `scan`, which notes what cannot be decoded.
    ///
    /// Errors for a stream that never ends.
    pub(super) fn new(scan: SourceScan, left_out: LeftOutRows) -> Result<Self> {
        let SourceScan { stream, columns, filters, budget } = scan;
        let schema = Arc::new(stream.schema().project(&columns).map_err(millstream_engine::Error::from)?);
        let source = stream.source(columns, 1)?;
        if !source.bounded() {
            let name = stream.name();
            return Err(Error::unsupported(format!("stream \"{name}\" never ends, so it cannot be read as a whole"))
                .with_hint("Add EMIT CHANGES to follow it, or read a stream derived from it."));
        }
        Ok(SourcePart { source, schema, filters, budget, left_out })
    }

    /// Reads it from its beginning.
    pub(super) fn begin(&self) -> impl Future<Output = Result<Reads>> + Send + use<> {
        let (source, mut opening) = (self.source.clone(), Opening::new(self.budget.clone()));
        if !self.filters.is_empty() {
            opening.conditions.push(self.filters.clone());
        }
        async move { Ok(Reads { source: Opened::of(&source, opening).await?, at: None }) }
    }
}

/// What is read of a source, in order.
pub(super) struct Reads {
    pub(super) source: Opened,
    at: Option<(Unit, u64, Box<dyn UnitReader>)>,
}

impl Reads {
    /// What comes next, with its unit and from where on in its split it was read.
    pub(super) async fn next(&mut self) -> Result<Option<(Unit, u64, Read)>> {
        loop {
            let Some((unit, from, reader)) = &mut self.at else {
                let Some(unit) = self.source.intake.next_unit().await? else { return Ok(None) };
                let reader = self.source.readers.read(&unit).await?;
                self.at = Some((unit.clone(), unit.start, reader));
                continue;
            };
            match reader.next().await? {
                Some(read) => {
                    let began = std::mem::replace(from, read.position);
                    return Ok(Some((unit.clone(), began, read)));
                }
                None => self.at = None,
            }
        }
    }
}

impl fmt::Debug for SourcePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourcePart").finish_non_exhaustive()
    }
}

impl PartitionStream for SourcePart {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _ctx: Arc<TaskContext>) -> SendableRecordBatchStream {
        let left_out = self.left_out.clone();
        let begun = futures::stream::once(self.begin());
        let rows = begun.map_ok(move |reads| {
            futures::stream::try_unfold((reads, left_out.clone()), |(mut reads, left_out)| async move {
                let next = reads.next().await?;
                Ok(next.map(|(_, _, read)| {
                    left_out.add(&read.dead);
                    (read.rows.into_rows(), (reads, left_out))
                }))
            })
        });
        let rows = rows.try_flatten().map_err(|e: Error| e.into());
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows))
    }
}
