//! The way into a stored stream.

use std::sync::Arc;

use arrow::array::RecordBatch;
use millstream_engine::connector::ingest::IngestSource;
use millstream_engine::connector::spool::Spooled;
use millstream_engine::runtime::{JobHandle, JobPhase};

use super::Millstream;
use super::jobs::{failed, not_stored};
use super::outcome::JobState;
use super::tables::StreamDef;
use crate::error::{Error, ErrorKind, Result};
use crate::statement::quote_name;

/// The way into a stored stream for as long as its job runs. Rows and the question whether they are committed
/// go to the same run of the same job.
pub(super) struct Intake {
    stream: String,
    ingest: Arc<IngestSource>,
    job: Arc<JobHandle>,
    run: u64,
}

impl Intake {
    /// Hands in rows.
    pub(super) async fn push(&self, rows: RecordBatch) -> Result<()> {
        self.hand_in(self.ingest.push(self.run, rows)).await
    }

    /// Hands in rows of any number, to be committed whole.
    pub(super) async fn push_spooled(&self, rows: Spooled) -> Result<()> {
        self.hand_in(self.ingest.push_spooled(self.run, rows)).await
    }

    async fn hand_in(&self, push: impl Future<Output = millstream_engine::Result<()>>) -> Result<()> {
        let pushed = tokio::select! {
            biased;
            pushed = push => Some(pushed),
            _ = self.job.wait() => None,
        };
        match pushed {
            Some(Ok(())) => Ok(()),
            // The job is as it was: these rows are too many.
            Some(Err(e)) if e.kind() == ErrorKind::Exhausted => Err(self.about(e.into())),
            _ => {
                self.job.failure().map_err(|e| self.about(e.into()))?;
                Err(paused(&self.stream))
            }
        }
    }

    /// Waits until what was handed in is committed.
    pub(super) async fn settle(&self) -> Result<()> {
        self.job.settle().await.map_err(|e| self.about(e.into()))
    }

    fn about(&self, e: Error) -> Error {
        e.context(format!("stream \"{}\"", self.stream))
    }
}

fn paused(stream: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("stream \"{stream}\" is paused and takes no rows"))
        .with_hint(format!("RESUME STREAM {} first.", quote_name(stream)))
}

impl Millstream {
    /// The way into `def`, if its job runs.
    pub(super) fn intake(&self, def: &StreamDef) -> Result<Intake> {
        let ingest = def.ingest.clone().ok_or_else(|| not_stored(def))?;
        // Before the job is looked up: a run that is not the job's refuses the rows.
        let run = ingest.run();
        let job = self.job(&def.name).ok_or_else(|| paused(&def.name))?;
        let info = job.info();
        if let (JobState::Failed, Some(why)) = (info.state, info.error) {
            return Err(failed(&def.name, &why));
        }
        match job.handle().filter(|j| j.status().phase == JobPhase::Running) {
            Some(job) => Ok(Intake { stream: def.name.clone(), ingest, job, run }),
            None => Err(paused(&def.name)),
        }
    }
}
