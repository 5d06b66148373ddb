//! What a store in a folder does on the disk: names that appear at once, and waiting until they are on it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

/// Who may read a file of a folder.
#[derive(Clone, Copy, Debug)]
pub(super) enum Readers {
    /// Who owns it.
    Owner,
    /// As the system says.
    Others,
}

/// What a file of a folder outlasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Safety {
    /// A loss of power.
    Lasting,
    /// The process that wrote it.
    Fleeting,
}

impl Readers {
    fn create_new(self, name: &OsStr) -> io::Result<File> {
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        if matches!(self, Readers::Owner) {
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        }
        options.open(name)
    }
}

/// Runs `work` on a thread that may wait for the disk.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Waits until the name of `file`, and those of the folders up to `root` that are not known to be `settled`, are on the disk.
pub(super) fn settle_name(file: &Path, root: &Path, settled: &Mutex<BTreeSet<PathBuf>>) -> io::Result<()> {
    let mut new = vec![];
    for folder in file.ancestors().skip(1).take_while(|f| f.starts_with(root)) {
        File::open(folder)?.sync_all()?;
        if folder == root || settled.lock().contains(folder) {
            break;
        }
        new.push(folder.to_owned());
    }
    settled.lock().extend(new);
    Ok(())
}

/// Writes a file under a name that readers of the store pass over, and then links it to its own.
pub(super) fn create_file(readers: Readers, safety: Safety, path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let (staged, mut file) = (1..)
        .find_map(|n| {
            let mut name = path.as_os_str().to_owned();
            name.push(format!("#{n}"));
            match readers.create_new(&name) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => None,
                made => Some(made.map(|file| (name, file))),
            }
        })
        .ok_or_else(|| io::Error::other("no name is free"))??;
    let sync = |file: File| if safety == Safety::Lasting { file.sync_all() } else { Ok(()) };
    let linked = file.write_all(bytes).and_then(|()| sync(file)).and_then(|()| std::fs::hard_link(&staged, path));
    let removed = std::fs::remove_file(&staged);
    linked.and(removed)
}

/// Removes names that end in `#` and a number: those of writes that were not finished.
pub(super) fn sweep_folder(folder: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let staged =
            |n: &str| n.rsplit_once('#').is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        if entry.file_type()?.is_dir() {
            sweep_folder(&entry.path())?;
        } else if name.to_str().is_some_and(staged) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
