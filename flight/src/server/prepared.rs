//! Prepared statements: what a handle stands for.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_flight::error::FlightError;
use futures::StreamExt;
use futures::stream::BoxStream;
use millstream_engine::memory::{MemoryAccount, MemoryBudget};
use millstream_sql::session::Prepared;
use millstream_sql::{Principal, Result as SqlResult, Session};
use parking_lot::Mutex;
use tonic::Status;

use super::sessions::random_token;
use crate::error::{from_flight, to_status};

/// Handles kept. The one unused for longest goes when there are more: clients may vanish without closing theirs.
const MOST_STATEMENTS: usize = 4096;

/// Parameters kept with a handle until it runs. More rows than fit belong into an ingest.
const MOST_PARAMETERS: usize = 64 << 20;

/// Bytes of texts and parameters that are kept in all; beyond, too, those unused for longest go.
const MOST_BYTES: usize = 256 << 20;

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

impl PreparedStatement {
    fn bytes(&self) -> usize {
        self.prepared.sql.len() + self.parameters.as_ref().map_or(0, RecordBatch::get_array_memory_size)
    }
}

/// The prepared statements of a server, by handle.
pub(crate) struct PreparedStatements {
    entries: Mutex<Entries>,
}

struct Entries {
    by_handle: HashMap<String, (PreparedStatement, u64)>,
    /// Counts uses, to know which was used last.
    uses: u64,
    held: MemoryAccount,
}

impl Entries {
    /// Lets go what is too much.
    fn tidy(&mut self) {
        let mut bytes: usize = self.by_handle.values().map(|(statement, _)| statement.bytes()).sum();
        while self.by_handle.len() > MOST_STATEMENTS || (bytes > MOST_BYTES && self.by_handle.len() > 1) {
            let oldest = self.by_handle.iter().min_by_key(|(_, (_, used))| *used).map(|(handle, _)| handle.clone());
            let gone = oldest.and_then(|handle| self.by_handle.remove(&handle));
            bytes -= gone.map_or(0, |(statement, _)| statement.bytes());
        }
        self.held.set(bytes);
    }
}

impl PreparedStatements {
    /// None yet; what they take is a part of `budget`.
    pub(crate) fn new(budget: &Arc<MemoryBudget>) -> Self {
        let held = budget.account("prepared statements");
        PreparedStatements { entries: Mutex::new(Entries { by_handle: HashMap::new(), uses: 0, held }) }
    }

    /// Keeps a statement and gives its handle.
    pub(crate) fn insert(&self, session: Arc<Session>, prepared: Prepared) -> Result<String, Status> {
        let handle = random_token()?;
        let mut entries = self.entries.lock();
        entries.uses += 1;
        let used = entries.uses;
        let statement = PreparedStatement { session, prepared, parameters: None };
        entries.by_handle.insert(handle.clone(), (statement, used));
        entries.tidy();
        Ok(handle)
    }

    /// The statement of `handle` with the parameters bound last.
    pub(crate) fn get(&self, handle: &[u8], who: &Principal) -> Result<PreparedStatement, Status> {
        self.with(handle, who, |statement| statement.clone())
    }

    /// Binds parameters for the runs to come.
    pub(crate) fn bind(&self, handle: &[u8], who: &Principal, parameters: Option<RecordBatch>) -> Result<(), Status> {
        if parameters.as_ref().is_some_and(|values| values.get_array_memory_size() > MOST_PARAMETERS) {
            return Err(too_many());
        }
        self.with(handle, who, |statement| statement.parameters = parameters)?;
        self.entries.lock().tidy();
        Ok(())
    }

    /// Forgets a statement of `who`. One that is gone already is no error.
    pub(crate) fn remove(&self, handle: &[u8], who: &Principal) {
        let Ok(handle) = std::str::from_utf8(handle) else { return };
        let mut entries = self.entries.lock();
        if entries.by_handle.get(handle).is_some_and(|(statement, _)| statement.session.who().is(who)) {
            entries.by_handle.remove(handle);
            entries.tidy();
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

fn too_many() -> Status {
    Status::resource_exhausted(format!(
        "the parameters take more than the {MOST_PARAMETERS} bytes that a prepared statement keeps\n\
         hint: Send many rows with bulk ingestion."
    ))
}

/// All of `rows` as the one batch that a statement takes.
pub(crate) async fn one_batch(
    mut rows: BoxStream<'static, SqlResult<RecordBatch>>,
) -> Result<Option<RecordBatch>, Status> {
    let (mut batches, mut bytes) = (vec![], 0);
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(|e| to_status(&e, None))?;
        bytes += batch.get_array_memory_size();
        if bytes > MOST_PARAMETERS {
            return Err(too_many());
        }
        batches.push(batch);
    }
    let Some(first) = batches.first() else { return Ok(None) };
    if batches.len() == 1 {
        return Ok(Some(first.clone()));
    }
    let batch = arrow::compute::concat_batches(first.schema_ref(), &batches);
    batch.map(Some).map_err(|e| to_status(&from_flight(FlightError::Arrow(e)), None))
}
