//! The ends of the last commits of a log, in memory.

use std::collections::VecDeque;

use super::committed::Committed;
use crate::time::EventTime;

/// Commits that are remembered.
const MOST: usize = 4096;
/// The end of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Boundary {
    /// The number of the row behind its last one.
    pub(super) end: u64,
    /// Its last epoch; 0 where an older build did not keep it.
    pub(super) epoch: u64,
    pub(super) watermark: EventTime,
}

impl Boundary {
    fn of(committed: &Committed) -> Self {
        let watermark = committed.watermark.unwrap_or(EventTime::MIN);
        Boundary { end: committed.rows, epoch: committed.epoch, watermark }
    }
}

/// The ends of the last commits, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Boundaries(VecDeque<Boundary>);

impl Boundaries {
    /// `committed` alone is known.
    pub(super) fn of(committed: &Committed) -> Self {
        Boundaries([Boundary::of(committed)].into())
    }

    pub(super) fn add(&mut self, committed: &Committed) {
        self.0.push_back(Boundary::of(committed));
        if self.0.len() > MOST {
            self.0.pop_front();
        }
    }

    /// The last commit that ends at or before row `at`.
    pub(super) fn before(&self, at: u64) -> Option<Boundary> {
        self.0.iter().rev().find(|b| b.end <= at).copied()
    }

    /// The first commit that ends after row `at`.
    pub(super) fn after(&self, at: u64) -> Option<Boundary> {
        self.0.iter().find(|b| b.end > at).copied()
    }

    /// How many rows epochs up to `epoch` have, if one of these ends there or before.
    pub(super) fn rows_upto(&self, epoch: u64) -> Option<u64> {
        self.0.iter().rev().find(|b| b.epoch > 0 && b.epoch <= epoch).map(|b| b.end)
    }

    /// All that end after row `at`.
    pub(super) fn behind(&self, at: u64) -> impl Iterator<Item = Boundary> {
        self.0.iter().copied().filter(move |b| b.end > at)
    }
}
