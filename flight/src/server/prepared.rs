//! Prepared statements: what a handle stands for.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_flight::error::FlightError;
use millstream_sql::session::Prepared;
use millstream_sql::{Principal, Session};
use parking_lot::Mutex;
use tonic::Status;

use super::sessions::random_token;
use crate::error::{from_flight, to_status};

/// Handles kept. The one unused for longest goes when there are more: clients may vanish without closing theirs.
const MOST_STATEMENTS: usize = 4096;

/// Parameters kept with a handle until it runs. More rows than fit belong into an ingest.
const MOST_PARAMETERS: usize = 64 << 20;

/// A prepared statement and all that running it needs.
#[derive(Clone)]
pub(crate) struct PreparedStatement {
    /// The session that prepared it.
    pub(crate) session: Arc<Session>,
    /// The statement.
    pub(crate) prepared: Prepared,
    /// The parameters bound last.
    pub(crate) parameters: Option<RecordBatch>,
}

/// The prepared statements of a server, by handle.
#[derive(Default)]
pub(crate) struct PreparedStatements {
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    by_handle: HashMap<String, (PreparedStatement, u64)>,
    /// Counts uses, to know which was used last.
    uses: u64,
}

impl PreparedStatements {
    /// Keeps a statement and gives its handle.
    pub(crate) fn insert(&self, session: Arc<Session>, prepared: Prepared) -> Result<String, Status> {
        let handle = random_token()?;
        let mut entries = self.entries.lock();
        if entries.by_handle.len() >= MOST_STATEMENTS {
            let oldest = entries.by_handle.iter().min_by_key(|(_, (_, used))| *used).map(|(handle, _)| handle.clone());
            oldest.and_then(|handle| entries.by_handle.remove(&handle));
        }
        entries.uses += 1;
        let used = entries.uses;
        let statement = PreparedStatement { session, prepared, parameters: None };
        entries.by_handle.insert(handle.clone(), (statement, used));
        Ok(handle)
    }

    /// The statement of `handle` with the parameters bound last.
    pub(crate) fn get(&self, handle: &[u8], who: &Principal) -> Result<PreparedStatement, Status> {
        self.with(handle, who, |statement| statement.clone())
    }

    /// Binds parameters for the runs to come.
    pub(crate) fn bind(&self, handle: &[u8], who: &Principal, parameters: Option<RecordBatch>) -> Result<(), Status> {
        let bytes = parameters.as_ref().map_or(0, RecordBatch::get_array_memory_size);
        if bytes > MOST_PARAMETERS {
            return Err(Status::resource_exhausted(format!(
                "the parameters take {bytes} bytes; a prepared statement keeps at most {MOST_PARAMETERS}\n\
                 hint: Send many rows with bulk ingestion."
            )));
        }
        self.with(handle, who, |statement| statement.parameters = parameters)
    }

    /// Forgets a statement of `who`. One that is gone already is no error.
    pub(crate) fn remove(&self, handle: &[u8], who: &Principal) {
        let Ok(handle) = std::str::from_utf8(handle) else { return };
        let mut entries = self.entries.lock();
        if entries.by_handle.get(handle).is_some_and(|(statement, _)| statement.session.who().is(who)) {
            entries.by_handle.remove(handle);
        }
    }

    /// A handle is of who got it: to others it is as one that there is not.
    fn with<T>(
        &self,
        handle: &[u8],
        who: &Principal,
        f: impl FnOnce(&mut PreparedStatement) -> T,
    ) -> Result<T, Status> {
        let mut entries = self.entries.lock();
        entries.uses += 1;
        let now = entries.uses;
        let entry = std::str::from_utf8(handle).ok().and_then(|handle| entries.by_handle.get_mut(handle));
        let entry = entry.filter(|(statement, _)| statement.session.who().is(who));
        let Some((statement, used)) = entry else {
            return Err(Status::not_found(
                "the prepared statement is not known: it was closed, or the server has started anew\n\
                 hint: Prepare it again.",
            ));
        };
        *used = now;
        Ok(f(statement))
    }
}

/// All rows of `batches` as the one batch that a statement takes.
pub(crate) fn one_batch(batches: &[RecordBatch]) -> Result<Option<RecordBatch>, Status> {
    let Some(first) = batches.first() else { return Ok(None) };
    if batches.len() == 1 {
        return Ok(Some(first.clone()));
    }
    let batch = arrow::compute::concat_batches(first.schema_ref(), batches);
    batch.map(Some).map_err(|e| to_status(&from_flight(FlightError::Arrow(e)), None))
}
