//! `millstream.audit`: who has changed what, who has logged in, and who was refused what.
//!
//! Events wait in memory for at most a second, or for as long as their statement takes, and are written as lines of JSON,
//! a file at a time: `audit/<number>.json`. When there are many files they become one, `audit/<number>-all.json`, which has
//! in it all up to that number; what is old goes then. Statements are kept without their secrets.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use millstream_engine::store::Store;
use millstream_engine::time::now;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::{Millstream, Session};
use crate::error::{Error, ErrorKind, Result};
use crate::rights::Principal;
use crate::statement::{Parsed, Statement, cut_secrets};

const FOLDER: &str = "audit";
const ALL: &str = "-all";
/// Events that wait to be written. More of them at once are counted only.
const WAITING: usize = 4096;
/// The longest that they wait.
const PAUSE: Duration = Duration::from_secs(1);
/// Files that are made one.
const FILES: usize = 64;
/// Events kept of what was done, and as many of what was refused or of logins: a flood of the one leaves the other.
const KEPT: usize = 10_000;
/// The most characters that are kept of a statement or a reason.
const LONGEST: usize = 1000;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Event {
    /// When, in microseconds since 1970.
    pub(super) at: i64,
    /// The user; none for the owner of the store, and for nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
    /// Where it came from; none for this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<String>,
    /// `statement` or `login`.
    pub(super) action: String,
    /// The statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) statement: Option<String>,
    pub(super) allowed: bool,
    /// Why it was refused, or has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    /// How often, one after the other.
    pub(super) times: u64,
}

impl Event {
    fn of(who: &Principal, action: &str, allowed: bool, reason: Option<&str>) -> Self {
        Event {
            at: now(),
            user: who.user_name().map(short),
            address: who.address().map(short),
            action: action.to_owned(),
            statement: None,
            allowed,
            reason: reason.map(short),
            times: 1,
        }
    }

    fn is_like(&self, other: &Event) -> bool {
        Event { at: other.at, times: other.times, ..self.clone() } == *other
    }
}

fn short(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

/// See the module's text.
pub(super) struct Audit {
    store: Store,
    waiting: Mutex<Waiting>,
    /// That there are some.
    news: Notify,
    /// One writes at a time; the number of the next file, once it is known.
    next: tokio::sync::Mutex<Option<u64>>,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<Event>,
    beyond: u64,
}

impl Audit {
    /// Keeps what happens to `store`, and writes it on `io`.
    pub(super) fn begin(store: Store, io: &tokio::runtime::Handle) -> Arc<Self> {
        let audit =
            Audit { store, waiting: Mutex::default(), news: Notify::new(), next: tokio::sync::Mutex::default() };
        let audit = Arc::new(audit);
        io.spawn(write_on(Arc::downgrade(&audit)));
        audit
    }

    fn note(&self, event: Event) {
        let mut waiting = self.waiting.lock();
        let is_full = waiting.events.len() >= WAITING;
        match waiting.events.back_mut() {
            Some(last) if last.is_like(&event) => last.times += 1,
            _ if is_full => waiting.beyond += 1,
            _ => waiting.events.push_back(event),
        }
        drop(waiting);
        self.news.notify_one();
    }

    /// Writes what waits. What cannot be written waits on.
    pub(super) async fn settle(&self) -> Result<()> {
        let mut next = self.next.lock().await;
        let events: Vec<Event> = {
            let mut waiting = self.waiting.lock();
            if waiting.beyond > 0 {
                let reason = format!("{} more at the same time are not kept", waiting.beyond);
                let event = Event::of(&Principal::owner(), "statement", false, Some(&reason));
                waiting.events.push_back(event);
                waiting.beyond = 0;
            }
            waiting.events.drain(..).collect()
        };
        if events.is_empty() {
            return Ok(());
        }
        let written = self.write(&events, &mut next).await;
        if written.is_err() {
            let mut waiting = self.waiting.lock();
            events.into_iter().rev().for_each(|event| waiting.events.push_front(event));
        }
        written
    }

    async fn write(&self, events: &[Event], next: &mut Option<u64>) -> Result<()> {
        let files = self.files().await?;
        let number = next.unwrap_or_else(|| files.last().map_or(1, |last| number(last) + 1));
        self.store.create_private(&format!("{FOLDER}/{number:020}.json"), lines(events)).await?;
        *next = Some(number + 1);
        if files.len() >= FILES {
            let all = kept(self.read().await?);
            self.store.create_private(&format!("{FOLDER}/{number:020}{ALL}.json"), lines(&all)).await?;
            for file in self.store.list(FOLDER).await?.iter().filter(|file| is_in(file, number)) {
                self.store.delete(&format!("{FOLDER}/{file}")).await?;
            }
        }
        Ok(())
    }

    /// The files that count, the oldest first.
    async fn files(&self) -> Result<Vec<String>> {
        let mut files = self.store.list(FOLDER).await?;
        files.retain(|file| file.ends_with(".json"));
        let all = files.iter().filter(|file| file.contains(ALL)).map(|file| number(file)).max().unwrap_or(0);
        files.retain(|file| !is_in(file, all));
        files.sort_by_key(|file| (number(file), !file.contains(ALL)));
        Ok(files)
    }

    /// What was written, the oldest first.
    pub(super) async fn read(&self) -> Result<Vec<Event>> {
        let mut events = vec![];
        for file in self.files().await? {
            let bytes = match self.store.get(&format!("{FOLDER}/{file}")).await {
                // It has become a part of another.
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                bytes => bytes?,
            };
            let read = bytes.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice::<Event>(line).ok());
            events.extend(read);
        }
        Ok(events)
    }
}

/// Whether what `file` has in it is in that of all up to `all`.
fn is_in(file: &str, all: u64) -> bool {
    number(file) < all || (number(file) == all && !file.contains(ALL))
}

fn number(file: &str) -> u64 {
    file.get(..20).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

fn lines(events: &[Event]) -> Bytes {
    let mut text = String::new();
    for event in events {
        // A plain struct of text always has a form.
        text.push_str(&serde_json::to_string(event).unwrap_or_default());
        text.push('\n');
    }
    text.into()
}

/// The last ones of what was done, and of the others.
fn kept(events: Vec<Event>) -> Vec<Event> {
    let is_done = |event: &Event| event.allowed && event.action == "statement";
    let (mut done, mut others) = (0, 0);
    let mut kept: Vec<Event> = events
        .into_iter()
        .rev()
        .filter(|event| {
            let count = if is_done(event) { &mut done } else { &mut others };
            *count += 1;
            *count <= KEPT
        })
        .collect();
    kept.reverse();
    kept
}

async fn write_on(audit: Weak<Audit>) {
    loop {
        let Some(now) = audit.upgrade() else { return };
        // Looked at now and then, so that it ends with the store.
        let _ = tokio::time::timeout(PAUSE, now.news.notified()).await;
        drop(now);
        tokio::time::sleep(PAUSE).await;
        let Some(now) = audit.upgrade() else { return };
        if let Err(e) = now.settle().await {
            tracing::warn!(error = %e, "the audit cannot be written");
        }
    }
}

impl Millstream {
    /// Notes a login, or an attempt at one.
    pub fn note_login(&self, user: Option<&str>, address: &str, refused: Option<&str>) {
        let mut event = Event::of(&Principal::anonymous(address), "login", refused.is_none(), refused);
        event.user = user.map(short);
        self.audit.note(event);
    }
}

impl Session {
    /// Notes that `parsed` was done, or has failed, if it is a change or was refused. The owner's in a store without users are nobody's business.
    pub(super) async fn note(&self, parsed: &Parsed, failed: Option<&Error>) {
        let refused = failed.filter(|e| e.kind() == ErrorKind::Denied);
        let is_change = changes(&parsed.statement);
        let is_watched = self.who.is_remote() || !self.millstream.access().is_open();
        if !is_watched || (!is_change && refused.is_none()) {
            return;
        }
        let reason = failed.map(Error::message);
        self.note_text(&parsed.text, refused.is_none(), reason);
        if is_change && let Err(e) = self.millstream.audit.settle().await {
            tracing::warn!(error = %e, "the audit cannot be written");
        }
    }

    /// Notes what was done or refused.
    pub(super) fn note_text(&self, text: &str, allowed: bool, reason: Option<&str>) {
        let mut event = Event::of(&self.who, "statement", allowed, reason);
        event.statement = Some(short(&cut_secrets(text)));
        self.millstream.audit.note(event);
    }
}

/// Whether a statement changes what there is, or who may do what.
fn changes(statement: &Statement) -> bool {
    use crate::statement::AccessStatement::{ShowGrants, ShowSecrets, ShowUsers};
    match statement {
        Statement::CreateStream(_)
        | Statement::CreateView(_)
        | Statement::Drop(_)
        | Statement::Pause(_)
        | Statement::Resume(_)
        | Statement::DrainNode(_)
        | Statement::CopyTo(_) => true,
        Statement::Set { name, .. } => name == "memory_limit",
        Statement::Reset(name) => name.as_deref() == Some("memory_limit"),
        Statement::Access(access) => !matches!(access, ShowGrants | ShowSecrets | ShowUsers),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(statement: &str, allowed: bool) -> Event {
        let mut event = Event::of(&Principal::anonymous("10.0.0.1"), "statement", allowed, None);
        event.statement = Some(statement.to_owned());
        event
    }

    async fn names(audit: &Audit) -> Vec<String> {
        audit.read().await.unwrap().into_iter().filter_map(|event| event.statement).collect()
    }

    #[tokio::test]
    async fn events_are_kept_in_order_and_files_become_one() {
        let folder = tempfile::tempdir().unwrap();
        let open = || {
            let store = Store::open(folder.path()).unwrap();
            let (waiting, news, next) = (Mutex::default(), Notify::new(), tokio::sync::Mutex::default());
            Audit { store, waiting, news, next }
        };
        let audit = open();
        audit.settle().await.unwrap();
        assert!(audit.store.list(FOLDER).await.unwrap().is_empty(), "nothing is no file");
        for i in 0..FILES + 10 {
            audit.note(event(&format!("s{i}"), true));
            audit.settle().await.unwrap();
        }
        let audit = open();
        audit.note(event("last", true));
        audit.settle().await.unwrap();
        assert!(audit.store.list(FOLDER).await.unwrap().len() < FILES);
        let expected: Vec<String> = (0..FILES + 10).map(|i| format!("s{i}")).chain(["last".to_owned()]).collect();
        assert_eq!(names(&audit).await, expected);
    }

    #[tokio::test]
    async fn what_was_left_by_a_crash_counts_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let audit =
            Audit { store: store.clone(), waiting: Mutex::default(), news: Notify::new(), next: Default::default() };
        for (file, statements) in [("1", vec!["a"]), ("2", vec!["b"]), ("2-all", vec!["a", "b"]), ("3", vec!["c"])] {
            let (number, rest) = file.split_at(1);
            let events: Vec<Event> = statements.iter().map(|s| event(s, true)).collect();
            store.create(&format!("{FOLDER}/{number:0>20}{rest}.json"), lines(&events)).await.unwrap();
        }
        assert_eq!(names(&audit).await, ["a", "b", "c"]);
        audit.note(event("d", true));
        audit.settle().await.unwrap();
        assert_eq!(names(&audit).await, ["a", "b", "c", "d"]);
    }

    #[test]
    fn a_flood_is_counted_and_leaves_what_was_done() {
        let mut events = vec![event("done", true)];
        events.extend((0..KEPT + 5).map(|i| event(&format!("refused {i}"), false)));
        let kept = kept(events);
        assert_eq!(kept.len(), KEPT + 1);
        assert_eq!(kept[0].statement.as_deref(), Some("done"));
        assert_eq!(kept[1].statement.as_deref(), Some("refused 5"));
        assert!(event("a", true).is_like(&event("a", true)) && !event("a", true).is_like(&event("a", false)));
    }
}
