//! The tasks that a node runs for the one that leads, and the way of all nodes to one another.

use std::sync::Arc;

use millstream_engine::runtime::{Network, Node as TaskNode, Runtime};
use millstream_sql::session::Seat;
use millstream_sql::{Config, Millstream, Result};

use super::calling::NodeCalling;
use crate::exchange::{Door, Exchange};

/// What runs parts of jobs that another node leads. They end when it is dropped.
pub(super) struct Worker {
    millstream: Arc<Millstream>,
    pub(super) door: Door,
}

impl Worker {
    /// That of a node that follows, in the store of `seat`.
    pub(super) fn open(config: Config, seat: &Seat, calling: &Arc<NodeCalling>) -> Result<Self> {
        let mut network = None;
        let join = |runtime: &Runtime| network.insert(network_of(calling, runtime)).clone() as Arc<dyn Network>;
        let millstream = Millstream::beside(config, seat, join)?;
        let tasks = TaskNode::new(millstream.engine().clone(), millstream.planner());
        let door = door_of(&millstream, network.as_deref(), Some(tasks));
        Ok(Worker { millstream, door })
    }

    /// How many tasks there are.
    pub(super) fn tasks(&self) -> usize {
        self.door.tasks()
    }

    /// The bytes that they hold.
    pub(super) fn memory(&self) -> u64 {
        self.millstream.budget().used() as u64
    }
}

/// The network of a node whose jobs run on `runtime`.
pub(super) fn network_of(calling: &Arc<NodeCalling>, runtime: &Runtime) -> Arc<Exchange> {
    let (address, compression) = (calling.address.clone(), calling.compression);
    let (budget, io) = (runtime.budget.clone(), runtime.io.clone());
    Arc::new(Exchange::new(address, Arc::<NodeCalling>::clone(calling), compression, budget, io))
}

/// Where other nodes come in: to `tasks`, where those of others run here, and to what waits in `network` for what they send.
pub(super) fn door_of(millstream: &Millstream, network: Option<&Exchange>, tasks: Option<TaskNode>) -> Door {
    let landings = network.map(|network| network.landings().clone()).unwrap_or_default();
    Door::new(tasks, landings, millstream.engine().cpu.clone())
}
