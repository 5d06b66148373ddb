//! Joins: of two inputs, each with the exchange that it needs.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, PhysicalExprRef};
use millstream_engine::graph::{Edge, Exchange, NodeId, NodeKind};
use millstream_engine::operator::join::{Condition, Join};
use millstream_engine::operator::project::Project;
use millstream_engine::spread::Needed;

use super::Lowering;
use crate::error::{Error, Result};
use crate::plan::lower::physical;
use crate::plan::lower::refuse::refuse_volatile;
use crate::plan::lower::tree::{Joining, Node};

impl Lowering<'_> {
    pub(super) fn join(&mut self, joining: &Joining<'_>, node: &Node<'_>, made: [NodeId; 2]) -> Result<NodeId> {
        if joining.lookup && !node.needs.append_only {
            return Err(Error::unsupported("rows that are taken back cannot be looked up AS OF now()").with_hint(
                "Write a JOIN without FOR SYSTEM_TIME: it follows the changes of both sides. Windows that close once are looked \
                 up with EMIT ON WINDOW CLOSE.",
            ));
        }
        if !joining.lookup && !node.inputs.iter().all(|input| input.needs.append_only) {
            joining.expressions().try_for_each(refuse_volatile)?;
        }
        let mut edges = vec![];
        let mut schemas = vec![];
        for (side, input) in node.inputs.iter().enumerate() {
            let plan = if side == 0 { &joining.plan.left } else { &joining.plan.right };
            let from = self.with_computed(&joining.computed[side], plan.schema(), input, made[side])?;
            schemas.push(self.graph.schema(from));
            edges.push(Self::edge_to(joining.needed(side), input, from, node.has.spread.tasks));
        }
        let inputs: [SchemaRef; 2] = [schemas[0].clone(), schemas[1].clone()];
        let spec = Join {
            kind: joining.kind,
            condition: self.condition(joining, &inputs)?,
            inputs,
            keys: joining.keys.clone(),
            nulls_equal: joining.nulls_equal(),
            expiry: joining.times.expiry,
            one_of: [0, 1].map(|side: usize| node.inputs[side].has.one_of.clone()),
            settles: node.needs.append_only && !joining.only_grows(),
            lookup: joining.lookup,
            right_ends: joining.lookup && self.ends(made[1]),
            columns: joining.columns.clone(),
            schema: Arc::clone(joining.plan.schema.inner()),
        };
        Ok(self.graph.add(NodeKind::Operator(Arc::new(spec)), edges, node.has.spread.tasks))
    }

    /// Whether all that node `id` reads ends.
    fn ends(&self, id: NodeId) -> bool {
        let node = &self.graph.nodes[id];
        match &node.kind {
            NodeKind::Source(of) => of.source.bounded(),
            _ => node.inputs.iter().all(|edge| self.ends(edge.from)),
        }
    }

    /// The edge from an input of a join that runs in `tasks`.
    pub(super) fn edge_to(needed: Needed, input: &Node<'_>, from: NodeId, tasks: usize) -> Edge {
        let lie = &input.has.spread;
        if lie.tasks == tasks {
            return Self::exchange(from, lie, &needed);
        }
        let exchange = match needed {
            Needed::Hash(columns) => Exchange::Hash(columns),
            Needed::Single | Needed::Anywhere => Exchange::Single,
        };
        Edge { from, exchange }
    }

    /// The rows of an input, over `plan`, with the values of its key that have to be computed.
    pub(super) fn with_computed(
        &mut self,
        computed: &[Expr],
        plan: &DFSchema,
        input: &Node<'_>,
        from: NodeId,
    ) -> Result<NodeId> {
        if computed.is_empty() {
            return Ok(from);
        }
        let schema = self.graph.schema(from);
        let column = |(at, field): (usize, &Arc<_>)| -> PhysicalExprRef {
            let field: &arrow::datatypes::Field = field;
            Arc::new(Column::new(field.name(), at))
        };
        let mut expressions: Vec<PhysicalExprRef> = schema.fields().iter().enumerate().map(column).collect();
        let mut fields = schema.fields().to_vec();
        for expr in computed {
            expressions.push(physical(self.state, expr, plan)?);
            fields.push(expr.to_field(plan)?.1);
        }
        let spec = Project { expressions, schema: Arc::new(Schema::new(fields)) };
        let edge = Self::exchange(from, &input.has.spread, &Needed::Anywhere);
        Ok(self.graph.add(NodeKind::Operator(Arc::new(spec)), vec![edge], input.has.spread.tasks))
    }

    /// The condition over the columns that it reads.
    fn condition(&self, joining: &Joining<'_>, inputs: &[SchemaRef; 2]) -> Result<Option<Condition>> {
        let Some(filter) = &joining.plan.filter else { return Ok(None) };
        if matches!(filter, Expr::Literal(datafusion::common::ScalarValue::Boolean(Some(true)), _)) {
            return Ok(None);
        }
        let expr = physical(self.state, filter, &joining.both()?)?;
        let left = joining.plan.left.schema().fields().len();
        let read: Vec<usize> =
            collect_columns(&expr).iter().map(Column::index).collect::<BTreeSet<_>>().into_iter().collect();
        let columns: Vec<(usize, usize)> =
            read.iter().map(|at| if *at < left { (0, *at) } else { (1, *at - left) }).collect();
        let fields: Vec<_> = columns.iter().map(|(side, at)| Arc::clone(&inputs[*side].fields()[*at])).collect();
        let moved = expr.transform(|e| {
            let Some(c) = e.downcast_ref::<Column>() else { return Ok(Transformed::no(e)) };
            let at = read.iter().position(|at| *at == c.index()).unwrap_or(c.index());
            let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(c.name(), at));
            Ok(Transformed::yes(column))
        })?;
        Ok(Some(Condition { expr: moved.data, columns, schema: Arc::new(Schema::new(fields)) }))
    }
}
