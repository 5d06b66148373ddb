//! Objects that others have put into a bucket, named by a URL: listed, and fetched as they were when they were listed.

use std::fmt;
use std::fs::File;
use std::io::{Seek, Write};
use std::sync::Arc;

use futures::TryStreamExt;
use glob::{MatchOptions, Pattern};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};

use super::patience::Patience;
use super::place::{Bucket, Place};
use super::remote::Remote;
use super::{Store, blocking};
use crate::error::{Error, Result};
use crate::pattern::{SPECIAL, no_pattern};

/// A `*` is a part of one name, `**` any folders.
const FITS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

/// Whether `text` names a place by a URL.
pub fn is_url(text: &str) -> bool {
    text.contains("://")
}

/// What a URL means: an object, all objects below it, or those that it is a pattern of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectsUrl {
    bucket: Bucket,
    /// Behind the bucket's name and its slash.
    key: String,
}

impl ObjectsUrl {
    /// Reads `s3://bucket/key`, `gs://…` or `az://…`, where the key may be a pattern.
    pub fn parse(text: &str) -> Result<Self> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| {
            Error::invalid(format!("\"{text}\" is no URL of a bucket"))
                .with_hint("Write s3://bucket/prefix, gs://… or az://….")
        })?;
        let (name, key) = rest.split_once('/').unwrap_or((rest, ""));
        let Place::Bucket(bucket) = Place::parse(&format!("{scheme}://{name}"))? else {
            return Err(Error::invalid(format!("\"{text}\" is no URL of a bucket")));
        };
        if key.split('/').any(|part| part == "." || part == "..") {
            return Err(Error::invalid(format!("\"{text}\" goes by . or .., which are no folders in a bucket"))
                .with_hint("Write the whole name."));
        }
        Ok(ObjectsUrl { bucket, key: key.to_owned() })
    }

    /// What the names of all that it may mean begin with.
    fn literal(&self) -> &str {
        self.key.split(SPECIAL).next().unwrap_or_default()
    }

    fn is_pattern(&self) -> bool {
        self.key.contains(SPECIAL)
    }

    /// The folder in which, at some depth, all lies that a pattern may mean.
    fn folder(&self) -> &str {
        self.literal().rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    /// Whether all that `other` may mean is this, or lies below it.
    pub fn covers(&self, other: &Self) -> bool {
        let own = self.key.trim_end_matches('/');
        let inside = |key: &str| own.is_empty() || key.strip_prefix(own).is_some_and(|rest| rest.starts_with('/'));
        self.bucket.is_same(&other.bucket) && (inside(other.literal()) || (!other.is_pattern() && other.key == own))
    }

    /// Whether something may be meant by both.
    pub fn meets(&self, other: &Self) -> bool {
        let (a, b) = (self.literal(), other.literal());
        self.bucket.is_same(&other.bucket) && (a.starts_with(b) || b.starts_with(a))
    }
}

impl fmt::Display for ObjectsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.bucket.url(), self.key)
    }
}

/// An object, as it was when it was listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    /// Its URL.
    pub(crate) url: Arc<str>,
    /// What tells it from another one of its name.
    pub(crate) version: String,
    pub(crate) bytes: u64,
    /// Whether the URL named this one.
    pub(crate) is_named: bool,
}

/// A bucket of others.
#[derive(Debug)]
pub(crate) struct Objects {
    bucket: Bucket,
    store: Store,
}

impl Objects {
    /// The bucket of `url`. Who is `patient` waits without end where it is away.
    pub(crate) fn open(url: &ObjectsUrl, is_patient: bool) -> Result<Self> {
        let (objects, bucket) = (url.bucket.open()?, url.bucket.clone());
        let store = Store::remote(objects, Remote::of(bucket.clone()));
        let patience = if is_patient { Patience::of_a_job(true) } else { Patience::default() };
        Ok(Objects { bucket, store: Store { patience, ..store } })
    }

    /// Whether it is the bucket of `url`.
    pub(crate) fn has(&self, url: &ObjectsUrl) -> bool {
        self.bucket == url.bucket
    }

    /// What `url` means now, by name. Below a folder, names that begin with `.` or `_` are left out, which by custom are not finished
    /// or not data.
    pub(crate) async fn list(&self, url: &ObjectsUrl) -> Result<Vec<Object>> {
        let failed = |e: object_store::Error| self.bucket.unread(e);
        let objects = &self.store.objects;
        if url.is_pattern() {
            let pattern = Pattern::new(&url.key).map_err(|e| no_pattern(&url.to_string(), &e))?;
            let found = self.below(url.folder()).await.map_err(failed)?;
            let fits = |meta: &ObjectMeta| pattern.matches_with(meta.location.as_ref(), FITS);
            return Ok(self.named(found.into_iter().filter(fits), false));
        }
        let key = url.key.trim_end_matches('/');
        if !url.key.is_empty() && !url.key.ends_with('/') {
            let path = path_of(key);
            match self.store.ask(|| objects.head(&path)).await {
                Err(object_store::Error::NotFound { .. }) => {}
                found => return Ok(self.named([found.map_err(failed)?], true)),
            }
        }
        let found = self.below(key).await.map_err(failed)?;
        let is_hidden = |meta: &ObjectMeta| {
            let below = meta.location.as_ref().get(key.len()..).unwrap_or_default();
            below.split('/').any(|part| part.starts_with(['.', '_']))
        };
        Ok(self.named(found.into_iter().filter(|meta| !is_hidden(meta)), false))
    }

    async fn below(&self, folder: &str) -> object_store::Result<Vec<ObjectMeta>> {
        let prefix = (!folder.is_empty()).then(|| path_of(folder));
        self.store.ask(|| self.store.objects.list(prefix.as_ref()).try_collect()).await
    }

    fn named(&self, found: impl IntoIterator<Item = ObjectMeta>, is_named: bool) -> Vec<Object> {
        let object = |meta: ObjectMeta| Object {
            url: format!("{}/{}", self.bucket.url(), meta.location).into(),
            version: version_of(&meta),
            bytes: meta.size,
            is_named,
        };
        let mut objects: Vec<Object> = found.into_iter().map(object).collect();
        objects.sort_by(|a, b| a.url.cmp(&b.url));
        objects
    }

    /// What `url` holds, or as much as `most` bytes of it, in a file without a name that was changed when the object was. Where `version` is
    /// said and it is another one by now, the error's kind is `Data`, as where it has gone.
    pub(crate) async fn fetch(&self, url: &str, version: Option<&str>, most: Option<u64>) -> Result<File> {
        let path = path_of(&ObjectsUrl::parse(url)?.key);
        let options = || GetOptions { range: most.map(|most| GetRange::Bounded(0..most)), ..GetOptions::default() };
        let to_disk = |e| object_store::Error::NotSupported { source: Box::new(e) };
        let fetched = self.store.ask(|| async {
            let got = self.store.objects.get_opts(&path, options()).await?;
            let meta = got.meta.clone();
            let mut file = blocking(tempfile::tempfile).await.map_err(to_disk)?;
            // In one answer, so it is of one version.
            let mut pieces = got.into_stream();
            while let Some(piece) = pieces.try_next().await? {
                file = blocking(move || file.write_all(&piece).map(|()| file)).await.map_err(to_disk)?;
            }
            let changed = meta.last_modified.into();
            let ready = move || file.rewind().and_then(|()| file.set_modified(changed)).map(|()| file);
            Ok((blocking(ready).await.map_err(to_disk)?, meta))
        });
        match fetched.await {
            Ok((file, meta)) if version.is_none_or(|version| version_of(&meta) == version) => Ok(file),
            Ok(_) => Err(Error::data(format!("object \"{url}\" was replaced by another one after it was found"))
                .with_hint("Objects that are read must stay as they are: write new ones beside them.")),
            Err(object_store::Error::NotFound { .. }) => {
                Err(Error::data(format!("object \"{url}\" is not there any more")))
            }
            Err(e) => Err(self.bucket.unread(e)),
        }
    }
}

/// Names of objects are taken to the letter.
fn path_of(key: &str) -> Path {
    Path::parse(key).unwrap_or_else(|_| Path::from(key))
}

fn version_of(meta: &ObjectMeta) -> String {
    match &meta.e_tag {
        Some(tag) => tag.clone(),
        None => format!("{} {}", meta.last_modified.timestamp_micros(), meta.size),
    }
}

impl Bucket {
    /// What is wrong where something of it cannot be read.
    fn unread(&self, e: object_store::Error) -> Error {
        let why = Error::from(e);
        let message = format!("cannot read from \"{}\": {}", self.url(), why.message());
        Error::new(why.kind(), message).with_hint(self.to_be_read()).with_source(why)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use object_store::PutPayload;
    use object_store::memory::InMemory;

    use super::*;
    use crate::error::ErrorKind;

    fn url(text: &str) -> ObjectsUrl {
        ObjectsUrl::parse(text).expect("a URL")
    }

    #[test]
    fn what_lies_where() {
        for (outer, inner) in [
            ("s3://b", "s3://b/a/x.csv"),
            ("s3://b/", "s3://b/*"),
            ("s3://b/a", "s3a://b/a/x.csv"),
            ("s3://b/a/", "s3://b/a/*/x.csv"),
            ("s3://b/a/x.csv", "s3://b/a/x.csv"),
            ("s3://b/a", "s3://b/a"),
        ] {
            assert!(url(outer).covers(&url(inner)), "{outer} {inner}");
            assert!(url(outer).meets(&url(inner)) && url(inner).meets(&url(outer)), "{outer} {inner}");
        }
        for (outer, other) in [
            ("s3://b/a", "s3://b/ab/x.csv"),
            ("s3://b/a", "s3://b/a*"),
            ("s3://b/a", "s3://b/*"),
            ("s3://b/a", "s3://c/a/x"),
            ("s3://b/a", "gs://b/a/x"),
            ("s3://b/a/b", "s3://b/a"),
        ] {
            assert!(!url(outer).covers(&url(other)), "{outer} {other}");
        }
        assert!(url("s3://b/store").meets(&url("s3://b/s*")));
        assert!(!url("s3://b/store").meets(&url("s3://b/t*")));
        for wrong in ["s3://b/../a", "s3:///a", "ftp://b/a", "s3://b/./a"] {
            assert!(ObjectsUrl::parse(wrong).is_err(), "{wrong}");
        }
    }

    async fn bucket(names: &[&str]) -> Objects {
        let memory = InMemory::new();
        for name in names {
            let bytes = PutPayload::from(Bytes::from(format!("in {name}")));
            memory.put(&path_of(name), bytes).await.expect("is put");
        }
        Objects { bucket: url("s3://b").bucket, store: Store::over(Arc::new(memory)) }
    }

    #[tokio::test]
    async fn a_url_means_objects() {
        let names = ["a/1.csv", "a/2.json", "a/_tmp/3.csv", "a/deep/4.csv", "a b/5.csv", "ab/6.csv", "a/.7.csv"];
        let objects = bucket(&names).await;
        for (text, expected) in [
            ("s3://b/a/1.csv", vec!["a/1.csv"]),
            ("s3://b/a", vec!["a/1.csv", "a/2.json", "a/deep/4.csv"]),
            ("s3://b/a/", vec!["a/1.csv", "a/2.json", "a/deep/4.csv"]),
            ("s3://b/a/*.csv", vec!["a/.7.csv", "a/1.csv"]),
            ("s3://b/a/**/*.csv", vec!["a/.7.csv", "a/1.csv", "a/_tmp/3.csv", "a/deep/4.csv"]),
            ("s3://b/a*/[56].csv", vec!["a b/5.csv", "ab/6.csv"]),
            ("s3://b/nothing/*", vec![]),
            ("s3://b/nothing", vec![]),
        ] {
            let listed = objects.list(&url(text)).await.expect("lists");
            let keys: Vec<_> = listed.iter().map(|o| o.url.trim_start_matches("s3://b/")).collect();
            assert_eq!(keys, expected, "{text}");
        }
        assert!(objects.list(&url("s3://b/[a")).await.expect_err("no pattern").message().contains("not a pattern"));
    }

    #[tokio::test]
    async fn what_is_fetched_is_what_was_listed() {
        use std::io::Read;
        let objects = bucket(&["a/1.csv"]).await;
        let listed = objects.list(&url("s3://b/a")).await.expect("lists").remove(0);
        let fetch = |version: Option<String>, most| {
            let (objects, url) = (&objects, listed.url.clone());
            async move { objects.fetch(&url, version.as_deref(), most).await }
        };
        let text = |mut file: File| {
            let mut text = String::new();
            file.read_to_string(&mut text).map(|_| text).expect("reads")
        };
        let file = fetch(Some(listed.version.clone()), None).await.expect("is there");
        assert_eq!(text(file), "in a/1.csv");
        assert_eq!(text(fetch(None, Some(4)).await.expect("is there")), "in a");
        objects.store.put("a/1.csv", Bytes::from_static(b"another")).await.expect("is put");
        let replaced = fetch(Some(listed.version.clone()), None).await.expect_err("another one");
        assert_eq!(replaced.kind(), ErrorKind::Data);
        objects.store.delete("a/1.csv").await.expect("goes");
        assert_eq!(fetch(None, None).await.expect_err("has gone").kind(), ErrorKind::Data);
    }
}
