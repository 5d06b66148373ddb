//! What is known not to be NULL stays known.
//!
//! DataFusion finds that `CASE WHEN x > 0 THEN - x ELSE 0 END` is never NULL by looking into its branches, and does not know the
//! expressions that [`harden`](super::harden()) puts there. A column that was said to have no NULLs must not become one that may.

use datafusion_common::Result as DfResult;
use datafusion_expr::ColumnarValue;

use super::around::{Around, Rule};

/// An expression whose values are never NULL.
pub(super) type NeverNull = Around<Known>;

/// See [`NeverNull`].
#[derive(Debug)]
pub(super) struct Known;

impl Rule for Known {
    fn nullable(_inner: bool) -> bool {
        false
    }

    fn values(inner: ColumnarValue) -> DfResult<ColumnarValue> {
        Ok(inner)
    }
}
