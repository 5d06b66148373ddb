//! Tokens that an identity provider has signed (OpenID Connect), by its keys in a file (a JWKS), which is read again when it
//! changes.
//!
//! The algorithm is the key's: what a token says of it must be the same. Keys that are shared secrets are not taken, so that
//! nobody makes a token with a public key as the secret of a MAC.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use millstream_engine::error as engine;
use millstream_sql::{Error, ErrorKind, Result};
use serde_json::Value;

use super::renewed::Renewed;

/// The longest token that is looked at.
const LONGEST: usize = 8 << 10;
/// Keys that are taken from a file.
const MOST_KEYS: usize = 64;
/// How far clocks may be apart, in seconds.
const LEEWAY: u64 = 30;

/// Whose tokens are taken.
#[derive(Clone, Debug)]
pub struct OidcOptions {
    /// Who must have made a token: its `iss`.
    pub issuer: String,
    /// For whom it must be: its `aud`.
    pub audience: String,
    /// The file with the issuer's public keys.
    pub jwks: PathBuf,
    /// The claim that names the user.
    pub claim: String,
}

/// See the module's text.
pub(super) struct Oidc {
    options: OidcOptions,
    keys: Arc<Renewed<Vec<SigningKey>>>,
}

/// A key with the one algorithm that it is for.
struct SigningKey {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Oidc {
    /// Blocks on the disk.
    pub(super) fn new(options: OidcOptions) -> Result<Self> {
        let file = options.jwks.clone();
        let keys = Renewed::new(vec![file.clone()], move || load(&file))?;
        Ok(Oidc { options, keys })
    }

    /// Whether `token` looks like one of these.
    pub(super) fn is_one(token: &str) -> bool {
        token.bytes().filter(|byte| *byte == b'.').count() == 2
    }

    /// The user that `token` is of. Any doubt is a refusal, and all refusals are the same to who sent it.
    pub(super) async fn user(&self, token: &str) -> Result<String> {
        let keys = self.keys.get().await;
        check(&self.options, &keys, token).map_err(|why| {
            tracing::debug!(%why, "a token was refused");
            Error::new(ErrorKind::Denied, "the token is not valid").with_hint("Get a new one from its issuer.")
        })
    }
}

/// The keys in `file`.
fn load(file: &Path) -> engine::Result<Vec<SigningKey>> {
    let shown = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|e| engine::Error::invalid(format!("file \"{shown}\" cannot be read: {e}")))?;
    let set: JwkSet = serde_json::from_str(&text)
        .map_err(|e| engine::Error::invalid(format!("file \"{shown}\" is no set of keys: {e}")))?;
    let keys: Vec<_> = set.keys.iter().take(MOST_KEYS).filter_map(signing_key).collect();
    if keys.is_empty() {
        return Err(engine::Error::invalid(format!("file \"{shown}\" has no key that signs tokens"))
            .with_hint("It must have public keys: RSA, EC or Ed25519. Shared secrets are not taken."));
    }
    Ok(keys)
}

/// The key, if it is a public one that signs, with its algorithm: as it says, else the one that its kind has.
fn signing_key(jwk: &Jwk) -> Option<SigningKey> {
    if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
        return None;
    }
    let said = jwk.common.key_algorithm;
    let algorithm = match (&jwk.algorithm, said) {
        (AlgorithmParameters::RSA(_), None | Some(KeyAlgorithm::RS256)) => Algorithm::RS256,
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::RS384)) => Algorithm::RS384,
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::RS512)) => Algorithm::RS512,
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::PS256)) => Algorithm::PS256,
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::PS384)) => Algorithm::PS384,
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::PS512)) => Algorithm::PS512,
        (AlgorithmParameters::EllipticCurve(ec), None | Some(KeyAlgorithm::ES256))
            if ec.curve == EllipticCurve::P256 =>
        {
            Algorithm::ES256
        }
        (AlgorithmParameters::EllipticCurve(ec), None | Some(KeyAlgorithm::ES384))
            if ec.curve == EllipticCurve::P384 =>
        {
            Algorithm::ES384
        }
        (AlgorithmParameters::OctetKeyPair(pair), None | Some(KeyAlgorithm::EdDSA))
            if pair.curve == EllipticCurve::Ed25519 =>
        {
            Algorithm::EdDSA
        }
        _ => return None,
    };
    Some(SigningKey { id: jwk.common.key_id.clone(), algorithm, key: DecodingKey::from_jwk(jwk).ok()? })
}

/// The user, or why there is none, for the log.
fn check(options: &OidcOptions, keys: &[SigningKey], token: &str) -> std::result::Result<String, String> {
    if token.len() > LONGEST {
        return Err("it is too long".to_owned());
    }
    let header = decode_header(token).map_err(|e| e.to_string())?;
    if header.crit.is_some() {
        return Err("it has a header that must be understood".to_owned());
    }
    let of_id = |key: &&SigningKey| header.kid.is_none() || key.id == header.kid;
    let fitting = keys.iter().filter(of_id).filter(|key| key.algorithm == header.alg);
    let mut why = format!("no key of {:?} is for it", header.alg);
    for key in fitting {
        let mut validation = Validation::new(key.algorithm);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_issuer(&[&options.issuer]);
        validation.set_audience(&[&options.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        match decode::<HashMap<String, Value>>(token, &key.key, &validation) {
            Ok(decoded) => {
                return match decoded.claims.get(&options.claim) {
                    Some(Value::String(user)) if !user.is_empty() => Ok(user.clone()),
                    _ => Err(format!("its claim \"{}\" names no user", options.claim)),
                };
            }
            Err(e) => why = e.to_string(),
        }
    }
    Err(why)
}
