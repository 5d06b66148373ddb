//! to be written
use std::sync::Arc;
use arrow::datatypes::SchemaRef;
use super::options::Options;
use super::registry::*;
use super::*;
pub(crate) fn open_source(_r: SourceRequest) -> Result<Arc<dyn Source>> { Err(crate::Error::internal("")) }
pub(crate) fn infer_schema(_o: Options) -> Result<SchemaRef> { Err(crate::Error::internal("")) }
