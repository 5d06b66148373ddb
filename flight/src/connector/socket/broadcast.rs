//! Rows to whoever connects: each client gets what is committed from then on, at most once. One that does not read lets
//! nobody wait: when too much waits for it, it is let go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use millstream_engine::changelog::Outgoing;
use millstream_engine::changes::Changes;
use millstream_engine::connector::{Commit, Figure, Sink, SinkWriter, Staged, Start};
use millstream_engine::epoch::EpochMark;
use millstream_engine::error::Result;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::options::{Listening, Way};
use super::port::listen;
use super::rows::{Rows, Staging};

/// How many commits may wait for a client.
const COMMITS: usize = 4096;
/// How long no more clients are taken when the system has no room for one.
const REST: Duration = Duration::from_millis(100);
/// How long clients may take for what waits when the job ends.
const LAST: Duration = Duration::from_secs(2);

/// The sink.
pub(super) struct ListenerSink {
    rows: Rows,
    listening: Listening,
    staging: Arc<Staging<Vec<u8>>>,
    room: Arc<Room>,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

/// Those who listen.
struct Room {
    stream: Arc<str>,
    header: Bytes,
    most_bytes: usize,
    clients: Mutex<Vec<Client>>,
    /// Clients that there are, those among them with whom TLS is not agreed on yet.
    count: AtomicU64,
    refused: AtomicU64,
    let_go: AtomicU64,
}

/// One who listens, and what waits for it.
struct Client {
    peer: String,
    sender: mpsc::Sender<Bytes>,
    waiting: Arc<AtomicUsize>,
    /// Gone with this, for one who is just being told.
    _stays: oneshot::Sender<()>,
}

impl Room {
    /// Gives `text` to all. Who has too much waiting goes.
    fn tell(&self, text: &Bytes) {
        self.clients.lock().retain(|client| {
            let waiting = client.waiting.load(Ordering::Relaxed);
            if waiting == 0 || waiting + text.len() <= self.most_bytes {
                client.waiting.fetch_add(text.len(), Ordering::Relaxed);
                match client.sender.try_send(text.clone()) {
                    Ok(()) => return true,
                    // It went by itself.
                    Err(mpsc::error::TrySendError::Closed(_)) => return false,
                    Err(mpsc::error::TrySendError::Full(_)) => {}
                }
            }
            self.let_go.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(stream = %self.stream, peer = %client.peer, "a client reads too slowly, and is let go");
            false
        });
    }

    /// The most that waits for anybody. All wait for the same bytes.
    fn waiting(&self) -> usize {
        let clients = self.clients.lock();
        clients.iter().map(|client| client.waiting.load(Ordering::Relaxed)).max().unwrap_or_default()
    }
}

impl ListenerSink {
    pub(super) fn new(rows: Rows, listening: Listening, most_bytes: usize) -> Self {
        let room = Room {
            stream: rows.stream.clone(),
            header: rows.header().into(),
            most_bytes,
            clients: Mutex::default(),
            count: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            let_go: AtomicU64::new(0),
        };
        ListenerSink {
            rows,
            listening,
            staging: Arc::default(),
            room: Arc::new(room),
            tasks: tokio::sync::Mutex::default(),
        }
    }
}

#[async_trait]
impl Sink for ListenerSink {
    async fn start(&self, _start: Start<'_>) -> Result<()> {
        self.staging.clear();
        let listener = listen(&self.listening.address, &self.rows.stream).await?;
        let mut tasks = self.tasks.lock().await;
        tasks.spawn(accept(listener, self.listening.clone(), self.room.clone()));
        Ok(())
    }

    fn open(&self, _task: usize) -> Result<Box<dyn SinkWriter>> {
        let (rows, outgoing) = (self.rows.clone(), self.rows.outgoing());
        Ok(Box::new(Writer { rows, outgoing, text: vec![], staging: self.staging.clone(), room: self.room.clone() }))
    }

    async fn commit(&self, commit: &Commit<'_>) -> Result<()> {
        for text in self.staging.commit(commit.checkpoint) {
            self.room.tell(&text.into());
        }
        Ok(())
    }

    async fn stop(&self) {
        let all_told = async {
            while self.room.waiting() > 0 {
                sleep(REST).await;
            }
        };
        let _ = tokio::time::timeout(LAST, all_told).await;
        self.tasks.lock().await.shutdown().await;
        self.room.clients.lock().clear();
    }

    fn tells_time(&self) -> bool {
        false
    }

    fn is_awaited(&self) -> bool {
        self.room.count.load(Ordering::Relaxed) > 0
    }

    fn takes_retractions(&self) -> bool {
        self.rows.retracts
    }

    fn figures(&self) -> Vec<Figure> {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Room { count, refused, let_go, .. } = &*self.room;
        vec![
            Figure::level("connections", read(count)),
            Figure::count("connections_refused", read(refused)),
            Figure::count("connections_let_go", read(let_go)),
            Figure::level("bytes_waiting", self.room.waiting() as u64),
        ]
    }

    fn describe(&self) -> String {
        format!("socket {} ({})", Way::Listener(self.listening.clone()).describe(), self.rows.format().name())
    }
}

/// Counts a client as long as it is there.
struct Seat(Arc<Room>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes clients, as many as there may be.
async fn accept(listener: TcpListener, listening: Listening, room: Arc<Room>) {
    let mut serving = JoinSet::new();
    loop {
        while serving.try_join_next().is_some() {}
        let (stream, peer) = match listener.accept().await {
            Ok(came) => came,
            Err(e) => {
                tracing::warn!(stream = %room.stream, "no connection can be taken: {e}");
                sleep(REST).await;
                continue;
            }
        };
        if room.count.load(Ordering::Relaxed) >= listening.most as u64 {
            room.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        room.count.fetch_add(1, Ordering::Relaxed);
        serving.spawn(serve(stream, peer.to_string(), listening.clone(), Seat(room.clone())));
    }
}

/// Tells one client until it goes or is let go.
async fn serve(stream: TcpStream, peer: String, listening: Listening, seat: Seat) {
    let room = &seat.0;
    let mut wire = match listening.doorman.admit(stream).await {
        Ok(wire) => wire,
        Err(e) => {
            tracing::warn!(stream = %room.stream, %peer, "a connection was not made: {e}");
            return;
        }
    };
    let (sender, mut texts) = mpsc::channel(COMMITS);
    let waiting = Arc::new(AtomicUsize::new(room.header.len()));
    let _ = sender.try_send(room.header.clone());
    let (_stays, mut let_go) = oneshot::channel();
    room.clients.lock().push(Client { peer, sender, waiting: waiting.clone(), _stays });
    let mut said = [0; 1024];
    loop {
        let text = tokio::select! {
            text = texts.recv() => text,
            // What it says is nobody's; that it goes is.
            read = wire.read(&mut said) => match read {
                Ok(n) if n > 0 => continue,
                _ => return,
            },
        };
        let Some(text) = text else { return };
        let told = async {
            wire.write_all(&text).await?;
            wire.flush().await
        };
        // One who is let go while it does not read is not waited for.
        let told = tokio::select! {
            told = told => told,
            _ = &mut let_go => return,
        };
        if told.is_err() {
            return;
        }
        waiting.fetch_sub(text.len(), Ordering::Relaxed);
    }
}

/// Collects the lines of the rows until their checkpoint.
struct Writer {
    rows: Rows,
    outgoing: Outgoing,
    text: Vec<u8>,
    staging: Arc<Staging<Vec<u8>>>,
    room: Arc<Room>,
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, changes: Changes) -> Result<()> {
        match self.outgoing.write(changes)? {
            Some(rows) => self.rows.append(&rows, &mut self.text),
            None => Ok(()),
        }
    }

    async fn epoch(&mut self, _mark: &EpochMark) -> Result<()> {
        match Rows::end(&mut self.outgoing)? {
            Some(rows) => self.rows.append(&rows, &mut self.text),
            None => Ok(()),
        }
    }

    async fn stage(&mut self, checkpoint: u64) -> Result<Vec<Staged>> {
        let text = std::mem::take(&mut self.text);
        if !text.is_empty() {
            let bytes = text.capacity();
            self.staging.stage(checkpoint, text, bytes);
        }
        Ok(vec![])
    }

    fn bytes(&self) -> usize {
        self.outgoing.bytes() + self.text.capacity() + self.staging.bytes() + self.room.waiting()
    }
}
