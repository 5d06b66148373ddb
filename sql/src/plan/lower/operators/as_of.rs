//! ASOF joins as an operator.

use std::sync::Arc;

use datafusion::logical_expr::UserDefinedLogicalNodeCore;
use millstream_engine::graph::{NodeId, NodeKind};
use millstream_engine::operator::as_of::AsOf;

use super::Lowering;
use crate::error::Result;
use crate::plan::lower::refuse::refuse_volatile;
use crate::plan::lower::tree::{AsOfing, Node};

impl Lowering<'_> {
    pub(super) fn as_of(&mut self, of: &AsOfing<'_>, node: &Node<'_>, made: [NodeId; 2]) -> Result<NodeId> {
        // Of each row the key is computed once, but for those that are taken back.
        if !node.inputs.iter().all(|input| input.needs.append_only) {
            of.expressions().try_for_each(refuse_volatile)?;
        }
        let plans = [&of.plan.left, &of.plan.right];
        let (mut edges, mut schemas) = (vec![], vec![]);
        for (side, input) in node.inputs.iter().enumerate() {
            let from = self.with_computed(&of.computed[side], plans[side].schema(), input, made[side])?;
            schemas.push(self.graph.schema(from));
            edges.push(Self::edge_to(of.needed(side), input, from, node.has.spread.tasks));
        }
        let spec = AsOf {
            way: of.plan.way,
            left_outer: of.plan.left_outer,
            inputs: [schemas[0].clone(), schemas[1].clone()],
            keys: of.keys.clone(),
            times: of.times,
            given: plans.map(|plan| plan.schema().fields().len()),
            expires: of.expires,
            settles: node.needs.append_only,
            one_of: [0, 1].map(|side: usize| node.inputs[side].has.one_of.clone()),
            schema: Arc::clone(of.plan.schema().inner()),
        };
        Ok(self.graph.add(NodeKind::Operator(Arc::new(spec)), edges, node.has.spread.tasks))
    }
}
