//! This process as a node: what it has in any case, and the part that it plays now.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use millstream_engine::nodes::{Node as NodeFigures, Nodes};
use millstream_engine::store::NodeTerm;
use millstream_sql::session::Seat;
use millstream_sql::{Config, Error, ErrorKind, Millstream, Result};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tonic::metadata::{Ascii, MetadataValue};

use super::busy::Busy;
use super::calling::NodeCalling;
use super::dial::NodePlace;
use super::key::ClusterKey;
use super::trust::fingerprint;
use super::worker::Worker;
use crate::compression::Compression;
use crate::doors::tls::Identity;
use crate::doors::{Doors, DoorsOptions};
use crate::error::to_status;
use crate::exchange::Door as ExchangeDoor;
use crate::http::{HttpOptions, router};
use crate::server::{Ending, Stack, stack};

/// How long a node may be silent where nothing else is said.
pub const NODE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long who has a node leave may take to fetch the answer: some clients ask again for it.
pub(super) const ANSWERED: Duration = Duration::from_millis(500);
/// How long a request waits for one that leads, beyond the time in which one that is out is replaced.
const REPLACED: Duration = Duration::from_secs(2);

/// How this process is a node.
pub struct NodeOptions {
    /// How the store is opened.
    pub config: Config,
    /// Who is let in.
    pub doors: DoorsOptions,
    /// The bounds of what speaks HTTP.
    pub http: HttpOptions,
    /// Where others reach it.
    pub address: String,
    /// Errors where it must not serve; it is said whether anybody may do all, since nobody has made a user.
    pub admits: Box<dyn Fn(bool) -> Result<()> + Send + Sync>,
    /// The certificate that it shows.
    pub identity: Option<Identity>,
    /// How long a node may be silent; that of the cluster, where nothing is said.
    pub timeout: Option<Duration>,
    /// How rows are compressed that it sends to other nodes.
    pub compression: Compression,
    /// Its build.
    pub version: String,
}

/// See the module's text.
pub struct Node {
    pub(super) options: NodeOptions,
    pub(super) seat: Seat,
    is_open: bool,
    pub(super) key: Arc<ClusterKey>,
    pub(super) role: watch::Sender<Role>,
    timeout: Mutex<Duration>,
    certificate: Mutex<Option<String>>,
    /// Where the others are.
    pub(super) calling: Arc<NodeCalling>,
    /// What runs tasks of others, while it follows.
    pub(super) worker: Mutex<Option<Worker>>,
    /// Answers to clients.
    pub(super) busy: Busy,
    /// Rouses who watches the lease.
    pub(super) hurry: Notify,
    /// Turns true when this node is asked to leave.
    pub(super) leaves: watch::Sender<bool>,
    /// Turns true when it ends.
    pub(super) stopped: watch::Sender<bool>,
}

/// The part that a node plays.
#[derive(Clone)]
pub(super) enum Role {
    /// It knows nobody who leads, and why.
    Seeks(Arc<str>),
    /// It leads.
    Leads(Arc<Led>),
    /// Another leads.
    Follows(Arc<Leader>),
}

/// What the one that leads has open.
pub(super) struct Led {
    pub(super) millstream: Arc<Millstream>,
    pub(super) nodes: Arc<Nodes>,
    pub(super) flight: Stack,
    pub(super) http: Router,
    door: ExchangeDoor,
}

/// The one that leads, as others see it.
pub(super) struct Leader {
    pub(super) place: NodePlace,
    /// What proves to it that this is a node.
    pub(super) proof: MetadataValue<Ascii>,
    /// Turns true when it leads no more.
    pub(super) gone: watch::Receiver<bool>,
}

impl Node {
    /// A node of the store that `options` name. It plays no part yet.
    pub async fn open(options: NodeOptions) -> Result<Arc<Self>> {
        let seat = Seat::at(&options.config.store).await?;
        let admitted = match seat.is_open().await {
            Ok(is_open) => (options.admits)(is_open).map(|()| is_open),
            Err(e) => Err(e),
        };
        let is_open = match admitted {
            Ok(is_open) => is_open,
            Err(e) => {
                seat.leave();
                return Err(e);
            }
        };
        let key = Arc::new(ClusterKey::of(seat.store()).await?);
        let NodeOptions { address, identity, compression, .. } = &options;
        let calling = NodeCalling::new(address, Arc::clone(&key), identity.clone(), *compression);
        let certificate = shown(options.identity.as_ref().map(|identity| identity.cert.clone())).await?;
        let (role, _) = watch::channel(Role::Seeks("it has just started".into()));
        let timeout = Mutex::new(options.timeout.unwrap_or(NODE_TIMEOUT));
        let (calling, hurry) = (Arc::new(calling), Notify::new());
        let (worker, busy) = (Mutex::default(), Busy::default());
        let (leaves, stopped) = (watch::Sender::new(false), watch::Sender::new(false));
        let certificate = Mutex::new(certificate);
        Ok(Arc::new(Node {
            options,
            seat,
            is_open,
            key,
            role,
            timeout,
            certificate,
            calling,
            worker,
            busy,
            hurry,
            leaves,
            stopped,
        }))
    }

    /// Whether anybody could do all in its store when it began: nobody had made a user.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Completes when it was asked to leave: by `DRAIN NODE`.
    pub async fn told_to_leave(&self) {
        // The sender lives as long as this.
        let _ = self.leaves.subscribe().wait_for(|leaves| *leaves).await;
    }

    /// What it serves, for people: the part that it plays, and what there is where it leads.
    pub fn part(&self) -> Part {
        match &*self.role.borrow() {
            Role::Seeks(why) => Part::Seeks(why.to_string()),
            Role::Leads(led) => Part::Leads(Arc::clone(&led.millstream)),
            Role::Follows(leader) => Part::Follows(leader.place.address.clone()),
        }
    }

    pub(super) fn address(&self) -> &str {
        &self.options.address
    }

    /// How long a node of this cluster may be silent.
    pub(super) fn timeout(&self) -> Duration {
        *self.timeout.lock()
    }

    pub(super) fn timeout_milliseconds(&self) -> u64 {
        u64::try_from(self.timeout().as_millis()).unwrap_or(u64::MAX)
    }

    /// Goes by what the cluster says, where this node was told nothing else.
    pub(super) fn agree(&self, timeout: Duration) {
        if self.options.timeout.is_none() {
            *self.timeout.lock() = timeout;
        }
    }

    /// How long one that leads may be silent: a node that is out has been replaced then.
    pub(super) fn lease(&self) -> Duration {
        self.timeout() * 4 / 5
    }

    /// What it says of itself in the lease.
    pub(super) fn term(&self) -> NodeTerm {
        let timeout_milliseconds = self.timeout_milliseconds();
        let (address, version) = (self.options.address.clone(), self.options.version.clone());
        NodeTerm { address, version, timeout_milliseconds, certificate: self.certificate.lock().clone() }
    }

    /// What it says of itself to the one that leads.
    pub(super) fn figures(&self) -> NodeFigures {
        let NodeOptions { config, address, version, .. } = &self.options;
        let worker = self.worker.lock();
        NodeFigures {
            address: address.clone(),
            name: self.seat.name().to_owned(),
            version: version.clone(),
            cores: config.parallelism,
            tasks: worker.as_ref().map_or(0, Worker::tasks),
            memory: worker.as_ref().map_or(0, Worker::memory),
            memory_limit: config.memory_limit as u64,
            certificate: self.certificate.lock().clone(),
            cut_off: self.seat.store().away().is_some_and(|away| away.since.elapsed() >= self.timeout()),
        }
    }

    /// How many tasks of others run here.
    pub(super) fn tasks(&self) -> usize {
        self.worker.lock().as_ref().map_or(0, Worker::tasks)
    }

    /// Itself, as others see it.
    pub(super) fn place(&self) -> NodePlace {
        let (address, name) = (self.options.address.clone(), self.seat.name().to_owned());
        NodePlace { address, name, certificate: self.certificate.lock().clone() }
    }

    /// Looks whether it shows another certificate by now, and gives it where that is so.
    pub(super) async fn renewed_certificate(&self) -> Option<String> {
        let file = self.options.identity.as_ref().map(|identity| identity.cert.clone());
        // One that cannot be read is not shown either: the last good one is.
        let now = shown(file).await.ok()??;
        let mut certificate = self.certificate.lock();
        (certificate.as_ref() != Some(&now)).then(|| certificate.insert(now).clone())
    }

    /// Where other nodes bring tasks and rows.
    pub(super) fn exchange_door(&self) -> Option<ExchangeDoor> {
        if let Role::Leads(led) = &*self.role.borrow() {
            return Some(led.door.clone());
        }
        self.worker.lock().as_ref().map(|worker| worker.door.clone())
    }

    /// The addresses of the nodes that are there besides `without`, in words.
    pub(super) fn others(&self, without: &str) -> String {
        let known = self.calling.known();
        let mut others: Vec<&str> = known.iter().map(String::as_str).filter(|address| *address != without).collect();
        if !others.contains(&self.address()) && self.address() != without {
            others.push(self.address());
        }
        match others.as_slice() {
            [] => "There is no other node.".to_owned(),
            [one] => format!("The other node is {one}."),
            some => format!("The other nodes are {}.", some.join(", ")),
        }
    }

    /// Until when a request that comes now waits for one that leads.
    pub(super) fn patience(&self) -> Instant {
        Instant::now() + self.timeout() + REPLACED
    }

    /// That nobody leads, and why.
    pub(super) fn without_leader(&self, why: &str) -> Error {
        let message = format!("no node leads, as far as node \"{}\" knows: {why}", self.address());
        Error::new(ErrorKind::Unavailable, message).with_hint(format!("Try again. {}", self.others(self.address())))
    }

    /// That what this node does for a client ends: it is shutting down, or leads no more.
    pub(super) fn ends_here(&self) -> Error {
        let what = if *self.stopped.borrow() { "is shutting down" } else { "leads no more" };
        let without = if *self.stopped.borrow() { self.address() } else { "" };
        Error::new(ErrorKind::Unavailable, format!("node \"{}\" {what}", self.address()))
            .with_hint(self.others(without))
    }

    /// That the one at `leader` has gone while something was under way.
    pub(super) fn lost_leader(&self, leader: &str) -> Error {
        Error::new(ErrorKind::Unavailable, format!("node \"{leader}\", which leads, has gone")).with_hint(format!(
            "What was under way may have been done or not: look before you repeat it. {}",
            self.others(leader)
        ))
    }
}

/// Completes when `flag` is true, or nobody can turn it any more.
pub(super) async fn turned(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|flag| *flag).await;
}

/// The part that a node plays, for people.
pub enum Part {
    /// It knows nobody who leads, and why.
    Seeks(String),
    /// It leads, and has this open.
    Leads(Arc<Millstream>),
    /// The node at this address leads.
    Follows(String),
}

impl Led {
    /// Answers for `millstream` until `stopped` turns true. Blocks on the disk.
    pub(super) fn new(
        node: &Arc<Node>,
        millstream: Arc<Millstream>,
        nodes: Arc<Nodes>,
        stopped: watch::Receiver<bool>,
        door: ExchangeDoor,
    ) -> Result<Self> {
        let doors = Arc::new(Doors::new(Arc::clone(&millstream), node.options.doors.clone())?);
        let own = Arc::clone(node);
        let told = Arc::new(move || to_status(&own.ends_here(), None));
        let flight = stack(Arc::clone(&doors), Ending { stopped: stopped.clone(), told })?;
        let http = router(doors, node.options.http.clone(), stopped);
        Ok(Led { millstream, nodes, flight, http, door })
    }
}

/// What tells the certificate in `file` from others.
async fn shown(file: Option<PathBuf>) -> Result<Option<String>> {
    let Some(file) = file else { return Ok(None) };
    let read = tokio::task::spawn_blocking(move || fingerprint(&file)).await;
    Ok(Some(read.map_err(|e| Error::internal(format!("a certificate was not read: {e}")))??))
}
