//! How far a source may be read ahead of the one that holds the watermark.
//!
//! ```text
//! watermark ──┤ least bound: the holder          horizon          a source that was ahead
//!             ●━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┤ · · · · · · · · ·○  reads no more until the next mark
//! ```
//! Of two histories that are read at once one may be through when the other has hardly begun, and what came of it would be
//! state until the watermark gets there. So a source that has an end waits while it is ahead by more than the watermark
//! moves in some epochs. A source without an end never waits: its rows come when they come.

use std::time::Duration;

use crate::time::EventTime;

/// How many of the watermark's steps a source may be ahead.
const STEPS: i64 = 4;
/// The shortest way that it may be ahead, in microseconds of event time.
const LEAST: i64 = 1_000_000;
/// A holder that has waited so long for rows has none: nobody waits for it.
const PATIENCE: Duration = Duration::from_millis(100);

/// What the coordinator knows of it.
#[derive(Debug, Default)]
pub(super) struct Horizon {
    /// The watermark when it was looked at last, once it is known.
    last: Option<EventTime>,
    /// How far a source may be ahead.
    reach: i64,
    /// Who holds the watermark, if others may wait for it.
    holder: Option<usize>,
}

impl Horizon {
    /// The watermark is at `watermark`, held by source `holder`, whose tasks have waited so long for rows.
    pub(super) fn look(&mut self, watermark: EventTime, holder: Option<usize>, waits: impl Iterator<Item = Duration>) {
        let mut waits = waits.peekable();
        let has_none = waits.peek().is_some() && waits.all(|wait| wait >= PATIENCE);
        self.holder = holder.filter(|_| !has_none);
        if watermark == EventTime::MIN || watermark == EventTime::MAX {
            return;
        }
        let step = self.last.replace(watermark).map_or(0, |last| watermark.0.saturating_sub(last.0));
        self.reach = step.saturating_mul(STEPS).max(self.reach - self.reach / 8).max(LEAST);
    }

    /// How far `source` may be read.
    pub(super) fn of(&self, source: usize) -> EventTime {
        match (self.holder, self.last) {
            (Some(holder), Some(last)) if holder != source => EventTime(last.0.saturating_add(self.reach)),
            _ => EventTime::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn at(seconds: i64) -> EventTime {
        EventTime(seconds * SECOND)
    }

    fn look(horizon: &mut Horizon, watermark: EventTime, holder: usize, waits: &[u64]) -> [EventTime; 2] {
        horizon.look(watermark, Some(holder), waits.iter().map(|ms| Duration::from_millis(*ms)));
        [horizon.of(0), horizon.of(1)]
    }

    #[test]
    fn others_wait_for_the_holder_while_it_has_rows() {
        let mut horizon = Horizon::default();
        assert_eq!(look(&mut horizon, EventTime::MIN, 0, &[]), [EventTime::MAX; 2]);
        // Nobody knows yet how fast it goes.
        assert_eq!(look(&mut horizon, at(100), 0, &[]), [EventTime::MAX, at(101)]);
        assert_eq!(look(&mut horizon, at(110), 0, &[0]), [EventTime::MAX, at(150)]);
        // It slows down, and others come near by and by.
        assert_eq!(look(&mut horizon, at(111), 0, &[0]), [EventTime::MAX, at(111 + 35)]);
        assert_eq!(look(&mut horizon, at(131), 1, &[0]), [at(131 + 80), EventTime::MAX]);
        // One of its tasks has rows; then none has.
        assert_ne!(look(&mut horizon, at(132), 1, &[0, 500])[0], EventTime::MAX);
        assert_eq!(look(&mut horizon, at(132), 1, &[100, 500]), [EventTime::MAX; 2]);
        for _ in 0..100 {
            look(&mut horizon, at(132), 1, &[0]);
        }
        assert_eq!(horizon.of(0), at(133));
    }

    #[test]
    fn nobody_waits_without_a_holder() {
        let mut horizon = Horizon::default();
        horizon.look(at(1), None, std::iter::empty());
        horizon.look(at(2), None, std::iter::empty());
        assert_eq!(horizon.of(0), EventTime::MAX);
    }
}
