//! What a coordinator and a node say to each other.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::connector::Unit;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::NodeFigures;
use crate::runtime::messages::{Cut, CutHere, Parts};
use crate::runtime::placement::Placed;
use crate::table::dead_letters::Letter;

/// What a node is to do of a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// This run of the job; no other is called so.
    pub(crate) run: String,
    /// The stream that it feeds.
    pub(crate) name: String,
    /// What the graph is made of.
    pub(crate) description: serde_json::Value,
    /// What the graph must come out as.
    pub(crate) fingerprint: String,
    /// The generation and the manifest that the job goes on from, where it keeps any.
    pub(crate) checkpoint: Option<(u64, u64)>,
    pub(crate) placed: Placed,
    /// Which of the nodes is told.
    pub(crate) node: usize,
    pub(crate) edge_bytes: usize,
    /// Whether a row on which an expression fails ends the job, and how many are kept else.
    pub(crate) fails: bool,
    pub(crate) letters: u64,
    pub(crate) node_timeout: Duration,
}

/// What a coordinator's node says.
#[derive(Serialize, Deserialize)]
pub(crate) enum Told {
    /// All tasks are ready.
    Start,
    /// For a task that reads, by its fragment.
    Cut { fragment: usize, task: usize, cut: CutHere },
    /// A unit of a source to be read.
    Unit { source: usize, unit: Unit },
    /// There are no more.
    NoMore { source: usize },
    /// It is still there.
    Here,
}

/// What another node says.
#[derive(Serialize, Deserialize)]
pub(crate) enum Said {
    Ready {
        states: Vec<String>,
    },
    /// With how many units of the source have come here.
    Cut {
        cut: Cut,
        come: u64,
    },
    /// With how many rows put aside were counted only.
    Done {
        epoch: u64,
        aside: Vec<Letter>,
        beyond: u64,
        due: Option<i64>,
        last: bool,
    },
    Stored(Parts),
    Failed(Fault),
    /// Something wants an epoch.
    Pulse,
    /// So many units more can be taken of a source.
    Asks {
        source: usize,
        units: usize,
    },
    /// A unit whose end was not known has been read to its end.
    Ended {
        source: usize,
        unit: Unit,
        at: u64,
    },
    /// The counters of its tasks, by node of the graph and task.
    Figures(Vec<(usize, BTreeMap<usize, NodeFigures>)>),
    /// It is still there.
    Here,
}

/// An error on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Fault {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    /// The node by whose loss it came.
    lost: Option<String>,
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        let (message, hint) = (e.message().to_owned(), e.hint().map(str::to_owned));
        Fault { kind: e.kind(), message, hint, lost: e.lost_node().map(str::to_owned) }
    }
}

impl From<Fault> for Error {
    fn from(Fault { kind, message, hint, lost }: Fault) -> Self {
        let e = Error::new(kind, message);
        let e = match lost {
            Some(address) => e.of_lost_node(&address),
            None => e,
        };
        match hint {
            Some(hint) => e.with_hint(hint),
            None => e,
        }
    }
}

/// `word` as it is sent.
pub(crate) fn sent(word: &impl Serialize) -> Result<Bytes> {
    Ok(Bytes::from(serde_json::to_vec(word)?))
}

/// What `bytes` say.
pub(crate) fn heard<T: DeserializeOwned>(bytes: &Bytes) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::from(e).context("what a node says cannot be understood"))
}
