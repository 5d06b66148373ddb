//! Batches into Flight messages of a size that every client accepts.
//!
//! `FlightDataEncoder` splits by the size of the buffers that a batch points into, so that a slice of a big
//! batch becomes a message per handful of rows; here the size is that of the slice itself.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::IpcWriteContext;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions};
use arrow_flight::{FlightData, SchemaAsIpc};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use millstream_engine::changes::row_bytes;
use millstream_engine::memory::MemoryAccount;
use millstream_sql::Error;
use tonic::Status;

use crate::compression::Compression;
use crate::error::to_status;
use crate::wire::cast_batch;

/// The most bytes of columns in a message, unless a single row has more. Several clients refuse messages over
/// 4 MiB, and buffers are padded.
const LARGEST_MESSAGE: usize = 2 << 20;

/// Encodes the batches of one stream.
pub(crate) struct Encoder {
    schema: SchemaRef,
    generator: IpcDataGenerator,
    dictionaries: DictionaryTracker,
    options: IpcWriteOptions,
    context: IpcWriteContext,
    /// The most bytes of columns in a message, unless a single row has more.
    largest: usize,
}

impl Encoder {
    /// An encoder of a stream that is announced as `schema` (one that [`crate::wire::wire_schema`] gave).
    pub(crate) fn new(schema: SchemaRef) -> Self {
        Encoder::with(schema, IpcWriteOptions::default())
    }

    /// The same with compressed rows.
    pub(crate) fn compressed(schema: SchemaRef, compression: Compression) -> Result<Self, ArrowError> {
        Ok(Encoder::with(schema, compression.write_options()?))
    }

    fn with(schema: SchemaRef, options: IpcWriteOptions) -> Self {
        let (generator, dictionaries) = (IpcDataGenerator::default(), DictionaryTracker::new(true));
        Encoder {
            schema,
            generator,
            dictionaries,
            options,
            context: IpcWriteContext::default(),
            largest: LARGEST_MESSAGE,
        }
    }

    /// The same with messages of at most `largest` bytes of columns, for a line on which a larger one would take long.
    pub(crate) fn in_pieces_of(self, largest: usize) -> Self {
        Encoder { largest, ..self }
    }

    /// The message that begins the stream.
    pub(crate) fn schema_message(&self) -> FlightData {
        SchemaAsIpc::new(&self.schema, &self.options).into()
    }

    /// The messages for `batch`: none when it has no rows.
    pub(crate) fn encode(&mut self, batch: &RecordBatch) -> Result<Vec<FlightData>, ArrowError> {
        let mut messages = Vec::new();
        if batch.num_rows() > 0 {
            self.push(&cast_batch(batch, &self.schema)?, &mut messages)?;
        }
        Ok(messages)
    }

    /// A message without rows that carries `note`.
    pub(crate) fn note_message(&mut self, note: Bytes) -> Result<FlightData, ArrowError> {
        let mut messages = Vec::new();
        self.push(&RecordBatch::new_empty(self.schema.clone()), &mut messages)?;
        let last = messages.pop().ok_or_else(|| ArrowError::IpcError("an empty batch gave no message".to_owned()))?;
        Ok(last.with_app_metadata(note))
    }

    fn push(&mut self, batch: &RecordBatch, messages: &mut Vec<FlightData>) -> Result<(), ArrowError> {
        let rows = batch.num_rows();
        // Halving copes with rows of very different sizes; the depth is at most log2(rows).
        if rows > 1 && row_bytes(batch) > self.largest {
            self.push(&batch.slice(0, rows / 2), messages)?;
            return self.push(&batch.slice(rows / 2, rows - rows / 2), messages);
        }
        let (dictionaries, batch) =
            self.generator.encode(batch, &mut self.dictionaries, &self.options, &mut self.context)?;
        messages.extend(dictionaries.into_iter().map(FlightData::from));
        messages.push(batch.into());
        Ok(())
    }
}

/// The messages of `groups`, one by one. Those that wait for the client to take them are a part of the budget of `account`, by
/// whose name the client hears when they do not fit.
pub(crate) fn one_by_one(
    groups: impl Stream<Item = Result<Vec<FlightData>, Status>> + Send + 'static,
    account: MemoryAccount,
) -> BoxStream<'static, Result<FlightData, Status>> {
    let groups = groups.boxed();
    let waiting = Waiting { groups, messages: Vec::new().into_iter(), taken: 0, account };
    let next = |mut waiting: Waiting| async move {
        let message = waiting.next().await.transpose()?;
        Some((message, waiting))
    };
    stream::unfold(waiting, next).boxed()
}

/// Messages on their way to a client.
struct Waiting {
    groups: BoxStream<'static, Result<Vec<FlightData>, Status>>,
    messages: std::vec::IntoIter<FlightData>,
    /// The bytes of the message that the client is being sent.
    taken: usize,
    account: MemoryAccount,
}

impl Waiting {
    async fn next(&mut self) -> Result<Option<FlightData>, Status> {
        loop {
            // The one before has been sent.
            self.account.set(self.account.held().saturating_sub(std::mem::take(&mut self.taken)));
            if let Some(message) = self.messages.next() {
                self.taken = message_bytes(&message);
                return Ok(Some(message));
            }
            let Some(group) = self.groups.next().await else { return Ok(None) };
            let group = group?;
            let bytes = group.iter().map(message_bytes).sum();
            self.account.resize_large(bytes).map_err(|e| {
                let hint = "Raise it with SET memory_limit = '8GB', or ask for fewer columns or rows.";
                to_status(&Error::from(e.with_hint(hint)), None)
            })?;
            self.messages = group.into_iter();
        }
    }
}

fn message_bytes(message: &FlightData) -> usize {
    message.data_header.len() + message.data_body.len() + message.app_metadata.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, ListArray, StringArray, StringViewArray};
    use arrow::compute::concat_batches;
    use arrow::datatypes::Int64Type;
    use arrow_flight::decode::FlightRecordBatchStream;
    use arrow_flight::error::FlightError;
    use futures::{TryStreamExt, stream};
    use millstream_engine::memory::MemoryBudget;
    use tonic::Code;

    use crate::wire::wire_schema;

    fn batch(rows: i64) -> RecordBatch {
        let text: Vec<String> = (0..rows).map(|i| format!("row number {i}")).collect();
        RecordBatch::try_from_iter([
            ("n", Arc::new(Int64Array::from_iter_values(0..rows)) as ArrayRef),
            ("t", Arc::new(StringViewArray::from_iter_values(text)) as ArrayRef),
        ])
        .unwrap()
    }

    async fn decode(messages: Vec<FlightData>) -> Vec<RecordBatch> {
        let messages = stream::iter(messages.into_iter().map(Ok::<_, FlightError>));
        FlightRecordBatchStream::new_from_flight_data(messages).try_collect().await.unwrap()
    }

    #[tokio::test]
    async fn rows_come_out_as_they_went_in() {
        let batch = batch(300_000);
        let schema = wire_schema(batch.schema_ref());
        let mut encoder = Encoder::new(Arc::clone(&schema));
        let mut messages = vec![encoder.schema_message()];
        messages.extend(encoder.encode(&batch).unwrap());
        assert!(messages.len() > 2, "a big batch is split");
        assert!(messages.iter().all(|m| m.data_body.len() < LARGEST_MESSAGE + 4096));
        let decoded = decode(messages).await;
        assert_eq!(concat_batches(&schema, &decoded).unwrap(), cast_batch(&batch, &schema).unwrap());
    }

    #[tokio::test]
    async fn compressed_rows_are_the_same_in_fewer_bytes() {
        let batch = batch(300_000);
        let schema = wire_schema(batch.schema_ref());
        let mut sizes = vec![];
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let mut encoder = Encoder::compressed(Arc::clone(&schema), compression).unwrap();
            let messages = [vec![encoder.schema_message()], encoder.encode(&batch).unwrap()].concat();
            sizes.push(messages.iter().map(message_bytes).sum::<usize>());
            let decoded = decode(messages).await;
            assert_eq!(concat_batches(&schema, &decoded).unwrap(), cast_batch(&batch, &schema).unwrap());
        }
        assert!(sizes[1] < sizes[0] / 3 * 2 && sizes[2] < sizes[1], "{sizes:?}");
    }

    #[tokio::test]
    async fn a_slice_of_a_big_batch_is_one_message() {
        let batch = batch(300_000);
        let slice = batch.slice(1003, 8192);
        let schema = wire_schema(batch.schema_ref());
        let mut encoder = Encoder::new(Arc::clone(&schema));
        let messages = encoder.encode(&slice).unwrap();
        assert_eq!(messages.len(), 1);
        let decoded = decode(vec![encoder.schema_message(), messages[0].clone()]).await;
        assert_eq!(decoded, vec![cast_batch(&slice, &schema).unwrap()]);
    }

    #[test]
    fn lists_are_parted_by_what_is_in_them() {
        let lists = (0..200_000).map(|i| Some(vec![Some(i), None]));
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists));
        let batch = RecordBatch::try_from_iter([("l", lists)]).unwrap();
        let messages = Encoder::new(batch.schema()).encode(&batch).unwrap();
        assert_eq!(messages.len(), 2, "of 4 MB");
    }

    #[test]
    fn one_huge_row_among_small_ones_stands_alone() {
        let huge = "x".repeat(3 << 20);
        let mut rows = vec!["small"; 100];
        rows[70] = &huge;
        let batch = RecordBatch::try_from_iter([("t", Arc::new(StringArray::from(rows)) as ArrayRef)]).unwrap();
        let messages = Encoder::new(batch.schema()).encode(&batch).unwrap();
        let large = messages.iter().filter(|m| m.data_body.len() > LARGEST_MESSAGE).count();
        assert_eq!(large, 1);
        assert!(messages.len() < 10);
    }

    #[tokio::test]
    async fn messages_that_wait_are_a_part_of_the_budget() {
        let budget = MemoryBudget::new(16 << 20);
        let batch = batch(300_000);
        let mut encoder = Encoder::new(wire_schema(batch.schema_ref()));
        let mut group = || encoder.encode(&batch).unwrap();
        let (first, large) = (group(), (0..3).flat_map(|_| group()).collect::<Vec<_>>());
        let bytes = |messages: &[FlightData]| messages.iter().map(message_bytes).sum::<usize>();
        let (count, all) = (first.len(), bytes(&first));
        assert!(all > 4 << 20 && all < 16 << 20 && bytes(&large) > 16 << 20 && count > 2);
        let groups = stream::iter([Ok(first), Ok(large)]);
        let mut messages = one_by_one(groups, budget.account("the result of a query"));
        assert_eq!(budget.used(), 0);
        let sent = messages.next().await.unwrap().unwrap();
        assert_eq!(budget.used(), all, "the one that is being sent, and those behind it");
        messages.next().await.unwrap().unwrap();
        assert_eq!(budget.used(), all - message_bytes(&sent));
        for _ in 2..count {
            messages.next().await.unwrap().unwrap();
        }
        let status = messages.next().await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.message().contains("out of memory: the result of a query"), "{status:?}");
        assert!(status.message().contains("SET memory_limit"), "{status:?}");
        drop(messages);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn no_rows_make_no_message() {
        let batch = batch(3).slice(1, 0);
        assert!(Encoder::new(wire_schema(batch.schema_ref())).encode(&batch).unwrap().is_empty());
    }
}
