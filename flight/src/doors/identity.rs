//! The TLS of a server.

use std::path::PathBuf;
use std::sync::Arc;

use millstream_sql::Result;
use rustls::ServerConfig;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::renewed::Renewed;
use super::tls::{Identity, server_config};

/// What a server shows; its files are read again when they change.
pub struct ServerTls(Arc<Renewed<ServerConfig>>);

impl ServerTls {
    /// Shows `identity` and speaks `protocols`, the best first; with `client_ca` only who shows a certificate of that authority is
    /// let in. Blocks on the disk.
    pub fn new(identity: Identity, client_ca: Option<PathBuf>, protocols: &[&str]) -> Result<Self> {
        let protocols: Vec<_> = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let files = identity.files().chain(client_ca.clone()).collect();
        let config = Renewed::new(files, move || {
            let mut config = server_config(&identity, client_ca.as_deref())?;
            config.alpn_protocols = protocols.clone();
            Ok(config)
        });
        Ok(ServerTls(config?))
    }

    /// What a connection that begins now goes by.
    pub(super) async fn config(&self) -> Arc<ServerConfig> {
        self.0.get().await
    }
}

/// The common name in a certificate, which was checked before.
pub(super) fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let mut names = certificate.subject().iter_common_name();
    // Of two, who says which is meant?
    match (names.next(), names.next()) {
        (Some(name), None) => name.as_str().ok().map(str::to_owned),
        _ => None,
    }
}
