//! Which session a request works in: that of its bearer token or `x-millstream-session` header, else that of its
//! connection.

use std::collections::HashMap;
use std::sync::Arc;

use millstream_engine::token::token;
use millstream_sql::{Millstream, Session};
use parking_lot::Mutex;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status};

use super::Login;
use super::connection::ConnectionSession;
use crate::base64::basic_authorization;

const AUTHORIZATION: &str = "authorization";
const SESSION_HEADER: &str = "x-millstream-session";
const BEARER: &str = "Bearer ";

/// Sessions kept by token or header. The one unused for longest goes when there are more, so that clients that
/// never close theirs cannot fill the memory.
const MOST_SESSIONS: usize = 1024;

/// The sessions of a server.
pub(crate) struct Sessions {
    millstream: Arc<Millstream>,
    /// The `authorization` header of the one user, where a login is needed.
    login: Option<String>,
    named: Mutex<Named>,
}

#[derive(Default)]
struct Named {
    sessions: HashMap<String, Entry>,
    /// Counts uses, to know which session was used last.
    uses: u64,
}

struct Entry {
    session: Arc<Session>,
    used: u64,
}

impl Sessions {
    pub(crate) fn new(millstream: Arc<Millstream>, login: Option<Login>) -> Self {
        let login = login.map(|l| basic_authorization(&l.user, &l.password));
        Sessions { millstream, login, named: Mutex::default() }
    }

    /// Checks the `Basic` login of a handshake and gives a token for what follows.
    pub(crate) fn log_in(&self, metadata: &MetadataMap) -> Result<String, Status> {
        if let Some(expected) = &self.login {
            let given = header(metadata, AUTHORIZATION).unwrap_or_default();
            if !same(given, expected) {
                return Err(Status::unauthenticated("user name or password is wrong"));
            }
        }
        let token = random_token()?;
        self.named.lock().insert(token.clone(), self.millstream.session());
        Ok(token)
    }

    /// Refuses a request that needs a login and has none.
    pub(crate) fn admit(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let Some(expected) = &self.login else { return Ok(()) };
        let given = header(metadata, AUTHORIZATION).unwrap_or_default();
        let known = given.strip_prefix(BEARER).is_some_and(|token| self.named.lock().sessions.contains_key(token));
        if known || same(given, expected) {
            return Ok(());
        }
        Err(Status::unauthenticated("this server needs a user name and a password"))
    }

    /// The session of a request.
    pub(crate) fn of(&self, metadata: &MetadataMap, extensions: &Extensions) -> Arc<Session> {
        if let Some(name) = name(metadata) {
            return self.named.lock().get_or_insert_with(name, || self.millstream.session());
        }
        match extensions.get::<ConnectionSession>() {
            Some(session) => session.get(),
            None => Arc::new(self.millstream.session()),
        }
    }

    /// Ends the session of a request: its settings are gone, and a needed login has to be made again.
    pub(crate) fn close(&self, metadata: &MetadataMap, extensions: &Extensions) {
        if let Some(name) = name(metadata) {
            self.named.lock().sessions.remove(&name);
        } else if let Some(session) = extensions.get::<ConnectionSession>() {
            session.reset(self.millstream.session());
        }
    }
}

impl Named {
    fn insert(&mut self, name: String, session: Session) -> Arc<Session> {
        if self.sessions.len() >= MOST_SESSIONS {
            let oldest = self.sessions.iter().min_by_key(|(_, e)| e.used).map(|(name, _)| name.clone());
            oldest.and_then(|name| self.sessions.remove(&name));
        }
        self.uses += 1;
        let session = Arc::new(session);
        self.sessions.insert(name, Entry { session: Arc::clone(&session), used: self.uses });
        session
    }

    /// A token that is not known comes from before a restart (or from a client that made it up): it begins a
    /// session, as any client may.
    fn get_or_insert_with(&mut self, name: String, new: impl FnOnce() -> Session) -> Arc<Session> {
        self.uses += 1;
        let used = self.uses;
        if let Some(entry) = self.sessions.get_mut(&name) {
            entry.used = used;
            return Arc::clone(&entry.session);
        }
        self.insert(name, new())
    }
}

fn name(metadata: &MetadataMap) -> Option<String> {
    let bearer = header(metadata, AUTHORIZATION).and_then(|value| value.strip_prefix(BEARER));
    // The prefix keeps a header from naming somebody's token.
    bearer.map(str::to_owned).or_else(|| header(metadata, SESSION_HEADER).map(|name| format!("header {name}")))
}

fn header<'a>(metadata: &'a MetadataMap, key: &str) -> Option<&'a str> {
    metadata.get(key).and_then(|value| value.to_str().ok())
}

/// Compares logins without telling by its time how much is right. Some clients leave out the padding.
fn same(a: &str, b: &str) -> bool {
    let [a, b] = [a, b].map(|login| login.trim_end_matches('='));
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
}

/// A name that nobody can guess.
pub(crate) fn random_token() -> Result<String, Status> {
    token().map_err(|e| Status::internal(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_cannot_name_the_session_of_a_token() {
        let mut metadata = MetadataMap::new();
        assert_eq!(name(&metadata), None);
        metadata.insert(SESSION_HEADER, "abc".parse().unwrap());
        assert_eq!(name(&metadata), Some("header abc".into()));
        metadata.insert(AUTHORIZATION, "Bearer abc".parse().unwrap());
        assert_eq!(name(&metadata), Some("abc".into()));
        metadata.insert(AUTHORIZATION, "Basic Zm9v".parse().unwrap());
        assert_eq!(name(&metadata), Some("header abc".into()));
    }

    #[test]
    fn comparing_secrets() {
        assert!(same("Basic x", "Basic x"));
        assert!(same("Basic eA", "Basic eA=="));
        assert!(!same("Basic x", "Basic y"));
        assert!(!same("", "Basic y"));
    }
}
