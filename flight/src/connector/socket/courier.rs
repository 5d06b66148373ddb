//! Rows to one address over TCP, at least once.
//!
//! A checkpoint makes a parcel of its rows ([`outbox`](millstream_engine::connector::outbox)); when it is committed a courier
//! takes the parcel to the other side, connecting again and again while that is not there, and only then the commit is done:
//! so a peer that is gone or does not read stops the next checkpoint, and the query waits when its buffer is full. A
//! parcel that was committed when the process died goes again. So do those of the last seconds when a connection ends: what
//! the system has taken may not have been read.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::FutureExt;
use millstream_engine::changelog::Outgoing;
use millstream_engine::changes::Changes;
use millstream_engine::connector::lag::Lag;
use millstream_engine::connector::outbox::{Outbox, Packing, Parcel};
use millstream_engine::connector::{Commit, Figure, Sink, SinkWriter, Staged, Start};
use millstream_engine::epoch::EpochMark;
use millstream_engine::error::{Error, Result};
use parking_lot::Mutex;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::options::{Longest, Way};
use super::rows::Rows;
use crate::connector::backoff::Backoff;
use crate::connector::link::LinkState;
use crate::connector::wire::{Dialer, Wire};

/// What is sent at once.
const PIECE: usize = 64 << 10;
/// How much may be on its way between two processes: what was sent before that has been read.
const ON_ITS_WAY: u64 = 16 << 20;
/// How often it is looked at what need not be kept any more.
const LOOK: Duration = Duration::from_secs(1);
/// A connection that has lasted so long was a good one.
const LASTED: Duration = Duration::from_secs(5);
/// How long a job that is to stop waits for a peer that reads.
const LAST: Duration = Duration::from_secs(2);

/// The sink.
pub(super) struct ClientSink {
    rows: Rows,
    dialer: Dialer,
    longest: Longest,
    buffer_bytes: u64,
    resend_for: Duration,
    outbox: Mutex<Option<Arc<Outbox>>>,
    desk: Arc<Desk>,
    courier: tokio::sync::Mutex<JoinSet<()>>,
}

/// What the courier has to do.
struct Desk {
    parcels: Mutex<VecDeque<Parcel>>,
    state: watch::Sender<State>,
    link: LinkState,
    sent: AtomicU64,
    again: AtomicU64,
}

#[derive(Clone, Copy, Default)]
struct State {
    /// Bytes that are to be sent.
    bytes: u64,
    connected: bool,
    /// The job is to stop.
    letting_go: bool,
    /// It has.
    stopped: bool,
}

impl Desk {
    fn new() -> Self {
        let (parcels, state) = (Mutex::default(), watch::Sender::new(State::default()));
        Desk { parcels, state, link: LinkState::default(), sent: AtomicU64::new(0), again: AtomicU64::new(0) }
    }

    /// Changes what is to be sent.
    fn change<T>(&self, change: impl FnOnce(&mut VecDeque<Parcel>) -> T) -> T {
        let mut parcels = self.parcels.lock();
        let made = change(&mut parcels);
        let bytes = parcels.iter().map(|parcel| parcel.bytes.max(1)).sum();
        self.state.send_modify(|state| state.bytes = bytes);
        made
    }

    /// Waits until all is sent, or the job is to stop and nobody takes it.
    async fn settled(&self) {
        let mut state = self.state.subscribe();
        let done = |s: &State| s.bytes == 0 || (s.letting_go && !s.connected);
        let mut later = state.clone();
        let patience = async {
            let _ = later.wait_for(|s| s.letting_go).await;
            sleep(LAST).await;
        };
        tokio::select! {
            _ = state.wait_for(done) => {}
            () = patience => {}
        }
    }
}

impl ClientSink {
    pub(super) fn new(rows: Rows, dialer: Dialer, longest: Longest, buffer_bytes: u64, resend_for: Duration) -> Self {
        ClientSink {
            rows,
            dialer,
            longest,
            buffer_bytes,
            resend_for,
            outbox: Mutex::default(),
            desk: Arc::new(Desk::new()),
            courier: tokio::sync::Mutex::default(),
        }
    }
}

#[async_trait]
impl Sink for ClientSink {
    async fn start(&self, Start { committed, generation, state, place }: Start<'_>) -> Result<()> {
        let place = place.ok_or_else(|| Error::internal("a sink that sends, of a job that keeps nothing"))?;
        let state = state.filter(|state| !state.is_null()).cloned();
        let mut parcels: Vec<Parcel> = state.map(serde_json::from_value).transpose()?.unwrap_or_default();
        parcels.extend(Parcel::among(committed)?);
        let (outbox, there) = Outbox::open(place, generation, parcels).await?;
        *self.outbox.lock() = Some(outbox.clone());
        self.desk.state.send_replace(State::default());
        self.desk.change(|parcels| *parcels = there.into());
        let courier = Courier {
            stream: self.rows.stream.clone(),
            header: self.rows.header(),
            dialer: self.dialer.clone(),
            backoff: Backoff::new(self.longest),
            resend_for: self.resend_for,
            outbox,
            desk: self.desk.clone(),
            link: None,
            recent: VecDeque::new(),
            told: false,
            pause: false,
        };
        self.courier.lock().await.spawn(courier.run());
        Ok(())
    }

    fn open(&self, task: usize) -> Result<Box<dyn SinkWriter>> {
        let outbox = self.outbox.lock().clone().ok_or_else(|| Error::internal("a sink that was not started"))?;
        Ok(Box::new(Writer {
            rows: self.rows.clone(),
            outgoing: self.rows.outgoing(),
            packing: Packing::new(outbox, task),
            most: self.buffer_bytes,
            desk: self.desk.clone(),
        }))
    }

    fn state_after(&self, _commit: &Commit<'_>) -> serde_json::Value {
        let parcels = self.desk.parcels.lock();
        serde_json::to_value(&*parcels).unwrap_or_default()
    }

    async fn commit(&self, commit: &Commit<'_>) -> Result<()> {
        let more = Parcel::among(commit.staged)?;
        self.desk.change(|parcels| parcels.extend(more));
        self.desk.settled().await;
        Ok(())
    }

    fn let_go(&self) {
        self.desk.state.send_modify(|state| state.letting_go = true);
    }

    async fn stop(&self) {
        self.desk.state.send_modify(|state| (state.letting_go, state.stopped) = (true, true));
        let mut courier = self.courier.lock().await;
        let _ = timeout(LAST, async { while courier.join_next().await.is_some() {} }).await;
        courier.shutdown().await;
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

    fn lag(&self) -> Option<Lag> {
        Some(Parcel::lag(&*self.desk.parcels.lock()).with(self.desk.link.lag()))
    }

    fn figures(&self) -> Vec<Figure> {
        let state = *self.desk.state.borrow();
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        vec![
            Figure::level("connections", u64::from(state.connected)),
            Figure::level("bytes_waiting", state.bytes),
            Figure::count("rows_sent", read(&self.desk.sent)),
            Figure::count("rows_sent_again", read(&self.desk.again)),
        ]
    }

    fn describe(&self) -> String {
        let way = Way::Client(self.dialer.clone(), self.longest);
        format!("socket {} ({})", way.describe(), self.rows.format().name())
    }
}

/// Takes parcels to the other side.
struct Courier {
    stream: Arc<str>,
    header: Vec<u8>,
    dialer: Dialer,
    backoff: Backoff,
    resend_for: Duration,
    outbox: Arc<Outbox>,
    desk: Arc<Desk>,
    link: Option<Link>,
    /// What has been sent and may have to go again, and when it went first.
    recent: VecDeque<(Instant, Parcel)>,
    /// It was said that nobody answers.
    told: bool,
    /// The next attempt to connect is to wait.
    pause: bool,
}

struct Link {
    wire: Wire,
    since: Instant,
}

impl Courier {
    async fn run(mut self) {
        let mut state = self.desk.state.subscribe();
        loop {
            let stopped = async { drop(state.wait_for(|s| s.stopped).await) };
            let worked = tokio::select! {
                biased;
                () = stopped => break,
                worked = self.work() => worked,
            };
            if let Err(e) = worked {
                tracing::error!(stream = %self.stream, error = %e, "rows cannot be sent");
                sleep(LOOK).await;
            }
        }
        if let Err(e) = self.close().await {
            tracing::warn!(stream = %self.stream, error = %e, "rows that were sent may be sent again");
        }
    }

    /// Ends a connection that is there: the system brings what it has taken to the other side.
    async fn close(&mut self) -> Result<()> {
        let Some(mut link) = self.link.take() else { return Ok(()) };
        let _ = timeout(LOOK, link.wire.shutdown()).await;
        for (_, parcel) in std::mem::take(&mut self.recent) {
            if !self.desk.parcels.lock().contains(&parcel) {
                self.outbox.take_out(&parcel).await?;
            }
        }
        Ok(())
    }

    /// One piece of work: a parcel, or a look at the connection while there is none.
    async fn work(&mut self) -> Result<()> {
        if let Some(why) = self.is_gone() {
            self.lost(&why);
        }
        if self.link.is_none() {
            return self.connect().await;
        }
        let next = self.desk.parcels.lock().front().cloned();
        let (Some(parcel), Some(link)) = (next, &mut self.link) else { return self.rest().await };
        let file = match File::open(self.outbox.path(&parcel)).await {
            Ok(file) => file,
            Err(e) => return Err(Error::from(e).context("a parcel of rows")),
        };
        match send(&mut link.wire, file).await? {
            Ok(()) => self.sent(parcel).await,
            Err(e) => {
                self.lost(&e.to_string());
                Ok(())
            }
        }
    }

    /// Waits for work. What has been sent goes again as soon as the connection ends.
    async fn rest(&mut self) -> Result<()> {
        let mut state = self.desk.state.subscribe();
        let work = async { drop(state.wait_for(|s| s.bytes > 0).await) };
        let mut said = [0; 1024];
        let Some(link) = &mut self.link else { return Ok(()) };
        let why = tokio::select! {
            () = work => return Ok(()),
            () = sleep(LOOK), if !self.recent.is_empty() => None,
            read = link.wire.read(&mut said) => gone(read),
        };
        match why {
            Some(why) => self.lost(&why),
            None => self.forget().await?,
        }
        Ok(())
    }

    /// Why the connection is no more, if it is. What the other side says is nobody's.
    fn is_gone(&mut self) -> Option<String> {
        let link = self.link.as_mut()?;
        let mut said = [0; 1024];
        while let Some(read) = link.wire.read(&mut said).now_or_never() {
            if let Some(why) = gone(read) {
                return Some(why);
            }
        }
        None
    }

    /// The connection is no more: what it was given last goes again.
    fn lost(&mut self, why: &str) {
        let lasted = self.link.take().is_some_and(|link| link.since.elapsed() > LASTED);
        if lasted {
            self.backoff.reset();
        }
        // One that is let in and thrown out at once is to come back later and later.
        self.pause = !lasted;
        self.desk.state.send_modify(|state| state.connected = false);
        self.desk.link.lost(why);
        tracing::warn!(stream = %self.stream, address = %self.dialer.address, "the connection ended: {why}");
        let again: u64 = self.recent.iter().map(|(_, parcel)| parcel.rows).sum();
        self.desk.again.fetch_add(again, Ordering::Relaxed);
        let recent = self.recent.iter().rev().map(|(_, parcel)| parcel.clone());
        self.desk.change(|parcels| recent.for_each(|parcel| parcels.push_front(parcel)));
    }

    async fn connect(&mut self) -> Result<()> {
        if std::mem::take(&mut self.pause) {
            sleep(self.backoff.delay()?).await;
        }
        let address = &self.dialer.address;
        let begun = async {
            let mut wire = self.dialer.dial().await?;
            wire.write_all(&self.header).await?;
            Ok::<_, io::Error>(wire)
        };
        match begun.await {
            Ok(wire) => {
                tracing::info!(stream = %self.stream, %address, "connected");
                self.link = Some(Link { wire, since: Instant::now() });
                self.told = false;
                self.desk.state.send_modify(|state| state.connected = true);
                self.desk.link.connected();
            }
            Err(e) => {
                self.desk.link.lost(e.to_string());
                // Once is enough until it goes well.
                if !std::mem::replace(&mut self.told, true) {
                    tracing::warn!(stream = %self.stream, %address, "cannot connect, and tries again: {e}");
                }
                self.pause = true;
            }
        }
        Ok(())
    }

    /// All of `parcel` has been given to the system.
    async fn sent(&mut self, parcel: Parcel) -> Result<()> {
        self.desk.sent.fetch_add(parcel.rows, Ordering::Relaxed);
        self.desk.change(|parcels| parcels.pop_front());
        // One that went again was first sent when it was first sent.
        if !self.recent.iter().any(|(_, one)| *one == parcel) {
            self.recent.push_back((Instant::now(), parcel));
        }
        self.forget().await
    }

    /// Lets go of what has been read by now.
    async fn forget(&mut self) -> Result<()> {
        let mut after: u64 = self.recent.iter().map(|(_, parcel)| parcel.bytes).sum();
        while let Some((at, parcel)) = self.recent.front() {
            after -= parcel.bytes;
            let waits = self.desk.parcels.lock().contains(parcel);
            if waits || (at.elapsed() < self.resend_for && after < ON_ITS_WAY) {
                break;
            }
            self.outbox.take_out(parcel).await?;
            self.recent.pop_front();
        }
        Ok(())
    }
}

/// What reading from a peer that has nothing to say tells of it.
fn gone(read: io::Result<usize>) -> Option<String> {
    match read {
        Ok(0) => Some("closed by the other side".to_owned()),
        Ok(_) => None,
        Err(e) => Some(e.to_string()),
    }
}

/// Sends a file. The outer error is about the file, the inner about the connection.
async fn send(wire: &mut Wire, mut file: File) -> Result<io::Result<()>> {
    let mut piece = vec![0; PIECE];
    loop {
        let n = file.read(&mut piece).await?;
        if n == 0 {
            return Ok(wire.flush().await);
        }
        if let Err(e) = wire.write_all(&piece[..n]).await {
            return Ok(Err(e));
        }
    }
}

/// Packs the lines of the rows.
struct Writer {
    rows: Rows,
    outgoing: Outgoing,
    packing: Packing,
    most: u64,
    desk: Arc<Desk>,
}

impl Writer {
    async fn append(&mut self, rows: &arrow::array::RecordBatch) -> Result<()> {
        let lines = &self.rows;
        self.packing.add(rows.num_rows(), |out| lines.append(rows, out))?;
        self.packing.ease().await?;
        if self.packing.bytes() >= self.most {
            // Only for what is committed: the rest waits for a checkpoint, and that for this task.
            let _ = self.desk.state.subscribe().wait_for(|s| s.bytes == 0 || s.letting_go).await;
        }
        Ok(())
    }
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, changes: Changes) -> Result<()> {
        match self.outgoing.write(changes)? {
            Some(rows) => self.append(&rows).await,
            None => Ok(()),
        }
    }

    async fn epoch(&mut self, _mark: &EpochMark) -> Result<()> {
        match Rows::end(&mut self.outgoing)? {
            Some(rows) => self.append(&rows).await,
            None => Ok(()),
        }
    }

    async fn stage(&mut self, checkpoint: u64) -> Result<Vec<Staged>> {
        self.packing.seal(checkpoint).await?.iter().map(Parcel::staged).collect()
    }

    fn bytes(&self) -> usize {
        self.outgoing.bytes() + self.packing.held()
    }

    async fn shrink(&mut self) -> Result<()> {
        self.packing.spill().await
    }
}
