//! Which session a request works in: that of its bearer token or `x-millstream-session` header, else that of its
//! connection. A session is of the one user who began it; who the request is of has been found out before ([`Caller`]).

use std::collections::HashMap;
use std::sync::Arc;

use millstream_engine::token::token;
use millstream_sql::{Millstream, Principal, Session};
use parking_lot::Mutex;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status};

use super::connection::ConnectionInfo;
use crate::doors::Fingerprint;

pub(crate) const AUTHORIZATION: &str = "authorization";
const SESSION_HEADER: &str = "x-millstream-session";

/// Sessions kept by token or header. The one unused for longest goes when there are more, so that clients that
/// never close theirs cannot fill the memory.
const MOST_SESSIONS: usize = 1024;

/// Who a request is of: put among its extensions where it is admitted.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) who: Principal,
    /// What tells its token from others, if it has shown one.
    pub(crate) token: Option<Fingerprint>,
}

/// The sessions of a server.
pub(crate) struct Sessions {
    millstream: Arc<Millstream>,
    named: Mutex<Named>,
}

#[derive(Default)]
struct Named {
    sessions: HashMap<Name, Entry>,
    /// Counts uses, to know which session was used last.
    uses: u64,
}

/// A user's name for a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Name {
    Token(Fingerprint),
    Header(Option<String>, String),
}

struct Entry {
    session: Arc<Session>,
    used: u64,
}

impl Sessions {
    pub(crate) fn new(millstream: Arc<Millstream>) -> Self {
        Sessions { millstream, named: Mutex::default() }
    }

    /// The session of a request. One that was not admitted has none.
    pub(crate) fn of(&self, metadata: &MetadataMap, extensions: &Extensions) -> Result<Arc<Session>, Status> {
        let caller = extensions.get::<Caller>().ok_or_else(|| Status::unauthenticated("nobody was let in"))?;
        let who = &caller.who;
        let new = || self.millstream.session_of(who.clone());
        if let Some(name) = name(metadata, caller) {
            return Ok(self.named.lock().get_or_insert_with(name, who, new));
        }
        Ok(match extensions.get::<ConnectionInfo>() {
            Some(connection) => connection.session.of(who, &self.millstream, new),
            None => Arc::new(new()),
        })
    }

    /// Ends the session of a request: its settings are gone.
    pub(crate) fn close(&self, metadata: &MetadataMap, extensions: &Extensions) {
        let Some(caller) = extensions.get::<Caller>() else { return };
        if let Some(name) = name(metadata, caller) {
            self.named.lock().sessions.remove(&name);
        } else if let Some(connection) = extensions.get::<ConnectionInfo>() {
            connection.session.forget();
        }
    }
}

impl Named {
    fn insert(&mut self, name: Name, session: Session) -> Arc<Session> {
        if self.sessions.len() >= MOST_SESSIONS {
            let oldest = self.sessions.iter().min_by_key(|(_, e)| e.used).map(|(name, _)| name.clone());
            oldest.and_then(|name| self.sessions.remove(&name));
        }
        self.uses += 1;
        let session = Arc::new(session);
        self.sessions.insert(name, Entry { session: Arc::clone(&session), used: self.uses });
        session
    }

    /// A token that is not known comes from before a restart (or, in a store without users, from a client that made it
    /// up): it begins a session.
    fn get_or_insert_with(&mut self, name: Name, who: &Principal, new: impl FnOnce() -> Session) -> Arc<Session> {
        self.uses += 1;
        let used = self.uses;
        if let Some(entry) = self.sessions.get_mut(&name).filter(|entry| entry.session.who().is(who)) {
            entry.used = used;
            return Arc::clone(&entry.session);
        }
        self.insert(name, new())
    }
}

fn name(metadata: &MetadataMap, caller: &Caller) -> Option<Name> {
    let named = || {
        let header = header(metadata, SESSION_HEADER)?;
        Some(Name::Header(caller.who.user_name().map(str::to_owned), header.to_owned()))
    };
    caller.token.map(Name::Token).or_else(named)
}

pub(crate) fn header<'a>(metadata: &'a MetadataMap, key: &str) -> Option<&'a str> {
    metadata.get(key).and_then(|value| value.to_str().ok())
}

/// A name that nobody can guess.
pub(crate) fn random_token() -> Result<String, Status> {
    token().map_err(|e| Status::internal(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_cannot_name_the_session_of_a_token_or_of_another_user() {
        let mut metadata = MetadataMap::new();
        let nobody = Caller { who: Principal::anonymous("a"), token: None };
        assert_eq!(name(&metadata, &nobody), None);
        metadata.insert(SESSION_HEADER, "abc".parse().unwrap());
        assert_eq!(name(&metadata, &nobody), Some(Name::Header(None, "abc".to_owned())));
        let known = Caller { token: Some([7; 32]), ..nobody };
        assert_eq!(name(&metadata, &known), Some(Name::Token([7; 32])));
    }
}
