//! Following the one that leads: a node says to it what it is, again and again, and hears who else is there.

use std::sync::Arc;
use std::time::Duration;

use millstream_engine::store::Term;
use millstream_sql::{Error, ErrorKind, Result};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::calls::{Other, check_timeout, check_version};
use super::dial::{NodePlace, dial};
use super::node::{ANSWERED, Leader, Node, Role, turned};
use super::worker::Worker;

/// How often a node says what it is in the time in which it may be silent.
const BEATS: u32 = 5;
/// How often one does that is about to end.
const SHORT: Duration = Duration::from_millis(50);
/// How long it waits until its tasks run elsewhere. Less than the time in which a server ends.
const DEPARTS: Duration = Duration::from_secs(8);

/// One that is followed, until this is dropped.
pub(super) struct Following {
    node: Arc<Node>,
    leader: Arc<Leader>,
    /// How it stands with it: an error says why it has not been joined.
    joined: watch::Receiver<Result<bool, Arc<Error>>>,
    gone: watch::Sender<bool>,
    beating: JoinHandle<()>,
    /// Whether what runs its tasks here goes when this is dropped.
    ends_tasks: bool,
}

impl Following {
    /// Begins to follow the node that `term` is of, after `last`. `None`: it is no node.
    pub(super) fn begin(node: &Arc<Node>, term: &Term, last: Option<Self>) -> Result<Option<Self>> {
        let Some(of) = term.node.clone() else { return Ok(None) };
        let (gone, is_gone) = watch::channel(false);
        let place = NodePlace { address: of.address, name: term.holder.clone(), certificate: of.certificate };
        let leader = Arc::new(Leader { proof: node.key.header(&place.name)?, place, gone: is_gone });
        let (tell, joined) = watch::channel(Ok(false));
        match last {
            // It shows another certificate, or is reached elsewhere.
            Some(mut last) if last.leader.place.name == leader.place.name => last.ends_tasks = false,
            last => {
                drop(last);
                // Once it has been heard of it is given tasks.
                *node.worker.lock() = Some(Worker::open(node.options.config.clone(), &node.seat, &node.calling)?);
            }
        }
        let beating = tokio::spawn(beat(Arc::clone(node), Arc::clone(&leader), tell));
        Ok(Some(Following { node: Arc::clone(node), leader, joined, gone, beating, ends_tasks: true }))
    }

    /// Whether it is the node that `term` is of, as that says it is now.
    pub(super) fn is_of(&self, term: &Term) -> bool {
        let NodePlace { address, name, certificate } = &self.leader.place;
        let said = term.node.as_ref().map(|node| (&node.address, &node.certificate));
        *name == term.holder && said == Some((address, certificate))
    }

    /// Whether it has been joined, or why not.
    pub(super) fn joined(&self) -> Result<bool, Arc<Error>> {
        self.joined.borrow().clone()
    }

    /// Says to it that this node ends, once it has no tasks any more. What is passed on goes on until this is dropped.
    pub(super) async fn depart(&self) {
        let node = &self.node;
        // Who is stopped says so with what it is.
        node.calling.asks.notify_one();
        let (mut left, mut joined) = (node.leaves.subscribe(), self.joined.clone());
        tokio::select! {
            () = turned(&mut left) => {}
            _ = joined.wait_for(|joined| !matches!(joined, Ok(true))) => {}
            () = tokio::time::sleep(DEPARTS) => {
                tracing::warn!(leader = self.leader.place.address, "the one that leads has not taken all tasks away");
            }
        }
        self.beating.abort();
        // The one that leads may be about to end as well, and commit by tasks that are here.
        let _ = tokio::time::timeout(DEPARTS, async {
            while node.tasks() > 0 {
                tokio::time::sleep(SHORT).await;
            }
        })
        .await;
        if !*left.borrow() {
            self.leave(node).await;
        }
        *node.worker.lock() = None;
    }

    async fn leave(&self, node: &Node) {
        let patience = node.timeout() / 2;
        let said = async {
            let channel = dial(&self.leader.place, node.options.identity.as_ref(), patience).await?;
            Other::new(channel, self.leader.proof.clone(), patience).leave(node).await
        };
        if let Err(e) = said.await {
            tracing::debug!(error = %e, "the one that leads was not told");
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.beating.abort();
        if self.ends_tasks {
            *self.node.worker.lock() = None;
        }
        // No receiver means that nobody waits for it.
        let _ = self.gone.send(true);
    }
}

/// Checks that `node` may join the one that `term` is of.
///
/// Errors with `Fenced` where they do not agree.
pub(super) fn check_agreed(node: &Node, term: &Term) -> Result<()> {
    let Some(leader) = &term.node else { return Ok(()) };
    let own = node.term();
    check_version(&own.address, &own.version, &leader.address, &leader.version)?;
    node.agree(Duration::from_millis(leader.timeout_milliseconds));
    check_timeout(node.timeout_milliseconds(), &leader.address, leader.timeout_milliseconds)
}

async fn beat(node: Arc<Node>, leader: Arc<Leader>, joined: watch::Sender<Result<bool, Arc<Error>>>) {
    let mut other = None;
    loop {
        // One that is about to end waits for a word.
        let pause = if *node.stopped.borrow() { SHORT } else { node.timeout() / BEATS };
        let patience = node.timeout() / 2;
        match beat_once(&node, &leader, &mut other, patience).await {
            Ok(leaves) => {
                if !matches!(*joined.borrow(), Ok(true)) {
                    tracing::info!(leader = leader.place.address, node = node.address(), "joined the cluster");
                    node.role.send_replace(Role::Follows(Arc::clone(&leader)));
                    joined.send_modify(|joined| *joined = Ok(true));
                }
                if leaves {
                    // Who asked for it is waiting for just that, and may be asking by way of this node.
                    if let Some(Err(e)) = leave(&node, &other).await {
                        tracing::debug!(error = %e, "the one that leads was not told");
                    }
                    tokio::time::sleep(ANSWERED).await;
                    node.leaves.send_replace(true);
                    return;
                }
            }
            Err(e) => {
                other = None;
                if matches!(*joined.borrow(), Ok(true)) {
                    tracing::warn!(leader = leader.place.address, error = %e, "the one that leads does not answer");
                }
                joined.send_modify(|joined| *joined = Err(Arc::new(e)));
                // It may have handed over.
                node.hurry.notify_one();
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = node.calling.asks.notified() => {}
        }
    }
}

async fn leave(node: &Node, other: &Option<Other>) -> Option<Result<()>> {
    Some(other.as_ref()?.leave(node).await)
}

/// Gives whether this node is to leave.
async fn beat_once(node: &Node, leader: &Leader, other: &mut Option<Other>, patience: Duration) -> Result<bool> {
    let other = match other {
        Some(other) => other,
        none => {
            let channel = dial(&leader.place, node.options.identity.as_ref(), patience).await?;
            none.insert(Other::new(channel, leader.proof.clone(), patience))
        }
    };
    // Others are told from here on where it shows another certificate.
    let _ = node.renewed_certificate().await;
    let heard = other.beat(node).await?;
    node.calling.know(heard.nodes);
    Ok(heard.leaves)
}

/// Whether `e` does not pass by itself: the two do not belong together.
pub(super) fn is_final(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::Fenced | ErrorKind::Denied | ErrorKind::Invalid)
}
