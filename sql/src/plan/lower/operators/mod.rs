//! The third pass: operators and edges are made, inputs first, of what the other two have found.
//!
//! What is made stays as it is. Which node is made after which one is fixed, since state goes by an operator's name and how
//! many of that name there are before it.

mod aggregate;
mod as_of;
mod join;
mod over;
mod recompute;
mod rows;
mod source;

use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;
use millstream_engine::graph::{Graph, NodeId, NodeKind};
use millstream_engine::operator::SpecRef;
use millstream_engine::spread::Needed;

use super::scan::Scans;
use super::tree::{Node, Requirements, Step};
use crate::error::{Error, Result};
use crate::semantics::Semantics;

/// The pass.
pub(super) struct Lowering<'a> {
    pub(super) state: &'a SessionState,
    /// What the query reads.
    pub(super) scans: &'a Scans,
    /// What is made already.
    pub(super) graph: Graph,
    /// Parts of the plan that are made, with their depth and what their readers need, so that one that stands twice runs once.
    pub(super) parts: Vec<(&'a LogicalPlan, usize, Requirements, NodeId)>,
    /// What the rows of each scan come from.
    pub(super) heads: Vec<NodeId>,
    /// The tasks of what can run in several.
    pub(super) tasks: usize,
}

impl<'a> Lowering<'a> {
    /// Makes `node` and what it reads, or finds it; gives what its rows come from.
    pub(super) fn node(&mut self, node: &Node<'a>) -> Result<NodeId> {
        let Some(plan) = node.plan.filter(|_| Semantics::of(self.state).shares_parts()) else { return self.made(node) };
        // Where its rows are needed says the edge.
        let needs = Requirements { rows: Needed::Anywhere, ..node.needs.clone() };
        match self.parts.iter().find(|(other, depth, of, _)| *depth == node.depth && *of == needs && *other == plan) {
            Some((_, _, _, made)) => Ok(*made),
            None => {
                let made = self.made(node)?;
                self.parts.push((plan, node.depth, needs, made));
                Ok(made)
            }
        }
    }

    fn made(&mut self, node: &Node<'a>) -> Result<NodeId> {
        let made = node.inputs.iter().map(|input| self.node(input)).collect::<Result<Vec<_>>>()?;
        match (&node.step, node.inputs.as_slice(), made.as_slice()) {
            (Step::Scan { scan, places }, [], []) => self.scan(node, *scan, places),
            (Step::Values(values), [], []) => self.values(values, node.depth),
            (Step::Series(series, scan), [], []) => Ok(self.series(*series, scan, node.depth)),
            (Step::Empty(empty), [], []) => self.empty(empty, node.depth),
            (Step::Project(p), [_], [from]) => self.project(p, node, *from),
            (Step::Filter(f), [_], [from]) => self.filter(f, node, *from),
            (Step::Clock(clocking), [input], [from]) => self.clock(clocking, node, input, *from),
            (Step::Window { time, windows, .. }, [_], [from]) => self.window(node, *from, *time, *windows),
            (Step::Session(sessioning), [_], [from]) => self.session(sessioning, node, *from),
            (Step::Aggregate(grouping), [input], [from]) => self.aggregate(grouping, node, input, *from),
            (Step::Join(joining), [_, _], [left, right]) => self.join(joining, node, [*left, *right]),
            (Step::AsOf(of), [_, _], [left, right]) => self.as_of(of, node, [*left, *right]),
            (Step::Over(overing), [input], [from]) => self.over(overing, node, input, *from),
            (Step::Recompute(plan, kept), _, _) => self.recompute(plan, kept, node, &made),
            (Step::Unnest(u, columns), [_], [from]) => Ok(self.unnest(u, columns, node, *from)),
            (Step::Union(u), _, _) => Ok(self.union(u, node, &made)),
            _ => Err(Error::internal("a node with more or fewer inputs than it can have")),
        }
    }

    /// Adds the operator of `node`, which reads what is `made`.
    fn operator(&mut self, spec: SpecRef, node: &Node<'_>, made: &[NodeId]) -> NodeId {
        let inputs = node.inputs.iter().zip(made);
        let edges = inputs.map(|(input, from)| Self::exchange(*from, &input.has.spread, &input.needs.rows)).collect();
        self.graph.add(NodeKind::Operator(spec), edges, node.has.spread.tasks)
    }
}
