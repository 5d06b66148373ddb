//! The equality harness: a continuous query must say what the same SQL says in batch.
//!
//! ```text
//! tests/sql/*.sql ─ case ─► plan ─► job over scripted sources ─► collecting sink ─┐
//!                     ├──► DataFusion in batch over the rows accepted so far ─────┼─ equal?
//!                     └─ dialect ─► DuckDB over all rows ─────────────────────────┘
//! ```
//! A case is a query in a file of `tests/sql`; nothing else needs to be written. Each is run several times
//! with rows, splits, epochs, parallelism, threads and kills drawn from a seed; some have tasks on one
//! or two other nodes of this process, which are reached over Flight, and of which one may be killed (`nodes.rs`). Results that come as changes
//! are compared after *every* epoch, those that come on close when they close and at the end; what the sink
//! has committed is compared after the last restart. The batch answer is compared with DuckDB's, which needs the Python
//! that `tests/run.sh` makes: `dialect.rs` says what is written otherwise for it. Besides the cases there are random
//! queries (`random.rs`), rows that come too late (`late.rs`) and rows on which an expression fails (`poison.rs`).
//! A step that hangs ends the test (`watch.rs`). A failure prints its seed; `MILLSTREAM_SEED=n` runs that
//! one alone, `MILLSTREAM_CASE=text` only the cases whose name has that text, and `MILLSTREAM_ROUNDS=n` as
//! many seeds per case.

mod as_of;
pub mod case;
pub mod compare;
pub mod dialect;
pub mod duck;
pub mod expressions;
mod first;
pub mod generate;
pub mod input;
pub mod late;
pub mod nodes;
pub mod oracle;
pub mod pending;
pub mod planned;
pub mod poison;
pub mod random;
mod raw;
pub mod rows;
pub mod run;
pub mod sink;
pub mod source;
pub mod watch;
pub mod world;

/// Any failure, with its text.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The result of a step of a test.
pub type Result<T, E = Error> = std::result::Result<T, E>;
