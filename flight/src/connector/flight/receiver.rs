//! Follows the other side: keeps each epoch until all of it is here, then lets it wait to be read.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use millstream_engine::changes::row_bytes;
use millstream_engine::connector::arrivals::{Arrivals, Room};
use millstream_engine::connector::spool::{Spool, Spooled};
use millstream_engine::error::{Error, ErrorKind, Result};
use millstream_engine::memory::MemoryBudget;
use millstream_engine::time::EventTime;
use millstream_sql::session::{ChangeFeed, EpochChanges, FeedEnd};
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};

use super::hearing::Hearing;
use super::options::{Asked, Remote, engine_error};
use super::shape::{feed_of, may_pass};
use crate::connector::backoff::Backoff;

/// The one split of a link; its coordinate is the epochs of the other side.
pub(super) const SPLIT: &str = "link";

/// An epoch of the other side.
pub(super) struct Epoch {
    pub(super) watermark: EventTime,
    pub(super) rows: Spooled,
}

/// What the receiver and the tasks share.
pub(super) struct Shared {
    pub(super) arrivals: Arrivals<Epoch>,
    /// Of which making of the other side's stream the epochs are.
    pub(super) incarnation: Mutex<Option<String>>,
    pub(super) hearing: Hearing,
    /// How often the other side went away.
    pub(super) breaks: AtomicU64,
}

/// See the module's text.
pub(super) struct Receiver {
    pub(super) stream: String,
    pub(super) remote: Remote,
    pub(super) asked: Asked,
    pub(super) schema: SchemaRef,
    pub(super) changelog: bool,
    pub(super) shared: Arc<Shared>,
    pub(super) budget: Arc<MemoryBudget>,
    /// Where rows are kept that do not fit into memory.
    pub(super) folder: PathBuf,
    /// The run for which it receives.
    pub(super) run: u64,
}

/// How many signs of life may be missed.
const MISSED: u32 = 5;

/// What comes next. Who promises signs of life and gives none is not there any more.
async fn next_part(feed: &mut ChangeFeed) -> Option<millstream_sql::Result<EpochChanges>> {
    let Some(silence) = feed.alive.map(|alive| alive * MISSED) else { return feed.epochs.next().await };
    match timeout(silence, feed.epochs.next()).await {
        Ok(part) => part,
        Err(_) => {
            let why = format!("nothing was heard of the other side for {} s", silence.as_secs());
            Some(Err(millstream_sql::Error::new(ErrorKind::Unavailable, why)))
        }
    }
}

/// An epoch that is here, and its number.
struct Whole {
    number: u64,
    epoch: Epoch,
    room: Room,
    bytes: u64,
    /// Rows that the other side has behind it.
    ahead: u64,
}

impl Receiver {
    pub(super) async fn run(self) {
        let Shared { arrivals, hearing, breaks, .. } = &*self.shared;
        let mut backoff = Backoff::new(self.remote.longest);
        let mut told = false;
        let why = loop {
            let before = arrivals.last();
            let e = match self.follow().await {
                Ok(()) => break None,
                Err(e) if may_pass(&e) => e,
                Err(e) => break Some(e.context(format!("stream \"{}\"", self.stream))),
            };
            if arrivals.last() > before {
                backoff.reset();
                told = false;
            }
            breaks.fetch_add(1, Ordering::Relaxed);
            hearing.link.lost(e.message());
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(stream = %self.stream, error = %e, "the other side does not answer: it is asked again");
            }
            sleep(backoff.delay().unwrap_or(Duration::from_secs(1))).await;
        };
        arrivals.end(self.run, why);
    }

    /// Follows until the stream there has ended.
    async fn follow(&self) -> Result<()> {
        let client = self.remote.connect().await?;
        let (last, incarnation) = (self.shared.arrivals.last(), self.shared.incarnation.lock().clone());
        let since = incarnation.as_deref().filter(|_| last > 0).map(|of| (of, last));
        let columns: Vec<&str> = self.schema.fields().iter().map(|f| f.name().as_str()).collect();
        let outcome = client.execute(&self.asked.followed(Some(&columns), since)).await;
        let mut feed = feed_of(outcome.map_err(engine_error)?)?;
        if feed.updating && !self.changelog {
            return Err(Error::data("the other side takes rows back now, which it did not when the stream was made")
                .with_hint("Make the stream anew, with CREATE OR REPLACE STREAM."));
        }
        self.shared.incarnation.lock().clone_from(&feed.incarnation);
        self.shared.hearing.link.connected();
        let mut end = EventTime::MIN;
        while let Some(Whole { number, epoch, room, bytes, ahead }) = self.whole(&mut feed).await? {
            end = epoch.watermark;
            let rows = epoch.rows.rows();
            self.shared.arrivals.put(self.run, room, rows, |start| Ok((number.max(start), epoch)))?;
            self.shared.hearing.heard(rows, bytes, ahead);
        }
        match end {
            EventTime::MAX => Ok(()),
            _ => Err(Error::unavailable("the other side ended the stream")),
        }
    }

    /// The next epoch, once all of it has come.
    async fn whole(&self, feed: &mut ChangeFeed) -> Result<Option<Whole>> {
        let held = self.budget.account(format!("what has come for stream \"{}\"", self.stream));
        let mut spool = Spool::new(&self.folder, feed.schema.clone(), held);
        let mut room = self.shared.arrivals.room(0).await?;
        let mut bytes = 0;
        while let Some(part) = next_part(feed).await.transpose().map_err(engine_error)? {
            for batch in part.batches {
                let more = row_bytes(&batch);
                room.grow(more).await?;
                bytes += more as u64;
                spool = spool.add(batch).await?;
            }
            match part.end {
                None => {}
                Some(FeedEnd::Epoch { epoch: Some(number), watermark, ahead }) => {
                    let epoch = Epoch { watermark, rows: spool.finish().await? };
                    return Ok(Some(Whole { number, epoch, room, bytes, ahead }));
                }
                Some(_) => {
                    return Err(Error::unsupported(
                        "the other side's epochs have no numbers: it was written by an older build",
                    )
                    .with_hint("Make the stream there anew."));
                }
            }
        }
        Ok(None)
    }
}
