//! What stands in the messages between nodes.

use arrow_flight::FlightData;
use bytes::Bytes;
use millstream_engine::epoch::EpochMark;
use millstream_engine::time::EventTime;
use prost::Message;
use serde::{Deserialize, Serialize};

/// What a `DoExchange` begins with: the command of its descriptor, in JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Call {
    /// A job line. The body is the order.
    Job,
    /// A data line of a run of a job, from one of its nodes.
    Edges { run: String, from: usize },
}

/// What comes along an edge; the rows themselves stand beside it.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Head {
    #[prost(uint32, tag = "1")]
    pub(super) edge: u32,
    /// The room that rows take of what was granted.
    #[prost(uint32, tag = "2")]
    pub(super) cost: u32,
    /// The last column of the rows is their weights.
    #[prost(bool, tag = "3")]
    pub(super) weighted: bool,
    #[prost(message, optional, tag = "4")]
    pub(super) mark: Option<Mark>,
}

/// An epoch's mark.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Mark {
    #[prost(uint64, tag = "1")]
    epoch: u64,
    #[prost(sfixed64, tag = "2")]
    watermark: i64,
    #[prost(uint64, optional, tag = "3")]
    checkpoint: Option<u64>,
    #[prost(bool, tag = "4")]
    end: bool,
    #[prost(uint64, tag = "5")]
    depth: u64,
    #[prost(sfixed64, tag = "6")]
    now: i64,
}

/// What the other end of a data line answers: first how much of an edge may be under way, then how much more.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Answer {
    #[prost(uint64, tag = "1")]
    pub(super) window: u64,
    #[prost(message, repeated, tag = "2")]
    pub(super) granted: Vec<Granted>,
}

/// So much more of an edge may be under way.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Granted {
    #[prost(uint32, tag = "1")]
    pub(super) edge: u32,
    #[prost(uint64, tag = "2")]
    pub(super) bytes: u64,
}

impl From<EpochMark> for Mark {
    fn from(EpochMark { epoch, now, watermark, checkpoint, end, depth }: EpochMark) -> Self {
        Mark { epoch, now: now.0, watermark: watermark.0, checkpoint, end, depth: depth as u64 }
    }
}

impl From<Mark> for EpochMark {
    fn from(Mark { epoch, now, watermark, checkpoint, end, depth }: Mark) -> Self {
        EpochMark {
            epoch,
            now: EventTime(now),
            watermark: EventTime(watermark),
            checkpoint,
            end,
            depth: depth as usize,
        }
    }
}

/// A message that carries `head` alone.
pub(super) fn alone(head: &impl Message) -> FlightData {
    FlightData::new().with_app_metadata(head.encode_to_vec())
}

/// A word of a job line.
pub(super) fn word(word: Bytes) -> FlightData {
    FlightData::new().with_data_body(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_go_there_and_back() {
        for (watermark, checkpoint, end) in [(EventTime::MIN, None, false), (EventTime::MAX, Some(7), true)] {
            let mark = EpochMark { epoch: 1 << 40, now: EventTime(5), watermark, checkpoint, end, depth: 3 };
            let head = Head { edge: 9, cost: 0, weighted: false, mark: Some(mark.into()) };
            let read = Head::decode(alone(&head).app_metadata).unwrap();
            assert_eq!((read.edge, read.mark.map(EpochMark::from)), (9, Some(mark)));
        }
    }
}
