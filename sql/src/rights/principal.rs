//! Who asks.

use std::fmt;
use std::sync::Arc;

/// Who a session works for, and from where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Principal {
    pub(super) who: Who,
    /// The address that it asks from; none in this process.
    from: Option<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    /// Who runs the process.
    Owner,
    /// Somebody without a name.
    Anonymous,
    /// A user who has logged in.
    User {
        name: Arc<str>,
        /// What the user had for an id then: with another password, or made anew, it is another.
        id: Arc<str>,
    },
    /// A user who does not ask, but whose view is read.
    Behalf(Arc<str>),
}

impl Principal {
    /// The owner of the store: the program that has it open.
    pub fn owner() -> Self {
        Principal { who: Who::Owner, from: None }
    }

    /// Somebody at `address` who has not said who it is.
    pub fn anonymous(address: impl Into<Arc<str>>) -> Self {
        Principal { who: Who::Anonymous, from: Some(address.into()) }
    }

    /// A user who has proved to be it.
    pub(super) fn user(name: &str, id: &str, address: Arc<str>) -> Self {
        Principal { who: Who::User { name: name.into(), id: id.into() }, from: Some(address) }
    }

    /// Who made something that others read: `user`, or the owner of the store.
    pub(crate) fn maker(user: Option<&str>) -> Self {
        let who = user.map_or(Who::Owner, |name| Who::Behalf(name.into()));
        Principal { who, from: None }
    }

    /// The user's name.
    pub fn user_name(&self) -> Option<&str> {
        match &self.who {
            Who::User { name, .. } | Who::Behalf(name) => Some(name),
            Who::Owner | Who::Anonymous => None,
        }
    }

    /// The address that it asks from.
    pub fn address(&self) -> Option<&str> {
        self.from.as_deref()
    }

    /// Whether it asks from outside of this process.
    pub fn is_remote(&self) -> bool {
        self.from.is_some()
    }

    /// Whether both are the same user, or both the owner, or both nobody; wherever they ask from.
    pub fn is(&self, other: &Principal) -> bool {
        self.who == other.who
    }
}

/// `user "ann"`, `the owner`, `nobody` (who has not logged in).
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.who {
            Who::Owner => f.write_str("the owner"),
            Who::Anonymous => f.write_str("nobody"),
            Who::User { name, .. } | Who::Behalf(name) => write!(f, "user \"{name}\""),
        }
    }
}
