//! Passwords: what is kept of them, and whether one is right. Both take tens of milliseconds and 19 MiB on purpose, so they
//! run where they hold nobody up ([`super::Throttle`] says how many at once).

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};

use super::hidden::Hidden;
use crate::error::{Error, Result};

/// The memory that a hash takes: argon2's `m`, in KiB.
pub(super) const HASH_BYTES: usize = 19_456 << 10;
/// The shortest password.
const LEAST: usize = 8;
/// The longest.
const MOST: usize = 1024;

/// A hash of no password that anybody has: who is not known is looked up against it, so that a login takes as long whether
/// or not there is such a user.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGhhcyB0aGlzIQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Refuses a password that is guessed too soon.
pub(crate) fn check_password(password: &Hidden) -> Result<()> {
    match password.reveal().chars().count() {
        LEAST..=MOST => Ok(()),
        ..LEAST => Err(Error::invalid(format!("the password has fewer than {LEAST} characters"))),
        _ => Err(Error::invalid(format!("the password has more than {MOST} characters"))),
    }
}

/// What is kept of a password.
pub(crate) fn hash_password(password: &Hidden) -> Result<Hidden> {
    let hash = Argon2::default().hash_password(password.reveal().as_bytes());
    Ok(Hidden::new(hash.map_err(|e| Error::internal(format!("the password cannot be hashed: {e}")))?.to_string()))
}

/// Whether `password` is the one that `hash` was made of; of none, it is not.
pub(crate) fn is_password(password: &Hidden, hash: Option<&Hidden>) -> bool {
    let expected = hash.map_or(NOBODY, Hidden::reveal);
    let long = password.reveal().len() > MOST * 4;
    let password = if long { "" } else { password.reveal() };
    let right = Argon2::default().verify_password(password.as_bytes(), expected).is_ok();
    right && hash.is_some() && !long
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::phc::PasswordHash;

    use super::*;

    #[test]
    fn a_password_is_right_or_wrong() {
        let right = Hidden::new("correct horse");
        let hash = hash_password(&right).unwrap();
        assert!(hash.reveal().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.reveal());
        assert!(is_password(&right, Some(&hash)));
        assert!(!is_password(&Hidden::new("correct horses"), Some(&hash)));
        assert!(!is_password(&Hidden::new(""), Some(&hash)));
        assert!(!is_password(&right, None));
        assert!(!is_password(&right, Some(&Hidden::new("not a hash"))));
        assert_ne!(hash_password(&right).unwrap(), hash, "each has its own salt");
    }

    #[test]
    fn who_is_not_known_takes_as_much_work() {
        assert!(PasswordHash::new(NOBODY).is_ok());
        let ours = hash_password(&Hidden::new("correct horse")).unwrap();
        let params = |hash: &str| hash.split('$').nth(3).map(str::to_owned);
        assert_eq!(params(NOBODY), params(ours.reveal()));
        assert_eq!(Argon2::default().params().m_cost() as usize * 1024, HASH_BYTES);
    }

    #[test]
    fn short_and_huge_passwords_are_refused() {
        assert!(check_password(&Hidden::new("1234567")).is_err());
        assert!(check_password(&Hidden::new("12345678")).is_ok());
        assert!(check_password(&Hidden::new("1".repeat(1025))).is_err());
    }
}
