//! The figures of jobs, for who watches a process.

use std::time::Duration;

use millstream_engine::connector::Figure;
use millstream_engine::graph::{NodeId, NodeKind};
use millstream_engine::runtime::JobHandle;

use super::Millstream;
use super::jobs::Job;
use super::outcome::JobInfo;

/// A job with its figures. Those of a job that does not run are 0.
#[derive(Clone, Debug)]
pub struct JobFigures {
    /// As `SHOW JOBS` has it.
    pub info: JobInfo,
    /// Rows dropped because their windows had closed.
    pub late: u64,
    /// Rows put aside.
    pub dead_letters: u64,
    /// How long the last epoch took.
    pub epoch_time: Duration,
    /// The last checkpoint.
    pub checkpoint: u64,
    /// How long it took from its epoch's cut to its commit.
    pub checkpoint_time: Duration,
    /// Bytes written for it.
    pub checkpoint_bytes: u64,
    /// Bytes of state that operators hold.
    pub state_bytes: u64,
    /// Bytes that wait at operators.
    pub queued_bytes: u64,
    /// What sources and sinks have counted themselves.
    pub connectors: Vec<ConnectorFigures>,
}

/// What a source or a sink has counted since the job started.
#[derive(Clone, Debug)]
pub struct ConnectorFigures {
    /// The stream that is read; `None` for a sink.
    pub source: Option<String>,
    /// Its figures.
    pub figures: Vec<Figure>,
}

impl Millstream {
    /// The jobs with their figures, by stream name.
    pub fn figures(&self) -> Vec<JobFigures> {
        self.jobs.read().values().map(|job| job.figures()).collect()
    }
}

impl Job {
    fn figures(&self) -> JobFigures {
        let mut all = JobFigures {
            info: self.info(),
            late: 0,
            dead_letters: 0,
            epoch_time: Duration::ZERO,
            checkpoint: 0,
            checkpoint_time: Duration::ZERO,
            checkpoint_bytes: 0,
            state_bytes: 0,
            queued_bytes: 0,
            connectors: vec![],
        };
        let Some(handle) = self.handle() else { return all };
        let status = handle.status();
        (all.epoch_time, all.checkpoint) = (status.epoch_lag, status.committed.0);
        (all.checkpoint_time, all.checkpoint_bytes) = status.commit_cost;
        for node in handle.figures() {
            all.late += node.late;
            all.dead_letters += node.dead_letters;
            all.state_bytes += node.state_bytes;
            all.queued_bytes += node.queued_bytes;
        }
        all.connectors = (0..handle.graph().nodes.len()).filter_map(|id| counted(&handle, id)).collect();
        all
    }
}

fn counted(handle: &JobHandle, id: NodeId) -> Option<ConnectorFigures> {
    let source = match &handle.graph().nodes[id].kind {
        NodeKind::Source(source) => Some(source.stream.clone()),
        _ => None,
    };
    let figures = handle.counted(id);
    (!figures.is_empty()).then_some(ConnectorFigures { source, figures })
}
