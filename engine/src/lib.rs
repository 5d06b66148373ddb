//! The engine of Millstream: changes, epochs, operators, state, checkpoints, connectors, formats,
//! Parquet storage and the runtime. It knows nothing of SQL text or of the network.

pub mod changelog;
pub mod changes;
pub mod checkpoint;
pub mod clock;
pub mod connector;
pub mod epoch;
pub mod error;
pub mod expr;
pub mod float;
pub mod format;
pub mod graph;
pub mod hidden;
pub mod key;
pub mod memory;
pub mod metrics;
pub mod nearest;
pub mod nodes;
pub mod operator;
pub mod options;
mod pattern;
mod plain;
pub mod reach;
pub mod runtime;
pub mod spread;
pub mod state;
pub mod store;
pub mod table;
pub mod testing;
pub mod time;
pub mod token;

pub use error::{Error, ErrorKind, Result};
