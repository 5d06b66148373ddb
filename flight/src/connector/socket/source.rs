//! Reading lines over TCP: a listener takes many connections at a time, a client has one and makes it again.
//!
//! Rows and dead letters are counted. Each connection is a task that
//! makes rows of its lines and puts them into a bounded inbox; when that is full it reads no further, and TCP lets the other
//! side wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use millstream_engine::changes::Changes;
use millstream_engine::connector::lag::Lag;
use millstream_engine::connector::registry::SourceRequest;
use millstream_engine::connector::{Figure, Read, Source, UnitReader};
use millstream_engine::error::{Error, Result};
use millstream_engine::memory::MemoryBudget;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::datagrams::DatagramSource;
use super::lines::{Arrival, Connection, Ended};
use super::options::{Lines, Listening, Longest, Reading, Way, take_source};
use super::port::listen;
use crate::connector::backoff::Backoff;
use crate::connector::endless::{Endless, EndlessSource, Ready};
use crate::connector::inbox::{Inlet, Outlet, inbox};
use crate::connector::link::LinkState;
use crate::connector::wire::Dialer;

/// How long no more connections are taken when the system has no room for one.
const REST: Duration = Duration::from_millis(100);

/// The source that `request` describes.
pub(super) fn open(request: SourceRequest) -> Result<Arc<dyn Source>> {
    let stream: Arc<str> = request.stream.as_str().into();
    Ok(match take_source(request)? {
        Reading::Datagrams(spec) => Arc::new(EndlessSource(DatagramSource { stream, spec: Arc::new(spec) })),
        Reading::Lines(spec) => Arc::new(EndlessSource(LineSource { stream, spec })),
    })
}

/// What has happened since the job started.
#[derive(Default)]
struct Counts {
    /// Connections that there are.
    connections: AtomicU64,
    /// All that there have been.
    connected: AtomicU64,
    /// One more than the listener may have came so often.
    refused: AtomicU64,
    /// Connections that broke, stayed silent or were never made.
    failed: AtomicU64,
    /// The way of a client to its server.
    link: LinkState,
}

/// A source of lines.
struct LineSource {
    stream: Arc<str>,
    spec: Arc<Lines>,
}

/// One that is ready.
struct ReadyLines {
    stream: Arc<str>,
    spec: Arc<Lines>,
    counts: Arc<Counts>,
    /// One that is to be read.
    listener: Mutex<Option<TcpListener>>,
}

#[async_trait]
impl Endless for LineSource {
    fn split(&self) -> Arc<str> {
        self.spec.way.describe().into()
    }

    fn describe(&self) -> String {
        format!("socket {} ({})", self.spec.way.describe(), self.spec.decoding.name())
    }

    async fn prepare(&self) -> Result<Box<dyn Ready>> {
        let listener = match &self.spec.way {
            Way::Listener(listening) => Some(listen(&listening.address, &self.stream).await?),
            Way::Client(..) => None,
        };
        let (stream, spec, counts) = (self.stream.clone(), self.spec.clone(), Arc::default());
        Ok(Box::new(ReadyLines { stream, spec, counts, listener: Mutex::new(listener) }))
    }
}

impl Ready for ReadyLines {
    fn read(&self, from: u64, budget: Arc<MemoryBudget>) -> Result<Box<dyn UnitReader>> {
        let listener = self.listener.lock().take();
        let (inlet, arrivals) = inbox(self.spec.queue_bytes, budget);
        let line = Line { stream: self.stream.clone(), spec: self.spec.clone(), counts: self.counts.clone(), inlet };
        let mut tasks = JoinSet::new();
        match (&self.spec.way, listener) {
            (Way::Client(dialer, longest), _) => tasks.spawn(keep_reading(line, dialer.clone(), *longest)),
            (Way::Listener(listening), Some(listener)) => tasks.spawn(accept(line, listener, listening.clone())),
            (Way::Listener(_), None) => return Err(Error::internal("a listener is read twice")),
        };
        Ok(Box::new(LineReader { position: from, spec: self.spec.clone(), arrivals, _tasks: tasks }))
    }

    fn lag(&self) -> Option<Lag> {
        let is_client = matches!(self.spec.way, Way::Client(..));
        is_client.then(|| self.counts.link.lag())
    }

    fn figures(&self) -> Vec<Figure> {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { connections, connected, refused, failed, .. } = &*self.counts;
        vec![
            Figure::level("connections", read(connections)),
            Figure::count("connections_made", read(connected)),
            Figure::count("connections_refused", read(refused)),
            Figure::count("connections_failed", read(failed)),
        ]
    }
}

/// What the connections of a source share.
#[derive(Clone)]
struct Line {
    stream: Arc<str>,
    spec: Arc<Lines>,
    counts: Arc<Counts>,
    inlet: Inlet<Arrival>,
}

/// Counts a connection as long as it lives.
struct Open(Arc<Counts>);

impl Open {
    fn new(counts: &Arc<Counts>) -> Self {
        counts.connections.fetch_add(1, Ordering::Relaxed);
        Open(counts.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Line {
    /// Reads one connection to its end.
    async fn read(&self, wire: impl tokio::io::AsyncRead + Unpin, peer: &str) -> Ended {
        self.counts.connected.fetch_add(1, Ordering::Relaxed);
        let ended = match Connection::new(&self.spec, &self.inlet, peer.into()) {
            Ok(connection) => connection.read(wire).await,
            Err(e) => {
                self.inlet.put(Err(e), 0).await;
                Ended::Unreadable
            }
        };
        if !matches!(ended, Ended::Closed | Ended::Stopped) {
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(stream = %self.stream, %peer, "a connection ended: {ended}");
        }
        ended
    }

    /// What has come to the listener: TLS is agreed on, then it is read.
    async fn serve(self, stream: TcpStream, peer: String, listening: Listening, _open: Open) {
        match listening.doorman.admit(stream).await {
            Ok(wire) => drop(self.read(wire, &peer).await),
            Err(e) => {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(stream = %self.stream, %peer, "a connection was not made: {e}");
            }
        }
    }
}

/// Takes connections, as many as there may be.
async fn accept(line: Line, listener: TcpListener, listening: Listening) {
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        let (stream, peer) = match listener.accept().await {
            Ok(came) => came,
            // The system may have no room for another, and has some when one has ended.
            Err(e) => {
                tracing::warn!(stream = %line.stream, "no connection can be taken: {e}");
                sleep(REST).await;
                continue;
            }
        };
        if line.counts.connections.load(Ordering::Relaxed) >= listening.most as u64 {
            line.counts.refused.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(stream = %line.stream, %peer, "one connection too many");
            continue;
        }
        let counted = Open::new(&line.counts);
        open.spawn(line.clone().serve(stream, peer.to_string(), listening.clone(), counted));
    }
}

/// Connects, reads, and does so again when the connection has ended.
async fn keep_reading(line: Line, dialer: Dialer, longest: Longest) {
    let mut backoff = Backoff::new(longest);
    let (peer, mut told) = (dialer.address.to_string(), false);
    loop {
        match dialer.dial().await {
            Ok(wire) => {
                let _open = Open::new(&line.counts);
                line.counts.link.connected();
                tracing::info!(stream = %line.stream, %peer, "connected");
                let ended = line.read(wire, &peer).await;
                if matches!(ended, Ended::Stopped) {
                    return;
                }
                line.counts.link.lost(format!("the connection ended: {ended}"));
                backoff.reset();
                told = false;
            }
            Err(e) => {
                line.counts.link.lost(e.to_string());
                line.counts.failed.fetch_add(1, Ordering::Relaxed);
                // Once is enough until it goes well.
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(stream = %line.stream, %peer, "cannot connect, and tries again: {e}");
                }
            }
        }
        match backoff.delay() {
            Ok(delay) => sleep(delay).await,
            Err(e) => {
                line.inlet.put(Err(e), 0).await;
                return;
            }
        }
    }
}

/// Takes rows out of the inbox. Its tasks end with it.
struct LineReader {
    position: u64,
    spec: Arc<Lines>,
    arrivals: Outlet<Arrival>,
    _tasks: JoinSet<()>,
}

#[async_trait]
impl UnitReader for LineReader {
    async fn next(&mut self) -> Result<Option<Read>> {
        let Some(arrivals) = self.arrivals.take().await else {
            return Err(Error::internal("a task that reads a socket ended early"));
        };
        let (mut parts, mut dead) = (vec![], vec![]);
        for arrival in arrivals {
            let arrived = arrival?;
            self.position += (arrived.rows.num_rows() + arrived.dead.len()) as u64;
            parts.push(arrived.rows);
            dead.extend(arrived.dead);
        }
        let rows = Changes::concat(self.spec.layout.schema(), &parts)?;
        Ok(Some(Read { rows, position: self.position, dead, watermark: None }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use millstream_engine::connector::{Intake, Opened, Opening};
    use millstream_engine::options::Options;
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn source(pairs: &[(&str, &str)]) -> Arc<dyn Source> {
        let values = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let source = open(SourceRequest {
            stream: "s".to_owned(),
            schema: Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)])),
            projection: vec![0],
            metadata: BTreeMap::new(),
            key: vec![],
            event_time: None,
            options: Options::new("stream \"s\"", values),
            parallelism: 1,
        });
        source.expect("opens")
    }

    async fn opened(source: &Arc<dyn Source>) -> (Arc<dyn Intake>, Box<dyn UnitReader>) {
        let opened = Opened::of(source, Opening::new(MemoryBudget::new(1 << 30))).await;
        let Opened { intake, readers } = opened.expect("opens");
        let unit = intake.next_unit().await.expect("is open").expect("a unit");
        let reader = readers.read(&unit).await.expect("reads");
        (intake, reader)
    }

    async fn next(reader: &mut Box<dyn UnitReader>) -> (Vec<i64>, u64) {
        let read = reader.next().await.expect("reads").expect("more");
        (read.rows.rows().column(0).as_primitive::<Int64Type>().values().to_vec(), read.position)
    }

    #[tokio::test]
    async fn a_client_connects_again_and_counts_on() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let source = source(&[("address", &address), ("max_retry_delay", "50 ms")]);
        let (intake, mut reader) = opened(&source).await;
        for i in 0..3 {
            let (mut peer, _) = listener.accept().await.expect("it comes");
            peer.write_all(format!("{{\"id\":{i}}}\n").as_bytes()).await.expect("open");
            assert_eq!(next(&mut reader).await, (vec![i], i as u64 + 1));
        }
        assert_eq!(intake.figures()[1], Figure::count("connections_made", 3));
    }

    #[tokio::test]
    async fn a_listener_has_as_many_as_it_may_and_goes_with_its_reader() {
        let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound").to_string();
        let source = source(&[("address", &free), ("mode", "listener"), ("max_connections", "1")]);
        let (intake, mut reader) = opened(&source).await;
        let mut one = TcpStream::connect(&free).await.expect("it listens");
        one.write_all(b"{\"id\":1}\n").await.expect("open");
        assert_eq!(next(&mut reader).await, (vec![1], 1));
        let mut two = TcpStream::connect(&free).await.expect("it listens");
        let said = tokio::io::AsyncReadExt::read(&mut two, &mut [0]).await;
        assert!(matches!(said, Ok(0) | Err(_)), "one too many");
        assert_eq!(intake.figures()[2], Figure::count("connections_refused", 1));
        drop(reader);
        // Its tasks are told to end, and soon the address is free.
        opened(&source).await;
    }
}
