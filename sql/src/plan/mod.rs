//! Planning: a checked statement becomes DataFusion's logical plan, with tables found by our own resolver
//! and windows as nodes of our own.
//!
//! ```text
//! statement ─ context ─► logical plan ─ exact ─ optimize ─► plan for the dataflow graph, or for DataFusion's batch
//!                │                         │        └ simplify: rules that hold for NULL and NaN too
//!                │                         └ what expressions mean here
//!                ├ windows: TUMBLE, HOP, CUMULATE, SESSION as `WindowAssign`
//!                ├ headers: what columns are called
//!                └ numbers: exact literals, the types in which numbers meet
//! ```

mod as_of;
mod as_of_now;
mod bound;
mod context;
mod copies;
mod exact;
mod first_rows;
mod grouping_sets;
mod harden;
mod headers;
mod lateral;
mod limits;
pub mod lower;
mod missing;
mod not_in;
mod numbers;
mod one_row;
mod over;
mod parameters;
mod pauses;
mod reworded;
mod risk;
mod row_functions;
mod rules;
mod same_types;
mod series;
mod session_exec;
mod simplify;
mod stay_put;
mod syntax;
mod ties;
mod unknown;
mod wanted;
mod window_call;
mod window_exec;
mod window_rows;
pub mod windows;
mod zones;

#[cfg(test)]
mod tests;

pub use crate::semantics::Semantics;
pub(crate) use bound::refuse_unsteady;
pub(crate) use context::named_plan;
pub use context::{
    PlanContext, StreamTypes, TableResolver, expression, optimize, query_plan, result_plan, session_state,
    session_state_of, statement_plan, streaming_plan,
};
pub use headers::{Headed, told_apart};
pub(crate) use numbers::{assign_columns, assign_last, lost};
pub(crate) use parameters::{bind_parameters, count_parameters, parameter_types};
pub use pauses::TURNS;
pub(crate) use pauses::with_pauses;
pub use window_call::WindowFunctions;
pub use window_exec::{WindowAssignExec, WindowAssigner, WindowPlanner};
