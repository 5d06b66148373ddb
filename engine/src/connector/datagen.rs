//! to be written
use std::sync::Arc;
use super::registry::*;
use super::*;
pub(crate) fn open_source(_r: SourceRequest) -> Result<Arc<dyn Source>> { Err(crate::Error::internal("")) }
