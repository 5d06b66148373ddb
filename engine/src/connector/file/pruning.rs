//! Files that a query need not read for what the names of their folders say.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::utils::collect_columns;

use super::hive::{Key, constant};
use crate::format::convert::find_field;

/// Conditions over the columns of a stream; a row must meet all those of one reader.
#[derive(Clone, Debug)]
pub(crate) struct Pruning {
    pub(crate) schema: SchemaRef,
    /// Columns that no folder names: they are metadata.
    pub(crate) metadata: BTreeSet<usize>,
    pub(crate) readers: Vec<Vec<Arc<dyn PhysicalExpr>>>,
}

impl Pruning {
    /// Whether a file whose folders say `keys` may have such rows.
    pub(crate) fn keeps(&self, keys: &[Key]) -> bool {
        let of_folder = |i: &usize| !self.metadata.contains(i);
        let known = |(name, _): &Key| find_field(self.schema.fields(), name).filter(of_folder);
        if keys.is_empty() || keys.iter().all(|key| known(key).is_none()) {
            return true;
        }
        let mut columns: Vec<ArrayRef> =
            self.schema.fields().iter().map(|f| new_null_array(f.data_type(), 1)).collect();
        let mut places = vec![];
        for key in keys {
            let Some(i) = known(key) else { continue };
            // What does not fit is told of when the file is read.
            let Ok(value) = constant(self.schema.field(i), key.1.as_deref()) else { return true };
            columns[i] = value;
            places.push(i);
        }
        let loose = self.schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true));
        let loose = Arc::new(Schema::new(loose.collect::<Vec<_>>()));
        let Ok(row) = RecordBatch::try_new(loose, columns) else { return true };
        let is_decided = |f: &&Arc<dyn PhysicalExpr>| {
            let columns = collect_columns(f);
            !columns.is_empty() && columns.iter().all(|c| places.contains(&c.index()))
        };
        // A condition that fails is told of when it meets a row.
        let may_hold = |f: &Arc<dyn PhysicalExpr>| {
            let value = f.evaluate(&row).and_then(|v| v.into_array(1));
            value.map_or(true, |value| !is_false(&value))
        };
        self.readers.iter().any(|filters| filters.iter().filter(is_decided).all(may_hold))
    }
}

/// Whether a condition of this value keeps no row.
fn is_false(value: &ArrayRef) -> bool {
    value.data_type() == &DataType::Boolean && (value.is_null(0) || !value.as_boolean().value(0))
}
