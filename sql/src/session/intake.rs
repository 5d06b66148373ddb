//! The way into a stored stream.
//!
//! Rows may go in under a key, once: who has one waits for a twin that is at it ([`Intake::once`]), and hands the rows in
//! with a receipt, which is committed with them and found by who comes later.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use millstream_engine::connector::ingest::{Alone, IngestSource, Known, Parcel, Reserved};
use millstream_engine::runtime::{JobHandle, JobPhase};

use super::jobs::{failed, not_stored};
use super::outcome::JobState;
use super::tables::StreamDef;
use super::{Millstream, Session};
use crate::error::{Error, ErrorKind, Result};
use crate::rights::{Need, Right};
use crate::statement::quote_name;

/// The way into a stored stream for as long as its job runs. Rows and the question whether they are committed
/// go to the same run of the same job.
pub struct Intake {
    stream: String,
    schema: SchemaRef,
    ingest: Arc<IngestSource>,
    job: Arc<JobHandle>,
    run: u64,
}

/// The same for a statement that nobody else hands anything in beside, until this is dropped.
pub(super) struct IntakeAlone {
    intake: Intake,
    alone: Alone,
}

/// What became of a key before.
pub enum Once {
    /// Rows came under it and are committed: their receipt.
    Before(serde_json::Value),
    /// None did: the key is kept for whoever has this.
    Now(Reserved),
}

impl Intake {
    /// The columns of the stream.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Hands in rows, to be committed whole: see [`Intake::settle`].
    pub async fn push(&self, parcel: impl Into<Parcel>) -> Result<()> {
        self.hand_in(self.ingest.push(self.run, parcel)).await
    }

    /// What is known of rows that came under `key`.
    pub fn receipt(&self, key: &str) -> Known {
        self.ingest.receipt(key)
    }

    /// Keeps `key` once nobody else does.
    pub async fn reserve(&self, key: &str) -> Result<Reserved> {
        tokio::select! {
            biased;
            reserved = self.ingest.reserve(key) => Ok(reserved),
            _ = self.job.wait() => Err(self.gone()),
        }
    }

    /// Finds out what became of `key`, waiting for who is at it.
    pub async fn once(&self, key: &str) -> Result<Once> {
        Ok(match self.settled(key).await? {
            (reserved, None) => Once::Now(reserved),
            (_, Some(value)) => Once::Before(value),
        })
    }

    /// Keeps `key` once nobody else does and nothing under it is under way; with its receipt, if rows came.
    pub(super) async fn settled(&self, key: &str) -> Result<(Reserved, Option<serde_json::Value>)> {
        loop {
            let reserved = self.reserve(key).await?;
            match self.receipt(key) {
                Known::Never => return Ok((reserved, None)),
                Known::Committed(value) => return Ok((reserved, Some(value))),
                Known::UnderWay(_) => {
                    drop(reserved);
                    self.settle().await?;
                }
            }
        }
    }

    /// The way in for one alone, once all that was handed in before is committed.
    pub(super) async fn alone(self) -> Result<IntakeAlone> {
        let alone = tokio::select! {
            biased;
            alone = self.ingest.alone() => alone,
            _ = self.job.wait() => return Err(self.gone()),
        };
        self.settle().await?;
        Ok(IntakeAlone { intake: self, alone })
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
            _ => Err(self.gone()),
        }
    }

    /// Why the job runs no more.
    fn gone(&self) -> Error {
        match self.job.failure() {
            Err(e) => self.about(e.into()),
            Ok(()) => paused(&self.stream),
        }
    }

    /// Waits until what was handed in is committed.
    pub async fn settle(&self) -> Result<()> {
        self.job.settle().await.map_err(|e| self.about(e.into()))
    }

    fn about(&self, e: Error) -> Error {
        e.context(format!("stream \"{}\"", self.stream))
    }
}

impl IntakeAlone {
    /// As [`Intake::push`].
    pub(super) async fn push(&self, parcel: Parcel) -> Result<()> {
        let Intake { ingest, run, .. } = &self.intake;
        self.intake.hand_in(ingest.push_alone(&self.alone, *run, parcel)).await
    }

    /// As [`Intake::settle`].
    pub(super) async fn settle(&self) -> Result<()> {
        self.intake.settle().await
    }
}

fn paused(stream: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("stream \"{stream}\" is paused and takes no rows"))
        .with_hint(format!("RESUME STREAM {} first.", quote_name(stream)))
}

impl Session {
    /// The way into the stored stream `stream`, if who asks may write to it and its job runs.
    pub fn way_into(&self, stream: &str) -> Result<Intake> {
        self.ask(Need::On(Right::Write, stream))?;
        self.millstream.intake(&*self.millstream.stream(stream)?)
    }
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
            Some(job) => Ok(Intake { stream: def.name.clone(), schema: def.schema.clone(), ingest, job, run }),
            None => Err(paused(&def.name)),
        }
    }
}
