//! Merging small files of a log into larger ones, beside the commits.
//!
//! Files fall into tiers by size, each [`RATIO`] times the one below. Where [`RUN`] files of a tier lie next to
//! each other, with nothing but smaller ones before and between them, they become one: so a row is written anew
//! about once a tier, and a log has a handful of files of each. Files of [`LARGE_BYTES`] and more are left alone.

use std::io::{BufWriter, Write};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use tokio::task::JoinHandle;

use super::committed::FileEntry;
use super::epochs::{Ends, NOTE};
use super::log::StreamLog;
use super::parquet_file::{FileWriter, open_rows};
use super::renewal::write_content;
use crate::error::{Error, Result};

/// Files of one tier that make a merge.
const RUN: usize = 8;
/// Files below this are of the lowest tier.
const LOWEST_BYTES: u64 = 64 << 10;
/// How much larger the next tier's files are.
const RATIO: u64 = 8;
/// Files from this size on are left alone.
const LARGE_BYTES: u64 = 32 << 20;
/// What a merge reads at most.
const MOST_BYTES: u64 = 64 << 20;
/// Beyond this many small files next to each other some are merged whatever their sizes…
const MOST_SMALL: usize = 48;
/// …this many.
const FORCED: usize = 16;

/// The tier of a file; `None` for those that are left alone.
fn tier(file: &FileEntry) -> Option<u32> {
    if file.upto.is_some() {
        return None;
    }
    let (mut tier, mut limit) = (0, LOWEST_BYTES);
    while file.bytes >= limit {
        if limit >= LARGE_BYTES {
            return None;
        }
        (tier, limit) = (tier + 1, limit * RATIO);
    }
    Some(tier)
}

/// The files that are to be merged next, if any, of those that were written at `since` or later.
pub(super) fn pick(files: &[FileEntry], since: i64) -> Option<Range<usize>> {
    let tiers: Vec<Option<u32>> = files.iter().map(|file| tier(file).filter(|_| file.at >= since)).collect();
    let highest = tiers.iter().flatten().max().copied()?;
    for k in 0..=highest {
        for run in runs(&tiers, k) {
            let of_k: Vec<usize> = run.clone().filter(|i| tiers[*i] == Some(k)).collect();
            if let (true, Some(last)) = (of_k.len() >= RUN, of_k.last()) {
                // Smaller ones before them come along: they would stay behind for good. Those behind get company.
                return Some(within_limit(files, run.start..*last + 1));
            }
        }
    }
    let all = runs(&tiers, highest);
    // No company comes any more where a large file is next.
    if let Some(run) = all.iter().find(|run| run.len() > 1 && run.end < files.len()) {
        return Some(within_limit(files, run.clone()));
    }
    let crowd = all.into_iter().find(|run| run.len() > MOST_SMALL)?;
    let bytes = |start: usize| files[start..start + FORCED].iter().map(|f| f.bytes).sum::<u64>();
    let start = (crowd.start..=crowd.end - FORCED).min_by_key(|start| bytes(*start))?;
    Some(within_limit(files, start..start + FORCED))
}

/// The longest runs of neighbours of tiers up to `k`.
fn runs(tiers: &[Option<u32>], k: u32) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = vec![];
    for i in (0..tiers.len()).filter(|i| tiers[*i].is_some_and(|t| t <= k)) {
        match runs.last_mut() {
            Some(run) if run.end == i => run.end = i + 1,
            _ => runs.push(i..i + 1),
        }
    }
    runs
}

/// The first files of `range`, two at least, that do not have more than a merge may read.
fn within_limit(files: &[FileEntry], range: Range<usize>) -> Range<usize> {
    let mut bytes = 0;
    let end = range.clone().find(|i| {
        bytes += files[*i].bytes;
        bytes > MOST_BYTES && *i > range.start + 1
    });
    range.start..end.unwrap_or(range.end)
}

/// A merge under way.
pub(super) struct Merge {
    cancelled: Arc<AtomicBool>,
    work: JoinHandle<Result<Option<Merged>>>,
}

/// What a merge has made.
#[derive(Debug)]
pub(super) struct Merged {
    pub(super) file: FileEntry,
    /// The names of the files that it takes the place of.
    pub(super) replaces: Vec<String>,
}

impl Merge {
    /// Begins to merge `files`, neighbours in `log`, into the file `name`.
    pub(super) fn start(log: Arc<StreamLog>, schema: SchemaRef, files: Vec<FileEntry>, name: String) -> Self {
        let cancelled: Arc<AtomicBool> = Arc::default();
        let (seen, runtime) = (cancelled.clone(), tokio::runtime::Handle::current());
        let work = move || runtime.block_on(merge(&log, &schema, files, name, &seen));
        Merge { cancelled, work: tokio::task::spawn_blocking(work) }
    }

    /// Begins to make of `files`, the first ones of `log`, a base with the name `name`.
    pub(super) fn start_base(log: &Arc<StreamLog>, files: Vec<FileEntry>, name: String) -> Self {
        let cancelled: Arc<AtomicBool> = Arc::default();
        let (log, seen, runtime) = (log.clone(), cancelled.clone(), tokio::runtime::Handle::current());
        let work = move || runtime.block_on(add_up(&log, files, name, &seen));
        Merge { cancelled, work: tokio::task::spawn_blocking(work) }
    }

    /// Whether [`Merge::end`] need not wait.
    pub(super) fn is_done(&self) -> bool {
        self.work.is_finished()
    }

    /// What became of it; `None` when it was cancelled.
    pub(super) async fn end(self) -> Result<Option<Merged>> {
        self.work.await.map_err(|_| Error::internal("a merge of files panicked"))?
    }

    /// Gives it up. When this returns, it writes no more.
    pub(super) async fn cancel(self) {
        self.cancelled.store(true, Ordering::Relaxed);
        let _ = self.end().await;
    }
}

async fn merge(
    log: &Arc<StreamLog>,
    schema: &SchemaRef,
    files: Vec<FileEntry>,
    name: String,
    cancelled: &AtomicBool,
) -> Result<Option<Merged>> {
    let (store, path) = (log.store(), log.path(&name));
    let written = match store.root() {
        // As it is made, so that it does not have to fit into memory. Until a manifest names it, it does not count.
        Some(root) => {
            let place = root.join(&path);
            let new = std::fs::File::create_new(&place).map_err(Error::from)?;
            let copied = copy(log, FileWriter::to(schema, BufWriter::new(new))?, &files, cancelled).await;
            match copied {
                Ok(Some((rows, mut out))) => {
                    out.flush()?;
                    let bytes = out.get_ref().metadata()?.len();
                    store.settle(&path, true).await?;
                    Some((rows, bytes))
                }
                unfinished => {
                    store.delete(&path).await?;
                    unfinished.map(|_| None)?
                }
            }
        }
        None => {
            let draft = BufWriter::new(store.draft().await?);
            match copy(log, FileWriter::to(schema, draft)?, &files, cancelled).await? {
                Some((rows, out)) => {
                    let draft = out.into_inner().map_err(|e| Error::from(e.into_error()))?;
                    Some((rows, store.put_draft(&path, draft).await?))
                }
                None => None,
            }
        }
    };
    let (Some((rows, bytes)), Some(first)) = (written, files.first()) else { return Ok(None) };
    let merged = FileEntry { name, start: first.start, rows, bytes, ..ending(&files) };
    Ok(Some(Merged { file: merged, replaces: files.into_iter().map(|f| f.name).collect() }))
}

/// What is known of the end of `files`.
fn ending(files: &[FileEntry]) -> FileEntry {
    let at = files.iter().map(|f| f.at).max().unwrap_or_default();
    FileEntry { epoch: files.last().and_then(|f| f.epoch), at, ..FileEntry::default() }
}

/// Makes one file of what `files` add up to, of a stream that only grows one without rows.
async fn add_up(
    log: &Arc<StreamLog>,
    files: Vec<FileEntry>,
    name: String,
    cancelled: &AtomicBool,
) -> Result<Option<Merged>> {
    let (upto, end) = (files.last().map_or(0, FileEntry::end), ending(&files));
    let (path, epoch) = (log.path(&name), end.epoch.unwrap_or_default());
    let written = match log.is_changelog() {
        true => write_content(&log.content_upto(upto), epoch, &path, cancelled).await?,
        false => {
            let (rows, file) = FileWriter::new(log.schema())?.finish()?;
            let bytes = file.len() as u64;
            log.store().put(&path, Bytes::from(file)).await?;
            Some((rows, bytes))
        }
    };
    let Some((rows, bytes)) = written else { return Ok(None) };
    let file = FileEntry { name, rows, bytes, upto: Some(upto), ..end };
    Ok(Some(Merged { file, replaces: files.into_iter().map(|f| f.name).collect() }))
}

/// Copies all rows of `files`; gives how many, and what was written to.
async fn copy<W: Write + Send>(
    log: &StreamLog,
    mut writer: FileWriter<W>,
    files: &[FileEntry],
    cancelled: &AtomicBool,
) -> Result<Option<(u64, W)>> {
    let columns: Vec<String> = writer.schema().fields().iter().map(|f| f.name().clone()).collect();
    let (mut ends, mut before) = (Ends::default(), 0);
    for file in files {
        ends.append(Ends::of(log, file).await?, before);
        before += file.rows;
        let mut rows = 0;
        for batch in open_rows(log.store(), &log.path(&file.name), 0..u64::MAX, &columns).await? {
            if cancelled.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let batch = batch?;
            rows += batch.num_rows() as u64;
            writer.write(&batch)?;
        }
        // What is not whole stays as it is, so that its readers are told.
        if rows != file.rows {
            return Err(log.too_short(file, rows));
        }
    }
    if let Some(note) = ends.note() {
        writer.note(NOTE, note);
    }
    writer.finish().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(sizes: &[u64]) -> Vec<FileEntry> {
        let file = |(i, bytes): (usize, &u64)| FileEntry {
            name: i.to_string(),
            start: i as u64,
            rows: 1,
            bytes: *bytes,
            ..FileEntry::default()
        };
        sizes.iter().enumerate().map(file).collect()
    }

    #[test]
    fn neighbours_of_a_tier_are_merged() {
        const K: u64 = 1 << 10;
        for (sizes, expected) in [
            (vec![K; 7], None),
            (vec![K; 8], Some(0..8)),
            // One large file does not come along with small ones…
            ([vec![900 * K], vec![K; 9]].concat(), Some(1..10)),
            ([vec![100 * K; 7], vec![K; 7]].concat(), None),
            // …and small ones between larger ones do not keep those apart.
            ([vec![100 * K; 4], vec![K], vec![100 * K; 4], vec![K; 2]].concat(), Some(0..9)),
            (vec![LARGE_BYTES; 100], None),
            ([vec![LARGE_BYTES], vec![K; 4]].concat(), None),
            // Between large ones they will stay what they are.
            ([vec![LARGE_BYTES], vec![K; 4], vec![LARGE_BYTES], vec![K; 4]].concat(), Some(1..5)),
            // No more than a merge may read.
            (vec![LARGE_BYTES - 1; 9], Some(0..2)),
        ] {
            assert_eq!(pick(&files(&sizes), 0), expected, "{sizes:?}");
        }
    }

    #[test]
    fn files_stay_few_whatever_the_sizes() {
        for pattern in [vec![900], vec![30_000], vec![300, 90_000], vec![200, 70_000, 600_000, 200], vec![3 << 20]] {
            let (mut files, mut most, mut written, mut added) = (vec![], 0, 0, 0);
            for (at, bytes) in pattern.iter().cycle().take(20_000).enumerate() {
                files.push(FileEntry { start: at as u64, rows: 1, bytes: *bytes, ..FileEntry::default() });
                added += bytes;
                if let Some(range) = pick(&files, 0) {
                    assert!(range.len() > 1);
                    let bytes = files[range.clone()].iter().map(|f| f.bytes).sum();
                    written += bytes;
                    files.splice(range, [FileEntry { rows: 1, bytes, ..FileEntry::default() }]);
                }
                most = most.max(files.iter().filter(|f| tier(f).is_some()).count());
            }
            assert!(most < 60, "{pattern:?}: {most} files");
            // The lowest tier has several merges of its own.
            assert!(written < 12 * added, "{pattern:?}: {added} bytes were written {written}");
        }
    }
}
