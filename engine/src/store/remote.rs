//! What a store in a bucket does: it asks over a network, again where it must, and settles what may have happened by
//! reading.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, Result as Answer, WriteMultipart,
};

use super::patience::{Away, Health, Patience, may_pass};
use super::place::{Bucket, Place};
use super::scratch::Scratch;
use super::{Store, blocking};
use crate::error::{Error, ErrorKind, Result};

/// What is larger goes in parts.
const AT_ONCE: usize = 16 << 20;
/// The bytes of a part, and how many are under way at a time.
const PART: usize = 8 << 20;
const PARTS: usize = 3;

/// What is known of a store that is no folder.
#[derive(Debug, Default)]
pub(super) struct Remote {
    bucket: Option<Bucket>,
    /// All of the bucket.
    whole: Option<Arc<dyn ObjectStore>>,
    scratch: Option<Scratch>,
    health: Health,
}

impl Remote {
    /// Of a bucket that others have.
    pub(super) fn of(bucket: Bucket) -> Self {
        Remote { bucket: Some(bucket), ..Remote::default() }
    }

    pub(super) fn locate(&self, path: &str) -> String {
        match &self.bucket {
            Some(bucket) if path.is_empty() => bucket.url(),
            Some(bucket) => format!("{}/{path}", bucket.url()),
            None => path.to_owned(),
        }
    }
}

/// What an object holds: where it is much, in a file without a name.
pub(crate) enum Fetched {
    Bytes(Bytes),
    File(File),
}

impl Store {
    /// The store at `place`, used by the process called `name`. A folder is made when it does not exist; a bucket must be
    /// there and answer.
    pub async fn at(place: &Place, name: &str) -> Result<Self> {
        let bucket = match place {
            Place::Folder(root) => return Store::open(root),
            Place::Bucket(bucket) => bucket,
        };
        let whole = bucket.open()?;
        let objects: Arc<dyn ObjectStore> = match bucket.prefix() {
            "" => whole.clone(),
            prefix => Arc::new(PrefixStore::new(whole.clone(), prefix)),
        };
        let (bucket, scratch, health) = (Some(bucket.clone()), Some(Scratch::make(name)?), Health::default());
        let store = Store::remote(objects, Remote { bucket, whole: Some(whole), scratch, health });
        store.look().await?;
        Ok(store)
    }

    /// Where others find the objects of a store that is no folder, and what they put before a name. A client with a prefix is not
    /// for them: it calls what it gets by other names than what it lists.
    pub fn outright(&self) -> Option<(Arc<dyn ObjectStore>, &str)> {
        let remote = self.remote.as_ref()?;
        let prefix = remote.bucket.as_ref().map_or("", Bucket::prefix);
        Some((remote.whole.as_ref().unwrap_or(&self.objects).clone(), prefix))
    }

    /// Whether it answers at all.
    async fn look(&self) -> Result<()> {
        let Some(bucket) = self.remote.as_ref().and_then(|remote| remote.bucket.as_ref()) else { return Ok(()) };
        let prefix = Path::from("catalog");
        let listed = self.ask(|| self.objects.list_with_delimiter(Some(&prefix))).await;
        listed.map(drop).map_err(|e| bucket.refused(e))
    }

    /// Since when and why it does not answer, where that is so.
    pub fn away(&self) -> Option<Away> {
        self.remote.as_ref()?.health.away()
    }

    /// The same store for one who may wait for it without end, from [`Store::wait_long`] on.
    pub(crate) fn patient(&self) -> Self {
        Store { patience: Patience::of_a_job(false), ..self.clone() }
    }

    /// Who uses this, or a clone of it, waits for a store that is away for as long as it takes, or not any more.
    pub(crate) fn wait_long(&self, is_patient: bool) {
        self.patience.set_endless(is_patient);
    }

    /// A folder on this machine for what does not fit into memory and need not outlast the process.
    pub fn scratch(&self) -> PathBuf {
        let scratch = self.remote.as_ref().and_then(|remote| remote.scratch.as_ref());
        match (&self.root, scratch) {
            (Some(root), _) => root.clone(),
            (None, Some(scratch)) => scratch.folder().to_owned(),
            (None, None) => std::env::temp_dir(),
        }
    }

    /// A file without a name in the scratch folder.
    pub(crate) async fn draft(&self) -> Result<File> {
        let folder = self.scratch();
        let made = blocking(move || tempfile::tempfile_in(folder)).await;
        made.map_err(|e| Error::from(e).context("cannot make a temporary file"))
    }

    /// Asks until there is an answer, where it is no folder.
    pub(super) async fn ask<T, F: Future<Output = Answer<T>>>(&self, ask: impl Fn() -> F) -> Answer<T> {
        match &self.remote {
            None => ask().await,
            Some(remote) => self.patience.ask(&remote.health, ask).await,
        }
    }

    /// Writes an object. May be repeated: it is then the same.
    pub(super) async fn upload(&self, path: &str, parts: &[Bytes]) -> Answer<()> {
        let at = Path::from(path);
        if parts.iter().map(Bytes::len).sum::<usize>() <= AT_ONCE {
            let payload = PutPayload::from_iter(parts.iter().cloned());
            return self.ask(|| self.objects.put(&at, payload.clone())).await.map(drop);
        }
        self.ask(|| async {
            let mut upload = WriteMultipart::new_with_chunk_size(self.objects.put_multipart(&at).await?, PART);
            for part in parts {
                for from in (0..part.len()).step_by(PART) {
                    upload = next_part(upload, part.slice(from..part.len().min(from + PART))).await?;
                }
            }
            upload.finish().await.map(drop)
        })
        .await
    }

    /// What is at `path`. As [`Store::get`].
    pub(crate) async fn fetch(&self, path: &str) -> Result<Fetched> {
        let at = Path::from(path);
        let fetched = self.ask(|| async {
            let got = self.objects.get(&at).await?;
            if got.meta.size <= AT_ONCE as u64 {
                return got.bytes().await.map(Fetched::Bytes);
            }
            let to_disk = |e| object_store::Error::NotSupported { source: Box::new(e) };
            let folder = self.scratch();
            let mut file = blocking(move || tempfile::tempfile_in(folder)).await.map_err(to_disk)?;
            let mut pieces = got.into_stream();
            while let Some(piece) = pieces.try_next().await? {
                file = blocking(move || file.write_all(&piece).map(|()| file)).await.map_err(to_disk)?;
            }
            Ok(Fetched::File(file))
        });
        fetched.await.map_err(|e| self.failed("read", path, e))
    }

    /// Writes what is in `draft` as an object, and gives its bytes.
    pub async fn put_draft(&self, path: &str, draft: File) -> Result<u64> {
        let failed = |e: std::io::Error| Error::from(e).context("cannot read a temporary file");
        let (length, mut draft) = blocking(move || Ok((draft.metadata()?.len(), draft))).await.map_err(failed)?;
        if length <= AT_ONCE as u64 {
            let (bytes, _) = read(draft, 0, length as usize).await.map_err(failed)?;
            self.put(path, bytes).await?;
            return Ok(length);
        }
        self.may_write().await?;
        let at = Path::from(path);
        let mut upload =
            self.ask(|| self.objects.put_multipart(&at)).await.map_err(|e| self.failed("write", path, e))?;
        let mut from = 0;
        while from < length {
            let bytes;
            (bytes, draft) = read(draft, from, PART.min((length - from) as usize)).await.map_err(failed)?;
            from += bytes.len() as u64;
            // A part has its number from here on: the client sends it some times, or all is given up.
            if let Err(e) = upload.put_part(PutPayload::from(bytes)).await {
                return Err(self.give_up(upload, path, e).await);
            }
        }
        match upload.complete().await {
            Ok(_) => Ok(length),
            Err(e) => Err(self.give_up(upload, path, e).await),
        }
    }

    async fn give_up(&self, mut upload: Box<dyn MultipartUpload>, path: &str, e: object_store::Error) -> Error {
        // What is left of it goes by the bucket's own rules.
        let _ = upload.abort().await;
        self.failed("write", path, e)
    }

    /// Creates an object unless it is there. If no answer comes, or one that somebody else may have caused, what is there decides.
    pub(super) async fn create_object(&self, path: &str, bytes: &Bytes) -> Result<()> {
        let at = Path::from(path);
        let created = self
            .ask(|| async {
                let options = PutOptions { mode: PutMode::Create, ..Default::default() };
                let e = match self.objects.put_opts(&at, PutPayload::from(bytes.clone()), options).await {
                    Err(e) if may_pass(&e) || matches!(e, object_store::Error::AlreadyExists { .. }) => e,
                    created => return created.map(|_| true),
                };
                let found = match self.objects.get(&at).await {
                    Ok(found) => found.bytes().await.map(Some),
                    Err(object_store::Error::NotFound { .. }) => Ok(None),
                    Err(e) => Err(e),
                };
                match found? {
                    Some(found) => Ok(found == bytes),
                    None if may_pass(&e) => Err(e),
                    // Two at once, and neither was let through; or it has gone again.
                    None => Err(object_store::Error::Generic { store: "bucket", source: Box::new(e) }),
                }
            })
            .await;
        match created {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::new(ErrorKind::Exists, format!("\"{path}\" exists already"))),
            Err(e) => Err(self.failed("write", path, e)),
        }
    }

    /// Whether `folder` has nothing with a name behind `name`. A number that was created may be one that others have created and removed
    /// long ago: who was stopped for a while finds that out by what has come since.
    pub async fn is_last(&self, folder: &str, name: &str) -> Result<bool> {
        let (prefix, from) = (Path::from(folder), Path::from(format!("{folder}/{name}")));
        let later = self.ask(|| async { self.objects.list_with_offset(Some(&prefix), &from).try_next().await });
        Ok(later.await.map_err(|e| self.failed("list", folder, e))?.is_none())
    }

    /// The names of all objects below `folder`, at any depth, sorted.
    pub async fn list_below(&self, folder: &str) -> Result<Vec<String>> {
        let prefix = Path::from(folder);
        let below = self.ask(|| self.objects.list(Some(&prefix)).map_ok(|m| m.location.to_string()).try_collect());
        let mut names: Vec<String> = below.await.map_err(|e| self.failed("list", folder, e))?;
        names.sort();
        Ok(names)
    }

    pub(super) async fn delete_objects(&self, paths: Vec<String>) -> Result<()> {
        self.delete_each(paths.iter().map(|path| Path::from(path.as_str())).collect()).await
    }

    /// Deletes everything below `folder`, at any depth.
    pub(super) async fn delete_below(&self, folder: &str) -> Result<()> {
        let prefix = Path::from(folder);
        let below = self.ask(|| self.objects.list(Some(&prefix)).map_ok(|m| m.location).try_collect());
        let below: Vec<Path> = below.await.map_err(|e| self.failed("list", folder, e))?;
        self.delete_each(below).await?;
        if self.remote.as_ref().is_some_and(|remote| remote.scratch.is_some()) {
            // What goes with the process may go before.
            let _ = tokio::fs::remove_dir_all(self.scratch().join(folder)).await;
        }
        Ok(())
    }

    /// Deletes many in few requests. Where any fails, those that are left are asked for one by one: all at once, something might fail each time.
    async fn delete_each(&self, paths: Vec<Path>) -> Result<()> {
        let gone = |one: &Answer<Path>| matches!(one, Ok(_) | Err(object_store::Error::NotFound { .. }));
        let deleted = self.objects.delete_stream(stream::iter(paths.clone()).map(Ok).boxed());
        if deleted.all(|one| futures::future::ready(gone(&one))).await {
            return Ok(());
        }
        for path in &paths {
            match self.ask(|| self.objects.delete(path)).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(self.failed("delete", path.as_ref(), e)),
            }
        }
        Ok(())
    }
}

/// Sends a part once few are under way.
async fn next_part(mut upload: WriteMultipart, part: Bytes) -> Answer<WriteMultipart> {
    if let Err(e) = upload.wait_for_capacity(PARTS).await {
        // What is left of it goes by the bucket's own rules.
        let _ = upload.abort().await;
        return Err(e);
    }
    upload.put(part);
    Ok(upload)
}

async fn read(mut file: File, from: u64, length: usize) -> std::io::Result<(Bytes, File)> {
    blocking(move || {
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = vec![0; length];
        file.read_exact(&mut bytes)?;
        Ok((Bytes::from(bytes), file))
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use object_store::memory::InMemory;

    use super::*;
    use crate::testing::Faulty;

    /// Bytes that go in several parts, the last of which is a short one.
    fn large() -> Bytes {
        (0..AT_ONCE + PART + 5).map(|i| (i % 251) as u8).collect()
    }

    #[tokio::test]
    async fn what_is_large_goes_and_comes_in_parts() {
        let store = Store::over(Arc::new(InMemory::new()));
        let all = large();
        // Parts that are cut otherwise than those that are sent.
        store.put_parts("a", vec![all.slice(..7), all.slice(7..AT_ONCE), all.slice(AT_ONCE..)]).await.expect("written");
        assert_eq!(store.get("a").await.expect("is there"), all);
        let mut draft = store.draft().await.expect("a file");
        draft.write_all(&all).expect("writes");
        assert_eq!(store.put_draft("b", draft).await.expect("written"), all.len() as u64);
        assert_eq!(store.get("b").await.expect("is there"), all);
        let Fetched::File(mut file) = store.fetch("b").await.expect("is there") else { panic!("it is large") };
        let mut found = vec![];
        file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut found)).expect("reads");
        assert!(found == all);
        store.put("c", Bytes::from_static(b"little")).await.expect("written");
        assert!(matches!(store.fetch("c").await.expect("is there"), Fetched::Bytes(bytes) if bytes == "little"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_go_whatever_fails() {
        let objects = Arc::new(InMemory::new());
        let store = Store::over(objects.clone());
        let paths: Vec<String> = (0..60).map(|i| format!("states/{i}")).collect();
        for path in &paths {
            store.put(path, Bytes::from_static(b"state")).await.expect("written");
        }
        let faulty = Store::over(Arc::new(Faulty::new(objects, 5, 30)));
        faulty.delete_all(paths).await.expect("each goes sooner or later");
        assert!(store.list("states").await.expect("lists").is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_of_many_creates_whatever_fails() {
        let objects = Arc::new(InMemory::new());
        for round in 0..10 {
            let path = format!("numbers/{round:020}.json");
            let tries = (0..4_u64).map(|writer| {
                let store = Store::over(Arc::new(Faulty::new(objects.clone(), round * 4 + writer, 30)));
                let path = path.clone();
                async move { store.create(&path, Bytes::from(writer.to_string())).await.map(|()| writer) }
            });
            let answers = futures::future::join_all(tries).await;
            let created: Vec<u64> = answers.iter().filter_map(|a| a.as_ref().ok().copied()).collect();
            let refused = answers.iter().filter_map(|a| a.as_ref().err()).all(|e| e.kind() == ErrorKind::Exists);
            assert!(refused && created.len() == 1, "round {round}: {created:?}");
            let found = Store::over(objects.clone()).get(&path).await.expect("is there");
            assert_eq!(found, created[0].to_string());
        }
        let store = Store::over(objects);
        assert!(store.is_last("numbers", "00000000000000000009.json").await.expect("lists"));
        assert!(!store.is_last("numbers", "00000000000000000008.json").await.expect("lists"));
        store.delete_folder("numbers").await.expect("deletes");
        assert!(store.list_below("").await.expect("lists").is_empty());
    }
}
