//! Where epochs end in a log, so that who has seen one whole goes on behind it.
//!
//! A commit publishes several epochs at once and is called by the last of them. The latest commits are known in memory. A
//! file that one commit has made ends where that does, which its entry says; one that was merged says in its footer where
//! the commits within it end. So what is known survives merges and restarts for as long as the rows do.

use std::sync::Arc;

use super::boundaries::Boundary;
use super::committed::{Committed, FileEntry};
use super::layout::is_merged;
use super::log::StreamLog;
use super::parquet_file::note_of;
use crate::error::{Error, Result};
use crate::time::EventTime;

/// The key of the note in a footer.
pub(super) const NOTE: &str = "millstream.epochs";
/// One who comes later reads commits at once as long as they have no more rows than this.
const FEW_ROWS: u64 = 64 << 10;

/// The commits in a file: how far epoch and rows of the file are at the end of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ends(Vec<(u64, u64)>);

impl Ends {
    /// Those of `file`.
    pub(super) async fn of(log: &StreamLog, file: &FileEntry) -> Result<Self> {
        let mut ends = Ends::default();
        if is_merged(&file.name)
            && let Some(note) = note_of(log.store(), &log.path(&file.name), NOTE).await?
        {
            ends = Ends::parse(&note).ok_or_else(|| {
                Error::data(format!(
                    "file \"{}\" has no readable note of its epochs",
                    log.store().locate(&log.path(&file.name))
                ))
            })?;
        }
        if let Some(epoch) = file.epoch.filter(|_| ends.0.last().is_none_or(|(_, rows)| *rows < file.rows)) {
            ends.0.push((epoch, file.rows));
        }
        Ok(ends)
    }

    /// Puts those of the next file behind, which has its rows behind `rows`.
    pub(super) fn append(&mut self, next: Ends, rows: u64) {
        self.0.extend(next.0.into_iter().map(|(epoch, end)| (epoch, rows + end)));
    }

    /// As a note: by how much both have grown, `12 400,1 380`.
    pub(super) fn note(&self) -> Option<String> {
        let mut note = String::new();
        let mut last = (0, 0);
        for (epoch, rows) in &self.0 {
            let comma = if note.is_empty() { "" } else { "," };
            note += &format!("{comma}{} {}", epoch.saturating_sub(last.0), rows.saturating_sub(last.1));
            last = (*epoch, *rows);
        }
        (!note.is_empty()).then_some(note)
    }

    fn parse(note: &str) -> Option<Self> {
        let mut last = (0_u64, 0_u64);
        let ends = note.split(',').map(|end| {
            let (epoch, rows) = end.split_once(' ')?;
            last = (last.0.checked_add(epoch.parse().ok()?)?, last.1.checked_add(rows.parse().ok()?)?);
            Some(last)
        });
        ends.collect::<Option<_>>().map(Ends)
    }

    /// How many rows of the file epochs up to `epoch` have, if one of them ends in it.
    fn rows_upto(&self, epoch: u64) -> Option<u64> {
        self.0.iter().rev().find(|(e, _)| *e <= epoch).map(|(_, rows)| *rows)
    }
}

impl StreamLog {
    /// How many rows of the log epochs up to `epoch` have. Whoever asks holds the files.
    ///
    /// Errors when there is no such epoch yet, or its end is no longer kept.
    pub(super) async fn rows_upto(self: &Arc<Self>, epoch: u64) -> Result<u64> {
        let (committed, remembered) = self.with_boundaries(|committed, b| (committed.clone(), b.rows_upto(epoch)));
        if epoch > committed.epoch {
            return Err(self.no_epoch(epoch, committed.epoch));
        }
        if let Some(rows) = remembered {
            return Ok(rows);
        }
        let base = committed.files.first().filter(|f| f.upto.is_some());
        if let Some(oldest) = base.map(|base| base.epoch.unwrap_or_default()).filter(|oldest| epoch < *oldest) {
            return Err(self.epoch_gone(epoch, oldest));
        }
        let mut rows = 0;
        // Files in which none of the epochs ends that are to be skipped, since the last one in which one does.
        let mut open: Vec<&FileEntry> = vec![];
        for file in &committed.files {
            match file.epoch {
                Some(last) if last <= epoch => {
                    rows = file.end();
                    open.clear();
                }
                Some(_) => {
                    open.push(file);
                    break;
                }
                None => open.push(file),
            }
        }
        for file in open.into_iter().rev() {
            if let Some(end) = Ends::of(self, file).await?.rows_upto(epoch) {
                return Ok(file.start + end);
            }
        }
        Ok(rows)
    }

    fn no_epoch(&self, epoch: u64, last: u64) -> Error {
        let name = self.name();
        Error::invalid(format!("stream \"{name}\" has no epoch {epoch} yet: its last one is {last}")).with_hint(
            "If it was made anew since, begin again: leave SINCE EPOCH out, or write WITH SNAPSHOT in its place.",
        )
    }

    /// The error of a reader that stands behind `epoch`, where history begins behind `oldest`.
    pub(super) fn epoch_gone(&self, epoch: u64, oldest: u64) -> Error {
        let name = self.name();
        let error = Error::data(format!(
            "stream \"{name}\" no longer keeps what came behind epoch {epoch}: the oldest to go on from is {oldest}"
        ));
        error.with_hint(format!(
            "Begin again with WITH SNAPSHOT in place of SINCE EPOCH. The option retention of \"{name}\" says how long history is kept."
        ))
    }

    /// The last epoch that is committed, and the rows of the log up to its end.
    pub(super) fn last_epoch(&self) -> (u64, u64) {
        self.with_boundaries(|committed, _| (committed.epoch, committed.rows))
    }

    /// The first epoch behind which one can go on.
    pub(super) fn oldest_epoch(&self) -> u64 {
        let base = |committed: &Committed| committed.files.first().filter(|f| f.upto.is_some()).and_then(|f| f.epoch);
        self.with_boundaries(|committed, _| base(committed).unwrap_or_default())
    }

    /// The end of a commit behind row `at` that can be told, by what is remembered or by files: of the first one, or of a
    /// later one if there are few rows in all up to it.
    pub(super) fn end_after(&self, at: u64) -> Option<Boundary> {
        self.with_boundaries(|committed, boundaries| {
            let watermark = EventTime::MIN;
            let of_file = |f: &FileEntry| Some(Boundary { end: f.end(), epoch: f.epoch?, watermark });
            let files = committed.files.iter().filter(|f| f.end() > at).filter_map(of_file);
            let all = || boundaries.behind(at).chain(files.clone());
            let near = all().filter(|b| b.end - at <= FEW_ROWS).max_by_key(|b| b.end);
            near.or_else(|| all().min_by_key(|b| b.end))
        })
    }
}

#[cfg(test)]
mod tests;
