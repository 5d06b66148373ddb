//! The life of a node: it watches the lease in the store, leads when that is free, and follows whoever has it.
//!
//! ```text
//! seeks ──► leads ──► its lease is lost: it stops its jobs where they are, and seeks
//!       └─► follows ──► another has the lease: it follows that one; nobody has it: it leads
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_engine::clock::Clock;
use millstream_engine::nodes::Nodes;
use millstream_engine::runtime::{Network, Runtime};
use millstream_engine::store::{Candidate, Found, Held, Lease, Term, in_use, taken};
use millstream_sql::{Config, Error, ErrorKind, Millstream, Result};
use tokio::sync::{oneshot, watch};

use super::calls::Other;
use super::dial::dial;
use super::follow::{Following, check_agreed, is_final};
use super::node::{ANSWERED, Led, Node, Role, turned};
use super::worker::{door_of, network_of};

/// How long jobs may take to stop that commit nothing any more.
const STOPS: Duration = Duration::from_secs(10);
/// How long a lock is waited for that another process has, which may be about to end.
const LOCKED: Duration = Duration::from_secs(2);
/// How long it is waited after a failure that may come again.
const PAUSE: Duration = Duration::from_secs(1);

/// See the module's text.
pub(super) struct Life {
    node: Arc<Node>,
    candidate: Candidate,
    following: Option<Following>,
    /// Told when it first plays a part. Until then, what is wrong ends it.
    started: Option<oneshot::Sender<()>>,
    began: Instant,
    /// Since when the folder is locked by a process without a lease.
    locked: Option<Instant>,
}

impl Life {
    /// That of `node`; tells `started` when it first plays a part.
    pub(super) fn of(node: Arc<Node>, started: oneshot::Sender<()>) -> Self {
        let (seat, term) = (&node.seat, Some(node.term()));
        let candidate = Candidate::new(seat.store(), seat.name(), term, node.lease(), Clock::default());
        Life { node, candidate, following: None, started: Some(started), began: Instant::now(), locked: None }
    }

    /// Lives until `ends` turns true, and ends in good order.
    pub(super) async fn live(mut self, mut ends: watch::Receiver<bool>) -> Result<()> {
        self.check_reached().await?;
        let mut stopped = self.node.stopped.subscribe();
        while !*ends.borrow() {
            match self.candidate.look().await {
                Ok(Found::Free(number)) => self.lead(number, &mut ends).await?,
                Ok(Found::Held { term, lives }) => self.follow(&term, lives)?,
                Ok(Found::Locked) => self.wait_for_lock().await?,
                Err(e) if self.started.is_some() => return Err(e.into()),
                Err(e) => tracing::warn!(error = %e, "the lease cannot be read"),
            }
            let node = Arc::clone(&self.node);
            tokio::select! {
                () = self.candidate.pause() => {}
                () = node.hurry.notified() => {}
                () = turned(&mut stopped) => {
                    // What is under way here may wait for just that.
                    if let Some(following) = &self.following {
                        following.depart().await;
                    }
                    turned(&mut ends).await;
                }
            }
        }
        Ok(())
    }

    /// Checks that the address which others are told leads here.
    async fn check_reached(&self) -> Result<()> {
        let (node, place) = (&self.node, self.node.place());
        let patience = node.timeout().max(PAUSE);
        let asked = async {
            let channel = dial(&place, node.options.identity.as_ref(), patience).await?;
            Other::new(channel, node.key.header(&place.name)?, patience).name().await
        };
        let hint = "Write the address at which others reach this node: --advertise HOST:PORT.";
        match asked.await {
            Ok(name) if name == place.name => Ok(()),
            Ok(_) => Err(self.unreached("another node answers there").with_hint(hint)),
            Err(e) if e.kind() == ErrorKind::Denied => {
                Err(self.unreached("another node answers there").with_hint(hint))
            }
            Err(e) => {
                let hint = match node.options.identity.is_some() {
                    true => format!(
                        "{hint} Nodes show one another their --tls-cert, which must be of an authority in --tls-client-ca."
                    ),
                    false => hint.to_owned(),
                };
                Err(self.unreached(e.message()).with_hint(hint))
            }
        }
    }

    fn unreached(&self, why: &str) -> Error {
        let message = format!("this node is not reached at \"{}\", its advertised address: {why}", self.node.address());
        Error::new(ErrorKind::Unavailable, message)
    }

    fn seek(&self, why: &str) {
        self.node.role.send_replace(Role::Seeks(why.into()));
    }

    /// It plays a part.
    fn start(&mut self) {
        if let Some(started) = self.started.take() {
            // Who waited for it may have gone.
            let _ = started.send(());
        }
    }

    fn follow(&mut self, term: &Term, lives: bool) -> Result<()> {
        self.locked = None;
        if let Err(e) = self.try_follow(term, lives) {
            if self.started.is_some() {
                return Err(e);
            }
            if self.following.take().is_some() {
                tracing::error!(error = %e, "this node cannot join the cluster");
            }
            self.seek(e.message());
        }
        Ok(())
    }

    fn try_follow(&mut self, term: &Term, lives: bool) -> Result<()> {
        if !self.following.as_ref().is_some_and(|following| following.is_of(term)) {
            let last = self.following.take();
            if last.is_some() {
                self.seek("another has just begun to lead");
            }
            match check_agreed(&self.node, term) {
                // One that is not heard of any more is no hindrance.
                Err(e) => return if lives { Err(e) } else { Ok(()) },
                Ok(()) => self.candidate.restate(self.node.term(), self.node.lease()),
            }
            self.following = Following::begin(&self.node, term, last)?;
        }
        let Some(following) = &self.following else {
            let e = || Error::from(in_use(self.node.seat.store(), Some(term)));
            return if lives { Err(e()) } else { Ok(()) };
        };
        match following.joined() {
            Ok(true) => self.start(),
            Ok(false) => {}
            Err(e) if is_final(&e) && lives => return Err(e.again()),
            Err(e) if lives && self.started.is_some() && self.began.elapsed() > self.node.timeout() * 2 + PAUSE => {
                return Err(e.again());
            }
            Err(_) => {}
        }
        Ok(())
    }

    /// A process without a lease has the folder.
    async fn wait_for_lock(&mut self) -> Result<()> {
        self.following = None;
        let since = *self.locked.get_or_insert_with(Instant::now);
        if since.elapsed() < LOCKED {
            return Ok(());
        }
        let e = Error::from(taken(self.node.seat.store()).await);
        if self.started.is_some() {
            return Err(e);
        }
        self.seek(e.message());
        Ok(())
    }

    /// Takes the lease with the number behind `number`, and leads for as long as it has it.
    async fn lead(&mut self, number: u64, ends: &mut watch::Receiver<bool>) -> Result<()> {
        (self.following, self.locked) = (None, None);
        let lease = match self.candidate.take(number).await {
            Ok(Some(lease)) => lease,
            Ok(None) => return Ok(()),
            Err(e) if self.started.is_some() => return Err(e.into()),
            Err(e) => {
                tracing::warn!(error = %e, "the lease cannot be taken");
                return Ok(());
            }
        };
        self.seek("it takes over");
        let began = Instant::now();
        let (stop, stopped) = watch::channel(false);
        let led = match self.open(lease, stopped).await {
            Ok(led) => Arc::new(led),
            Err(e) if self.started.is_some() => return Err(e),
            Err(e) => {
                tracing::error!(error = %e, "this node cannot lead");
                self.seek(e.message());
                tokio::time::sleep(PAUSE).await;
                return Ok(());
            }
        };
        tracing::info!(node = self.node.address(), after = ?began.elapsed(), "leads the cluster");
        self.node.calling.know(vec![self.node.place()]);
        self.node.role.send_replace(Role::Leads(Arc::clone(&led)));
        self.start();
        match self.watch_over(&led, ends).await {
            None => led.millstream.close().await,
            Some(lost) => {
                self.resign(&led, &stop, &lost).await;
                Ok(())
            }
        }
    }

    async fn open(&self, lease: Lease, stopped: watch::Receiver<bool>) -> Result<Led> {
        let node = &self.node;
        let nodes = Arc::new(Nodes::led_by(node.figures(), node.timeout()));
        let config = Config { nodes: Some(Arc::clone(&nodes)), ..node.options.config.clone() };
        let mut network = None;
        let join = |runtime: &Runtime| network.insert(network_of(&node.calling, runtime)).clone() as Arc<dyn Network>;
        let millstream = Millstream::lead(config, &node.seat, lease, join).await?;
        let door = door_of(&millstream, network.as_deref(), None);
        Led::new(node, millstream, nodes, either(stopped, node.stopped.subscribe()), door)
    }

    /// Leads until `ends` turns true, or the lease is lost: then it says how.
    async fn watch_over(&self, led: &Led, ends: &mut watch::Receiver<bool>) -> Option<Held> {
        let lease = led.millstream.lease()?;
        let mut tick = tokio::time::interval(self.node.timeout() / 10);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let left = async {
            led.nodes.leader_leaves().await;
            tokio::time::sleep(ANSWERED).await;
        };
        tokio::pin!(left);
        let mut leaves = false;
        loop {
            tokio::select! {
                biased;
                lost = lease.lost() => return Some(lost),
                () = turned(ends) => return None,
                () = &mut left, if !leaves => {
                    leaves = true;
                    self.node.leaves.send_replace(true);
                }
                _ = tick.tick() => {
                    for node in led.nodes.put_out_silent() {
                        tracing::warn!(node, "a node is out: it was silent for {:?}", self.node.timeout());
                    }
                    lease.set_watched(led.nodes.has_others());
                    if let Some(certificate) = self.node.renewed_certificate().await {
                        lease.set_certificate(Some(certificate));
                    }
                }
            }
        }
    }

    /// Another may lead: stops what runs here, without a commit.
    async fn resign(&self, led: &Led, stop: &watch::Sender<bool>, lost: &Held) {
        let why = match lost {
            Held::TakenBy(other) => format!("{other} leads now"),
            Held::Yes | Held::Resigned => "another node may lead by now".to_owned(),
        };
        tracing::warn!(
            node = self.node.address(),
            "this node was not heard of for too long and leads no more: {why}; it joins anew"
        );
        self.seek(&why);
        // No receiver means that nothing is left to be stopped.
        let _ = stop.send(true);
        if tokio::time::timeout(STOPS, led.millstream.abandon()).await.is_err() {
            tracing::warn!("jobs do not stop; what they try to write is refused");
        }
    }
}

/// Turns true when either of two does.
fn either(mut first: watch::Receiver<bool>, mut second: watch::Receiver<bool>) -> watch::Receiver<bool> {
    let (both, either) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            () = turned(&mut first) => {}
            () = turned(&mut second) => {}
        }
        // No receiver means that nobody asks.
        let _ = both.send(true);
    });
    either
}
