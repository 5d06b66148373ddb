//! The lock on a file that says that a process has a folder's store open. It ends with the process, however that ends.

use std::fs::File;
use std::path::Path;

use crate::error::{Error, Result};

/// The file.
pub const LOCK: &str = "LOCK";

/// Locks the store in the folder `root`. `None`: another process has it.
///
/// Errors with `Unavailable` where the folder cannot be written to.
pub fn lock(root: &Path) -> Result<Option<File>> {
    let path = root.join(LOCK);
    loop {
        let file = File::options().create(true).append(true).open(&path).map_err(|e| {
            Error::unavailable(format!("cannot write to store \"{}\": {e}", root.display()))
                .with_hint("Choose another folder with --store, or make this one writable.")
        })?;
        if file.try_lock().is_err() {
            return Ok(None);
        }
        // A process that leaves an empty store behind may have removed the file in between.
        if is_at(&file, &path) {
            return Ok(Some(file));
        }
    }
}

/// Whether `path` still leads to `file`.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let id = |of: std::fs::Metadata| (of.dev(), of.ino());
        file.metadata().map(id).ok() == std::fs::metadata(path).map(id).ok()
    }
    #[cfg(not(unix))]
    {
        // an open file cannot be removed here
        let _ = (file, path);
        true
    }
}
