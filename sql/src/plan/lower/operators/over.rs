//! Calls with `OVER` as an operator.

use std::sync::Arc;

use arrow::array::{RecordBatch, new_null_array};
use arrow::datatypes::{Field, Schema};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, WindowFrame};
use datafusion::physical_planner::create_window_expr;
use millstream_engine::graph::NodeId;
use millstream_engine::operator::over::{Call, Function, Over};

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
            expiry: overing.expiry,
            one_of: input.has.one_of.clone(),
            schema: Arc::clone(overing.plan.schema.inner()),
        };
        Ok(self.operator(Arc::new(spec), node, &[from]))
    }

    fn window_call(&self, overing: &Overing<'_>, expr: &Expr) -> Result<Call> {
        refuse_unstable(expr)?;
        let (function, params) = call_of(expr)?;
        let args: Vec<String> = params.args.iter().map(|arg| arg.schema_name().to_string()).collect();
        let mut name = format!("{}({})", function.name(), args.join(", "));
        let ordered = (!params.order_by.is_empty()).then_some(false);
        let function = match function.name() {
            "row_number" => Function::RowNumber,
            "rank" => Function::Rank,
            "dense_rank" => Function::DenseRank,
            _ => {
                if params.window_frame != WindowFrame::new(ordered) {
                    name.push_str(&format!(" {}", params.window_frame));
                }
                let (schema, props) = (overing.plan.input.schema(), self.state.execution_props());
                let made = create_window_expr(expr, schema, props, &PhysicalPlanningContext::default())?;
                // What it cannot take it says only when it is evaluated.
                let nullable = |f: &Arc<Field>| f.as_ref().clone().with_nullable(true);
                let nullable: Vec<Field> = schema.fields().iter().map(nullable).collect();
                let nulls = nullable.iter().map(|f| new_null_array(f.data_type(), 1)).collect();
                made.evaluate(&RecordBatch::try_new(Arc::new(Schema::new(nullable)), nulls)?)?;
                Function::Other(made)
            }
        };
        Ok(Call { name, function })
    }
}
