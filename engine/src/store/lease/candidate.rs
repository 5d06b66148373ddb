//! Who wants the store and watches until it is free.

use std::fs::File;
use std::time::{Duration, Instant};

use super::lock::lock;
use super::term::{bytes, file, here, kernel, last, path};
use super::{FOLDER, LONGEST, Lease, NodeTerm, Term};
use crate::clock::Clock;
use crate::error::{ErrorKind, Result};
use crate::store::Store;
use crate::store::scratch::Scratch;

/// How often it is looked, at most and at least: an eighth of the time that the holder may be silent.
const LOOKS: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(500));
/// How often a folder is looked at: that costs little.
const FOLDER_LOOK: Duration = Duration::from_millis(50);

/// See the module's text.
#[derive(Debug)]
pub struct Candidate {
    store: Store,
    name: String,
    node: Option<NodeTerm>,
    length: Duration,
    clock: Clock,
    seen: Option<Seen>,
    /// The lock of a folder, from when it was found free.
    lock: Option<File>,
}

/// The last number, since it was seen first.
#[derive(Debug)]
struct Seen {
    number: u64,
    at: Instant,
    /// Whether it has come while it was watched: its holder lives.
    fresh: bool,
}

/// What a look has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nobody has it: it may be taken with the number behind this one.
    Free(u64),
    /// Somebody has it, as far as is known; `lives` once that one was heard of meanwhile.
    Held {
        /// What it says.
        term: Box<Term>,
        /// Whether it was heard of.
        lives: bool,
    },
    /// The folder is locked by a process that holds no lease.
    Locked,
}

impl Candidate {
    /// The process called `name` wants `store` for itself, and then may be silent for `length`; as `node`, if it is one.
    pub fn new(store: &Store, name: &str, node: Option<NodeTerm>, length: Duration, clock: Clock) -> Self {
        Candidate { store: store.clone(), name: name.to_owned(), node, length, clock, seen: None, lock: None }
    }

    /// With the lock of a folder, which it has already.
    pub(super) fn with_lock(mut self, lock: File) -> Self {
        self.lock = Some(lock);
        self
    }

    /// Says of a lease whose holder has ended that it is over, where nobody has said so, and gives the lock.
    pub(super) async fn close(self, number: u64) -> Result<File> {
        let Candidate { store, name, lock, seen, .. } = self;
        if seen.is_some() {
            let term = Term {
                holder: name,
                place: here(),
                milliseconds: 0,
                released: true,
                kernel: None,
                locked: false,
                node: None,
            };
            match store.create_fleeting(&path(number + 1), bytes(&term)?).await {
                Err(e) if e.kind() == ErrorKind::Exists => return Err(super::taken(&store).await),
                created => created?,
            }
        }
        lock.ok_or_else(|| crate::error::Error::internal("the lock of a folder was lost"))
    }

    /// Says otherwise from here on what it is and how long it may be silent.
    pub fn restate(&mut self, node: NodeTerm, length: Duration) {
        (self.node, self.length) = (Some(node), length);
    }

    /// Looks once.
    pub async fn look(&mut self) -> Result<Found> {
        let last = last(&self.store).await?;
        // Counted from behind the look: what it found was there before.
        let now = self.clock.now();
        let Some((number, term)) = last else { return self.unless_locked(0) };
        let fresh = match &self.seen {
            Some(seen) if seen.number == number => seen.fresh,
            seen => {
                let fresh = seen.as_ref().is_some_and(|seen| number > seen.number);
                self.seen = Some(Seen { number, at: now, fresh });
                fresh
            }
        };
        if term.released {
            return self.unless_locked(number);
        }
        let since = self.seen.as_ref().map_or(now, |seen| seen.at);
        let length = Duration::from_millis(term.milliseconds).min(LONGEST);
        // A number of its own that it does not count any more binds nobody.
        if term.holder == self.name || self.has_gone(&term)? || self.clock.since(since) >= length {
            return Ok(Found::Free(number));
        }
        Ok(Found::Held { term: Box::new(term), lives: fresh })
    }

    /// Takes it with the number behind `number`. `None`: somebody was quicker.
    pub async fn take(&mut self, number: u64) -> Result<Option<Lease>> {
        self.try_lock()?;
        let milliseconds = u64::try_from(self.length.as_millis()).unwrap_or(u64::MAX);
        let term = Term {
            holder: self.name.clone(),
            place: here(),
            milliseconds,
            released: false,
            kernel: kernel(),
            locked: self.lock.is_some(),
            node: self.node.clone(),
        };
        let (began, next) = (self.clock.now(), number + 1);
        let created = self.store.create_fleeting(&path(next), bytes(&term)?).await;
        match created {
            Ok(()) if self.store.is_last(FOLDER, &file(next)).await? => {}
            Err(e) if e.kind() != ErrorKind::Exists => return Err(e),
            _ => {
                self.lock = None;
                return Ok(None);
            }
        }
        self.seen = None;
        let lock = self.lock.take();
        Ok(Some(Lease::begin(self.store.clone(), self.clock.clone(), term, self.length, next, began, lock)))
    }

    /// Waits until it is time to look again.
    pub async fn pause(&self) {
        let look = match self.store.root() {
            Some(_) => FOLDER_LOOK,
            None => (self.length / 8).clamp(LOOKS.0, LOOKS.1),
        };
        self.clock.sleep_until(self.clock.now() + look).await;
    }

    /// Whether the holder has ended on this machine without a word.
    fn has_gone(&mut self, term: &Term) -> Result<bool> {
        if self.store.root().is_none() {
            return Ok(Scratch::was_left(&term.holder));
        }
        if !term.locked || term.kernel.is_none() || term.kernel != kernel() {
            return Ok(false);
        }
        self.try_lock()
    }

    /// Nobody holds the lease behind `number`.
    fn unless_locked(&mut self, number: u64) -> Result<Found> {
        let is_free = self.try_lock()? || self.store.root().is_none();
        Ok(if is_free { Found::Free(number) } else { Found::Locked })
    }

    /// Whether it has the lock of the folder, which it takes where nobody has it.
    fn try_lock(&mut self) -> Result<bool> {
        if self.lock.is_none()
            && let Some(root) = self.store.root()
        {
            self.lock = lock(root)?;
        }
        Ok(self.lock.is_some())
    }
}
