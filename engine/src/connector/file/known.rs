//! The files that are known: where each is, what was read of it, and what of that is kept with the checkpoint.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::print::{Identity, Print, Stamp};
use super::queue::Queue;
use crate::format::compression::Compression;

/// How a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text that lines are appended to.
    Lines,
    /// Text that stays as it is.
    Text,
    /// Read from its beginning, since it cannot be entered in the middle: compressed text, Arrow.
    Stream,
    /// With a footer that says where everything is.
    Parquet,
}

/// Where a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The path means it.
    Listed,
    /// Rotation has given it another name.
    Beside,
    /// It has not been found since then.
    Away(Instant),
}

/// A file that is read, or was.
#[derive(Debug)]
pub(super) struct Known {
    /// Where it was last.
    pub(super) path: PathBuf,
    pub(super) place: Place,
    pub(super) kind: Kind,
    pub(super) compression: Compression,
    pub(super) identity: Option<Identity>,
    /// As it was when it was looked at last; `None` after a restart.
    pub(super) stamp: Option<Stamp>,
    /// When it was written to last.
    pub(super) modified: Option<SystemTime>,
    /// Since when it has been as it is.
    pub(super) since: Instant,
    /// Of all that was taken of it.
    pub(super) print: Print,
    /// All before has been handed to the queue.
    pub(super) queued: u64,
    /// Where its rows end, found by an earlier run.
    pub(super) ended: Option<u64>,
    /// It has changed since it was taken, and cannot be taken yet.
    pub(super) pending: bool,
    /// It was put aside as it is: any change makes it another file.
    pub(super) frozen: bool,
    /// When it was taken last by this run.
    pub(super) taken: Option<Instant>,
    /// Whether it has had another name: what takes that is another file.
    pub(super) rotated: bool,
    /// Whether it was read to its end after its name had gone.
    pub(super) gone: bool,
    /// Held open.
    pub(super) file: Option<Arc<File>>,
    /// The last look that found it as it was.
    pub(super) round: u64,
}

impl Known {
    pub(super) fn new(path: PathBuf, kind: Kind, compression: Compression) -> Self {
        let now = Instant::now();
        Known {
            path,
            place: Place::Listed,
            kind,
            compression,
            identity: None,
            stamp: None,
            modified: None,
            since: now,
            print: Print::default(),
            queued: 0,
            ended: None,
            pending: false,
            frozen: false,
            taken: None,
            rotated: false,
            gone: false,
            file: None,
            round: 0,
        }
    }

    pub(super) fn is_away(&self) -> bool {
        matches!(self.place, Place::Away(_))
    }

    /// Whether a change of it can be anything.
    pub(super) fn is_taken_whole(&self) -> bool {
        matches!(self.kind, Kind::Stream | Kind::Parquet)
    }

    /// The last part of its path.
    pub(super) fn file_name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// What is kept of a file with a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Saved {
    /// Where it was last, unless its split is called that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<Identity>,
    print: Print,
    /// How it is compressed, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    compression: Option<String>,
    /// When it was written to last: nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    modified: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<u64>,
    /// Where it was put aside and why, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) aside: Option<(u64, Vec<String>)>,
    #[serde(default, skip_serializing_if = "is_false")]
    rotated: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    gone: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    frozen: bool,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// By split name.
pub(super) type SavedFiles = BTreeMap<String, Saved>;

/// What is to be kept of `known`.
pub(super) fn save<'a>(known: impl Iterator<Item = (&'a Arc<str>, &'a Known)>, queue: &Queue) -> SavedFiles {
    let one = |(name, known): (&Arc<str>, &Known)| {
        let path = known.path.to_string_lossy();
        let input = queue.input(name);
        let saved = Saved {
            path: (*path != **name).then(|| path.into_owned()),
            identity: known.identity,
            print: known.print,
            compression: (known.compression != Compression::None).then(|| known.compression.name().to_owned()),
            modified: known
                .modified
                .and_then(|t| t.duration_since(UNIX_EPOCH).ok())
                .and_then(|d| d.as_nanos().try_into().ok()),
            end: input.filter(|_| !known.pending).and_then(|i| i.end),
            aside: input.and_then(|i| Some((i.aside?, i.told.clone()))),
            rotated: known.rotated,
            gone: known.gone,
            frozen: known.frozen || (known.is_taken_whole() && input.is_some_and(|i| i.odd)),
        };
        (name.to_string(), saved)
    };
    known.map(one).collect()
}

impl Saved {
    /// The file again; `kind` says how one that is compressed like that is read.
    pub(super) fn restore(self, name: &str, kind: impl Fn(Compression) -> Kind) -> Known {
        let path = self.path.unwrap_or_else(|| name.to_owned());
        let named = |c: &Compression| Some(c.name()) == self.compression.as_deref();
        let compression = [Compression::Gzip, Compression::Zstd].into_iter().find(named).unwrap_or(Compression::None);
        let mut known = Known::new(path.into(), kind(compression), compression);
        (known.identity, known.print, known.ended) = (self.identity, self.print, self.end);
        known.modified = self.modified.map(|nanos| UNIX_EPOCH + Duration::from_nanos(nanos));
        (known.rotated, known.gone, known.frozen) = (self.rotated, self.gone, self.frozen);
        known
    }
}
