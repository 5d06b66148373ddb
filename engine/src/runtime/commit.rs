//! Committing a checkpoint: states, rows put aside and results become durable, then the manifest is
//! written, then what the sinks staged becomes visible.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::aside::{Asides, DeadLetterLimits};
use super::messages::Parts;
use crate::checkpoint::{Claim, DeadLetterFile, Manifest, StateFile, StoredState};
use crate::connector::{Commit, Intake, Sink, Staged};
use crate::error::Result;
use crate::table::dead_letters::Letter;
use crate::time::now;

/// A file of dead letters with fewer rows is made longer instead of adding another.
const SMALL: u64 = 20_000;

/// How long a source may take to hear what is committed: the next checkpoint waits for it.
const LONGEST_WORD: Duration = Duration::from_secs(10);

/// A checkpoint on its way to the store.
pub(super) struct CommitJob {
    pub(super) claim: Claim,
    pub(super) manifest: Manifest,
    pub(super) before: Vec<StateFile>,
    pub(super) parts: Vec<Parts>,
    pub(super) dead: Vec<Letter>,
    pub(super) asides: Arc<Asides>,
    pub(super) limits: DeadLetterLimits,
    pub(super) sources: Vec<Arc<dyn Intake>>,
    pub(super) sinks: BTreeMap<usize, Arc<dyn Sink>>,
    pub(super) job: String,
}

/// What a checkpoint committed.
pub(super) struct Committed {
    pub(super) manifest: Manifest,
    /// What was written for it: states, results, rows put aside and the manifest.
    pub(super) bytes: u64,
}

impl CommitJob {
    pub(super) async fn run(mut self) -> Result<Committed> {
        let n = self.manifest.checkpoint;
        let mut bytes = 0;
        self.parts.sort_by_key(|p| (p.fragment, p.task));
        let mut staged: BTreeMap<usize, Vec<Staged>> = BTreeMap::new();
        self.manifest.rows_out = vec![0; self.sinks.len()];
        for parts in &mut self.parts {
            parts.written.iter().for_each(|(sink, rows)| self.manifest.rows_out[*sink] += rows);
            for (node, more) in std::mem::take(&mut parts.staged) {
                staged.entry(node).or_default().extend(more);
            }
            bytes += parts.states.iter().map(|s| s.bytes).sum::<u64>();
            self.manifest.states.retain(|f| !replaced(f, parts.task, &parts.states));
            self.manifest.states.extend(parts.states.drain(..).map(|s| s.file));
        }
        bytes += self.put_dead_letters().await?;
        for (i, source) in self.sources.iter().enumerate() {
            match source.state().await? {
                serde_json::Value::Null => self.manifest.source_states.remove(&i),
                state => self.manifest.source_states.insert(i, state),
            };
        }
        for (node, sink) in &self.sinks {
            let gathered = sink.gather(n, staged.remove(node).unwrap_or_default()).await?;
            let staged = &staged.entry(*node).or_insert(gathered)[..];
            bytes += staged.iter().filter_map(|s| s.body.get("bytes")?.as_u64()).sum::<u64>();
            self.manifest.sinks.insert(*node, sink.state_after(&commit_of(&self.manifest, staged)));
        }
        self.manifest.staged = staged;
        bytes += self.claim.commit(&self.manifest).await?;
        self.claim.check(&self.manifest).await?;
        for (node, sink) in &self.sinks {
            let staged = self.manifest.staged.get(node).map_or(&[][..], |s| s);
            sink.commit(&commit_of(&self.manifest, staged)).await?;
        }
        tell_committed(&self.job, &self.sources, &self.manifest).await;
        self.claim.tidy(&self.manifest, &self.before).await?;
        Ok(Committed { manifest: self.manifest, bytes })
    }

    /// Writes what was put aside. The last file is made longer while it is small; files whose letters are all
    /// older than the retention go. Gives the bytes written.
    async fn put_dead_letters(&mut self) -> Result<u64> {
        let now = now();
        let kept = &mut self.manifest.dead;
        // Who reads at this moment may have them open: they go one commit after the manifest let them go.
        for path in std::mem::take(&mut kept.retired) {
            self.claim.remove(&path).await?;
        }
        kept.beyond += self.asides.take_beyond();
        let kept_for = i64::try_from(self.limits.retention.as_micros()).unwrap_or(i64::MAX);
        let oldest = now.saturating_sub(kept_for);
        let gone: Vec<String> = kept.files.iter().filter(|(_, f)| f.newest < oldest).map(|(p, _)| p.clone()).collect();
        for path in gone {
            self.asides.give_back(kept.files.remove(&path).map_or(0, |f| f.rows));
            self.manifest.dead_letters.retain(|p| *p != path);
            kept.retired.push(path);
        }
        if self.dead.is_empty() {
            return Ok(0);
        }
        let last = self.manifest.dead_letters.last().cloned();
        let small = last.and_then(|path| Some((kept.files.get(&path).filter(|f| f.rows < SMALL)?.rows, path)));
        let (mut rows, mut before) = (self.dead.len() as u64, None);
        if let Some((more, path)) = small {
            before = Some(crate::table::dead_letters::decode(self.claim.read(&path).await?)?);
            rows += more;
            self.manifest.dead_letters.pop();
            kept.files.remove(&path);
            kept.retired.push(path);
        }
        let bytes = crate::table::dead_letters::encode(&self.job, before, &self.dead, now)?;
        let length = bytes.len() as u64;
        let path = self.claim.put_dead_letters(self.manifest.checkpoint, bytes).await?;
        kept.files.insert(path.clone(), DeadLetterFile { rows, newest: now });
        self.manifest.dead_letters.push(path);
        Ok(length)
    }
}

/// Tells the sources what `manifest` has committed. What goes wrong is not the job's fault, and is said again with the
/// next commit.
pub(super) async fn tell_committed(job: &str, sources: &[Arc<dyn Intake>], manifest: &Manifest) {
    let tell = sources.iter().zip(&manifest.sources).map(|(source, progress)| async move {
        let offsets = progress.offsets();
        match tokio::time::timeout(LONGEST_WORD, source.committed(&offsets)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::warn!(stream = %job, error = %e, "a source was not told what is committed"),
            Err(_) => tracing::warn!(stream = %job, "a source did not hear in time what is committed"),
        }
    });
    futures::future::join_all(tell).await;
}

fn replaced(file: &StateFile, task: usize, states: &[StoredState]) -> bool {
    file.task == task && states.iter().any(|s| s.full && s.file.name == file.name)
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
