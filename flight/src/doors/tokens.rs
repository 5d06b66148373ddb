//! What clients have shown and need not prove again, for a while. What is kept is a keyed hash of it, so that the memory of
//! the process tells no token and no password.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use millstream_sql::{Error, Principal, Result};
use parking_lot::Mutex;
use ring::hmac;
use ring::rand::SystemRandom;

/// What tells a token from others, and does not tell what it is.
pub type Fingerprint = [u8; 32];

/// Things that stand for somebody until they expire.
pub(super) struct Shown {
    key: hmac::Key,
    /// How many are kept of one user, and of all.
    most: (usize, usize),
    entries: Mutex<HashMap<Fingerprint, Entry>>,
}

struct Entry {
    who: Principal,
    expires: Instant,
}

impl Shown {
    /// Keeps `most` of one user and of all. More of one user put out that user's oldest, so that nobody can put out others.
    pub(super) fn new(most: (usize, usize)) -> Result<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.map_err(|_| Error::internal("the system gives no random numbers"))?;
        Ok(Shown { key, most, entries: Mutex::default() })
    }

    /// From `now` on `text` stands for `who`, for `lifetime`.
    ///
    /// Errors when there is no room.
    pub(super) fn add(&self, text: &str, who: Principal, now: Instant, lifetime: Duration) -> Result<()> {
        let (mut entries, (of_one, of_all)) = (self.entries.lock(), self.most);
        entries.retain(|_, entry| entry.expires > now);
        let own: Vec<_> = entries.iter().filter(|(_, entry)| entry.who.is(&who)).collect();
        if own.len() >= of_one
            && let Some((oldest, _)) = own.iter().min_by_key(|(_, entry)| entry.expires)
        {
            let oldest = **oldest;
            entries.remove(&oldest);
        }
        if entries.len() >= of_all {
            return Err(Error::new(millstream_sql::ErrorKind::Exhausted, "too many are logged in")
                .with_hint("Try again later."));
        }
        entries.insert(self.digest(text), Entry { who, expires: now + lifetime });
        Ok(())
    }

    /// Who `text` stands for.
    pub(super) fn find(&self, text: &str, now: Instant) -> Option<Principal> {
        let digest = self.digest(text);
        let entries = self.entries.lock();
        entries.get(&digest).filter(|entry| entry.expires > now).map(|entry| entry.who.clone())
    }

    /// From now on it stands for nobody.
    pub(super) fn remove(&self, text: &str) {
        let digest = self.digest(text);
        self.entries.lock().remove(&digest);
    }

    pub(super) fn digest(&self, text: &str) -> Fingerprint {
        let mut digest = [0; 32];
        digest.copy_from_slice(hmac::sign(&self.key, text.as_bytes()).as_ref());
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_token_stands_for_who_got_it_until_it_expires() {
        let (shown, now) = (Shown::new((10, 10)).unwrap(), Instant::now());
        let who = Principal::anonymous("a");
        shown.add("token", who.clone(), now, HOUR).unwrap();
        assert_eq!(shown.find("token", now), Some(who));
        assert_eq!(shown.find("Token", now), None);
        assert_eq!(shown.find("token", now + HOUR), None);
        shown.remove("token");
        assert_eq!(shown.find("token", now), None);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (shown, now) = (Shown::new((2, 3)).unwrap(), Instant::now());
        for (i, token) in ["a", "b", "c"].into_iter().enumerate() {
            shown.add(token, Principal::anonymous("a"), now + Duration::from_secs(i as u64), HOUR).unwrap();
        }
        assert!(shown.find("a", now).is_none() && shown.find("b", now).is_some() && shown.find("c", now).is_some());
        shown.add("d", Principal::owner(), now, HOUR).unwrap();
        shown.add("e", Principal::owner(), now, HOUR).unwrap_err();
        assert!(shown.find("b", now).is_some());
        shown.add("f", Principal::owner(), now + 2 * HOUR, HOUR).unwrap();
    }
}
