//! Jobs go where the nodes are: they are spread over those that are there, go on without one that is lost, and away from one that is
//! to end.
//!
//! A job is moved by a commit and a new start: where it stops is where it goes on. One whose parallelism is fixed stays where it is
//! when a node comes. A job that has lost a node starts from its last checkpoint. [`Millstream::tend`] looks at all jobs when the nodes
//! have changed; who starts a job meanwhile goes by the [seats](millstream_engine::runtime::Runtime::seats) of then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use millstream_engine::nodes::{LiveNode, Nodes};
use millstream_engine::runtime::{JobHandle, JobPhase, Seat};
use tokio::sync::Semaphore;

use super::Millstream;
use super::entry::statement_of;
use super::jobs::{Job, PAUSE_TIMEOUT, with_hint};
use crate::error::{Error, ErrorKind, Result};
use crate::statement::Statement;

/// How long it is waited when a node has come: others may come with it.
const SETTLES: Duration = Duration::from_secs(1);
/// How often it is looked where jobs are.
const LOOKS: Duration = Duration::from_secs(2);
/// The same while a node waits for its jobs to go.
const LEAVES: Duration = Duration::from_millis(50);
/// Jobs that move at once.
const AT_ONCE: usize = 4;
/// The most tasks of an operator.
const WIDEST: usize = 256;
/// A job that has lost a node as soon as this after its start waits before it is started again.
const SOON: Duration = Duration::from_secs(2);
/// How long it is waited then, and before a start that has failed is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// How often a start is tried where something outside does not answer.
const TRIES: usize = 20;

impl Millstream {
    /// The tasks of operators whose stream does not say: `parallelism`, and one for each core where there are other nodes.
    pub(super) fn width(&self, parallelism: usize) -> usize {
        match self.runtime().seats().iter().map(|seat| seat.cores).sum::<usize>() {
            0 => parallelism,
            cores => cores.min(WIDEST),
        }
    }

    /// Moves jobs as nodes come, and are to leave, for as long as this is open.
    pub(super) fn tend(self: &Arc<Self>) {
        let Some(nodes) = self.config().nodes.clone() else { return };
        let (weak, moving) = (Arc::downgrade(self), Arc::new(Semaphore::new(AT_ONCE)));
        self.runtime().io.spawn(async move {
            let mut live = nodes.watch();
            let leaves = |live: &BTreeMap<String, LiveNode>| live.values().any(|node| node.leaving && !node.free);
            loop {
                live.mark_unchanged();
                // The sender lives as long as this.
                let is_leaving = tokio::time::timeout(SETTLES, live.wait_for(leaves)).await.is_ok();
                match weak.upgrade() {
                    Some(millstream) => millstream.spread(&nodes, &moving),
                    None => return,
                }
                // A job that was being started meanwhile may be where it should not.
                match is_leaving {
                    true => tokio::time::sleep(LEAVES).await,
                    false => drop(tokio::time::timeout(LOOKS, live.changed()).await),
                }
            }
        });
    }

    /// Jobs that start from now on go by the nodes that there are.
    fn take_seats(&self, nodes: &Nodes) -> Vec<Seat> {
        let seat = |live: LiveNode| Seat { address: live.node.address, cores: live.node.cores };
        let mut seats: Vec<Seat> = nodes.live().into_iter().filter(LiveNode::is_fit).map(seat).collect();
        if seats.len() < 2 {
            seats.clear();
        }
        self.seat(seats.clone());
        seats
    }

    /// Has jobs move that are not where they should be, so many at once, and nodes end that have none.
    fn spread(self: &Arc<Self>, nodes: &Nodes, moving: &Arc<Semaphore>) {
        let seats = self.take_seats(nodes);
        let home = nodes.leader();
        let fit: BTreeSet<&str> = seats.iter().map(|seat| seat.address.as_str()).chain([home]).collect();
        let live = nodes.live();
        let sound: BTreeSet<&str> =
            live.iter().filter(|node| self.is_sound(node)).map(|node| node.node.address.as_str()).collect();
        let jobs: Vec<Arc<Job>> = self.jobs.read().values().cloned().collect();
        for job in jobs.into_iter().filter(|job| self.is_misplaced(job, &fit)) {
            let commits = job.handle().is_some_and(|job| job.nodes().iter().all(|(node, _)| sound.contains(node)));
            if !job.moves.swap(true, Ordering::Relaxed) {
                let (millstream, moving) = (self.clone(), moving.clone());
                self.runtime().io.spawn(async move {
                    // Nobody closes it.
                    let _one_of = moving.acquire().await;
                    millstream.move_job(&job, commits).await;
                    // Of one in whose place another runs it stays true: that is how it has ended.
                    if millstream.is_there(&job) {
                        job.moves.store(false, Ordering::Relaxed);
                    }
                });
            }
        }
        for node in live.iter().filter(|node| node.leaving && !node.leads) {
            let address = node.node.address.as_str();
            if !self.jobs.read().values().any(|job| job.runs_on(address)) {
                nodes.free(address);
            }
        }
    }

    /// Whether a job with tasks on `node` can commit: what waits for a node that is out, was not reached, or does not reach the store,
    /// waits for long.
    fn is_sound(&self, node: &LiveNode) -> bool {
        let is_reached = node.is_fit() || node.leaving || node.unfit.is_some();
        node.leads || self.store().away().is_some() || is_reached && !node.node.cut_off
    }

    /// Whether `job` is to be moved to the nodes that are `fit`.
    fn is_misplaced(&self, job: &Job, fit: &BTreeSet<&str>) -> bool {
        let Some(handle) = job.handle().filter(|handle| handle.status().phase == JobPhase::Running) else {
            return false;
        };
        if handle.nodes().iter().any(|(address, _)| !fit.contains(address)) {
            return true;
        }
        let Ok(def) = self.stream(&job.stream) else { return false };
        let is_wide = || match statement_of(&def.sql) {
            Ok(Statement::CreateStream(create)) => self.own_parallelism(&create).is_ok_and(|own| own.is_none()),
            _ => false,
        };
        def.ingest.is_none() && handle.offered().collect::<BTreeSet<_>>() != *fit && is_wide()
    }

    /// Has `job` go on on the nodes that there are, where it `commits` what it has, or else from its last checkpoint.
    async fn move_job(self: &Arc<Self>, job: &Arc<Job>, commits: bool) {
        if self.closes.load(Ordering::Relaxed) || !self.is_there(job) {
            return;
        }
        match commits {
            true => job.stop_within(PAUSE_TIMEOUT).await,
            false => job.abandon().await,
        }
        if job.handle().is_some_and(|handle| handle.status().phase == JobPhase::Stopped) {
            tracing::info!(stream = %job.stream, "a job moves to the nodes that there are");
            self.start_again(job).await;
        }
    }

    /// Whether `e` comes of one of the nodes `seats`, on which jobs do not start any more.
    pub(super) fn note_lost(&self, e: &millstream_engine::Error, seats: &[Seat]) -> bool {
        let (Some(address), Some(nodes)) = (e.lost_node(), &self.config().nodes) else { return false };
        let was = seats.iter().any(|seat| seat.address == address);
        match e.kind() {
            ErrorKind::Unavailable => nodes.missed(address),
            _ => nodes.unfit(address, &with_hint(e.message(), e.hint())),
        };
        was && !self.take_seats(nodes).iter().any(|seat| seat.address == address)
    }

    /// The job of `stream`, which `began` with `handle`, has lost the node at `address`.
    pub(super) fn go_on_without(
        self: Arc<Self>,
        stream: String,
        handle: Arc<JobHandle>,
        address: String,
        began: Instant,
    ) -> BoxFuture<'static, ()> {
        // Boxed, since it starts a job that may come to it again.
        async move { self.go_on(stream, handle, &address, began).await }.boxed()
    }

    async fn go_on(self: Arc<Self>, stream: String, handle: Arc<JobHandle>, address: &str, began: Instant) {
        let Err(e) = handle.failure() else { return };
        if self.config().nodes.is_none() {
            tracing::error!(stream, error = %e, "job failed");
            return self.tell_failure(stream, e.message(), e.hint());
        }
        tracing::warn!(stream, node = address, error = %e, "a job goes on without a node that it has lost");
        self.note_lost(&e, &[]);
        if began.elapsed() < SOON {
            tokio::time::sleep(PAUSE).await;
        }
        // Whoever has started it says so with the catalog at hand.
        drop(self.catalog.lock().await);
        let job = self.job(&stream);
        if let Some(job) = job.filter(|job| job.handle().is_some_and(|now| Arc::ptr_eq(&now, &handle))) {
            self.start_again(&job).await;
        }
    }

    /// Starts `job`, which has ended, unless somebody else does something with it.
    async fn start_again(self: &Arc<Self>, job: &Arc<Job>) {
        for tried in 1.. {
            match self.try_again(job).await {
                Ok(()) => return,
                Err(e) if e.kind() == ErrorKind::Unavailable && tried < TRIES => {
                    tracing::warn!(stream = %job.stream, error = %e, "a job does not start; it is tried again");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(e) => {
                    let catalog = self.catalog.lock().await;
                    let entry = catalog.get(&job.stream).filter(|_| self.is_there(job));
                    if let Some(entry) = entry {
                        self.add_broken(entry, &e);
                        self.tell_failure(job.stream.clone(), e.message(), e.hint());
                    }
                    return;
                }
            }
        }
    }

    async fn try_again(self: &Arc<Self>, job: &Arc<Job>) -> Result<()> {
        let name = job.stream.as_str();
        let catalog = self.catalog_for(|_| vec![name.to_owned()]).await;
        let entry = catalog.get(name).filter(|entry| !entry.paused && self.is_there(job));
        let Some(entry) = entry.filter(|_| !self.closes.load(Ordering::Relaxed)) else { return Ok(()) };
        let (def, statement) = (self.stream(name)?, statement_of(&entry.sql)?);
        let Statement::CreateStream(create) = statement else { return Err(Error::internal("a job of no stream")) };
        let started = self.start_job(&def, &create, entry).await?;
        self.jobs.write().insert(name.to_owned(), started);
        Ok(())
    }

    /// Whether `job` is still the one of its stream.
    fn is_there(&self, job: &Arc<Job>) -> bool {
        self.job(&job.stream).is_some_and(|now| Arc::ptr_eq(&now, job))
    }

    /// The job of `stream`, once it is not on its way from some nodes to others.
    pub(super) async fn settled_job(&self, stream: &str) -> Option<Arc<Job>> {
        loop {
            let job = self.job(stream)?;
            if !job.is_between() || self.closes.load(Ordering::Relaxed) {
                return Some(job);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Job {
    /// Whether it has ended to go on elsewhere.
    pub(super) fn is_between(&self) -> bool {
        let Some(status) = self.handle().map(|handle| handle.status()) else { return false };
        match status.phase {
            JobPhase::Stopped => self.moves.load(Ordering::Relaxed),
            JobPhase::Failed => self.goes_on && status.lost_node.is_some(),
            JobPhase::Running | JobPhase::Finished => false,
        }
    }

    /// Whether it has tasks on the node at `address`, or may have them again.
    fn runs_on(&self, address: &str) -> bool {
        let ended = |phase| matches!(phase, JobPhase::Finished | JobPhase::Stopped | JobPhase::Failed);
        self.handle().is_some_and(|handle| {
            !ended(handle.status().phase) && handle.nodes().iter().any(|(node, _)| *node == address)
        })
    }
}
