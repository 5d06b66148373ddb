//! `EMIT CHANGES`: the epochs of a change feed as Flight messages.

use arrow::datatypes::SchemaRef;
use arrow_flight::FlightData;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use millstream_engine::memory::MemoryAccount;
use millstream_sql::session::{ChangeFeed, EpochChanges};
use tonic::Status;

use crate::encode::{Encoder, one_by_one};
use crate::error::{encoding_failed, to_status};
use crate::notes::{EpochNote, FeedNote, to_bytes};

/// The messages of `feed`, announced as `schema`. Each epoch is handed over as soon as it comes; one without
/// rows gives no message.
pub(crate) fn change_messages(
    feed: ChangeFeed,
    schema: SchemaRef,
    sql: String,
    account: MemoryAccount,
) -> BoxStream<'static, Result<FlightData, Status>> {
    let mut encoder = Encoder::new(schema);
    let note = FeedNote { changes: true, updating: feed.updating, key: feed.key };
    let first = encoder.schema_message().with_app_metadata(to_bytes(&note));
    let epochs = feed.epochs.map_err(move |e| to_status(&e, Some(&sql)));
    let messages = epochs.map(move |epoch| encode_epoch(&mut encoder, &epoch?));
    stream::once(async { Ok(first) }).chain(one_by_one(messages, account)).boxed()
}

fn encode_epoch(encoder: &mut Encoder, epoch: &EpochChanges) -> Result<Vec<FlightData>, Status> {
    let mut messages = Vec::new();
    for batch in &epoch.batches {
        messages.extend(encoder.encode(batch).map_err(encoding_failed)?);
    }
    let mut note = EpochNote::new(epoch.epoch, epoch.watermark);
    let metadata = to_bytes(&note);
    for message in &mut messages {
        message.app_metadata = metadata.clone();
    }
    if let Some(message) = messages.last_mut() {
        note.last = true;
        message.app_metadata = to_bytes(&note);
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
    use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
    use arrow_flight::error::FlightError;
    use millstream_engine::memory::MemoryBudget;
    use millstream_engine::time::EventTime;
    use millstream_sql::Error;

    use crate::wire::wire_schema;

    fn batch(rows: i64) -> RecordBatch {
        let op: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..rows).map(|_| "+I")));
        RecordBatch::try_from_iter([("_op", op), ("n", Arc::new(Int64Array::from_iter_values(0..rows)))]).unwrap()
    }

    fn epoch(epoch: u64, watermark: EventTime, batches: Vec<RecordBatch>) -> EpochChanges {
        EpochChanges { epoch, watermark, batches }
    }

    #[tokio::test]
    async fn epochs_carry_their_number_and_watermark() {
        let epochs = vec![
            Ok(epoch(3, EventTime::MIN, vec![batch(2), batch(0), batch(1)])),
            Ok(epoch(4, EventTime(10), vec![])),
            Ok(epoch(5, EventTime::MAX, vec![batch(4)])),
            Err(Error::invalid("division by zero")),
        ];
        let schema = batch(0).schema();
        let feed = ChangeFeed {
            schema: Arc::clone(&schema),
            updating: true,
            key: Some(vec![0]),
            epochs: stream::iter(epochs).boxed(),
        };
        let account = MemoryBudget::new(1 << 30).account("a query");
        let messages = change_messages(feed, wire_schema(&schema), "SELECT".into(), account).map_err(FlightError::from);
        let decoded: Vec<_> = FlightDataDecoder::new(messages).collect().await;
        let mut seen = Vec::new();
        for message in &decoded[1..4] {
            let message = message.as_ref().unwrap();
            let DecodedPayload::RecordBatch(batch) = &message.payload else { panic!("{message:?}") };
            let note: EpochNote = serde_json::from_slice(&message.app_metadata()).unwrap();
            seen.push((note.epoch, note.watermark_text, note.last, batch.num_rows()));
        }
        let want = [(3, "none", false, 2), (3, "none", true, 1), (5, "end", true, 4)];
        assert_eq!(seen, want.map(|(e, w, last, rows)| (e, w.to_string(), last, rows)));
        let note: FeedNote = serde_json::from_slice(&decoded[0].as_ref().unwrap().app_metadata()).unwrap();
        assert_eq!(note, FeedNote { changes: true, updating: true, key: Some(vec![0]) });
        assert!(decoded[4].as_ref().unwrap_err().to_string().contains("division by zero"));
        assert_eq!(decoded.len(), 5);
    }
}
