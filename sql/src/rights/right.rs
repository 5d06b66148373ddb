//! Rights, what they are on, and what a statement needs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What may be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// To see it and its rows.
    Read,
    /// To put rows in.
    Write,
    /// To change it, stop it, drop it, and grant rights on it; and all of the above.
    Admin,
}

impl Right {
    /// All, in the order of what they allow.
    pub const ALL: [Right; 3] = [Right::Read, Right::Write, Right::Admin];

    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Right::Read => "read",
            Right::Write => "write",
            Right::Admin => "admin",
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What a right is on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// All there is, and what there will be.
    All,
    /// A stream or view.
    Stream(String),
}

/// What somebody has to have for what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need<'a> {
    /// A right on a stream or view.
    On(Right, &'a str),
    /// Any right on it.
    Any(&'a str),
    /// A right on all.
    OnAll(Right),
}

/// What the right is for: `read stream "bids"`.
impl fmt::Display for Need<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Need::On(Right::Read, name) => write!(f, "read \"{name}\""),
            Need::On(Right::Write, name) => write!(f, "write to \"{name}\""),
            Need::On(Right::Admin, name) => write!(f, "change \"{name}\""),
            Need::Any(name) => write!(f, "see \"{name}\""),
            Need::OnAll(Right::Read) => f.write_str("read all streams"),
            Need::OnAll(Right::Write) => f.write_str("write files or all streams"),
            Need::OnAll(Right::Admin) => f.write_str("do this"),
        }
    }
}
