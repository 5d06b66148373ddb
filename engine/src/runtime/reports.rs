//! What source tasks report at the end of an epoch: progress, and the watermark that follows from it.

use std::time::Instant;

use super::coordinator::Coordinator;
use super::idle::Waits;
use super::scan::Cut;
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
            let progress = self.state.progress.clone();
            if let Some(epoch) = self.state.epochs.get_mut(&n) {
                epoch.merged = true;
                epoch.progress = progress;
            }
            for source in &self.sources {
                source.source.epoch_cut();
            }
        }
        self.move_watermark();
        self.time_flushes();
        self.finish_epochs();
    }

    fn merge(&mut self, cuts: Vec<Cut>) {
        let mut ended = vec![0; self.sources.len()];
        let mut waits: Vec<Vec<Waits>> = vec![vec![]; self.sources.len()];
        let now = Instant::now();
        for cut in cuts {
            ended[cut.source] += usize::from(cut.ended);
            for consumed in cut.consumed {
                if consumed.end > consumed.start {
                    self.state.idle[cut.source].read(&consumed.split, now);
                }
                self.state.progress[cut.source].add(consumed);
            }
            waits[cut.source].extend(cut.waits);
            self.state.dead_bytes += cut.dead.iter().map(|d| d.raw.len() + 100).sum::<usize>();
            if self.checkpoints.is_some() {
                self.state.dead.extend(cut.dead.into_iter().map(|d| (cut.epoch, d)));
            }
        }
        for (i, source) in self.sources.iter_mut().enumerate() {
            source.tasks_ended = ended[i];
            self.state.idle[i].set(std::mem::take(&mut waits[i]), &source.source.splits(), now);
        }
    }

    fn move_watermark(&mut self) {
        let now = Instant::now();
        let mut least: Option<(EventTime, String)> = None;
        let mut any = false;
        for (i, source) in self.sources.iter().enumerate() {
            let Some(timeout) = source.idle_timeout else { continue };
            let done = source.tasks_ended == source.cuts.len();
            let is_idle = |split: &str| self.state.idle[i].is_idle(split, timeout, now);
            let bound = self.state.progress[i].watermark(&source.source.splits(), is_idle);
            let bound = match bound {
                Some(b) => b,
                None if done => continue,
                None => (EventTime::MIN, "no split is open".to_owned()),
            };
            any = true;
            if least.as_ref().is_none_or(|l| bound.0 < l.0) {
                least = Some((bound.0, format!("{} of stream \"{}\"", bound.1, source.stream)));
            }
        }
        if let Some((bound, holder)) = least.filter(|_| any) {
            if bound > self.state.watermark {
                self.state.watermark = bound;
                self.state.unsaid = true;
            }
            self.shared.set_holder(holder);
        }
        let shares: Vec<f64> = self
            .sources
            .iter()
            .enumerate()
            .filter_map(|(i, s)| self.state.progress[i].share(&s.source.splits()))
            .collect();
        let share = (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64);
        self.shared.set_share(share);
    }
}
