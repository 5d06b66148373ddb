//! Connections as they come in, with TLS where there is TLS. What listens, for Flight or for HTTP, takes them from here.
//!
//! What somebody may hold without having said who it is, is bounded: handshakes under way, in all and from one address, how
//! long one takes, and connections.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::identity::{ServerTls, common_name};
use super::peer::Peer;

/// Connections of a listener.
const MOST_CONNECTIONS: usize = 4096;
/// Handshakes under way.
const MOST_HANDSHAKES: usize = 512;
/// Those of one address.
const MOST_OF_ONE: usize = 64;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long somebody may be connected without having said anything.
const SILENCE: Duration = Duration::from_secs(15);
/// How long it is waited after the system has refused a connection: too many open files pass.
const PAUSE: Duration = Duration::from_millis(100);

/// See the module's text.
pub struct Acceptor {
    listener: TcpListener,
    tls: Option<Arc<ServerTls>>,
    places: Arc<Semaphore>,
    handshakes: FuturesUnordered<BoxFuture<'static, (IpAddr, Option<Connection>)>>,
    /// How many handshakes of each address are under way.
    from: HashMap<IpAddr, usize>,
}

impl Acceptor {
    /// Takes the connections of `listener`; all speak TLS where `tls` is given.
    pub fn new(listener: TcpListener, tls: Option<ServerTls>) -> Self {
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let (tls, handshakes, from) = (tls.map(Arc::new), FuturesUnordered::new(), HashMap::new());
        Acceptor { listener, tls, places, handshakes, from }
    }

    /// The next connection. Nothing is lost when this is dropped before it is there.
    pub async fn accept(&mut self) -> Connection {
        loop {
            tokio::select! {
                Some((address, done)) = self.handshakes.next() => {
                    if let Some(count) = self.from.get_mut(&address) {
                        *count -= 1;
                        if *count == 0 {
                            self.from.remove(&address);
                        }
                    }
                    if let Some(connection) = done {
                        return connection;
                    }
                }
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, address)) => {
                        if let Some(connection) = self.begin(stream, address) {
                            return connection;
                        }
                    }
                    Err(e) => {
                        tracing::warn!(error = %e, "cannot accept a connection");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
            }
        }
    }

    /// A connection without TLS, or else its handshake begins.
    fn begin(&mut self, stream: TcpStream, address: SocketAddr) -> Option<Connection> {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            tracing::warn!(peer = %address, "refused: there are {MOST_CONNECTIONS} connections");
            return None;
        };
        if let Err(e) = stream.set_nodelay(true) {
            tracing::debug!(peer = %address, error = %e, "cannot turn off Nagle's algorithm");
        }
        let (ip, peer) = (address.ip(), Peer::at(address.ip()));
        let Some(tls) = self.tls.clone() else {
            return Some(Connection::new(Transport::Plain(stream), peer, place));
        };
        let of_one = self.from.entry(ip).or_default();
        if self.handshakes.len() >= MOST_HANDSHAKES || *of_one >= MOST_OF_ONE {
            tracing::debug!(peer = %address, "refused: too many handshakes are under way");
            if *of_one == 0 {
                self.from.remove(&ip);
            }
            return None;
        }
        *of_one += 1;
        self.handshakes.push(Box::pin(async move {
            let done = tokio::time::timeout(HANDSHAKE, handshake(tls, stream, peer, place)).await;
            (ip, done.ok().flatten())
        }));
        None
    }
}

async fn handshake(
    tls: Arc<ServerTls>,
    stream: TcpStream,
    mut peer: Peer,
    place: OwnedSemaphorePermit,
) -> Option<Connection> {
    let stream = match TlsAcceptor::from(tls.config().await).accept(stream).await {
        Ok(stream) => stream,
        Err(e) => {
            tracing::debug!(peer = %peer.address, error = %e, "no TLS");
            return None;
        }
    };
    let shown = stream.get_ref().1.peer_certificates().and_then(|all| all.first());
    peer.certificate = shown.and_then(|certificate| common_name(certificate)).map(Arc::from);
    Some(Connection::new(Transport::Tls(Box::new(stream)), peer, place))
}

/// A connection.
pub struct Connection {
    stream: Transport,
    /// The other end of it.
    pub peer: Peer,
    /// Ends it, until something has come.
    silence: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: Transport, peer: Peer, place: OwnedSemaphorePermit) -> Self {
        Connection { stream, peer, silence: Some(Box::pin(tokio::time::sleep(SILENCE))), _place: place }
    }
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if buf.filled().len() > before {
            self.silence = None;
        } else if let (Poll::Pending, Some(silence)) = (&read, &mut self.silence)
            && silence.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
