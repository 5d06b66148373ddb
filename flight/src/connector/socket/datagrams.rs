//! Reading datagrams of UDP, each of which is a record.
//!
//! A thread of its own takes them from the system as soon as they come: nobody else waits for them, and what the system has
//! no room for it drops. They wait in a queue that is bounded in bytes; what comes while it is full is dropped and counted.
//! Datagrams are counted.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{BinaryArray, StringViewArray, TimestampMicrosecondArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use async_trait::async_trait;
use millstream_engine::connector::{DeadLetter, Figure, Read, UnitReader};
use millstream_engine::error::{Error, Result};
use millstream_engine::format::records::{RecordDecoder, RecordFormat, Records};
use millstream_engine::memory::{MemoryAccount, MemoryBudget};
use millstream_engine::time::now;
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::sync::Notify;

use super::options::Datagrams;
use super::port::receive_at;
use super::{ARRIVED, PEER};
use crate::connector::endless::{Endless, Ready};

/// What a datagram takes in the queue besides its bytes.
const ITS_OWN: usize = 64;
/// What is decoded at once.
const BATCH: usize = 256 << 10;
/// What the system is asked to keep of datagrams that the thread has not taken; it may give less.
const SYSTEM_BYTES: usize = 8 << 20;
/// How often the thread looks whether anybody reads.
const LOOK: Duration = Duration::from_millis(100);
/// What is dropped is said so often at most.
const WORD_EVERY: Duration = Duration::from_secs(10);
/// How much of a datagram that is too long goes into its dead letter.
const SHOWN: usize = 4 << 10;

/// A source of datagrams.
pub(super) struct DatagramSource {
    pub(super) stream: Arc<str>,
    pub(super) spec: Arc<Datagrams>,
}

#[async_trait]
impl Endless for DatagramSource {
    fn split(&self) -> Arc<str> {
        split(&self.spec)
    }

    fn describe(&self) -> String {
        let format = if matches!(self.spec.records.format, RecordFormat::Csv(_)) { "csv" } else { "json" };
        format!("socket udp {} ({format})", self.spec.address)
    }

    async fn prepare(&self) -> Result<Box<dyn Ready>> {
        let socket = receive_at(&self.spec.address, &self.stream).await?;
        socket.set_read_timeout(Some(LOOK))?;
        // As much as the system lets everybody have.
        let _ = SockRef::from(&socket).set_recv_buffer_size(SYSTEM_BYTES);
        let local = socket.local_addr()?;
        tracing::info!(stream = %self.stream, address = %local, "listening");
        let queue = Arc::new(Queue::new(self.stream.clone(), self.spec.queue_bytes, self.spec.max_bytes));
        Ok(Box::new(Receiver { spec: self.spec.clone(), queue, socket: Mutex::new(Some(socket)), local }))
    }
}

fn split(spec: &Datagrams) -> Arc<str> {
    format!("udp {}", spec.address).into()
}

/// Takes datagrams.
struct Receiver {
    spec: Arc<Datagrams>,
    queue: Arc<Queue>,
    /// One that is to be read.
    socket: Mutex<Option<UdpSocket>>,
    /// Where it listens, for what the system counts.
    local: SocketAddr,
}

impl Ready for Receiver {
    fn read(&self, from: u64, budget: Arc<MemoryBudget>) -> Result<Box<dyn UnitReader>> {
        let socket = self.socket.lock().take().ok_or_else(|| Error::internal("a socket is read twice"))?;
        let split = split(&self.spec);
        let decoder = RecordDecoder::new(&self.spec.records, self.spec.layout.clone(), split.clone())?;
        let (queue, read) = (self.queue.clone(), Arc::new(AtomicBool::new(true)));
        let still = read.clone();
        let thread = std::thread::Builder::new().name("udp".into());
        thread.spawn(move || receive(&socket, &queue, &budget, &still))?;
        let (layout, queue) = (&self.spec.layout, self.queue.clone());
        let (tells, fail) = ([layout.reads(PEER), layout.reads(ARRIVED)], self.spec.records.fail);
        Ok(Box::new(Reader { position: from, split, queue, decoder, tells, fail, read }))
    }

    fn figures(&self) -> Vec<Figure> {
        let by_system = dropped_by_system(self.local).map(|n| Figure::count("datagrams_dropped_by_system", n));
        let dropped = self.queue.dropped.load(Ordering::Relaxed);
        std::iter::once(Figure::count("datagrams_dropped", dropped)).chain(by_system).collect()
    }
}

/// Datagrams that came one after the other.
struct Batch {
    bytes: Vec<u8>,
    ends: Vec<i32>,
    peers: Vec<SocketAddr>,
    times: Vec<i64>,
    /// Those that are too long: how many of the others came before, from whom, and the beginning.
    long: Vec<(usize, SocketAddr, Vec<u8>)>,
    held: MemoryAccount,
}

impl Batch {
    fn new(held: MemoryAccount) -> Self {
        Batch { bytes: vec![], ends: vec![], peers: vec![], times: vec![], long: vec![], held }
    }
}

/// What waits to be read.
struct Queue {
    stream: Arc<str>,
    most: usize,
    max_datagram: usize,
    waiting: Mutex<Waiting>,
    changed: Notify,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    batches: VecDeque<Batch>,
    bytes: usize,
}

impl Queue {
    fn new(stream: Arc<str>, most: usize, max_datagram: usize) -> Self {
        let (waiting, changed) = (Mutex::default(), Notify::new());
        Queue { stream, most, max_datagram, waiting, changed, dropped: AtomicU64::new(0) }
    }

    /// Puts a datagram in. Says whether there was room for it.
    fn put(&self, datagram: &[u8], peer: SocketAddr, budget: &Arc<MemoryBudget>) -> bool {
        let long = datagram.len() > self.max_datagram;
        let kept = if long { &datagram[..datagram.len().min(SHOWN)] } else { datagram };
        let more = kept.len() + ITS_OWN;
        {
            let mut waiting = self.waiting.lock();
            if waiting.bytes > 0 && waiting.bytes + more > self.most {
                return false;
            }
            waiting.bytes += more;
            if waiting.batches.back().is_none_or(|batch| batch.held.held() + more > BATCH) {
                waiting.batches.push_back(Batch::new(budget.account("datagrams that have not been read")));
            }
            if let Some(batch) = waiting.batches.back_mut() {
                batch.held.set(batch.held.held() + more);
                if long {
                    batch.long.push((batch.ends.len(), peer, kept.to_vec()));
                } else {
                    batch.bytes.extend_from_slice(kept);
                    batch.ends.push(batch.bytes.len() as i32);
                    batch.peers.push(peer);
                    batch.times.push(now());
                }
            }
        }
        self.changed.notify_one();
        true
    }

    async fn take(&self) -> Batch {
        loop {
            {
                let mut waiting = self.waiting.lock();
                if let Some(batch) = waiting.batches.pop_front() {
                    waiting.bytes -= batch.held.held();
                    return batch;
                }
            }
            self.changed.notified().await;
        }
    }
}

/// Takes datagrams from the system while `read`.
fn receive(socket: &UdpSocket, queue: &Queue, budget: &Arc<MemoryBudget>, read: &AtomicBool) {
    // One byte more tells one that is longer than any may be.
    let mut buffer = vec![0; (queue.max_datagram + 1).max(SHOWN)];
    let mut word: Option<Instant> = None;
    while read.load(Ordering::Relaxed) {
        match socket.recv_from(&mut buffer) {
            Ok((n, peer)) if queue.put(&buffer[..n], peer, budget) => {}
            Ok(_) => {
                let dropped = queue.dropped.fetch_add(1, Ordering::Relaxed) + 1;
                if word.is_none_or(|at| at.elapsed() >= WORD_EVERY) {
                    word = Some(Instant::now());
                    tracing::warn!(stream = %queue.stream, dropped, "datagrams come faster than they are read, and are dropped");
                }
            }
            // Nothing came for a while, or word of a peer that is gone.
            Err(_) => {}
        }
    }
}

/// How many datagrams the system has dropped of a socket at `local`, where it tells.
fn dropped_by_system(local: SocketAddr) -> Option<u64> {
    let file = if local.is_ipv4() { "/proc/net/udp" } else { "/proc/net/udp6" };
    let table = std::fs::read_to_string(file).ok()?;
    let port = format!(":{:04X}", local.port());
    let mut rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.find(|row| row.get(1).is_some_and(|at| at.ends_with(&port)))?.last()?.parse().ok()
}

struct Reader {
    position: u64,
    split: Arc<str>,
    queue: Arc<Queue>,
    decoder: RecordDecoder,
    /// Whether the peer and the time of each is asked for.
    tells: [bool; 2],
    /// Whether one that cannot be read ends the job.
    fail: bool,
    read: Arc<AtomicBool>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.read.store(false, Ordering::Relaxed);
    }
}

#[async_trait]
impl UnitReader for Reader {
    async fn next(&mut self) -> Result<Option<Read>> {
        let batch = self.queue.take().await;
        self.decode(batch).map(Some)
    }
}

impl Reader {
    fn decode(&mut self, batch: Batch) -> Result<Read> {
        let Batch { bytes, ends, peers, times, long, held: _held } = batch;
        let (start, count) = (self.position, ends.len());
        let origin = |peer: Option<&SocketAddr>| -> Arc<str> {
            peer.map_or(self.split.clone(), |peer| format!("{} from {peer}", self.split).into())
        };
        let too_long = |(before, peer, raw): (usize, SocketAddr, Vec<u8>)| {
            let reason = format!("the datagram is longer than {} bytes", self.queue.max_datagram);
            let position = start + before as u64;
            DeadLetter { split: origin(Some(&peer)), position, line: None, reason, raw }
        };
        let mut dead: Vec<_> = long.into_iter().map(too_long).collect();
        if let (true, Some(first)) = (self.fail, dead.first()) {
            return Err(Error::data(format!("{}: {}", first.split, first.reason))
                .with_hint("Write on_error = 'dead_letter' to set such input aside and go on."));
        }
        let all = (count + dead.len()) as u64;
        let offsets: Vec<i32> = std::iter::once(0).chain(ends).collect();
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        let values = BinaryArray::try_new(offsets, Buffer::from_vec(bytes), None)?;
        let mut records = Records::new(values, (0..count as u64).map(|i| start + i).collect())?;
        if self.tells[0] {
            let peers = peers.iter().map(SocketAddr::to_string);
            records = records.with(PEER, Arc::new(StringViewArray::from_iter_values(peers)))?;
        }
        if self.tells[1] {
            let times = TimestampMicrosecondArray::from(times).with_timezone("UTC");
            records = records.with(ARRIVED, Arc::new(times))?;
        }
        let (rows, more) = self.decoder.decode(&records)?.into_changes()?;
        dead.extend(more.into_iter().map(|letter| {
            let split = origin(peers.get((letter.position - start) as usize));
            DeadLetter { split, ..letter }
        }));
        dead.sort_by_key(|letter| letter.position);
        self.position += all;
        Ok(Read { rows, position: self.position, dead, watermark: None })
    }
}
