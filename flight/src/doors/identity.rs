//! The TLS of a server: files that are read again when they change, so that a certificate is renewed without a restart.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use millstream_sql::Result;
use parking_lot::Mutex;
use rustls::ServerConfig;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::tls::{Identity, server_config};

/// How often the files are looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

/// See the module's text.
pub struct ServerTls {
    identity: Identity,
    client_ca: Option<PathBuf>,
    /// The protocols above it, the best first.
    protocols: Vec<Vec<u8>>,
    now: Mutex<Loaded>,
}

struct Loaded {
    config: Arc<ServerConfig>,
    /// What the files were like then.
    stamps: Vec<Option<(SystemTime, u64)>>,
    looked: Instant,
}

impl ServerTls {
    /// Shows `identity` and speaks `protocols`; with `client_ca` only who shows a certificate of that authority is let in.
    /// Blocks on the disk.
    pub fn new(identity: Identity, client_ca: Option<PathBuf>, protocols: &[&str]) -> Result<Self> {
        let protocols: Vec<_> = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stamps = stamps(&identity, client_ca.as_ref());
        let config = load(&identity, client_ca.as_ref(), &protocols)?;
        let now = Mutex::new(Loaded { config, stamps, looked: Instant::now() });
        Ok(ServerTls { identity, client_ca, protocols, now })
    }

    /// What a connection that begins now goes by. Files that cannot be used are told of, and the last good ones count.
    pub(super) async fn config(self: &Arc<Self>) -> Arc<ServerConfig> {
        {
            let mut now = self.now.lock();
            if now.looked.elapsed() < LOOK {
                return now.config.clone();
            }
            // The others go on with what there is while one looks.
            now.looked = Instant::now();
        }
        let own = self.clone();
        // It never panics; a runtime that ends needs no new certificate.
        let _ = tokio::task::spawn_blocking(move || own.look()).await;
        self.now.lock().config.clone()
    }

    fn look(&self) {
        let stamps = stamps(&self.identity, self.client_ca.as_ref());
        if self.now.lock().stamps == stamps {
            return;
        }
        match load(&self.identity, self.client_ca.as_ref(), &self.protocols) {
            Ok(config) => {
                tracing::info!(certificate = %self.identity.cert.display(), "the certificate was read again");
                let mut now = self.now.lock();
                (now.config, now.stamps) = (config, stamps);
            }
            // Perhaps one of the two files is new and the other is not yet: they are looked at again.
            Err(e) => tracing::warn!(error = %e, "the new certificate cannot be used; the old one is shown"),
        }
    }
}

fn stamps(identity: &Identity, client_ca: Option<&PathBuf>) -> Vec<Option<(SystemTime, u64)>> {
    let stamp = |file: &PathBuf| {
        let data = std::fs::metadata(file).ok()?;
        Some((data.modified().ok()?, data.len()))
    };
    [Some(&identity.cert), Some(&identity.key), client_ca].into_iter().flatten().map(stamp).collect()
}

fn load(identity: &Identity, client_ca: Option<&PathBuf>, protocols: &[Vec<u8>]) -> Result<Arc<ServerConfig>> {
    let mut config = server_config(identity, client_ca.map(PathBuf::as_path))?;
    config.alpn_protocols = protocols.to_vec();
    Ok(Arc::new(config))
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
