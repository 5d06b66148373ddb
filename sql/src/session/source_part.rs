//! An external stream read to its end, as one partition of a batch plan.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::TryStreamExt as _;
use millstream_engine::connector::{Read, Source, Unit, UnitReader};
use parking_lot::Mutex;

use super::left_out::LeftOutRows;
use crate::error::{Error, Result};
use crate::plan::lower::StreamScan;

/// A scan of some columns of a stream.
pub(super) struct SourcePart {
    stream: Arc<dyn StreamScan>,
    columns: Vec<usize>,
    schema: SchemaRef,
    filters: Vec<Arc<dyn PhysicalExpr>>,
    left_out: LeftOutRows,
    /// What was opened to be looked at, for the first who reads.
    opened: Mutex<Option<Arc<dyn Source>>>,
}

impl SourcePart {
    /// A scan of `columns` of `stream` without the files that `filters`, conditions over all columns, leave nothing of.
    ///
    /// Errors for a stream that never ends.
    pub(super) fn new(
        stream: Arc<dyn StreamScan>,
        columns: Vec<usize>,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        left_out: LeftOutRows,
    ) -> Result<Self> {
        let schema = Arc::new(stream.schema().project(&columns).map_err(millstream_engine::Error::from)?);
        let part = SourcePart { stream, columns, schema, filters, left_out, opened: Mutex::default() };
        let source = part.open()?;
        if !source.bounded() {
            let name = part.stream.name();
            return Err(Error::unsupported(format!("stream \"{name}\" never ends, so it cannot be read as a whole"))
                .with_hint("Add EMIT CHANGES to follow it, or read a stream derived from it."));
        }
        *part.opened.lock() = Some(source);
        Ok(part)
    }

    /// The source, which has not begun.
    fn open(&self) -> Result<Arc<dyn Source>> {
        let source = self.stream.open(self.columns.clone(), 1)?;
        if !self.filters.is_empty() {
            source.prune(std::slice::from_ref(&self.filters));
        }
        Ok(source)
    }

    /// Begins to read it.
    pub(super) async fn begin(&self) -> Result<Reads> {
        let opened = self.opened.lock().take();
        Reads::begin(opened.map_or_else(|| self.open(), Ok)?).await
    }

    /// Reads it once more from its beginning.
    pub(super) async fn again(&self) -> Result<Reads> {
        Reads::begin(self.open()?).await
    }
}

/// What is read of a source, in order.
pub(super) struct Reads {
    pub(super) source: Arc<dyn Source>,
    at: Option<(Unit, u64, Box<dyn UnitReader>)>,
}

impl Reads {
    async fn begin(source: Arc<dyn Source>) -> Result<Self> {
        source.start(&Default::default()).await?;
        Ok(Reads { source, at: None })
    }

    /// What comes next, with its unit and from where on in its split it was read.
    pub(super) async fn next(&mut self) -> Result<Option<(Unit, u64, Read)>> {
        loop {
            let Some((unit, from, reader)) = &mut self.at else {
                let Some(unit) = self.source.next_unit().await? else { return Ok(None) };
                let reader = self.source.open(&unit).await?;
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
        let opened = self.opened.lock().take();
        let source = opened.map_or_else(|| self.open(), Ok);
        let left_out = self.left_out.clone();
        let begun = futures::stream::once(async move { Reads::begin(source?).await });
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
