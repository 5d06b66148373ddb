//! Batches into Flight messages of a size that every client accepts.
//!
//! `FlightDataEncoder` splits by the size of the buffers that a batch points into, so that a slice of a big
//! batch becomes a message per handful of rows; here the size is that of the slice itself.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::IpcWriteContext;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions};
use arrow_flight::{FlightData, SchemaAsIpc};
use bytes::Bytes;

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
}

impl Encoder {
    /// An encoder of a stream that is announced as `schema` (one that [`crate::wire::wire_schema`] gave).
    pub(crate) fn new(schema: SchemaRef) -> Self {
        Encoder {
            schema,
            generator: IpcDataGenerator::default(),
            dictionaries: DictionaryTracker::new(true),
            options: IpcWriteOptions::default(),
            context: IpcWriteContext::default(),
        }
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
        if rows > 1 && size(batch) > LARGEST_MESSAGE {
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

/// The bytes of the rows of `batch`, without what its buffers hold besides.
fn size(batch: &RecordBatch) -> usize {
    let of = |column: &dyn Array| {
        column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_buffer_memory_size())
    };
    batch.columns().iter().map(|c| of(c.as_ref())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray, StringViewArray};
    use arrow::compute::concat_batches;
    use arrow_flight::decode::FlightRecordBatchStream;
    use arrow_flight::error::FlightError;
    use futures::{TryStreamExt, stream};

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

    #[test]
    fn no_rows_make_no_message() {
        let batch = batch(3).slice(1, 0);
        assert!(Encoder::new(wire_schema(batch.schema_ref())).encode(&batch).unwrap().is_empty());
    }
}
