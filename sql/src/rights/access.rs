//! The users of a store and what was granted to them, as the catalog keeps it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millstream_engine::token::token;
use serde::{Deserialize, Serialize};

use super::hidden::Hidden;
use super::principal::{Principal, Who};
use super::right::{Need, Right, Target};
use super::vault::{Key, Sealed};
use crate::error::{Error, ErrorKind, Result};
use crate::quote::quote_name;

/// The longest name of a user: names of certificates and issuers of tokens are long.
const LONGEST_NAME: usize = 200;
/// Users of a store.
const MOST_USERS: usize = 10_000;
/// Secrets of a store.
const MOST_SECRETS: usize = 10_000;

/// Who may do what. See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    users: BTreeMap<String, User>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    secrets: BTreeMap<String, Sealed>,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct User {
    /// Another with each password, so that who logged in with an old one is out.
    id: String,
    /// The argon2 hash; none for who comes with a certificate or a token only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password: Option<Hidden>,
    /// Rights on all.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    all: BTreeSet<Right>,
    /// Rights on streams and views, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    streams: BTreeMap<String, BTreeSet<Right>>,
}

impl User {
    fn has(&self, need: Need<'_>) -> bool {
        let among = |rights: &BTreeSet<Right>, right| rights.contains(&right) || rights.contains(&Right::Admin);
        let on = |name: &str| self.streams.get(name);
        match need {
            Need::OnAll(right) => among(&self.all, right),
            Need::On(right, name) => among(&self.all, right) || on(name).is_some_and(|rights| among(rights, right)),
            Need::Any(name) => !self.all.is_empty() || on(name).is_some_and(|rights| !rights.is_empty()),
        }
    }
}

impl Access {
    /// Whether nobody needs a name.
    pub fn is_open(&self) -> bool {
        self.users.is_empty()
    }

    /// Whether `who` has what is needed. **This decides**, for every statement and every name.
    pub fn allows(&self, who: &Principal, need: Need<'_>) -> bool {
        match &who.who {
            Who::Owner => true,
            Who::Anonymous => self.is_open(),
            Who::User { name, id } => self.users.get(&**name).is_some_and(|user| user.id == **id && user.has(need)),
            Who::Behalf(name) => self.users.get(&**name).is_some_and(|user| user.has(need)),
        }
    }

    /// As [`Self::allows`]. The error is the same whether or not there is what the name names.
    pub fn decide(&self, who: &Principal, need: Need<'_>) -> Result<()> {
        if self.allows(who, need) {
            return Ok(());
        }
        let denied = |message: String| Error::new(ErrorKind::Denied, message);
        let user = match &who.who {
            Who::User { name, id } if self.users.get(&**name).is_none_or(|user| user.id != **id) => {
                return Err(denied(format!("{who} is not who it was: it was dropped, or has another password"))
                    .with_hint("Log in again."));
            }
            Who::User { name, .. } | Who::Behalf(name) => quote_name(name),
            Who::Owner | Who::Anonymous => {
                return Err(
                    denied(format!("{who} may {need}: this store has users")).with_hint("Log in as one of them.")
                );
            }
        };
        let (right, on) = match need {
            Need::On(right, name) => (right, format!("STREAM {}", quote_name(name))),
            Need::Any(name) => (Right::Read, format!("STREAM {}", quote_name(name))),
            Need::OnAll(right) => (right, "ALL".to_owned()),
        };
        Err(denied(format!("{who} may not {need}"))
            .with_hint(format!("Who has admin on it may GRANT {right} ON {on} TO {user}.")))
    }

    /// The user `name`, who asks from `address` and has proved to be it by other means than a password.
    pub fn known(&self, name: &str, address: impl Into<Arc<str>>) -> Option<Principal> {
        self.users.get(name).map(|user| Principal::user(name, &user.id, address.into()))
    }

    /// The hash of the user's password, and who it is when that was given.
    pub(crate) fn login(&self, name: &str, address: Arc<str>) -> Option<(Hidden, Principal)> {
        let user = self.users.get(name)?;
        Some((user.password.clone()?, Principal::user(name, &user.id, address)))
    }

    /// Whether `who` is still who it was.
    pub fn is_current(&self, who: &Principal) -> bool {
        match &who.who {
            Who::User { name, id } => self.users.get(&**name).is_some_and(|user| user.id == **id),
            Who::Anonymous => self.is_open(),
            Who::Owner | Who::Behalf(_) => true,
        }
    }

    /// Adds a user without rights.
    pub(crate) fn add_user(&mut self, name: &str, password: Option<Hidden>) -> Result<()> {
        check_user_name(name)?;
        if self.users.contains_key(name) {
            return Err(Error::exists(format!("user \"{name}\" exists already"))
                .with_hint(format!("ALTER USER {} PASSWORD '…' gives another password.", quote_name(name))));
        }
        if self.users.len() >= MOST_USERS {
            return Err(Error::new(ErrorKind::Exhausted, format!("a store has at most {MOST_USERS} users")));
        }
        let user = User { id: token()?, password, all: BTreeSet::new(), streams: BTreeMap::new() };
        self.users.insert(name.to_owned(), user);
        Ok(())
    }

    /// Gives a user another password. Who has logged in with the old one is out.
    pub(crate) fn set_password(&mut self, name: &str, password: Hidden) -> Result<()> {
        let id = token()?;
        let user = self.user_mut(name)?;
        (user.id, user.password) = (id, Some(password));
        Ok(())
    }

    /// Removes a user with all that was granted to it. Says whether there was one.
    pub(crate) fn remove_user(&mut self, name: &str) -> bool {
        self.users.remove(name).is_some()
    }

    /// Grants rights.
    pub(crate) fn grant(&mut self, user: &str, rights: &[Right], target: &Target) -> Result<()> {
        let user = self.user_mut(user)?;
        match target {
            Target::All => user.all.extend(rights),
            Target::Stream(name) => user.streams.entry(name.clone()).or_default().extend(rights),
        }
        Ok(())
    }

    /// Takes rights back. Says whether any of them was there.
    pub(crate) fn revoke(&mut self, user: &str, rights: &[Right], target: &Target) -> Result<bool> {
        let user = self.user_mut(user)?;
        let take = |from: &mut BTreeSet<Right>| rights.iter().filter(|right| from.remove(right)).count() > 0;
        let taken = match target {
            Target::All => take(&mut user.all),
            Target::Stream(name) => user.streams.get_mut(name).is_some_and(take),
        };
        user.streams.retain(|_, rights| !rights.is_empty());
        Ok(taken)
    }

    /// Forgets what was granted on what is not there any more.
    pub(crate) fn forget_all_but(&mut self, is_there: impl Fn(&str) -> bool) {
        self.users.values_mut().for_each(|user| user.streams.retain(|name, _| is_there(name)));
    }

    /// Users with whether they have a password.
    pub(crate) fn users(&self) -> impl Iterator<Item = (&str, bool)> {
        self.users.iter().map(|(name, user)| (name.as_str(), user.password.is_some()))
    }

    /// All grants as (user, right, target).
    pub(crate) fn grants(&self) -> impl Iterator<Item = (&str, Right, Target)> {
        self.users.iter().flat_map(|(name, user)| {
            let all = user.all.iter().map(|right| (*right, Target::All));
            let streams = user.streams.iter();
            let streams = streams
                .flat_map(|(stream, rights)| rights.iter().map(|right| (*right, Target::Stream(stream.clone()))));
            all.chain(streams).map(|(right, target)| (name.as_str(), right, target))
        })
    }

    /// Keeps a secret, sealed with `key`.
    pub(crate) fn add_secret(&mut self, name: &str, or_replace: bool, value: &Hidden, key: Option<&Key>) -> Result<()> {
        if name.is_empty() || name.len() > LONGEST_NAME {
            return Err(Error::invalid("the name of a secret is empty or too long"));
        }
        if self.secrets.contains_key(name) && !or_replace {
            return Err(Error::exists(format!("secret \"{name}\" exists already"))
                .with_hint(format!("CREATE OR REPLACE SECRET {} gives it another value.", quote_name(name))));
        }
        if self.secrets.len() >= MOST_SECRETS {
            return Err(Error::new(ErrorKind::Exhausted, format!("a store has at most {MOST_SECRETS} secrets")));
        }
        let sealed = key.ok_or_else(no_key)?.seal(name, value)?;
        self.secrets.insert(name.to_owned(), sealed);
        Ok(())
    }

    /// Forgets a secret. Says whether there was one.
    pub(crate) fn remove_secret(&mut self, name: &str) -> bool {
        self.secrets.remove(name).is_some()
    }

    /// The names of the secrets.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &str> {
        self.secrets.keys().map(String::as_str)
    }

    /// What a secret is.
    pub(crate) fn open_secret(&self, name: &str, key: Option<&Key>) -> Result<Hidden> {
        let missing = || {
            Error::not_found(format!("secret \"{name}\" does not exist"))
                .with_hint(format!("Write CREATE SECRET {} AS '…'.", quote_name(name)))
        };
        let sealed = self.secrets.get(name).ok_or_else(missing)?;
        key.ok_or_else(no_key)?.open(name, sealed)
    }

    fn user_mut(&mut self, name: &str) -> Result<&mut User> {
        let missing =
            || Error::not_found(format!("user \"{name}\" does not exist")).with_hint("SHOW USERS lists them.");
        self.users.get_mut(name).ok_or_else(missing)
    }
}

fn no_key() -> Error {
    Error::invalid("there is no key for secrets").with_hint(
        "Start with the key in MILLSTREAM_KEY, or in a file that --key-file names: 32 characters or more, as openssl rand \
         -hex 32 makes them.",
    )
}

/// A name that can be sent in a header, and that is not taken for something else there.
fn check_user_name(name: &str) -> Result<()> {
    let wrong = |why: &str| {
        Err(Error::invalid(format!("the name of a user {why}"))
            .with_hint("Write letters, digits and signs, without a colon."))
    };
    match name {
        "" => wrong("is empty"),
        _ if name.len() > LONGEST_NAME => wrong("is too long"),
        _ if name.contains(':') => wrong("has a colon"),
        _ if name.chars().any(char::is_control) => wrong("has a character that is not printed"),
        _ if name.trim() != name => wrong("begins or ends with a space"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        let mut access = Access::default();
        for name in ["reader", "writer", "keeper", "admin", "none"] {
            access.add_user(name, None).unwrap();
        }
        access.grant("reader", &[Right::Read], &Target::Stream("s".into())).unwrap();
        access.grant("writer", &[Right::Write], &Target::Stream("s".into())).unwrap();
        access.grant("keeper", &[Right::Admin], &Target::Stream("s".into())).unwrap();
        access.grant("admin", &[Right::Admin], &Target::All).unwrap();
        access
    }

    #[test]
    fn what_is_not_granted_is_refused() {
        let access = access();
        let needs = [
            Need::On(Right::Read, "s"),
            Need::On(Right::Write, "s"),
            Need::On(Right::Admin, "s"),
            Need::Any("s"),
            Need::On(Right::Read, "t"),
            Need::Any("t"),
            Need::OnAll(Right::Read),
            Need::OnAll(Right::Admin),
        ];
        let table = [
            ("reader", [true, false, false, true, false, false, false, false]),
            ("writer", [false, true, false, true, false, false, false, false]),
            ("keeper", [true, true, true, true, false, false, false, false]),
            ("admin", [true; 8]),
            ("none", [false; 8]),
        ];
        for (user, allowed) in table {
            let who = access.known(user, "127.0.0.1").unwrap();
            for (need, allowed) in needs.into_iter().zip(allowed) {
                assert_eq!(access.allows(&who, need), allowed, "{user} {need:?}");
                assert_eq!(access.decide(&who, need).is_ok(), allowed, "{user} {need:?}");
            }
        }
        for need in needs {
            assert!(access.allows(&Principal::owner(), need));
            assert!(!access.allows(&Principal::anonymous("127.0.0.1"), need));
            assert!(Access::default().allows(&Principal::anonymous("127.0.0.1"), need));
            assert!(!access.allows(&Principal::maker(Some("gone")), need));
        }
    }

    #[test]
    fn the_error_does_not_tell_whether_there_is_such_a_stream() {
        let access = access();
        let who = access.known("reader", "a").unwrap();
        let told = |name| access.decide(&who, Need::On(Right::Read, name)).unwrap_err();
        assert_eq!(told("t").kind(), ErrorKind::Denied);
        assert_eq!(told("t").message().replace("\"t\"", "\"u\""), told("u").message());
    }

    #[test]
    fn another_password_is_another_user() {
        let mut access = access();
        let before = access.known("reader", "a").unwrap();
        access.set_password("reader", Hidden::new("hash")).unwrap();
        assert!(!access.allows(&before, Need::On(Right::Read, "s")));
        assert!(!access.is_current(&before));
        let after = access.known("reader", "a").unwrap();
        assert!(access.allows(&after, Need::On(Right::Read, "s")));
        access.remove_user("reader");
        access.add_user("reader", None).unwrap();
        assert!(!access.allows(&after, Need::On(Right::Read, "s")));
        let again = access.known("reader", "a").unwrap();
        assert!(!access.allows(&again, Need::On(Right::Read, "s")), "grants go with the user");
    }

    #[test]
    fn rights_are_taken_back_and_go_with_their_streams() {
        let mut access = access();
        let who = access.known("reader", "a").unwrap();
        assert!(!access.revoke("reader", &[Right::Write], &Target::Stream("s".into())).unwrap());
        assert!(access.revoke("reader", &[Right::Read], &Target::Stream("s".into())).unwrap());
        assert!(!access.allows(&who, Need::Any("s")));
        access.forget_all_but(|name| name != "s");
        assert_eq!(access.grants().collect::<Vec<_>>(), vec![("admin", Right::Admin, Target::All)]);
        assert!(access.revoke("nobody", &[Right::Read], &Target::All).is_err());
    }

    #[test]
    fn names_that_cannot_be_logged_in_with_are_refused() {
        let mut access = Access::default();
        for name in ["", "a:b", "a\nb", " a", &"a".repeat(201)] {
            assert!(access.add_user(name, None).is_err(), "{name:?}");
        }
        access.add_user("alice@example.org", None).unwrap();
        assert!(access.add_user("alice@example.org", None).is_err());
    }

    #[test]
    fn hashes_are_kept_and_not_shown() {
        let mut access = Access::default();
        access.add_user("ann", Some(Hidden::new("$argon2id$abc"))).unwrap();
        assert!(!format!("{access:?}").contains("argon2id"));
        let text = serde_json::to_string(&access).unwrap();
        assert!(text.contains("$argon2id$abc"));
        assert_eq!(serde_json::from_str::<Access>(&text).unwrap(), access);
    }
}
