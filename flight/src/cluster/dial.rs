//! Connections from node to node.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use millstream_sql::{Error, ErrorKind, Result};
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

use super::trust::client_config;
use crate::doors::tls::Identity;

/// What may be under way to this node on one stream, and on all of a connection. A stream that is not read must not hold up the others.
const STREAM_WINDOW: u32 = 512 << 10;
const CONNECTION_WINDOW: u32 = 32 << 20;
/// Calls that wait for their connection.
const WAITING: usize = 64;

/// Where a process is, and how it is known there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePlace {
    /// Where it is reached.
    pub address: String,
    /// A name that no other process has.
    pub name: String,
    /// What tells the certificate that it shows, where it speaks TLS.
    pub certificate: Option<String>,
}

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Connects to the node at `place`, which is silent for no longer than `patience`. Shows the certificate `own` where there is TLS.
///
/// Errors with `Unavailable` where nobody answers there, or another than the store says.
pub async fn dial(place: &NodePlace, own: Option<&Identity>, patience: Duration) -> Result<Channel> {
    let passing = |endpoint: Endpoint| {
        endpoint
            .connect_timeout(patience)
            .http2_keep_alive_interval(patience / 2)
            .keep_alive_timeout(patience / 2)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .buffer_size(WAITING)
    };
    dial_by(place, own, passing).await
}

/// The same, over a connection as `fit` makes it.
pub(super) async fn dial_by(
    place: &NodePlace,
    own: Option<&Identity>,
    fit: impl FnOnce(Endpoint) -> Endpoint,
) -> Result<Channel> {
    let NodePlace { address, certificate, .. } = place;
    let tls = match certificate.clone() {
        None => None,
        Some(fingerprint) => {
            let own = own.cloned();
            let loaded = tokio::task::spawn_blocking(move || client_config(&fingerprint, own.as_ref())).await;
            let config = loaded.map_err(|e| Error::internal(format!("certificates were not read: {e}")))??;
            Some(TlsConnector::from(Arc::new(config)))
        }
    };
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|e| Error::invalid(format!("\"{address}\" is not an address: {e}")))?;
    let connector = tower::service_fn(move |uri: Uri| {
        let tls = tls.clone();
        Box::pin(async move { connect(&uri, tls).await.map(TokioIo::new) })
            as Pin<Box<dyn Future<Output = io::Result<_>> + Send>>
    });
    fit(endpoint).connect_with_connector(connector).await.map_err(|e| unreachable(address, &e))
}

async fn connect(uri: &Uri, tls: Option<TlsConnector>) -> io::Result<Box<dyn Wire>> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().ok_or_else(|| io::Error::other("the address names no port"))?;
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(host).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    Ok(Box::new(tls.connect(name, stream).await?))
}

/// Nobody is reached at `address`.
pub(crate) fn unreachable(address: &str, cause: &(dyn std::error::Error + 'static)) -> Error {
    // The deepest cause, as "connection refused", says more than "transport error".
    let deepest = std::iter::successors(Some(cause), |cause| cause.source()).last().unwrap_or(cause);
    Error::new(ErrorKind::Unavailable, format!("node \"{address}\" cannot be reached: {deepest}"))
        .with_hint("See whether it runs, and whether that address leads to it from here.")
}
