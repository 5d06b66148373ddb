//! Waiting until what is acknowledged now is committed.

use tokio::sync::oneshot;

use super::coordinator::Coordinator;
use super::messages::Command;
use super::run::{Flush, FlushTime};
use super::status::{JobHandle, JobPhase};
use crate::checkpoint::Progress;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::NodeKind;

impl JobHandle {
    /// Waits until all input that is acknowledged now is committed, with all results that follow from it, or,
    /// where all input ends, until the job has finished.
    ///
    /// Errors with `Unavailable` when the job stops before it has said so: part of the input may be committed.
    pub async fn flush(&self) -> Result<()> {
        self.ask_flush(true).await
    }

    /// Waits until all rows that are acknowledged now are committed; windows that they close may follow later.
    pub async fn settle(&self) -> Result<()> {
        self.ask_flush(false).await
    }

    async fn ask_flush(&self, time: bool) -> Result<()> {
        let (tx, rx) = oneshot::channel();
        let answer = match self.commands.send(Command::Flush { time, reply: tx }).await {
            Ok(()) => rx.await.ok(),
            Err(_) => None,
        };
        match answer {
            Some(Err(e)) if e.kind() != ErrorKind::Cancelled => return Err(e),
            Some(Ok(())) => {
                self.wait_if_ending().await;
                return self.failure();
            }
            // It was stopping, or had stopped.
            Some(Err(_)) | None => {}
        }
        self.failure()?;
        match self.status().phase {
            JobPhase::Finished => Ok(()),
            _ => Err(Error::unavailable("stopped before all rows were known to be committed")
                .with_hint("Once it runs again, look which rows are there before you send them again.")),
        }
    }

    /// After the last commit the phase follows at once.
    async fn wait_if_ending(&self) {
        let mut status = self.status.clone();
        let ends = self.graph.nodes.iter().all(|n| match &n.kind {
            NodeKind::Source(s) => s.source.bounded(),
            _ => true,
        });
        if ends && !self.graph.goes_by_clock() {
            let _ = status.wait_for(|s| s.phase != JobPhase::Running).await;
        }
    }
}

impl Coordinator {
    /// Takes a flush on; answers at once where nothing is under way.
    pub(super) fn flush(&mut self, time: bool, reply: oneshot::Sender<Result<()>>) {
        let (mut targets, mut ends) = (vec![], vec![]);
        for (i, view) in self.sources.iter().enumerate() {
            if view.source.bounded() {
                ends.push(i);
            } else {
                targets.extend(view.intake.acknowledged().into_iter().map(|reach| (i, reach)));
            }
        }
        if !time {
            // Time may be far behind the rows of a source that is slow to say it.
            targets.iter_mut().for_each(|(_, reach)| reach.watermark = None);
        }
        let flush = Flush { targets, ends, time: if time { FlushTime::Open } else { FlushTime::Rows }, reply };
        let s = &self.state;
        let under_way = s.dirty || s.unsaid || self.pulse.is_set() || !s.is_quiet();
        if flush.ends.is_empty() && !under_way && self.is_reached(&flush, &s.manifest.sources) {
            let _ = flush.reply.send(Ok(()));
            return;
        }
        self.state.flushes.push(flush);
        self.state.dirty = true;
        self.time_flushes();
    }

    /// Notes the watermark that flushes wait for whose targets have been read.
    pub(super) fn time_flushes(&mut self) {
        let mut flushes = std::mem::take(&mut self.state.flushes);
        for flush in flushes.iter_mut().filter(|f| f.time == FlushTime::Open) {
            if self.is_reached(flush, &self.state.progress) {
                flush.time = FlushTime::Known(self.state.watermark);
            }
        }
        self.state.flushes = flushes;
    }

    /// Answers the flushes that the last commit satisfies.
    pub(super) fn answer_flushes(&mut self) {
        let manifest = &self.state.manifest;
        let timely = |f: &Flush| match f.time {
            FlushTime::Rows => true,
            FlushTime::Open => false,
            FlushTime::Known(time) => manifest.watermark >= time,
        };
        // Where all input ends, only the job's own end (its `Finished`) is the end of a flush.
        let open = |f: &Flush| f.ends.len() < self.sources.len() || self.state.due.is_some();
        let is_done = |f: &Flush| manifest.end || (open(f) && timely(f) && self.is_reached(f, &manifest.sources));
        let done: Vec<bool> = self.state.flushes.iter().map(is_done).collect();
        let mut waiting = vec![];
        for (flush, done) in std::mem::take(&mut self.state.flushes).into_iter().zip(done) {
            if done {
                let _ = flush.reply.send(Ok(()));
            } else {
                waiting.push(flush);
            }
        }
        // The rest needs another commit.
        self.state.dirty |= !waiting.is_empty();
        self.state.flushes = waiting;
    }

    /// Whether `progress` holds all that a flush waits for.
    pub(super) fn is_reached(&self, flush: &Flush, progress: &[Progress]) -> bool {
        flush.targets.iter().all(|(i, reach)| progress[*i].reaches(reach))
            && flush.ends.iter().all(|i| self.has_ended(*i, progress))
    }

    /// Whether source `i` has ended, and `progress` holds all of it.
    pub(super) fn has_ended(&self, i: usize, progress: &[Progress]) -> bool {
        let view = &self.sources[i];
        view.tasks_ended == view.cuts.len() && view.intake.splits().iter().all(|s| progress[i].is_done(s))
    }
}
