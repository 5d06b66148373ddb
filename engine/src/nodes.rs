//! The nodes of a cluster, as its leader knows them: who is there, and who is to leave.
//!
//! A node says of itself now and then what it is. One that was silent for too long is out, until it says something again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::nearest::nearest;

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Where others reach it.
    pub address: String,
    /// A name that no other process has.
    pub name: String,
    /// Its build.
    pub version: String,
    /// How many threads its tasks have.
    pub cores: usize,
    /// How many tasks it runs.
    pub tasks: usize,
    /// The bytes that its jobs and statements hold.
    pub memory: u64,
    /// How many they may hold.
    pub memory_limit: u64,
    /// What tells the certificate that it shows, where it speaks TLS.
    #[serde(default)]
    pub certificate: Option<String>,
    /// Whether the store has not answered it for as long as a node may be silent.
    #[serde(default)]
    pub cut_off: bool,
}

/// A node that is there.
#[derive(Clone, Debug)]
pub struct LiveNode {
    /// What it says of itself.
    pub node: Node,
    /// Whether it is the one that leads.
    pub leads: bool,
    /// Since when it is there.
    pub since: SystemTime,
    /// Whether it is to leave: nothing more is given to it.
    pub leaving: bool,
    /// Whether it has nothing more to do, of one that is to leave.
    pub free: bool,
    /// When it was not reached last, if ever.
    missed: Option<Missed>,
    /// Why it is not fit for the tasks of a job, where that has been seen.
    pub unfit: Option<String>,
    heard: Instant,
}

/// A node that was not reached. It may be heard of all the same: then it is given nothing for a while, each time for longer, since what
/// was given to it has to be done again.
#[derive(Clone, Copy, Debug)]
struct Missed {
    at: Instant,
    /// How often within [`FORGIVEN`].
    times: u32,
    /// Nothing is given to it before.
    until: Instant,
    /// Nothing is given to it now.
    counts: bool,
}

/// How long a node must have been reached for what was before to be forgotten.
const FORGIVEN: Duration = Duration::from_secs(5 * 60);
/// The longest time for which nothing is given to a node that is heard of.
const LONGEST: Duration = Duration::from_secs(60);

impl Missed {
    /// Once more than `before`, of a node that may be silent for `timeout`.
    fn again(before: Option<Missed>, timeout: Duration) -> Self {
        let (at, before) = (Instant::now(), before.filter(|before| before.at.elapsed() < FORGIVEN));
        let times = before.map_or(0, |before| before.times) + 1;
        let pause = timeout.saturating_mul(1 << (times - 1).min(16)).min(LONGEST);
        Missed { at, times, until: at + pause, counts: true }
    }
}

/// See the module's text. The one who leads is always there.
#[derive(Debug)]
pub struct Nodes {
    leader: String,
    timeout: Duration,
    live: watch::Sender<BTreeMap<String, LiveNode>>,
}

impl Nodes {
    /// Of the cluster that `leader` leads, of which a node is out when it was silent for `timeout`.
    pub fn led_by(leader: Node, timeout: Duration) -> Self {
        let address = leader.address.clone();
        let live = watch::Sender::new(BTreeMap::from([(address.clone(), LiveNode::of(leader, true))]));
        Nodes { leader: address, timeout, live }
    }

    /// How long one may be silent.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Where the one that leads is reached.
    pub fn leader(&self) -> &str {
        &self.leader
    }

    /// Those that are there, by address; the one that leads comes first.
    pub fn live(&self) -> Vec<LiveNode> {
        let mut live: Vec<LiveNode> = self.live.borrow().values().cloned().collect();
        live.sort_by_key(|node| !node.leads);
        live
    }

    /// The same by address, for who waits until a node has come, has gone, or is to leave.
    pub fn watch(&self) -> watch::Receiver<BTreeMap<String, LiveNode>> {
        self.live.subscribe()
    }

    /// Whether there are others than the one that leads.
    pub fn has_others(&self) -> bool {
        self.live.borrow().len() > 1
    }

    /// `node` has said what it is. Gives whether it is new here.
    ///
    /// Errors where its address is another's.
    pub fn heard(&self, node: Node) -> Result<bool> {
        let is_another = |known: &LiveNode| known.leads && known.node.name != node.name;
        if self.live.borrow().get(&node.address).is_some_and(is_another) {
            return Err(Error::invalid(format!("address \"{}\" is the leader's own", node.address))
                .with_hint("Write the address at which others reach this node: --advertise HOST:PORT."));
        }
        let mut is_new = false;
        self.live.send_if_modified(|live| {
            match live.get_mut(&node.address).filter(|known| known.node.name == node.name) {
                Some(known) => {
                    let turned = known.node.cut_off != node.cut_off;
                    (known.node, known.heard) = (node, Instant::now());
                    let over = known.missed.as_mut().filter(|missed| missed.counts && missed.until <= Instant::now());
                    over.map(|missed| missed.counts = false).is_some() || turned
                }
                None => {
                    is_new = true;
                    live.insert(node.address.clone(), LiveNode::of(node, false));
                    true
                }
            }
        });
        Ok(is_new)
    }

    /// The node called `name` has left. Gives its address, if it was there.
    pub fn left(&self, name: &str) -> Option<String> {
        let mut left = None;
        self.live.send_if_modified(|live| {
            let found = live.values().find(|known| !known.leads && known.node.name == name);
            left = found.map(|known| known.node.address.clone());
            left.as_ref().is_some_and(|address| live.remove(address).is_some())
        });
        left
    }

    /// The node at `address` was not reached: nothing is given to it for a while, and until it is heard of again. Gives whether it
    /// could be given something before. The one that leads is always reached.
    pub fn missed(&self, address: &str) -> bool {
        let missed = |live: &mut BTreeMap<String, LiveNode>| {
            let known = live.get_mut(address).filter(|known| !known.leads && known.is_reached());
            let Some(known) = known else { return false };
            known.missed = Some(Missed::again(known.missed, self.timeout));
            true
        };
        self.live.send_if_modified(missed)
    }

    /// The node at `address` is not fit for the tasks of a job, and `why`: nothing more is given to it until it is started again. Gives
    /// whether it could be given something before.
    pub fn unfit(&self, address: &str, why: &str) -> bool {
        let unfit = |live: &mut BTreeMap<String, LiveNode>| {
            let known = live.get_mut(address).filter(|known| !known.leads);
            known.is_some_and(|known| known.unfit.replace(why.to_owned()).is_none())
        };
        self.live.send_if_modified(unfit)
    }

    /// The node at `address`, which is to leave, has nothing more to do.
    pub fn free(&self, address: &str) {
        self.live.send_if_modified(|live| {
            live.get_mut(address).is_some_and(|known| {
                known.free = known.leaving;
                false
            })
        });
    }

    /// Puts out who was silent for too long, and gives their addresses.
    pub fn put_out_silent(&self) -> Vec<String> {
        let mut out = vec![];
        self.live.send_if_modified(|live| {
            let silent = |known: &LiveNode| !known.leads && known.heard.elapsed() >= self.timeout;
            out = live.iter().filter(|(_, known)| silent(known)).map(|(address, _)| address.clone()).collect();
            live.retain(|_, known| !silent(known));
            !out.is_empty()
        });
        out
    }

    /// The node at `address` is to leave. Gives whether that is the one that leads.
    ///
    /// Errors with `NotFound` where there is none.
    pub fn drain(&self, address: &str) -> Result<bool> {
        let mut found = false;
        self.live.send_modify(|live| {
            if let Some(known) = live.get_mut(address) {
                (found, known.leaving) = (true, true);
            }
        });
        if !found {
            let live = self.live.borrow();
            let hint = match nearest(address, live.keys().map(String::as_str)) {
                Some(near) => format!("Did you mean '{near}'?"),
                None => "SHOW NODES lists those that are there.".to_owned(),
            };
            return Err(Error::not_found(format!("there is no node \"{address}\"")).with_hint(hint));
        }
        Ok(address == self.leader)
    }

    /// Completes when the one that leads is to leave.
    pub async fn leader_leaves(&self) {
        let mut live = self.live.subscribe();
        // The sender lives as long as this.
        let _ = live.wait_for(|live| live.get(&self.leader).is_some_and(|known| known.leaving)).await;
    }

    /// Completes when there is no node at `address`.
    pub async fn gone(&self, address: &str) {
        let mut live = self.live.subscribe();
        // The sender lives as long as this.
        let _ = live.wait_for(|live| !live.contains_key(address)).await;
    }

    /// Whether the node called `name` is to leave, and has nothing more to do.
    pub fn may_leave(&self, name: &str) -> bool {
        self.live.borrow().values().any(|known| known.node.name == name && known.free)
    }
}

impl LiveNode {
    fn of(node: Node, leads: bool) -> Self {
        let (leaving, free, missed, unfit) = (false, false, None, None);
        LiveNode { node, leads, since: SystemTime::now(), leaving, free, missed, unfit, heard: Instant::now() }
    }

    /// Whether it can be given something to do.
    pub fn is_fit(&self) -> bool {
        self.leads || !(self.leaving || self.node.cut_off) && self.is_reached() && self.unfit.is_none()
    }

    fn is_reached(&self) -> bool {
        self.missed.is_none_or(|missed| !missed.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn node(address: &str, name: &str) -> Node {
        let (address, name, version) = (address.to_owned(), name.to_owned(), "1".to_owned());
        Node {
            address,
            name,
            version,
            cores: 1,
            tasks: 0,
            memory: 0,
            memory_limit: 0,
            certificate: None,
            cut_off: false,
        }
    }

    fn addresses(nodes: &Nodes) -> Vec<String> {
        nodes.live().into_iter().map(|live| live.node.address).collect()
    }

    #[test]
    fn who_is_silent_is_out_and_comes_back() {
        let nodes = Nodes::led_by(node("b:1", "b"), Duration::ZERO);
        assert!(!nodes.has_others());
        assert!(nodes.heard(node("a:1", "a")).expect("comes"));
        assert_eq!(addresses(&nodes), ["b:1", "a:1"], "the one that leads comes first");
        assert_eq!(nodes.put_out_silent(), ["a:1"]);
        assert_eq!(addresses(&nodes), ["b:1"], "it stays itself");
        assert!(nodes.heard(node("a:1", "a")).expect("comes again"));
        let nodes = Nodes::led_by(node("b:1", "b"), Duration::from_secs(3600));
        nodes.heard(node("a:1", "a")).expect("comes");
        assert!(!nodes.heard(node("a:1", "a")).expect("is known"));
        assert!(nodes.put_out_silent().is_empty());
        assert!(nodes.heard(node("a:1", "another process")).expect("was started anew"));
        assert_eq!(nodes.left("a"), None, "that one had gone before");
        assert_eq!(nodes.left("another process").as_deref(), Some("a:1"));
        assert_eq!(nodes.left("b"), None, "it leads");
        assert_eq!(addresses(&nodes), ["b:1"]);
        assert!(nodes.heard(node("b:1", "c")).expect_err("is another's").message().contains("leader's own"));
    }

    #[test]
    fn who_was_not_reached_gets_nothing_until_it_is_heard_of() {
        let nodes = Nodes::led_by(node("b:1", "b"), Duration::ZERO);
        nodes.heard(node("a:1", "a")).expect("comes");
        let fit = || -> Vec<String> {
            nodes.live().into_iter().filter(LiveNode::is_fit).map(|live| live.node.address).collect()
        };
        let mut watched = nodes.watch();
        watched.mark_unchanged();
        assert_eq!(
            [nodes.missed("a:1"), nodes.missed("a:1"), nodes.missed("b:1"), nodes.missed("c:1")],
            [true, false, false, false]
        );
        assert!(watched.has_changed().expect("lives"));
        assert_eq!(fit(), ["b:1"]);
        watched.mark_unchanged();
        assert!(!nodes.heard(node("a:1", "a")).expect("is known"));
        assert!(watched.has_changed().expect("lives"));
        assert_eq!(fit(), ["b:1", "a:1"]);
        assert!(nodes.unfit("a:1", "another key") && !nodes.unfit("a:1", "another key"));
        nodes.heard(node("a:1", "a")).expect("is known");
        assert_eq!(fit(), ["b:1"], "it stays what it is");
        nodes.heard(node("a:1", "anew")).expect("was started again");
        assert_eq!(fit(), ["b:1", "a:1"]);
    }

    #[test]
    fn who_is_not_reached_again_and_again_gets_nothing_for_longer_and_longer() {
        let timeout = Duration::from_secs(5);
        let first = Missed::again(None, timeout);
        assert_eq!((first.until - first.at, first.times), (timeout, 1));
        let second = Missed::again(Some(first), timeout);
        assert_eq!(second.until - second.at, timeout * 2);
        let many = (0..100).fold(second, |missed, _| Missed::again(Some(missed), timeout));
        assert_eq!(many.until - many.at, LONGEST);
        if let Some(long_ago) = Instant::now().checked_sub(FORGIVEN) {
            assert_eq!(Missed::again(Some(Missed { at: long_ago, ..many }), timeout).times, 1);
        }
        let nodes = Nodes::led_by(node("b:1", "b"), Duration::from_secs(3600));
        nodes.heard(node("a:1", "a")).expect("comes");
        assert!(nodes.missed("a:1"));
        nodes.heard(node("a:1", "a")).expect("is heard of");
        assert!(nodes.live().iter().all(|live| live.leads || !live.is_fit()), "not yet");
    }

    #[tokio::test]
    async fn who_is_to_leave_is_told_and_waited_for() {
        let nodes = Nodes::led_by(node("b:1", "b"), Duration::from_secs(3600));
        nodes.heard(node("a:1", "a")).expect("comes");
        let missing = nodes.drain("a:2").expect_err("is not there");
        assert_eq!((missing.kind(), missing.hint()), (ErrorKind::NotFound, Some("Did you mean 'a:1'?")));
        assert!(!nodes.drain("a:1").expect("is there"));
        assert!(!nodes.may_leave("a"), "it may have something to do");
        nodes.free("a:1");
        nodes.free("b:1");
        assert!(nodes.may_leave("a") && !nodes.may_leave("b"), "only one of them is to leave");
        nodes.left("a").expect("was there");
        nodes.gone("a:1").await;
        assert!(nodes.drain("b:1").expect("is there"));
        nodes.leader_leaves().await;
    }
}
