//! AND and OR of operands that may fail.
//!
//! A false operand decides an AND and a true one an OR, wherever it stands; the others need not have a value
//! then. So a row fails only when no operand decides and one of them fails. This does not depend on the order
//! in which an optimizer has put the operands.
//!
//! ```text
//! y <> 0 AND 10 / y > 1       y = 0: false      y = 5: true
//! 10 / y > 1 AND y <> 0       y = 0: false      y = 5: true
//! 10 / y > 1 AND x > 7        y = 0: fails where x > 7, else false
//! ```

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion_expr::Operator;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::BinaryExpr;

/// `a AND b AND …` or `a OR b OR …`.
#[derive(Debug)]
pub struct Logic {
    /// AND or OR.
    pub(super) op: Operator,
    pub(super) operands: Vec<Arc<dyn PhysicalExpr>>,
    /// All operands over all rows: right while none of them fails.
    pub(super) fast: Arc<dyn PhysicalExpr>,
}

impl Logic {
    /// `op` (AND or OR) over at least one operand.
    pub fn new(op: Operator, operands: Vec<Arc<dyn PhysicalExpr>>) -> Option<Self> {
        let chain = |left, right: &Arc<dyn PhysicalExpr>| -> Arc<dyn PhysicalExpr> {
            Arc::new(BinaryExpr::new(left, op, right.clone()))
        };
        let (first, others) = operands.split_first()?;
        let fast = others.iter().fold(first.clone(), chain);
        Some(Logic { op, operands, fast })
    }
}

impl PartialEq for Logic {
    fn eq(&self, other: &Self) -> bool {
        self.op == other.op && self.operands == other.operands
    }
}

impl Eq for Logic {}

impl Hash for Logic {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.op.hash(state);
        self.operands.hash(state);
    }
}

impl fmt::Display for Logic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fast.fmt(f)
    }
}
