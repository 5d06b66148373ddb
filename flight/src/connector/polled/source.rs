//! The source of what is polled: one of rows that are handed in, which a task fills.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use millstream_engine::connector::ingest::Known;
use millstream_engine::connector::lag::Lag;
use millstream_engine::connector::spool::sweep;
use millstream_engine::connector::{Figure, Intake, Offsets, Opening, Reach, Readers, Source, Split, Unit};
use millstream_engine::error::Result;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Here, PLACE, Polled, Seen};

/// See the module's text.
pub(crate) struct PolledSource(pub(crate) Arc<dyn Polled>);

#[async_trait]
impl Source for PolledSource {
    fn describe(&self) -> String {
        self.0.describe()
    }

    fn bounded(&self) -> bool {
        false
    }

    fn in_groups(&self) -> bool {
        true
    }

    /// Answers wait where they were asked for.
    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> {
        None
    }

    async fn open(self: Arc<Self>, opening: Opening) -> Result<Arc<dyn Intake>> {
        let Opening { budget, folder, consumed, state, .. } = opening;
        if let Some(folder) = &folder {
            sweep(folder.clone()).await?;
        }
        let polled = self.0.clone();
        let split = polled.split();
        let mut seen = Seen::new(polled.key_memory());
        if let Some(saved) = &state {
            seen.restore(&saved["seen"], consumed.prefix(&split));
        }
        let here = Here::new(&split, seen, budget, folder);
        here.ingest.start(&consumed, state.as_ref().map(|saved| &saved["rows"]))?;
        let place = match here.ingest.receipt(PLACE) {
            Known::Committed(place) => Some(place),
            _ => None,
        };
        let (asker, interval, run) = (polled.clone().asker(place)?, polled.interval(), here.ingest.run());
        let mut polling = JoinSet::new();
        polling.spawn(here.clone().poll(asker, interval, run));
        Ok(Arc::new(Answers { polled, here, _polling: polling }))
    }
}

/// What has been answered.
struct Answers {
    polled: Arc<dyn Polled>,
    here: Arc<Here>,
    /// When it is dropped, nobody is asked any more.
    _polling: JoinSet<()>,
}

/// Somebody who waits for rows.
struct Waiting<'a>(&'a Here);

impl<'a> Waiting<'a> {
    fn new(here: &'a Here) -> Self {
        here.waiting.fetch_add(1, Ordering::SeqCst);
        here.wanted.notify_waiters();
        Waiting(here)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Intake for Answers {
    fn splits(&self) -> Vec<Split> {
        self.here.ingest.splits()
    }

    async fn next_unit(&self) -> Result<Option<Unit>> {
        let _waiting = Waiting::new(&self.here);
        tokio::select! {
            biased;
            unit = self.here.ingest.next_unit() => unit,
            e = self.here.failure() => Err(e),
        }
    }

    fn try_unit(&self) -> Option<Unit> {
        self.here.ingest.try_unit()
    }

    fn epoch_cut(&self) {
        self.here.ingest.epoch_cut();
    }

    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> {
        Some(self.here.ingest.clone())
    }

    async fn state(&self) -> Result<Value> {
        let seen = self.here.seen.lock().save();
        match self.here.ingest.state().await? {
            Value::Null => Ok(Value::Null),
            rows => Ok(json!({ "rows": rows, "seen": seen })),
        }
    }

    async fn committed(&self, offsets: &Offsets) -> Result<()> {
        self.here.ingest.committed(offsets).await
    }

    fn acknowledged(&self) -> Vec<Reach> {
        self.here.ingest.acknowledged()
    }

    fn lag(&self) -> Option<Lag> {
        Some(self.here.ingest.lag()?.with(self.polled.link()))
    }

    fn figures(&self) -> Vec<Figure> {
        let dropped = self.here.dropped.load(Ordering::Relaxed);
        [self.polled.figures(), vec![Figure::count("rows_seen_before", dropped)]].concat()
    }
}
