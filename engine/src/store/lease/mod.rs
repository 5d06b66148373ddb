//! The lease: who has a store to itself, where processes on many machines may want it.
//!
//! ```text
//! lease/00000000000000000042.json     who holds it, and for how long without a word
//! ```
//! The holder creates the next number before its time is over. Whoever else wants the store watches (`candidate.rs`): where a next
//! number comes, the holder lives; where none comes for as long as the last one says, counted by the watcher's own clock
//! from when it saw that one, the watcher creates the next. A number is created once, so one of two that try is told. The holder
//! counts from before its write, and what it counts is shorter than what any watcher counts, whatever their clocks show.
//!
//! A number that comes late may fall on one that others have created and removed meanwhile. So who was late looks whether
//! its number is the last, and writes nothing before that (`fence.rs`).
//!
//! In a folder the holder also has the lock of a file (`lock.rs`), by which others in the same system see at once that it has ended.

mod candidate;
mod fence;
mod lock;
mod term;

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use candidate::{Candidate, Found};
pub(super) use fence::Fence;
pub use lock::{LOCK, lock};
pub use term::{NodeTerm, Term};

use super::Store;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use term::{bytes, file, last, path};

const FOLDER: &str = "lease";
/// Numbers kept besides the last.
const KEPT: u64 = 8;
/// How long a holder may be silent. What another build says of itself is believed up to a minute.
pub const LENGTH: Duration = Duration::from_secs(6);
const LONGEST: Duration = Duration::from_secs(60);
/// How often others may come before.
const MOST_TRIES: usize = 8;

/// Whether the store is still held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// It is, as far as is known.
    Yes,
    /// Another process has it; what that one is called.
    TakenBy(String),
    /// It could not be renewed in time, while others were there who may have taken it.
    Resigned,
}

/// How a holder stands.
#[derive(Clone, Debug)]
struct Standing {
    /// The last number of its own.
    number: u64,
    /// When its time is over, by its own clock.
    over: Instant,
    held: Held,
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
    term: Mutex<Term>,
    length: Duration,
    standing: watch::Sender<Standing>,
    /// Whether others watch, of whom one may take over.
    watched: AtomicBool,
    lock: Mutex<Option<File>>,
}

impl Lease {
    /// Takes the store for the process called `name`, once whoever had it is silent for long enough, and keeps it.
    ///
    /// Errors with `Unavailable` while another process has it.
    pub async fn take(store: &Store, name: &str, length: Duration, clock: Clock) -> Result<Self> {
        let mut candidate = Candidate::new(store, name, None, length, clock);
        for _ in 0..MOST_TRIES {
            let number = loop {
                match candidate.look().await? {
                    Found::Free(number) => break number,
                    Found::Held { term, lives: true } => return Err(in_use(store, Some(&term))),
                    Found::Locked => return Err(in_use(store, None)),
                    Found::Held { lives: false, .. } => candidate.pause().await,
                }
            };
            if let Some(lease) = candidate.take(number).await? {
                return Ok(lease);
            }
        }
        Err(Error::unavailable(format!("several processes try to open store \"{}\"", store.locate("")))
            .with_hint("Serve it with millstream serve from all of them, or run one process."))
    }

    fn begin(
        store: Store,
        clock: Clock,
        term: Term,
        length: Duration,
        number: u64,
        began: Instant,
        lock: Option<File>,
    ) -> Self {
        let (standing, _) = watch::channel(Standing { number, over: began + length, held: Held::Yes });
        let (term, watched, lock) = (Mutex::new(term), AtomicBool::new(false), Mutex::new(lock));
        let shared = Arc::new(Shared { store, clock, term, length, standing, watched, lock });
        let renewing = tokio::spawn(shared.clone().renew());
        Lease { shared, renewing }
    }

    /// Whether the store is still held.
    pub fn held(&self) -> Held {
        self.shared.standing.borrow().held.clone()
    }

    /// Completes when it is not held any more.
    pub async fn lost(&self) -> Held {
        let mut standing = self.shared.standing.subscribe();
        // The sender lives as long as this.
        standing.wait_for(|standing| standing.held != Held::Yes).await.map_or(Held::Resigned, |s| s.held.clone())
    }

    /// The store, in which nothing is written from here on unless this is held.
    pub fn fenced(&self) -> Store {
        let fence = Fence { clock: self.shared.clock.clone(), standing: self.shared.standing.subscribe() };
        Store { fence: Some(fence), ..self.shared.store.clone() }
    }

    /// Whether others watch. Then who cannot renew it in time gives it up; else nobody is there who would go on.
    pub fn set_watched(&self, watched: bool) {
        self.shared.watched.store(watched, Ordering::Relaxed);
    }

    /// Tells others from the next number on that this certificate is shown.
    pub fn set_certificate(&self, certificate: Option<String>) {
        if let Some(node) = &mut self.shared.term.lock().node {
            node.certificate = certificate;
        }
    }

    /// Gives it up, so that the next one need not wait. Where nothing was made of the store, `nothing_stays`.
    pub async fn release(&self, nothing_stays: bool) {
        self.renewing.abort();
        let Shared { store, term, standing, length, lock, .. } = &*self.shared;
        let Standing { number, held, .. } = standing.borrow().clone();
        let lock = lock.lock().take();
        if held != Held::Yes {
            return;
        }
        standing.send_modify(|standing| standing.held = Held::Resigned);
        let released = Term { released: true, ..term.lock().clone() };
        let release = async {
            if nothing_stays && number < KEPT {
                return store.delete_folder(FOLDER).await;
            }
            store.create_fleeting(&path(number + 1), bytes(&released)?).await
        };
        // Else the next one waits.
        let _ = tokio::time::timeout(*length, release).await;
        drop(lock);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

impl Shared {
    async fn renew(self: Arc<Self>) {
        let third = self.length / 3;
        let mut next = self.standing.borrow().over - self.length + third;
        loop {
            self.clock.sleep_until(next).await;
            let began = self.clock.now();
            let renewed = tokio::select! {
                biased;
                () = self.is_over() => Ok(Ok(Held::Resigned)),
                renewed = tokio::time::timeout(self.length, self.renew_once(began)) => renewed,
            };
            match renewed {
                Ok(Ok(Held::Yes)) => next = began + third,
                Ok(Ok(lost)) => {
                    tracing::error!(?lost, store = %self.store.locate(""), "the store is not this process's any more");
                    self.standing.send_modify(|standing| standing.held = lost);
                    *self.lock.lock() = None;
                    return;
                }
                // The store says so itself; the next try is for the same number.
                Ok(Err(_)) | Err(_) => next = began + third,
            }
        }
    }

    /// Completes when its time is over while others watch.
    async fn is_over(&self) {
        let over = self.standing.borrow().over;
        self.clock.sleep_until(over).await;
        if !self.watched.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    }

    async fn renew_once(&self, began: Instant) -> Result<Held> {
        self.lock_again()?;
        let Standing { number, over, .. } = self.standing.borrow().clone();
        let number = number + 1;
        let term = bytes(&self.term.lock().clone())?;
        let created = self.store.create_fleeting(&path(number), term).await;
        let is_late = self.clock.now() >= over;
        let mine = match created {
            Ok(()) => !is_late || self.store.is_last(FOLDER, &file(number)).await?,
            Err(e) if e.kind() == ErrorKind::Exists => false,
            Err(e) => return Err(e),
        };
        if !mine {
            let who = last(&self.store).await?.map(|(_, term)| term.who());
            return Ok(Held::TakenBy(who.unwrap_or_else(|| "another process".to_owned())));
        }
        let over = began + self.length;
        self.standing.send_modify(|standing| (standing.number, standing.over) = (number, over));
        if number > KEPT {
            self.store.delete(&path(number - KEPT)).await?;
        }
        Ok(Held::Yes)
    }

    /// Who took over from one that stands still gets the lock of a folder once that one has ended.
    fn lock_again(&self) -> Result<()> {
        let Some(root) = self.store.root() else { return Ok(()) };
        let mut own = self.lock.lock();
        if own.is_none() {
            *own = lock(root)?;
            self.term.lock().locked = own.is_some();
        }
        Ok(())
    }
}

/// Checks that no process leads in a folder that this one has just locked.
///
/// Errors with `Unavailable` while one does.
pub async fn check_alone(store: &Store, lock: File, name: &str, clock: Clock) -> Result<File> {
    let mut candidate = Candidate::new(store, name, None, LENGTH, clock).with_lock(lock);
    loop {
        match candidate.look().await? {
            Found::Held { term, lives: true } => return Err(in_use(store, Some(&term))),
            Found::Held { lives: false, .. } | Found::Locked => candidate.pause().await,
            Found::Free(number) => return candidate.close(number).await,
        }
    }
}

/// That another process has `store`: the one that the last number of the lease is of, if that one still holds it.
pub async fn taken(store: &Store) -> Error {
    let term = last(store).await.ok().flatten().map(|(_, term)| term).filter(|term| !term.released);
    in_use(store, term.as_ref())
}

/// That `store` is open elsewhere, in the process that `term` is of where that is known.
pub fn in_use(store: &Store, term: Option<&Term>) -> Error {
    let place = term.map(|term| format!(": {}", term.place)).unwrap_or_default();
    let hint = match term.and_then(|term| term.node.as_ref()) {
        Some(NodeTerm { address, certificate, .. }) => {
            let scheme = if certificate.is_some() { "grpc+tls" } else { "grpc" };
            format!(
                "Connect to the node that leads, or to any other: millstream shell --connect {scheme}://{address}. Or serve the \
                 store from here as well: millstream serve."
            )
        }
        None => "End that process, use another --store, or connect to its server with millstream shell --connect."
            .to_owned(),
    };
    Error::unavailable(format!("store \"{}\" is open in another process{place}", store.locate(""))).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
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
        assert!(refused.message().contains(&term::here()), "{refused}");
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
        assert_eq!(store.list(FOLDER).await.expect("lists").is_empty(), second.shared.standing.borrow().number < KEPT);
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
        tokio::time::timeout(Duration::from_secs(10), first.lost()).await.expect("hears of it");
        assert_eq!(first.held(), Held::TakenBy(term::here()));
        assert_eq!(second.held(), Held::Yes);
        first.release(false).await;
        take(&store, "third").await.expect_err("the second has it");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_is_late_writes_nothing_before_it_knows() {
        for watched in [false, true] {
            let (store, by_hand) = (store(), Clock::by_hand());
            let lease = Lease::take(&store, "first", SHORT, by_hand.clone()).await.expect("is free");
            lease.set_watched(watched);
            let fenced = lease.fenced();
            fenced.put("a", Bytes::from_static(b"1")).await.expect("is held");
            by_hand.advance(SHORT * 2);
            let written = fenced.put("a", Bytes::from_static(b"2")).await;
            if watched {
                assert_eq!(lease.lost().await, Held::Resigned, "another may have it");
                assert_eq!(written.expect_err("is lost").kind(), ErrorKind::Fenced);
                assert_eq!(store.get("a").await.expect("is there"), "1");
            } else {
                written.expect("it was renewed first");
                assert_eq!((lease.held(), lease.shared.standing.borrow().number), (Held::Yes, 2));
            }
            lease.release(false).await;
            let e = fenced.put("a", Bytes::from_static(b"3")).await.expect_err("was given up");
            assert_eq!(e.kind(), ErrorKind::Fenced);
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test(flavor = "multi_thread")]
    async fn in_a_folder_the_lock_says_that_a_holder_has_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("opens");
        let long = Duration::from_secs(60);
        let node = NodeTerm {
            address: "a:1".to_owned(),
            version: "1".to_owned(),
            timeout_milliseconds: 60_000,
            certificate: None,
        };
        let candidate = |name| Candidate::new(&store, name, Some(node.clone()), long, Clock::default());
        let (mut first, mut second) = (candidate("first"), candidate("second"));
        let Found::Free(number) = first.look().await.expect("looks") else { panic!("it is free") };
        let lease = first.take(number).await.expect("takes").expect("nobody else tries");
        for _ in 0..2 {
            let found = second.look().await.expect("looks");
            assert!(matches!(found, Found::Held { term, lives: false } if term.node.as_ref() == Some(&node)));
        }
        assert!(lock(folder.path()).expect("looks").is_none());
        assert!(taken(&store).await.hint().is_some_and(|hint| hint.contains("--connect grpc://a:1")));
        // As a process that is killed: without a word.
        drop(lease);
        let free = async {
            while second.look().await.expect("looks") != Found::Free(1) {
                second.pause().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), free).await.expect("it is not waited for");
        drop(second);
        let file = lock(folder.path()).expect("looks").expect("is free");
        let file = check_alone(&store, file, "alone", Clock::default()).await.expect("nobody leads");
        // So others do not take the lock for the one of the process that has ended.
        assert_eq!(candidate("third").look().await.expect("looks"), Found::Locked);
        drop(file);
        assert_eq!(candidate("third").look().await.expect("looks"), Found::Free(2));
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
