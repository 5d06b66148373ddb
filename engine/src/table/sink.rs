//! The sink of stored and derived streams: writes a job's result into its stream's log.
//!
//! A commit writes what it adds and nothing else. Small files are merged beside the commits; a merge that is
//! done takes effect with the next manifest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;

use super::committed::{Committed, FileEntry};
use super::layout::{Replaced, adopt, file_name, files_of_job, merged_name, shown_folder};
use super::log::StreamLog;
use super::merge::{Merge, pick};
use super::parquet_file::{FileWriter, columns_of};
use super::shown::Shown;
use super::staged::StagedFile;
use crate::changelog::{Outgoing, stored, stored_schema};
use crate::changes::Changes;
use crate::connector::{Commit, Sink, SinkWriter, Staged, Start};
use crate::epoch::EpochMark;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::LITTLE;
use crate::store::{Store, blocking};
use crate::time::now;

/// Rows kept for followers until the commit, in bytes by task; beyond, followers read the file.
const KEPT_BYTES: usize = 16 << 20;
/// What a task has for a checkpoint goes into one file with that of its neighbours, up to this many bytes in memory.
const SMALL_BYTES: usize = 1 << 20;
/// How long files that were replaced stay for those who go by the list of live files.
const GRACE: Duration = Duration::from_secs(300);
/// How long no merge is tried after one that failed.
const PAUSE: Duration = Duration::from_secs(60);

/// The kind of rows that are still to become a file; the body is the task.
const ROWS: &str = "rows";

/// Rows by checkpoint and task that are still to become a file.
type Unwritten = Arc<Mutex<BTreeMap<(u64, usize), Vec<RecordBatch>>>>;

/// The columns of the files that `job` has committed of `stream`, with `_op` and `_epoch` where it is a changelog; `None` where
/// there are none. `state` is what its sink found in the last manifest, `staged` what was committed last.
pub async fn schema_of_files(
    store: &Store,
    stream: &str,
    job: &str,
    state: &serde_json::Value,
    staged: &[Staged],
) -> Result<Option<SchemaRef>> {
    let Ok(committed) = Committed::deserialize(state) else { return Ok(None) };
    // Older builds kept them where they show, or a crash has kept the last ones from being moved there.
    let folders = [files_of_job(job), shown_folder(stream)];
    let names = committed.files.iter().rev();
    let mut paths: Vec<String> = names.flat_map(|f| folders.each_ref().map(|at| format!("{at}/{}", f.name))).collect();
    for staged in staged {
        let pending = StagedFile::of(staged).ok().and_then(|f| f.pending);
        paths.extend(pending.map(|name| format!("jobs/{job}/pending/{name}")));
    }
    for path in paths {
        match columns_of(store, &path).await {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            found => return found.map(Some),
        }
    }
    Ok(None)
}

/// See the module's text.
pub struct TableSink {
    log: Arc<StreamLog>,
    /// That of the log, which this waits for while the job runs.
    store: Store,
    job: String,
    /// The columns that identify a row, for pairing updates.
    key: Option<Vec<usize>>,
    unwritten: Unwritten,
    shown: Shown,
    grace: Duration,
    /// The generation of the job that writes, once it has started.
    generation: AtomicU64,
    replaced: tokio::sync::Mutex<Replaced>,
    merge: Mutex<Option<Merge>>,
    /// When merges may go on after one that failed.
    merge_from: Mutex<Option<Instant>>,
}

impl TableSink {
    /// Job `job` writes into `log`. `key` are the columns that identify a row, where known.
    pub fn new(log: Arc<StreamLog>, job: impl Into<String>, key: Option<Vec<usize>>) -> Self {
        let job = job.into();
        let store = log.store().patient();
        let shown = Shown::new(store.clone(), log.name(), &job);
        TableSink {
            log,
            store,
            job,
            key,
            unwritten: Arc::default(),
            shown,
            grace: GRACE,
            generation: AtomicU64::new(0),
            replaced: Default::default(),
            merge: Mutex::default(),
            merge_from: Mutex::default(),
        }
    }

    /// The same with another time for which replaced files stay.
    #[cfg(test)]
    pub(super) fn with_grace(self, grace: Duration) -> Self {
        TableSink { grace, ..self }
    }

    /// Whether there is a merge, and whether it is done.
    #[cfg(test)]
    pub(super) fn merge(&self) -> Option<bool> {
        self.merge.lock().as_ref().map(Merge::is_done)
    }

    #[cfg(test)]
    pub(super) fn shown(&self) -> &Shown {
        &self.shown
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    pub(super) fn after(&self, commit: &Commit<'_>) -> Result<Committed> {
        let (mut committed, mut added) = (self.log.committed(), false);
        for staged in commit.staged {
            let file = StagedFile::of(staged)?;
            let (name, rows, bytes) = (file.name.clone(), file.rows, file.bytes);
            let entry = FileEntry { name, rows, bytes, upto: file.upto, at: file.at, ..FileEntry::default() };
            let Some(first) = file.replaces.first() else {
                committed.files.push(FileEntry { start: committed.rows, ..entry });
                committed.rows += file.rows;
                added = true;
                continue;
            };
            let place = committed.files.iter().position(|f| f.name == *first);
            let range = place.map(|at| at..at + file.replaces.len());
            let old = range.clone().and_then(|range| committed.files.get(range)).unwrap_or_default();
            let (Some(range), true) = (range, old.iter().map(|f| &f.name).eq(&file.replaces)) else {
                return Err(Error::internal("files were merged that are not neighbours in the log"));
            };
            let (start, epoch) = (old.first().map_or(0, |f| f.start), old.last().and_then(|f| f.epoch));
            committed.files.splice(range, [FileEntry { start, epoch, ..entry }]);
        }
        if let Some(last) = committed.files.last_mut().filter(|_| added) {
            last.epoch = Some(commit.epoch);
        }
        committed.watermark = Some(commit.watermark);
        committed.end = commit.end;
        (committed.checkpoint, committed.epoch) = (commit.checkpoint, commit.epoch);
        Ok(committed)
    }

    /// The merge that has ended since the last commit, as a file to be committed.
    async fn merged(&self) -> Result<Option<Staged>> {
        let Some(merge) = self.merge.lock().take_if(|m| m.is_done()) else { return Ok(None) };
        match merge.end().await {
            Ok(Some(m)) if m.file.upto.is_some() && !self.log.lets_go(&m.file, &m.replaces) => {
                // Meanwhile somebody has begun to read what would go.
                self.store.delete(&self.log.path(&m.file.name)).await?;
                Ok(None)
            }
            Ok(Some(m)) => {
                let (name, rows, bytes) = (m.file.name, m.file.rows, m.file.bytes);
                let (upto, at) = (m.file.upto, m.file.at);
                let file = StagedFile { name, rows, bytes, replaces: m.replaces, upto, at, pending: None };
                Ok(Some(file.staged()?))
            }
            Ok(None) => Ok(None),
            // The files are as good as before.
            Err(e) => {
                tracing::warn!(stream = %self.log.name(), error = %e, "files could not be merged");
                *self.merge_from.lock() = Some(Instant::now() + PAUSE);
                Ok(None)
            }
        }
    }

    /// Begins the next merge, where there is something to merge and none is under way.
    fn start_merge(&self, committed: &Committed) {
        let mut merge = self.merge.lock();
        if merge.is_some() || self.merge_from.lock().is_some_and(|from| Instant::now() < from) {
            return;
        }
        let name = |first: &FileEntry| merged_name(&first.name, committed.checkpoint + 1, self.generation());
        if let Some(files) = self.log.over(&committed.files) {
            let name = files.first().map(name).unwrap_or_default();
            *merge = Some(Merge::start_base(&self.log, files, name));
            return;
        }
        let files = pick(&committed.files, self.log.apart_before()).and_then(|range| committed.files.get(range));
        if let Some((files, first)) = files.and_then(|files| Some((files, files.first()?))) {
            let (schema, name) = (file_schema(&self.log), name(first));
            *merge = Some(Merge::start(self.log.clone(), schema, files.to_vec(), name));
        }
    }

    fn writer(&self, task: usize, generation: u64, unwritten: Option<Unwritten>) -> Writer {
        // The job runs from here on.
        self.store.wait_long(true);
        Writer {
            store: self.store.clone(),
            log: self.log.clone(),
            outgoing: Outgoing::new(self.log.schema().clone(), self.log.is_changelog(), self.key.clone()),
            task,
            generation,
            small: vec![],
            small_bytes: 0,
            unwritten,
            file: None,
            kept: vec![],
            kept_bytes: 0,
        }
    }

    /// Makes a file of the rows that `tasks` have left for it.
    async fn write(&self, checkpoint: u64, tasks: &[usize]) -> Result<Staged> {
        let rows: Vec<RecordBatch> = {
            let mut unwritten = self.unwritten.lock();
            tasks.iter().filter_map(|task| unwritten.remove(&(checkpoint, *task))).flatten().collect()
        };
        let schema = file_schema(&self.log);
        let (rows, bytes) = blocking(move || encode(&schema, &rows).map_err(std::io::Error::other)).await?;
        let name = file_name(checkpoint, tasks.first().copied().unwrap_or_default(), self.generation());
        put(&self.store, &self.log, name, rows, bytes).await
    }

    /// Removes replaced files that nobody can be reading any more, and notes those that this commit has replaced.
    async fn tidy(&self, gone: Vec<String>) -> Result<()> {
        let (now, held) = self.log.held_since();
        let mut replaced = self.replaced.lock().await;
        for name in gone {
            replaced.add(&self.store, &self.job, &name, now).await?;
        }
        let over = replaced.take_over(self.grace, held);
        self.store.delete_all(over.iter().map(|name| self.log.path(name)).collect()).await?;
        self.log.remove_old_bases().await
    }
}

fn file_schema(log: &StreamLog) -> SchemaRef {
    let schema = log.schema();
    if log.is_changelog() { stored_schema(schema) } else { schema.clone() }
}

fn encode(schema: &SchemaRef, rows: &[RecordBatch]) -> Result<(u64, Bytes)> {
    let mut file = FileWriter::new(schema)?;
    for batch in rows {
        file.write(batch)?;
    }
    let (rows, bytes) = file.finish()?;
    Ok((rows, Bytes::from(bytes)))
}

async fn put(store: &Store, log: &StreamLog, name: String, rows: u64, bytes: Bytes) -> Result<Staged> {
    let size = bytes.len() as u64;
    store.put(&log.path(&name), bytes).await?;
    StagedFile { name, rows, bytes: size, at: now(), ..StagedFile::default() }.staged()
}

#[async_trait]
impl Sink for TableSink {
    async fn start(&self, Start { committed, generation, state, .. }: Start<'_>) -> Result<()> {
        if let Some(state) = state {
            self.log.load(serde_json::from_value(state.clone())?);
        }
        self.generation.store(generation, Ordering::Relaxed);
        self.log.written_by(&self.job);
        let staged = committed.iter().map(StagedFile::of).collect::<Result<Vec<_>>>()?;
        let (store, committed) = (&self.store, self.log.committed());
        adopt(store, self.log.name(), &self.job, &committed, &staged).await?;
        *self.replaced.lock().await = Replaced::found(store, &self.job, &committed, self.grace, generation).await?;
        if committed.checkpoint > 0 || !committed.files.is_empty() {
            self.shown.show(&committed).await?;
        }
        self.log.find_base().await
    }

    async fn gather(&self, checkpoint: u64, staged: Vec<Staged>) -> Result<Vec<Staged>> {
        let mut gathered: Vec<Staged> = self.merged().await?.into_iter().collect();
        // Neighbours, since followers are given rows by task.
        let mut small = vec![];
        for part in staged {
            if part.kind == ROWS {
                small.push(serde_json::from_value(part.body)?);
                continue;
            }
            if !small.is_empty() {
                gathered.push(self.write(checkpoint, &std::mem::take(&mut small)).await?);
            }
            gathered.push(part);
        }
        if !small.is_empty() {
            gathered.push(self.write(checkpoint, &small).await?);
        }
        Ok(gathered)
    }

    fn state_after(&self, commit: &Commit<'_>) -> serde_json::Value {
        // What was staged is plain data of this sink: it reads and writes.
        self.after(commit).ok().and_then(|c| serde_json::to_value(c).ok()).unwrap_or_default()
    }

    fn open(&self, task: usize) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(self.writer(task, self.generation(), Some(self.unwritten.clone()))))
    }

    fn is_anywhere(&self) -> bool {
        true
    }

    fn open_away(&self, task: usize, generation: u64) -> Result<Box<dyn SinkWriter>> {
        // It has not been started here.
        self.log.written_by(&self.job);
        Ok(Box::new(self.writer(task, generation, None)))
    }

    async fn commit(&self, commit: &Commit<'_>) -> Result<()> {
        let committed = self.after(commit)?;
        self.shown.show(&committed).await?;
        self.log.commit(commit.checkpoint, committed.clone());
        let staged = commit.staged.iter().map(StagedFile::of).collect::<Result<Vec<_>>>()?;
        self.tidy(staged.into_iter().flat_map(|f| f.replaces).collect()).await?;
        self.start_merge(&committed);
        self.log.renew_base();
        Ok(())
    }

    fn let_go(&self) {
        self.store.wait_long(false);
    }

    async fn stop(&self) {
        let merge = self.merge.lock().take();
        if let Some(merge) = merge {
            merge.cancel().await;
        }
        self.log.drops_nothing();
    }

    fn is_awaited(&self) -> bool {
        self.log.is_awaited()
    }

    fn takes_retractions(&self) -> bool {
        self.log.is_changelog()
    }

    fn describe(&self) -> String {
        format!("parquet {}", self.log.store().locate(&self.log.folder()))
    }
}

struct Writer {
    store: Store,
    log: Arc<StreamLog>,
    outgoing: Outgoing,
    task: usize,
    generation: u64,
    /// Rows for the next file while they are few.
    small: Vec<RecordBatch>,
    small_bytes: usize,
    /// Where they are left for a file of several tasks; not in another process than that of the commits, where followers read
    /// the files, too.
    unwritten: Option<Unwritten>,
    file: Option<FileWriter<Vec<u8>>>,
    kept: Vec<Changes>,
    kept_bytes: usize,
}

impl Writer {
    fn append(&mut self, rows: RecordBatch, changes: Changes) -> Result<()> {
        let bytes = changes.bytes();
        match &mut self.file {
            Some(file) => file.write(&rows)?,
            None => {
                self.small.push(rows);
                self.small_bytes += bytes;
                if self.small_bytes > SMALL_BYTES {
                    let file = self.file.insert(FileWriter::new(&file_schema(&self.log))?);
                    self.small_bytes = 0;
                    for rows in self.small.drain(..) {
                        file.write(&rows)?;
                    }
                }
            }
        }
        self.kept_bytes += bytes;
        if self.kept_bytes <= KEPT_BYTES && self.unwritten.is_some() {
            self.kept.push(changes);
        } else {
            self.kept.clear();
        }
        Ok(())
    }
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, changes: Changes) -> Result<()> {
        match self.outgoing.write(changes).map_err(|e| e.context(format_args!("stream \"{}\"", self.log.name())))? {
            Some(rows) => self.append(rows.clone(), Changes::insertions(rows)),
            None => Ok(()),
        }
    }

    async fn epoch(&mut self, mark: &EpochMark) -> Result<()> {
        let mut pieces = self.outgoing.end_in_pieces()?;
        while let Some((changes, ops)) = pieces.next_piece()? {
            let rows = stored(changes.rows(), &ops, mark.epoch)?;
            self.append(rows, changes)?;
        }
        Ok(())
    }

    async fn stage(&mut self, checkpoint: u64) -> Result<Vec<Staged>> {
        let kept = std::mem::take(&mut self.kept);
        (self.kept_bytes, self.small_bytes) = (0, 0);
        if self.unwritten.is_none() && !self.small.is_empty() {
            let file = self.file.insert(FileWriter::new(&file_schema(&self.log))?);
            for rows in self.small.drain(..) {
                file.write(&rows)?;
            }
        }
        if let Some(file) = self.file.take() {
            if self.unwritten.is_some() {
                self.log.stage(checkpoint, self.task, kept);
            }
            let (rows, bytes) = file.finish()?;
            let name = file_name(checkpoint, self.task, self.generation);
            return Ok(vec![put(&self.store, &self.log, name, rows, Bytes::from(bytes)).await?]);
        }
        let small = std::mem::take(&mut self.small);
        let Some(unwritten) = self.unwritten.as_ref().filter(|_| !small.is_empty()) else { return Ok(vec![]) };
        self.log.stage(checkpoint, self.task, kept);
        unwritten.lock().insert((checkpoint, self.task), small);
        Ok(vec![Staged { kind: ROWS.to_owned(), body: serde_json::to_value(self.task)? }])
    }

    fn bytes(&self) -> usize {
        // What is kept for followers shares its columns with the rows that are few.
        let kept = if self.kept.is_empty() { 0 } else { self.kept_bytes };
        let file = self.file.as_ref().map_or(0, |file| file.bytes() + file.out().capacity());
        self.outgoing.bytes() + file + kept.max(self.small_bytes)
    }

    async fn shrink(&mut self) -> Result<()> {
        let Some(file) = self.file.as_mut().filter(|file| file.bytes() > LITTLE) else { return Ok(()) };
        file.end_group()?;
        // Followers read the file.
        (self.kept, self.kept_bytes) = (vec![], KEPT_BYTES + 1);
        Ok(())
    }
}
