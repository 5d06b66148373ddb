//! State of operators: opened through [`StateRegistry`], so that none can be left out of a checkpoint.

/// Opens state for the operators of one task.
#[derive(Default)]
pub struct StateRegistry {}
