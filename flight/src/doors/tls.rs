//! TLS from PEM files: what rustls is to be told, on either side.
//!
//! The cryptography is always *ring*'s and named where a configuration is made; there is no process-wide default.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millstream_engine::error::{Error, Result};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// A certificate, with those that lead from it to its authority, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The file of the certificates, the own one first.
    pub cert: PathBuf,
    /// The file of the key.
    pub key: PathBuf,
}

impl Identity {
    /// Its files.
    pub(crate) fn files(&self) -> impl Iterator<Item = PathBuf> {
        [self.cert.clone(), self.key.clone()].into_iter()
    }
}

/// Where the cryptography comes from.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What a client goes by. It trusts the authorities in the file `ca`, or those that the system trusts where there is none,
/// and shows `identity` where it has one. Blocks on the disk.
///
/// Errors with the file that cannot be read or does not hold what it should.
pub fn client_config(ca: Option<&Path>, identity: Option<&Identity>) -> Result<ClientConfig> {
    let roots = match ca {
        Some(file) => authorities(file)?,
        None => system_authorities()?,
    };
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| unusable("TLS", e))?.with_root_certificates(roots);
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some(Identity { cert, key }) => {
            let config = builder.with_client_auth_cert(certificates(cert)?, private_key(key)?);
            config.map_err(|e| unusable(format!("certificate \"{}\"", cert.display()), e))
        }
    }
}

/// What a client goes by that speaks no TLS and is asked for something all the same: it trusts nobody.
pub fn plain_config() -> Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| unusable("TLS", e))?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// What a server goes by. It shows `identity`; with a file `client_ca` it lets in only who shows a certificate of one of the
/// authorities in it. Blocks on the disk.
///
/// Errors with the file that cannot be read or does not hold what it should.
pub fn server_config(identity: &Identity, client_ca: Option<&Path>) -> Result<ServerConfig> {
    let Identity { cert, key } = identity;
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| unusable("TLS", e))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities(file)?), provider());
            let verifier = verifier.build().map_err(|e| unusable(format!("authority \"{}\"", file.display()), e))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder.with_single_cert(certificates(cert)?, private_key(key)?);
    config.map_err(|e| unusable(format!("certificate \"{}\" with key \"{}\"", cert.display(), key.display()), e))
}

/// The certificates in `file`, of which there is at least one.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let failed = |e| unreadable(file, "certificate", e);
    let all: Vec<_> = CertificateDer::pem_file_iter(file).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    match all.is_empty() {
        true => Err(failed(pem::Error::NoItemsFound)),
        false => Ok(all),
    }
}

/// The first key in `file`.
pub(crate) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(file).map_err(|e| unreadable(file, "private key", e))
}

/// The authorities in `file`.
fn authorities(file: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|e| unusable(format!("authority \"{}\"", file.display()), e))?;
    }
    Ok(roots)
}

/// Those that the system trusts. One that cannot be read is left out, as others do.
fn system_authorities() -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (good, bad) = roots.add_parsable_certificates(found.certs);
    if good == 0 {
        let reason = found.errors.first().map(|e| format!(": {e}")).unwrap_or_default();
        return Err(Error::invalid(format!(
            "the system has no certificates of authorities ({bad} are unusable){reason}"
        ))
        .with_hint("Name a file of those to trust: tls_ca = 'ca.pem'."));
    }
    Ok(roots)
}

fn unreadable(file: &Path, what: &str, e: pem::Error) -> Error {
    let shown = file.display();
    match e {
        pem::Error::NoItemsFound => Error::invalid(format!("file \"{shown}\" has no {what}"))
            .with_hint("It must be in PEM: text that begins with -----BEGIN."),
        pem::Error::Io(e) => Error::invalid(format!("file \"{shown}\" cannot be read: {e}")).with_source(e),
        e => Error::invalid(format!("file \"{shown}\" holds no whole {what}: {e}")),
    }
}

fn unusable(what: impl fmt::Display, e: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::invalid(format!("{what} cannot be used: {e}")).with_source(e)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs;

    fn identity(folder: &Path, name: &str) -> Identity {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let files = Identity { cert: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}.key")) };
        fs::write(&files.cert, made.cert.pem()).expect("writes");
        fs::write(&files.key, made.signing_key.serialize_pem()).expect("writes");
        files
    }

    #[test]
    fn files_become_configurations() {
        let folder = tempfile::tempdir().expect("a folder");
        let own = identity(folder.path(), "own");
        server_config(&own, None).expect("a server");
        server_config(&own, Some(&own.cert)).expect("a server of mutual TLS");
        client_config(Some(&own.cert), None).expect("a client");
        client_config(Some(&own.cert), Some(&own)).expect("a client that shows who it is");
    }

    #[test]
    fn what_is_wrong_names_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let (own, other) = (identity(folder.path(), "own"), identity(folder.path(), "other"));
        let text = |e: Error| (e.message().to_owned(), e.hint().unwrap_or_default().to_owned());
        let swapped = Identity { cert: own.key.clone(), key: own.key.clone() };
        let (message, hint) = text(server_config(&swapped, None).expect_err("no certificate"));
        assert!(message.ends_with("own.key\" has no certificate") && hint.contains("PEM"), "{message} {hint}");
        let none = Identity { key: own.cert.clone(), ..own.clone() };
        assert!(text(server_config(&none, None).expect_err("no key")).0.contains("has no private key"));
        let gone = folder.path().join("gone.pem");
        let (message, _) = text(client_config(Some(&gone), None).expect_err("no file"));
        assert!(message.contains("gone.pem\" cannot be read"), "{message}");
        let mixed = Identity { key: other.key.clone(), ..own.clone() };
        let (message, _) = text(server_config(&mixed, None).expect_err("another's key"));
        assert!(message.contains("other.key\" cannot be used"), "{message}");
        fs::write(&gone, "-----BEGIN CERTIFICATE-----\nAAAA\n").expect("writes");
        assert!(text(client_config(Some(&gone), None).expect_err("half a file")).0.contains("no whole certificate"));
    }
}
