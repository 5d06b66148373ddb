//! Secrets: what is kept of them in the catalog, and the key that opens it, which is not kept.
//!
//! A secret is sealed with AES-256-GCM under a key that is derived (HKDF-SHA256) from the text that the process was given.
//! Its name is a part of what is sealed, so that one secret cannot be put in the place of another.

use std::fmt;
use std::sync::Arc;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::hidden::Hidden;
use crate::error::{Error, ErrorKind, Result};

/// The shortest text that a key is made of.
const LEAST: usize = 32;
/// The longest secret.
const MOST: usize = 64 << 10;
/// Names what the derived key is for.
const PURPOSE: &[u8] = b"millstream secrets 1";

/// What secrets are sealed with.
#[derive(Clone)]
pub struct Key(Arc<LessSafeKey>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A secret as the catalog keeps it: in hexadecimal, what was drawn for it, and it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sealed {
    nonce: String,
    text: String,
}

impl Key {
    /// The key that `text`, from a file or the environment, stands for. White space around it does not count.
    pub fn of(text: &str) -> Result<Self> {
        let text = text.trim();
        if text.len() < LEAST {
            return Err(Error::invalid(format!("the key for secrets has fewer than {LEAST} characters"))
                .with_hint("Make one with: openssl rand -hex 32."));
        }
        let wrong = |_| Error::internal("the key for secrets cannot be made");
        let pseudorandom = Salt::new(HKDF_SHA256, b"millstream").extract(text.as_bytes());
        let purpose = [PURPOSE];
        let derived = pseudorandom.expand(&purpose, &AES_256_GCM).map_err(wrong)?;
        Ok(Key(Arc::new(LessSafeKey::new(UnboundKey::from(derived)))))
    }

    pub(crate) fn seal(&self, name: &str, secret: &Hidden) -> Result<Sealed> {
        if secret.reveal().len() > MOST {
            return Err(Error::invalid(format!("secret \"{name}\" is longer than {MOST} bytes")));
        }
        let wrong = |_| Error::internal("a secret cannot be sealed");
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(wrong)?;
        let mut text = secret.reveal().as_bytes().to_vec();
        let sealed = Nonce::assume_unique_for_key(nonce);
        self.0.seal_in_place_append_tag(sealed, bound_to(name), &mut text).map_err(wrong)?;
        Ok(Sealed { nonce: hexadecimal(&nonce), text: hexadecimal(&text) })
    }

    pub(crate) fn open(&self, name: &str, sealed: &Sealed) -> Result<Hidden> {
        let failed = || {
            Error::new(ErrorKind::Denied, format!("secret \"{name}\" cannot be opened: it was kept under another key"))
                .with_hint("Start with the key of then, or write CREATE OR REPLACE SECRET.")
        };
        let nonce = bytes(&sealed.nonce).and_then(|n| Nonce::try_assume_unique_for_key(&n).ok()).ok_or_else(failed)?;
        let mut text = bytes(&sealed.text).ok_or_else(failed)?;
        let text = self.0.open_in_place(nonce, bound_to(name), &mut text).map_err(|_| failed())?;
        Ok(Hidden::new(std::str::from_utf8(text).map_err(|_| failed())?))
    }
}

fn bound_to(name: &str) -> Aad<Vec<u8>> {
    Aad::from([PURPOSE, b"\0", name.as_bytes()].concat())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2));
    digits.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_secret_is_opened_by_its_key_and_its_name_only() {
        let key = Key::of(TEXT).unwrap();
        let sealed = key.seal("k", &Hidden::new("hunter2")).unwrap();
        let kept = serde_json::to_string(&sealed).unwrap();
        assert!(!kept.contains("hunter2"));
        let sealed: Sealed = serde_json::from_str(&kept).unwrap();
        assert_eq!(key.open("k", &sealed).unwrap().reveal(), "hunter2");
        assert_eq!(Key::of(&format!("{TEXT}\n")).unwrap().open("k", &sealed).unwrap().reveal(), "hunter2");
        let e = key.open("other", &sealed).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Denied);
        assert!(Key::of(&TEXT.replace('0', "1")).unwrap().open("k", &sealed).is_err());
        let broken = Sealed { text: sealed.text.replace(&sealed.text[..2], "zz"), ..sealed.clone() };
        assert!(key.open("k", &broken).is_err());
        assert_ne!(key.seal("k", &Hidden::new("hunter2")).unwrap(), sealed, "each is sealed by another nonce");
    }

    #[test]
    fn keys_are_long_and_not_shown() {
        assert!(Key::of("short").is_err());
        assert_eq!(format!("{:?}", Key::of(TEXT).unwrap()), "***");
    }
}
