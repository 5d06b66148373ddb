//! Operators that take each row by itself: projections, filters, windows and unions.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, Filter as FilterPlan, Projection, Union as UnionPlan, Unnest as UnnestPlan};
use millstream_engine::graph::{NodeId, NodeKind};
use millstream_engine::operator::filter::Filter;
use millstream_engine::operator::project::Project;
use millstream_engine::operator::session::Session;
use millstream_engine::operator::temporal::{Bound, Temporal};
use millstream_engine::operator::union::Union;
use millstream_engine::operator::unnest::{Unnest, Unnested};
use millstream_engine::operator::window::{WindowAssign, WindowSpec};
use millstream_engine::spread::Needed;

use super::Lowering;
use crate::error::Result;
use crate::plan::lower::refuse::refuse_volatile;
use crate::plan::lower::tree::{Clocking, Node, Passing, Sessioning};
use crate::plan::lower::{column_of, physical};

impl Lowering<'_> {
    pub(super) fn project(&mut self, plan: &Projection, node: &Node<'_>, from: NodeId) -> Result<NodeId> {
        let schema = plan.input.schema();
        let mut expressions = Vec::with_capacity(plan.expr.len());
        for e in &plan.expr {
            if !node.needs.append_only {
                refuse_volatile(e)?;
            }
            expressions.push(physical(self.state, e, schema)?);
        }
        let all = plan.expr.len() == schema.fields().len();
        let in_place = plan.expr.iter().enumerate().all(|(i, e)| column_of(e, schema) == Some(i));
        let names = || schema.fields().iter().map(|f| f.name()).eq(plan.schema.fields().iter().map(|f| f.name()));
        if all && in_place && names() {
            return Ok(from);
        }
        let spec = Project { expressions, schema: Arc::clone(plan.schema.inner()) };
        Ok(self.operator(Arc::new(spec), node, &[from]))
    }

    pub(super) fn filter(&mut self, plan: &FilterPlan, node: &Node<'_>, from: NodeId) -> Result<NodeId> {
        if matches!(plan.predicate, Expr::Literal(ScalarValue::Boolean(Some(true)), _)) {
            return Ok(from);
        }
        if !node.needs.append_only {
            refuse_volatile(&plan.predicate)?;
        }
        let predicate = physical(self.state, &plan.predicate, plan.input.schema())?;
        let spec = Filter { predicate, schema: self.graph.schema(from) };
        Ok(self.operator(Arc::new(spec), node, &[from]))
    }

    pub(super) fn window(&mut self, node: &Node<'_>, from: NodeId, time: usize, windows: WindowSpec) -> Result<NodeId> {
        let panes = windows.panes().filter(|_| node.needs.panes);
        let spec = WindowAssign::new(&self.graph.schema(from), time, windows, panes)?;
        Ok(self.operator(Arc::new(spec), node, &[from]))
    }

    pub(super) fn clock(
        &mut self,
        clocking: &Clocking<'_>,
        node: &Node<'_>,
        input: &Node<'_>,
        from: NodeId,
    ) -> Result<NodeId> {
        let (mut from, schema) = (from, clocking.plan.input.schema());
        if let Some(rest) = &clocking.rest {
            let predicate = physical(self.state, rest, schema)?;
            let spec = Filter { predicate, schema: self.graph.schema(from) };
            let edge = Self::exchange(from, &input.has.spread, &Needed::Anywhere);
            from = self.graph.add(NodeKind::Operator(Arc::new(spec)), vec![edge], input.has.spread.tasks);
        }
        let bound = |passing: &Passing| {
            let time = physical(self.state, &passing.time, schema)?;
            Ok(Bound { time, side: passing.side, past: passing.past, moved: passing.moved })
        };
        let bounds = clocking.bounds.iter().map(bound).collect::<Result<Vec<_>>>()?;
        let (text, key) = (clocking.text.clone(), clocking.key.clone());
        let spec = Temporal { bounds, text, key, schema: self.graph.schema(from) };
        Ok(self.operator(Arc::new(spec), node, &[from]))
    }

    pub(super) fn session(&mut self, sessioning: &Sessioning, node: &Node<'_>, from: NodeId) -> Result<NodeId> {
        let Sessioning { time, key, sessions, closing } = sessioning;
        let mut spec = Session::new(&self.graph.schema(from), *time, key.clone(), *sessions)?;
        (spec.on_close, spec.closes) = (node.needs.append_only, closing.is_some());
        spec.one_of.clone_from(&node.has.one_of);
        Ok(self.operator(Arc::new(spec), node, &[from]))
    }

    pub(super) fn unnest(&mut self, plan: &UnnestPlan, columns: &[Unnested], node: &Node<'_>, from: NodeId) -> NodeId {
        let spec = Unnest {
            columns: columns.to_vec(),
            keeps_null: plan.options.preserve_nulls(),
            keeps_empty: plan.options.expand_empty_as_null(),
            schema: Arc::clone(plan.schema.inner()),
        };
        self.operator(Arc::new(spec), node, &[from])
    }

    pub(super) fn union(&mut self, plan: &UnionPlan, node: &Node<'_>, made: &[NodeId]) -> NodeId {
        self.operator(Arc::new(Union { schema: Arc::clone(plan.schema.inner()) }), node, made)
    }
}
