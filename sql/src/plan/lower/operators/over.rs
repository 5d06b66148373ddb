//! Calls with `OVER` as an operator.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{Field, Schema};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, WindowFrame};
use datafusion::physical_expr::PhysicalExprRef;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_planner::create_window_expr;
use millstream_engine::graph::{NodeId, NodeKind};
use millstream_engine::operator::over::{Call, Function, Over};
use millstream_engine::operator::project::Project;
use millstream_engine::spread::{Needed, Spread};

use super::Lowering;
use crate::error::Result;
use crate::plan::lower::overs::call_of;
use crate::plan::lower::refuse::refuse_unstable;
use crate::plan::lower::tree::{Node, Overing};

impl Lowering<'_> {
    pub(super) fn over(
        &mut self,
        overing: &Overing<'_>,
        node: &Node<'_>,
        input: &Node<'_>,
        from: NodeId,
    ) -> Result<NodeId> {
        let calls = overing.plan.window_expr.iter().map(|expr| self.window_call(overing, expr));
        let spec = Over {
            calls: calls.collect::<Result<_>>()?,
            input: self.graph.schema(from),
            key: overing.key.clone(),
            order: overing.order.clone(),
            first: node.needs.first,
            append_only: input.needs.append_only,
            settles: node.needs.append_only,
            of_each_task: false,
            expiry: overing.expiry,
            one_of: input.has.one_of.clone(),
            schema: Arc::clone(overing.plan.schema.inner()),
        };
        if spec.key.is_empty() && spec.first.is_some() && spec.append_only && input.has.spread.tasks > 1 {
            return Ok(self.in_two_steps(spec, node, input, from));
        }
        Ok(self.operator(Arc::new(spec), node, &[from]))
    }

    /// Cuts off in each task what comes in an epoch, then of that which is left.
    fn in_two_steps(&mut self, spec: Over, node: &Node<'_>, input: &Node<'_>, from: NodeId) -> NodeId {
        let lie = Spread::anyhow(input.has.spread.tasks);
        let each = Over { settles: true, of_each_task: true, ..spec.clone() };
        let edge = Self::exchange(from, &input.has.spread, &Needed::Anywhere);
        let each = self.graph.add(NodeKind::Operator(Arc::new(each)), vec![edge], lie.tasks);
        let fields = spec.input.fields().iter().enumerate();
        let expressions = fields.map(|(at, f)| Arc::new(Column::new(f.name(), at)) as PhysicalExprRef).collect();
        let without = Project { expressions, schema: spec.input.clone() };
        let edge = Self::exchange(each, &lie, &Needed::Anywhere);
        let without = self.graph.add(NodeKind::Operator(Arc::new(without)), vec![edge], lie.tasks);
        let edge = Self::exchange(without, &lie, &Needed::Single);
        self.graph.add(NodeKind::Operator(Arc::new(spec)), vec![edge], node.has.spread.tasks)
    }

    fn window_call(&self, overing: &Overing<'_>, expr: &Expr) -> Result<Call> {
        refuse_unstable(expr)?;
        let (function, params) = call_of(expr)?;
        let args: Vec<String> = params.args.iter().map(|arg| arg.schema_name().to_string()).collect();
        let mut name = format!("{}({})", function.name(), args.join(", "));
        let ordered = (!params.order_by.is_empty()).then_some(false);
        let function = match Function::numbering(function.name()) {
            Some(function) => function,
            None => {
                if params.window_frame != WindowFrame::new(ordered) {
                    name.push_str(&format!(" {}", params.window_frame));
                }
                let (schema, props) = (overing.plan.input.schema(), self.state.execution_props());
                let made = create_window_expr(expr, schema, props, &PhysicalPlanningContext::default())?;
                // What it cannot take it says only when it is evaluated.
                let nullable = |f: &Arc<Field>| f.as_ref().clone().with_nullable(true);
                let nullable: Vec<Field> = schema.fields().iter().map(nullable).collect();
                let nulls = nullable.iter().map(|f| new_null_array(f.data_type(), 1)).collect();
                let one = RecordBatchOptions::new().with_row_count(Some(1));
                made.evaluate(&RecordBatch::try_new_with_options(Arc::new(Schema::new(nullable)), nulls, &one)?)?;
                Function::Other(made)
            }
        };
        Ok(Call { name, function })
    }
}
