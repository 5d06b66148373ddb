//! What other nodes ask of this one.

use std::sync::Arc;

use arrow_flight::FlightData;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use millstream_engine::Error;
use millstream_engine::runtime::{Landings, Line, Node};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::call::WORDS;
use super::land::land;
use super::words::{Call, word};
use crate::error::to_status;

/// Answers the `DoExchange` calls of other nodes. Whether it is a node that calls is decided before.
#[derive(Clone)]
pub struct Door {
    node: Option<Node>,
    landings: Arc<Landings>,
    cpu: Handle,
}

impl Door {
    /// Jobs of others run on `node`, where there is one; what they send arrives in `landings`, and is decoded on `cpu`.
    pub fn new(node: Option<Node>, landings: Arc<Landings>, cpu: Handle) -> Self {
        Door { node, landings, cpu }
    }

    /// How many tasks of others run here.
    pub fn tasks(&self) -> usize {
        self.node.as_ref().map_or(0, Node::tasks)
    }

    /// Takes a call.
    pub async fn exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<BoxStream<'static, Result<FlightData, Status>>>, Status> {
        let mut line = request.into_inner();
        let first = line.message().await?.ok_or_else(|| Status::invalid_argument("a call that says nothing"))?;
        let descriptor = first.flight_descriptor.unwrap_or_default();
        let call = serde_json::from_slice(&descriptor.cmd);
        let call = call.map_err(|_| Status::invalid_argument("a call that this node does not understand"))?;
        let answers = match call {
            Call::Job => match &self.node {
                Some(node) => job(node.clone(), first.data_body, line),
                None => {
                    let e = Error::unavailable("this node runs jobs of its own, and none of others");
                    return Err(to_status(&e.into(), None));
                }
            },
            Call::Edges { run, from } => {
                let landed = self.landings.land(&run, from).map_err(|e| to_status(&e.into(), None))?;
                land(landed, line, &self.cpu)
            }
        };
        Ok(Response::new(answers))
    }
}

/// Runs a part of a job on `node` until the line ends, or what the node runs on.
fn job(node: Node, order: Bytes, mut line: Streaming<FlightData>) -> BoxStream<'static, Result<FlightData, Status>> {
    let (say, said) = mpsc::channel(WORDS);
    let (tell, hear) = mpsc::channel(WORDS);
    let hearing = async move {
        while let Ok(Some(message)) = line.message().await {
            if tell.send(message.data_body).await.is_err() {
                return;
            }
        }
    };
    let io = node.io().clone();
    io.spawn(async move { node.take_part(order, Line { say, hear }).await });
    io.spawn(hearing);
    ReceiverStream::new(said).map(|said| Ok(word(said))).boxed()
}
