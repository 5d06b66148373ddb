//! What a changelog adds up to, as a table: read as a stream, within the memory of the statement.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::common::DataFusionError;
use datafusion::error::Result as DfResult;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use millstream_engine::Result as EngineResult;
use millstream_engine::changelog::Op;
use millstream_engine::table::{Content, ContentSink, StreamLog};
use tokio::sync::mpsc::Sender;

use crate::error::Error;

/// Batches that wait for who reads them.
const AHEAD: usize = 2;
/// The part of the budget that one read of a changelog holds at most: its statement has more to do with it.
const SHARE: usize = 4;

/// A plan that reads what `log` adds up to now.
pub(super) fn scan_content(
    log: &Arc<StreamLog>,
    projection: Option<&Vec<usize>>,
    limit: Option<usize>,
) -> DfResult<Arc<dyn ExecutionPlan>> {
    let columns = projection.cloned().unwrap_or_else(|| (0..log.schema().fields().len()).collect());
    let schema: SchemaRef = Arc::new(log.schema().project(&columns)?);
    let part = ContentPart { content: Arc::new(log.content()), columns, schema: schema.clone() };
    // The next reads have less to do.
    log.renew_base();
    Ok(Arc::new(StreamingTableExec::try_new(schema, vec![Arc::new(part)], None, None, false, limit)?))
}

/// The content read as one partition.
struct ContentPart {
    content: Arc<Content>,
    columns: Vec<usize>,
    schema: SchemaRef,
}

impl fmt::Debug for ContentPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentPart({})", self.content.stream())
    }
}

impl PartitionStream for ContentPart {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (content, columns, schema) = (self.content.clone(), self.columns.clone(), self.schema.clone());
        let mut stream = RecordBatchReceiverStreamBuilder::new(schema.clone(), AHEAD);
        let pool = context.memory_pool();
        let held = MemoryConsumer::new(format!("the content of stream \"{}\"", content.stream())).register(pool);
        let most = match pool.memory_limit() {
            MemoryLimit::Finite(limit) => limit / SHARE,
            _ => usize::MAX,
        };
        let (rows, runtime) = (stream.tx(), tokio::runtime::Handle::current());
        stream.spawn_blocking(move || {
            let mut reader = Reader { rows, held, most };
            runtime.block_on(content.read(&columns, &schema, &mut reader)).map_err(|e| Error::from(e).into())
        });
        stream.build()
    }
}

/// Passes rows on.
struct Reader {
    rows: Sender<DfResult<RecordBatch>>,
    held: MemoryReservation,
    most: usize,
}

#[async_trait(?Send)]
impl ContentSink for Reader {
    fn hold(&mut self, bytes: usize) -> EngineResult<()> {
        if bytes > self.most {
            let why = format!("out of memory: {} needs more than its share", self.held.consumer().name());
            return Err(DataFusionError::ResourcesExhausted(why).into());
        }
        Ok(self.held.try_resize(bytes)?)
    }

    fn is_cancelled(&self) -> bool {
        self.rows.is_closed()
    }

    async fn give(&mut self, rows: RecordBatch, op: Op) -> EngineResult<()> {
        if op == Op::Insert {
            // Where nobody waits any more, the reader finds out.
            let _ = self.rows.send(Ok(rows)).await;
        }
        Ok(())
    }
}
