//! A sink that keeps what each epoch says, and what has been committed across restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use millstream_engine::changes::Changes;
use millstream_engine::connector::{Commit, Sink, SinkWriter, Staged, Start};
use millstream_engine::epoch::EpochMark;
use millstream_engine::time::EventTime;
use millstream_engine::{Error, Result};
use parking_lot::Mutex;

/// What an epoch said.
#[derive(Clone, Debug)]
pub struct Published {
    /// The watermark of its mark.
    pub watermark: EventTime,
    /// What `now()` was in it.
    pub now: EventTime,
    /// The changes, of all tasks.
    pub changes: Vec<Changes>,
    /// How many tasks have ended it.
    pub tasks: usize,
}

/// Outlives the jobs that write to it, as a database would.
#[derive(Debug, Default)]
pub struct Kept {
    /// By epoch.
    pub published: BTreeMap<u64, Published>,
    /// Durable but not visible yet, by name.
    staged: BTreeMap<String, Vec<Changes>>,
    /// What was made visible, once per name.
    pub committed: Vec<Changes>,
    names: BTreeSet<String>,
}

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct Collector {
    /// What it holds.
    pub kept: Arc<Mutex<Kept>>,
}

impl Kept {
    fn commit(&mut self, staged: &[Staged]) -> Result<()> {
        for s in staged {
            let name = s.body.to_string();
            if self.names.contains(&name) {
                continue;
            }
            let rows = self.staged.remove(&name);
            self.committed.extend(rows.ok_or_else(|| Error::internal(format!("{name} was never staged")))?);
            self.names.insert(name);
        }
        Ok(())
    }

    fn rows(&self) -> u64 {
        rows_of(&self.committed)
    }
}

fn rows_of(changes: &[Changes]) -> u64 {
    changes.iter().map(|c| c.num_rows() as u64).sum()
}

#[async_trait]
impl Sink for Collector {
    async fn start(&self, Start { committed, state, .. }: Start<'_>) -> Result<()> {
        let mut kept = self.kept.lock();
        kept.commit(committed)?;
        kept.staged.clear();
        match state.and_then(serde_json::Value::as_u64) {
            Some(promised) if promised != kept.rows() => {
                Err(Error::internal(format!("the manifest promises {promised} rows, {} are there", kept.rows())))
            }
            _ => Ok(()),
        }
    }

    fn open(&self, task: usize) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(Writer { kept: self.kept.clone(), task, epoch: vec![], unstaged: vec![] }))
    }

    fn is_anywhere(&self) -> bool {
        true
    }

    fn open_away(&self, task: usize, _generation: u64) -> Result<Box<dyn SinkWriter>> {
        self.open(task)
    }

    fn state_after(&self, commit: &Commit<'_>) -> serde_json::Value {
        let kept = self.kept.lock();
        let staged: u64 =
            commit.staged.iter().filter_map(|s| kept.staged.get(&s.body.to_string())).map(|c| rows_of(c)).sum();
        serde_json::json!(kept.rows() + staged)
    }

    async fn commit(&self, commit: &Commit<'_>) -> Result<()> {
        self.kept.lock().commit(commit.staged)
    }

    fn takes_retractions(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        "collects".to_owned()
    }
}

struct Writer {
    kept: Arc<Mutex<Kept>>,
    task: usize,
    epoch: Vec<Changes>,
    unstaged: Vec<Changes>,
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, changes: Changes) -> Result<()> {
        self.epoch.push(changes);
        Ok(())
    }

    async fn epoch(&mut self, mark: &EpochMark) -> Result<()> {
        let changes = std::mem::take(&mut self.epoch);
        self.unstaged.extend(changes.iter().cloned());
        let mut kept = self.kept.lock();
        let none = Published { watermark: mark.watermark, now: mark.now, changes: vec![], tasks: 0 };
        let published = kept.published.entry(mark.epoch).or_insert(none);
        published.changes.extend(changes);
        published.tasks += 1;
        Ok(())
    }

    async fn stage(&mut self, checkpoint: u64) -> Result<Vec<Staged>> {
        let body = serde_json::json!([checkpoint, self.task]);
        self.kept.lock().staged.insert(body.to_string(), std::mem::take(&mut self.unstaged));
        Ok(vec![Staged { kind: "rows".to_owned(), body }])
    }
}
