//! Jobs with tasks on other nodes: what those are told, and the dataflow that they make of it.
//!
//! A node is told the name of a stream and the folder of its job, and reads the rest in the catalog: that was written before the job
//! was started. It opens nothing of what it finds there, and keeps nothing of it.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use millstream_engine::checkpoint::Checkpoints;
use millstream_engine::runtime::{Network, Placement, Planned, Planner, Runtime, Seat};
use serde::{Deserialize, Serialize};

use super::Millstream;
use super::entry::statement_of;
use super::open::Objects;
use super::reading::Reading;
use super::tables::StreamDef;
use crate::catalog::{Catalog, Entry};
use crate::error::{Error, ErrorKind, Result};
use crate::statement::Statement;

/// What another node makes the dataflow of a job of.
#[derive(Serialize, Deserialize)]
struct Description {
    stream: String,
    /// The folder of the job.
    job: String,
    /// Its tasks, where the stream does not say.
    parallelism: usize,
    /// Streams that it reads whose content is complete.
    complete: Vec<String>,
}

impl Millstream {
    /// What jobs run on here, for who runs tasks of others beside them.
    pub fn engine(&self) -> &Runtime {
        self.runtime()
    }

    /// Jobs that start from now on may have tasks on other nodes, which are reached through `network`, once there are
    /// [seats](Millstream::seat). Only the first network counts.
    pub fn join(&self, network: Arc<dyn Network>) {
        self.runtime().join(network);
    }

    /// Jobs that start from now on have their tasks on these nodes, in this order; none: all of them here.
    pub fn seat(&self, seats: Vec<Seat>) {
        self.runtime().seat(seats);
    }

    /// What plans jobs that others have started.
    pub fn planner(self: &Arc<Self>) -> Arc<dyn Planner> {
        Arc::new(Plans { millstream: Arc::downgrade(self), one_by_one: tokio::sync::Mutex::default() })
    }

    /// Where the tasks of the job of `def` run, which is that of `entry`, in `parallelism` tasks.
    pub(super) fn placement(&self, def: &StreamDef, entry: &Entry, parallelism: usize) -> Result<Placement> {
        // Rows that are handed in are here.
        let seats = if def.ingest.is_some() { vec![] } else { self.runtime().seats() };
        let is_complete = |name: &&String| {
            let objects = self.objects.read();
            let log = objects.streams.get(*name).and_then(|def| def.log.as_ref());
            log.is_some_and(|log| log.snapshot().end)
        };
        let complete = def.reads.iter().filter(is_complete).cloned().collect();
        let (stream, job) = (entry.name.clone(), entry.job.clone());
        let description = serde_json::to_value(Description { stream, job, parallelism, complete });
        let description = description.map_err(millstream_engine::Error::from)?;
        let node_timeout = self.config().nodes.as_ref().map(|nodes| nodes.timeout());
        let node_timeout = node_timeout.unwrap_or(Placement::default().node_timeout);
        Ok(Placement { seats, description, node_timeout })
    }

    /// The dataflow that `description` is of. Nothing of it is opened.
    async fn plan_of(self: &Arc<Self>, description: Description) -> Result<Planned> {
        let Description { stream, job, parallelism, complete } = description;
        let catalog = Catalog::load(self.store()).await?;
        self.access.send_replace(Arc::new(catalog.access.clone()));
        let found = catalog.get(&stream).filter(|entry| entry.job == job).cloned();
        let mut entry = found.ok_or_else(|| {
            let message = format!("the catalog has no stream \"{stream}\" with the job \"{job}\"");
            Error::new(ErrorKind::Unavailable, message)
        })?;
        let reads = catalog.entries.iter().filter(|read| entry.reads.contains(&read.name));
        for mut read in reads.cloned() {
            if let Err(e) = self.know(&mut read).await {
                return Err(e.context(format!("\"{}\", which it reads", read.name)));
            }
        }
        for name in &complete {
            if let Some(log) = self.objects.read().streams.get(name).and_then(|def| def.log.as_ref()) {
                log.is_complete();
            }
        }
        let (def, create) = self.opened(&mut entry).await?;
        let (graph, _) = self.dataflow(&def, &create, &job, parallelism, &Reading::of_job())?;
        Ok(Planned { graph, checkpoints: Some(Checkpoints::new(self.store().clone(), &job)) })
    }

    /// Makes `entry` known to who reads it.
    async fn know(self: &Arc<Self>, entry: &mut Entry) -> Result<()> {
        match statement_of(&entry.sql)? {
            Statement::CreateView(create) => self.open_view(entry, create),
            _ => {
                let (def, _) = self.opened(entry).await?;
                self.objects.write().streams.insert(entry.name.clone(), def);
                Ok(())
            }
        }
    }
}

/// See [`Millstream::planner`].
struct Plans {
    millstream: Weak<Millstream>,
    /// What is known is that of one plan.
    one_by_one: tokio::sync::Mutex<()>,
}

#[async_trait]
impl Planner for Plans {
    async fn plan(&self, description: &serde_json::Value) -> millstream_engine::Result<Planned> {
        let gone = || millstream_engine::Error::unavailable("the store is closed here");
        let millstream = self.millstream.upgrade().ok_or_else(gone)?;
        let description = serde_json::from_value(description.clone())?;
        let _alone = self.one_by_one.lock().await;
        let planned = millstream.plan_of(description).await;
        *millstream.objects.write() = Objects::default();
        planned.map_err(|e| e.to_engine())
    }
}
