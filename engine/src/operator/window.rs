//! Windows.

/// What closes.
#[derive(Clone, Debug)]
pub struct Closer {}
