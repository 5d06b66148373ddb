//! How much history of a changelog is kept: behind that, its files begin with a base, what the commits before add up
//! to, all `+I`. Of a stream that only grows history is content: how much of that is kept is another setting, and its
//! base has no rows.
//!
//! The base takes the place of files as a merge does: with a manifest, and as whole commits. Rows keep their numbers:
//! the base stands for the first so many rows of the log, so a reader that has read those goes on as if nothing had
//! happened. One that has read fewer, but some, cannot go on any more; what such readers need is kept for longer, up
//! to a limit.

use std::time::Duration;

use super::committed::FileEntry;

/// Less than this is not worth a base.
const LEAST_ROWS: u64 = 4096;
/// Files hold rows of about this part of the time for which content is kept.
const PARTS: u32 = 8;

/// How long history, or content, is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// For all.
    pub kept: Duration,
    /// For those of its readers that still need it.
    pub limit: Duration,
    /// What goes at once is this many rows at least, and as many as the base has.
    least: u64,
}

impl Retention {
    /// History is kept for `history`, and for `limit` where readers need it.
    pub fn new(history: Duration, limit: Duration) -> Self {
        Retention { kept: history, limit: limit.max(history), least: LEAST_ROWS }
    }

    /// Rows of a stream that only grows are kept for `kept`, and for `limit` where readers need them.
    pub fn of_content(kept: Duration, limit: Duration) -> Self {
        // What goes costs nothing.
        Retention { kept, limit: limit.max(kept), least: 1 }
    }

    /// Files from before this time are not merged with later ones, so that old rows are not kept with new ones for long.
    pub(super) fn apart_before(self, now: i64) -> i64 {
        now.saturating_sub(micros(self.kept / PARTS))
    }

    /// Whether `file` may go, of a log of which readers need the rows from `needed` on.
    pub(super) fn lets_go(self, file: &FileEntry, needed: Option<u64>, now: i64) -> bool {
        let is_needed = needed.is_some_and(|row| row < file.end());
        let kept = if is_needed { self.limit } else { self.kept };
        file.at.saturating_add(micros(kept)) <= now
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// How many of `files`, the first ones, a base may take the place of now; `None` if it is not worth it. Readers need
/// the rows from `needed` on.
pub(super) fn pick(files: &[FileEntry], retention: Retention, needed: Option<u64>, now: i64) -> Option<usize> {
    let old = files.iter().take_while(|f| retention.lets_go(f, needed, now)).count();
    let whole = files.iter().take(old).rposition(|f| f.epoch.is_some())? + 1;
    let rows = |base: bool| files.iter().take(whole).filter(|f| f.upto.is_some() == base).map(|f| f.rows).sum::<u64>();
    (rows(false) >= retention.least.max(rows(true))).then_some(whole)
}

#[cfg(test)]
mod tests;
