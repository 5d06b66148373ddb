//! The last resort: a query that is run anew, in batch, over all rows of its inputs.
//!
//! At the end of an epoch in which its inputs have changed the query runs over what they are now, and what differs from its
//! last answer is said. That is right for whatever runs in batch, and takes as long as it takes there: no operator runs this way
//! that has another. It is the only one that executes a plan of DataFusion's.
//!
//! ```text
//! WITH RECURSIVE reach(id) AS (SELECT 1 UNION SELECT e.to_id FROM edges e JOIN reach r ON e.from_id = r.id)
//! edges: +(1, 2) +(2, 3)     ->  +(1) +(2) +(3)
//! edges: -(2, 3)             ->  -(3)
//! ```
//! Keeps the rows of its inputs and its last answer, unbounded.

mod running;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::stream::BoxStream;

use super::{BuildContext, Operator, OperatorSpec, StateBound};
use crate::error::Result;
use crate::format::sql_name;
use crate::spread::Needed;

/// A query that can be run in batch.
#[async_trait]
pub trait Batch: fmt::Debug + Send + Sync {
    /// What it is, in a few words.
    fn describe(&self) -> String;

    /// Runs it over the rows of its inputs; the answer may come in pieces.
    async fn run(&self, inputs: Vec<RecordBatch>) -> Result<BoxStream<'static, Result<RecordBatch>>>;
}

/// The description.
#[derive(Clone, Debug)]
pub struct Recompute {
    /// The schemas of the inputs.
    pub inputs: Vec<SchemaRef>,
    /// What is run over them.
    pub batch: Arc<dyn Batch>,
    /// The schema of the answer.
    pub schema: SchemaRef,
}

impl OperatorSpec for Recompute {
    fn name(&self) -> &'static str {
        "recompute"
    }

    fn describe(&self) -> String {
        format!("{}, over all rows each time", self.batch.describe())
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn state_bound(&self) -> StateBound {
        StateBound::Unbounded
    }

    fn fingerprint(&self) -> Option<String> {
        let columns = |schema: &SchemaRef| {
            let columns: Vec<_> =
                schema.fields().iter().map(|f| format!("{} {}", f.name(), sql_name(f.data_type()))).collect();
            format!("({})", columns.join(", "))
        };
        let inputs: Vec<String> = self.inputs.iter().map(columns).collect();
        Some(format!("rows of {}, and of {}", inputs.join(", "), columns(&self.schema)))
    }

    fn needs(&self, _port: usize) -> Needed {
        Needed::Single
    }

    fn build(&self, context: &mut BuildContext<'_>) -> Result<Box<dyn Operator>> {
        Ok(Box::new(running::Running::new(Arc::new(self.clone()), context)?))
    }
}
