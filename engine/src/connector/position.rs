//! Positions in the committed log of a stream: where a followed query begins, and behind which epoch it stands.
//!
//! ```text
//! log of "hot", made by job "hot-1"     epochs 3, 9, 12 (a commit is called by the last of its epochs)
//! Begin::Behind { epoch: 9, .. }        -> the rows of 12, then what comes
//! ```
//! An epoch that ends within a commit was never seen: behind it comes that commit, whole.

use std::sync::Arc;

use super::Source;

/// Where the reading of a log begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Begin {
    /// With all of the history that is kept.
    #[default]
    History,
    /// With what is committed now, in one epoch.
    Content,
    /// Behind an epoch.
    Behind {
        /// The epoch.
        epoch: u64,
        /// The stream that it is of, where that is known: see [`Standing::incarnation`].
        incarnation: Option<String>,
    },
}

/// A source that reads a log, and whose positions outlast it.
pub trait Positioned: Send + Sync {
    /// One that reads the same from there on, which errors when it is opened and there is no such position. Each epoch of the
    /// reading ends with a commit of the log. And that by which the reader tells where it stands.
    fn beginning(&self, begin: Begin) -> (Arc<dyn Source>, Arc<dyn Standing>);
}

/// Where the reader of a log stands.
pub trait Standing: Send + Sync {
    /// Which making of the stream it reads: one that was dropped and made again is another.
    fn incarnation(&self) -> String;

    /// Behind which epoch of the log the reader stands at the end of its own epoch; `None` before the first. Asked once
    /// for each of those, in order, by who sees them last.
    fn stands_behind(&self) -> Option<u64>;

    /// How many rows the log has that the reader has not been given.
    fn ahead(&self) -> u64;
}
