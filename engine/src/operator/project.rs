//! `SELECT` expressions: computes new columns, row by row.
//!
//! Stateless; weights pass unchanged. A row for which an expression has no value is put aside. Expressions must give the same value for the same row each time, or
//! a retraction would not meet its insertion: the plan refuses volatile ones over changing input.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::filter;
use arrow::datatypes::SchemaRef;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Column;

use super::{BuildContext, Operator, OperatorSpec, Output};
use crate::changes::Changes;
use crate::epoch::EpochMark;
use crate::error::Result;
use crate::expr::{Failures, evaluate};

/// The description.
#[derive(Clone, Debug)]
pub struct Project {
    /// One expression over the input per output column.
    pub expressions: Vec<Arc<dyn PhysicalExpr>>,
    /// The schema of the output.
    pub schema: SchemaRef,
}

impl OperatorSpec for Project {
    fn name(&self) -> &'static str {
        "project"
    }

    fn describe(&self) -> String {
        let column = |(e, f): (&Arc<dyn PhysicalExpr>, &Arc<arrow::datatypes::Field>)| {
            let text = e.to_string();
            let plain = text.split('@').next() == Some(f.name());
            if plain { f.name().clone() } else { format!("{text} AS {}", f.name()) }
        };
        self.expressions.iter().zip(self.schema.fields()).map(column).collect::<Vec<_>>().join(", ")
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn place_of(&self, _port: usize, column: usize) -> Option<usize> {
        self.expressions.iter().position(|e| e.downcast_ref::<Column>().is_some_and(|c| c.index() == column))
    }

    fn build(&self, _context: &mut BuildContext<'_>) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Running(self.clone())))
    }
}

struct Running(Project);

impl Operator for Running {
    fn on_changes(&mut self, _port: usize, changes: Changes, out: &mut Output) -> Result<()> {
        let mut columns = Vec::with_capacity(self.0.expressions.len());
        let mut failures = Failures::default();
        for e in &self.0.expressions {
            let (values, failed) = evaluate(e, changes.rows())?;
            columns.push(values);
            failures.merge(failed);
        }
        let good = failures.good(changes.num_rows());
        let changes = out.put_aside(changes, &failures)?;
        if let Some(good) = good {
            columns = columns.iter().map(|c| filter(c, &good)).collect::<Result<_, _>>()?;
        }
        let options = RecordBatchOptions::new().with_row_count(Some(changes.num_rows()));
        let batch = RecordBatch::try_new_with_options(self.0.schema.clone(), columns, &options)?;
        out.emit(changes.with_rows(batch));
        Ok(())
    }

    fn on_epoch(&mut self, _mark: &EpochMark, _out: &mut Output) -> Result<()> {
        Ok(())
    }
}
