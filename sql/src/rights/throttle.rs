//! Failed logins slow down: by user and by address, in bounded memory.
//!
//! After a few failures an address has to wait before it is listened to again, longer each time. A user's name is not shut
//! out that way, or anybody could shut out anybody: a login for it only takes longer to be answered.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_engine::memory::{Held, MemoryBudget};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::password::HASH_BYTES;
use crate::error::{Error, ErrorKind, Result};

/// Failures that cost nothing: people mistype.
const FREE: u32 = 3;
/// The wait after the first one that does; it doubles with each.
const FIRST: Duration = Duration::from_millis(500);
/// The longest that an address is not listened to.
const LONGEST: Duration = Duration::from_secs(60);
/// The longest that a login for a user takes longer.
const LONGEST_FOR_USER: Duration = Duration::from_secs(2);
/// Failures are forgotten after this.
const MEMORY: Duration = Duration::from_secs(15 * 60);
/// Users, and addresses, that are remembered.
const MOST: usize = 4096;
/// Passwords worked on at once: each takes [`HASH_BYTES`] and a core. While memory is short it is one.
const AT_ONCE: u32 = 4;
/// Logins that wait to be looked at.
const WAITING: usize = 256;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Throttle {
    failures: Mutex<Failures>,
    turns: Arc<Semaphore>,
    pub(crate) places: Semaphore,
}

#[derive(Debug, Default)]
struct Failures {
    addresses: HashMap<String, Failed>,
    users: HashMap<String, Failed>,
}

#[derive(Clone, Copy, Debug)]
struct Failed {
    times: u32,
    last: Instant,
}

impl Failed {
    /// How long it is to be waited since the last.
    fn wait(&self) -> Duration {
        match self.times.checked_sub(FREE) {
            None => Duration::ZERO,
            Some(more) => FIRST.saturating_mul(1_u32.checked_shl(more).unwrap_or(u32::MAX)).min(LONGEST),
        }
    }
}

impl Default for Throttle {
    fn default() -> Self {
        let (turns, places) = (Arc::new(Semaphore::new(AT_ONCE as usize)), Semaphore::new(WAITING));
        Throttle { failures: Mutex::default(), turns, places }
    }
}

/// The turn of one who works on a password.
pub(crate) struct Turn {
    // Given back before the next one may begin.
    _memory: Held,
    _permit: OwnedSemaphorePermit,
}

impl Turn {
    /// Does `work` where it holds nobody up. The turn lasts as long as that does, also when nobody waits for it any more.
    pub(crate) async fn spend<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(self);
            done
        });
        done.await.map_err(|e| Error::internal(format!("a password was not hashed: {e}")))
    }
}

impl Throttle {
    /// How long an attempt to be `user` from `address` waits before it is looked at.
    ///
    /// Errors when the address is not listened to yet.
    pub(crate) fn begin(&self, user: &str, address: &str, now: Instant) -> Result<Duration> {
        let failures = self.failures.lock();
        if let Some(failed) = failures.addresses.get(&network(address)) {
            let left = failed.wait().saturating_sub(now.saturating_duration_since(failed.last));
            if !left.is_zero() {
                return Err(Error::new(ErrorKind::Exhausted, "too many failed logins from this address")
                    .with_hint(format!("Try again in {} s.", left.as_secs() + 1)));
            }
        }
        let slow = failures.users.get(user).filter(|f| now.saturating_duration_since(f.last) < MEMORY);
        Ok(slow.map_or(Duration::ZERO, |failed| failed.wait().min(LONGEST_FOR_USER)))
    }

    /// Waits for a turn to work on a password, with memory of `budget`.
    pub(crate) async fn turn(&self, budget: &Arc<MemoryBudget>) -> Result<Turn> {
        let turns = if budget.pressed() { AT_ONCE } else { 1 };
        let permit = self.turns.clone().acquire_many_owned(turns).await;
        let permit = permit.map_err(|_| Error::internal("no passwords are worked on any more"))?;
        Ok(Turn { _permit: permit, _memory: budget.hold(HASH_BYTES) })
    }

    /// Notes how it ended.
    pub(crate) fn end(&self, user: &str, address: &str, right: bool, now: Instant) {
        let (mut failures, network) = (self.failures.lock(), network(address));
        if right {
            // Not the address: one login that is known would let it go on guessing another.
            failures.users.remove(user);
            return;
        }
        note(&mut failures.addresses, network, now);
        note(&mut failures.users, user.chars().take(64).collect(), now);
    }
}

fn note(all: &mut HashMap<String, Failed>, key: String, now: Instant) {
    let is_old = |failed: &Failed| now.saturating_duration_since(failed.last) >= MEMORY;
    if all.len() >= MOST && !all.contains_key(&key) {
        all.retain(|_, failed| !is_old(failed));
        // Who has failed least often loses least by being forgotten.
        let least = all.iter().min_by_key(|(_, failed)| (failed.times, failed.last)).map(|(key, _)| key.clone());
        if let (true, Some(least)) = (all.len() >= MOST, least) {
            all.remove(&least);
        }
    }
    let failed = all.entry(key).or_insert(Failed { times: 0, last: now });
    if is_old(failed) {
        failed.times = 0;
    }
    (failed.times, failed.last) = (failed.times.saturating_add(1), now);
}

/// What counts as one address: of IPv6 the network, of which a host has as many addresses as it likes.
fn network(address: &str) -> String {
    match address.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V6(ip)) => Ipv6Addr::from(u128::from(ip) & !u128::from(u64::MAX)).to_string(),
        Ok(ip) => ip.to_string(),
        Err(_) => address.chars().take(64).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_fails_waits_longer_and_longer() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        for _ in 0..3 {
            assert_eq!(throttle.begin("ann", "10.0.0.1", start).unwrap(), Duration::ZERO);
            throttle.end("ann", "10.0.0.1", false, start);
        }
        let refused = throttle.begin("bob", "10.0.0.1", start).unwrap_err();
        assert_eq!((refused.kind(), refused.hint()), (ErrorKind::Exhausted, Some("Try again in 1 s.")));
        assert!(throttle.begin("bob", "10.0.0.1", start + FIRST).is_ok());
        throttle.end("bob", "10.0.0.1", false, start + FIRST);
        assert!(throttle.begin("bob", "10.0.0.1", start + FIRST * 2).is_err());
        for _ in 0..40 {
            throttle.end("bob", "10.0.0.1", false, start);
        }
        assert!(throttle.begin("bob", "10.0.0.1", start + LONGEST - FIRST).is_err());
        assert!(throttle.begin("bob", "10.0.0.1", start + LONGEST).is_ok());
        assert!(throttle.begin("bob", "10.0.0.2", start).is_ok(), "others are not held up");
    }

    #[test]
    fn a_user_is_slowed_down_and_never_shut_out() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        for i in 0..100 {
            throttle.end("ann", &format!("10.0.0.{i}"), false, start);
        }
        assert_eq!(throttle.begin("ann", "10.9.9.9", start).unwrap(), LONGEST_FOR_USER);
        throttle.end("ann", "10.9.9.9", true, start);
        assert_eq!(throttle.begin("ann", "10.9.9.9", start).unwrap(), Duration::ZERO);
    }

    #[tokio::test]
    async fn turns_are_few_and_count_in_the_budget() {
        let (throttle, budget) = (Throttle::default(), MemoryBudget::new(1 << 30));
        let mut turns = vec![];
        for _ in 0..AT_ONCE {
            turns.push(throttle.turn(&budget).await.unwrap());
        }
        assert_eq!(budget.used(), AT_ONCE as usize * HASH_BYTES);
        let soon = Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, throttle.turn(&budget)).await.is_err(), "one too many");
        // One who is not waited for any more holds its turn until the work is done.
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let spent = turns.pop().unwrap().spend(move || wait.recv().is_ok());
        assert!(tokio::time::timeout(soon, spent).await.is_err());
        assert!(tokio::time::timeout(soon, throttle.turn(&budget)).await.is_err());
        go.send(()).unwrap();
        turns.push(throttle.turn(&budget).await.unwrap());
        turns.clear();
        assert_eq!(budget.used(), 0);
        budget.take(1 << 30);
        let _only = throttle.turn(&budget).await.unwrap();
        assert!(tokio::time::timeout(soon, throttle.turn(&budget)).await.is_err(), "one while memory is short");
    }

    #[test]
    fn addresses_of_one_network_are_one() {
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:10.0.0.1"), "10.0.0.1");
    }

    #[test]
    fn memory_is_bounded_and_keeps_the_worst() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        for _ in 0..10 {
            throttle.end("ann", "192.0.2.1", false, start);
        }
        for i in 0..2 * MOST {
            throttle.end(&format!("u{i}"), &format!("10.{}.{}.1", i / 256, i % 256), false, start);
        }
        let failures = throttle.failures.lock();
        assert!(failures.addresses.len() <= MOST && failures.users.len() <= MOST);
        assert!(failures.addresses.contains_key("192.0.2.1"));
    }
}
