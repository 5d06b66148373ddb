//! `EMIT CHANGES`: the epochs of a change feed as Flight messages.

use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use arrow_flight::FlightData;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use millstream_engine::memory::MemoryAccount;
use millstream_engine::time::EventTime;
use millstream_sql::session::{ChangeFeed, EpochChanges, FeedEnd};
use tokio::time::timeout;
use tonic::Status;

use crate::encode::{Encoder, one_by_one};
use crate::error::{encoding_failed, to_status};
use crate::notes::{EpochNote, FeedNote, to_bytes};
use crate::wanted::{SIGN, Wanted};

/// How often one who gets no rows is told how far the stream has come, where its watermark stays.
const QUIET: Duration = Duration::from_secs(1);
/// Bytes of columns in a message for one who takes silence for a cut: it comes in time on a line of 25 kB a second.
const PIECE: usize = 128 << 10;

/// The messages of `feed`, announced as `schema`. Each part of an epoch is handed over as soon as it comes. One without rows
/// gives a message now and then, so that its reader's position does not fall behind.
pub(crate) fn change_messages(
    feed: ChangeFeed,
    schema: SchemaRef,
    sql: String,
    account: MemoryAccount,
    wanted: Wanted,
) -> Result<Messages, Status> {
    let mut encoder = Encoder::compressed(schema, wanted.compression).map_err(encoding_failed)?;
    if wanted.alive {
        encoder = encoder.in_pieces_of(PIECE);
    }
    let sign = encoder.note_message(Bytes::new()).map_err(encoding_failed)?;
    let incarnation = feed.incarnation;
    let (updating, key, event_time) = (feed.updating, feed.key, feed.event_time);
    let alive = wanted.alive.then_some(SIGN.as_millis() as u64);
    let note = FeedNote { changes: true, updating, key, event_time, incarnation: incarnation.clone(), alive };
    let first = encoder.schema_message().with_app_metadata(to_bytes(&note));
    let epochs = feed.epochs.map_err(move |e| to_status(&e, Some(&sql)));
    let mut parts = Parts { encoder, incarnation, open: false, told: None, watermark: EventTime::MIN, ahead: 0 };
    let messages = epochs.map(move |part| parts.encode(&part?));
    let messages = one_by_one(messages, account);
    let messages = if wanted.alive { with_signs(messages, sign, SIGN) } else { messages };
    Ok(stream::once(async { Ok(first) }).chain(messages).boxed())
}

type Messages = BoxStream<'static, Result<FlightData, Status>>;

/// `messages`, and `sign` whenever none has come for `period`.
fn with_signs(messages: Messages, sign: FlightData, period: Duration) -> Messages {
    let next = move |(mut messages, sign): (Messages, FlightData)| async move {
        match timeout(period, messages.next()).await {
            Ok(message) => Some((message?, (messages, sign))),
            Err(_) => Some((Ok(sign.clone()), (messages, sign))),
        }
    };
    stream::unfold((messages, sign), next).boxed()
}

/// Makes messages of the parts of epochs.
struct Parts {
    encoder: Encoder,
    incarnation: Option<String>,
    /// Rows of the present epoch have been sent.
    open: bool,
    /// When the reader was told how far the stream has come, without rows.
    told: Option<Instant>,
    /// The watermark that it was told last.
    watermark: EventTime,
    /// How many rows are behind, as it was told last.
    ahead: u64,
}

impl Parts {
    /// Whether one who has got no rows is to be told how far the stream has come. Without a position that means nothing.
    fn is_due(&mut self, watermark: EventTime, ahead: u64) -> bool {
        // That nothing more is there ends what a reader takes for its lag.
        let moved = watermark > self.watermark || (ahead == 0 && self.ahead > 0);
        let due = self.incarnation.is_some() && (moved || self.told.is_none_or(|told| told.elapsed() >= QUIET));
        if due {
            self.told = Some(Instant::now());
            self.ahead = ahead;
        }
        due
    }

    fn encode(&mut self, part: &EpochChanges) -> Result<Vec<FlightData>, Status> {
        let mut messages = Vec::new();
        for batch in &part.batches {
            messages.extend(self.encoder.encode(batch).map_err(encoding_failed)?);
        }
        self.open |= !messages.is_empty();
        let (note, watermark, ahead) = match part.end {
            None => return Ok(messages),
            Some(FeedEnd::Limit) => (EpochNote::limit(), self.watermark, 0),
            Some(FeedEnd::Epoch { epoch, watermark, ahead }) => {
                let note = EpochNote::new(epoch, watermark, self.incarnation.clone());
                (EpochNote { ahead, ..note }, watermark, ahead)
            }
        };
        let note = to_bytes(&note);
        if let Some(last) = messages.last_mut() {
            last.app_metadata = note;
            self.ahead = ahead;
        } else if self.open || part.end == Some(FeedEnd::Limit) || self.is_due(watermark, ahead) {
            messages.push(self.encoder.note_message(note).map_err(encoding_failed)?);
        }
        self.watermark = watermark;
        self.open = false;
        Ok(messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
    use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
    use arrow_flight::error::FlightError;
    use millstream_engine::memory::MemoryBudget;
    use millstream_sql::Error;

    use crate::wire::wire_schema;

    fn batch(rows: i64) -> RecordBatch {
        let op: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..rows).map(|_| "+I")));
        RecordBatch::try_from_iter([("_op", op), ("n", Arc::new(Int64Array::from_iter_values(0..rows)))]).unwrap()
    }

    fn part(epoch: Option<(u64, EventTime)>, batches: Vec<RecordBatch>) -> EpochChanges {
        let end = epoch.map(|(epoch, watermark)| FeedEnd::Epoch { epoch: Some(epoch), watermark, ahead: 0 });
        EpochChanges { batches, end }
    }

    /// The notes and rows of the messages of `parts` behind the schema; the last is an error.
    async fn sent(incarnation: Option<&str>, parts: Vec<EpochChanges>) -> Vec<(Option<EpochNote>, usize)> {
        let parts = parts.into_iter().map(Ok).chain([Err(Error::invalid("division by zero"))]);
        let schema = batch(0).schema();
        let feed = ChangeFeed {
            schema: Arc::clone(&schema),
            updating: true,
            key: Some(vec![0]),
            event_time: Some(1),
            incarnation: incarnation.map(ToOwned::to_owned),
            alive: None,
            epochs: stream::iter(parts.collect::<Vec<_>>()).boxed(),
        };
        let account = MemoryBudget::new(1 << 30).account("a query");
        let messages =
            change_messages(feed, wire_schema(&schema), "SELECT".into(), account, Wanted::default()).unwrap();
        let messages = messages.map_err(FlightError::from);
        let mut decoded: Vec<_> = FlightDataDecoder::new(messages).collect().await;
        assert!(decoded.pop().unwrap().unwrap_err().to_string().contains("division by zero"));
        let note: FeedNote = serde_json::from_slice(&decoded[0].as_ref().unwrap().app_metadata()).unwrap();
        let incarnation = incarnation.map(ToOwned::to_owned);
        let event_time = Some(1);
        assert_eq!(
            note,
            FeedNote { changes: true, updating: true, key: Some(vec![0]), event_time, incarnation, alive: None }
        );
        let message = |message: &Result<arrow_flight::decode::DecodedFlightData, FlightError>| {
            let message = message.as_ref().unwrap();
            let DecodedPayload::RecordBatch(batch) = &message.payload else { panic!("{message:?}") };
            (serde_json::from_slice(&message.app_metadata()).ok(), batch.num_rows())
        };
        decoded[1..].iter().map(message).collect()
    }

    #[tokio::test]
    async fn the_last_message_of_an_epoch_carries_its_number_and_watermark() {
        let parts = vec![
            part(None, vec![batch(2)]),
            part(Some((3, EventTime::MIN)), vec![batch(2), batch(0), batch(1)]),
            part(Some((4, EventTime(10))), vec![]),
            // The end of what was sent in parts comes for itself.
            part(None, vec![batch(7)]),
            part(Some((5, EventTime::MAX)), vec![]),
        ];
        let note = |epoch, watermark| Some(EpochNote::new(Some(epoch), watermark, None));
        let want = [(None, 2), (None, 2), (note(3, EventTime::MIN), 1), (None, 7), (note(5, EventTime::MAX), 0)];
        assert_eq!(sent(None, parts).await, want);
    }

    #[tokio::test]
    async fn one_with_a_position_is_told_where_it_stands_now_and_then() {
        let quiet = |epoch, time| part(Some((epoch, EventTime(time))), vec![]);
        let parts = vec![
            quiet(4, 10),
            quiet(5, 10),
            part(Some((6, EventTime(10))), vec![batch(1)]),
            quiet(7, 10),
            quiet(8, 11),
        ];
        let note = |epoch, time| Some(EpochNote::new(Some(epoch), EventTime(time), Some("hot-1".to_owned())));
        // Whenever the watermark moves, since windows may close.
        assert_eq!(sent(Some("hot-1"), parts).await, [(note(4, 10), 0), (note(6, 10), 1), (note(8, 11), 0)]);
    }

    #[tokio::test]
    async fn one_who_asks_hears_that_there_is_nothing_new() {
        let messages = stream::iter([Ok(FlightData::new().with_app_metadata("a"))]).chain(stream::pending()).boxed();
        let sign = FlightData::new().with_app_metadata("sign");
        let heard: Vec<_> = with_signs(messages, sign, Duration::from_millis(10))
            .take(3)
            .map(|m| m.unwrap().app_metadata)
            .collect()
            .await;
        assert_eq!(heard, ["a", "sign", "sign"]);
    }

    #[tokio::test]
    async fn a_limit_within_an_epoch_is_told() {
        let parts = vec![EpochChanges { batches: vec![batch(2)], end: Some(FeedEnd::Limit) }];
        assert_eq!(sent(Some("hot-1"), parts).await, [(Some(EpochNote::limit()), 2)]);
        let parts = vec![EpochChanges { batches: vec![], end: Some(FeedEnd::Limit) }];
        assert_eq!(sent(Some("hot-1"), parts).await, [(Some(EpochNote::limit()), 0)]);
    }
}
