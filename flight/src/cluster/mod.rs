//! Processes that serve one store, as nodes of one cluster.
//!
//! ```text
//! life ── watches the lease in the store ──┬── leads: jobs, statements (Led)
//!                                          └── follows: says what it is to the one that leads (follow, calls)
//! client ── door ──┬── leads: answered here
//!                  └── follows: passed on (upstream, passed)
//! node ─── door ──── calls ──┬── what nodes say of themselves
//!                            └── tasks of jobs, and rows for them (worker, calling)
//! ```
//! There is no list of nodes and no other service: who may open the store is a node, finds the one that leads in the lease, and has
//! the cluster's key (`key.rs`), which lies there too. With TLS, the store says which certificate a node shows (`trust.rs`).

mod advertise;
mod busy;
mod calling;
mod calls;
mod dial;
mod door;
mod follow;
mod key;
mod life;
mod node;
mod passed;
mod trust;
mod upstream;
mod worker;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use millstream_sql::{Error, Result};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

pub use advertise::advertised;
pub use dial::{NodePlace, dial};
pub use node::{NODE_TIMEOUT, Node, NodeOptions, Part};

use crate::doors::{Acceptor, Peer};
use crate::http::serve_router;
use crate::server::{ConnectionInfo, serve_routes};
use door::{Arrival, Door, answer};
use life::Life;
use upstream::Upstream;

/// Serves as `node` on the connections of `flight`, and of `http` where there is that, until `shutdown` completes. Calls `started`
/// when it first plays a part. Then what runs ends as at any server; one that leads commits what its jobs have and hands over.
///
/// Errors where it cannot play a part: no other node, and nobody in its place, is where it says that it is.
pub async fn serve_node(
    node: Arc<Node>,
    flight: Acceptor,
    http: Option<Acceptor>,
    started: impl FnOnce(),
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    let (ends, ended) = watch::channel(false);
    let (begun, has_begun) = oneshot::channel();
    let mut life: JoinHandle<Result<()>> = tokio::spawn(Life::of(Arc::clone(&node), begun).live(ended));
    let serving = serve_doors(&node, flight, http);
    tokio::pin!(serving, shutdown);
    let mut first = Some((has_begun, started));
    let early = loop {
        let begins = async {
            match &mut first {
                Some((has_begun, _)) => has_begun.await.is_ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            begun = begins => if let Some((_, started)) = first.take().filter(|_| begun) {
                started();
            },
            lived = &mut life => break Some(flat(lived)),
            served = &mut serving => return served,
            () = &mut shutdown => break None,
        }
    };
    node.stopped.send_replace(true);
    // Lines to other nodes are open until its jobs have ended.
    let early_served = tokio::select! {
        served = &mut serving => Some(served),
        () = node.busy.idle() => None,
    };
    // No receiver means that its life has ended.
    let _ = ends.send(true);
    let lived = match early {
        Some(lived) => lived,
        None => flat(life.await),
    };
    let served = match early_served {
        Some(served) => served,
        None => serving.await,
    };
    served.and(lived)
}

fn flat(lived: Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    lived.unwrap_or_else(|e| Err(Error::internal(format!("what makes this process a node has ended: {e}"))))
}

/// Answers at both doors until the node is told to end.
async fn serve_doors(node: &Arc<Node>, flight: Acceptor, http: Option<Acceptor>) -> Result<()> {
    let stopped = || node.stopped.subscribe();
    let flight = serve_routes(doors_of(node, Door::Flight), flight, stopped(), Arrival::at);
    match http {
        None => flight.await,
        Some(acceptor) => {
            let router = doors_of(node, Door::Http);
            let http = serve_router(router, acceptor, node.options.http.clone(), stopped(), Arrival::at);
            tokio::try_join!(flight, async {
                http.await;
                Ok(())
            })
            .map(drop)
        }
    }
}

fn doors_of(node: &Arc<Node>, door: Door) -> Router {
    let node = Arc::clone(node);
    Router::new().fallback(move |request: Request| answer(Arc::clone(&node), door, request))
}

impl Arrival {
    /// A connection from `peer` begins.
    fn at(peer: &Peer) -> Self {
        Arrival { info: ConnectionInfo::at(peer), upstream: Upstream::default() }
    }
}
