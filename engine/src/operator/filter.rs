//! `WHERE`, `HAVING`: keeps the rows for which the predicate is true.
//!
//! Stateless; weights pass unchanged, so a retraction is kept exactly when its insertion was. A row for which
//! the predicate has no value is put aside, and so is its retraction.
//!
//! ```text
//! WHERE v > 1     +(1) +(2) -(3)  ->  +(2) -(3)
//! ```

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::SchemaRef;
use datafusion_physical_expr::PhysicalExpr;

use super::{BuildContext, Operator, OperatorSpec, Output};
use crate::changes::Changes;
use crate::epoch::EpochMark;
use crate::error::Result;
use crate::expr::evaluate;

/// The description.
#[derive(Clone, Debug)]
pub struct Filter {
    /// A boolean expression over the input.
    pub predicate: Arc<dyn PhysicalExpr>,
    /// The schema of the output.
    pub schema: SchemaRef,
}

impl OperatorSpec for Filter {
    fn name(&self) -> &'static str {
        "filter"
    }

    fn describe(&self) -> String {
        self.predicate.to_string()
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn place_of(&self, _port: usize, column: usize) -> Option<usize> {
        Some(column)
    }

    fn build(&self, _context: &mut BuildContext<'_>) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Running(self.clone())))
    }
}

struct Running(Filter);

impl Operator for Running {
    fn on_changes(&mut self, _port: usize, changes: Changes, out: &mut Output) -> Result<()> {
        let (mut mask, failures) = evaluate(&self.0.predicate, changes.rows())?;
        if let Some(good) = failures.good(changes.num_rows()) {
            mask = arrow::compute::filter(&mask, &good)?;
        }
        let changes = out.put_aside(changes, &failures)?;
        let mask = mask.as_boolean();
        match mask.true_count() {
            0 => {}
            n if n == changes.num_rows() => out.emit(changes),
            _ => out.emit(changes.filter(mask)?),
        }
        Ok(())
    }

    fn on_epoch(&mut self, _mark: &EpochMark, _out: &mut Output) -> Result<()> {
        Ok(())
    }
}
