//! Where rows come from and where they go.
//!
//! A [`Source`] is what is read, a [`Sink`] what is written; a [`registry::Connector`] makes them of the options of a stream.

pub mod arrivals;
mod asking;
pub mod blackhole;
pub mod constant;
pub mod datagen;
pub mod feed;
pub mod file;
pub mod generator;
pub mod ingest;
pub mod lag;
pub mod nexmark;
mod offsets;
pub mod outbox;
pub mod position;
pub mod registry;
pub mod remainder;
pub mod series;
mod sink;
mod source;
pub mod spool;
pub mod stdio;

pub use crate::format::DeadLetter;
pub use asking::ask;
pub use offsets::Offsets;
pub use sink::{Commit, Sink, SinkWriter, Staged, Start};
pub use source::{Intake, Opened, Opening, Reach, Read, ReadBy, Readers, Source, Split, Unit, UnitReader};

/// The connectors that come with the engine.
pub fn built_in() -> registry::Connectors {
    registry::Connectors::default()
        .with(file::FileConnector)
        .with(stdio::StdinConnector)
        .with(stdio::StdoutConnector)
        .with(nexmark::NexmarkConnector)
        .with(datagen::DatagenConnector)
        .with(blackhole::BlackholeConnector)
}

/// A figure that a source or a sink keeps of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// What it is called: `datagrams_dropped`, `lag_millis`.
    pub name: &'static str,
    /// What it is now.
    pub value: u64,
    /// Whether it only grows while the job runs.
    pub grows: bool,
}

impl Figure {
    /// How often something has happened.
    pub const fn count(name: &'static str, value: u64) -> Self {
        Figure { name, value, grows: true }
    }

    /// How much there is of something now.
    pub const fn level(name: &'static str, value: u64) -> Self {
        Figure { name, value, grows: false }
    }
}
