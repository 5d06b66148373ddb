//! The state of a server, over which its calls run.

use std::sync::Arc;

use arrow_flight::sql::metadata::{SqlInfoData, XdbcTypeInfoData};
use millstream_sql::{Millstream, Result as SqlResult, Session};
use tokio::sync::watch;
use tonic::{Request, Status};

use super::ServerOptions;
use super::connection::ConnectionInfo;
use super::prepared::PreparedStatements;
use super::running::Running;
use super::sessions::{AUTHORIZATION, Caller, Sessions, header};
use crate::doors::{Doors, Peer};
use crate::error::{from_flight, unknown_caller};

/// The state of a server.
pub(crate) struct Service {
    pub(crate) millstream: Arc<Millstream>,
    pub(crate) doors: Doors,
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
            doors: Doors::new(Arc::clone(&millstream), options.token_lifetime)?,
            sessions: Sessions::new(Arc::clone(&millstream)),
            prepared: PreparedStatements::default(),
            running: Running::new(stopped),
            sql_info: super::info::sql_info().map_err(from_flight)?,
            xdbc_types: super::info::xdbc_types().map_err(from_flight)?,
            millstream,
        })
    }

    pub(crate) fn session<T>(&self, request: &Request<T>) -> Result<Arc<Session>, Status> {
        self.sessions.of(request.metadata(), request.extensions())
    }

    /// Finds out who `request` is of, and notes it there. What goes by [`Self::session`] is refused without.
    pub(crate) async fn admit<T>(&self, request: &mut Request<T>) -> Result<(), Status> {
        let authorization = header(request.metadata(), AUTHORIZATION).map(str::to_owned);
        let connection = request.extensions().get::<ConnectionInfo>();
        let peer = connection.map_or_else(Peer::unknown, |connection| connection.peer.clone());
        let who = self.doors.admit(authorization.as_deref(), &peer).await.map_err(|e| unknown_caller(&e))?;
        request.extensions_mut().insert(Caller(who));
        Ok(())
    }
}
