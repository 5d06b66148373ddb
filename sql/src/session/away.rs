//! Jobs with tasks on other nodes: what those are told, and the dataflow that they make of it.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use millstream_engine::checkpoint::Checkpoints;
use millstream_engine::runtime::{Network, Placement, Planned, Planner, Runtime, Seat};

use super::Millstream;
use super::entry::statement_of;
use super::reading::Reading;
use crate::catalog::Entry;
use crate::error::{Error, Result};
use crate::statement::Statement;

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

    /// What plans, with the streams that are known here, jobs that others have started.
    pub fn planner(self: &Arc<Self>) -> Arc<dyn Planner> {
        Arc::new(Plans(Arc::downgrade(self)))
    }

    /// Where the tasks of the job of `entry` run.
    pub(super) fn placement(&self, entry: &Entry) -> Result<Placement> {
        let description = serde_json::to_value(entry).map_err(millstream_engine::Error::from)?;
        Ok(Placement { seats: self.runtime().seats(), description, ..Placement::default() })
    }

    /// The dataflow of the job of `entry`, which another node runs. Nothing of it is opened, and nobody learns of the stream.
    async fn plan_of(self: &Arc<Self>, mut entry: Entry) -> Result<Planned> {
        let Statement::CreateStream(mut create) = statement_of(&entry.sql)? else {
            return Err(Error::internal("a job that is no stream's"));
        };
        let resolved = self.resolved(&mut entry, &mut create).await?;
        let mut def = self.define(&create, entry.sql.clone(), entry.parallelism, &resolved, &entry.maker)?;
        def.reads = entry.reads.clone();
        let (graph, _) = self.dataflow(&def, &create, &entry.job, entry.parallelism, &Reading::of_job())?;
        Ok(Planned { graph, checkpoints: Some(Checkpoints::new(self.store().clone(), &entry.job)) })
    }
}

/// See [`Millstream::planner`].
struct Plans(Weak<Millstream>);

#[async_trait]
impl Planner for Plans {
    async fn plan(&self, description: &serde_json::Value) -> millstream_engine::Result<Planned> {
        let gone = || millstream_engine::Error::unavailable("the store is closed here");
        let millstream = self.0.upgrade().ok_or_else(gone)?;
        let entry = serde_json::from_value(description.clone())?;
        millstream.plan_of(entry).await.map_err(|e| e.to_engine())
    }
}
