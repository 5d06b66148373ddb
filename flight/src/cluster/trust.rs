//! TLS between nodes: the store says which certificate a node shows, and no authority is asked.

use std::path::Path;
use std::sync::Arc;

use millstream_engine::error::{Error, Result};
use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::key::hexadecimal;
use crate::doors::tls::{Identity, certificates, private_key, provider};

/// What tells the first certificate in `file` from others. Blocks on the disk.
pub(crate) fn fingerprint(file: &Path) -> Result<String> {
    let first = certificates(file)?.into_iter().next();
    let first = first.ok_or_else(|| Error::invalid(format!("file \"{}\" has no certificate", file.display())))?;
    Ok(of(&first))
}

fn of(certificate: &CertificateDer<'_>) -> String {
    hexadecimal(digest(&SHA256, certificate).as_ref())
}

/// What a node goes by that calls one that shows the certificate `fingerprint`. It shows its own, where it has one. Blocks on the disk.
pub(super) fn client_config(fingerprint: &str, own: Option<&Identity>) -> Result<ClientConfig> {
    let unusable = |e: rustls::Error| Error::invalid(format!("TLS between nodes cannot be used: {e}")).with_source(e);
    let known = Known { fingerprint: fingerprint.to_owned(), provider: provider() };
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(unusable)?.dangerous().with_custom_certificate_verifier(Arc::new(known));
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(Identity { cert, key }) => {
            builder.with_client_auth_cert(certificates(cert)?, private_key(key)?).map_err(unusable)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Takes one certificate, whose key the other side must have.
#[derive(Debug)]
struct Known {
    fingerprint: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _above: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match of(certificate) == self.fingerprint {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
