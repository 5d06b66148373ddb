//! Calling another node.

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, FlightDescriptor};
use async_trait::async_trait;
use bytes::Bytes;
use millstream_engine::runtime::{Line, gone_away};
use millstream_engine::{Error, Result};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use super::words::{Call, word};
use crate::error::from_status;

/// Messages that wait to be sent.
pub(super) const WAITING: usize = 4;
/// Words that wait at either end of a job line.
pub(super) const WORDS: usize = 64;
/// What may be on the way to a reader that takes all at once.
pub(super) const WINDOW: u32 = 4 << 20;
/// The largest message. A row stands in one.
pub(crate) const LARGEST: usize = 1 << 30;

/// How other nodes are reached, and what convinces them that a node calls.
#[async_trait]
pub trait Calling: Send + Sync {
    /// A connection of its own to the node at `address`, `HOST:PORT`, fit for lines with a node that is silent for
    /// no longer than `node_timeout`.
    async fn connect(&self, address: &str, node_timeout: Duration) -> Result<Channel>;

    /// Puts into the headers of a call what the node at `address` wants to see.
    fn sign(&self, address: &str, headers: &mut MetadataMap) -> Result<()>;

    /// The node at `address` did not want to see that: another process may be there by now, of which is to be found out.
    fn refused(&self, address: &str);
}

/// `endpoint` for lines with a node that is silent for no longer than `node_timeout`.
pub(crate) fn for_lines(endpoint: Endpoint, node_timeout: Duration) -> Endpoint {
    endpoint
        .connect_timeout(node_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(node_timeout / 2)
        .keep_alive_timeout(node_timeout / 2)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
}

/// Nodes that trust their network: no TLS, and no key.
#[derive(Clone, Copy, Debug)]
pub struct InTheClear;

#[async_trait]
impl Calling for InTheClear {
    async fn connect(&self, address: &str, node_timeout: Duration) -> Result<Channel> {
        let wrong = |e| Error::invalid(format!("\"{address}\" is no address of a node")).with_source(e);
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(wrong)?;
        let connected = for_lines(endpoint, node_timeout).connect().await;
        connected.map_err(|e| Error::unavailable(format!("{e:?}")))
    }

    fn sign(&self, _address: &str, _headers: &mut MetadataMap) -> Result<()> {
        Ok(())
    }

    fn refused(&self, _address: &str) {}
}

/// A line that the other node has taken.
pub(super) struct Taken {
    pub(super) send: mpsc::Sender<FlightData>,
    pub(super) answers: Streaming<FlightData>,
}

/// Opens a line that begins with `call` and `body`, over a connection of its own.
pub(super) async fn open(
    calling: &Arc<dyn Calling>,
    io: &Handle,
    address: &str,
    call: &Call,
    body: Bytes,
    node_timeout: Duration,
) -> Result<Taken> {
    let first = FlightDescriptor::new_cmd(serde_json::to_vec(call)?);
    let first = FlightData::new().with_descriptor(first).with_data_body(body);
    let mut answered = begin(calling, io, address, first.clone(), node_timeout).await?;
    if answered.as_ref().is_err_and(|status| status.code() == Code::Unauthenticated) {
        calling.refused(address);
        answered = begin(calling, io, address, first, node_timeout).await?;
    }
    match answered {
        Ok(taken) => Ok(taken),
        Err(status) if is_break(&status) => Err(gone_away(address, "has gone")),
        Err(status) if status.code() == Code::Unauthenticated => Err(gone_away(address, "is another process by now")),
        Err(status) => Err(from_status(&status).to_engine()),
    }
}

/// Tries to open a line with the message `first`; gives why it was not taken.
///
/// Errors where the other node is not reached.
async fn begin(
    calling: &Arc<dyn Calling>,
    io: &Handle,
    address: &str,
    first: FlightData,
    node_timeout: Duration,
) -> Result<Result<Taken, Status>> {
    let (send, sent) = mpsc::channel(WAITING);
    let mut request = Request::new(tokio_stream::once(first).chain(ReceiverStream::new(sent)));
    let (calling, to) = (calling.clone(), address.to_owned());
    // The connection lives where it was made.
    let opening = io.spawn(async move {
        let channel = calling.connect(&to, node_timeout).await?;
        calling.sign(&to, request.metadata_mut())?;
        let mut client = FlightServiceClient::new(channel).max_decoding_message_size(LARGEST);
        Ok::<_, Error>(client.do_exchange(request).await)
    });
    let answered = opening.await.map_err(|_| gone_away(address, "cannot be called"))?;
    let answered = answered.map_err(|why| {
        tracing::debug!(%address, %why, "a node cannot be reached");
        gone_away(address, "cannot be reached")
    })?;
    Ok(answered.map(|response| Taken { send, answers: response.into_inner() }))
}

/// Whether `status` was made by a connection that broke.
fn is_break(status: &Status) -> bool {
    std::error::Error::source(status).is_some() || matches!(status.code(), Code::Unavailable | Code::Unknown)
}

/// Opens a job line that begins with `order`.
pub(super) async fn call(
    calling: &Arc<dyn Calling>,
    io: &Handle,
    address: &str,
    order: Bytes,
    node_timeout: Duration,
) -> Result<Line> {
    let Taken { send, mut answers } = open(calling, io, address, &Call::Job, order, node_timeout).await?;
    let (say, mut said) = mpsc::channel::<Bytes>(WORDS);
    let (tell, hear) = mpsc::channel(WORDS);
    io.spawn(async move {
        while let Some(said) = said.recv().await {
            if send.send(word(said)).await.is_err() {
                return;
            }
        }
    });
    io.spawn(async move {
        loop {
            let answer = tokio::select! {
                answer = answers.message() => answer,
                // Dropping the answers ends the call.
                () = tell.closed() => return,
            };
            let Ok(Some(answer)) = answer else { return };
            if tell.send(answer.data_body).await.is_err() {
                return;
            }
        }
    });
    Ok(Line { say, hear })
}
