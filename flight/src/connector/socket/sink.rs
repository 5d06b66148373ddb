//! Writing rows to sockets: which way.

use std::sync::Arc;

use millstream_engine::connector::Sink;
use millstream_engine::connector::registry::SinkRequest;
use millstream_engine::error::Result;

use super::broadcast::ListenerSink;
use super::courier::ClientSink;
use super::options::{Writing, take_sink};
use super::rows::Rows;
use super::throw::DatagramSink;

/// Opens the sink that `request` describes; connects to nobody yet.
pub(super) fn open(mut request: SinkRequest) -> Result<Arc<dyn Sink>> {
    let (writing, wording) = take_sink(&mut request)?;
    let rows = Rows::new(request, wording);
    Ok(match writing {
        Writing::Client { dialer, longest, buffer_bytes, resend_for } => {
            Arc::new(ClientSink::new(rows, dialer, longest, buffer_bytes, resend_for))
        }
        Writing::Listener { listening, buffer_bytes } => Arc::new(ListenerSink::new(rows, listening, buffer_bytes)),
        Writing::Datagrams { address, max_bytes, rate } => Arc::new(DatagramSink::new(rows, address, max_bytes, rate)),
    })
}
