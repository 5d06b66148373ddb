//! Which node runs which task.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fragment::Fragments;
use crate::graph::{Graph, NodeKind};

/// Where the tasks of a job may run.
#[derive(Clone, Debug)]
pub struct Placement {
    /// The nodes, in the order in which tasks are dealt out; none: all tasks run here.
    pub seats: Vec<Seat>,
    /// What another node makes the job's graph of, in the words of who made it.
    pub description: serde_json::Value,
    /// A node that says nothing for so long is gone.
    pub node_timeout: Duration,
}

/// A node on which tasks may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Where other nodes reach it.
    pub address: String,
    /// How many tasks it is dealt in a round.
    pub cores: usize,
}

impl Default for Placement {
    fn default() -> Self {
        let node_timeout = Duration::from_secs(5);
        Placement { seats: vec![], description: serde_json::Value::Null, node_timeout }
    }
}

/// The nodes of a job, by which tasks and edges name them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Placed {
    /// Their addresses, that of the coordinator first.
    pub(super) nodes: Vec<String>,
    /// The node of each task, by fragment.
    pub(super) tasks: Vec<Vec<usize>>,
}

/// The node on which the coordinator runs.
pub(super) const HOME: usize = 0;

impl Placed {
    /// Deals out the tasks of `graph`. Tasks of one number are on one node, so that rows which need not move do not.
    pub(super) fn new(placement: &Placement, home: &str, graph: &Graph, fragments: &Fragments) -> Self {
        let mut nodes = vec![home.to_owned()];
        for seat in &placement.seats {
            if !nodes.contains(&seat.address) {
                nodes.push(seat.address.clone());
            }
        }
        let place = |seat: &Seat| nodes.iter().position(|address| *address == seat.address).unwrap_or(HOME);
        let rounds = placement.seats.iter().map(|seat| seat.cores).max().unwrap_or_default();
        let deal: Vec<usize> = (0..rounds)
            .flat_map(|round| placement.seats.iter().filter(move |seat| seat.cores > round))
            .map(place)
            .collect();
        let node_of = |fragment: usize, task: usize| match deal.is_empty() || !goes_anywhere(graph, fragments, fragment)
        {
            true => HOME,
            false => deal[task % deal.len()],
        };
        let of_fragment = |fragment: usize| {
            let tasks = graph.nodes[fragments.nodes[fragment][0]].parallelism;
            (0..tasks).map(|task| node_of(fragment, task)).collect()
        };
        let tasks = (0..fragments.nodes.len()).map(of_fragment).collect();
        Placed { nodes, tasks }
    }

    /// How many tasks are on `node`.
    pub(super) fn count(&self, node: usize) -> usize {
        self.tasks.iter().flatten().filter(|at| **at == node).count()
    }
}

/// Whether the tasks of `fragment` can run in any process. A source whose epochs end where it says, or whose units never end, is
/// read beside its intake, which is asked in between.
fn goes_anywhere(graph: &Graph, fragments: &Fragments, fragment: usize) -> bool {
    fragments.nodes[fragment].iter().all(|id| match &graph.nodes[*id].kind {
        NodeKind::Source(node) => {
            let source = &node.source;
            !source.in_groups() && !source.side_by_side() && source.clone().readers().is_some()
        }
        NodeKind::Sink(node) => node.sink.is_anywhere(),
        NodeKind::Operator(_) => true,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Schema;

    use super::*;
    use crate::connector::series::{Series, SeriesSource};
    use crate::graph::SourceNode;

    #[test]
    fn tasks_are_dealt_by_cores() {
        let (mut graph, schema) = (Graph::default(), Arc::new(Schema::empty()));
        let source = SourceNode::new(
            "s",
            Arc::new(SeriesSource::new(Series::new(0, i64::MAX, 1, true), schema.clone())),
            schema,
        );
        graph.add(NodeKind::Source(source), vec![], 7);
        let fragments = Fragments::of(&graph);
        let seat = |address: &str, cores| Seat { address: address.to_owned(), cores };
        let seats = vec![seat("b", 3), seat("home", 1), seat("c", 2)];
        let placement = Placement { seats, ..Placement::default() };
        let placed = Placed::new(&placement, "home", &graph, &fragments);
        assert_eq!(placed.nodes, ["home", "b", "c"]);
        assert_eq!(placed.tasks, [[1, 0, 2, 1, 2, 1, 1]]);
        assert_eq!([0, 1, 2].map(|node| placed.count(node)), [1, 4, 2]);
        let here = Placed::new(&Placement::default(), "home", &graph, &fragments);
        assert_eq!((here.nodes, here.tasks), (vec!["home".to_owned()], vec![vec![0; 7]]));
    }
}
