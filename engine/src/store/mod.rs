//! The one place of durable truth: a folder or a part of a bucket, with create-if-absent as the only atomic step.
//!
//! In a folder, what a process does is on the disk when it has been done. A bucket is asked over a network (`remote.rs`): what may
//! pass is tried again (`patience.rs`), and of a write whose answer was lost, what is there says whether it was done.

mod folder;
mod lease;
mod objects;
mod patience;
mod place;
mod remote;
mod scratch;

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use parking_lot::Mutex;

pub(crate) use folder::blocking;
pub use lease::{
    Candidate, Found, Held, LENGTH as LEASE, LOCK, Lease, NodeTerm, Term, check_alone, in_use, lock, taken,
};
pub(crate) use objects::{Object, Objects};
pub use objects::{ObjectsUrl, is_url};
pub use patience::Away;
pub use place::{Bucket, Place};
pub(crate) use remote::Fetched;

use crate::error::{Error, ErrorKind, Result};
use folder::{Readers, Safety, create_file, settle_name, sweep_folder};
use lease::Fence;
use patience::Patience;
use remote::Remote;

/// `name` as a folder's name on any file system and object store: all but ASCII letters, digits, `_`, `-`, and
/// `.` and space within becomes `+` and two hexadecimal digits a byte.
pub fn folder_name(name: &str) -> String {
    let last = name.len().saturating_sub(1);
    let mut folder = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => folder.push(char::from(byte)),
            b'.' | b' ' if at > 0 && at < last => folder.push(char::from(byte)),
            _ => folder.push_str(&format!("+{byte:02x}")),
        }
    }
    folder
}

/// A file of the store.
pub(crate) struct StoredFile {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// When it was last changed.
    pub(crate) changed: SystemTime,
}

/// A store.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    root: Option<PathBuf>,
    /// Folders whose names are known to be on the disk, as are those above them.
    settled: Arc<Mutex<BTreeSet<PathBuf>>>,
    /// Where it is no folder.
    remote: Option<Arc<Remote>>,
    patience: Patience,
    /// What keeps this process from writing once another may.
    fence: Option<Fence>,
}

impl Store {
    /// The store in the folder `root`, which is made when it does not exist.
    pub fn open(root: &FsPath) -> Result<Self> {
        let cannot = |e: std::io::Error| {
            Error::from(e)
                .context(format!("cannot use \"{}\" as a store", root.display()))
                .with_hint("Choose another folder with --store, or make this one writable.")
        };
        std::fs::create_dir_all(root).map_err(cannot)?;
        let root = root.canonicalize().map_err(cannot)?;
        let objects = object_store::local::LocalFileSystem::new_with_prefix(&root)?.with_automatic_cleanup(false);
        let (settled, patience) = (Arc::default(), Patience::default());
        Ok(Store { objects: Arc::new(objects), root: Some(root), settled, remote: None, patience, fence: None })
    }

    /// A store over any object store.
    pub fn over(objects: Arc<dyn ObjectStore>) -> Self {
        Store::remote(objects, Remote::default())
    }

    fn remote(objects: Arc<dyn ObjectStore>, remote: Remote) -> Self {
        let (settled, patience) = (Arc::default(), Patience::default());
        Store { objects, root: None, settled, remote: Some(Arc::new(remote)), patience, fence: None }
    }

    /// The folder, where the store is one.
    pub fn root(&self) -> Option<&FsPath> {
        self.root.as_deref()
    }

    /// Where `path` lies, for messages and for readers of files.
    pub fn locate(&self, path: &str) -> String {
        match (&self.root, &self.remote) {
            (Some(root), _) => root.join(path).display().to_string(),
            (None, Some(remote)) => remote.locate(path),
            (None, None) => path.to_owned(),
        }
    }

    /// Writes `bytes` at `path`, replacing what is there. They outlast a loss of power when this returns.
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<()> {
        self.put_parts(path, vec![bytes]).await
    }

    /// The same for bytes in parts, which are not put together for it.
    pub async fn put_parts(&self, path: &str, parts: Vec<Bytes>) -> Result<()> {
        self.may_write().await?;
        if self.remote.is_some() {
            return self.upload(path, &parts).await.map_err(|e| self.failed("write", path, e));
        }
        let payload = PutPayload::from_iter(parts.iter().cloned());
        if let Err(e) = self.objects.put(&Path::from(path), payload).await
            && !self.has(path, &Bytes::from(parts.concat())).await
        {
            return Err(self.failed("write", path, e));
        }
        self.settle(path, true).await
    }

    /// Writes `bytes`, which nobody else writes there, at `path` unless something is there: then the error's kind is
    /// `Exists`. All or nothing of them outlasts a loss of power, and all when this has returned.
    pub async fn create(&self, path: &str, bytes: Bytes) -> Result<()> {
        self.create_for(Readers::Others, path, bytes).await
    }

    /// As [`Store::create`]; in a folder the file is for the eyes of who owns it only.
    pub async fn create_private(&self, path: &str, bytes: Bytes) -> Result<()> {
        self.create_for(Readers::Owner, path, bytes).await
    }

    /// As [`Store::create_private`], for what need not outlast a loss of power.
    pub(crate) async fn create_fleeting(&self, path: &str, bytes: Bytes) -> Result<()> {
        self.create_as(Readers::Owner, Safety::Fleeting, path, bytes).await
    }

    async fn create_for(&self, readers: Readers, path: &str, bytes: Bytes) -> Result<()> {
        self.may_write().await?;
        self.create_as(readers, Safety::Lasting, path, bytes).await?;
        self.settle(path, false).await
    }

    async fn create_as(&self, readers: Readers, safety: Safety, path: &str, bytes: Bytes) -> Result<()> {
        let created = match &self.root {
            None => self.create_object(path, &bytes).await,
            Some(root) => {
                let (path_in, bytes) = (root.join(path), bytes.clone());
                blocking(move || create_file(readers, safety, &path_in, &bytes)).await.map_err(|e| match e.kind() {
                    io::ErrorKind::AlreadyExists => Error::new(ErrorKind::Exists, format!("\"{path}\" exists already")),
                    _ => self.failed("write", path, e),
                })
            }
        };
        match created {
            Err(_) if self.root.is_some() && self.has(path, &bytes).await => Ok(()),
            created => created,
        }
    }

    /// Whether `bytes` are at `path`: the answer to a write may be lost, and the write done all the same.
    async fn has(&self, path: &str, bytes: &Bytes) -> bool {
        self.get(path).await.is_ok_and(|found| found == bytes)
    }

    /// Removes what writes that were cut off by the end of a process left behind. Nobody else may be writing.
    pub async fn sweep(&self) -> Result<()> {
        let Some(root) = self.root.clone() else { return Ok(()) };
        let swept = blocking(move || {
            ["catalog", "jobs", "streams", "live", "audit"].iter().try_for_each(|f| sweep_folder(&root.join(f)))
        });
        swept.await.map_err(|e| self.failed("clean", "", e))
    }

    /// Reads `path`; the error's kind is `NotFound` when there is nothing.
    pub async fn get(&self, path: &str) -> Result<Bytes> {
        let at = Path::from(path);
        let got = self.ask(|| async { self.objects.get(&at).await?.bytes().await }).await;
        got.map_err(|e| self.failed("read", path, e))
    }

    /// The bytes at `path`; the error's kind is `NotFound` when there is nothing.
    pub async fn size(&self, path: &str) -> Result<u64> {
        let at = Path::from(path);
        let meta = self.ask(|| self.objects.head(&at)).await.map_err(|e| self.failed("find", path, e))?;
        Ok(meta.size)
    }

    /// The names directly below `folder`, sorted.
    pub async fn list(&self, folder: &str) -> Result<Vec<String>> {
        if self.remote.is_some() {
            let mut names: Vec<String> = self.files(folder).await?.into_iter().map(|file| file.name).collect();
            names.sort();
            return Ok(names);
        }
        let prefix = Path::from(folder);
        let metas: Vec<_> =
            self.objects.list(Some(&prefix)).try_collect().await.map_err(|e| self.failed("list", folder, e))?;
        let name = |m: object_store::ObjectMeta| {
            let mut parts = m.location.prefix_match(&prefix)?;
            let first = parts.next()?.as_ref().to_owned();
            parts.next().is_none().then_some(first)
        };
        let mut names: Vec<String> = metas.into_iter().filter_map(name).collect();
        names.sort();
        Ok(names)
    }

    /// The names of the folders directly below `folder`, sorted.
    pub async fn folders(&self, folder: &str) -> Result<Vec<String>> {
        let prefix = Path::from(folder);
        let listed = self.ask(|| self.objects.list_with_delimiter(Some(&prefix))).await;
        let listed = listed.map_err(|e| self.failed("list", folder, e))?;
        let mut names: Vec<String> =
            listed.common_prefixes.iter().filter_map(|p| p.filename().map(str::to_owned)).collect();
        names.sort();
        Ok(names)
    }

    /// Deletes `path`; that there is nothing is no error.
    pub async fn delete(&self, path: &str) -> Result<()> {
        self.may_write().await?;
        let at = Path::from(path);
        match self.ask(|| self.objects.delete(&at)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(self.failed("delete", path, e)),
        }
    }

    /// Deletes all of `paths`.
    pub async fn delete_all(&self, paths: Vec<String>) -> Result<()> {
        if self.remote.is_some() {
            self.may_write().await?;
            return self.delete_objects(paths).await;
        }
        for path in &paths {
            self.delete(path).await?;
        }
        Ok(())
    }

    /// Deletes everything below `folder`.
    pub async fn delete_folder(&self, folder: &str) -> Result<()> {
        self.may_write().await?;
        let Some(root) = &self.root else { return self.delete_below(folder).await };
        let folder_in = root.join(folder);
        let removed = tokio::fs::remove_dir_all(&folder_in).await;
        self.settled.lock().retain(|settled| !settled.starts_with(&folder_in));
        match removed {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::from(e).context(format!("cannot delete \"{folder}\"")))
            }
            _ => Ok(()),
        }
    }

    /// Gives the file at `from` the name `to` as well; that it has it already is no error. In a bucket it is a copy.
    pub(crate) async fn link(&self, from: &str, to: &str) -> Result<()> {
        self.may_write().await?;
        let Some(root) = &self.root else {
            let (old, new) = (Path::from(from), Path::from(to));
            let copied = self.ask(|| self.objects.copy(&old, &new)).await;
            return copied.map_err(|e| self.failed("copy", from, e));
        };
        let (old, new) = (root.join(from), root.join(to));
        let linked = blocking(move || {
            if let Some(folder) = new.parent() {
                std::fs::create_dir_all(folder)?;
            }
            match std::fs::hard_link(&old, &new) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                other => other,
            }
        });
        linked.await.map_err(|e| self.failed("link", from, e))?;
        self.settle(to, false).await
    }

    /// Sets the time of the last change of `path` to now, where the store is a folder.
    pub(crate) async fn touch(&self, path: &str) -> Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        let file = root.join(path);
        let set = blocking(move || File::options().append(true).open(file)?.set_modified(SystemTime::now()));
        set.await.map_err(|e| self.failed("touch", path, e))
    }

    /// The files directly below `folder`.
    pub(crate) async fn files(&self, folder: &str) -> Result<Vec<StoredFile>> {
        let prefix = Path::from(folder);
        let listed = self.ask(|| self.objects.list_with_delimiter(Some(&prefix))).await;
        let listed = listed.map_err(|e| self.failed("list", folder, e))?;
        let stored = |m: object_store::ObjectMeta| {
            let name = m.location.filename()?.to_owned();
            Some(StoredFile { name, bytes: m.size, changed: m.last_modified.into() })
        };
        Ok(listed.objects.into_iter().filter_map(stored).collect())
    }

    /// Waits until the folders that lead to `path`, and the file's content when `content`, are on the disk.
    pub(crate) async fn settle(&self, path: &str, content: bool) -> Result<()> {
        let Some(root) = self.root.clone() else { return Ok(()) };
        let (file, settled) = (root.join(path), self.settled.clone());
        let done = blocking(move || {
            if content {
                File::open(&file)?.sync_all()?;
            }
            // Only Unix can wait for a folder.
            if cfg!(unix) {
                settle_name(&file, &root, &settled)?;
            }
            Ok(())
        });
        done.await.map_err(|e| self.failed("write", path, e))
    }

    fn failed(&self, what: &str, path: &str, e: impl Into<Error>) -> Error {
        e.into().context(format!("cannot {what} \"{}\"", self.locate(path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_makes_a_folder() {
        assert_eq!(folder_name("per_minute-2 b.c"), "per_minute-2 b.c");
        assert_eq!(folder_name("größe"), "gr+c3+b6+c3+9fe");
        assert_eq!(folder_name(".."), "+2e+2e");
        assert_eq!(folder_name("a/b+\n"), "a+2fb+2b+0a");
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn what_is_private_is_the_owners() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("opens");
        store.create_private("catalog/1", Bytes::from_static(b"one")).await.expect("written");
        store.create("jobs/1", Bytes::from_static(b"one")).await.expect("written");
        let mode = |name| std::fs::metadata(folder.path().join(name)).expect("is there").permissions().mode() & 0o777;
        assert_eq!(mode("catalog/1"), 0o600);
        assert_ne!(mode("jobs/1") & 0o400, 0);
        let second = store.create_private("catalog/1", Bytes::from_static(b"two")).await;
        assert_eq!(second.expect_err("taken").kind(), ErrorKind::Exists);
    }

    #[tokio::test]
    async fn only_one_creates() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("a store");
        store.create("jobs/a/1", Bytes::from_static(b"one")).await.expect("nothing is there");
        let second = store.create("jobs/a/1", Bytes::from_static(b"two")).await;
        assert_eq!(second.expect_err("it is there").kind(), ErrorKind::Exists);
        assert_eq!(store.get("jobs/a/1").await.expect("written"), "one");
        assert_eq!(store.list("jobs/a").await.expect("a list"), ["1"]);
        assert_eq!(store.folders("jobs").await.expect("a list"), ["a"]);
        assert!(store.folders("streams").await.expect("a list").is_empty());
    }

    #[tokio::test]
    async fn what_was_cut_off_is_swept() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("a store");
        store.put("jobs/a/1", Bytes::from_static(b"one")).await.expect("written");
        let cut_off = folder.path().join("jobs/a/2#1");
        std::fs::write(&cut_off, "tw").expect("written");
        assert_eq!(store.list("jobs/a").await.expect("a list"), ["1"]);
        store.create("jobs/a/2", Bytes::from_static(b"two")).await.expect("another name is taken");
        store.sweep().await.expect("swept");
        assert!(!cut_off.exists());
        assert_eq!(store.list("jobs/a").await.expect("a list"), ["1", "2"]);
    }
}
