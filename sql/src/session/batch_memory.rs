//! Memory of statements that run in batch: out of the process's one budget, and on the disk beyond it.
//!
//! DataFusion's operators ask a pool for what they hold. Those that can put rows on the disk get an even share of what the budget has left
//! for them, and so does what merges these rows again, since each would take all there is and leave the next none; the rest get what there
//! is, and the statement ends with an error that names them when there is none.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::common::DataFusionError;
use datafusion::error::Result as DfResult;
use datafusion::execution::context::SessionState;
use datafusion::execution::disk_manager::{DiskManager, DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SpillFile, TaskContext, TempFileFactory};
use millstream_engine::memory::{MemoryBudget, human_bytes};
use millstream_engine::store::Store;
use parking_lot::Mutex;

use super::tables::reach_objects;
use crate::error::Result;

/// The folder of a store for rows that do not fit into memory. What a process leaves there is of no use to the next.
pub(super) const SPILL: &str = "spill";

/// The share of the budget that operators fill before they put rows on the disk: below that from which sources of streams wait.
const SPILLING_PERCENT: usize = 60;
/// The share for merging.
const MERGING_PERCENT: usize = 30;
/// What merges the sorted runs of a sort, by the name that DataFusion 55 gives it.
const MERGE: &str = "ExternalSorterMerge";
/// The most that a sort sets aside for merging what it has put on the disk.
const MOST_FOR_MERGING: usize = 10 << 20;

/// Where statements of `store` run in batch.
pub(super) fn batch_environment(budget: Arc<MemoryBudget>, store: &Store) -> Result<Arc<RuntimeEnv>> {
    let pool = Arc::new(BatchPool { budget, spilling: Mutex::default() });
    let files: Arc<dyn TempFileFactory> =
        Arc::new(SpillFolder { path: store.scratch().join(SPILL), disk: Mutex::new(None) });
    let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Custom(files));
    let environment = RuntimeEnvBuilder::new().with_memory_pool(pool).with_disk_manager_builder(disk).build_arc()?;
    reach_objects(store, &environment)?;
    Ok(environment)
}

/// The context of a statement of `state` that runs in `environment`, within a budget of `limit` bytes.
pub(super) fn batch_context(state: &SessionState, environment: &Arc<RuntimeEnv>, limit: usize) -> Arc<TaskContext> {
    let mut config = state.config().clone();
    let sorts = config.target_partitions().max(1);
    let merging = &mut config.options_mut().execution.sort_spill_reservation_bytes;
    *merging = (limit / 8 / sorts).min(MOST_FOR_MERGING);
    Arc::new(TaskContext::from(state).with_session_config(config).with_runtime(Arc::clone(environment)))
}

/// The budget as DataFusion asks for it.
#[derive(Debug)]
struct BatchPool {
    budget: Arc<MemoryBudget>,
    spilling: Mutex<Spilling>,
}

/// Operators that can put rows on the disk.
#[derive(Debug, Default)]
struct Spilling {
    operators: usize,
    bytes: usize,
    merges: usize,
}

impl Spilling {
    /// How many operators there are of the kind of `consumer`, where it is one of those.
    fn count(&mut self, consumer: &MemoryConsumer) -> Option<&mut usize> {
        if consumer.can_spill() {
            return Some(&mut self.operators);
        }
        consumer.name().starts_with(MERGE).then_some(&mut self.merges)
    }
}

impl BatchPool {
    fn exhausted(&self, reservation: &MemoryReservation, more: usize) -> DataFusionError {
        // An operator's name, and the number of its part.
        let operator = reservation.consumer().name();
        let operator = operator.split_once('[').map_or(operator, |(name, _)| name);
        DataFusionError::ResourcesExhausted(format!(
            "out of memory: {operator} holds {}, asks for {} more, and the budget of {} is used up",
            human_bytes(reservation.size()),
            human_bytes(more),
            human_bytes(self.budget.limit())
        ))
    }
}

impl fmt::Display for BatchPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl MemoryPool for BatchPool {
    fn name(&self) -> &str {
        "budget"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.spilling.lock().count(consumer).into_iter().for_each(|n| *n += 1);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.spilling.lock().count(consumer).into_iter().for_each(|n| *n -= 1);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        if reservation.consumer().can_spill() {
            self.spilling.lock().bytes += additional;
        }
        self.budget.take(additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        if reservation.consumer().can_spill() {
            let mut spilling = self.spilling.lock();
            spilling.bytes = spilling.bytes.saturating_sub(shrink);
        }
        self.budget.give_back(shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> DfResult<()> {
        let percent = self.budget.limit() / 100;
        let mut spilling = self.spilling.lock();
        let spills = reservation.consumer().can_spill();
        let others = self.budget.used().saturating_sub(spilling.bytes);
        let share = match spilling.count(reservation.consumer()) {
            None => usize::MAX,
            Some(n) if spills => (percent * SPILLING_PERCENT).saturating_sub(others) / (*n).max(1),
            Some(n) => percent * MERGING_PERCENT / (*n).max(1),
        };
        if reservation.size() + additional > share || !self.budget.try_take(additional) {
            return Err(self.exhausted(reservation, additional));
        }
        if spills {
            spilling.bytes += additional;
        }
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.budget.used()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.budget.limit())
    }
}

/// A folder that is made when it is needed first: a look into a store leaves nothing behind.
#[derive(Debug)]
struct SpillFolder {
    path: PathBuf,
    disk: Mutex<Option<Arc<DiskManager>>>,
}

impl TempFileFactory for SpillFolder {
    fn create_temp_file(&self, description: &str) -> DfResult<Arc<dyn SpillFile>> {
        let disk = {
            let mut disk = self.disk.lock();
            match &*disk {
                Some(disk) => Arc::clone(disk),
                None => {
                    std::fs::create_dir_all(&self.path)?;
                    let mode = DiskManagerMode::Directories(vec![self.path.clone()]);
                    Arc::clone(disk.insert(Arc::new(DiskManagerBuilder::default().with_mode(mode).build()?)))
                }
            }
        };
        disk.create_tmp_file(description)
    }
}
