//! The edges between tasks: what of each is on one node.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::chain::OutEdge;
use super::channel::{Receiver, Sender, edge};
use super::inlet::{Grants, Inlet, inlet, window};
use super::outlet::Outlet;
use super::placement::Placed;
use super::task::{JobPlan, Outputs};
use crate::graph::{Edge, Exchange};
use crate::memory::MemoryBudget;

/// One part of so many of a node's memory is for what is under way on the edges of a job from other nodes.
const SHARE: usize = 8;
/// What may be under way on an edge however many there are.
const LEAST_WINDOW: usize = 64 << 10;

/// The ends of the edges that are on one node.
#[derive(Default)]
pub(super) struct Ends {
    /// By node of the graph and task.
    pub(super) inputs: BTreeMap<(usize, usize), Vec<Receiver>>,
    /// By fragment and task.
    pub(super) outputs: BTreeMap<(usize, usize), Outputs>,
    /// To other nodes, by these.
    pub(super) outlets: BTreeMap<usize, Vec<Outlet>>,
    /// From other nodes, by these.
    pub(super) inlets: BTreeMap<usize, Vec<(u32, Inlet, Grants)>>,
}

/// Who connects.
pub(super) struct Connecting<'a> {
    pub(super) plan: &'a JobPlan,
    pub(super) placed: &'a Placed,
    /// The node whose ends are made.
    pub(super) here: usize,
    /// The bound of each edge.
    pub(super) bytes: usize,
    pub(super) budget: &'a Arc<MemoryBudget>,
}

/// An edge between tasks of two fragments.
struct Between<'a> {
    from: (usize, usize),
    to: (usize, usize),
    port: usize,
    edge: &'a Edge,
}

impl Connecting<'_> {
    /// Makes the ends that are here. Each node goes through all edges in the same order, so that they have the same numbers.
    pub(super) fn ends(&self) -> Ends {
        let (between, mut ends) = (self.between(), Ends::default());
        let come = between.iter().filter(|e| self.is_here(e.to) && !self.is_here(e.from)).count();
        let window = window((self.budget.limit() / SHARE / come.max(1)).max(LEAST_WINDOW).min(self.bytes));
        for (number, e) in between.iter().enumerate() {
            let sender = match (self.is_here(e.from), self.is_here(e.to)) {
                (false, false) => continue,
                (true, true) => {
                    let (sender, receiver) = edge(self.bytes, e.port, self.metrics(e), self.budget.clone());
                    ends.inputs.entry(e.to).or_default().push(receiver);
                    sender
                }
                (true, false) => {
                    let (sender, receiver) = edge(self.bytes, e.port, Arc::default(), self.budget.clone());
                    let outlet = Outlet::new(number as u32, receiver);
                    ends.outlets.entry(self.node(e.to)).or_default().push(outlet);
                    sender
                }
                (false, true) => {
                    let (inlet, grants, receiver) = inlet(window, e.port, self.metrics(e), self.budget.clone());
                    ends.inputs.entry(e.to).or_default().push(receiver);
                    ends.inlets.entry(self.node(e.from)).or_default().push((number as u32, inlet, grants));
                    continue;
                }
            };
            ends.add_output(self.plan.fragments.of_node[e.from.0], e, sender);
        }
        ends
    }

    /// The edges at which there is an exchange, those out of one task in the order of the tasks to which they go.
    fn between(&self) -> Vec<Between<'_>> {
        let (plan, mut between) = (self.plan, vec![]);
        for (to, node) in plan.graph.nodes.iter().enumerate() {
            for (port, edge) in node.inputs.iter().enumerate() {
                if plan.fragments.of_node[edge.from] == plan.fragments.of_node[to] {
                    continue;
                }
                for from_task in 0..plan.graph.nodes[edge.from].parallelism {
                    let to_tasks = match edge.exchange {
                        Exchange::Forward => from_task..from_task + 1,
                        Exchange::Single => 0..1,
                        Exchange::Hash(_) => 0..node.parallelism,
                    };
                    let to_task = |task| Between { from: (edge.from, from_task), to: (to, task), port, edge };
                    between.extend(to_tasks.map(to_task));
                }
            }
        }
        between
    }

    /// Where a task of a node of the graph is.
    fn node(&self, (node, task): (usize, usize)) -> usize {
        self.placed.tasks[self.plan.fragments.of_node[node]][task]
    }

    fn is_here(&self, at: (usize, usize)) -> bool {
        self.node(at) == self.here
    }

    fn metrics(&self, e: &Between<'_>) -> Arc<crate::metrics::NodeMetrics> {
        self.plan.metrics[e.to.0][e.to.1].clone()
    }
}

impl Ends {
    fn add_output(&mut self, fragment: usize, e: &Between<'_>, sender: Sender) {
        let outputs = self.outputs.entry((fragment, e.from.1)).or_default();
        let none = || OutEdge { exchange: e.edge.exchange.clone(), senders: vec![] };
        outputs.entry((e.from.0, e.to.0, e.port)).or_insert_with(none).senders.push(sender);
    }
}
