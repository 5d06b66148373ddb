//! Expressions that fail by row.
//!
//! A DataFusion expression gives a column or an error, and what it gives for a row may depend on the other
//! rows of the batch: `y <> 0 AND x / y > 1` fails or not by how many rows have `y = 0`. Here a row decides
//! alone. [`harden`] rewrites an expression so that
//!
//! - an operand of AND, OR or FILTER counts only on the rows that the others leave open, in any order
//!   (`logic.rs`, `guarded.rs`);
//! - arithmetic on integers and decimals that overflows is an error (`checked.rs`);
//!
//! and [`evaluate`] gives the values together with the rows on which there are none, and why
//! (`evaluate.rs`). While no row fails this costs one columnar evaluation, as before.
//!
//! ```text
//! 10 / y    over y = 5, 0, 2     ->  values 2, -, 5    failures: row 1, "10 / y": division by zero
//! ```

mod around;
mod casts;
mod checked;
mod evaluate;
mod failures;
mod guarded;
mod harden;
mod logic;
mod never_null;
mod reason;
#[cfg(test)]
mod tests;
mod text;

pub use evaluate::evaluate;
pub use failures::{Failure, Failures};
pub use guarded::Guarded;
pub use harden::{FilteredCall, harden, harden_aggregate};
pub use logic::Logic;
