//! SQL for Millstream: statements, catalog, planning and sessions.

pub mod error;
pub mod session;
pub mod statement;

pub use error::{Error, ErrorKind, Result};
pub use session::{Config, Millstream, Outcome, Session};
