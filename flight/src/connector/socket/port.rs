//! Addresses to listen on. An earlier run of a job may not have let go of one yet, so it is asked for some times.

use std::io;
use std::net::UdpSocket;
use std::time::Duration;

use millstream_engine::error::{Error, Result};
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::connector::wire::Address;

/// How often, and after which waits.
const TRIES: usize = 20;
const WAIT: Duration = Duration::from_millis(100);

/// Listens on `address` for connections.
///
/// Errors when that is not to be had.
pub(super) async fn listen(address: &Address, stream: &str) -> Result<TcpListener> {
    let listener = take(address, stream, async |host, port| TcpListener::bind((host, port)).await).await?;
    let shown = listener.local_addr().map_or_else(|_| address.to_string(), |a| a.to_string());
    tracing::info!(%stream, address = %shown, "listening");
    Ok(listener)
}

/// Takes `address` for datagrams. Who receives waits for them.
///
/// Errors when that is not to be had.
pub(super) async fn receive_at(address: &Address, stream: &str) -> Result<UdpSocket> {
    take(address, stream, async |host, port| UdpSocket::bind((host, port))).await
}

async fn take<T>(address: &Address, stream: &str, bind: impl AsyncFn(&str, u16) -> io::Result<T>) -> Result<T> {
    let mut left = TRIES;
    loop {
        left -= 1;
        match bind(&address.host, address.port).await {
            Ok(taken) => return Ok(taken),
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && left > 0 => sleep(WAIT).await,
            Err(e) => return Err(failed(address, stream, &e)),
        }
    }
}

fn failed(address: &Address, stream: &str, e: &io::Error) -> Error {
    let error = Error::unavailable(format!("stream \"{stream}\" cannot listen on {address}: {e}"));
    match e.kind() {
        io::ErrorKind::AddrInUse => error.with_hint(
            "Where another stream reads the same, store it once AS SELECT * FROM it, and derive the others from that.",
        ),
        _ => error,
    }
}
