//! What nodes say to one another: actions of Flight, behind the proof that the caller has the cluster's key.
//!
//! ```text
//! NodeBeat    what a node is, said to the one that leads, five times in the time in which it may be silent
//! NodeLeave   it ends
//! NodeName    which process answers here
//! ```
//! Tasks of jobs, and rows for them, come as exchanges: see [`crate::exchange`].

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use millstream_engine::nodes::{LiveNode, Node as NodeFigures};
use millstream_sql::{Error, ErrorKind, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::dial::NodePlace;
use super::key::NODE;
use super::node::{Node, Role};
use crate::error::{from_status, to_status};

const BEAT: &str = "NodeBeat";
const LEAVE: &str = "NodeLeave";
const NAME: &str = "NodeName";

/// What a node says of itself.
#[derive(Serialize, Deserialize)]
struct Beat {
    node: NodeFigures,
    /// How long it takes a node to be out.
    timeout_milliseconds: u64,
    /// Whether it is about to end.
    leaves: bool,
}

/// What the one that leads says to that.
#[derive(Serialize, Deserialize)]
pub(super) struct Heard {
    /// All nodes.
    pub(super) nodes: Vec<NodePlace>,
    /// Whether the node is to leave, and has nothing more to do.
    pub(super) leaves: bool,
}

/// Who calls: of one that has ended nothing but its name counts.
#[derive(Serialize, Deserialize)]
struct Name {
    name: String,
}

/// Another node, to be called.
pub(super) struct Other {
    client: FlightServiceClient<Channel>,
    proof: MetadataValue<Ascii>,
    patience: Duration,
}

impl Other {
    /// The one at the other end of `channel`, which takes `proof` and answers within `patience`.
    pub(super) fn new(channel: Channel, proof: MetadataValue<Ascii>, patience: Duration) -> Self {
        Other { client: FlightServiceClient::new(channel), proof, patience }
    }

    /// Says what `node` is.
    pub(super) async fn beat(&self, node: &Node) -> Result<Heard> {
        let (timeout_milliseconds, leaves) = (node.timeout_milliseconds(), *node.stopped.borrow());
        self.call(BEAT, &Beat { node: node.figures(), timeout_milliseconds, leaves }).await
    }

    /// Says that `node` ends.
    pub(super) async fn leave(&self, node: &Node) -> Result<()> {
        self.call::<Name>(LEAVE, &Name { name: node.seat.name().to_owned() }).await.map(drop)
    }

    /// The name of the process that answers.
    pub(super) async fn name(&self) -> Result<String> {
        self.call(NAME, &()).await.map(|Name { name }| name)
    }

    async fn call<T: DeserializeOwned>(&self, action: &str, body: &impl Serialize) -> Result<T> {
        let body = Bytes::from(serde_json::to_vec(body).map_err(|e| Error::internal(e.to_string()))?);
        let mut request = Request::new(Action { r#type: action.to_owned(), body });
        request.metadata_mut().insert(NODE, self.proof.clone());
        let mut client = self.client.clone();
        let answer = async { client.do_action(request).await?.into_inner().next().await.transpose() };
        let silent = |_| Error::new(ErrorKind::Unavailable, format!("no answer within {:?}", self.patience));
        let answer = tokio::time::timeout(self.patience, answer).await.map_err(silent)?;
        let answer = answer.map_err(|status| from_status(&status))?;
        let answer = answer.ok_or_else(|| Error::internal("a node has sent an empty answer"))?;
        serde_json::from_slice(&answer.body)
            .map_err(|e| Error::internal(format!("a node's answer is not readable: {e}")))
    }
}

/// What a node answers to others.
pub(super) struct NodeCalls(pub(super) Arc<Node>);

impl NodeCalls {
    fn answer(&self, action: &Action) -> Result<Vec<u8>> {
        let read = |e: serde_json::Error| Error::invalid(format!("what a node has said is not readable: {e}"));
        let written = |e: serde_json::Error| Error::internal(e.to_string());
        match action.r#type.as_str() {
            BEAT => {
                let heard = self.heard(serde_json::from_slice(&action.body).map_err(read)?)?;
                serde_json::to_vec(&heard).map_err(written)
            }
            LEAVE => {
                let gone: Name = serde_json::from_slice(&action.body).map_err(read)?;
                if let Role::Leads(led) = &*self.0.role.borrow()
                    && let Some(node) = led.nodes.left(&gone.name)
                {
                    tracing::info!(node, "a node has left");
                }
                Ok(action.body.to_vec())
            }
            NAME => serde_json::to_vec(&Name { name: self.0.seat.name().to_owned() }).map_err(written),
            other => Err(Error::unsupported(format!("nodes of this version do not say \"{other}\""))),
        }
    }

    fn heard(&self, beat: Beat) -> Result<Heard> {
        let own = &self.0;
        let Role::Leads(led) = own.role.borrow().clone() else {
            let message = format!("node \"{}\" does not lead", own.address());
            return Err(Error::new(ErrorKind::Unavailable, message));
        };
        let term = own.term();
        check_version(&beat.node.address, &beat.node.version, &term.address, &term.version)?;
        check_timeout(beat.timeout_milliseconds, &term.address, term.timeout_milliseconds)?;
        let (name, address) = (beat.node.name.clone(), beat.node.address.clone());
        if led.nodes.heard(beat.node)? {
            tracing::info!(node = %address, "a node has joined");
        }
        if beat.leaves {
            led.nodes.drain(&address)?;
        }
        let place = |LiveNode { node: NodeFigures { address, name, certificate, .. }, .. }| NodePlace {
            address,
            name,
            certificate,
        };
        let nodes: Vec<NodePlace> = led.nodes.live().into_iter().map(place).collect();
        own.calling.know(nodes.clone());
        Ok(Heard { nodes, leaves: led.nodes.may_leave(&name) })
    }
}

/// Nodes of one cluster are of one version.
pub(super) fn check_version(node: &str, version: &str, leader: &str, leaders: &str) -> Result<()> {
    if version == leaders {
        return Ok(());
    }
    let message =
        format!("node \"{node}\" is of version {version}, and node \"{leader}\", which leads, of version {leaders}");
    Err(Error::new(ErrorKind::Fenced, message)
        .with_hint("Nodes of one cluster are of one version: end the others, or start this one with theirs."))
}

/// They agree for how long one may be silent.
pub(super) fn check_timeout(milliseconds: u64, leader: &str, leaders: u64) -> Result<()> {
    if milliseconds == leaders {
        return Ok(());
    }
    let message = format!(
        "--node-timeout is {milliseconds} ms here, and {leaders} ms at node \"{leader}\", which leads: nodes of one cluster agree"
    );
    Err(Error::new(ErrorKind::Fenced, message).with_hint(format!("Write --node-timeout {leaders}ms, or nothing.")))
}

type Stream<T> = BoxStream<'static, Result<T, Status>>;

fn clients_only<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("nodes do not ask one another for this"))
}

#[tonic::async_trait]
impl FlightService for NodeCalls {
    type HandshakeStream = Stream<HandshakeResponse>;
    type ListFlightsStream = Stream<FlightInfo>;
    type DoGetStream = Stream<FlightData>;
    type DoPutStream = Stream<PutResult>;
    type DoActionStream = Stream<arrow_flight::Result>;
    type ListActionsStream = Stream<ActionType>;
    type DoExchangeStream = Stream<FlightData>;

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let body = self.answer(request.get_ref()).map_err(|e| to_status(&e, None))?;
        let answer = arrow_flight::Result { body: body.into() };
        Ok(Response::new(stream::iter([Ok(answer)]).boxed()))
    }

    async fn handshake(
        &self,
        _request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        clients_only()
    }

    async fn list_flights(&self, _request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        clients_only()
    }

    async fn get_flight_info(&self, _request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        clients_only()
    }

    async fn poll_flight_info(&self, _request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        clients_only()
    }

    async fn get_schema(&self, _request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        clients_only()
    }

    async fn do_get(&self, _request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        clients_only()
    }

    async fn do_put(&self, _request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        clients_only()
    }

    async fn list_actions(&self, _request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        clients_only()
    }

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        match self.0.exchange_door() {
            Some(door) => door.exchange(request).await,
            None => Err(to_status(&self.0.without_leader("it has just begun to look for one"), None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nodes_do_not_agree_in_is_named() {
        check_version("a:1", "1.0", "b:1", "1.0").expect("one version");
        let e = check_version("a:1", "1.0", "b:1", "1.1").expect_err("two versions");
        assert!(["a:1", "1.0", "b:1", "1.1"].iter().all(|part| e.message().contains(part)), "{e}");
        check_timeout(500, "b:1", 500).expect("they agree");
        let e = check_timeout(500, "b:1", 5000).expect_err("they do not");
        assert!(e.message().contains("500 ms") && e.message().contains("5000 ms"), "{e}");
        assert!(e.hint().is_some_and(|hint| hint.contains("--node-timeout 5000ms")));
    }
}
