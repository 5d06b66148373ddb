//! What has been consumed of a source.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// What has been consumed: per split, disjoint ascending ranges of its coordinate. The first range of a
/// split that was read from its start begins at 0; later ones were read ahead by other tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offsets {
    /// By split name.
    pub splits: BTreeMap<String, Vec<Range<u64>>>,
}

impl Offsets {
    /// The parts of `within` in `split` that have not been consumed, in order.
    pub fn gaps(&self, split: &str, within: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = vec![];
        let mut at = within.start;
        for done in self.splits.get(split).into_iter().flatten() {
            if done.start >= within.end {
                break;
            }
            if done.start > at {
                gaps.push(at..done.start);
            }
            at = at.max(done.end);
        }
        if at < within.end {
            gaps.push(at..within.end);
        }
        gaps
    }

    /// Adds `range` of `split`, merging it with its neighbours.
    pub fn add(&mut self, split: &str, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let ranges = self.splits.entry(split.to_owned()).or_default();
        ranges.push(range);
        ranges.sort_by_key(|r| r.start);
        let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
        for r in ranges.drain(..) {
            match merged.last_mut() {
                Some(last) if r.start <= last.end => last.end = last.end.max(r.end),
                _ => merged.push(r),
            }
        }
        *ranges = merged;
    }

    /// The end of the contiguous prefix of `split`: all before it has been consumed.
    pub fn prefix(&self, split: &str) -> u64 {
        match self.splits.get(split).and_then(|r| r.first()) {
            Some(first) if first.start == 0 => first.end,
            _ => 0,
        }
    }
}
