//! What other tools see of a stream: a folder with the files that count, and a list of them.
//!
//! The folder has hard links. One more file is one more link; where files go, or several come at once, a new
//! folder is made beside it and the two change places in one step. So whoever lists the folder sees what was
//! committed at one moment. The folder that was there stays as it is for a while, since somebody may be in the
//! middle of listing it.
//!
//! The list names the files themselves. They stay for longer after they were replaced, so whoever goes by it
//! finds all of them.
//!
//! In a bucket there are no links, and no step that changes many names: see `copied.rs`.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;

use super::committed::{Committed, FileEntry};
use super::copied::Copied;
use super::layout::{checkpoint_of, files_of_job, list_path, shown_folder};
use crate::error::{Error, Result};
use crate::store::{Store, blocking};

/// Where a folder has more files than this, listing it takes more than a step, and adding to it is not made one.
const MANY: usize = 500;
/// How long a folder that was replaced is kept.
const FOLDER_GRACE: Duration = Duration::from_secs(10);

/// The list of live files, for other tools.
#[derive(Serialize)]
struct List<'a> {
    stream: &'a str,
    /// The checkpoint that committed this, and the last epoch in it.
    checkpoint: u64,
    epoch: u64,
    rows: u64,
    /// Whether the result is complete.
    complete: bool,
    files: Vec<Listed>,
}

#[derive(Serialize)]
struct Listed {
    /// From the store's folder.
    path: String,
    rows: u64,
    bytes: u64,
}

/// The folder and the list of one stream.
pub(super) struct Shown {
    store: Store,
    stream: String,
    job: String,
    folder: Arc<Mutex<Folder>>,
    /// In its place, where the store is a bucket.
    copied: tokio::sync::Mutex<Copied>,
}

#[derive(Default)]
struct Folder {
    /// The names in it that are ours, once it has been looked at.
    names: Option<BTreeSet<String>>,
    /// Folders that were replaced, and when.
    replaced: Vec<(PathBuf, Instant)>,
    /// How many have been made.
    made: usize,
}

/// Where everything lies.
struct Places {
    folder: PathBuf,
    files: PathBuf,
    job: PathBuf,
    list: PathBuf,
}

impl Shown {
    /// Of `stream`, which `job` writes.
    pub(super) fn new(store: Store, stream: &str, job: &str) -> Self {
        let (folder, copied) = (Arc::default(), Default::default());
        Shown { store, stream: stream.to_owned(), job: job.to_owned(), folder, copied }
    }

    /// Shows the files of `committed` and no others.
    pub(super) async fn show(&self, committed: &Committed) -> Result<()> {
        let list = self.list(committed)?;
        self.store.may_write().await?;
        let Some(root) = self.store.root() else {
            let (from, to) = (files_of_job(&self.job), shown_folder(&self.stream));
            self.copied.lock().await.show(&self.store, &from, &to, committed).await?;
            return self.store.put(&list_path(&self.stream), Bytes::from(list)).await;
        };
        let places = Places {
            folder: root.join(shown_folder(&self.stream)),
            files: root.join(files_of_job(&self.job)),
            job: root.join("jobs").join(&self.job),
            list: root.join(list_path(&self.stream)),
        };
        let (folder, files) = (self.folder.clone(), committed.files.clone());
        let shown = blocking(move || {
            let mut folder = folder.lock();
            // After a failure nothing is known of it.
            folder.show(&places, &files).inspect_err(|_| folder.names = None)?;
            replace(&places.list, &list)
        });
        shown.await.map_err(|e| Error::from(e).context(format!("cannot show the files of stream \"{}\"", self.stream)))
    }

    fn list(&self, committed: &Committed) -> Result<Vec<u8>> {
        let folder = files_of_job(&self.job);
        let listed = |f: &FileEntry| Listed { path: format!("{folder}/{}", f.name), rows: f.rows, bytes: f.bytes };
        let list = List {
            stream: &self.stream,
            checkpoint: committed.checkpoint,
            epoch: committed.epoch,
            rows: committed.files.iter().map(|f| f.rows).sum(),
            complete: committed.end,
            files: committed.files.iter().map(listed).collect(),
        };
        Ok(serde_json::to_vec(&list)?)
    }
}

impl Folder {
    fn show(&mut self, places: &Places, files: &[FileEntry]) -> io::Result<()> {
        for (old, at) in std::mem::take(&mut self.replaced) {
            if at.elapsed() >= FOLDER_GRACE {
                std::fs::remove_dir_all(old)?;
            } else {
                self.replaced.push((old, at));
            }
        }
        let names = match &mut self.names {
            Some(names) => names,
            unknown => unknown.insert(look(places, files)?),
        };
        let wanted: BTreeSet<String> = files.iter().map(|f| f.name.clone()).collect();
        let new: Vec<&String> = wanted.difference(names).collect();
        match new[..] {
            _ if !names.is_subset(&wanted) => {}
            [] => return std::fs::create_dir_all(&places.folder),
            [one] => {
                std::fs::create_dir_all(&places.folder)?;
                std::fs::hard_link(places.files.join(one), places.folder.join(one))?;
                names.insert(one.clone());
                return Ok(());
            }
            _ => {}
        }
        if names.is_subset(&wanted) && names.len() > MANY {
            in_place(places, names, &wanted)?;
            self.names = Some(wanted);
            return Ok(());
        }
        let made = places.job.join(format!("shown-{}", self.made));
        self.made += 1;
        std::fs::create_dir(&made)?;
        for name in &wanted {
            std::fs::hard_link(places.files.join(name), made.join(name))?;
        }
        if let Err(e) = exchange(&made, &places.folder) {
            // Where folders cannot be moved, a reader may see it half done.
            tracing::warn!(folder = %places.folder.display(), error = %e, "the folder cannot be replaced in one step");
            std::fs::remove_dir_all(&made)?;
            in_place(places, names, &wanted)?;
            self.names = Some(wanted);
            return Ok(());
        }
        keep_foreign(&made, &places.folder)?;
        self.names = Some(wanted);
        if made.exists() {
            self.replaced.push((made, Instant::now()));
        }
        Ok(())
    }
}

/// The names in the folder that are ours. Nothing but what `files` says counts as being there: where a file is
/// another than the one of its name, it gets a name that is not wanted.
fn look(places: &Places, files: &[FileEntry]) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in entries(&places.job)? {
        if entry.file_name().to_str().is_some_and(|n| n.starts_with("shown-")) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    for entry in entries(&places.folder)? {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|n| checkpoint_of(n).is_some()) else { continue };
        let bytes = entry.metadata()?.len();
        let other = files.iter().any(|f| f.name == name && f.bytes != bytes);
        names.insert(if other { format!("{name} of before") } else { name.to_owned() });
    }
    Ok(names)
}

fn entries(folder: &Path) -> io::Result<Vec<std::fs::DirEntry>> {
    match std::fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(vec![]),
        entries => entries?.collect(),
    }
}

/// Lets folder `new` take the place of `folder`, which then has the place of `new` if it was there.
fn exchange(new: &Path, folder: &Path) -> io::Result<()> {
    if !folder.exists() {
        if let Some(above) = folder.parent() {
            std::fs::create_dir_all(above)?;
        }
        return std::fs::rename(new, folder);
    }
    exchange_at_once(new, folder).or_else(|_| exchange_in_steps(new, folder))
}

/// The same where the system cannot do it at once. In between there is no folder: who looks then gets an error, no
/// wrong answer.
fn exchange_in_steps(new: &Path, folder: &Path) -> io::Result<()> {
    let aside = new.with_extension("aside");
    std::fs::rename(folder, &aside)?;
    if let Err(e) = std::fs::rename(new, folder) {
        std::fs::rename(&aside, folder)?;
        return Err(e);
    }
    std::fs::rename(&aside, new)
}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "macos"))]
fn exchange_at_once(a: &Path, b: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "macos")))]
fn exchange_at_once(_a: &Path, _b: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Makes of the folder what it should be, one file after the other.
fn in_place(places: &Places, names: &BTreeSet<String>, wanted: &BTreeSet<String>) -> io::Result<()> {
    for name in names.difference(wanted) {
        let name = name.strip_suffix(" of before").unwrap_or(name);
        match std::fs::remove_file(places.folder.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    for name in wanted.difference(names) {
        std::fs::hard_link(places.files.join(name), places.folder.join(name))?;
    }
    Ok(())
}

/// What somebody else has put into the folder stays in it.
fn keep_foreign(old: &Path, folder: &Path) -> io::Result<()> {
    for entry in entries(old)? {
        let name = entry.file_name();
        if name.to_str().and_then(checkpoint_of).is_none() {
            std::fs::rename(entry.path(), folder.join(&name))?;
        }
    }
    Ok(())
}

/// Writes a file anew: who opens it sees it as it was or as it is.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push("#1");
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&new, bytes)?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            entries(folder).expect("a folder").iter().map(|e| e.file_name().into_string().expect("text")).collect();
        names.sort();
        names
    }

    #[test]
    fn folders_change_places() {
        for exchange in [exchange_at_once, exchange_in_steps] {
            let at = tempfile::tempdir().expect("a folder");
            let (new, folder) = (at.path().join("new"), at.path().join("folder"));
            for (folder, name) in [(&new, "n"), (&folder, "f")] {
                std::fs::create_dir(folder).expect("makes");
                std::fs::write(folder.join(name), name).expect("writes");
            }
            match exchange(&new, &folder) {
                Err(e) => assert_eq!(e.kind(), io::ErrorKind::Unsupported),
                Ok(()) => assert_eq!((names(&new), names(&folder)), (vec!["f".to_owned()], vec!["n".to_owned()])),
            }
            assert_eq!(names(at.path()), ["folder", "new"]);
        }
    }

    #[test]
    fn a_folder_that_cannot_be_moved_is_changed_where_it_is() {
        let at = tempfile::tempdir().expect("a folder");
        let place = |name: &str| at.path().join(name);
        let places = Places { folder: place("folder"), files: place("files"), job: place("job"), list: place("list") };
        std::fs::create_dir(&places.folder).expect("makes");
        std::fs::create_dir(&places.files).expect("makes");
        for name in ["a", "b", "c", "d"] {
            std::fs::write(places.files.join(name), name).expect("writes");
        }
        for name in ["a", "b", "c"] {
            std::fs::write(places.folder.join(name), "of before").expect("writes");
        }
        let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<String>>();
        in_place(&places, &set(&["a", "b", "c of before"]), &set(&["b", "c", "d"])).expect("changes");
        assert_eq!(names(&places.folder), ["b", "c", "d"]);
        assert_eq!(std::fs::read(places.folder.join("c")).expect("is there"), b"c");
    }
}
