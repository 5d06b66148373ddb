//! Sources that ask again and again. A task asks when somebody waits for rows, drops what was seen, and hands the rest to a source of
//! rows as sessions hand theirs in, with the place where the next question goes on: an answer is committed whole, and that place
//! with it.

mod seen;
mod source;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use millstream_engine::connector::ingest::{IngestSource, Kept, Parcel, Receipt};
use millstream_engine::connector::lag::Lag;
use millstream_engine::connector::{Figure, Intake};
use millstream_engine::error::{Error, Result};
use millstream_engine::memory::MemoryBudget;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::sleep;

pub(crate) use seen::{Mark, Offered, Seen, mark};
pub(crate) use source::PolledSource;

/// The key of the receipt that says where asking goes on.
const PLACE: &str = "poll";

/// Somebody who can be asked.
pub(crate) trait Polled: Send + Sync + 'static {
    /// What the split is called.
    fn split(&self) -> String;

    /// The time between questions.
    fn interval(&self) -> Duration;

    /// How many keys are remembered.
    fn key_memory(&self) -> usize;

    /// Asks from `place` on, which an answer has said, or from the beginning.
    fn asker(self: Arc<Self>, place: Option<Value>) -> Result<Box<dyn Asker>>;

    /// Whether the other side is there.
    fn link(&self) -> Lag;

    /// What it has counted.
    fn figures(&self) -> Vec<Figure>;

    /// A line for EXPLAIN.
    fn describe(&self) -> String;
}

/// Asks.
#[async_trait]
pub(crate) trait Asker: Send {
    /// Asks until there is an answer.
    ///
    /// An error ends the job.
    async fn ask(&mut self, here: &Arc<Here>) -> Result<Answer>;
}

/// An answer.
pub(crate) struct Answer {
    /// The rows that had not been seen, and what could not be read; none where there is nothing to keep.
    pub(crate) parcel: Option<Parcel>,
    /// The keys of all rows, those that had been seen among them.
    pub(crate) marks: Vec<Mark>,
    /// How many rows had been seen.
    pub(crate) dropped: u64,
    /// Where the next question goes on.
    pub(crate) place: Value,
    /// There is more to ask for at once.
    pub(crate) more: bool,
}

/// What the task shares with the source.
pub(crate) struct Here {
    pub(crate) ingest: Arc<IngestSource>,
    pub(crate) budget: Arc<MemoryBudget>,
    /// The job's folder, for what does not fit into memory.
    folder: PathBuf,
    pub(crate) seen: Mutex<Seen>,
    /// How many wait for rows.
    waiting: AtomicUsize,
    wanted: Notify,
    /// Why the source has ended.
    failed: Mutex<Option<Error>>,
    ended: Notify,
    /// Rows that were dropped, since they had been seen.
    dropped: AtomicU64,
}

impl Here {
    fn new(split: &str, seen: Seen, budget: Arc<MemoryBudget>, folder: Option<PathBuf>) -> Arc<Self> {
        Arc::new(Here {
            ingest: IngestSource::named(split, budget.clone()),
            budget,
            folder: folder.unwrap_or_else(std::env::temp_dir),
            seen: Mutex::new(seen),
            waiting: AtomicUsize::new(0),
            wanted: Notify::new(),
            failed: Mutex::default(),
            ended: Notify::new(),
            dropped: AtomicU64::new(0),
        })
    }

    /// Where rows may be put aside.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.clone()
    }

    /// Waits until somebody waits for rows: a stream that does not run asks for nothing.
    async fn wanted(&self) {
        loop {
            let wanted = self.wanted.notified();
            tokio::pin!(wanted);
            wanted.as_mut().enable();
            if self.waiting.load(Ordering::SeqCst) > 0 {
                return;
            }
            wanted.await;
        }
    }

    /// Why the source has ended, once it has.
    async fn failure(&self) -> Error {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if let Some(e) = self.failed.lock().as_ref() {
                return e.again();
            }
            ended.await;
        }
    }

    /// Hands in what is new, with the place behind it.
    async fn hand_in(&self, run: u64, answer: Answer) -> Result<()> {
        self.dropped.fetch_add(answer.dropped, Ordering::Relaxed);
        // Before the rows can be committed. Nobody else hands in.
        let at = self.ingest.acknowledged().first().map_or(0, |reach| reach.end);
        let Some(parcel) = answer.parcel else {
            self.seen.lock().note(answer.marks, at);
            return Ok(());
        };
        let receipt = Receipt { key: PLACE.to_owned(), value: answer.place, kept: Kept::Lasting };
        let parcel = parcel.with_receipt(receipt);
        self.seen.lock().note(answer.marks, at + parcel.length());
        self.ingest.push(run, parcel).await
    }

    /// Asks until run `run` is over.
    async fn poll(self: Arc<Self>, mut asker: Box<dyn Asker>, interval: Duration, run: u64) {
        let asking = async {
            loop {
                self.wanted().await;
                let answer = asker.ask(&self).await?;
                let more = answer.more;
                self.hand_in(run, answer).await?;
                if !more {
                    sleep(interval).await;
                }
            }
        };
        let ended: Result<()> = asking.await;
        if let Err(e) = ended
            && self.ingest.run() == run
        {
            *self.failed.lock() = Some(e);
            self.ended.notify_waiters();
        }
    }
}
