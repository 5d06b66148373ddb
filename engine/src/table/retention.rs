//! How much history of a changelog is kept: behind that, its files begin with a base, what the commits before add up
//! to, all `+I`.
//!
//! The base takes the place of files as a merge does: with a manifest, and as whole commits. Rows keep their numbers:
//! the base stands for the first so many rows of the log, so a reader that has read those goes on as if nothing had
//! happened. One that has read fewer, but some, cannot go on any more; what such readers need is kept for longer, up
//! to a limit.

use std::sync::Arc;
use std::time::Duration;

use super::log::{FileEntry, StreamLog};
use crate::error::Error;
use crate::time::now;

/// Less than this is not worth a base.
const LEAST_ROWS: u64 = 4096;

/// How long history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// For all.
    pub history: Duration,
    /// For those of its readers that still need it.
    pub limit: Duration,
    /// What goes at once is this many rows at least, and as many as the base has.
    least: u64,
}

impl Retention {
    /// History is kept for `history`, and for `limit` where readers need it.
    pub fn new(history: Duration, limit: Duration) -> Self {
        Retention { history, limit: limit.max(history), least: LEAST_ROWS }
    }
}

impl Retention {
    /// Whether `file` may go, of a log of which readers need the rows from `needed` on.
    fn lets_go(self, file: &FileEntry, needed: Option<u64>, now: i64) -> bool {
        let is_needed = needed.is_some_and(|row| row < file.end());
        let kept = if is_needed { self.limit } else { self.history };
        file.at.saturating_add(i64::try_from(kept.as_micros()).unwrap_or(i64::MAX)) <= now
    }
}

/// How many of `files`, the first ones, a base may take the place of now; `None` if it is not worth it. Readers need
/// the rows from `needed` on.
fn pick(files: &[FileEntry], retention: Retention, needed: Option<u64>, now: i64) -> Option<usize> {
    let old = files.iter().take_while(|f| retention.lets_go(f, needed, now)).count();
    let whole = files.iter().take(old).rposition(|f| f.epoch.is_some())? + 1;
    let rows = |base: bool| files.iter().take(whole).filter(|f| f.upto.is_some() == base).map(|f| f.rows).sum::<u64>();
    (rows(false) >= retention.least.max(rows(true))).then_some(whole)
}

impl StreamLog {
    /// The files that a base may take the place of now.
    pub(super) fn over(self: &Arc<Self>, files: &[FileEntry]) -> Option<Vec<FileEntry>> {
        let n = pick(files, self.retention.filter(|_| self.is_changelog())?, self.needed(), now())?;
        Some(files.iter().take(n).cloned().collect())
    }

    /// Whether `base` may still take the place of the files `replaced`, as it will with the next commit then.
    pub(super) fn lets_go(&self, base: &FileEntry, replaced: &[String]) -> bool {
        let (Some(retention), now) = (self.retention, now()) else { return false };
        let files = self.snapshot().files;
        let mut files = files.iter().filter(|f| replaced.contains(&f.name));
        self.drop_before(base.end(), |needed| !files.all(|f| retention.lets_go(f, needed, now)))
    }

    /// The error of a reader that has read `rows` rows, where history begins behind them.
    pub(super) fn behind(&self, rows: u64) -> Error {
        let name = self.name();
        Error::data(format!("stream \"{name}\" no longer keeps the history behind its row {rows}, up to which it was read"))
            .with_hint(format!(
                "Its reader was behind for longer than the retention_limit of \"{name}\": make the reader anew, with CREATE OR \
                 REPLACE STREAM … AS … (SHOW CREATE STREAM has the query)."
            ))
    }
}

#[cfg(test)]
mod tests;
