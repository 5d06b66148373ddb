//! COPY TO a Parquet file: types that other readers take for what they are.

use std::sync::Arc;

use datafusion::logical_expr::dml::CopyTo;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, cast};
use millstream_engine::table::{check_storable, file_schema};

use crate::error::Result;

/// `plan` with the types that stored streams have in their files, if it writes Parquet. Errors for types that
/// Parquet does not have.
pub(super) fn for_others(plan: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Copy(copy) = plan else { return Ok(plan) };
    if copy.file_type.get_ext() != "parquet" {
        return Ok(LogicalPlan::Copy(copy));
    }
    let schema = copy.input.schema().clone();
    check_storable(schema.as_arrow()).map_err(|e| e.context(format!("COPY TO '{}'", copy.output_url)))?;
    let stored = file_schema(schema.as_arrow());
    if stored.fields() == schema.fields() {
        return Ok(LogicalPlan::Copy(copy));
    }
    let columns = schema.iter().zip(stored.fields()).map(|((qualifier, field), stored)| {
        let column = Expr::Column((qualifier, field).into());
        match field.data_type() == stored.data_type() {
            true => column,
            false => cast(column, stored.data_type().clone()).alias_qualified(qualifier.cloned(), field.name()),
        }
    });
    let input = Projection::try_new(columns.collect(), copy.input.clone())?;
    Ok(LogicalPlan::Copy(CopyTo { input: Arc::new(LogicalPlan::Projection(input)), ..copy }))
}
