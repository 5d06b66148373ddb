//! Queries of the harness as dataflows.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use millstream_sql::plan::lower::{Lowered, lower};
use millstream_sql::plan::{query_plan, session_state, streaming_plan};
use millstream_sql::statement::{Emit, Query};

use crate::world::World;

/// Plans `query` over the streams of `world`; gives the dataflow and its result's schema.
pub fn plan(
    world: &World,
    query: &Query,
    emit: Option<Emit>,
    parallelism: usize,
) -> millstream_sql::Result<(Lowered, SchemaRef)> {
    let state = session_state();
    let plan = query_plan(&state, world.resolver(), &query.query)?;
    let plan = streaming_plan(&state, plan)?;
    Ok((lower(&state, &plan, emit, parallelism)?, Arc::new(plan.schema().as_arrow().clone())))
}
