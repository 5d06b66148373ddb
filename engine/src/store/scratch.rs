//! A folder on this machine for what does not fit into memory, where the store is a bucket.
//!
//! It goes with its process. A lock on a file in it ends with the process however that ends, so another process on the same
//! machine sees at once that it is no more.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

const LOCK: &str = "LOCK";

/// See the module's text.
#[derive(Debug)]
pub(super) struct Scratch {
    folder: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes the folder of the process called `name`.
    pub(super) fn make(name: &str) -> Result<Self> {
        let folder = folder_of(name);
        let made = || {
            fs::create_dir_all(&folder)?;
            let lock = File::create_new(folder.join(LOCK))?;
            lock.lock()?;
            Ok(lock)
        };
        let lock = made().map_err(|e: std::io::Error| {
            Error::from(e)
                .context(format!("cannot make folder \"{}\"", folder.display()))
                .with_hint("Name a folder for temporary files in TMPDIR.")
        })?;
        Ok(Scratch { folder, _lock: lock })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the process called `name` has ended on this machine without a word. Then its folder goes.
    pub(super) fn was_left(name: &str) -> bool {
        let folder = folder_of(name);
        let left = File::options().append(true).open(folder.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok());
        if left {
            // Another one may do the same.
            let _ = fs::remove_dir_all(folder);
        }
        left
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is the system's to clean.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn folder_of(name: &str) -> PathBuf {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    std::env::temp_dir().join(format!("millstream-{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::token;

    #[test]
    fn one_that_was_left_is_told_from_one_in_use() {
        let name = token().expect("random");
        assert!(!Scratch::was_left(&name), "there is none");
        let scratch = Scratch::make(&name).expect("is made");
        let folder = scratch.folder().to_owned();
        assert!(!Scratch::was_left(&name), "in use");
        drop(scratch);
        assert!(!folder.exists());
        fs::create_dir(&folder).expect("makes");
        File::create(folder.join(LOCK)).expect("makes");
        assert!(Scratch::was_left(&name));
        assert!(!folder.exists());
    }
}
