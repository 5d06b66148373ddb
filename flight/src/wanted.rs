//! How a client wants the rows that it gets: by headers that others leave out.

use std::time::Duration;

use tonic::Status;
use tonic::metadata::{MetadataMap, MetadataValue};

use crate::compression::Compression;

/// By which a client asks for a sign of life while there is nothing new: a message without rows and note.
const ALIVE: &str = "x-millstream-alive";
/// How often there is one.
pub(crate) const SIGN: Duration = Duration::from_secs(1);

/// See the module's text.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) compression: Compression,
    /// Signs of life, where changes are followed.
    pub(crate) alive: bool,
}

impl Wanted {
    /// What a request asks for.
    pub(crate) fn of(metadata: &MetadataMap) -> Result<Self, Status> {
        Ok(Wanted { compression: Compression::asked(metadata)?, alive: metadata.contains_key(ALIVE) })
    }

    /// Asks for signs of life.
    pub(crate) fn ask_for_life(metadata: &mut MetadataMap) {
        metadata.insert(ALIVE, MetadataValue::from_static("true"));
    }
}
