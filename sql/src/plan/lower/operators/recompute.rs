//! A query that is run anew, with DataFusion's batch plan of it.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::execution::TaskContext;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execute_stream;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use millstream_engine::graph::NodeId;
use millstream_engine::operator::recompute::{Batch, Recompute};

use super::Lowering;
use crate::error::Result;
use crate::plan::lower::recursive::{name_of, over_inputs};
use crate::plan::lower::tree::Node;

impl Lowering<'_> {
    pub(super) fn recompute(
        &mut self,
        plan: &LogicalPlan,
        kept: &LogicalPlan,
        node: &Node<'_>,
        made: &[NodeId],
    ) -> Result<NodeId> {
        let mut state = self.state.clone();
        // It is one task's work.
        state.config_mut().options_mut().execution.target_partitions = 1;
        let batch = Arc::new(Rerun { name: name_of(plan)?.to_owned(), plan: kept.clone(), state });
        let spec = Recompute {
            inputs: made.iter().map(|from| self.graph.schema(*from)).collect(),
            batch,
            schema: Arc::clone(plan.schema().inner()),
        };
        Ok(self.operator(Arc::new(spec), node, made))
    }
}

/// A query that looks at itself.
struct Rerun {
    name: String,
    /// With empty tables for its inputs.
    plan: LogicalPlan,
    state: SessionState,
}

impl fmt::Debug for Rerun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rerun({})", self.name)
    }
}

#[async_trait]
impl Batch for Rerun {
    fn describe(&self) -> String {
        format!("WITH RECURSIVE {}", self.name)
    }

    async fn run(
        &self,
        inputs: Vec<RecordBatch>,
    ) -> millstream_engine::error::Result<BoxStream<'static, millstream_engine::error::Result<RecordBatch>>> {
        let plan = over_inputs(&self.plan, &inputs)?;
        let plan = self.state.create_physical_plan(&plan).await?;
        let rows = execute_stream(plan, Arc::new(TaskContext::from(&self.state)))?;
        Ok(rows.map_err(Into::into).boxed())
    }
}
