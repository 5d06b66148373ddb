//! Connections, each with a session of its own for clients that do not log in: as long as it lives, `SET` has an
//! effect on it and on no other.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, stream};
use millstream_sql::{Millstream, Session};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::server::Connected;

/// The session of a connection; a request finds it among its extensions.
#[derive(Clone)]
pub(crate) struct ConnectionSession(Arc<Mutex<Arc<Session>>>);

impl ConnectionSession {
    pub(crate) fn new(session: Session) -> Self {
        ConnectionSession(Arc::new(Mutex::new(Arc::new(session))))
    }

    pub(crate) fn get(&self) -> Arc<Session> {
        Arc::clone(&self.0.lock())
    }

    /// Begins anew with default settings.
    pub(crate) fn reset(&self, session: Session) {
        *self.0.lock() = Arc::new(session);
    }
}

/// The connections that `listener` accepts. A failed accept (too many open files) is waited out: it must not end
/// the server.
pub(crate) fn incoming(
    listener: TcpListener,
    millstream: Arc<Millstream>,
) -> impl Stream<Item = io::Result<Connection>> {
    stream::unfold((listener, millstream), |(listener, millstream)| async move {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    if let Err(e) = stream.set_nodelay(true) {
                        tracing::debug!(%peer, error = %e, "cannot turn off Nagle's algorithm");
                    }
                    let session = ConnectionSession::new(millstream.session());
                    return Some((Ok(Connection { stream, session }), (listener, millstream)));
                }
                Err(e) => {
                    tracing::warn!(error = %e, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    })
}

/// A TCP connection with its session.
pub(crate) struct Connection {
    stream: TcpStream,
    session: ConnectionSession,
}

impl Connected for Connection {
    type ConnectInfo = ConnectionSession;

    fn connect_info(&self) -> ConnectionSession {
        self.session.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
