//! Counters of a job's operators, read by `EXPLAIN ANALYZE STREAM` and `SHOW JOBS` while it runs.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Counters of one operator in one task. All may be read at any time.
#[derive(Debug, Default)]
pub struct NodeMetrics {
    rows_in: AtomicU64,
    rows_out: AtomicU64,
    busy_nanos: AtomicU64,
    state_bytes: AtomicI64,
    queued_bytes: AtomicI64,
    late: AtomicU64,
    dead_letters: AtomicU64,
}

/// A reading of [`NodeMetrics`], which can be added up over tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFigures {
    /// Rows that came in.
    pub rows_in: u64,
    /// Rows that went out.
    pub rows_out: u64,
    /// Time spent in the operator.
    pub busy: Duration,
    /// Bytes of state held.
    pub state_bytes: u64,
    /// Bytes waiting at the operator's inputs.
    pub queued_bytes: u64,
    /// Rows dropped because their windows had closed.
    pub late: u64,
    /// Rows put aside: they could not be decoded, or an expression failed on them.
    pub dead_letters: u64,
}

impl NodeMetrics {
    /// Counts rows that came in.
    pub fn rows_in(&self, n: usize) {
        self.rows_in.fetch_add(n as u64, Ordering::Relaxed);
    }

    /// Counts rows that went out.
    pub fn rows_out(&self, n: usize) {
        self.rows_out.fetch_add(n as u64, Ordering::Relaxed);
    }

    /// Counts time spent.
    pub fn busy(&self, d: Duration) {
        self.busy_nanos.fetch_add(d.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Adds to (or takes from) the bytes of state held.
    pub fn state_bytes(&self, delta: i64) {
        self.state_bytes.fetch_add(delta, Ordering::Relaxed);
    }

    /// Adds to (or takes from) the bytes that wait at the inputs.
    pub fn queued(&self, delta: i64) {
        self.queued_bytes.fetch_add(delta, Ordering::Relaxed);
    }

    /// Counts late rows.
    pub fn late(&self, n: usize) {
        self.late.fetch_add(n as u64, Ordering::Relaxed);
    }

    /// Counts dead letters.
    pub fn dead_letters(&self, n: usize) {
        self.dead_letters.fetch_add(n as u64, Ordering::Relaxed);
    }

    /// Shows what has been counted in another process.
    pub fn show(&self, figures: &NodeFigures) {
        self.rows_in.store(figures.rows_in, Ordering::Relaxed);
        self.rows_out.store(figures.rows_out, Ordering::Relaxed);
        self.busy_nanos.store(figures.busy.as_nanos() as u64, Ordering::Relaxed);
        self.state_bytes.store(figures.state_bytes as i64, Ordering::Relaxed);
        self.queued_bytes.store(figures.queued_bytes as i64, Ordering::Relaxed);
        self.late.store(figures.late, Ordering::Relaxed);
        self.dead_letters.store(figures.dead_letters, Ordering::Relaxed);
    }

    /// The counters now.
    pub fn read(&self) -> NodeFigures {
        NodeFigures {
            rows_in: self.rows_in.load(Ordering::Relaxed),
            rows_out: self.rows_out.load(Ordering::Relaxed),
            busy: Duration::from_nanos(self.busy_nanos.load(Ordering::Relaxed)),
            state_bytes: self.state_bytes.load(Ordering::Relaxed).max(0) as u64,
            queued_bytes: self.queued_bytes.load(Ordering::Relaxed).max(0) as u64,
            late: self.late.load(Ordering::Relaxed),
            dead_letters: self.dead_letters.load(Ordering::Relaxed),
        }
    }
}

impl std::ops::AddAssign for NodeFigures {
    fn add_assign(&mut self, other: Self) {
        self.rows_in += other.rows_in;
        self.rows_out += other.rows_out;
        self.busy += other.busy;
        self.state_bytes += other.state_bytes;
        self.queued_bytes += other.queued_bytes;
        self.late += other.late;
        self.dead_letters += other.dead_letters;
    }
}
