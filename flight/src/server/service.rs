//! The state of a server, over which its calls run.

use std::sync::Arc;

use arrow_flight::sql::metadata::{SqlInfoData, XdbcTypeInfoData};
use millstream_sql::{Millstream, Result as SqlResult, Session};
use tokio::sync::watch;
use tonic::Request;

use super::ServerOptions;
use super::prepared::PreparedStatements;
use super::running::Running;
use super::sessions::Sessions;
use crate::error::from_flight;

/// The state of a server.
pub(crate) struct Service {
    pub(crate) millstream: Arc<Millstream>,
    pub(crate) sessions: Sessions,
    pub(crate) prepared: PreparedStatements,
    pub(crate) running: Running,
    pub(crate) sql_info: SqlInfoData,
    pub(crate) xdbc_types: XdbcTypeInfoData,
}

impl Service {
    pub(crate) fn new(
        millstream: Arc<Millstream>,
        options: ServerOptions,
        stopped: watch::Receiver<bool>,
    ) -> SqlResult<Self> {
        Ok(Service {
            sessions: Sessions::new(Arc::clone(&millstream), options.login),
            prepared: PreparedStatements::default(),
            running: Running::new(stopped),
            sql_info: super::info::sql_info().map_err(from_flight)?,
            xdbc_types: super::info::xdbc_types().map_err(from_flight)?,
            millstream,
        })
    }

    pub(crate) fn session<T>(&self, request: &Request<T>) -> Arc<Session> {
        self.sessions.of(request.metadata(), request.extensions())
    }
}
