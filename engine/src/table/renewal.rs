//! Making the bases of changelogs.
//!
//! `current.json` is replaced at once when the file it names is durable; what it does not name goes. When much has
//! come since, the next base is made of the last one and what came since, beside the commits, whether or not the
//! stream's job still runs.

use std::io::{BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;

use super::base::{Base, Cancelled};
use super::content::{Content, ContentSink};
use super::log::StreamLog;
use super::parquet_file::FileWriter;
use crate::changelog::{Op, stored, stored_schema};
use crate::error::{Error, ErrorKind, Result};
use crate::format::stored::file_schema;
use crate::memory::Held;
use crate::store::Store;

/// What making a base may hold.
const MOST_HELD: usize = 64 << 20;
/// How long no base is tried after one that failed.
const PAUSE: Duration = Duration::from_secs(60);
/// The file that says which base counts.
const CURRENT: &str = "current.json";

impl StreamLog {
    /// Looks for the base of the log, once it is known what is committed, and removes what else is there.
    pub(super) async fn find_base(&self) -> Result<()> {
        if !self.is_changelog() || self.with_bases(|bases, _| std::mem::replace(&mut bases.known, true)) {
            return Ok(());
        }
        let (store, folder) = (self.store(), self.base_folder());
        let base = named(store, &folder, self.committed().rows).await.inspect_err(|e| {
            tracing::warn!(stream = %self.name(), error = %e, "the base of the changelog cannot be read; it is made anew");
        });
        let base = base.unwrap_or_default();
        for name in store.list(&folder).await? {
            let counts = base.as_ref().is_some_and(|b| name == b.file || name == CURRENT);
            if !counts {
                store.delete(&format!("{folder}/{name}")).await?;
            }
        }
        self.with_bases(|bases, _| bases.current = base);
        Ok(())
    }

    /// Begins to make the next base where it is time for it and none is being made.
    pub fn renew_base(self: &Arc<Self>) {
        if !self.is_changelog() {
            return;
        }
        let mut making = self.making.lock();
        let waits = making.from.is_some_and(|from| Instant::now() < from);
        if making.running || making.closed || waits || !self.is_base_due() {
            return;
        }
        making.running = true;
        making.task = Some(self.upkeep.threads.spawn(renew(self.clone(), making.cancelled.clone())));
    }

    fn is_base_due(&self) -> bool {
        self.with_bases(|bases, committed| {
            bases.known && Base::is_due(bases.of(&committed.files, committed.rows).0.as_ref(), committed, bases.floor)
        })
    }

    /// Ends the making of bases for good. Of a stream that is complete, whose last base others will go by for long, it may
    /// take up to `patience` to end by itself.
    pub async fn close(&self, patience: Duration) {
        let (task, cancelled) = {
            let mut making = self.making.lock();
            making.closed = true;
            (making.task.take(), making.cancelled.clone())
        };
        let Some(mut task) = task else { return };
        if self.committed().end && tokio::time::timeout(patience, &mut task).await.is_ok() {
            return;
        }
        cancelled.is.store(true, Ordering::Relaxed);
        cancelled.told.notify_one();
        if !task.is_finished() {
            let _ = task.await;
        }
    }

    /// The next base takes effect.
    async fn publish_base(&self, base: Base) -> Result<()> {
        let bytes = Bytes::from(serde_json::to_vec(&base)?);
        self.store().put(&self.base_path(CURRENT), bytes).await?;
        self.replace_base(base);
        self.remove_old_bases().await
    }

    /// Removes the files of bases that were replaced and that nobody reads any more.
    pub(super) async fn remove_old_bases(&self) -> Result<()> {
        let (_, held) = self.held_since();
        let over = |(_, by): &mut (String, u64)| *by <= held;
        let files: Vec<_> = self.with_bases(|bases, _| bases.replaced.extract_if(.., over).collect());
        for (file, _) in files {
            self.store().delete(&self.base_path(&file)).await?;
        }
        Ok(())
    }
}

/// The base that is named in `folder`, of a log of `rows` rows.
async fn named(store: &Store, folder: &str, rows: u64) -> Result<Option<Base>> {
    let bytes = match store.get(&format!("{folder}/{CURRENT}")).await {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        bytes => bytes?,
    };
    let base: Base = serde_json::from_slice(&bytes)?;
    let found = store.size(&format!("{folder}/{}", base.file)).await?;
    if found != base.bytes || base.upto > rows {
        return Err(Error::data(format!("\"{}\" is not the file that was written", base.file)));
    }
    Ok(Some(base))
}

/// Makes bases until none is due.
async fn renew(log: Arc<StreamLog>, cancelled: Arc<Cancelled>) {
    loop {
        let made = {
            let _turn = tokio::select! {
                turn = log.upkeep.turn.acquire() => turn,
                () = cancelled.told.notified() => {
                    log.making.lock().running = false;
                    return;
                }
            };
            let (log, cancelled, runtime) = (log.clone(), cancelled.clone(), tokio::runtime::Handle::current());
            let work = move || runtime.block_on(make(&log, &cancelled.is));
            tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(Error::internal("making a base panicked")))
        };
        let made = match made {
            Ok(Some(base)) => log.publish_base(base).await.map(|()| true),
            Ok(None) => Ok(false),
            Err(e) => Err(e),
        };
        let mut making = log.making.lock();
        match made {
            Ok(true) if log.is_base_due() && !making.closed => continue,
            Ok(_) => {}
            Err(e) => {
                // The log is as good without.
                tracing::warn!(stream = %log.name(), error = %e, "no base of the changelog could be made");
                making.from = Some(Instant::now() + PAUSE);
            }
        }
        making.running = false;
        return;
    }
}

/// Makes a base of what is committed now; `None` when it was cancelled.
async fn make(log: &Arc<StreamLog>, cancelled: &AtomicBool) -> Result<Option<Base>> {
    let content = log.content();
    let (upto, epoch) = (content.rows, content.epoch);
    let file = format!("{upto:020}.parquet");
    if let Some(root) = log.store().root() {
        // Not more than the one folder: the job's may have gone.
        match std::fs::create_dir(root.join(log.base_folder())) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(e.into()),
            _ => {}
        }
    }
    let written = write_content(&content, epoch, &log.base_path(&file), cancelled).await?;
    Ok(written.map(|(rows, bytes)| Base { file, rows, bytes, upto, epoch }))
}

/// Writes what `content` has, as of `epoch`, to a file at `path`; gives its rows and bytes, `None` when it was cancelled.
pub(super) async fn write_content(
    content: &Content,
    epoch: u64,
    path: &str,
    cancelled: &AtomicBool,
) -> Result<Option<(u64, u64)>> {
    let log = &content.log;
    let (store, schema) = (log.store(), stored_schema(log.schema()));
    let rows = file_schema(log.schema());
    let held = log.upkeep.budget.hold(0);
    let Some(root) = store.root() else {
        let draft = BufWriter::new(store.draft().await?);
        let written = write(content, FileWriter::to(&schema, draft)?, &rows, epoch, held, cancelled).await?;
        let Some((rows, out)) = written else { return Ok(None) };
        let draft = out.into_inner().map_err(|e| Error::from(e.into_error()))?;
        return Ok(Some((rows, store.put_draft(path, draft).await?)));
    };
    let new = std::fs::File::create_new(root.join(path))?;
    match write(content, FileWriter::to(&schema, BufWriter::new(new))?, &rows, epoch, held, cancelled).await {
        Ok(Some((rows, mut out))) => {
            out.flush()?;
            let bytes = out.get_ref().metadata()?.len();
            store.settle(path, true).await?;
            Ok(Some((rows, bytes)))
        }
        unfinished => {
            store.delete(path).await?;
            unfinished.map(|_| None)
        }
    }
}

/// Writes all of `content` as of `epoch`.
async fn write<W: Write + Send>(
    content: &Content,
    file: FileWriter<W>,
    schema: &SchemaRef,
    epoch: u64,
    held: Held,
    cancelled: &AtomicBool,
) -> Result<Option<(u64, W)>> {
    let mut sink = BaseFile { file, epoch, held, cancelled };
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    content.read(&all, schema, &mut sink).await?;
    if cancelled.load(Ordering::Relaxed) {
        return Ok(None);
    }
    sink.file.finish().map(Some)
}

/// A base being written.
struct BaseFile<'a, W: Write + Send> {
    file: FileWriter<W>,
    epoch: u64,
    held: Held,
    cancelled: &'a AtomicBool,
}

#[async_trait(?Send)]
impl<W: Write + Send> ContentSink for BaseFile<'_, W> {
    fn hold(&mut self, bytes: usize) -> Result<()> {
        let most = MOST_HELD.min(self.held.budget().limit() / 8);
        match bytes <= most && self.held.try_set(bytes) {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Exhausted, "out of memory: the memory budget is used up")),
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    async fn give(&mut self, rows: RecordBatch, op: Op) -> Result<()> {
        self.file.write(&stored(&rows, &vec![op; rows.num_rows()], self.epoch)?)
    }
}
