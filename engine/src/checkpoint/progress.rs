//! What has been read: offsets and watermarks per split, from what the source tasks report.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::connector::{Offsets, Reach, Split};
use crate::time::EventTime;

/// A range of a split that a task has read since its last report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Consumed {
    #[serde(with = "crate::plain::text")]
    pub(crate) split: Arc<str>,
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// The largest watermark bound set by its rows.
    pub(crate) bound: Option<EventTime>,
    /// The largest event time of its rows.
    pub(crate) max_time: Option<EventTime>,
}

/// A range read, and the bound its rows set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Read {
    start: u64,
    end: u64,
    bound: Option<EventTime>,
}

/// The progress of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    splits: BTreeMap<String, Vec<Read>>,
    /// The largest event time read.
    max_time: Option<EventTime>,
}

impl Progress {
    /// Takes in a report.
    pub(crate) fn add(&mut self, consumed: Consumed) {
        self.max_time = self.max_time.max(consumed.max_time);
        let mut read = Read { start: consumed.start, end: consumed.end, bound: consumed.bound };
        let Some(reads) = self.splits.get_mut(&*consumed.split) else {
            self.splits.insert(consumed.split.to_string(), vec![read]);
            return;
        };
        // Those it touches become one with it.
        let first = reads.partition_point(|r| r.end < read.start);
        let end = reads.partition_point(|r| r.start <= read.end);
        for r in &reads[first..end] {
            read.start = read.start.min(r.start);
            read.end = read.end.max(r.end);
            read.bound = read.bound.max(r.bound);
        }
        reads.splice(first..end, [read]);
    }

    /// What has been read, as the source is told on restart.
    pub fn offsets(&self) -> Offsets {
        let ranges = |reads: &Vec<Read>| reads.iter().map(|r| r.start..r.end).collect();
        Offsets { splits: self.splits.iter().map(|(name, reads)| (name.clone(), ranges(reads))).collect() }
    }

    fn prefix(&self, split: &str) -> Option<&Read> {
        self.splits.get(split)?.first().filter(|r| r.start == 0)
    }

    /// Whether all of the split has been read.
    pub(crate) fn is_done(&self, split: &Split) -> bool {
        split.end.is_some_and(|end| end == 0 || self.prefix(&split.name).is_some_and(|p| p.end >= end))
    }

    /// The watermark over `splits`, of which idle ones hold nothing, and the split that holds it, which is `None` when
    /// all are idle; `None` when all are done (no bound any more).
    pub(crate) fn watermark<'a>(
        &self,
        splits: &'a [Split],
        is_idle: impl Fn(&str) -> bool,
    ) -> Option<(EventTime, Option<&'a str>)> {
        let mut least: Option<(EventTime, Option<&str>)> = None;
        let mut idle = false;
        for split in splits.iter().filter(|s| !self.is_done(s)) {
            let opened = self.splits.contains_key(&*split.name);
            let bound = match self.prefix(&split.name).and_then(|p| p.bound) {
                Some(bound) => bound,
                None if opened || split.holds => split.min_time.unwrap_or(EventTime::MIN),
                None => continue,
            };
            if is_idle(&split.name) {
                idle = true;
                continue;
            }
            if least.as_ref().is_none_or(|(l, _)| bound < *l) {
                least = Some((bound, Some(&*split.name)));
            }
        }
        match least {
            None if idle => Some((self.max_time.unwrap_or(EventTime::MIN), None)),
            // Done splits still bound what later splits of an open source may bring.
            None => None,
            some => some,
        }
    }

    /// The share of the splits' known ends that has been read.
    pub(crate) fn share(&self, splits: &[Split]) -> Option<f64> {
        let (mut done, mut all) = (0u64, 0u64);
        for s in splits {
            let end = s.end?;
            all += end;
            let reads = self.splits.get(&*s.name).into_iter().flatten();
            done += reads.map(|r| r.end.min(end).saturating_sub(r.start)).sum::<u64>();
        }
        (all > 0).then(|| done as f64 / all as f64)
    }

    /// Whether all before `reach` has been read, its watermark too.
    pub(crate) fn reaches(&self, reach: &Reach) -> bool {
        let prefix = self.prefix(&reach.split);
        let time = reach.watermark.is_none_or(|w| prefix.and_then(|p| p.bound).is_some_and(|b| b >= w));
        time && (reach.end == 0 || prefix.is_some_and(|p| p.end >= reach.end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consumed(split: &str, start: u64, end: u64, bound: i64) -> Consumed {
        let t = Some(EventTime(bound));
        Consumed { split: split.into(), start, end, bound: t, max_time: t }
    }

    fn split(name: &str, end: Option<u64>) -> Split {
        Split { name: name.into(), end, min_time: None, holds: true }
    }

    fn none(_: &str) -> bool {
        false
    }

    #[test]
    fn what_is_read_ahead_does_not_move_the_watermark() {
        let mut p = Progress::default();
        p.add(consumed("f", 0, 10, 5));
        p.add(consumed("f", 20, 30, 50));
        let splits = [split("f", Some(100))];
        assert_eq!(p.watermark(&splits, none).map(|w| w.0), Some(EventTime(5)));
        p.add(consumed("f", 10, 20, 7));
        assert_eq!(p.watermark(&splits, none).map(|w| w.0), Some(EventTime(50)));
        assert_eq!(p.offsets().splits["f"], vec![0..30]);
        p.add(consumed("f", 30, 100, 60));
        assert_eq!(p.watermark(&splits, none), None);
    }

    #[test]
    fn a_split_not_opened_holds_the_watermark() {
        let mut p = Progress::default();
        p.add(consumed("a", 0, 10, 5));
        let mut b = split("b", Some(10));
        assert_eq!(p.watermark(&[split("a", None), b.clone()], none).map(|w| w.0), Some(EventTime::MIN));
        b.min_time = Some(EventTime(3));
        assert_eq!(p.watermark(&[split("a", None), b.clone()], none).map(|w| w.0), Some(EventTime(3)));
        b.holds = false;
        assert_eq!(p.watermark(&[split("a", None), b], none).map(|w| w.0), Some(EventTime(5)));
    }

    #[test]
    fn idle_splits_let_go() {
        let mut p = Progress::default();
        p.add(consumed("a", 0, 10, 5));
        p.add(consumed("b", 0, 10, 9));
        let splits = [split("a", None), split("b", None)];
        assert_eq!(p.watermark(&splits, |s| s == "a").map(|w| w.0), Some(EventTime(9)));
        assert_eq!(p.watermark(&splits, |_| true), Some((EventTime(9), None)), "all are idle");
    }

    #[test]
    fn time_is_reached_like_rows() {
        let mut p = Progress::default();
        p.add(consumed("log", 0, 10, 5));
        let reach = |end, w: Option<i64>| Reach { split: "log".into(), end, watermark: w.map(EventTime) };
        assert!(p.reaches(&reach(10, None)) && p.reaches(&reach(10, Some(5))));
        assert!(!p.reaches(&reach(11, None)) && !p.reaches(&reach(10, Some(6))));
        p.add(consumed("log", 10, 10, 6));
        assert!(p.reaches(&reach(10, Some(6))));
    }
}
