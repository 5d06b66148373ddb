//! The coordinator of a job: cuts its input into epochs, computes the watermark, commits checkpoints.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;

use super::aside::Asides;
use super::commit::{CommitJob, Committed};
use super::config::JobConfig;
use super::idle::Waits;
use super::messages::{Command, CutHere, Pulse, Report};
use super::run::{Epoch, Run};
use super::status::{JobPhase, Shared};
use crate::checkpoint::Claim;
use crate::clock::Clock;
use crate::connector::{Intake, Reach, Sink, Source};
use crate::epoch::EpochMark;
use crate::error::{Error, ErrorKind, Result};
use crate::time::{CLOCK_STEP, EventTime};

/// Epochs under way at a time: one is finished while the next is filled.
const MOST_EPOCHS: usize = 2;
/// Of the time between checkpoints that somebody waits for, one takes a tenth at most.
const AWAITED_SHARE: u32 = 10;
/// The shortest time between them.
const AWAITED_GAP: Duration = Duration::from_millis(10);
/// Rows put aside are committed early beyond this many bytes.
const DEAD_BYTES: usize = 16 << 20;
/// How often a job that waits for input looks for idle splits.
const TICK: Duration = Duration::from_millis(500);
/// How often at most epochs end for those alone who wait for the watermark.
const HOPE: Duration = Duration::from_millis(1);
/// How long the end of a task is waited for.
const LONGEST_END: Duration = Duration::from_secs(10);

/// A source as the coordinator sees it.
pub(super) struct SourceView {
    pub(super) source: Arc<dyn Source>,
    pub(super) intake: Arc<dyn Intake>,
    pub(super) stream: String,
    /// The idle timeout, where the source tells event time.
    pub(super) idle_timeout: Option<Duration>,
    pub(super) cuts: Vec<mpsc::Sender<CutHere>>,
    pub(super) tasks_ended: usize,
    /// What its tasks waited for at the end of the last epoch.
    pub(super) waits: Vec<Waits>,
    /// When it is read, and the epoch behind which that begins, once it has.
    pub(super) depth: usize,
    pub(super) begun: Option<u64>,
    /// How far it reached at the start of the job.
    pub(super) there: Vec<Reach>,
}

pub(super) struct Coordinator {
    pub(super) config: JobConfig,
    pub(super) shared: Arc<Shared>,
    pub(super) sources: Vec<SourceView>,
    pub(super) sinks: BTreeMap<usize, Arc<dyn Sink>>,
    pub(super) claim: Option<Claim>,
    pub(super) tasks: usize,
    pub(super) pulse: Arc<Pulse>,
    pub(super) reports: mpsc::Receiver<Report>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) abort: Arc<Notify>,
    pub(super) running: JoinSet<()>,
    pub(super) io: tokio::runtime::Handle,
    pub(super) asides: Arc<Asides>,
    pub(super) clock: Clock,
    pub(super) state: Run,
}

impl Coordinator {
    /// Runs the job to its end, its stop or its failure.
    pub(super) async fn run(mut self) {
        let result = self.drive().await;
        self.running.abort_all();
        let gone = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(LONGEST_END, gone).await.is_err() {
            tracing::error!(stream = %self.config.name, "a task does not end");
        }
        self.let_go();
        self.sources.iter().for_each(|s| s.intake.await_rows(false));
        // A commit that outlived the job could undo what the next run of it begins with.
        if let Some(commit) = self.state.committing.take() {
            let _ = commit.await;
        }
        for sink in self.sinks.values() {
            sink.stop().await;
        }
        match &result {
            Ok(phase) => self.shared.set_phase(*phase, None),
            Err(e) => self.shared.set_failed(&self.config.name, e),
        }
        for flush in self.state.flushes.drain(..) {
            let answer = match &result {
                Err(e) => Err(e.again()),
                Ok(_) if self.state.ending => Ok(()),
                Ok(_) => Err(Error::new(ErrorKind::Cancelled, "the job was stopped")),
            };
            let _ = flush.reply.send(answer);
        }
        for reply in self.state.stopping.drain(..) {
            let _ = reply.send(Ok(()));
        }
    }

    async fn drive(&mut self) -> Result<JobPhase> {
        self.wait_long(true);
        // What the last checkpoint has read may have moved it after its own mark, and may be all that says so.
        self.move_watermark();
        loop {
            if self.finished() {
                let phase = if self.state.ending { JobPhase::Finished } else { JobPhase::Stopped };
                return Ok(phase);
            }
            self.look_who_waits();
            let wake = self.wake_at();
            // Where a pulse that has come does not lead to a cut, something else must happen first.
            let clock = self.clock.clone();
            let (pulse, waiting) = (self.pulse.clone(), !self.is_full() && !self.pulse.is_set());
            tokio::select! {
                biased;
                Some(report) = self.reports.recv() => self.report(report)?,
                Some(done) = self.running.join_next() => {
                    if let Err(e) = done && e.is_panic() {
                        return Err(Error::internal("a task of the job panicked"));
                    }
                }
                Some(command) = self.commands.recv() => self.command(command),
                () = self.abort.notified() => return Ok(JobPhase::Stopped),
                committed = async { match &mut self.state.committing {
                    Some(c) => c.await,
                    None => std::future::pending().await,
                } } => {
                    self.state.committing = None;
                    let committed = committed.map_err(|_| Error::internal("the commit vanished"))??;
                    self.committed(committed);
                }
                () = clock.sleep_until(wake.unwrap_or_else(|| clock.now() + TICK)) => {}
                () = pulse.wait(), if waiting => {}
            }
            self.maybe_cut().await?;
        }
    }

    fn finished(&self) -> bool {
        let s = &self.state;
        s.is_quiet() && (s.ending || (!s.stopping.is_empty() && (s.stop_cut || !self.needs_stop_cut())))
    }

    fn needs_stop_cut(&self) -> bool {
        self.claim.is_some() && (self.state.dirty || self.pulse.is_set())
    }

    /// Whether no epoch may be cut now. Where a source has groups all tasks must have ended the last epoch
    /// first: the next group opens then, and would be read in two epochs if one task had ended both.
    fn is_full(&self) -> bool {
        let epochs = &self.state.epochs;
        let grouped = || self.sources.iter().any(|s| s.source.in_groups() && s.tasks_ended < s.cuts.len());
        epochs.len() >= MOST_EPOCHS || (epochs.values().any(|e| !e.merged) && grouped())
    }

    /// Whether a new epoch has anything to say.
    fn wants_cut(&self) -> bool {
        let s = &self.state;
        if s.ending || s.stop_cut {
            return false;
        }
        if self.all_ended() || !s.stopping.is_empty() {
            // The last epoch follows all others and their checkpoint, and all that time has still to bring.
            let last = !s.stopping.is_empty() || self.is_last();
            return s.is_quiet() && (last || self.is_due() || self.checkpoint_due() || s.watermark < EventTime::MAX);
        }
        self.is_due() || self.pulse.is_set() || s.unsaid || s.ahead || s.next_epoch == 1 || self.checkpoint_due()
    }

    /// Whether nothing more comes, nor is there anything to say because time passes.
    fn is_last(&self) -> bool {
        self.all_ended() && self.state.due.is_none()
    }

    /// What `now()` would be in an epoch that is cut now.
    fn time(&self) -> EventTime {
        let wall = self.clock.wall();
        EventTime(wall - wall.rem_euclid(CLOCK_STEP)).max(self.state.now)
    }

    /// Whether there is something to say because time has passed.
    fn is_due(&self) -> bool {
        self.state.due.is_some_and(|due| due <= self.time().0)
    }

    fn all_ended(&self) -> bool {
        self.sources.iter().all(|s| s.tasks_ended == s.cuts.len())
    }

    fn checkpoint_due(&self) -> bool {
        let s = &self.state;
        if self.claim.is_none() || s.is_checkpointing() {
            return false;
        }
        let hurry = s.flushes.iter().any(|f| self.is_reached(f, &s.progress))
            || !s.stopping.is_empty()
            || s.dead_bytes > DEAD_BYTES
            || (self.config.eager && (s.fresh || self.pulse.is_set()));
        let dirty = s.dirty || self.pulse.is_set();
        dirty && (hurry || self.clock.since(s.last_checkpoint) >= self.checkpoint_gap())
    }

    /// The time between checkpoints: shorter than asked for where somebody waits for them and they take a small part of it.
    fn checkpoint_gap(&self) -> Duration {
        let longest = self.config.checkpoint_interval;
        match self.state.awaited {
            true => (self.state.took * AWAITED_SHARE).clamp(AWAITED_GAP.min(longest), longest),
            false => longest,
        }
    }

    /// Looks whether somebody waits for what is committed, and tells the sources, since they wait for those as well.
    fn look_who_waits(&mut self) {
        let awaited = self.sinks.values().any(|sink| sink.is_awaited());
        if awaited != self.state.awaited {
            self.state.awaited = awaited;
            self.sources.iter().for_each(|s| s.intake.await_rows(awaited));
        }
    }

    /// When to look again; `None`: when something happens.
    fn wake_at(&self) -> Option<Instant> {
        let s = &self.state;
        if self.is_full() || s.ending || s.stop_cut {
            return None;
        }
        if self.wants_cut() {
            return Some(s.last_cut + self.pace());
        }
        let mut at = s.last_tick + TICK;
        if let Some(due) = s.due {
            let wait = u64::try_from(due.saturating_sub(self.clock.wall())).unwrap_or_default();
            at = at.min(self.clock.now() + Duration::from_micros(wait));
        }
        if s.dirty && self.claim.is_some() && !s.is_checkpointing() {
            at = at.min(s.last_checkpoint + self.checkpoint_gap());
        }
        // Idle splits are looked for only where something is held back.
        let ticks = s.dirty || s.due.is_some() || self.sources.iter().any(|v| v.idle_timeout.is_some());
        ticks.then_some(at)
    }

    /// The time between cuts.
    fn pace(&self) -> Duration {
        match self.config.every {
            // Somebody waits for what is still to be said.
            Some(_) if !self.state.flushes.is_empty() => self.state.interval,
            Some(every) if self.state.next_epoch > 1 && !self.all_ended() && self.state.stopping.is_empty() => every,
            Some(_) => Duration::ZERO,
            // Nothing more will come: there is nothing to gather.
            None if self.all_ended() => Duration::ZERO,
            // Nothing has come but the hope that the watermark has moved: those who read are left time to.
            None if self.state.ahead && !self.pulse.is_set() && !self.state.unsaid => self.state.interval.max(HOPE),
            None => self.state.interval,
        }
    }

    async fn maybe_cut(&mut self) -> Result<()> {
        if self.is_full() || self.state.ending || self.state.stop_cut {
            return Ok(());
        }
        let tick = self.clock.since(self.state.last_tick) >= TICK;
        if tick {
            self.state.last_tick = self.clock.now();
        }
        // Once all input has ended, or a stop is asked for, only the last epoch is left to cut.
        let last = self.all_ended() || !self.state.stopping.is_empty();
        let idle_check = tick && !last && self.sources.iter().any(|s| s.idle_timeout.is_some());
        if !(self.wants_cut() || idle_check) || self.clock.since(self.state.last_cut) < self.pace() {
            return Ok(());
        }
        self.cut().await
    }

    /// Cuts an epoch.
    async fn cut(&mut self) -> Result<()> {
        let fresh = self.pulse.take() > 0;
        self.state.fresh |= fresh;
        // A watermark that moved may close windows: their rows want a commit as well.
        self.state.dirty |= fresh || self.state.unsaid || self.is_due();
        let end = self.is_last() && self.state.epochs.is_empty();
        if self.all_ended() && self.state.due.is_some() {
            // No row comes any more, but time goes on.
            self.state.watermark = EventTime::MAX;
        }
        self.state.now = self.time();
        self.state.due = None;
        let checkpoint_due = self.checkpoint_due();
        let s = &mut self.state;
        let stop = !s.stopping.is_empty();
        let checkpoint = (self.claim.is_some() && (end || stop || checkpoint_due)).then(|| s.manifest.checkpoint + 1);
        let watermark = if end { EventTime::MAX } else { s.watermark };
        let mark = EpochMark { epoch: s.next_epoch, now: s.now, watermark, checkpoint, end, depth: s.depth };
        s.next_epoch += 1;
        s.last_cut = self.clock.now();
        s.unsaid = false;
        s.ending = end;
        s.stop_cut = stop;
        if checkpoint.is_some() {
            s.last_checkpoint = self.clock.now();
            (s.dirty, s.fresh) = (false, false);
        }
        let epoch = Epoch {
            mark,
            cut_at: Instant::now(),
            cuts: vec![],
            done: 0,
            due: None,
            merged: false,
            progress: vec![],
            rows: vec![],
            late: 0,
        };
        s.epochs.insert(mark.epoch, epoch);
        for (i, source) in self.sources.iter_mut().enumerate() {
            if source.begun.is_none() && source.depth >= mark.depth {
                source.begun = Some(mark.epoch);
                // Of this epoch there is nothing of it, and tasks begin with the next as they hear of it.
                source.intake.epoch_cut();
            }
            let horizon = self.state.horizon.of(i);
            for cuts in &source.cuts {
                if cuts.send(CutHere { mark, horizon }).await.is_err() {
                    return self.why_gone().await;
                }
            }
        }
        Ok(())
    }

    /// A task has gone: its report says why.
    async fn why_gone(&mut self) -> Result<()> {
        let end = tokio::time::sleep(LONGEST_END);
        tokio::pin!(end);
        loop {
            tokio::select! {
                biased;
                Some(report) = self.reports.recv() => match report {
                    Report::Failed(e) if e.kind() != ErrorKind::Cancelled => return Err(e),
                    _ => {}
                },
                Some(done) = self.running.join_next() => {
                    if let Err(e) = done && e.is_panic() {
                        return Err(Error::internal("a task of the job panicked"));
                    }
                }
                () = &mut end => return Err(Error::internal("a task ended without a word")),
            }
        }
    }

    fn report(&mut self, report: Report) -> Result<()> {
        match report {
            Report::Failed(e) if e.kind() == ErrorKind::Cancelled => Ok(()),
            Report::Failed(e) => Err(e),
            Report::Cut(cut) => {
                if let Some(epoch) = self.state.epochs.get_mut(&cut.epoch) {
                    epoch.cuts.push(cut);
                }
                self.merge_cuts();
                Ok(())
            }
            Report::Done { epoch, aside, due, .. } => {
                self.keep(epoch, aside.into_iter());
                if let Some(e) = self.state.epochs.get_mut(&epoch) {
                    e.done += 1;
                    e.due = e.due.into_iter().chain(due).min();
                }
                self.finish_epochs();
                Ok(())
            }
            Report::Stored(parts) => {
                self.state.parts.push(parts);
                self.commit_when_stored();
                Ok(())
            }
            Report::Ready { .. } => Err(Error::internal("a task began anew")),
        }
    }

    pub(super) fn finish_epochs(&mut self) {
        while let Some(entry) = self.state.epochs.first_entry() {
            let epoch = entry.get();
            if epoch.done < self.tasks || !epoch.merged {
                return;
            }
            let epoch = entry.remove();
            let took = epoch.cut_at.elapsed();
            let s = &mut self.state;
            if s.next_epoch == epoch.mark.epoch + 1 {
                // What a later epoch has said already is not due any more.
                s.due = epoch.due;
            }
            // Small epochs while they cost little; larger ones under load, which saves work per row.
            s.interval = if took > s.interval { s.interval * 2 } else { s.interval / 2 };
            s.interval = s.interval.clamp(self.config.min_epoch, self.config.max_epoch);
            self.shared.set_epoch(epoch.mark.epoch, epoch.mark.watermark, took);
            if epoch.mark.checkpoint.is_some() {
                self.state.storing = Some(epoch);
                self.commit_when_stored();
            } else if self.claim.is_none() {
                self.state.dirty = false;
            }
        }
    }

    /// Commits the checkpoint under way once the epoch is finished and all tasks have made their part durable.
    fn commit_when_stored(&mut self) {
        if self.state.parts.len() < self.tasks {
            return;
        }
        if let Some(epoch) = self.state.storing.take() {
            self.commit(epoch);
        }
    }

    /// Commits an epoch's checkpoint, while the job goes on.
    fn commit(&mut self, mut epoch: Epoch) {
        let (Some(claim), Some(checkpoint)) = (self.claim.clone(), epoch.mark.checkpoint) else { return };
        let s = &mut self.state;
        let mut manifest = s.manifest.clone();
        (manifest.checkpoint, manifest.epoch) = (checkpoint, epoch.mark.epoch);
        (manifest.watermark, manifest.end) = (epoch.mark.watermark, epoch.mark.end);
        manifest.depth = epoch.mark.depth;
        manifest.now = Some(epoch.mark.now);
        manifest.sources = std::mem::take(&mut epoch.progress);
        manifest.rows = std::mem::take(&mut epoch.rows);
        manifest.late = epoch.late;
        manifest.staged.clear();
        let before = manifest.states.clone();
        if std::mem::take(&mut s.fresh_states) || manifest.end {
            manifest.states.clear();
        }
        // The next epoch may have reported already: its rows belong to the next checkpoint.
        let (dead, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut s.dead).into_iter().partition(|d| d.0 <= epoch.mark.epoch);
        s.dead = later;
        s.dead_bytes = s.dead.iter().map(|(_, d)| d.bytes()).sum();
        let commit = CommitJob {
            claim,
            manifest,
            before,
            parts: std::mem::take(&mut s.parts),
            dead: dead.into_iter().map(|(_, d)| d).collect(),
            asides: self.asides.clone(),
            limits: self.config.dead_letters,
            sources: self.sources.iter().map(|view| view.intake.clone()).collect(),
            sinks: self.sinks.clone(),
            job: self.config.name.clone(),
        };
        let (tx, rx) = oneshot::channel();
        (s.committing, s.committing_since) = (Some(rx), epoch.cut_at);
        self.io.spawn(async move {
            let _ = tx.send(commit.run().await);
        });
    }

    fn committed(&mut self, committed: Committed) {
        self.state.took = self.state.committing_since.elapsed();
        self.shared.set_committed(&committed, self.state.took);
        self.state.manifest = committed.manifest;
        self.answer_flushes();
    }

    /// Sinks are to keep nobody waiting, and a store that is away is not waited for any more.
    fn let_go(&self) {
        self.wait_long(false);
        self.sinks.values().for_each(|sink| sink.let_go());
    }

    fn wait_long(&self, is_patient: bool) {
        self.claim.iter().for_each(|claim| claim.wait_long(is_patient));
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Stop(reply) => {
                self.let_go();
                self.state.stopping.push(reply);
            }
            Command::Flush { time, reply } => self.flush(time, reply),
        }
    }
}
