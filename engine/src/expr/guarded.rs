//! An argument of an aggregate with FILTER: evaluated on the rows that the filter lets through.
//!
//! ```text
//! sum(10 / v) FILTER (WHERE v <> 0)     v = 5, 0, 2  ->  2, null, 5
//! ```
//! The others get NULL, which nobody looks at.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion_physical_expr::PhysicalExpr;

/// `value` where `guard` is true.
#[derive(Debug, Eq)]
pub struct Guarded {
    pub(super) guard: Arc<dyn PhysicalExpr>,
    pub(super) value: Arc<dyn PhysicalExpr>,
}

// Written out: the derived ones move out of the references.
impl PartialEq for Guarded {
    fn eq(&self, other: &Self) -> bool {
        self.guard.eq(&other.guard) && self.value.eq(&other.value)
    }
}

impl Hash for Guarded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.guard.hash(state);
        self.value.hash(state);
    }
}

impl Guarded {
    /// `value` on the rows on which `guard`, a boolean, is true.
    pub fn new(guard: Arc<dyn PhysicalExpr>, value: Arc<dyn PhysicalExpr>) -> Self {
        Guarded { guard, value }
    }
}

impl fmt::Display for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}
