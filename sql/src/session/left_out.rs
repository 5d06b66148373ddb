//! Rows that a batch read left out because they could not be decoded, or because the job that was to bring them has
//! failed: noted once for each statement, so that no answer is short of rows in silence.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use millstream_engine::connector::DeadLetter;
use parking_lot::Mutex;

/// Positions that are remembered, to count a row once however often it is read.
const MOST: usize = 1 << 20;

/// What a statement left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// How many rows (or files, where one could not be read at all).
    pub rows: u64,
    /// Whether there were more, which were not counted.
    pub more: bool,
    /// Where the first of them stands and what is wrong with it.
    pub first: String,
}

/// `1 left out: orders.csv line 3: …`.
impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (more, first) = (if self.more { "over " } else { "" }, if self.rows == 1 { "" } else { ", the first" });
        write!(f, "{more}{} left out{first}: {}", self.rows, self.first)
    }
}

/// A stream that a statement reads, straight or through other streams, and whose job has failed: what it has committed is
/// read, and what came since is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedStream {
    /// Its name.
    pub stream: String,
    /// Why its job failed.
    pub reason: String,
}

/// `stream "kept" has failed, what came since is missing: …`.
impl fmt::Display for FailedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream \"{}\" has failed, what came since is missing: {}", self.stream, self.reason)
    }
}

/// Where the scans of a statement note what they leave out. Clones share it; it is whole when the rows of the
/// statement have ended.
#[derive(Clone, Debug, Default)]
pub struct LeftOutRows(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    splits: HashMap<Arc<str>, usize>,
    seen: HashSet<(usize, u64)>,
    more: bool,
    /// The least split and position, and what stands there.
    first: Option<(Arc<str>, u64, String)>,
    told: Option<LeftOut>,
    failed: BTreeMap<String, String>,
}

impl LeftOutRows {
    /// What was left out so far, if anything was.
    pub fn get(&self) -> Option<LeftOut> {
        let state = self.0.lock();
        let found = state.first.as_ref().map(|(_, _, first)| LeftOut {
            rows: state.seen.len() as u64,
            more: state.more,
            first: first.clone(),
        });
        found.or_else(|| state.told.clone())
    }

    /// Notes what another process counted.
    pub fn set(&self, told: LeftOut) {
        self.0.lock().told = Some(told);
    }

    /// The streams that have failed.
    pub fn failed(&self) -> Vec<FailedStream> {
        let failed =
            |(stream, reason): (&String, &String)| FailedStream { stream: stream.clone(), reason: reason.clone() };
        self.0.lock().failed.iter().map(failed).collect()
    }

    /// Notes a stream that has failed.
    pub fn add_failed(&self, failed: FailedStream) {
        self.0.lock().failed.insert(failed.stream, failed.reason);
    }

    /// Notes what one scan left out; what another scan of the same input has noted counts once.
    pub(super) fn add(&self, letters: &[DeadLetter]) {
        if letters.is_empty() {
            return;
        }
        let mut state = self.0.lock();
        let state = &mut *state;
        for letter in letters {
            let next = state.splits.len();
            let split = *state.splits.entry(letter.split.clone()).or_insert(next);
            match state.seen.len() < MOST {
                true => drop(state.seen.insert((split, letter.position))),
                false => state.more |= !state.seen.contains(&(split, letter.position)),
            }
            let is_first = match &state.first {
                None => true,
                Some((split, position, _)) => (&letter.split, letter.position) < (split, *position),
            };
            if is_first {
                state.first = Some((letter.split.clone(), letter.position, told(letter)));
            }
        }
    }
}

fn told(letter: &DeadLetter) -> String {
    match letter.line {
        Some(line) => format!("{} line {line}: {}", letter.split, letter.reason),
        None => format!("{} position {}: {}", letter.split, letter.position, letter.reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(split: &str, position: u64, line: Option<u64>) -> DeadLetter {
        DeadLetter { split: split.into(), position, line, reason: "no number".to_owned(), raw: vec![] }
    }

    #[test]
    fn a_row_counts_once_and_the_first_is_told() {
        let rows = LeftOutRows::default();
        assert_eq!(rows.get(), None);
        rows.add(&[letter("b.csv", 4, Some(2))]);
        rows.clone().add(&[letter("b.csv", 4, Some(2)), letter("b.csv", 9, Some(3))]);
        rows.add(&[letter("a.parquet", 7, None)]);
        let found = rows.get().unwrap();
        assert_eq!(found.to_string(), "3 left out, the first: a.parquet position 7: no number");
        let one = LeftOut { rows: 1, more: false, first: "b.csv line 2: no number".to_owned() };
        assert_eq!(one.to_string(), "1 left out: b.csv line 2: no number");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let rows = LeftOutRows::default();
        let letters: Vec<_> = (0..MOST as u64 + 5).map(|i| letter("a", i, Some(i + 1))).collect();
        rows.add(&letters);
        let found = rows.get().unwrap();
        assert_eq!((found.rows, found.more), (MOST as u64, true));
        assert!(found.to_string().starts_with("over 1048576 left out, the first: a line 1"));
    }
}
