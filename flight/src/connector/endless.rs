//! Sources with one split that has no end and cannot be read again: what peers send, counted as it comes.

use std::sync::Arc;

use async_trait::async_trait;
use millstream_engine::connector::lag::Lag;
use millstream_engine::connector::{Figure, Offsets, Source, Split, Unit, UnitReader};
use millstream_engine::error::{Error, Result};
use millstream_engine::memory::MemoryBudget;
use parking_lot::Mutex;

/// What is read without end.
#[async_trait]
pub(crate) trait Endless: Send + Sync + 'static {
    /// What the split is called.
    fn split(&self) -> Arc<str>;

    /// Gets ready to be read, as by listening.
    async fn prepare(&self) -> Result<()> {
        Ok(())
    }

    /// Begins to read, once for each [`Endless::prepare`]. `from` has been read before, and is where counting goes on; what waits is a
    /// part of `budget`.
    fn read(&self, from: u64, budget: Arc<MemoryBudget>) -> Result<Box<dyn UnitReader>>;

    /// As [`Source::lag`].
    fn lag(&self) -> Option<Lag> {
        None
    }

    /// As [`Source::figures`].
    fn figures(&self) -> Vec<Figure>;

    /// As [`Source::describe`].
    fn describe(&self) -> String;
}

/// The source of `E`. Its one unit never ends.
pub(crate) struct EndlessSource<E> {
    endless: E,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How much earlier runs have read.
    before: u64,
    handed_out: bool,
    budget: Option<Arc<MemoryBudget>>,
}

impl<E: Endless> EndlessSource<E> {
    /// Reads `endless` once it has started.
    pub(crate) fn new(endless: E) -> Self {
        EndlessSource { endless, state: Mutex::default() }
    }
}

#[async_trait]
impl<E: Endless> Source for EndlessSource<E> {
    fn draw_on(&self, budget: &Arc<MemoryBudget>) {
        self.state.lock().budget = Some(budget.clone());
    }

    async fn start(&self, consumed: &Offsets) -> Result<()> {
        self.endless.prepare().await?;
        let mut state = self.state.lock();
        (state.before, state.handed_out) = (consumed.prefix(&self.endless.split()), false);
        Ok(())
    }

    fn splits(&self) -> Vec<Split> {
        vec![Split { name: self.endless.split(), end: None, min_time: None, holds: true }]
    }

    async fn next_unit(&self) -> Result<Option<Unit>> {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.handed_out, true) {
            return Ok(None);
        }
        Ok(Some(Unit { split: self.endless.split(), start: state.before, end: u64::MAX }))
    }

    async fn open(&self, unit: &Unit) -> Result<Box<dyn UnitReader>> {
        let budget = self.state.lock().budget.clone();
        let budget = budget.ok_or_else(|| Error::internal(format!("{} is read without a budget", unit.split)))?;
        self.endless.read(unit.start, budget)
    }

    fn bounded(&self) -> bool {
        false
    }

    fn lag(&self) -> Option<Lag> {
        self.endless.lag()
    }

    fn figures(&self) -> Vec<Figure> {
        self.endless.figures()
    }

    fn describe(&self) -> String {
        self.endless.describe()
    }
}
