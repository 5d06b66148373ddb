//! A request at a node: answered here where this one leads, else passed on to the one that does.
//!
//! ```text
//! client ── authorization ──► node ── authorization, proof of the node, the client's address and certificate ──► the one that leads
//! ```
//! What is passed on is not looked at: statements, rows that come, changes that go and everything else go the same way. Who leads
//! believes the address and the certificate of a client because a node says them, and decides itself who that client is. A
//! request that has been passed on once is not passed on again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_flight::flight_service_server::FlightServiceServer;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use millstream_sql::{Error, ErrorKind};
use tonic::codegen::Service;
use tower::ServiceExt;

use super::calls::NodeCalls;
use super::key::NODE;
use super::node::{Leader, Led, Node, Role, turned};
use super::passed::{Coming, Going};
use super::upstream::Upstream;
use crate::doors::Peer;
use crate::error::{to_status, unknown_caller};
use crate::exchange::LARGEST;
use crate::http::Answer;
use crate::server::ConnectionInfo;

/// The headers with the address of a client, the name in its certificate, and the door that it came to.
const CLIENT: &str = "x-millstream-client";
const CERTIFICATE: &str = "x-millstream-certificate";
const DOOR: &str = "x-millstream-door";

/// Headers that are about one connection.
const OF_CONNECTION: [HeaderName; 6] = [
    CONNECTION,
    HOST,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// How long until somebody who could not be reached is tried again.
const AGAIN: Duration = Duration::from_millis(100);
/// How long an answer may go on that is being sent when this node ends.
const ENDS: Duration = Duration::from_millis(250);

/// Where a client comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Flight,
    Http,
}

/// What is known of the connection that a request comes over.
#[derive(Clone)]
pub(super) struct Arrival {
    pub(super) info: ConnectionInfo,
    pub(super) upstream: Upstream,
}

/// Who sends a request.
enum Sender {
    Client,
    /// A node for itself.
    Node,
    /// A node for a client that came to its door.
    For(Peer, Door),
}

/// Answers a request that has come to `door`.
pub(super) async fn answer(node: Arc<Node>, door: Door, mut request: Request) -> Response {
    let Some(arrival) = request.extensions_mut().remove::<Arrival>() else {
        return refused(door, &Error::internal("nothing is known of the connection"));
    };
    match sender(&node, door, request.headers_mut()) {
        Err(e) => refused(door, &e),
        Ok(Sender::Client) => {
            let answering = node.busy.begin();
            answering.with(answer_client(&node, door, &arrival, request).await)
        }
        Ok(Sender::Node) => {
            let mut calls = FlightServiceServer::new(NodeCalls(node)).max_decoding_message_size(LARGEST);
            let Ok(answer) = calls.call(request.map(tonic::body::Body::new)).await;
            answer.map(Body::new)
        }
        Ok(Sender::For(peer, door)) => {
            let answering = node.busy.begin();
            let role = node.role.borrow().clone();
            let Role::Leads(led) = role else {
                return refused(door, &node.without_leader("it is not this one any more"));
            };
            answering.with(led.answer(door, ConnectionInfo { peer, ..arrival.info }, request).await)
        }
    }
}

/// Takes off the headers that nodes send. A client that sends some is not believed.
fn sender(node: &Node, door: Door, headers: &mut HeaderMap) -> Result<Sender, Error> {
    let (proof, client) = (headers.remove(NODE), headers.remove(CLIENT));
    let (certificate, at) = (headers.remove(CERTIFICATE), headers.remove(DOOR));
    let Some(proof) = proof.filter(|_| door == Door::Flight) else { return Ok(Sender::Client) };
    if !node.key.is_proven(proof.as_bytes(), node.seat.name()) {
        let message = format!("node \"{}\" is of a cluster with another key", node.address());
        return Err(Error::new(ErrorKind::Denied, message).with_hint(
            "Nodes have one store: see that --store names the same, and that nothing has changed its cluster/key.",
        ));
    }
    let text = |value: HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let Some(client) = client.map(text) else { return Ok(Sender::Node) };
    let peer = Peer { address: client.into(), certificate: certificate.map(|name| text(name).into()) };
    let door = if at.is_some_and(|at| at == "http") { Door::Http } else { Door::Flight };
    Ok(Sender::For(peer, door))
}

/// Answers a client as soon as somebody leads, within bounds.
async fn answer_client(node: &Arc<Node>, door: Door, arrival: &Arrival, request: Request) -> Response {
    if door == Door::Http && request.uri().path() == "/healthz" && !matches!(*node.role.borrow(), Role::Leads(_)) {
        // This process answers, whoever leads.
        return crate::http::alive(request).await.into_response();
    }
    let (mut role, until) = (node.role.subscribe(), node.patience());
    loop {
        let now = role.borrow_and_update().clone();
        let why = match now {
            Role::Leads(led) => return led.answer(door, arrival.info.clone(), request).await,
            Role::Seeks(why) => node.without_leader(&why),
            Role::Follows(leader) => match arrival.upstream.to(&leader, node).await {
                Ok(channel) => return pass_on(node, door, arrival, &leader, channel, request).await,
                Err(e) => e,
            },
        };
        if Instant::now() >= until || *node.stopped.borrow() {
            return refused(door, &why);
        }
        tokio::select! {
            _ = role.changed() => {}
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

impl Led {
    async fn answer(&self, door: Door, info: ConnectionInfo, mut request: Request) -> Response {
        match door {
            Door::Flight => {
                request.extensions_mut().insert(info);
                let Ok(answer) = self.flight.clone().call(request.map(tonic::body::Body::new)).await;
                answer.map(Body::new)
            }
            Door::Http => {
                request.extensions_mut().insert(info.peer);
                let Ok(answer) = self.http.clone().oneshot(request).await;
                answer
            }
        }
    }
}

async fn pass_on(
    node: &Arc<Node>,
    door: Door,
    arrival: &Arrival,
    leader: &Arc<Leader>,
    channel: tonic::transport::Channel,
    request: Request,
) -> Response {
    let (version, lost) = (request.version(), node.lost_leader(&leader.place.address));
    let request = match passed_on(leader, door, &arrival.info.peer, request) {
        Ok(request) => request,
        Err(e) => return refused(door, &e),
    };
    let (mut stopped, mut gone, own) = (node.stopped.subscribe(), leader.gone.clone(), Arc::clone(node));
    let (ended, mut lost_now) = (to_status(&lost, None), leader.gone.clone());
    let ends = {
        let ended = ended.clone();
        async move {
            tokio::select! {
                () = turned(&mut gone) => ended,
                () = turned(&mut stopped) => {
                    // An answer that has begun may be about to end.
                    tokio::time::sleep(ENDS).await;
                    to_status(&own.ends_here(), None)
                }
            }
        }
    };
    // Where this node ends, what has not been answered may still be, for as long as at any server.
    let answer = tokio::select! {
        answer = channel.oneshot(request) => answer,
        () = turned(&mut lost_now) => return refused(door, &lost),
    };
    match answer {
        Ok(answer) => {
            let (mut parts, body) = answer.into_parts();
            OF_CONNECTION.iter().for_each(|name| drop(parts.headers.remove(name)));
            parts.version = version;
            let (upstream, is_grpc) = (arrival.upstream.clone(), door == Door::Flight);
            let ends = ends.boxed();
            let going = Going { body, ends, lost: ended, is_grpc, upstream, over: false };
            Response::from_parts(parts, Body::new(going))
        }
        Err(e) => {
            tracing::debug!(error = %e, "a request that was passed on broke off");
            arrival.upstream.forget();
            refused(door, &lost)
        }
    }
}

/// A request as it goes to `leader`.
fn passed_on(
    leader: &Leader,
    door: Door,
    peer: &Peer,
    request: Request,
) -> Result<axum::http::Request<tonic::body::Body>, Error> {
    let (mut parts, body) = request.into_parts();
    OF_CONNECTION.iter().for_each(|name| drop(parts.headers.remove(name)));
    let odd = |what: &str| Error::invalid(format!("{what} of the client cannot be passed on"));
    let value = |text: &str, what| HeaderValue::from_bytes(text.as_bytes()).map_err(|_| odd(what));
    let proof = HeaderValue::from_bytes(leader.proof.as_bytes()).map_err(|_| odd("the proof"))?;
    parts.headers.insert(NODE, proof);
    parts.headers.insert(CLIENT, value(&peer.address, "the address")?);
    if let Some(name) = &peer.certificate {
        parts.headers.insert(CERTIFICATE, value(name, "the certificate")?);
    }
    parts.headers.insert(DOOR, HeaderValue::from_static(if door == Door::Http { "http" } else { "flight" }));
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = path.parse::<Uri>().map_err(|_| odd("the path"))?;
    parts.version = Version::HTTP_2;
    parts.extensions.clear();
    Ok(axum::http::Request::from_parts(parts, tonic::body::Body::new(Coming { body, over: false })))
}

fn refused(door: Door, e: &Error) -> Response {
    match door {
        Door::Flight => unknown_caller(e).into_http(),
        Door::Http => Answer::from(e.again()).into_response(),
    }
}
