//! The lease: who has a store to itself, where no lock on a file can say so.
//!
//! ```text
//! lease/00000000000000000042.json     who holds it, and for how long without a word
//! ```
//! The holder creates the next number before its time is over. Whoever else wants the store watches: where a next number
//! comes, the holder lives; where none comes for as long as the last one says, counted by the watcher's own clock
//! from when it saw that one, the watcher creates the next. A number is created once, so one of two that try is told. The holder
//! counts from before its write, and what it counts is shorter than what any watcher counts, whatever their clocks show.
//!
//! A number that comes late may fall on one that others have created and removed meanwhile. So who was late looks whether
//! its number is the last.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Store;
use super::scratch::Scratch;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};

const FOLDER: &str = "lease";
/// Numbers kept besides the last.
const KEPT: u64 = 8;
/// How long a holder may be silent. What another build says of itself is believed up to a minute.
pub const LENGTH: Duration = Duration::from_secs(6);
const LONGEST: Duration = Duration::from_secs(60);
/// How often a watcher looks.
const LOOK: Duration = Duration::from_millis(250);
/// How often others may come before.
const MOST_TRIES: usize = 8;

fn file(number: u64) -> String {
    format!("{number:020}.json")
}

fn path(number: u64) -> String {
    format!("{FOLDER}/{}", file(number))
}

/// What a number says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Term {
    /// A name that no other process has.
    holder: String,
    /// What people call it.
    place: String,
    /// How long it may be silent.
    milliseconds: u64,
    /// It holds the store no more.
    #[serde(default)]
    released: bool,
}

/// Whether the store is still held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// It is, as far as is known.
    Yes,
    /// Another process has it; what that one is called.
    TakenBy(String),
}

/// See the module's text.
#[derive(Debug)]
pub struct Lease {
    shared: Arc<Shared>,
    renewing: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    clock: Clock,
    term: Term,
    length: Duration,
    last: watch::Sender<(u64, Held)>,
}

impl Lease {
    /// Takes the store for the process called `name`, once whoever had it is silent for long enough, and keeps it.
    ///
    /// Errors with `Unavailable` while another process has it.
    pub async fn take(store: &Store, name: &str, length: Duration, clock: Clock) -> Result<Self> {
        let milliseconds = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let term = Term { holder: name.to_owned(), place: here(), milliseconds, released: false };
        for _ in 0..MOST_TRIES {
            let last = match last(store).await? {
                None => 0,
                Some((number, term)) => {
                    wait_until_free(store, number, &term, &clock).await?;
                    number
                }
            };
            let began = clock.now();
            match store.create_private(&path(last + 1), bytes(&term)?).await {
                Err(e) if e.kind() == ErrorKind::Exists => continue,
                created => created?,
            }
            if !store.is_last(FOLDER, &file(last + 1)).await? {
                continue;
            }
            let (last, _) = watch::channel((last + 1, Held::Yes));
            let shared = Arc::new(Shared { store: store.clone(), clock, term, length, last });
            let renewing = tokio::spawn(shared.clone().renew(began));
            return Ok(Lease { shared, renewing });
        }
        Err(Error::unavailable(format!("several processes try to open store \"{}\"", store.locate("")))
            .with_hint("Run one process per store."))
    }

    /// Whether the store is still held.
    pub fn held(&self) -> Held {
        self.shared.last.borrow().1.clone()
    }

    /// Gives it up, so that the next one need not wait. Where nothing was made of the store, `nothing_stays`.
    pub async fn release(&self, nothing_stays: bool) {
        self.renewing.abort();
        let Shared { store, term, last, length, .. } = &*self.shared;
        let (number, held) = last.borrow().clone();
        if held != Held::Yes {
            return;
        }
        let released = Term { released: true, ..term.clone() };
        let release = async {
            if nothing_stays && number < KEPT {
                return store.delete_folder(FOLDER).await;
            }
            store.create_private(&path(number + 1), bytes(&released)?).await
        };
        // Else the next one waits.
        let _ = tokio::time::timeout(*length, release).await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

impl Shared {
    async fn renew(self: Arc<Self>, mut renewed: Instant) {
        let third = self.length / 3;
        loop {
            self.clock.sleep_until(renewed + third).await;
            let began = self.clock.now();
            match tokio::time::timeout(self.length, self.renew_once(renewed)).await {
                Ok(Ok(Held::Yes)) => renewed = began,
                Ok(Ok(taken)) => {
                    tracing::error!(?taken, store = %self.store.locate(""), "another process has taken the store");
                    self.last.send_modify(|last| last.1 = taken);
                    return;
                }
                // The store says so itself; the next try is for the same number.
                Ok(Err(_)) | Err(_) => self.clock.sleep_until(began + third).await,
            }
        }
    }

    async fn renew_once(&self, renewed: Instant) -> Result<Held> {
        let number = self.last.borrow().0 + 1;
        let created = self.store.create_private(&path(number), bytes(&self.term)?).await;
        let is_late = self.clock.since(renewed) >= self.length;
        let mine = match created {
            Ok(()) => !is_late || self.store.is_last(FOLDER, &file(number)).await?,
            Err(e) if e.kind() == ErrorKind::Exists => false,
            Err(e) => return Err(e),
        };
        if !mine {
            let place = last(&self.store).await?.map(|(_, term)| term.place);
            return Ok(Held::TakenBy(place.unwrap_or_else(|| "another process".to_owned())));
        }
        self.last.send_modify(|last| last.0 = number);
        if number > KEPT {
            self.store.delete(&path(number - KEPT)).await?;
        }
        Ok(Held::Yes)
    }
}

fn bytes(term: &Term) -> Result<Bytes> {
    Ok(Bytes::from(serde_json::to_vec(term)?))
}

/// The last number and what it says.
async fn last(store: &Store) -> Result<Option<(u64, Term)>> {
    for _ in 0..MOST_TRIES {
        let names = store.list(FOLDER).await?;
        let Some(name) = names.last() else { return Ok(None) };
        let found = match store.get(&format!("{FOLDER}/{name}")).await {
            // There are later ones by now.
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            found => found?,
        };
        let place = || format!("lease \"{}\"", store.locate(&format!("{FOLDER}/{name}")));
        let term = serde_json::from_slice(&found).map_err(|e| Error::from(e).context(place()))?;
        let number = name.strip_suffix(".json").and_then(|number| number.parse().ok());
        return Ok(Some((number.ok_or_else(|| Error::data(format!("{}: no number", place())))?, term)));
    }
    Err(Error::unavailable(format!("the lease of store \"{}\" changes all the time", store.locate(""))))
}

/// Waits until `term`, of number `number`, is over.
async fn wait_until_free(store: &Store, number: u64, term: &Term, clock: &Clock) -> Result<()> {
    let seen = clock.now();
    if Scratch::was_left(&term.holder) || term.released {
        return Ok(());
    }
    let length = Duration::from_millis(term.milliseconds).min(LONGEST);
    while clock.since(seen) < length {
        let look = clock.now() + LOOK.min(length / 3);
        clock.sleep_until(look).await;
        match last(store).await? {
            Some((next, term)) if next > number && !term.released => return Err(in_use(store, &term)),
            Some((next, _)) if next == number => {}
            // Released, or cleared away.
            _ => return Ok(()),
        }
    }
    Ok(())
}

fn in_use(store: &Store, term: &Term) -> Error {
    let (place, url) = (&term.place, store.locate(""));
    Error::unavailable(format!("store \"{url}\" is open in another process: {place}"))
        .with_hint("End that process, use another --store, or connect to its server with millstream shell --connect.")
}

/// This process, for people.
fn here() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = match host.trim() {
        "" => "a host without a name",
        host => host,
    };
    format!("process {} on {host}", std::process::id())
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    const SHORT: Duration = Duration::from_millis(300);

    fn store() -> Store {
        Store::over(Arc::new(InMemory::new()))
    }

    async fn take(store: &Store, name: &str) -> Result<Lease> {
        Lease::take(store, name, SHORT, Clock::default()).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_has_it_until_it_is_released() {
        let store = store();
        let first = take(&store, "first").await.expect("is free");
        let refused = take(&store, "second").await.expect_err("is held");
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        assert!(refused.message().contains(&here()), "{refused}");
        // For longer than it may be silent.
        tokio::time::sleep(SHORT * 3).await;
        take(&store, "second").await.expect_err("is held");
        assert_eq!(first.held(), Held::Yes);
        first.release(false).await;
        let began = Instant::now();
        let second = take(&store, "second").await.expect("was released");
        assert!(began.elapsed() < SHORT, "nobody is waited for");
        assert!(store.list(FOLDER).await.expect("lists").len() <= KEPT as usize + 2);
        second.release(true).await;
        assert_eq!(store.list(FOLDER).await.expect("lists").is_empty(), second.shared.last.borrow().0 < KEPT);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_that_is_silent_loses_it_and_hears_of_it() {
        let store = store();
        let by_hand = Clock::by_hand();
        // Its clock stands, so it renews nothing.
        let first = Lease::take(&store, "first", SHORT, by_hand.clone()).await.expect("is free");
        let began = Instant::now();
        let second = take(&store, "second").await.expect("nobody is heard of");
        assert!(began.elapsed() >= SHORT);
        tokio::time::sleep(SHORT * 4).await;
        // Long after its number was created by others, and removed.
        for number in 0..5 {
            store.delete(&path(number)).await.expect("deletes");
        }
        by_hand.advance(SHORT);
        let mut last = first.shared.last.subscribe();
        let lost = last.wait_for(|last| last.1 != Held::Yes);
        tokio::time::timeout(Duration::from_secs(10), lost).await.expect("hears of it").expect("lives");
        assert_eq!(first.held(), Held::TakenBy(here()));
        assert_eq!(second.held(), Held::Yes);
        first.release(false).await;
        take(&store, "third").await.expect_err("the second has it");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_many_that_try_one_gets_it() {
        let store = store();
        let tries: Vec<_> = (0..8).map(|i| format!("process {i}")).collect();
        let tries = tries.iter().map(|name| take(&store, name));
        let taken: Vec<_> = futures::future::join_all(tries).await.into_iter().flatten().collect();
        assert_eq!(taken.len(), 1);
    }
}
