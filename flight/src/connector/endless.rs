//! Sources with one split that has no end and cannot be read again: what peers send, counted as it comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use millstream_engine::connector::lag::Lag;
use millstream_engine::connector::{Figure, Intake, Opening, Readers, Source, Split, Unit, UnitReader};
use millstream_engine::error::Result;
use millstream_engine::memory::MemoryBudget;

/// What is read without end.
#[async_trait]
pub(crate) trait Endless: Send + Sync + 'static {
    /// What the split is called.
    fn split(&self) -> Arc<str>;

    /// As [`Source::describe`].
    fn describe(&self) -> String;

    /// Gets ready to be read, as by listening.
    async fn prepare(&self) -> Result<Box<dyn Ready>>;
}

/// What is ready to be read, or is.
pub(crate) trait Ready: Send + Sync {
    /// Begins to read, once. `from` has been read before, and is where counting goes on; what waits is a part of `budget`.
    fn read(&self, from: u64, budget: Arc<MemoryBudget>) -> Result<Box<dyn UnitReader>>;

    /// As [`Intake::lag`].
    fn lag(&self) -> Option<Lag> {
        None
    }

    /// As [`Intake::figures`].
    fn figures(&self) -> Vec<Figure>;
}

/// The source of `E`.
pub(crate) struct EndlessSource<E>(pub(crate) E);

#[async_trait]
impl<E: Endless> Source for EndlessSource<E> {
    fn describe(&self) -> String {
        self.0.describe()
    }

    fn bounded(&self) -> bool {
        false
    }

    /// What is sent comes here.
    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> {
        None
    }

    async fn open(self: Arc<Self>, opening: Opening) -> Result<Arc<dyn Intake>> {
        let (split, ready) = (self.0.split(), self.0.prepare().await?);
        let (before, handed_out) = (opening.consumed.prefix(&split), AtomicBool::new(false));
        Ok(Arc::new(Peers { split, ready, before, handed_out, budget: opening.budget }))
    }
}

/// One unit, which never ends.
struct Peers {
    split: Arc<str>,
    ready: Box<dyn Ready>,
    /// How much earlier runs have read.
    before: u64,
    handed_out: AtomicBool,
    budget: Arc<MemoryBudget>,
}

#[async_trait]
impl Intake for Peers {
    fn splits(&self) -> Vec<Split> {
        vec![Split { name: self.split.clone(), end: None, min_time: None, holds: true }]
    }

    async fn next_unit(&self) -> Result<Option<Unit>> {
        let handed_out = self.handed_out.swap(true, Ordering::Relaxed);
        Ok((!handed_out).then(|| Unit { split: self.split.clone(), start: self.before, end: u64::MAX }))
    }

    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> {
        Some(self)
    }

    fn lag(&self) -> Option<Lag> {
        self.ready.lag()
    }

    fn figures(&self) -> Vec<Figure> {
        self.ready.figures()
    }
}

#[async_trait]
impl Readers for Peers {
    async fn read(&self, unit: &Unit) -> Result<Box<dyn UnitReader>> {
        self.ready.read(unit.start, self.budget.clone())
    }
}
