//! Where a followed query stands when it ends: behind which epoch one can go on with it.

use millstream_sql::session::{ChangeFeed, EpochChanges, FeedEnd};

use crate::report;

/// What has been seen of a followed query. It is said when this is dropped: also where the process is told to end.
pub(crate) struct Standing {
    stands: Stands,
    has_position: bool,
}

impl Standing {
    /// Of `feed`, of which nothing has been seen.
    pub(crate) fn of(feed: &ChangeFeed) -> Self {
        Standing { stands: Stands::default(), has_position: feed.incarnation.is_some() }
    }

    /// Notes a part of an epoch that has been shown.
    pub(crate) fn see(&mut self, part: &EpochChanges) {
        self.stands.see(part);
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        if let Some(line) = self.stands.line(self.has_position) {
            report::say(format_args!("{line}"));
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Stands {
    /// The last epoch that was whole, if it has a number.
    epoch: Option<u64>,
    /// A part of the next one was seen.
    within: bool,
}

impl Stands {
    fn see(&mut self, part: &EpochChanges) {
        match part.end {
            Some(FeedEnd::Epoch { epoch, .. }) => *self = Stands { epoch: epoch.or(self.epoch), within: false },
            Some(FeedEnd::Limit) => self.within = true,
            None => self.within |= !part.batches.is_empty(),
        }
    }

    /// A line for the user, of a query whose epochs are those of its stream, or of another.
    fn line(self, has_position: bool) -> Option<String> {
        match (self.epoch.filter(|_| has_position), self.within) {
            (Some(epoch), true) => Some(format!("ended within an epoch: SINCE EPOCH {epoch} has all of it again")),
            (Some(epoch), false) => Some(format!("SINCE EPOCH {epoch} goes on from here")),
            (None, true) => Some("ended within an epoch: not all of its rows are here".to_owned()),
            (None, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use millstream_engine::time::EventTime;
    use std::sync::Arc;

    #[test]
    fn it_stands_behind_the_last_whole_epoch() {
        let rows = || RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
        let end = |epoch| Some(FeedEnd::Epoch { epoch, watermark: EventTime::MIN, ahead: 0 });
        let mut stands = Stands::default();
        assert_eq!(stands.line(true), None);
        for (batches, end, line) in [
            (vec![rows()], end(Some(3)), Some("SINCE EPOCH 3 goes on from here")),
            (vec![], end(None), Some("SINCE EPOCH 3 goes on from here")),
            (vec![rows()], None, Some("ended within an epoch: SINCE EPOCH 3 has all of it again")),
            (vec![], end(Some(5)), Some("SINCE EPOCH 5 goes on from here")),
            (vec![], Some(FeedEnd::Limit), Some("ended within an epoch: SINCE EPOCH 5 has all of it again")),
        ] {
            stands.see(&EpochChanges { batches, end });
            assert_eq!(stands.line(true).as_deref(), line);
        }
        assert_eq!(stands.line(false).as_deref(), Some("ended within an epoch: not all of its rows are here"));
    }
}
