//! Rows as datagrams of UDP, a row each, sent when they are committed: at most once. What the system refuses to send is
//! counted as lost; what is lost on the way nobody hears of. A row that is longer than a datagram may be is a dead letter.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use millstream_engine::changelog::Outgoing;
use millstream_engine::changes::Changes;
use millstream_engine::connector::{Commit, DeadLetter, Figure, Sink, SinkWriter, Staged, Start};
use millstream_engine::epoch::EpochMark;
use millstream_engine::error::Result;
use millstream_engine::format::Format;
use parking_lot::Mutex;
use tokio::net::{UdpSocket, lookup_host};
use tokio::sync::watch;
use tokio::time::sleep_until;

use super::rows::{Rows, Staging};
use crate::connector::wire::Address;

/// What is lost is said so often at most.
const WORD_EVERY: Duration = Duration::from_secs(10);
/// After so many datagrams others may have the thread.
const TURN: usize = 64;
/// How often a second it is waited at most where there is a rate.
const PACES: u64 = 200;

/// Rows in one buffer, and where each ends.
#[derive(Default)]
struct Thrown {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// The sink.
pub(super) struct DatagramSink {
    rows: Rows,
    address: Address,
    max_bytes: usize,
    /// So many datagrams a second at most.
    rate: Option<u64>,
    /// The job is to stop: what is left goes at once.
    letting_go: watch::Sender<bool>,
    staging: Arc<Staging<Thrown>>,
    socket: tokio::sync::Mutex<Option<UdpSocket>>,
    sent: AtomicU64,
    lost: AtomicU64,
    word: Mutex<Option<Instant>>,
}

impl DatagramSink {
    pub(super) fn new(rows: Rows, address: Address, max_bytes: usize, rate: Option<u64>) -> Self {
        DatagramSink {
            rows,
            address,
            max_bytes,
            rate,
            letting_go: watch::Sender::new(false),
            staging: Arc::default(),
            socket: tokio::sync::Mutex::default(),
            sent: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            word: Mutex::default(),
        }
    }

    async fn connect(&self) -> io::Result<UdpSocket> {
        let Address { host, port } = &self.address;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for to in lookup_host((host.as_str(), *port)).await? {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).await?;
            match socket.connect(to).await {
                Ok(()) => return Ok(socket),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// Sends what a checkpoint has. Gives how many rows could not be sent, and why the last of them.
    async fn throw(&self, socket: &UdpSocket, thrown: &Thrown) -> (u64, Option<io::Error>) {
        let (mut lost, mut why, mut start) = (0, None, 0);
        let begun = tokio::time::Instant::now();
        for (i, end) in thrown.ends.iter().enumerate() {
            let datagram = &thrown.bytes[start..*end];
            start = *end;
            let mut result = socket.send(datagram).await;
            // That word is about an earlier one, which went and found nobody.
            if let Err(e) = &result
                && e.kind() == io::ErrorKind::ConnectionRefused
            {
                (lost, why) = (lost + 1, result.err());
                result = socket.send(datagram).await;
            }
            if let Err(e) = result {
                (lost, why) = (lost + 1, Some(e));
            }
            match self.rate {
                Some(rate) => self.pace(begun, rate, i as u64 + 1).await,
                None if i % TURN == TURN - 1 => tokio::task::yield_now().await,
                None => {}
            }
        }
        (lost, why)
    }

    /// Waits until `sent` datagrams at `rate` a second are due since `begun`; a few go together where they are many.
    async fn pace(&self, begun: tokio::time::Instant, rate: u64, sent: u64) {
        let together = (rate / PACES).max(1);
        if sent.is_multiple_of(together) {
            let due = begun + Duration::from_secs_f64(sent as f64 / rate as f64);
            let mut letting_go = self.letting_go.subscribe();
            tokio::select! {
                () = sleep_until(due) => {}
                _ = letting_go.wait_for(|letting_go| *letting_go) => {}
            }
        }
    }

    /// Counts rows that were not sent, and says so from time to time.
    fn count_lost(&self, rows: u64, why: &io::Error) {
        let lost = self.lost.fetch_add(rows, Ordering::Relaxed) + rows;
        let mut word = self.word.lock();
        if word.is_none_or(|at| at.elapsed() >= WORD_EVERY) {
            *word = Some(Instant::now());
            tracing::warn!(stream = %self.rows.stream, address = %self.address, lost, "datagrams are lost: {why}");
        }
    }
}

#[async_trait]
impl Sink for DatagramSink {
    async fn start(&self, _start: Start<'_>) -> Result<()> {
        self.staging.clear();
        self.letting_go.send_replace(false);
        Ok(())
    }

    fn let_go(&self) {
        self.letting_go.send_replace(true);
    }

    fn open(&self, _task: usize) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(Writer {
            rows: self.rows.clone(),
            outgoing: self.rows.outgoing(),
            origin: format!("udp {}", self.address).into(),
            max_bytes: self.max_bytes,
            thrown: Thrown::default(),
            aside: vec![],
            written: 0,
            staging: self.staging.clone(),
        }))
    }

    async fn commit(&self, commit: &Commit<'_>) -> Result<()> {
        let mut socket = self.socket.lock().await;
        for thrown in self.staging.commit(commit.checkpoint) {
            let all = thrown.ends.len() as u64;
            if socket.is_none() {
                match self.connect().await {
                    Ok(connected) => *socket = Some(connected),
                    Err(e) => self.count_lost(all, &e),
                }
            }
            let Some(socket) = &*socket else { continue };
            let (lost, why) = self.throw(socket, &thrown).await;
            self.sent.fetch_add(all.saturating_sub(lost), Ordering::Relaxed);
            if let Some(why) = why {
                self.count_lost(lost, &why);
            }
        }
        Ok(())
    }

    fn tells_time(&self) -> bool {
        false
    }

    fn is_awaited(&self) -> bool {
        true
    }

    fn takes_retractions(&self) -> bool {
        self.rows.retracts
    }

    fn figures(&self) -> Vec<Figure> {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        vec![Figure::count("datagrams_sent", read(&self.sent)), Figure::count("datagrams_lost", read(&self.lost))]
    }

    fn describe(&self) -> String {
        format!("socket udp {} ({})", self.address, self.rows.format().name())
    }
}

struct Writer {
    rows: Rows,
    outgoing: Outgoing,
    origin: Arc<str>,
    max_bytes: usize,
    thrown: Thrown,
    aside: Vec<DeadLetter>,
    /// Rows so far, those put aside among them.
    written: u64,
    staging: Arc<Staging<Thrown>>,
}

impl Writer {
    fn append(&mut self, rows: &RecordBatch) -> Result<()> {
        let mut lines = vec![];
        if self.rows.format() == Format::Json {
            self.rows.append(rows, &mut lines)?;
            // In JSON a line end stands behind rows only.
            lines.split_inclusive(|byte| *byte == b'\n').for_each(|line| self.add(line));
            return Ok(());
        }
        for row in 0..rows.num_rows() {
            lines.clear();
            self.rows.append(&rows.slice(row, 1), &mut lines)?;
            self.add(&lines);
        }
        Ok(())
    }

    fn add(&mut self, line: &[u8]) {
        let row = line.strip_suffix(b"\n").unwrap_or(line);
        if row.len() > self.max_bytes {
            let reason = format!("the row is longer than a datagram of {} bytes", self.max_bytes);
            let (split, position) = (self.origin.clone(), self.written);
            self.aside.push(DeadLetter { split, position, line: None, reason, raw: row.to_vec() });
        } else {
            self.thrown.bytes.extend_from_slice(row);
            self.thrown.ends.push(self.thrown.bytes.len());
        }
        self.written += 1;
    }

    fn held(&self) -> usize {
        self.thrown.bytes.capacity() + self.thrown.ends.capacity() * size_of::<usize>()
    }
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, changes: Changes) -> Result<()> {
        match self.outgoing.write(changes)? {
            Some(rows) => self.append(&rows),
            None => Ok(()),
        }
    }

    async fn epoch(&mut self, _mark: &EpochMark) -> Result<()> {
        match Rows::end(&mut self.outgoing)? {
            Some(rows) => self.append(&rows),
            None => Ok(()),
        }
    }

    async fn stage(&mut self, checkpoint: u64) -> Result<Vec<Staged>> {
        let (thrown, bytes) = (std::mem::take(&mut self.thrown), self.held());
        if !thrown.ends.is_empty() {
            self.staging.stage(checkpoint, thrown, bytes);
        }
        Ok(vec![])
    }

    fn take_aside(&mut self) -> Vec<DeadLetter> {
        std::mem::take(&mut self.aside)
    }

    fn bytes(&self) -> usize {
        let aside: usize = self.aside.iter().map(|letter| letter.raw.len()).sum();
        self.outgoing.bytes() + self.held() + aside + self.staging.bytes()
    }
}
