//! What source tasks report at the end of an epoch: progress, the watermark that follows from it, and which sources begin.

use super::coordinator::{Coordinator, SourceView};
use super::messages::Cut;
use crate::connector::Reach;
use crate::table::dead_letters::Letter;
use crate::time::EventTime;

impl Coordinator {
    /// Takes in the reports of epochs that all source tasks have ended, in order.
    pub(super) fn merge_cuts(&mut self) {
        let scanning: usize = self.sources.iter().map(|s| s.cuts.len()).sum();
        let ready: Vec<u64> = self.state.epochs.iter().filter(|(_, e)| !e.merged).map(|(n, _)| *n).collect();
        for n in ready {
            let Some(epoch) = self.state.epochs.get_mut(&n) else { return };
            if epoch.cuts.len() < scanning {
                return;
            }
            let cuts = std::mem::take(&mut epoch.cuts);
            self.merge(cuts);
            let (progress, rows, late) = (self.state.progress.clone(), self.state.rows.clone(), self.state.late);
            if let Some(epoch) = self.state.epochs.get_mut(&n) {
                epoch.merged = true;
                epoch.progress = progress;
                (epoch.rows, epoch.late) = (rows, late);
            }
            for source in self.sources.iter().filter(|source| source.begun != Some(n)) {
                source.intake.epoch_cut();
            }
        }
        self.begin_next();
        self.move_watermark();
        self.time_flushes();
        self.finish_epochs();
    }

    fn merge(&mut self, cuts: Vec<Cut>) {
        let now = self.clock.now();
        self.state.ahead = false;
        for source in &mut self.sources {
            source.tasks_ended = 0;
            source.waits.clear();
        }
        for cut in cuts {
            let source = &mut self.sources[cut.source];
            source.tasks_ended += usize::from(cut.ended);
            source.waits.extend(cut.waits);
            self.state.ahead |= cut.ahead;
            for consumed in cut.consumed {
                if consumed.end > consumed.start {
                    self.state.idle[cut.source].read(&consumed.split, now);
                }
                self.state.progress[cut.source].add(consumed);
            }
            if let Some(rows) = self.state.rows.get_mut(cut.source) {
                *rows += cut.rows;
            }
            self.state.late += cut.late;
            let admitted = self.asides.admit(cut.dead.len());
            self.keep(cut.epoch, cut.dead.into_iter().take(admitted).map(Letter::from));
        }
    }

    /// Keeps the letters of an epoch for its checkpoint.
    pub(super) fn keep(&mut self, epoch: u64, letters: impl Iterator<Item = Letter>) {
        if self.claim.is_some() {
            let before = self.state.dead.len();
            self.state.dead.extend(letters.map(|letter| (epoch, letter)));
            self.state.dead_bytes += self.state.dead[before..].iter().map(|(_, l)| l.bytes()).sum::<usize>();
        }
    }

    /// Lets the next sources begin where all that are deeper have been read up to what was there when the job started: the next
    /// mark says so.
    fn begin_next(&mut self) {
        let is_read = |(i, view): (usize, &SourceView)| match view.source.bounded() {
            true => self.has_ended(i, &self.state.progress),
            false => self.has_read(i, &view.there),
        };
        let mut depth = self.state.depth;
        while depth > 0 && self.sources.iter().enumerate().filter(|(_, view)| view.depth >= depth).all(is_read) {
            depth -= 1;
        }
        self.state.unsaid |= depth < self.state.depth;
        self.state.depth = depth;
    }

    /// Whether source `i` has been read up to `there`, or to the end of a split that ends before.
    fn has_read(&self, i: usize, there: &[Reach]) -> bool {
        let progress = &self.state.progress[i];
        let open: Vec<&Reach> = there.iter().filter(|reach| !progress.reaches(reach)).collect();
        let splits = if open.is_empty() { vec![] } else { self.sources[i].intake.splits() };
        open.iter().all(|reach| splits.iter().any(|split| split.name == reach.split && progress.is_done(split)))
    }

    pub(super) fn move_watermark(&mut self) {
        let now = self.clock.now();
        let mut least: Option<(EventTime, usize, String)> = None;
        let mut shares: Vec<f64> = vec![];
        for (i, source) in self.sources.iter().enumerate() {
            let splits = source.intake.splits();
            shares.extend(self.state.progress[i].share(&splits));
            let Some(timeout) = source.idle_timeout else { continue };
            if source.depth < self.state.depth {
                let why = format!("stream \"{}\" is read once those are in which it is looked up", source.stream);
                least = Some((EventTime::MIN, i, why));
                continue;
            }
            self.state.idle[i].set(&source.waits, &splits, now);
            let done = source.tasks_ended == source.cuts.len();
            let is_idle = |split: &str| self.state.idle[i].is_idle(split, timeout, now);
            let bound = self.state.progress[i].watermark(&splits, is_idle);
            let stream = &source.stream;
            let (bound, why) = match bound {
                Some((bound, Some(split))) => (bound, format!("held by {split} of stream \"{stream}\"")),
                Some((bound, None)) => (bound, format!("all splits of stream \"{stream}\" are idle")),
                None if done => continue,
                None => (EventTime::MIN, format!("no split of stream \"{stream}\" is open yet")),
            };
            if least.as_ref().is_none_or(|l| bound < l.0) {
                least = Some((bound, i, why));
            }
        }
        let holder = least.as_ref().map(|(_, holder, _)| *holder);
        if let Some((bound, _, why)) = least {
            if bound > self.state.watermark {
                self.state.watermark = bound;
                self.state.unsaid = true;
            }
            self.shared.set_holder(why);
        }
        let waits = holder.and_then(|i| self.sources.get(i)).into_iter().flat_map(|source| &source.waits);
        self.state.horizon.look(self.state.watermark, holder, waits.map(|wait| wait.time));
        let share = (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64);
        self.shared.set_share(share);
    }
}
