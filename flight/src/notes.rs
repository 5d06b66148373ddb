//! What `app_metadata` says, as JSON, so that any client can read it.
//!
//! - on the schema message of a stream of changes: [`FeedNote`];
//! - on the last batch message of each epoch of such a stream: [`EpochNote`]. So who has kept the note has seen the epoch
//!   whole, and goes on with `SINCE EPOCH n OF 'incarnation'`;
//! - on the flight info of a statement that was done: [`DoneNote`];
//! - on the last message, which has no rows, of a query whose rows are not all that there should be: [`RowsNote`]. Over HTTP it is a header;
//! - as the body of each result of the action `FollowFailures`: [`FailedNote`].

use bytes::Bytes;
use millstream_engine::time::EventTime;
use millstream_sql::session::{Done, FailedStream, LeftOut, LeftOutRows};
use serde::{Deserialize, Serialize};

/// The characters of a text, and the failed streams, that a header may have.
const LONGEST: usize = 200;
const MOST_FAILED: usize = 4;

/// What a stream of changes is like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FeedNote {
    /// Always true: it tells this note from others.
    pub(crate) changes: bool,
    /// Whether batches have `_op`.
    pub(crate) updating: bool,
    /// The columns, without `_op`, that identify a row.
    pub(crate) key: Option<Vec<usize>>,
    /// The column, without `_op`, with the event time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) event_time: Option<usize>,
    /// Which making of its stream the epochs are of, for a query that can be gone on with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) incarnation: Option<String>,
    /// After how many milliseconds without anything new there is a message all the same, without rows and note.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) alive: Option<u64>,
}

/// The end of an epoch, or of the query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EpochNote {
    /// The epoch; null where it has no number, and where `limit` ends the query within one.
    pub(crate) epoch: Option<u64>,
    /// The watermark at its end in microseconds since 1970; null before the first and after the last.
    pub(crate) watermark: Option<i64>,
    /// The watermark for people: a timestamp, `none` or `end`.
    pub(crate) watermark_text: String,
    /// Which making of its stream the epoch is of, as the first note says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) incarnation: Option<String>,
    /// How many rows the stream has behind the epoch, those among them that the query does not take.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) ahead: u64,
    /// The query's LIMIT was reached within the epoch.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) limit: bool,
}

fn is_zero(rows: &u64) -> bool {
    *rows == 0
}

impl EpochNote {
    pub(crate) fn new(epoch: Option<u64>, watermark: EventTime, incarnation: Option<String>) -> Self {
        let known = watermark != EventTime::MIN && watermark != EventTime::MAX;
        let (watermark, watermark_text) = (known.then_some(watermark.0), watermark.to_string());
        EpochNote { epoch, watermark, watermark_text, incarnation, ahead: 0, limit: false }
    }

    /// The note where LIMIT was reached within an epoch.
    pub(crate) fn limit() -> Self {
        EpochNote { limit: true, ..EpochNote::new(None, EventTime::MIN, None) }
    }

    /// The watermark again.
    pub(crate) fn event_time(&self) -> EventTime {
        match self.watermark {
            Some(micros) => EventTime(micros),
            None if self.watermark_text == EventTime::MAX.to_string() => EventTime::MAX,
            None => EventTime::MIN,
        }
    }
}

/// What a statement without rows did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DoneNote {
    /// As PostgreSQL's command tags.
    pub(crate) tag: String,
    /// Rows inserted or copied.
    pub(crate) rows: Option<u64>,
    /// A further word.
    pub(crate) notice: Option<String>,
    /// What of the input was left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) left_out: Option<LeftOutNote>,
}

/// What a query has to say besides its rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RowsNote {
    /// What of the input was left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) left_out: Option<LeftOutNote>,
    /// The streams below that have failed, so that what came since is missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) failed: Vec<FailedNote>,
}

impl RowsNote {
    /// What there is to say, if there is anything.
    pub(crate) fn of(left_out: &LeftOutRows) -> Option<Self> {
        let note = RowsNote {
            left_out: left_out.get().map(LeftOutNote::from),
            failed: left_out.failed().into_iter().map(FailedNote::from).collect(),
        };
        note.says_something().then_some(note)
    }

    /// The note in `app_metadata`, if it is one.
    pub(crate) fn read(app_metadata: &[u8]) -> Option<Self> {
        serde_json::from_slice(app_metadata).ok().filter(Self::says_something)
    }

    /// All of it for people.
    pub(crate) fn text(&self) -> String {
        let left_out = self.left_out.iter().map(|note| note.warning.clone());
        let failed = self.failed.iter().map(|failed| FailedStream::from(failed.clone()).to_string());
        left_out.chain(failed).collect::<Vec<_>>().join("; ")
    }

    /// The note as the value of a header: JSON in ASCII, and not long.
    pub(crate) fn header(mut self) -> String {
        self.failed.truncate(MOST_FAILED);
        for failed in &mut self.failed {
            cut(&mut failed.reason);
        }
        if let Some(note) = &mut self.left_out {
            cut(&mut note.first);
            cut(&mut note.warning);
        }
        ascii(&serde_json::to_string(&self).unwrap_or_default())
    }

    fn says_something(&self) -> bool {
        self.left_out.is_some() || !self.failed.is_empty()
    }

    /// Says it again.
    pub(crate) fn tell(self, left_out: &LeftOutRows) {
        if let Some(note) = self.left_out {
            left_out.set(note.into());
        }
        for failed in self.failed {
            left_out.add_failed(failed.into());
        }
    }
}

/// A stream whose job has failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FailedNote {
    /// The stream.
    pub(crate) stream: String,
    /// Why its job failed.
    pub(crate) reason: String,
}

impl From<FailedStream> for FailedNote {
    fn from(failed: FailedStream) -> Self {
        FailedNote { stream: failed.stream, reason: failed.reason }
    }
}

impl From<FailedNote> for FailedStream {
    fn from(note: FailedNote) -> Self {
        FailedStream { stream: note.stream, reason: note.reason }
    }
}

/// Rows of the input that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeftOutNote {
    /// How many.
    rows: u64,
    /// Whether there were more, which were not counted.
    more: bool,
    /// Where the first stands, and what is wrong with it.
    first: String,
    /// All of it for people: `1 left out: orders.csv line 3: …`.
    warning: String,
}

impl From<LeftOut> for LeftOutNote {
    fn from(l: LeftOut) -> Self {
        LeftOutNote { warning: l.to_string(), rows: l.rows, more: l.more, first: l.first }
    }
}

impl From<LeftOutNote> for LeftOut {
    fn from(note: LeftOutNote) -> Self {
        LeftOut { rows: note.rows, more: note.more, first: note.first }
    }
}

impl From<Done> for DoneNote {
    fn from(done: Done) -> Self {
        let left_out = done.left_out.map(LeftOutNote::from);
        DoneNote { tag: done.tag, rows: done.rows, notice: done.notice, left_out }
    }
}

impl From<DoneNote> for Done {
    fn from(note: DoneNote) -> Self {
        let left_out = note.left_out.map(LeftOut::from);
        Done { tag: note.tag, rows: note.rows, notice: note.notice, left_out }
    }
}

/// Cuts a text that is too long for a header.
fn cut(text: &mut String) {
    if let Some((at, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(at);
        text.push('…');
    }
}

/// JSON with what is not ASCII written as escapes.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            ' '..='~' => out.push(c),
            // A control character is an escape already where it may stand in a text.
            _ => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out += &format!("\\u{unit:04x}")),
        }
    }
    out
}

/// A note as `app_metadata`.
pub(crate) fn to_bytes(note: &impl Serialize) -> Bytes {
    // Plain structs of numbers and text cannot fail to become JSON.
    serde_json::to_vec(note).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_of_a_message_reads_as_documented() {
        let note = EpochNote::new(Some(7), EventTime(1_436_918_400_500_000), Some("hot-1".to_owned()));
        let text = String::from_utf8(to_bytes(&note).to_vec()).unwrap();
        assert_eq!(
            text,
            r#"{"epoch":7,"watermark":1436918400500000,"watermark_text":"2015-07-15 00:00:00.500","incarnation":"hot-1"}"#
        );
    }

    #[test]
    fn a_header_is_short_and_ascii() {
        let note = |first: &str| RowsNote {
            left_out: Some(LeftOut { rows: 3, more: false, first: first.into() }.into()),
            failed: vec![FailedNote { stream: "ö".into(), reason: "x".repeat(5000) }; 100],
        };
        let header = note("a\n\"😀\u{7f}").header();
        assert!(header.len() < 8192 && header.bytes().all(|b| (b' '..=b'~').contains(&b)), "{header}");
        let read: RowsNote = serde_json::from_str(&header).unwrap();
        assert_eq!(read.left_out.unwrap().first, "a\n\"😀\u{7f}");
        assert_eq!((read.failed.len(), read.failed[0].stream.as_str()), (4, "ö"));
        assert!(note(&"ä".repeat(5000)).header().len() < 8192);
    }

    #[test]
    fn watermarks_come_back_from_json() {
        for time in [EventTime::MIN, EventTime(-5), EventTime(12), EventTime::MAX] {
            let note: EpochNote = serde_json::from_slice(&to_bytes(&EpochNote::new(Some(1), time, None))).unwrap();
            assert_eq!(note.event_time(), time);
            assert_eq!(note.watermark.is_none(), time == EventTime::MIN || time == EventTime::MAX);
        }
    }
}
