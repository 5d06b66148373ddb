//! Sending what is committed. What a task writes goes into parcels, which lie on disk until the other side has taken them. A
//! commit sends those of its checkpoint; what it leaves undone is in the manifest and comes first after a restart.
//!
//! How parcels are written and sent is a [`Carrier`]'s business. It knows who it is by a name that no other sink has, and what
//! it sends by what is the same after a crash, so that the other side can tell a repetition.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use millstream_engine::changelog::{Outgoing, with_ops};
use millstream_engine::changes::Changes;
use millstream_engine::connector::lag::Lag;
use millstream_engine::connector::outbox::{Outbox, Packing, Parcel};
use millstream_engine::connector::{Commit, Figure, Sink, SinkWriter, Staged, Start};
use millstream_engine::epoch::EpochMark;
use millstream_engine::error::{Error, Result};
use millstream_engine::token::token;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Packs rows into parcels, and sends them.
#[async_trait]
pub(super) trait Carrier: Send + Sync + 'static {
    /// Packs what one task writes.
    type Packer: Packer + 'static;

    /// The stream whose rows are sent.
    fn stream(&self) -> &str;

    /// A packer, and the changes on their way to it.
    fn packer(&self) -> Result<(Self::Packer, Outgoing)>;

    /// Sends a consignment, until it is taken or it is let go. Says how many of its parcels, from the first on, are taken.
    ///
    /// Errors when they will never be.
    async fn carry(&self, consignment: &Consignment) -> Result<usize>;

    /// Whether the other side is there.
    fn link(&self) -> Lag;

    /// As [`Sink::figures`].
    fn figures(&self) -> Vec<Figure>;

    /// As [`Sink::describe`].
    fn describe(&self) -> String;
}

/// Rows as a parcel has them.
pub(super) trait Packer: Send {
    /// Packs `rows`.
    fn pack(&mut self, rows: &RecordBatch, packing: &mut Packing) -> Result<()>;

    /// The parcel is to be sealed: what is kept back goes in.
    fn close(&mut self, _packing: &mut Packing) -> Result<()> {
        Ok(())
    }

    /// Bytes that are kept back.
    fn held(&self) -> usize {
        0
    }
}

/// The parcels of one checkpoint.
pub(super) struct Consignment {
    /// Who sends them: a name that no other sink has.
    pub(super) sender: String,
    /// Where they lie.
    pub(super) outbox: Arc<Outbox>,
    /// One or more.
    pub(super) parcels: Vec<Parcel>,
    /// Whether the job is to stop.
    pub(super) letting_go: watch::Receiver<bool>,
}

/// A sink that sends what is committed.
pub(super) struct Dispatch<C> {
    courier: Arc<Courier<C>>,
    /// Sends what an earlier run has left.
    late: Mutex<JoinSet<()>>,
}

/// Sends parcels in order.
struct Courier<C> {
    carrier: C,
    state: Mutex<State>,
    room: Room,
    /// One at a time.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    outbox: Option<Arc<Outbox>>,
    kept: Kept,
}

/// What the manifest keeps.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Kept {
    /// A name that no other sink has.
    id: String,
    /// Parcels that are committed and that the other side has perhaps not taken.
    open: Vec<Parcel>,
}

/// What writers and commits share.
struct Room {
    /// Bytes that the present commit still has to send.
    undelivered: Arc<watch::Sender<u64>>,
    /// Bytes that all writers have packed.
    packed: Arc<AtomicU64>,
    /// Those of this one.
    own: u64,
    /// The job is to stop.
    letting_go: Arc<watch::Sender<bool>>,
    /// Bytes that may wait.
    most: u64,
}

impl Clone for Room {
    /// For another writer.
    fn clone(&self) -> Self {
        let Room { undelivered, packed, letting_go, most, .. } = self;
        let (undelivered, packed, letting_go) = (undelivered.clone(), packed.clone(), letting_go.clone());
        Room { undelivered, packed, own: 0, letting_go, most: *most }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.hold(0);
    }
}

impl Room {
    /// The writer has packed `bytes` by now.
    fn hold(&mut self, bytes: u64) {
        self.packed.fetch_add(bytes.wrapping_sub(self.own), Ordering::Relaxed);
        self.own = bytes;
    }

    /// While a commit is under way and much waits besides what is packed, of which `bytes` are the writer's, the query waits for
    /// it.
    async fn wait(&mut self, bytes: u64) {
        self.hold(bytes);
        let mut undelivered = self.undelivered.subscribe();
        let mut letting_go = self.letting_go.subscribe();
        let room = |waiting: &u64| *waiting == 0 || waiting + self.packed.load(Ordering::Relaxed) <= self.most;
        tokio::select! {
            // An error means that nobody will deliver any more.
            _ = undelivered.wait_for(room) => {}
            _ = letting_go.wait_for(|letting_go| *letting_go) => {}
        }
    }
}

impl<C: Carrier> Dispatch<C> {
    /// By `carrier`, with at most `most` bytes that wait while a commit is under way. Connects to nobody yet.
    pub(super) fn new(carrier: C, most: u64) -> Self {
        let (undelivered, letting_go) = (Arc::new(watch::Sender::new(0)), Arc::new(watch::Sender::new(false)));
        let room = Room { undelivered, packed: Arc::default(), own: 0, letting_go, most };
        let courier = Courier { carrier, state: Mutex::default(), room, turn: Default::default() };
        Dispatch { courier: Arc::new(courier), late: Mutex::default() }
    }
}

impl<C: Carrier> Courier<C> {
    fn outbox(&self) -> Result<Arc<Outbox>> {
        self.state.lock().outbox.clone().ok_or_else(|| Error::internal("a sink is written before it has started"))
    }

    /// Sends what is open, in order, until all is taken or the job is to stop.
    async fn deliver(&self) -> Result<()> {
        let (_turn, outbox) = (self.turn.lock().await, self.outbox()?);
        loop {
            let (sender, parcels) = {
                let State { kept, .. } = &*self.state.lock();
                let first = kept.open.first().map(Parcel::sealed_for);
                let together = kept.open.iter().take_while(|parcel| Some(parcel.sealed_for()) == first);
                (kept.id.clone(), together.cloned().collect::<Vec<_>>())
            };
            if parcels.is_empty() {
                return Ok(());
            }
            let letting_go = self.room.letting_go.subscribe();
            let consignment = Consignment { sender, outbox: outbox.clone(), parcels, letting_go };
            let taken = self.carrier.carry(&consignment).await?;
            for parcel in consignment.parcels.iter().take(taken) {
                outbox.take_out(parcel).await?;
                self.state.lock().kept.open.retain(|one| one != parcel);
                self.room.undelivered.send_modify(|bytes| *bytes = bytes.saturating_sub(parcel.bytes));
            }
            if taken < consignment.parcels.len() {
                return Ok(());
            }
        }
    }
}

#[async_trait]
impl<C: Carrier> Sink for Dispatch<C> {
    async fn start(&self, Start { generation, state, place, .. }: Start<'_>) -> Result<()> {
        let courier = &self.courier;
        let kept = state.map(Kept::deserialize).transpose()?.unwrap_or_default();
        let place = place.ok_or_else(|| Error::internal("a sink that sends, of a job that keeps nothing"))?;
        let (outbox, open) = Outbox::open(place, generation, kept.open).await?;
        courier.room.letting_go.send_replace(false);
        courier.room.undelivered.send_replace(0);
        let is_late = !open.is_empty();
        {
            let mut state = courier.state.lock();
            state.outbox = Some(outbox);
            state.kept = Kept { open, ..kept };
            if state.kept.id.is_empty() {
                state.kept.id = token()?;
            }
        }
        if is_late {
            let courier = courier.clone();
            self.late.lock().spawn(async move {
                // The next commit meets the same, and says so.
                if let Err(e) = courier.deliver().await {
                    tracing::warn!(stream = %courier.carrier.stream(), error = %e, "rows of an earlier run are not taken");
                }
            });
        }
        Ok(())
    }

    fn open(&self, task: usize) -> Result<Box<dyn SinkWriter>> {
        let (packer, outgoing) = self.courier.carrier.packer()?;
        let (packing, room) = (Packing::new(self.courier.outbox()?, task), self.courier.room.clone());
        Ok(Box::new(Writer { packer, outgoing, packing, room }))
    }

    fn state_after(&self, commit: &Commit<'_>) -> Value {
        let mut kept = self.courier.state.lock().kept.clone();
        kept.open.extend(Parcel::among(commit.staged).unwrap_or_default());
        serde_json::to_value(kept).unwrap_or_default()
    }

    async fn commit(&self, commit: &Commit<'_>) -> Result<()> {
        let parcels = Parcel::among(commit.staged)?;
        let bytes: u64 = {
            let mut state = self.courier.state.lock();
            let new: Vec<_> = parcels.into_iter().filter(|parcel| !state.kept.open.contains(parcel)).collect();
            state.kept.open.extend(new);
            state.kept.open.iter().map(|parcel| parcel.bytes).sum()
        };
        self.courier.room.undelivered.send_replace(bytes);
        let delivered = self.courier.deliver().await;
        self.courier.room.undelivered.send_replace(0);
        delivered
    }

    fn let_go(&self) {
        self.courier.room.letting_go.send_replace(true);
    }

    async fn stop(&self) {
        let mut late = std::mem::take(&mut *self.late.lock());
        late.shutdown().await;
    }

    fn is_awaited(&self) -> bool {
        true
    }

    fn takes_retractions(&self) -> bool {
        true
    }

    fn lag(&self) -> Option<Lag> {
        Some(Parcel::lag(&self.courier.state.lock().kept.open).with(self.courier.carrier.link()))
    }

    fn figures(&self) -> Vec<Figure> {
        let undelivered = self.courier.state.lock().kept.open.iter().map(|parcel| parcel.bytes).sum();
        [self.courier.carrier.figures(), vec![Figure::level("bytes_undelivered", undelivered)]].concat()
    }

    fn describe(&self) -> String {
        self.courier.carrier.describe()
    }
}

/// Writes the rows of one task.
struct Writer<P> {
    packer: P,
    outgoing: Outgoing,
    packing: Packing,
    room: Room,
}

impl<P: Packer> Writer<P> {
    async fn add(&mut self, rows: &RecordBatch) -> Result<()> {
        self.packer.pack(rows, &mut self.packing)?;
        self.packing.ease().await?;
        self.room.wait(self.packing.bytes()).await;
        Ok(())
    }
}

#[async_trait]
impl<P: Packer> SinkWriter for Writer<P> {
    async fn write(&mut self, changes: Changes) -> Result<()> {
        match self.outgoing.write(changes)? {
            Some(rows) => self.add(&rows).await,
            None => Ok(()),
        }
    }

    async fn epoch(&mut self, _mark: &EpochMark) -> Result<()> {
        if let Some((changes, ops)) = self.outgoing.end()? {
            self.add(&with_ops(changes.rows(), &ops)?).await?;
        }
        Ok(())
    }

    async fn stage(&mut self, checkpoint: u64) -> Result<Vec<Staged>> {
        self.packer.close(&mut self.packing)?;
        let parcel = self.packing.seal(checkpoint).await?;
        self.room.hold(0);
        parcel.map(|parcel| parcel.staged()).into_iter().collect()
    }

    fn bytes(&self) -> usize {
        self.outgoing.bytes() + self.packing.held() + self.packer.held()
    }
}
