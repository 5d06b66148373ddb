//! Reading messages: one task keeps a connection to the server, subscribes, and puts what comes into a bounded inbox.
//!
//! Messages are counted. When the inbox is full the server is read
//! no further, and TCP lets it wait; pings go on meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{BinaryArray, BinaryBuilder, TimestampMicrosecondArray};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use millstream_engine::changes::Changes;
use millstream_engine::connector::lag::Lag;
use millstream_engine::connector::registry::SourceRequest;
use millstream_engine::connector::{DeadLetter, Figure, Read, Source, UnitReader};
use millstream_engine::error::{Error, Result};
use millstream_engine::format::records::{RecordDecoder, RecordFormat, Records};
use millstream_engine::memory::MemoryBudget;
use millstream_engine::time::now;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::ARRIVED;
use super::options::{Messages, take};
use crate::connector::backoff::Backoff;
use crate::connector::endless::{Endless, EndlessSource, Ready};
use crate::connector::inbox::{Inlet, Outlet, inbox};
use crate::connector::link::LinkState;
use crate::connector::wire::Wire;

/// What a message takes in the inbox besides its bytes.
const ITS_OWN: usize = 64;

/// The source that `request` describes.
pub(super) fn open(request: SourceRequest) -> Result<Arc<dyn Source>> {
    let stream: Arc<str> = request.stream.as_str().into();
    let spec = Arc::new(take(request)?);
    Ok(Arc::new(EndlessSource(MessageSource { stream, spec })))
}

/// What has happened since the job started.
#[derive(Default)]
struct Counts {
    connected: AtomicU64,
    made: AtomicU64,
    failed: AtomicU64,
    link: LinkState,
}

struct MessageSource {
    stream: Arc<str>,
    spec: Arc<Messages>,
}

/// One that is read.
struct Subscription {
    stream: Arc<str>,
    spec: Arc<Messages>,
    counts: Arc<Counts>,
}

/// What has come.
enum Arrival {
    /// A message, and when.
    Message(Bytes, i64),
    /// One that was too long to be taken.
    TooLong(String),
    /// Why the job is to end.
    Failed(Error),
}

#[async_trait]
impl Endless for MessageSource {
    fn split(&self) -> Arc<str> {
        self.spec.describe().into()
    }

    fn describe(&self) -> String {
        let format = match self.spec.records.format {
            RecordFormat::Json(_) => "json",
            RecordFormat::Csv(_) => "csv",
            RecordFormat::Arrow => "arrow",
        };
        format!("{} ({format})", self.spec.describe())
    }

    async fn prepare(&self) -> Result<Box<dyn Ready>> {
        let (stream, spec, counts) = (self.stream.clone(), self.spec.clone(), Arc::default());
        Ok(Box::new(Subscription { stream, spec, counts }))
    }
}

impl Ready for Subscription {
    fn read(&self, from: u64, budget: Arc<MemoryBudget>) -> Result<Box<dyn UnitReader>> {
        let (inlet, arrivals) = inbox(self.spec.queue_bytes, budget);
        let (stream, spec, counts) = (self.stream.clone(), self.spec.clone(), self.counts.clone());
        let split: Arc<str> = self.spec.describe().into();
        let decoder = RecordDecoder::new(&self.spec.records, self.spec.layout.clone(), split.clone())?;
        let (fail, tells_time) = (self.spec.records.fail, self.spec.layout.reads(ARRIVED));
        let mut tasks = JoinSet::new();
        tasks.spawn(Feed { stream, spec, counts, inlet }.keep_reading());
        Ok(Box::new(Reader { position: from, split, arrivals, decoder, fail, tells_time, _tasks: tasks }))
    }

    fn lag(&self) -> Option<Lag> {
        Some(self.counts.link.lag())
    }

    fn figures(&self) -> Vec<Figure> {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { connected, made, failed, .. } = &*self.counts;
        vec![
            Figure::level("connections", read(connected)),
            Figure::count("connections_made", read(made)),
            Figure::count("connections_failed", read(failed)),
        ]
    }
}

/// Why a connection ended, in words; `None` where nobody reads any more.
type Ended = Option<String>;

/// Keeps the connection.
struct Feed {
    stream: Arc<str>,
    spec: Arc<Messages>,
    counts: Arc<Counts>,
    inlet: Inlet<Arrival>,
}

impl Feed {
    /// Connects, reads, and does so again when the connection has ended.
    async fn keep_reading(self) {
        let mut backoff = Backoff::new(self.spec.longest_wait);
        let (server, mut told) = (self.spec.describe(), false);
        loop {
            match self.connect().await {
                Ok(socket) => {
                    let since = Instant::now();
                    tracing::info!(stream = %self.stream, %server, "connected");
                    self.counts.made.fetch_add(1, Ordering::Relaxed);
                    self.counts.connected.store(1, Ordering::Relaxed);
                    self.counts.link.connected();
                    let ended = self.read(socket).await;
                    self.counts.connected.store(0, Ordering::Relaxed);
                    let Some(why) = ended else { return };
                    self.counts.link.lost(&why);
                    tracing::warn!(stream = %self.stream, %server, "the connection ended: {why}");
                    told = false;
                    // One that is let in and thrown out at once is to come back later and later.
                    if since.elapsed() > self.spec.longest_wait {
                        backoff.reset();
                    }
                }
                Err(why) => {
                    self.counts.link.lost(&why);
                    self.counts.failed.fetch_add(1, Ordering::Relaxed);
                    // Once is enough until it goes well.
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(stream = %self.stream, %server, "cannot connect, and tries again: {why}");
                    }
                }
            }
            match backoff.delay() {
                Ok(delay) => sleep(delay).await,
                Err(e) => {
                    self.inlet.put(Arrival::Failed(e), 0).await;
                    return;
                }
            }
        }
    }

    /// A connection over which all is subscribed to.
    async fn connect(&self) -> Result<WebSocketStream<Wire>, String> {
        let spec = &self.spec;
        let mut request = spec.url.as_str().into_client_request().map_err(|e| words(&e))?;
        request.headers_mut().extend(spec.headers.clone());
        let wire = spec.dialer.dial().await.map_err(|e| e.to_string())?;
        let bounds =
            WebSocketConfig::default().max_message_size(Some(spec.max_bytes)).max_frame_size(Some(spec.max_bytes));
        let open = async {
            let (mut socket, _) = client_async_with_config(request, wire, Some(bounds)).await?;
            for text in &spec.subscriptions {
                socket.send(Message::text(text.clone())).await?;
            }
            Ok::<_, WsError>(socket)
        };
        match timeout(spec.patience, open).await {
            Ok(open) => open.map_err(|e| words(&e)),
            Err(_) => Err(format!("no answer within {} s", spec.patience.as_secs_f64())),
        }
    }

    /// Reads to the end of a connection.
    async fn read(&self, mut socket: WebSocketStream<Wire>) -> Ended {
        let mut pings = interval_at(Instant::now() + self.spec.ping_every, self.spec.ping_every);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            let silence = heard + self.spec.patience;
            let message = tokio::select! {
                message = socket.next() => message,
                _ = pings.tick() => {
                    if let Err(why) = self.ping(&mut socket).await {
                        return Some(why);
                    }
                    continue;
                }
                () = tokio::time::sleep_until(silence) => {
                    return Some(format!("nothing came for {} s", self.spec.patience.as_secs_f64()));
                }
            };
            let arrival = match message {
                None => return Some("closed by the other side".to_owned()),
                Some(Ok(Message::Text(text))) => Arrival::Message(text.into(), now()),
                Some(Ok(Message::Binary(bytes))) => Arrival::Message(bytes, now()),
                Some(Ok(Message::Close(frame))) => {
                    let why = frame.map(|f| format!(": {} {}", f.code, f.reason)).unwrap_or_default();
                    return Some(format!("closed by the other side{why}"));
                }
                Some(Ok(_)) => {
                    heard = Instant::now();
                    continue;
                }
                Some(Err(e)) => {
                    if let WsError::Capacity(CapacityError::MessageTooLong { size, .. }) = &e {
                        let reason = format!("the message is longer than {} bytes: {size}", self.spec.max_bytes);
                        if !self.inlet.put(Arrival::TooLong(reason), ITS_OWN).await {
                            return None;
                        }
                    }
                    return Some(words(&e));
                }
            };
            if !self.put(arrival, &mut socket, &mut pings).await? {
                return Some("it takes no pings".to_owned());
            }
            heard = Instant::now();
        }
    }

    /// Puts what has come in, and pings while there is no room. `None` where nobody reads any more; else whether the
    /// connection is still there.
    async fn put(&self, arrival: Arrival, socket: &mut WebSocketStream<Wire>, pings: &mut Interval) -> Option<bool> {
        let bytes = match &arrival {
            Arrival::Message(bytes, _) => bytes.len() + ITS_OWN,
            _ => ITS_OWN,
        };
        let putting = self.inlet.put(arrival, bytes);
        tokio::pin!(putting);
        let mut there = true;
        loop {
            tokio::select! {
                biased;
                put = &mut putting => return put.then_some(there),
                _ = pings.tick(), if there => there = self.ping(socket).await.is_ok(),
            }
        }
    }

    async fn ping(&self, socket: &mut WebSocketStream<Wire>) -> Result<(), String> {
        match timeout(self.spec.patience, socket.send(Message::Ping(Bytes::new()))).await {
            Ok(sent) => sent.map_err(|e| words(&e)),
            Err(_) => Err("it takes no pings".to_owned()),
        }
    }
}

/// What went wrong, without what was said: that may hold secrets.
fn words(e: &WsError) -> String {
    match e {
        WsError::Http(response) => format!("the server answered {}", response.status()),
        e => e.to_string(),
    }
}

/// Takes messages out of the inbox. Its task ends with it.
struct Reader {
    position: u64,
    split: Arc<str>,
    arrivals: Outlet<Arrival>,
    decoder: RecordDecoder,
    /// Whether a message that cannot be read ends the job.
    fail: bool,
    /// Whether their times are asked for.
    tells_time: bool,
    _tasks: JoinSet<()>,
}

#[async_trait]
impl UnitReader for Reader {
    async fn next(&mut self) -> Result<Option<Read>> {
        let Some(arrivals) = self.arrivals.take().await else {
            return Err(Error::internal("the task that reads a WebSocket ended early"));
        };
        let bytes = |a: &Arrival| if let Arrival::Message(bytes, _) = a { bytes.len() } else { 0 };
        let mut values = BinaryBuilder::with_capacity(arrivals.len(), arrivals.iter().map(bytes).sum());
        let (mut positions, mut times, mut dead) = (vec![], vec![], vec![]);
        for arrival in arrivals {
            let position = self.position;
            match arrival {
                Arrival::Message(bytes, at) => {
                    values.append_value(&bytes);
                    positions.push(position);
                    times.push(at);
                }
                Arrival::TooLong(reason) if self.fail => {
                    return Err(Error::data(format!("\"{}\", position {position}: {reason}", self.split))
                        .with_hint("Raise max_message_bytes, or write on_error = 'dead_letter' to go on without it."));
                }
                Arrival::TooLong(reason) => {
                    dead.push(DeadLetter { split: self.split.clone(), position, line: None, reason, raw: vec![] });
                }
                Arrival::Failed(e) => return Err(e),
            }
            self.position += 1;
        }
        let rows = self.decode(values.finish(), positions, times, &mut dead)?;
        Ok(Some(Read { rows, position: self.position, dead, watermark: None }))
    }
}

impl Reader {
    fn decode(
        &mut self,
        values: BinaryArray,
        positions: Vec<u64>,
        times: Vec<i64>,
        dead: &mut Vec<DeadLetter>,
    ) -> Result<Changes> {
        let mut records = Records::new(values, positions)?;
        if self.tells_time {
            let times = TimestampMicrosecondArray::from(times).with_timezone("UTC");
            records = records.with(ARRIVED, Arc::new(times))?;
        }
        let (rows, more) = self.decoder.decode(&records)?.into_changes()?;
        dead.extend(more);
        dead.sort_by_key(|letter| letter.position);
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use millstream_engine::connector::{Opened, Opening};
    use millstream_engine::options::Options;
    use tokio::net::{TcpListener, TcpStream};
    use tokio_tungstenite::accept_async;

    use super::*;

    async fn reader(port: u16, pairs: &[(&str, &str)]) -> Box<dyn UnitReader> {
        let url = format!("ws://127.0.0.1:{port}/?key=hidden");
        let mut values: BTreeMap<_, _> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        values.insert("url".to_owned(), url);
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
        let source = source.expect("opens");
        assert!(source.describe().starts_with("websocket ws://127.0.0.1") && !source.describe().contains("hidden"));
        let mut opening = Opening::new(MemoryBudget::new(1 << 30));
        opening.consumed.add(&format!("websocket ws://127.0.0.1:{port}/"), 0..7);
        let Opened { intake, readers } = Opened::of(&source, opening).await.expect("starts");
        let unit = intake.next_unit().await.expect("is open").expect("a unit");
        assert_eq!((unit.start, intake.next_unit().await.expect("is open")), (7, None));
        readers.read(&unit).await.expect("opens")
    }

    /// The ids of the next rows, where they end, and how many dead letters came with them.
    async fn next(reader: &mut Box<dyn UnitReader>) -> (Vec<i64>, u64, usize) {
        let read = reader.next().await.expect("reads").expect("more");
        let ids = read.rows.rows().column(0).as_primitive::<Int64Type>().values().to_vec();
        (ids, read.position, read.dead.len())
    }

    /// Takes a connection and what is subscribed to.
    async fn accepted(listener: &TcpListener) -> (WebSocketStream<TcpStream>, String) {
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut socket = accept_async(stream).await.expect("a WebSocket");
        let first = socket.next().await.expect("open").expect("a message");
        (socket, first.into_text().expect("text").to_string())
    }

    #[tokio::test]
    async fn it_comes_back_and_subscribes_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let mut reader =
            reader(port, &[("subscribe", "all"), ("max_retry_delay", "50 ms"), ("max_message_bytes", "50")]).await;
        let (mut socket, asked) = accepted(&listener).await;
        assert_eq!(asked, "all");
        socket.send(Message::text("{\"id\": 1}")).await.expect("open");
        assert_eq!(next(&mut reader).await, (vec![1], 8, 0));
        socket.send(Message::binary(&b"[{\"id\": 2}, {\"id\": 3}]"[..])).await.expect("open");
        assert_eq!(next(&mut reader).await, (vec![2, 3], 9, 0));
        drop(socket);
        let (mut socket, asked) = accepted(&listener).await;
        assert_eq!(asked, "all");
        socket.send(Message::text("x".repeat(51))).await.expect("open");
        assert_eq!(next(&mut reader).await, (vec![], 10, 1));
        let (mut socket, _) = accepted(&listener).await;
        socket.send(Message::text("{\"id\": 4}")).await.expect("open");
        assert_eq!(next(&mut reader).await, (vec![4], 11, 0));
    }

    #[tokio::test]
    async fn who_says_nothing_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let waits = [("ping_interval", "20 ms"), ("connection_timeout", "200 ms"), ("max_retry_delay", "50 ms")];
        let _reader = reader(port, &[&waits[..], &[("subscribe", "all")]].concat()).await;
        for _ in 0..2 {
            // It is not read any more, and so answers no ping.
            let (_socket, asked) = accepted(&listener).await;
            assert_eq!(asked, "all");
        }
    }
}
