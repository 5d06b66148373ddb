//! The SQL of Millstream: statements, catalog, planning (SQL to DataFusion's logical plan to the dataflow
//! graph) and sessions. It knows nothing of the network.

pub mod catalog;
pub mod error;
mod files;
pub(crate) mod function;
pub mod plan;
mod quote;
pub mod rights;
mod semantics;
pub mod session;
pub mod statement;

pub use error::{Error, ErrorKind, Position, Result};
pub use rights::Principal;
pub use session::{Config, Millstream, Outcome, Session};
