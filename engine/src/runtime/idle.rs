//! Which splits of a source are idle, and so do not hold the watermark.
//!
//! A split is idle when nothing was read of it for the timeout although a task could have read: the task that has
//! it open waits for its next row that long, or, where no task has it open, some task waits that long for
//! anything to read at all. A split whose turn has not come is not idle.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::connector::Split;

/// What a task waits for when it ends an epoch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Waits {
    /// The split it has open; none: it waits for a unit.
    #[serde(with = "crate::plain::maybe_text")]
    pub(crate) on: Option<Arc<str>>,
    /// For how long.
    pub(crate) time: Duration,
}

/// The splits of one source.
#[derive(Debug, Default)]
pub(super) struct Idleness {
    /// When something was read of each split last, or when it was seen first.
    read: BTreeMap<Arc<str>, Instant>,
    /// The shortest wait on each open split.
    open: BTreeMap<Arc<str>, Duration>,
    /// The longest wait for a unit.
    longest: Option<Duration>,
}

impl Idleness {
    /// Something was read of `split`.
    pub(super) fn read(&mut self, split: &Arc<str>, now: Instant) {
        self.read.insert(split.clone(), now);
    }

    /// Sets what the tasks that have not ended wait for, and takes in the splits there are.
    pub(super) fn set(&mut self, waits: &[Waits], splits: &[Split], now: Instant) {
        self.open.clear();
        self.longest = None;
        for wait in waits {
            match &wait.on {
                None => self.longest = self.longest.max(Some(wait.time)),
                Some(split) => {
                    let least = self.open.entry(split.clone()).or_insert(wait.time);
                    *least = (*least).min(wait.time);
                }
            }
        }
        for split in splits {
            self.read.entry(split.name.clone()).or_insert(now);
        }
    }

    /// Whether `split` has been idle for `timeout`.
    pub(super) fn is_idle(&self, split: &str, timeout: Duration, now: Instant) -> bool {
        let read = self.read.get(split).is_some_and(|at| now.duration_since(*at) >= timeout);
        let waited = self.open.get(split).copied().or(self.longest);
        read && waited.is_some_and(|w| w >= timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn splits(names: &[&str]) -> Vec<Split> {
        names.iter().map(|n| Split { name: (*n).into(), end: None, min_time: None, holds: true }).collect()
    }

    fn waits(on: Option<&str>, seconds: u64) -> Waits {
        Waits { on: on.map(Arc::from), time: Duration::from_secs(seconds) }
    }

    #[test]
    fn a_quiet_split_is_idle_beside_a_busy_one() {
        let (mut idle, start) = (Idleness::default(), Instant::now());
        let later = start + TIMEOUT;
        idle.set(&[waits(None, 0)], &splits(&["a", "b"]), start);
        assert!(!idle.is_idle("a", TIMEOUT, start));
        // Both were read at first; then only b, now and again, with time for a.
        idle.read(&"b".into(), later);
        idle.set(&[waits(None, 0), waits(None, 10)], &splits(&["a", "b"]), later);
        assert!(idle.is_idle("a", TIMEOUT, later));
        assert!(!idle.is_idle("b", TIMEOUT, later));
    }

    #[test]
    fn a_split_whose_turn_has_not_come_is_not_idle() {
        let (mut idle, start) = (Idleness::default(), Instant::now());
        idle.set(&[waits(Some("a"), 0)], &splits(&["a", "b"]), start);
        let later = start + TIMEOUT * 2;
        idle.read(&"a".into(), later);
        idle.set(&[waits(Some("a"), 0)], &splits(&["a", "b"]), later);
        assert!(!idle.is_idle("b", TIMEOUT, later));
        // The task waits for rows of a, which may come for ever: b has not had its turn.
        idle.set(&[waits(Some("a"), 10)], &splits(&["a", "b"]), later + TIMEOUT);
        assert!(idle.is_idle("a", TIMEOUT, later + TIMEOUT));
        assert!(!idle.is_idle("b", TIMEOUT, later + TIMEOUT));
    }

    #[test]
    fn a_split_that_was_never_read_gets_idle() {
        let (mut idle, start) = (Idleness::default(), Instant::now());
        idle.set(&[waits(None, 0)], &splits(&["a"]), start);
        idle.set(&[waits(None, 10)], &splits(&["a"]), start + TIMEOUT);
        assert!(idle.is_idle("a", TIMEOUT, start + TIMEOUT));
    }
}
