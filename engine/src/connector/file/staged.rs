//! What the file sink notes in the manifest of a file that it has staged.

use serde::{Deserialize, Serialize};

/// What a staged file is, for the manifest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StagedFile {
    /// Tells the runs of all jobs apart that ever wrote to this place, whose checkpoints have equal numbers.
    pub(super) run: String,
    pub(super) checkpoint: u64,
    pub(super) task: usize,
    /// Its name in the staging folder, and in the folder once it is committed.
    pub(super) name: String,
}
