//! The buckets that a path names by URLs: what lies there, and getting it.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use parking_lot::Mutex;

use super::place::parts;
use crate::error::{Error, Result};
use crate::store::{Object, Objects, ObjectsUrl, is_url};

/// The URLs that `path` is a list of.
pub(super) fn urls(path: &str) -> Result<Vec<ObjectsUrl>> {
    if let Some(part) = parts(path).find(|part| !is_url(part)) {
        return Err(Error::invalid(format!("\"{path}\" names a file, \"{part}\", among objects of buckets"))
            .with_hint("Make a stream of each, and read both with UNION ALL."));
    }
    parts(path).map(ObjectsUrl::parse).collect()
}

/// What URLs mean, and the buckets in which that lies.
pub(super) struct Buckets {
    urls: Vec<ObjectsUrl>,
    buckets: Vec<Objects>,
}

impl Buckets {
    /// Who is `patient` waits without end for a bucket that is away.
    pub(super) fn open(urls: Vec<ObjectsUrl>, is_patient: bool) -> Result<Self> {
        let mut buckets: Vec<Objects> = vec![];
        for url in &urls {
            if !buckets.iter().any(|bucket| bucket.has(url)) {
                buckets.push(Objects::open(url, is_patient)?);
            }
        }
        Ok(Buckets { urls, buckets })
    }

    /// That of one object.
    pub(super) fn of(url: &str) -> Result<Self> {
        Buckets::open(vec![ObjectsUrl::parse(url)?], false)
    }

    fn bucket(&self, url: &ObjectsUrl) -> Result<&Objects> {
        let bucket = self.buckets.iter().find(|bucket| bucket.has(url));
        bucket.ok_or_else(|| Error::internal(format!("the bucket of \"{url}\" is not open")))
    }

    /// The objects that there are now, by name.
    pub(super) async fn list(&self) -> Result<Vec<Object>> {
        let mut objects = vec![];
        for url in &self.urls {
            objects.extend(self.bucket(url)?.list(url).await?);
        }
        objects.sort_by(|a, b| a.url.cmp(&b.url));
        objects.dedup_by(|a, b| a.url == b.url);
        Ok(objects)
    }

    /// See [`Objects::fetch`].
    pub(super) async fn fetch(&self, url: &str, version: Option<&str>, most: Option<u64>) -> Result<File> {
        self.bucket(&ObjectsUrl::parse(url)?)?.fetch(url, version, most).await
    }
}

/// Those that were found, by name.
pub(super) type Found = BTreeMap<Arc<str>, String>;

/// How readers get at objects.
pub(super) struct Fetching {
    buckets: Arc<Buckets>,
    /// Which there were when they were listed; nothing is known of others.
    found: Arc<Mutex<Found>>,
}

impl Fetching {
    /// From `buckets`, in which those were `found`.
    pub(super) fn beside(buckets: &Arc<Buckets>, found: &Arc<Mutex<Found>>) -> Self {
        Fetching { buckets: buckets.clone(), found: found.clone() }
    }

    /// For who has the plan alone, with the path in it.
    pub(super) fn elsewhere(path: &str) -> Result<Self> {
        Ok(Fetching { buckets: Arc::new(Buckets::open(urls(path)?, true)?), found: Arc::default() })
    }

    /// What the object called `url` holds.
    pub(super) async fn fetch(&self, url: &str) -> Result<File> {
        let version = self.found.lock().get(url).cloned();
        self.buckets.fetch(url, version.as_deref(), None).await
    }
}
