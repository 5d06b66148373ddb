//! One memory budget per process, shared by the state and the queues of all jobs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// A bound on bytes. Over `PRESSURE` of it sources slow down; beyond it the operator that asked fails.
#[derive(Debug)]
pub struct MemoryBudget {
    limit: AtomicUsize,
    used: AtomicUsize,
}

/// The share of the budget, in percent, from which sources wait.
const PRESSURE: usize = 85;

impl MemoryBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(MemoryBudget { limit: AtomicUsize::new(limit), used: AtomicUsize::new(0) })
    }

    /// The bound in bytes.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Changes the bound; what is used already stays.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Bytes used now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether sources should wait.
    pub fn pressed(&self) -> bool {
        self.used() / 100 * 100 >= self.limit() / 100 * PRESSURE
    }

    /// An account of this budget for `owner`, an operator's name as users know it.
    pub fn account(self: &Arc<Self>, owner: impl Into<String>) -> MemoryAccount {
        MemoryAccount { budget: self.clone(), owner: owner.into(), held: 0 }
    }
}

/// What one operator holds; given back when dropped.
#[derive(Debug)]
pub struct MemoryAccount {
    budget: Arc<MemoryBudget>,
    owner: String,
    held: usize,
}

impl MemoryAccount {
    /// Bytes held.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Sets what is held to `bytes`.
    ///
    /// Errors with `Exhausted`, naming the operator and the setting, when the budget has no room.
    pub fn resize(&mut self, bytes: usize) -> Result<()> {
        if bytes > self.held {
            let more = bytes - self.held;
            let used = self.budget.used.fetch_add(more, Ordering::Relaxed) + more;
            self.held = bytes;
            let limit = self.budget.limit();
            if used > limit {
                return Err(Error::new(
                    ErrorKind::Exhausted,
                    format!(
                        "out of memory: {} holds {} and the budget of {} is used up",
                        self.owner,
                        human_bytes(bytes),
                        human_bytes(limit)
                    ),
                )
                .with_hint(
                    "Raise it with SET memory_limit = '8GB', bound the state with a window over event time, \
                     or group by fewer keys.",
                ));
            }
        } else {
            self.budget.used.fetch_sub(self.held - bytes, Ordering::Relaxed);
            self.held = bytes;
        }
        Ok(())
    }
}

impl Drop for MemoryAccount {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.held, Ordering::Relaxed);
    }
}

/// Bytes as people read them: `1.5 MB`, in powers of 1000.
pub fn human_bytes(bytes: usize) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_gives_back_what_it_held() {
        let budget = MemoryBudget::new(1000);
        let mut a = budget.account("aggregate 1");
        a.resize(900).expect("fits");
        assert!(budget.pressed());
        let e = budget.account("aggregate 2").resize(200).expect_err("does not fit");
        assert_eq!(e.kind(), ErrorKind::Exhausted);
        assert!(e.message().contains("aggregate 2"), "{e}");
        assert_eq!(budget.used(), 900);
        a.resize(100).expect("shrinks");
        drop(a);
        assert_eq!(budget.used(), 0);
    }
}
