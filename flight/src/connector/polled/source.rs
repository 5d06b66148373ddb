//! The source of what is polled: one of rows that are handed in, which a task fills.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use millstream_engine::connector::ingest::Known;
use millstream_engine::connector::lag::Lag;
use millstream_engine::connector::spool::sweep;
use millstream_engine::connector::{Figure, Offsets, Reach, Source, Split, Unit, UnitReader};
use millstream_engine::error::{Error, Result};
use millstream_engine::memory::MemoryBudget;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Here, PLACE, Polled, Seen};

/// See the module's text.
pub(crate) struct PolledSource {
    polled: Arc<dyn Polled>,
    /// There once the job has said what its memory is.
    here: OnceLock<Arc<Here>>,
    folder: Mutex<Option<PathBuf>>,
    saved: Mutex<Option<Value>>,
    /// Dropped with the source: then nobody is asked any more.
    polling: Mutex<JoinSet<()>>,
}

impl PolledSource {
    /// Asks `polled` once it has started.
    pub(crate) fn new(polled: Arc<dyn Polled>) -> Self {
        let (here, folder, saved, polling) = (OnceLock::new(), Mutex::default(), Mutex::default(), Mutex::default());
        PolledSource { polled, here, folder, saved, polling }
    }

    fn here(&self) -> Result<&Arc<Here>> {
        self.here.get().ok_or_else(|| Error::internal("a source is read before it has started"))
    }
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
impl Source for PolledSource {
    fn draw_on(&self, budget: &Arc<MemoryBudget>) {
        self.here.get_or_init(|| Here::new(&self.polled.split(), self.polled.key_memory(), budget));
    }

    fn keep_in(&self, folder: &Path) {
        *self.folder.lock() = Some(folder.to_owned());
    }

    async fn state(&self) -> Result<Value> {
        let here = self.here()?;
        let seen = here.seen.lock().save();
        match here.ingest.state().await? {
            Value::Null => Ok(Value::Null),
            rows => Ok(json!({ "rows": rows, "seen": seen })),
        }
    }

    fn restore(&self, state: &Value) -> Result<()> {
        *self.saved.lock() = Some(state.clone());
        Ok(())
    }

    async fn start(&self, consumed: &Offsets) -> Result<()> {
        let here = self.here()?.clone();
        let folder = self.folder.lock().clone();
        if let Some(folder) = folder {
            sweep(folder.clone()).await?;
            // A job's folder stays the same.
            let _ = here.folder.set(folder);
        }
        let split = here.ingest.splits().first().map(|split| split.name.clone()).unwrap_or_default();
        let mut seen = Seen::new(self.polled.key_memory());
        if let Some(saved) = self.saved.lock().take() {
            here.ingest.restore(&saved["rows"])?;
            seen.restore(&saved["seen"], consumed.prefix(&split));
        }
        here.ingest.start(consumed).await?;
        (*here.seen.lock(), *here.failed.lock()) = (seen, None);
        let place = match here.ingest.receipt(PLACE) {
            Known::Committed(place) => Some(place),
            _ => None,
        };
        let (asker, interval) = (self.polled.clone().asker(place)?, self.polled.interval());
        let run = here.ingest.run();
        let mut polling = JoinSet::new();
        polling.spawn(here.poll(asker, interval, run));
        *self.polling.lock() = polling;
        Ok(())
    }

    fn splits(&self) -> Vec<Split> {
        self.here().map(|here| here.ingest.splits()).unwrap_or_default()
    }

    async fn next_unit(&self) -> Result<Option<Unit>> {
        let here = self.here()?;
        let _waiting = Waiting::new(here);
        tokio::select! {
            biased;
            unit = here.ingest.next_unit() => unit,
            e = here.failure() => Err(e),
        }
    }

    async fn open(&self, unit: &Unit) -> Result<Box<dyn UnitReader>> {
        self.here()?.ingest.open(unit).await
    }

    async fn committed(&self, offsets: &Offsets) -> Result<()> {
        self.here()?.ingest.committed(offsets).await
    }

    fn in_groups(&self) -> bool {
        true
    }

    fn try_unit(&self) -> Option<Unit> {
        self.here().ok()?.ingest.try_unit()
    }

    fn epoch_cut(&self) {
        if let Ok(here) = self.here() {
            here.ingest.epoch_cut();
        }
    }

    fn bounded(&self) -> bool {
        false
    }

    fn acknowledged(&self) -> Vec<Reach> {
        self.here().map(|here| here.ingest.acknowledged()).unwrap_or_default()
    }

    fn lag(&self) -> Option<Lag> {
        Some(self.here().ok()?.ingest.lag()?.with(self.polled.link()))
    }

    fn figures(&self) -> Vec<Figure> {
        let dropped = self.here().map_or(0, |here| here.dropped.load(Ordering::Relaxed));
        [self.polled.figures(), vec![Figure::count("rows_seen_before", dropped)]].concat()
    }

    fn describe(&self) -> String {
        self.polled.describe()
    }
}
