//! What a number of the lease says, and which number is the last.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{FOLDER, MOST_TRIES};
use crate::error::{Error, ErrorKind, Result};
use crate::store::Store;

/// What a number says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// A name that no other process has.
    pub holder: String,
    /// What people call it.
    pub place: String,
    /// How long it may be silent.
    pub milliseconds: u64,
    /// It holds the store no more.
    #[serde(default)]
    pub released: bool,
    /// The run of the system that it is in, where that is known: a lock on a file means something to who is in the same one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Whether it has the lock of a store that is a folder.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub locked: bool,
    /// Where others reach it, if it is a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeTerm>,
}

/// What a leader says of itself to other nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeTerm {
    /// Where it is reached.
    pub address: String,
    /// Its build.
    pub version: String,
    /// How long a node of this cluster may be silent.
    pub timeout_milliseconds: u64,
    /// What tells the certificate that it shows, where it speaks TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

impl Term {
    /// The holder, for people.
    pub fn who(&self) -> String {
        match &self.node {
            Some(node) => format!("node {}", node.address),
            None => self.place.clone(),
        }
    }
}

pub(super) fn file(number: u64) -> String {
    format!("{number:020}.json")
}

pub(super) fn path(number: u64) -> String {
    format!("{FOLDER}/{}", file(number))
}

pub(super) fn bytes(term: &Term) -> Result<Bytes> {
    Ok(Bytes::from(serde_json::to_vec(term)?))
}

/// The last number and what it says.
pub(super) async fn last(store: &Store) -> Result<Option<(u64, Term)>> {
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

/// This process, for people.
pub(super) fn here() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = match host.trim() {
        "" => "a host without a name",
        host => host,
    };
    format!("process {} on {host}", std::process::id())
}

/// What tells this run of the system from others, where it says so.
pub(super) fn kernel() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}
