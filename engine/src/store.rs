//! The one place of durable truth: a folder (or any object store) with create-if-absent as the only
//! atomic step.

use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::error::{Error, ErrorKind, Result};

/// A store.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    root: Option<PathBuf>,
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
        Ok(Store { objects: Arc::new(objects), root: Some(root) })
    }

    /// A store over any object store, for tests.
    pub fn over(objects: Arc<dyn ObjectStore>) -> Self {
        Store { objects, root: None }
    }

    /// The folder, where the store is one.
    pub fn root(&self) -> Option<&FsPath> {
        self.root.as_deref()
    }

    /// The object store below.
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// Where `path` lies, for messages and for readers of files.
    pub fn locate(&self, path: &str) -> String {
        match &self.root {
            Some(root) => root.join(path).display().to_string(),
            None => path.to_owned(),
        }
    }

    /// Writes `bytes` at `path`, replacing what is there.
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<()> {
        self.objects
            .put(&Path::from(path), PutPayload::from(bytes))
            .await
            .map_err(|e| self.failed("write", path, e))?;
        Ok(())
    }

    /// Writes `bytes` at `path` unless something is there: then the error's kind is `Exists`.
    pub async fn create(&self, path: &str, bytes: Bytes) -> Result<()> {
        let options = PutOptions { mode: PutMode::Create, ..Default::default() };
        match self.objects.put_opts(&Path::from(path), PutPayload::from(bytes), options).await {
            Ok(_) => Ok(()),
            Err(object_store::Error::AlreadyExists { .. }) => {
                Err(Error::new(ErrorKind::Exists, format!("\"{path}\" exists already")))
            }
            Err(e) => Err(self.failed("write", path, e)),
        }
    }

    /// Reads `path`; the error's kind is `NotFound` when there is nothing.
    pub async fn get(&self, path: &str) -> Result<Bytes> {
        let got = self.objects.get(&Path::from(path)).await.map_err(|e| self.failed("read", path, e))?;
        got.bytes().await.map_err(|e| self.failed("read", path, e))
    }

    /// The names directly below `folder`, sorted.
    pub async fn list(&self, folder: &str) -> Result<Vec<String>> {
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

    /// Deletes `path`; that there is nothing is no error.
    pub async fn delete(&self, path: &str) -> Result<()> {
        match self.objects.delete(&Path::from(path)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(self.failed("delete", path, e)),
        }
    }

    /// Deletes everything below `folder`.
    pub async fn delete_folder(&self, folder: &str) -> Result<()> {
        if let Some(root) = &self.root {
            return match tokio::fs::remove_dir_all(root.join(folder)).await {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    Err(Error::from(e).context(format!("cannot delete \"{folder}\"")))
                }
                _ => Ok(()),
            };
        }
        for name in self.list(folder).await? {
            self.delete(&format!("{folder}/{name}")).await?;
        }
        Ok(())
    }

    /// Moves `from` to `to`. Repeating it after it was done is no error.
    pub async fn rename(&self, from: &str, to: &str) -> Result<()> {
        match self.objects.rename(&Path::from(from), &Path::from(to)).await {
            Ok(()) => Ok(()),
            Err(object_store::Error::NotFound { .. }) => {
                self.objects.head(&Path::from(to)).await.map_err(|e| self.failed("find", to, e))?;
                Ok(())
            }
            Err(e) => Err(self.failed("move", from, e)),
        }
    }

    fn failed(&self, what: &str, path: &str, e: object_store::Error) -> Error {
        Error::from(e).context(format!("cannot {what} \"{}\"", self.locate(path)))
    }
}
