//! `GROUP BY` as operators: one, or two with an exchange between.

use std::sync::Arc;

use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Aggregate as Plan, Expr};
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;
use millstream_engine::expr::harden_aggregate;
use millstream_engine::graph::{NodeId, NodeKind};
use millstream_engine::operator::OperatorSpec;
use millstream_engine::operator::aggregate::{Aggregate, Call, Phase, TimeKey};
use millstream_engine::spread::Spread;

use super::Lowering;
use crate::error::Result;
use crate::plan::lower::physical;
use crate::plan::lower::refuse::{refuse_unstable, refuse_volatile};
use crate::plan::lower::tree::{Grouping, Node};

impl Lowering<'_> {
    pub(super) fn aggregate(
        &mut self,
        grouping: &Grouping<'_>,
        node: &Node<'_>,
        input: &Node<'_>,
        from: NodeId,
    ) -> Result<NodeId> {
        let plan = grouping.plan;
        let schema = Arc::clone(plan.schema.inner());
        let append_only = input.needs.append_only;
        let mut groups = Vec::with_capacity(plan.group_expr.len());
        for (e, field) in plan.group_expr.iter().zip(schema.fields()) {
            if !append_only {
                refuse_volatile(e)?;
            }
            groups.push((physical(self.state, e, plan.input.schema())?, Arc::clone(field)));
        }
        if !append_only {
            // What an argument, a FILTER or an order was when a row came must be the same when it goes.
            plan.aggr_expr.iter().try_for_each(refuse_volatile)?;
        }
        let calls = plan.aggr_expr.iter().map(|e| self.call(e, plan)).collect::<Result<Vec<_>>>()?;
        let time = grouping.time.clone().map(|time| TimeKey { panes: node.needs.panes, ..time });
        let spec = Aggregate {
            groups,
            calls,
            time,
            cut: Some(grouping.cut.clone()),
            phase: Phase::Single,
            emit: node.needs.emit,
            append_only,
            input: self.graph.schema(from),
            output: schema,
            units: Default::default(),
        };
        Ok(match node.needs.two_phases {
            false => self.operator(Arc::new(spec), node, &[from]),
            true => self.two_phases(spec, node, input, from),
        })
    }

    /// Adds up the rows of an epoch where they lie, and what that gives where its keys belong.
    fn two_phases(&mut self, spec: Aggregate, node: &Node<'_>, input: &Node<'_>, from: NodeId) -> NodeId {
        let partial = Aggregate { phase: Phase::Partial, ..spec.clone() };
        let lie = Spread::anyhow(input.has.spread.tasks);
        let edge = Self::exchange(from, &input.has.spread, &input.needs.rows);
        let partial = self.graph.add(NodeKind::Operator(Arc::new(partial)), vec![edge], lie.tasks);
        let last = Aggregate { phase: Phase::Final, ..spec };
        let edge = Self::exchange(partial, &lie, &last.needs(0));
        self.graph.add(NodeKind::Operator(Arc::new(last)), vec![edge], node.has.spread.tasks)
    }

    fn call(&self, expr: &Expr, plan: &Plan) -> Result<Call> {
        refuse_unstable(expr)?;
        let from = plan.input.schema();
        let context = PhysicalPlanningContext::default();
        let props = self.state.execution_props();
        let lowered = LoweredAggregateBuilder::new(expr, from, from.as_arrow(), props, &context).build()?;
        // What some functions cannot take they say only here.
        lowered.aggregate.create_accumulator()?;
        let (function, filter) = harden_aggregate(&lowered.aggregate, lowered.filter, from.as_arrow())?;
        Ok(Call { function, filter })
    }
}
