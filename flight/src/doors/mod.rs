//! What stands between a network and Millstream: who is it, and TLS.
//!
//! ```text
//! TCP ── Acceptor (TLS, certificate) ── Peer ──┐
//! authorization header ────────────────────────┴─► Doors::admit ──► sql::Principal ──► sql::Session
//! ```

mod acceptor;
mod entry;
mod identity;
mod oidc;
mod peer;
pub(crate) mod renewed;
pub mod tls;
mod tokens;

pub use acceptor::{Acceptor, Connection};
pub use entry::{Doors, DoorsOptions};
pub use identity::ServerTls;
pub use oidc::OidcOptions;
pub use peer::Peer;
pub use tokens::Fingerprint;
