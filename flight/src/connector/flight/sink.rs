//! Putting rows into a stored stream of another server, exactly once.
//!
//! What a checkpoint commits here is one delivery: it goes in there whole, in one epoch, and the stream there keeps what it has
//! taken of whom in the manifest that commits it. So what is sent again, since nobody said that it was taken, is acknowledged
//! and not taken. While the other side does not answer it is asked again and again; the query waits when too much lies here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::stream;
use millstream_engine::changelog::{Outgoing, op_schema};
use millstream_engine::connector::lag::Lag;
use millstream_engine::connector::outbox::Parcel;
use millstream_engine::connector::registry::SinkRequest;
use millstream_engine::connector::{Figure, Sink, ask};
use millstream_engine::error::{Error, Result};
use millstream_sql::session::Delivery;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::messages::{Messages, Packed, schema_message};
use super::options::{Target, engine_error, take_target};
use super::shape::may_pass;
use crate::client::FlightClient;
use crate::connector::backoff::Backoff;
use crate::connector::dispatch::{Carrier, Consignment, Dispatch};
use crate::connector::link::LinkState;

/// Messages read ahead of the line.
const READ_AHEAD: usize = 4;

/// Checks that the other side takes what `request` asks for.
pub(super) fn check(request: SinkRequest) -> Result<()> {
    let owner = request.options.owner().to_owned();
    let link = Link::new(request)?;
    let look = async move {
        let client = link.target.remote.connect().await?;
        let messages = stream::iter([schema_message(&link.sent)]);
        client.deliver(&link.target.stream, &link.delivery, messages).await.map_err(engine_error)
    };
    ask(look).map(drop).map_err(|e| e.context(owner))
}

/// Opens the sink that `request` describes; connects to nobody yet.
pub(super) fn open(request: SinkRequest) -> Result<Arc<dyn Sink>> {
    let link = Link::new(request)?;
    let most = link.target.buffer_bytes;
    Ok(Arc::new(Dispatch::new(link, most)))
}

/// Carries what is committed to the other side.
struct Link {
    /// The stream here.
    stream: String,
    target: Target,
    /// The columns of the query, and how they are sent.
    schema: SchemaRef,
    sent: SchemaRef,
    key: Option<Vec<usize>>,
    /// One without a sender.
    delivery: Delivery,
    /// The connection, while it is good.
    client: Mutex<Option<FlightClient>>,
    state: LinkState,
    delivered: AtomicU64,
    breaks: AtomicU64,
}

impl Link {
    fn new(request: SinkRequest) -> Result<Self> {
        let SinkRequest { stream, schema, retracts, key, options, .. } = request;
        let target = take_target(options)?;
        let sent = if retracts { op_schema(&schema) } else { schema.clone() };
        let name = |at: &usize| schema.field(*at).name().clone();
        let names = key.as_ref().map(|key| key.iter().map(name).collect());
        let delivery = Delivery {
            sender: String::new(),
            checkpoint: 0,
            run: String::new(),
            rows: 0,
            changelog: retracts,
            key: names,
        };
        let (client, state, delivered, breaks) = Default::default();
        Ok(Link { stream, target, schema, sent, key, delivery, client, state, delivered, breaks })
    }

    /// Sends `consignment` once.
    async fn send(&self, consignment: &Consignment) -> Result<()> {
        let kept = self.client.lock().take();
        let client = match kept {
            Some(client) => client,
            None => self.target.remote.connect().await?,
        };
        let (checkpoint, run) = consignment.parcels.first().map(Parcel::sealed_for).unwrap_or_default();
        let delivery = Delivery {
            sender: consignment.sender.clone(),
            checkpoint,
            run: run.to_owned(),
            rows: consignment.parcels.iter().map(|parcel| parcel.rows).sum(),
            ..self.delivery.clone()
        };
        let (told, messages) = mpsc::channel(READ_AHEAD);
        let paths: Vec<_> = consignment.parcels.iter().map(|parcel| consignment.outbox.path(parcel)).collect();
        let first = schema_message(&self.sent);
        let reading = spawn_blocking(move || {
            // Who has gone needs no more.
            let mut going = told.blocking_send(first).is_ok();
            for path in paths {
                let mut parcel = Packed::open(&path)?;
                while going && let Some(message) = parcel.next()? {
                    going = told.blocking_send(message).is_ok();
                }
            }
            Ok::<_, Error>(())
        });
        let messages = stream::unfold(messages, |mut messages| async move { Some((messages.recv().await?, messages)) });
        let taken = client.deliver(&self.target.stream, &delivery, messages).await.map_err(engine_error);
        // That a parcel cannot be read is the better reason.
        reading.await.map_err(|e| Error::internal(format!("a parcel was not read: {e}")))??;
        taken.map(|_| *self.client.lock() = Some(client))
    }
}

#[async_trait]
impl Carrier for Link {
    type Packer = Messages;

    fn stream(&self) -> &str {
        &self.stream
    }

    fn packer(&self) -> Result<(Messages, Outgoing)> {
        let outgoing = Outgoing::new(self.schema.clone(), self.delivery.changelog, self.key.clone());
        Ok((Messages::new(&self.sent, self.target.remote.compression)?, outgoing))
    }

    async fn carry(&self, consignment: &Consignment) -> Result<usize> {
        let mut letting_go = consignment.letting_go.clone();
        let mut backoff = Backoff::new(self.target.remote.longest);
        loop {
            let sent = tokio::select! {
                sent = self.send(consignment) => sent,
                _ = letting_go.wait_for(|letting_go| *letting_go) => return Ok(0),
            };
            let e = match sent {
                Ok(()) => {
                    let rows = consignment.parcels.iter().map(|parcel| parcel.rows).sum();
                    self.delivered.fetch_add(rows, Ordering::Relaxed);
                    self.state.connected();
                    return Ok(consignment.parcels.len());
                }
                Err(e) => e,
            };
            self.state.lost(e.message());
            if !may_pass(&e) {
                let hint = "Mend the other side or the query, then RESUME STREAM: the same rows are sent again.";
                let hint = e.hint().map_or_else(|| hint.to_owned(), |own| format!("{own} {hint}"));
                let context = format!("stream \"{}\" cannot put rows into \"{}\"", self.stream, self.target.stream);
                return Err(e.context(context).with_hint(hint));
            }
            self.breaks.fetch_add(1, Ordering::Relaxed);
            let wait = backoff.delay()?;
            let (stream, millis) = (&self.stream, wait.as_millis());
            tracing::warn!(%stream, error = %e, "rows are not taken and are sent again in {millis} ms");
            tokio::select! {
                () = sleep(wait) => {}
                _ = letting_go.wait_for(|letting_go| *letting_go) => return Ok(0),
            }
        }
    }

    fn link(&self) -> Lag {
        self.state.lag()
    }

    fn figures(&self) -> Vec<Figure> {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        vec![Figure::count("rows_delivered", read(&self.delivered)), Figure::count("breaks", read(&self.breaks))]
    }

    fn describe(&self) -> String {
        format!("stream \"{}\" at {}", self.target.stream, self.target.remote.url)
    }
}
