//! The Flight SQL server.
//!
//! ```text
//! doors ── admission (who is it) ── gateway (session) ── calls ──► sql::Session
//!                                                      │ statement: tickets, rows, changes
//!                                                      │ prepared: handles and their parameters
//!                                                      │ ingest: rows that come in
//!                                                      │ actions, options: cancelling, the session's settings
//!                                                      │ metadata, info: what clients ask about the server
//!                                                      └ running: cancels queries, ends them at shutdown
//! ```

mod actions;
mod admission;
mod calls;
mod connection;
mod delivery;
mod gateway;
mod info;
mod ingest;
mod metadata;
mod options;
mod parameters;
mod prepared;
mod running;
mod service;
mod sessions;
mod statement;
mod subscribe;
mod whole;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use axum::Router;
use millstream_sql::{Error, ErrorKind, Millstream, Result};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::Server;

pub(crate) use actions::FOLLOW_FAILURES;
pub(crate) use connection::ConnectionInfo;
pub(crate) use delivery::DELIVERY;
pub(crate) use metadata::object_of_table;
pub(crate) use running::Ending;

use crate::doors::{Acceptor, Doors, DoorsOptions, Peer};
use admission::Admitted;
use gateway::Gateway;
use service::Service;
use whole::WholeRequests;

/// What a client may send ahead on one stream. Far less than [`CONNECTION_WINDOW`]: an ingest that has to wait
/// for the engine fills its own window and must leave room for the other streams of its connection.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;

/// The largest message taken: clients send a whole batch of an ingest as one.
const LARGEST_REQUEST: usize = 512 << 20;

/// All headers of a request together: tokens are long, statements are no headers.
const LARGEST_HEADERS: u32 = 64 << 10;

/// How long a silent connection is trusted, so that the feeds of a client that vanished are dropped.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// How long statements may go on after shutdown was asked for. Rows and changes end at once.
const GRACE: Duration = Duration::from_secs(10);

/// Serves `millstream` on `listener` without TLS until `shutdown` completes: see [`serve_with`].
pub async fn serve(
    millstream: Arc<Millstream>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    let doors = Doors::new(millstream, DoorsOptions::default())?;
    serve_with(Arc::new(doors), Acceptor::new(listener, None), shutdown).await
}

/// Serves to whom `doors` lets in on the connections of `acceptor`, until `shutdown` completes. Then running queries end with
/// `Unavailable`, statements may finish within ten seconds, and this returns. The engine stays open.
pub async fn serve_with(
    doors: Arc<Doors>,
    acceptor: Acceptor,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    let (stop, stopped) = watch::channel(false);
    let routes = Routes::new(stack(doors, Ending::of(stopped.clone()))?);
    let serving = serve_until(routes, acceptor, stopped, ConnectionInfo::at);
    tokio::pin!(serving, shutdown);
    tokio::select! {
        served = &mut serving => served,
        () = &mut shutdown => {
            // No receiver means that nothing is left to be stopped.
            let _ = stop.send(true);
            serving.await
        }
    }
}

/// The whole Flight service, for whom `doors` lets in.
pub(crate) type Stack = Admitted<WholeRequests<FlightServiceServer<Gateway>>>;

/// See [`Stack`]. Its queries end with the `ending`.
pub(crate) fn stack(doors: Arc<Doors>, ending: Ending) -> Result<Stack> {
    let budget = Arc::clone(doors.millstream().budget());
    let service = Service::new(Arc::clone(&doors), ending)?;
    let service = FlightServiceServer::new(Gateway::new(service)).max_decoding_message_size(LARGEST_REQUEST);
    Ok(Admitted { doors, service: WholeRequests { service, budget } })
}

/// Serves what `router` leads to on the connections of `acceptor`, as [`serve_with`] does, until `stopped` turns true. Requests have
/// what `info` says of their connection among their extensions.
pub(crate) async fn serve_routes<I: Clone + Send + Sync + Unpin + 'static>(
    router: Router,
    acceptor: Acceptor,
    stopped: watch::Receiver<bool>,
    info: fn(&Peer) -> I,
) -> Result<()> {
    serve_until(Routes::from(router), acceptor, stopped, info).await
}

async fn serve_until<I: Clone + Send + Sync + Unpin + 'static>(
    routes: Routes,
    acceptor: Acceptor,
    stopped: watch::Receiver<bool>,
    info: fn(&Peer) -> I,
) -> Result<()> {
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(LARGEST_HEADERS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_routes(routes)
        .serve_with_incoming_shutdown(connection::incoming(acceptor, info), asked(stopped.clone()));
    tokio::select! {
        served = server => served.map_err(|e| Error::new(ErrorKind::Unavailable, e.to_string()).with_source(e)),
        () = grace(stopped) => {
            tracing::warn!("statements still running {}s after shutdown was asked for are dropped", GRACE.as_secs());
            Ok(())
        }
    }
}

/// Completes when shutdown was asked for.
async fn asked(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone with the server: the same as stopped.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Completes when shutdown was asked for [`GRACE`] ago.
async fn grace(stopped: watch::Receiver<bool>) {
    asked(stopped).await;
    tokio::time::sleep(GRACE).await;
}
