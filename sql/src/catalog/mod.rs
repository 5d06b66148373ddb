//! The catalog: which streams and views there are, and its versions in the store.
//!
//! A version is the whole list of statements, in order of creation, each with what it was resolved to; it is
//! written create-if-absent under the next number, so two writers cannot both succeed.

mod columns;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use millstream_engine::store::{Place, Store};
use millstream_engine::token::token;
use serde::{Deserialize, Serialize};

pub use columns::{Column, columns_of, schema_of};

use crate::error::{Error, ErrorKind, Result};
use crate::rights::{Access, Principal};
use crate::semantics::Semantics;

impl Resolved {
    /// By the rules of `semantics`, as yet without columns.
    pub fn by(semantics: Semantics) -> Self {
        let (columns, options) = (vec![], BTreeMap::new());
        Resolved { semantics, columns, options, changelog: false, key: None, event_time: None }
    }
}

/// One object as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// The statement that makes it.
    pub sql: String,
    /// The folder of its job in the store.
    pub job: String,
    /// How many tasks its operators have.
    pub parallelism: usize,
    /// Whether `PAUSE STREAM` stopped it.
    pub paused: bool,
    /// The streams and views that it reads, also through others. Older builds noted streams only.
    #[serde(default)]
    pub reads: Vec<String>,
    /// What the statement was resolved to when it made the object. The first builds did not keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Resolved>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Maker::is_owner")]
    pub maker: Maker,
}

/// Who made an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maker {
    /// The user; none for the owner of the store, and for whoever came while it had no users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Whether the statement came from outside of the process: what it may touch is bounded for as long as it runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub remote: bool,
}

impl Maker {
    /// The one who asks for it.
    pub fn of(who: &Principal) -> Self {
        Maker { user: who.user_name().map(str::to_owned), remote: who.is_remote() }
    }

    /// Who reads what it reads.
    pub fn principal(&self) -> Principal {
        Principal::maker(self.user.as_deref())
    }

    fn is_owner(&self) -> bool {
        *self == Maker::default()
    }
}

impl Entry {
    /// Whether it is a stream: external ones have a job that never starts, views have none.
    pub fn has_job(&self) -> bool {
        !self.job.is_empty()
    }
}

/// What a statement means for as long as its object exists, whatever files come later and whatever a later
/// build makes of the same words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The rules by which its expressions are planned.
    pub semantics: Semantics,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Options of its connector that were not written and were found out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// Whether rows can be taken back.
    #[serde(default)]
    pub changelog: bool,
    /// The columns that identify a row, by place, where a query tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Vec<usize>>,
    /// The place of the event-time column, where a query tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_time: Option<usize>,
}

/// A version of the catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// Its number.
    pub version: u64,
    /// A name that no other version has, whoever wrote it.
    #[serde(default)]
    pub written: String,
    /// Numbers jobs, so that a name used again does not meet old files.
    pub next_job: u64,
    /// The objects in order of creation.
    pub entries: Vec<Entry>,
    /// Who may do what.
    #[serde(default)]
    pub access: Access,
}

/// Versions kept besides the last.
const KEPT: u64 = 5;

const FOLDER: &str = "catalog";

fn path(version: u64) -> String {
    format!("{FOLDER}/{version:020}.json")
}

/// Whether anything was ever created in a store at `place`, a folder or a URL.
pub async fn is_store(place: &str) -> Result<bool> {
    match Place::parse(place)? {
        Place::Folder(root) => Ok(root.join(FOLDER).is_dir()),
        bucket => Ok(!Store::at(&bucket, &token()?).await?.list(FOLDER).await?.is_empty()),
    }
}

impl Catalog {
    /// The last version in `store`; an empty one where there is none.
    pub async fn load(store: &Store) -> Result<Self> {
        let names = store.list(FOLDER).await?;
        let Some(name) = names.iter().rfind(|n| n.ends_with(".json")) else { return Ok(Catalog::default()) };
        let bytes = store.get(&format!("{FOLDER}/{name}")).await?;
        serde_json::from_slice(&bytes).map_err(|e| {
            Error::new(
                ErrorKind::Data,
                format!("catalog \"{}\" cannot be read: {e}", store.locate(&format!("{FOLDER}/{name}"))),
            )
        })
    }

    /// Writes `self` as the next version.
    pub async fn save(&mut self, store: &Store) -> Result<()> {
        // What was granted goes with what it was on.
        let names: BTreeSet<String> = self.entries.iter().map(|e| e.name.clone()).collect();
        self.access.forget_all_but(|name| names.contains(name));
        self.version += 1;
        self.written = token()?;
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::new(ErrorKind::Internal, format!("the catalog cannot be written: {e}")))?;
        match store.create_private(&path(self.version), Bytes::from(bytes)).await {
            Err(e) if e.kind() == ErrorKind::Exists => return Err(changed()),
            other => other?,
        }
        // Where no lock keeps others out: who stood still for long may have created a number that others created and removed.
        if store.is_shared() && !store.is_last(FOLDER, &format!("{:020}.json", self.version)).await? {
            return Err(changed());
        }
        if self.version > KEPT {
            store.delete(&path(self.version - KEPT)).await?;
        }
        Ok(())
    }

    /// Puts `entry` last, and behind it what reads it, since objects are made in the order of the list. Gives the entries that
    /// had their names.
    pub fn put(&mut self, entry: Entry, readers: &[Entry]) -> Vec<Entry> {
        let is_put = |e: &Entry| e.name == entry.name || readers.iter().any(|r| r.name == e.name);
        let (before, others) = std::mem::take(&mut self.entries).into_iter().partition(is_put);
        self.entries = others;
        self.entries.push(entry);
        self.entries.extend_from_slice(readers);
        before
    }

    /// The entry of that name.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.name == name)
    }
}

fn changed() -> Error {
    Error::new(ErrorKind::Fenced, "another process has changed the catalog").with_hint("Run one process per store.")
}

/// A catalog shared by sessions.
pub type Shared = Arc<tokio::sync::Mutex<Catalog>>;
