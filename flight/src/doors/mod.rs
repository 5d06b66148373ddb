//! What stands between a network and Millstream: who is it, and TLS.
//!
//! ```text
//! TCP ── Acceptor (TLS, certificate) ── Peer ──┐
//! authorization header ────────────────────────┴─► Doors::admit ──► sql::Principal ──► sql::Session
//! ```

mod entry;
mod peer;
mod tokens;

pub use entry::Doors;
pub use peer::Peer;
