//! What of a log has been handed out to the tasks that read it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use super::committed::FileEntry;
use super::log::Hold;
use crate::time::EventTime;

/// Rows in a unit of work.
const UNIT_ROWS: u64 = 128 << 10;

/// Which rows have been handed out, and which may be next.
#[derive(Debug, Default)]
pub(super) struct Handout {
    /// The parts of the log before `next` that are still to be handed out, the last first.
    pub(super) gaps: Vec<std::ops::Range<u64>>,
    /// All before has been handed out, but for the gaps.
    pub(super) next: u64,
    /// The end of the present group, where it is read in groups.
    pub(super) group_end: u64,
    /// The last epoch of the log in it, and in all before; 0 where that is not known.
    pub(super) group_epoch: u64,
    /// A task has ended the epoch and not all have: a group that opened now would be read in two epochs.
    pub(super) cutting: bool,
    /// The watermark that followers have been told.
    pub(super) told: Option<EventTime>,
    /// What is before this row has been read elsewhere, and is handed out without its rows.
    pub(super) skipped: u64,
    /// The base from which it began.
    pub(super) first: Option<Arc<FirstBase>>,
    /// Where the units begin that were handed out and are not done, of a log without groups.
    pub(super) open: BTreeMap<u64, usize>,
    /// The epochs of the log at the ends of the reader's own that are still to be asked for.
    pub(super) ends: VecDeque<u64>,
    /// How many of them were asked for before the epoch was cut everywhere.
    pub(super) asked_early: usize,
}

impl Handout {
    /// The first row that is still to be read.
    pub(super) fn least(&self) -> u64 {
        let gap = self.gaps.last().map_or(self.next, |gap| gap.start);
        self.open.keys().next().map_or(gap, |open| gap.min(*open))
    }

    /// The epoch of the log behind which all has been handed out, of which `last` is the last one and has `rows` rows before
    /// its end.
    fn stands_behind(&self, last: u64, rows: u64) -> u64 {
        if self.next >= rows { last } else { self.group_epoch }
    }

    /// An epoch of the reader was cut: notes where the log's was, unless that has been asked for.
    pub(super) fn note_end(&mut self, last: u64, rows: u64) {
        match self.asked_early.checked_sub(1) {
            Some(left) => self.asked_early = left,
            None => self.ends.push_back(self.stands_behind(last, rows)),
        }
    }

    /// Where the log was at the end of the reader's next epoch. One that is not cut everywhere has no more to come: no group
    /// opens before that.
    pub(super) fn take_end(&mut self, last: u64, rows: u64) -> u64 {
        if let Some(end) = self.ends.pop_front() {
            return end;
        }
        self.asked_early += 1;
        self.stands_behind(last, rows)
    }
}

/// A base in the place of history, kept for one who reads it.
#[derive(Debug)]
pub(super) struct FirstBase {
    pub(super) file: FileEntry,
    pub(super) _hold: Hold,
}

/// Where the base ends from which the reading began.
pub(super) fn first_end(s: &Handout) -> u64 {
    s.first.as_ref().map_or(0, |first| first.file.end())
}

/// Units end with their file and are not too large. The last one of a base ends where that ends in the log.
pub(super) fn unit_end(start: u64, limit: u64, files: &[FileEntry], first: Option<&FirstBase>) -> u64 {
    if let Some(base) = first.map(|first| &first.file).filter(|base| start < base.end()) {
        let is_last = start + UNIT_ROWS >= base.rows;
        return limit.min(if is_last { base.end() } else { start + UNIT_ROWS });
    }
    let at = files.partition_point(|f| f.end() <= start);
    let file_end = files.get(at).map_or(limit, FileEntry::end);
    limit.min(file_end).min(start + UNIT_ROWS)
}

/// A unit that is not done.
pub(super) struct Open {
    pub(super) state: Arc<Mutex<Handout>>,
    pub(super) start: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut s = self.state.lock();
        if let Some(n) = s.open.get_mut(&self.start) {
            *n -= 1;
            if *n == 0 {
                s.open.remove(&self.start);
            }
        }
    }
}
