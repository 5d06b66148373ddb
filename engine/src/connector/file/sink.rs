//! stub
use crate::connector::{Sink, registry::SinkRequest};
use crate::error::Result;
use std::sync::Arc;
pub(super) fn open(_r: SinkRequest) -> Result<Arc<dyn Sink>> {
    Err(crate::Error::internal(""))
}
