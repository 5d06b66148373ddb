//! The state of a server, over which its calls run.

use std::sync::Arc;

use arrow_flight::sql::metadata::{SqlInfoData, XdbcTypeInfoData};
use millstream_sql::{Millstream, Result as SqlResult, Session};
use tonic::{Request, Status};

use super::prepared::PreparedStatements;
use super::running::{Ending, Running};
use super::sessions::Sessions;
use crate::doors::Doors;
use crate::error::from_flight;

/// The state of a server.
pub(crate) struct Service {
    pub(crate) millstream: Arc<Millstream>,
    pub(crate) doors: Arc<Doors>,
    pub(crate) sessions: Sessions,
    pub(crate) prepared: PreparedStatements,
    pub(crate) running: Running,
    pub(crate) sql_info: SqlInfoData,
    pub(crate) xdbc_types: XdbcTypeInfoData,
}

impl Service {
    pub(crate) fn new(doors: Arc<Doors>, ending: Ending) -> SqlResult<Self> {
        let millstream = Arc::clone(doors.millstream());
        Ok(Service {
            doors,
            sessions: Sessions::new(Arc::clone(&millstream)),
            prepared: PreparedStatements::new(millstream.budget()),
            running: Running::new(ending),
            sql_info: super::info::sql_info().map_err(from_flight)?,
            xdbc_types: super::info::xdbc_types().map_err(from_flight)?,
            millstream,
        })
    }

    pub(crate) fn session<T>(&self, request: &Request<T>) -> Result<Arc<Session>, Status> {
        self.sessions.of(request.metadata(), request.extensions())
    }
}
