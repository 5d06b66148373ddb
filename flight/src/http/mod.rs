//! The HTTP server: rows in and out for all that speaks HTTP.
//!
//! ```text
//! connection ── bounds, silence, shutdown ── routes ──► sql::Session
//!                                              │ post: rows that come in ── body, decode, once
//!                                              │ read: a stream's rows ─┐
//!                                              │ sql: statements        ├ shape, rows: JSON, CSV, Arrow
//!                                              │ changes: events       ─┘
//!                                              └ about, metrics, openapi: what is asked about the server
//! ```
//!
//! Each request has a session of its own. What goes wrong is an `Answer`: a status, and JSON that says the kind,
//! the message and the hint, as errors do everywhere else.

mod about;
mod answer;
mod asked;
mod body;
mod changes;
mod connection;
mod decode;
mod metrics;
mod once;
mod openapi;
mod parameters;
mod post;
mod read;
mod routes;
mod rows;
mod shape;
mod sql;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use millstream_sql::{Millstream, Result, Session};
use tokio::sync::{Semaphore, watch};

pub(crate) use self::answer::Answer;
use crate::doors::{Acceptor, Doors, Peer};
pub(crate) use about::alive;

/// The bounds of a server.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Connections that are open at once; more are turned away.
    pub connections: usize,
    /// The bytes of a request's head.
    pub head_bytes: usize,
    /// The bytes of a body as it comes.
    pub body_bytes: usize,
    /// The bytes of a body that was compressed.
    pub unpacked_bytes: usize,
    /// How long a head may take.
    pub head_time: Duration,
    /// How long nothing may come of a body.
    pub body_silence: Duration,
    /// How long a body may take.
    pub body_time: Duration,
    /// How long a connection may do nothing.
    pub idle: Duration,
    /// How long a client may take nothing of what it asked for.
    pub unread: Duration,
}

impl Default for HttpOptions {
    fn default() -> Self {
        HttpOptions {
            connections: 1024,
            head_bytes: 64 << 10,
            body_bytes: 64 << 20,
            unpacked_bytes: 256 << 20,
            head_time: Duration::from_secs(10),
            body_silence: Duration::from_secs(20),
            body_time: Duration::from_secs(300),
            idle: Duration::from_secs(75),
            unread: Duration::from_secs(120),
        }
    }
}

/// The state of a server.
pub(crate) struct Server {
    millstream: Arc<Millstream>,
    options: HttpOptions,
    /// Turns true when the server is to end.
    stopped: watch::Receiver<bool>,
    doors: Arc<Doors>,
    /// How many bodies are decoded at once.
    decoding: Arc<Semaphore>,
}

/// Who asks.
pub(crate) struct Caller {
    session: Session,
    /// The user's name; empty for anybody.
    user: String,
}

impl Server {
    /// The one place where a request is let in.
    async fn admit(&self, request: &Parts) -> Result<Caller, Answer> {
        let authorization = request.headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
        let peer = request.extensions.get::<Peer>().cloned().unwrap_or_else(Peer::unknown);
        let who = self.doors.admit(authorization, &peer).await.map_err(Answer::unknown)?;
        let user = who.user_name().unwrap_or_default().to_owned();
        Ok(Caller { session: self.millstream.session_of(who), user })
    }
}

/// What is where, for whom `doors` lets in. Results break off when `stopped` turns true.
pub(crate) fn router(doors: Arc<Doors>, options: HttpOptions, stopped: watch::Receiver<bool>) -> Router {
    let decoding = Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(2, |n| n.get().max(2))));
    let millstream = Arc::clone(doors.millstream());
    routes::routes(Arc::new(Server { millstream, options, stopped, doors, decoding }))
}

/// Serves what `router` leads to on the connections of `acceptor`, as [`serve_http`] does, until `stopped` turns true. Requests have
/// what `info` says of their connection among their extensions.
pub(crate) async fn serve_router<I: Clone + Send + Sync + 'static>(
    router: Router,
    acceptor: Acceptor,
    options: HttpOptions,
    stopped: watch::Receiver<bool>,
    info: fn(&Peer) -> I,
) {
    connection::accept(acceptor, router, options, stopped, info).await;
}

/// Serves to whom `doors` lets in on the connections of `acceptor`, until `shutdown` completes. Then results that are being sent break off, requests that
/// are under way may finish within ten seconds, and this returns. The engine stays open.
pub async fn serve_http(
    doors: Arc<Doors>,
    acceptor: Acceptor,
    options: HttpOptions,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    let (stop, stopped) = watch::channel(false);
    let router = router(doors, options.clone(), stopped.clone());
    let serving = serve_router(router, acceptor, options, stopped, Peer::clone);
    tokio::pin!(serving, shutdown);
    tokio::select! {
        () = &mut serving => {}
        () = &mut shutdown => {
            // No receiver means that nothing is left to be stopped.
            let _ = stop.send(true);
            serving.await;
        }
    }
    Ok(())
}
