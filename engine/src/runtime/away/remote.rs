//! A node that runs tasks of a job, as the coordinator's node has it: to the coordinator its tasks are like any others.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::gone::gone_away;
use super::network::{Line, Network};
use super::words::{Order, Said, Told, heard, sent};
use crate::connector::Intake;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::channel::stopping;
use crate::runtime::idle::Waits;
use crate::runtime::messages::{CutHere, Report};
use crate::runtime::task::JobPlan;

/// A node is told so often within its timeout that this one is there.
pub(super) const BEATS: u32 = 4;

/// Where the cuts for a task that reads come out, by its fragment and its number.
pub(crate) type Cuts = (usize, usize, mpsc::Receiver<CutHere>);

/// See the module's text.
pub(crate) struct Remote {
    pub(crate) address: String,
    pub(crate) line: Line,
    pub(crate) node_timeout: Duration,
    pub(crate) plan: Arc<JobPlan>,
    pub(crate) cuts: Vec<Cuts>,
    pub(crate) reports: mpsc::Sender<Report>,
    pub(crate) start: watch::Receiver<bool>,
}

/// The units of a source that the node is handed.
struct HandedOut {
    source: usize,
    intake: Arc<dyn Intake>,
    /// One for each unit that it can take.
    asked: Semaphore,
    on_way: Mutex<OnWay>,
}

/// The splits of units that the node had not got yet when it spoke last, and how many it had.
#[derive(Default)]
struct OnWay {
    come: u64,
    splits: VecDeque<Arc<str>>,
}

/// Gives `order` to the node at `address`.
///
/// Errors with `Unavailable`, naming it, when it does not take it in time.
pub(crate) async fn call(network: &dyn Network, address: &str, order: &Order) -> Result<Line> {
    let calling = network.call(address, sent(order)?, order.node_timeout);
    timeout(order.node_timeout, calling).await.unwrap_or_else(|_| Err(gone_away(address, "does not answer")))
}

impl Remote {
    /// Passes on what either side says, until the job ends.
    pub(crate) async fn run(mut self) {
        let mut saying = JoinSet::new();
        let handed = self.begin(&mut saying);
        let Err(e) = self.hear(&handed, &mut saying).await else { return };
        // The line is open until this is heard: what breaks when it ends must not be heard before. The job may have ended.
        let _ = self.reports.send(Report::Failed(e)).await;
    }

    /// Begins to say what there is to say.
    fn begin(&mut self, saying: &mut JoinSet<Result<()>>) -> Vec<Option<Arc<HandedOut>>> {
        let (say, mut start) = (self.line.say.clone(), self.start.clone());
        saying.spawn(async move {
            start.wait_for(|start| *start).await.map_err(|_| stopping())?;
            tell(&say, &Told::Start).await
        });
        let (say, pause) = (self.line.say.clone(), self.node_timeout / BEATS);
        saying.spawn(async move {
            loop {
                tokio::time::sleep(pause).await;
                tell(&say, &Told::Here).await?;
            }
        });
        let mut handed: Vec<Option<Arc<HandedOut>>> = self.plan.opened.iter().map(|_| None).collect();
        for (fragment, task, mut cuts) in std::mem::take(&mut self.cuts) {
            let say = self.line.say.clone();
            saying.spawn(async move {
                while let Some(cut) = cuts.recv().await {
                    tell(&say, &Told::Cut { fragment, task, cut }).await?;
                }
                Ok(())
            });
            let source = self.plan.source(fragment).unwrap_or_default();
            let Some(opened) = self.plan.opened[source].as_ref().filter(|_| handed[source].is_none()) else { continue };
            let (intake, asked) = (opened.intake.clone(), Semaphore::new(0));
            let out = Arc::new(HandedOut { source, intake, asked, on_way: Mutex::default() });
            saying.spawn(out.clone().hand_out(self.line.say.clone()));
            handed[source] = Some(out);
        }
        handed
    }

    async fn hear(&mut self, handed: &[Option<Arc<HandedOut>>], saying: &mut JoinSet<Result<()>>) -> Result<()> {
        let silent = || gone_away(&self.address, &format!("has said nothing for {:?}", self.node_timeout));
        loop {
            let word = tokio::select! {
                Some(said) = saying.join_next() => match said {
                    Ok(Err(e)) if e.kind() != ErrorKind::Cancelled => return Err(e),
                    Err(e) if e.is_panic() => return Err(Error::internal("what speaks to a node panicked")),
                    _ => continue,
                },
                word = timeout(self.node_timeout, self.line.hear.recv()) => word.map_err(|_| silent())?,
            };
            let word = word.ok_or_else(|| gone_away(&self.address, "has gone"))?;
            if let Some(report) = self.report(heard(&word)?, handed)? {
                self.reports.send(report).await.map_err(|_| stopping())?;
            }
        }
    }

    /// `e`, which came from there, with the node whose limit it is about.
    fn named(&self, e: Error) -> Error {
        match e.kind() {
            ErrorKind::Exhausted => e.context(format!("node \"{}\"", self.address)),
            _ => e,
        }
    }

    /// What the coordinator is to hear of what was said.
    fn report(&self, said: Said, handed: &[Option<Arc<HandedOut>>]) -> Result<Option<Report>> {
        let out = |source: usize| handed.get(source).and_then(Option::as_ref);
        Ok(Some(match said {
            Said::Ready { states } => Report::Ready { states },
            Said::Cut { mut cut, come } => {
                cut.waits.extend(out(cut.source).into_iter().flat_map(|out| out.on_way(come)));
                Report::Cut(cut)
            }
            Said::Done { epoch, mut aside, beyond, due, last } => {
                // There may have been room there, and none for all of the job.
                aside.truncate(self.plan.asides.admit(aside.len()));
                self.plan.asides.add_beyond(beyond);
                Report::Done { epoch, aside, due, last }
            }
            Said::Stored(parts) => Report::Stored(parts),
            Said::Failed(fault) => return Err(self.named(fault.into())),
            Said::Pulse => {
                self.plan.pulse.add(1);
                return Ok(None);
            }
            Said::Asks { source, units } => {
                out(source).into_iter().for_each(|out| out.asked.add_permits(units));
                return Ok(None);
            }
            Said::Ended { source, unit, at } => {
                out(source).into_iter().for_each(|out| out.intake.ended(&unit, at));
                return Ok(None);
            }
            Said::Figures(figures) => {
                for (node, tasks) in figures {
                    for (task, figures) in tasks {
                        let metrics = self.plan.metrics.get(node).and_then(|of| of.get(task));
                        metrics.into_iter().for_each(|metrics| metrics.show(&figures));
                    }
                }
                return Ok(None);
            }
            Said::Here => return Ok(None),
        }))
    }
}

impl HandedOut {
    /// Hands out units as they are asked for.
    async fn hand_out(self: Arc<Self>, say: mpsc::Sender<bytes::Bytes>) -> Result<()> {
        let source = self.source;
        loop {
            self.asked.acquire().await.map_err(|_| stopping())?.forget();
            let Some(unit) = self.intake.next_unit().await? else {
                return tell(&say, &Told::NoMore { source }).await;
            };
            self.on_way.lock().splits.push_back(unit.split.clone());
            tell(&say, &Told::Unit { source, unit }).await?;
        }
    }

    /// `come` units have come. Splits of which one has not are not idle.
    fn on_way(&self, come: u64) -> Vec<Waits> {
        let mut on_way = self.on_way.lock();
        while on_way.come < come && on_way.splits.pop_front().is_some() {
            on_way.come += 1;
        }
        on_way.splits.iter().map(|split| Waits { on: Some(split.clone()), time: Duration::ZERO }).collect()
    }
}

async fn tell(say: &mpsc::Sender<bytes::Bytes>, told: &Told) -> Result<()> {
    say.send(sent(told)?).await.map_err(|_| stopping())
}
