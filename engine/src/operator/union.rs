//! `UNION ALL`: the changes of all inputs, under one schema.
//!
//! Stateless; the runtime aligns the epochs of the inputs.

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;

use super::{BuildContext, Operator, OperatorSpec, Output};
use crate::changes::Changes;
use crate::epoch::EpochMark;
use crate::error::Result;

/// The description.
#[derive(Clone, Debug)]
pub struct Union {
    /// The schema of the output; inputs have its types, maybe under other names.
    pub schema: SchemaRef,
}

impl OperatorSpec for Union {
    fn name(&self) -> &'static str {
        "union all"
    }

    fn describe(&self) -> String {
        String::new()
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

struct Running(Union);

impl Operator for Running {
    fn on_changes(&mut self, _port: usize, changes: Changes, out: &mut Output) -> Result<()> {
        let options = RecordBatchOptions::new().with_row_count(Some(changes.num_rows()));
        let columns = changes.rows().columns().to_vec();
        let rows = RecordBatch::try_new_with_options(self.0.schema.clone(), columns, &options)?;
        out.emit(changes.with_rows(rows));
        Ok(())
    }

    fn on_epoch(&mut self, _mark: &EpochMark, _out: &mut Output) -> Result<()> {
        Ok(())
    }
}
