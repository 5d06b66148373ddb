//! The other end of a connection.

use std::net::IpAddr;
use std::sync::Arc;

/// Who a connection comes from, as far as the connection tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address, for the audit and to slow down who guesses.
    pub address: Arc<str>,
    /// The name in the certificate that it has shown and that was checked.
    pub certificate: Option<Arc<str>>,
}

impl Peer {
    /// Somebody at `address`, who has shown no certificate.
    pub fn at(address: IpAddr) -> Self {
        Peer { address: address.to_canonical().to_string().into(), certificate: None }
    }

    /// Somebody of whom nothing is known.
    pub(crate) fn unknown() -> Self {
        Peer { address: "unknown".into(), certificate: None }
    }
}
