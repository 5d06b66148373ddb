//! Committing a checkpoint: states, rows put aside and results become durable, then the manifest is
//! written, then what the sinks staged becomes visible.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::chain::Parts;
use crate::checkpoint::{Checkpoints, Manifest, StateFile};
use crate::connector::{Commit, DeadLetter, Sink, Staged};
use crate::error::Result;
use crate::state::StatePart;

/// A checkpoint on its way to the store.
pub(super) struct CommitJob {
    pub(super) checkpoints: Checkpoints,
    pub(super) manifest: Manifest,
    pub(super) before: Vec<StateFile>,
    pub(super) parts: Vec<Parts>,
    pub(super) dead: Vec<DeadLetter>,
    pub(super) sinks: BTreeMap<usize, Arc<dyn Sink>>,
    pub(super) job: String,
}

/// Lets the sinks go however the commit ends: done, failed or given up.
struct Released(BTreeMap<usize, Arc<dyn Sink>>);

impl Drop for Released {
    fn drop(&mut self) {
        self.0.values().for_each(|sink| sink.release());
    }
}

impl CommitJob {
    pub(super) async fn run(mut self) -> Result<Manifest> {
        let _released = Released(self.sinks.clone());
        let n = self.manifest.checkpoint;
        self.parts.sort_by_key(|p| (p.fragment, p.task));
        let mut staged: BTreeMap<usize, Vec<Staged>> = BTreeMap::new();
        for parts in &mut self.parts {
            for (node, more) in std::mem::take(&mut parts.staged) {
                staged.entry(node).or_default().extend(more);
            }
            self.manifest.states.retain(|f| !replaced(f, parts.task, &parts.states));
            let files = self.checkpoints.put_states(n, parts.task, &parts.states).await?;
            self.manifest.states.extend(files);
        }
        if !self.dead.is_empty() {
            let bytes = crate::table::dead_letters::encode(&self.job, &self.dead)?;
            self.manifest.dead_letters.push(self.checkpoints.put_dead_letters(n, bytes).await?);
        }
        for (node, sink) in &self.sinks {
            let gathered = sink.gather(n, staged.remove(node).unwrap_or_default()).await?;
            let staged = &staged.entry(*node).or_insert(gathered)[..];
            self.manifest.sinks.insert(*node, sink.state_after(&commit_of(&self.manifest, staged)));
        }
        self.manifest.staged = staged;
        self.checkpoints.commit(&self.manifest).await?;
        for (node, sink) in &self.sinks {
            let staged = self.manifest.staged.get(node).map_or(&[][..], |s| s);
            sink.commit(&commit_of(&self.manifest, staged)).await?;
        }
        self.checkpoints.tidy(&self.manifest, &self.before).await?;
        Ok(self.manifest)
    }
}

fn replaced(file: &StateFile, task: usize, parts: &[StatePart]) -> bool {
    file.task == task && parts.iter().any(|p| p.full && p.name == file.name)
}

fn commit_of<'a>(manifest: &Manifest, staged: &'a [Staged]) -> Commit<'a> {
    Commit {
        checkpoint: manifest.checkpoint,
        epoch: manifest.epoch,
        watermark: manifest.watermark,
        end: manifest.end,
        staged,
    }
}
