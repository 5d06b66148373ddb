//! The committed log of a stream: its files, and the last commits in memory for those that follow it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::base::{Base, Bases, Making, Upkeep};
use super::boundaries::{Boundaries, Boundary};
use super::committed::{Committed, FileEntry};
use super::layout::{base_of_job, files_of_job, shown_folder};
use super::retention::{self, Retention};
use crate::changes::Changes;
use crate::error::{Error, Result};
use crate::store::Store;
use crate::time::{EventTime, now};

/// Commits kept in memory, in bytes: followers that lag behind more read files.
const TAIL_BYTES: usize = 32 << 20;

/// The committed content of a stream at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its files in log order.
    pub files: Vec<FileEntry>,
    /// Rows in all files.
    pub rows: u64,
    /// The watermark of the last commit.
    pub watermark: EventTime,
    /// Whether nothing more will come.
    pub end: bool,
}

/// The log of one stream.
#[derive(Debug)]
pub struct StreamLog {
    name: String,
    schema: SchemaRef,
    changelog: bool,
    store: Store,
    pub(super) retention: Option<Retention>,
    pub(super) upkeep: Arc<Upkeep>,
    pub(super) making: Mutex<Making>,
    state: Mutex<State>,
    version: watch::Sender<u64>,
    /// Readers whose rows somebody waits for.
    awaiting: AtomicUsize,
}

/// Keeps the files of all snapshots that are taken while it lives.
#[derive(Debug)]
pub struct Hold {
    log: Arc<StreamLog>,
    since: u64,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.log.state.lock();
        if let Some(n) = state.holds.get_mut(&self.since) {
            *n -= 1;
            if *n == 0 {
                state.holds.remove(&self.since);
            }
        }
    }
}

#[derive(Debug, Default)]
struct State {
    committed: Committed,
    /// The job that writes it, once that is known, and the folders of the stream's files and of its base.
    job: String,
    files: String,
    base_folder: String,
    bases: Bases,
    /// Up to which row of the log its readers have committed what they make of it, by who reads.
    followers: BTreeMap<String, u64>,
    /// The row before which history goes with the commit under way.
    dropping: Option<u64>,
    /// It has been dropped.
    gone: bool,
    /// Commits, and changes of the base, so far in this process.
    commits: u64,
    /// How many hold the files since which commit.
    holds: BTreeMap<u64, usize>,
    /// (first row, rows) of the batches in memory, the latest last.
    tail: VecDeque<(u64, Changes)>,
    tail_bytes: usize,
    /// What tasks staged for checkpoints that are not committed yet.
    staged: BTreeMap<(u64, usize), Vec<Changes>>,
    boundaries: Boundaries,
}

impl StreamLog {
    /// The log of stream `name` with these columns; a `changelog` can take rows back. What is done for it beside its job
    /// is part of `upkeep`. Without `retention` all of its history is kept.
    pub fn new(
        store: Store,
        name: impl Into<String>,
        schema: SchemaRef,
        changelog: bool,
        retention: Option<Retention>,
        upkeep: Arc<Upkeep>,
    ) -> Arc<Self> {
        let (version, _) = watch::channel(0);
        let (state, making) = (Mutex::default(), Mutex::default());
        let name = name.into();
        let awaiting = AtomicUsize::new(0);
        Arc::new(StreamLog { name, schema, changelog, store, retention, upkeep, making, state, version, awaiting })
    }

    /// A reader waits for its rows, or does not any more.
    pub(super) fn await_rows(&self, awaited: bool) {
        match awaited {
            true => self.awaiting.fetch_add(1, Ordering::Relaxed),
            false => self.awaiting.fetch_sub(1, Ordering::Relaxed),
        };
    }

    /// Whether a reader waits for its rows.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaiting.load(Ordering::Relaxed) > 0
    }

    /// The stream's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The stream's columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Whether rows can be taken back.
    pub fn is_changelog(&self) -> bool {
        self.changelog
    }

    /// The store it lies in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Where `file` of the stream lies.
    pub fn path(&self, file: &str) -> String {
        format!("{}/{file}", self.state.lock().files)
    }

    /// The folder that shows the stream's files to other tools.
    pub fn folder(&self) -> String {
        shown_folder(&self.name)
    }

    /// Says which job writes the stream: its files lie with it.
    pub(super) fn written_by(&self, job: &str) {
        let mut state = self.state.lock();
        (state.files, state.base_folder) = (files_of_job(job), base_of_job(job));
        job.clone_into(&mut state.job);
    }

    /// The job that writes the stream: another incarnation of it has another. Empty before it is known.
    pub(super) fn job(&self) -> String {
        self.state.lock().job.clone()
    }

    /// Notes that `reader` has committed what it makes of the first `rows` rows: it needs those that follow.
    pub fn follow(&self, reader: &str, rows: u64) {
        if self.loses_history() {
            self.state.lock().followers.insert(reader.to_owned(), rows);
        }
    }

    /// Notes that those whose names begin with `readers` need nothing any more.
    pub fn unfollow(&self, readers: &str) {
        self.state.lock().followers.retain(|name, _| !name.starts_with(readers));
    }

    /// Whether some of its rows may go, now or once its options are others, so that who needs them is asked.
    fn loses_history(&self) -> bool {
        self.changelog || self.retention.is_some()
    }

    /// Files from before this time are not merged with later ones.
    pub(super) fn apart_before(&self) -> i64 {
        let of_content = self.retention.filter(|_| !self.changelog);
        of_content.map_or(i64::MIN, |retention| retention.apart_before(now()))
    }

    /// The number of the first row that a reader still needs.
    pub(super) fn needed(&self) -> Option<u64> {
        self.state.lock().followers.values().min().copied()
    }

    /// The files that a base may take the place of now.
    pub(super) fn over(self: &Arc<Self>, files: &[FileEntry]) -> Option<Vec<FileEntry>> {
        let n = retention::pick(files, self.retention?, self.needed(), now())?;
        Some(files.iter().take(n).cloned().collect())
    }

    /// Whether `base` may still take the place of the files `replaced`, as it will with the next commit then.
    pub(super) fn lets_go(&self, base: &FileEntry, replaced: &[String]) -> bool {
        let (Some(retention), now) = (self.retention, now()) else { return false };
        let files = self.snapshot().files;
        let mut files = files.iter().filter(|f| replaced.contains(&f.name));
        self.drop_before(base.end(), |needed| !files.all(|f| retention.lets_go(f, needed, now)))
    }

    /// History before row `row` goes with the next commit, unless `is_needed` objects to what readers need by now.
    pub(super) fn drop_before(&self, row: u64, is_needed: impl FnOnce(Option<u64>) -> bool) -> bool {
        let mut state = self.state.lock();
        if is_needed(state.followers.values().min().copied()) {
            return false;
        }
        state.dropping = Some(row);
        true
    }

    /// No commit is under way any more.
    pub(super) fn drops_nothing(&self) {
        self.state.lock().dropping = None;
        self.version.send_modify(|v| *v += 1);
    }

    /// Lets `reader` begin, or go on where it has read all before row `rows`. Who begins does so with the base that stands for
    /// the first ones.
    /// What it needs stays from then on. `None` while a commit is under way that would take it away.
    ///
    /// Errors when history has gone behind `rows`.
    pub(super) fn begin(
        self: &Arc<Self>,
        reader: Option<&str>,
        goes_on: bool,
        rows: u64,
    ) -> Result<Option<(Hold, Option<FileEntry>)>> {
        let hold = self.hold();
        let mut state = self.state.lock();
        let base = state.committed.files.first().filter(|f| f.upto.is_some()).cloned();
        let from = base.as_ref().map_or(0, FileEntry::end);
        if goes_on && rows < from {
            drop(state);
            return Err(self.behind(rows));
        }
        if state.dropping.is_some_and(|row| rows.max(from) < row) {
            drop(state);
            return Ok(None);
        }
        if let Some(reader) = reader.filter(|_| self.loses_history()) {
            state.followers.insert(reader.to_owned(), rows.max(from));
        }
        drop(state);
        Ok(Some((hold, base.filter(|_| !goes_on))))
    }

    pub(super) fn base_folder(&self) -> String {
        self.state.lock().base_folder.clone()
    }

    /// Where `file`, a base, lies.
    pub(super) fn base_path(&self, file: &str) -> String {
        format!("{}/{file}", self.base_folder())
    }

    /// Does something with the bases, knowing what is committed.
    pub(super) fn with_bases<T>(&self, work: impl FnOnce(&mut Bases, &Committed) -> T) -> T {
        let state = &mut *self.state.lock();
        work(&mut state.bases, &state.committed)
    }

    /// `base` is the one that counts.
    pub(super) fn replace_base(&self, base: Base) {
        let mut state = self.state.lock();
        state.commits += 1;
        let version = state.commits;
        state.bases.replace(base, version);
    }

    /// What is committed now.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.state.lock();
        let c = &state.committed;
        Snapshot { files: c.files.clone(), rows: c.rows, watermark: c.watermark.unwrap_or(EventTime::MIN), end: c.end }
    }

    /// Nothing more will come, as somebody else knows who has its content.
    pub fn is_complete(&self) {
        self.state.lock().committed.end = true;
    }

    /// The stream has been dropped: who still follows it is told.
    pub fn drop_readers(&self) {
        self.state.lock().gone = true;
        self.version.send_modify(|v| *v += 1);
    }

    /// Errors if the stream has been dropped.
    pub(super) fn check_there(&self) -> Result<()> {
        match self.state.lock().gone {
            true => Err(Error::not_found(format!("stream \"{}\" was dropped", self.name))),
            false => Ok(()),
        }
    }

    /// Changes with each commit.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Keeps the files of all snapshots that are taken from now on, until the guard is dropped.
    pub fn hold(self: &Arc<Self>) -> Hold {
        let mut state = self.state.lock();
        let since = state.commits;
        *state.holds.entry(since).or_default() += 1;
        Hold { log: self.clone(), since }
    }

    /// The present commit, and the oldest whose files are held.
    pub(super) fn held_since(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.commits, state.holds.keys().next().copied().unwrap_or(state.commits))
    }

    /// The error of a reader that has read `rows` rows, where history begins behind them.
    pub(super) fn behind(&self, rows: u64) -> Error {
        let name = self.name();
        let what = if self.changelog { "history" } else { "rows" };
        Error::data(format!("stream \"{name}\" no longer keeps the {what} behind its row {rows}, up to which it was read"))
            .with_hint(format!(
                "Its reader was behind for longer than the retention_limit of \"{name}\": make the reader anew, with CREATE OR \
                 REPLACE STREAM … AS … (SHOW CREATE STREAM has the query)."
            ))
    }

    /// The error where `file` has `found` rows and ends.
    pub(super) fn too_short(&self, file: &FileEntry, found: u64) -> Error {
        let path = self.store.locate(&self.path(&file.name));
        Error::data(format!("file \"{path}\" has {found} rows, {} were committed", file.rows))
            .with_hint("It was changed or damaged: put it back from a copy, or drop the stream and create it again.")
    }

    pub(super) fn committed(&self) -> Committed {
        self.state.lock().committed.clone()
    }

    /// Looks at what is committed and at the ends of the last commits, at one moment.
    pub(super) fn with_boundaries<T>(&self, look: impl FnOnce(&Committed, &Boundaries) -> T) -> T {
        let state = self.state.lock();
        look(&state.committed, &state.boundaries)
    }

    /// Sets what is committed, on start.
    pub(super) fn load(&self, committed: Committed) {
        let mut state = self.state.lock();
        let (commits, boundaries) = (state.commits + 1, Boundaries::of(&committed));
        // The job is still the same, and who reads still reads.
        let State { job, files, base_folder, bases, followers, holds, .. } = std::mem::take(&mut *state);
        let kept = State { job, files, base_folder, bases, followers, holds, ..State::default() };
        *state = State { boundaries, committed, commits, ..kept };
        drop(state);
        self.version.send_modify(|v| *v += 1);
    }

    /// Keeps what `task` staged for followers, until the checkpoint commits.
    pub(super) fn stage(&self, checkpoint: u64, task: usize, changes: Vec<Changes>) {
        self.state.lock().staged.insert((checkpoint, task), changes);
    }

    /// Commits: the log is now `committed`, which `checkpoint` has made of it.
    pub(super) fn commit(&self, checkpoint: u64, committed: Committed) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let mut at = state.committed.rows;
        let later = state.staged.split_off(&(checkpoint + 1, 0));
        let staged = std::mem::replace(&mut state.staged, later);
        let in_memory: usize =
            staged.iter().filter(|(k, _)| k.0 == checkpoint).flat_map(|(_, c)| c).map(Changes::num_rows).sum();
        if in_memory as u64 == committed.rows - at {
            for changes in staged.into_iter().filter(|(k, _)| k.0 == checkpoint).flat_map(|(_, c)| c) {
                let rows = changes.num_rows() as u64;
                state.tail_bytes += changes.bytes();
                state.tail.push_back((at, changes));
                at += rows;
            }
        } else {
            // Too much to keep: followers read the files.
            state.tail.clear();
            state.tail_bytes = 0;
        }
        while state.tail_bytes > TAIL_BYTES {
            let Some((_, old)) = state.tail.pop_front() else { break };
            state.tail_bytes -= old.bytes();
        }
        state.boundaries.add(&committed);
        state.committed = committed;
        state.commits += 1;
        state.dropping = None;
        self.version.send_modify(|v| *v += 1);
    }

    /// The rows `[start, end)` if they are in memory.
    pub(super) fn tail(&self, start: u64, end: u64) -> Option<Vec<Changes>> {
        let state = self.state.lock();
        if state.tail.front()?.0 > start {
            return None;
        }
        let mut found = vec![];
        for (first, changes) in &state.tail {
            let (first, last) = (*first, *first + changes.num_rows() as u64);
            let (from, to) = (start.max(first), end.min(last));
            if from < to {
                found.push(changes.slice((from - first) as usize, (to - from) as usize));
            }
        }
        Some(found)
    }

    /// The watermark of the last commit that ends at or before row `at`, if it is remembered.
    pub(super) fn watermark_at(&self, at: u64) -> Option<EventTime> {
        let found = self.state.lock().boundaries.before(at);
        found.map(|b| b.watermark).filter(|w| *w > EventTime::MIN)
    }

    /// The end of the first commit that ends after row `at`; of all of history, for what was committed
    /// before this process.
    pub(super) fn next_boundary(&self, at: u64) -> Option<Boundary> {
        self.state.lock().boundaries.after(at)
    }
}
