//! Reading by polling. Answers are handed to a source of rows as sessions hand theirs in, so that a page is committed whole,
//! with the place where the next one begins.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use millstream_engine::connector::ingest::{IngestSource, Known};
use millstream_engine::connector::lag::Lag;
use millstream_engine::connector::registry::SourceRequest;
use millstream_engine::connector::{Figure, Offsets, Reach, Source, Split, Unit, UnitReader};
use millstream_engine::error::{Error, Result};
use millstream_engine::memory::MemoryBudget;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::options::{Polling, shown, take_source};
use super::paging::Place;
use super::poll::{PLACE, Poller, Shared};
use super::seen::Seen;

/// Opens the source that `request` describes; asks nobody yet.
pub(super) fn open(request: SourceRequest) -> Result<Arc<dyn Source>> {
    let spec = Arc::new(take_source(request)?);
    Ok(Arc::new(HttpSource { spec, shared: OnceLock::new(), saved: Mutex::default(), polling: Mutex::default() }))
}

struct HttpSource {
    spec: Arc<Polling>,
    /// There once the job has said what its memory is.
    shared: OnceLock<Arc<Shared>>,
    saved: Mutex<Option<Value>>,
    /// Dropped with the source: then nobody is asked any more.
    polling: Mutex<JoinSet<()>>,
}

impl HttpSource {
    fn shared(&self) -> Result<&Arc<Shared>> {
        self.shared.get().ok_or_else(|| Error::internal("a source is read before it has started"))
    }

    fn ingest(&self) -> Result<&Arc<IngestSource>> {
        Ok(&self.shared()?.ingest)
    }
}

/// Somebody who waits for rows.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.waiting.fetch_add(1, Ordering::SeqCst);
        shared.wanted.notify_waiters();
        Waiting(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Source for HttpSource {
    fn draw_on(&self, budget: &Arc<MemoryBudget>) {
        self.shared.get_or_init(|| {
            Arc::new(Shared {
                ingest: IngestSource::named(&shown(&self.spec.url), budget.clone()),
                budget: budget.clone(),
                seen: Mutex::new(Seen::new(self.spec.key_memory)),
                waiting: AtomicUsize::new(0),
                wanted: Notify::new(),
                failed: Mutex::default(),
                ended: Notify::new(),
                dropped: AtomicU64::new(0),
            })
        });
    }

    async fn state(&self) -> Result<Value> {
        let shared = self.shared()?;
        let seen = shared.seen.lock().save();
        match shared.ingest.state().await? {
            Value::Null => Ok(Value::Null),
            rows => Ok(json!({ "rows": rows, "seen": seen })),
        }
    }

    fn restore(&self, state: &Value) -> Result<()> {
        *self.saved.lock() = Some(state.clone());
        Ok(())
    }

    async fn start(&self, consumed: &Offsets) -> Result<()> {
        let shared = self.shared()?.clone();
        let split = shared.ingest.splits().first().map(|split| split.name.clone()).unwrap_or_default();
        let mut seen = Seen::new(self.spec.key_memory);
        if let Some(saved) = self.saved.lock().take() {
            shared.ingest.restore(&saved["rows"])?;
            seen.restore(&saved["seen"], consumed.prefix(&split));
        }
        shared.ingest.start(consumed).await?;
        (*shared.seen.lock(), *shared.failed.lock()) = (seen, None);
        let place = match shared.ingest.receipt(PLACE) {
            Known::Committed(place) => serde_json::from_value(place)?,
            _ => Place::default(),
        };
        let poller = Poller { spec: self.spec.clone(), run: shared.ingest.run(), shared, place };
        let mut polling = JoinSet::new();
        polling.spawn(poller.run());
        *self.polling.lock() = polling;
        Ok(())
    }

    fn splits(&self) -> Vec<Split> {
        self.ingest().map(|ingest| ingest.splits()).unwrap_or_default()
    }

    async fn next_unit(&self) -> Result<Option<Unit>> {
        let shared = self.shared()?;
        let _waiting = Waiting::new(shared);
        let failed = async {
            loop {
                let ended = shared.ended.notified();
                tokio::pin!(ended);
                ended.as_mut().enable();
                if let Some(e) = shared.failed.lock().as_ref() {
                    return e.again();
                }
                ended.await;
            }
        };
        tokio::select! {
            biased;
            unit = shared.ingest.next_unit() => unit,
            e = failed => Err(e),
        }
    }

    async fn open(&self, unit: &Unit) -> Result<Box<dyn UnitReader>> {
        self.ingest()?.open(unit).await
    }

    async fn committed(&self, offsets: &Offsets) -> Result<()> {
        self.ingest()?.committed(offsets).await
    }

    fn in_groups(&self) -> bool {
        true
    }

    fn try_unit(&self) -> Option<Unit> {
        self.ingest().ok()?.try_unit()
    }

    fn epoch_cut(&self) {
        if let Ok(ingest) = self.ingest() {
            ingest.epoch_cut();
        }
    }

    fn bounded(&self) -> bool {
        false
    }

    fn acknowledged(&self) -> Vec<Reach> {
        self.ingest().map(|ingest| ingest.acknowledged()).unwrap_or_default()
    }

    fn lag(&self) -> Option<Lag> {
        Some(self.ingest().ok()?.lag()?.with(self.spec.client.lag()))
    }

    fn figures(&self) -> Vec<Figure> {
        let dropped = self.shared().map_or(0, |shared| shared.dropped.load(Ordering::Relaxed));
        [self.spec.client.figures(), vec![("rows_seen_before", dropped)]].concat()
    }

    fn describe(&self) -> String {
        format!("{} {} every {:?}", self.spec.method, shown(&self.spec.url), self.spec.interval)
    }
}
