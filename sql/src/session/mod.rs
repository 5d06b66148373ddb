//! The door to Millstream: an opened store with its running jobs ([`Millstream`]), and sessions that execute
//! SQL on it ([`Session`]).

mod access;
mod alone;
mod audit;
mod audit_table;
mod away;
mod batch_memory;
mod bucket;
mod change;
mod column_names;
mod content;
mod copy;
mod dataflow;
mod ddl;
mod dead_letters;
mod define;
mod delivery;
mod entry;
mod execute;
mod explain;
mod failed_row;
mod figures;
mod flush;
mod follow;
mod gate;
mod ingest;
mod ingested;
mod insert;
mod intake;
mod jobs;
mod keys;
mod left_out;
mod login;
mod lookup;
mod metadata;
mod nodes;
mod open;
mod opening;
mod outcome;
mod outward;
mod own_options;
mod part;
mod prepared;
mod readers;
mod reading;
mod replace;
mod resolve;
mod settings;
mod show;
mod source_content;
mod source_part;
mod spread;
mod sql_type;
mod stdin;
mod tables;
mod view;
mod written;

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

pub use alone::Seat;
pub use delivery::Delivery;
pub use figures::{ConnectorFigures, JobFigures};
pub use intake::{Intake, Once};
pub use left_out::{FailedStream, LeftOut, LeftOutRows};
pub use open::Millstream;
pub use outcome::{
    ChangeFeed, Config, Done, EpochChanges, FeedEnd, IngestMode, JobInfo, JobLag, JobState, ObjectInfo, ObjectKind,
    Outcome, Prepared, RowStream,
};
pub use settings::checkpoint_interval;
pub use tables::StreamDef;

use crate::rights::Principal;
use settings::Settings;

/// One user's view: settings of its own over the shared catalog.
pub struct Session {
    millstream: Arc<Millstream>,
    settings: Mutex<Settings>,
    /// The streams that it made, resumed or put rows into.
    touched: Mutex<BTreeSet<String>>,
    /// Who it works for.
    who: Principal,
}
