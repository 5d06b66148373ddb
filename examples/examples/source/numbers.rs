//! The numbers from 0 to 99 as a stream: what a query sees of it, and the source that reads it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::common::TableReference;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::TableSource;
use datafusion::physical_expr::PhysicalExpr;
use millstream_engine::Result;
use millstream_engine::changes::Changes;
use millstream_engine::connector::generator::Numbered;
use millstream_engine::connector::{Intake, Opening, Read, Readers, Source, Unit, UnitReader};
use millstream_sql::plan::TableResolver;
use millstream_sql::plan::lower::{SourceTable, StreamScan};

const END: u64 = 100;

/// Every name is that of the numbers.
pub(super) struct Names;

impl TableResolver for Names {
    fn table(&self, _: &TableReference) -> millstream_sql::Result<Option<Arc<dyn TableSource>>> {
        Ok(Some(provider_as_source(Arc::new(SourceTable(Arc::new(Numbers))))))
    }
}

#[derive(Debug)]
struct Numbers;

#[rustfmt::skip]
impl StreamScan for Numbers {
    fn name(&self) -> &str { "numbers" }
    fn schema(&self) -> SchemaRef { Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)])) }
    fn is_changelog(&self) -> bool { false }
    fn key(&self) -> Option<Vec<usize>> { None }
    fn event_time(&self) -> Option<(usize, Option<Arc<dyn PhysicalExpr>>)> { None }
    fn idle_timeout(&self) -> Duration { Duration::from_secs(10) }
    fn source(&self, projection: Vec<usize>, _: usize) -> millstream_sql::Result<Arc<dyn Source>> {
        let schema = self.schema().project(&projection).map_err(millstream_engine::Error::from)?;
        Ok(Arc::new(Counter { schema: Arc::new(schema) }))
    }
}

struct Counter {
    schema: SchemaRef,
}

#[async_trait]
impl Source for Counter {
    fn describe(&self) -> String {
        format!("numbers to {END}")
    }

    fn bounded(&self) -> bool {
        true
    }

    /// Numbers are there for every process.
    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> {
        Some(self)
    }

    /// After a restart only what was not consumed is left.
    async fn open(self: Arc<Self>, opening: Opening) -> Result<Arc<dyn Intake>> {
        Ok(Numbered::new("numbers", Some(END), END).open(&opening.consumed))
    }
}

#[async_trait]
impl Readers for Counter {
    async fn read(&self, unit: &Unit) -> Result<Box<dyn UnitReader>> {
        Ok(Box::new(Reader { schema: self.schema.clone(), left: Some(unit.start..unit.end) }))
    }
}

struct Reader {
    schema: SchemaRef,
    left: Option<Range<u64>>,
}

#[async_trait]
impl UnitReader for Reader {
    async fn next(&mut self) -> Result<Option<Read>> {
        let Some(range) = self.left.take() else { return Ok(None) };
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(range.clone().map(|n| n as i64)));
        let columns = self.schema.fields().iter().map(|_| numbers.clone()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(numbers.len()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        Ok(Some(Read::rows(Changes::insertions(rows), range.end)))
    }
}
