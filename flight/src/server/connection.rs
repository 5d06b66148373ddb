//! Connections, each with a session of its own for clients that do not log in: as long as it lives, `SET` has an
//! effect on it and on no other.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, stream};
use millstream_sql::{Principal, Session};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::server::Connected;

use crate::doors::Peer;

/// What is known of a connection; a request finds it among its extensions.
#[derive(Clone)]
pub(crate) struct ConnectionInfo {
    pub(crate) peer: Peer,
    pub(crate) session: ConnectionSession,
}

/// The session of a connection.
#[derive(Clone, Default)]
pub(crate) struct ConnectionSession(Arc<Mutex<Option<Arc<Session>>>>);

impl ConnectionSession {
    /// That of `who`. Where another user has used the connection before, it begins anew.
    pub(crate) fn of(&self, who: &Principal, new: impl FnOnce() -> Session) -> Arc<Session> {
        let mut session = self.0.lock();
        match &*session {
            Some(session) if session.who().is(who) => Arc::clone(session),
            _ => Arc::clone(session.insert(Arc::new(new()))),
        }
    }

    /// The next one has default settings.
    pub(crate) fn forget(&self) {
        *self.0.lock() = None;
    }
}

/// The connections that `listener` accepts. A failed accept (too many open files) is waited out: it must not end
/// the server.
pub(crate) fn incoming(listener: TcpListener) -> impl Stream<Item = io::Result<Connection>> {
    stream::unfold(listener, |listener| async move {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    if let Err(e) = stream.set_nodelay(true) {
                        tracing::debug!(%peer, error = %e, "cannot turn off Nagle's algorithm");
                    }
                    let info = ConnectionInfo { peer: Peer::at(peer.ip()), session: ConnectionSession::default() };
                    return Some((Ok(Connection { stream, info }), listener));
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
    info: ConnectionInfo,
}

impl Connected for Connection {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        self.info.clone()
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
