//! The SQL of Millstream: statements, catalog and planning (SQL to DataFusion's logical plan to the
//! dataflow graph). It knows nothing of the network.

pub mod error;
pub mod plan;
pub mod statement;

pub use error::{Error, ErrorKind, Position, Result};
