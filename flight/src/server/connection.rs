//! Connections, each with a session of its own for clients that do not log in: as long as it lives, `SET` has an
//! effect on it and on no other.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::{Stream, stream};
use millstream_sql::{Millstream, Principal, Session};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

use crate::doors::{self, Acceptor, Peer};

/// What is known of a connection; a request finds it among its extensions.
#[derive(Clone)]
pub(crate) struct ConnectionInfo {
    pub(crate) peer: Peer,
    pub(crate) session: ConnectionSession,
}

/// The session of a connection.
#[derive(Clone, Default)]
pub(crate) struct ConnectionSession(Arc<Mutex<Option<Arc<Session>>>>);

impl ConnectionInfo {
    /// A connection from `peer` begins.
    pub(crate) fn at(peer: &Peer) -> Self {
        ConnectionInfo { peer: peer.clone(), session: ConnectionSession::default() }
    }
}

impl ConnectionSession {
    /// That of `who` on `millstream`. Where another user has used the connection before, it begins anew; and where the store was
    /// opened again since.
    pub(crate) fn of(
        &self,
        who: &Principal,
        millstream: &Arc<Millstream>,
        new: impl FnOnce() -> Session,
    ) -> Arc<Session> {
        let mut session = self.0.lock();
        match &*session {
            Some(session) if session.who().is(who) && Arc::ptr_eq(session.millstream(), millstream) => {
                Arc::clone(session)
            }
            _ => Arc::clone(session.insert(Arc::new(new()))),
        }
    }

    /// The next one has default settings.
    pub(crate) fn forget(&self) {
        *self.0.lock() = None;
    }
}

/// The connections that `acceptor` takes, with what `info` says of each.
pub(crate) fn incoming<I: Clone + Send + Sync + 'static>(
    acceptor: Acceptor,
    info: fn(&Peer) -> I,
) -> impl Stream<Item = io::Result<Connection<I>>> {
    stream::unfold(acceptor, move |mut acceptor| async move {
        let stream = acceptor.accept().await;
        let info = info(&stream.peer);
        Some((Ok(Connection { stream, info }), acceptor))
    })
}

/// A connection with what is known of it.
pub(crate) struct Connection<I> {
    stream: doors::Connection,
    info: I,
}

impl<I: Clone + Send + Sync + 'static> Connected for Connection<I> {
    type ConnectInfo = I;

    fn connect_info(&self) -> I {
        self.info.clone()
    }
}

impl<I: Unpin> AsyncRead for Connection<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<I: Unpin> AsyncWrite for Connection<I> {
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
