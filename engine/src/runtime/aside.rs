//! Rows that operators have put aside: what becomes of them, and how many are kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::format::Format;
use crate::format::options::CsvOptions;
use crate::format::write::write_lines;
use crate::operator::Aside;
use crate::table::dead_letters::Letter;

/// What happens to a row on which an expression fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// It becomes a dead letter and the job goes on.
    #[default]
    DeadLetter,
    /// The job fails.
    Fail,
}

/// Which dead letters a job keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetterLimits {
    /// So many rows; those beyond are counted only.
    pub rows: u64,
    /// For so long.
    pub retention: Duration,
}

impl Default for DeadLetterLimits {
    fn default() -> Self {
        DeadLetterLimits { rows: 100_000, retention: Duration::from_secs(30 * 86_400) }
    }
}

/// What the tasks of a job share about the rows that they put aside.
#[derive(Debug)]
pub(crate) struct Asides {
    stream: String,
    on_error: OnError,
    /// How many more are kept.
    room: AtomicU64,
    /// How many were not.
    beyond: AtomicU64,
    said: AtomicBool,
}

impl Asides {
    /// For the job of `stream`, of which `kept` letters of at most `limit` are there already.
    pub(crate) fn new(stream: &str, on_error: OnError, limit: u64, kept: u64) -> Self {
        let room = AtomicU64::new(limit.saturating_sub(kept));
        Asides { stream: stream.to_owned(), on_error, room, beyond: AtomicU64::new(0), said: AtomicBool::new(false) }
    }

    /// Takes room for `n` letters; gives for how many there was any, and counts the others.
    pub(crate) fn admit(&self, n: usize) -> usize {
        let n = n as u64;
        let taken = self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| Some(room.saturating_sub(n)));
        let admitted = n.min(taken.unwrap_or_default());
        if admitted < n {
            self.beyond.fetch_add(n - admitted, Ordering::Relaxed);
            if !self.said.swap(true, Ordering::Relaxed) {
                tracing::warn!(stream = %self.stream, "the limit of dead letters is reached: more are counted only");
            }
        }
        admitted as usize
    }

    /// Gives room back: letters were removed.
    pub(crate) fn give_back(&self, n: u64) {
        self.room.fetch_add(n, Ordering::Relaxed);
    }

    /// Counts letters that another process has counted only.
    pub(crate) fn add_beyond(&self, n: u64) {
        self.beyond.fetch_add(n, Ordering::Relaxed);
    }

    /// How many letters were counted only, since the last call.
    pub(crate) fn take_beyond(&self) -> u64 {
        self.beyond.swap(0, Ordering::Relaxed)
    }

    /// The letters for `aside`, rows of split `source` where that is known.
    ///
    /// Errors where the job is to fail on such rows.
    pub(crate) fn letters(&self, aside: Aside, source: Option<&Arc<str>>) -> Result<Vec<Letter>> {
        if self.on_error == OnError::Fail {
            let why = aside.failures.first().map(|f| f.to_string()).unwrap_or_default();
            return Err(Error::data(why).with_hint(
                "Guard the expression (CASE, TRY_CAST, WHERE). A derived stream puts such rows aside, unless it has on_error = 'fail'.",
            ));
        }
        let admitted = self.admit(aside.failures.len());
        let mut letters = Vec::with_capacity(admitted);
        for (row, failure) in aside.failures.into_iter().take(admitted).enumerate() {
            let one = aside.changes.rows().slice(row, 1);
            let mut raw = vec![];
            // What JSON has no form for is left out of the letter, never the letter.
            if write_lines(Format::Json, &CsvOptions::default(), &one, &mut raw).is_err() {
                raw.clear();
            }
            raw.truncate(raw.trim_ascii_end().len());
            letters.push(Letter {
                source: source.cloned().unwrap_or_default(),
                position: None,
                line: None,
                expression: Some(failure.expression),
                reason: failure.reason.to_string(),
                raw,
                weight: aside.changes.weight(row),
            });
        }
        Ok(letters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_letters_than_there_is_room_for() {
        let asides = Asides::new("s", OnError::DeadLetter, 10, 7);
        assert_eq!((asides.admit(2), asides.admit(4), asides.admit(3)), (2, 1, 0));
        assert_eq!((asides.take_beyond(), asides.take_beyond()), (6, 0));
        asides.give_back(2);
        assert_eq!(asides.admit(3), 2);
    }
}
