//! Where a store lies: a folder, or a bucket that its URL names.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};

use crate::error::{Error, ErrorKind, Result};

/// What to write instead of a place that is none.
const PLACES: &str = "Write a folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix.";

/// A place for a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A folder.
    Folder(PathBuf),
    /// A part of a bucket.
    Bucket(Bucket),
}

/// A part of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    cloud: Cloud,
    /// The scheme and the bucket.
    root: String,
    /// What the names of all its objects begin with; empty, or with a slash at its end.
    prefix: String,
}

/// Whose bucket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cloud {
    S3,
    Google,
    Azure,
}

impl Cloud {
    fn of(scheme: &str) -> Option<Self> {
        Some(match scheme {
            "s3" | "s3a" => Cloud::S3,
            "gs" => Cloud::Google,
            "az" | "abfs" | "abfss" => Cloud::Azure,
            _ => return None,
        })
    }

    /// Where its clients find who asks.
    fn credentials(self) -> &'static str {
        match self {
            Cloud::S3 => {
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (with AWS_REGION, and AWS_ENDPOINT for another server than Amazon's)"
            }
            Cloud::Google => "GOOGLE_SERVICE_ACCOUNT (a file with the key of a service account)",
            Cloud::Azure => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
        }
    }
}

impl Place {
    /// The place that `text` names: a URL, or else a folder.
    pub fn parse(text: &str) -> Result<Self> {
        let Some((scheme, rest)) = text.split_once("://") else { return Ok(Place::Folder(PathBuf::from(text))) };
        let wrong =
            |what: String| Error::invalid(format!("\"{text}\" is no place for a store: {what}")).with_hint(PLACES);
        let cloud = Cloud::of(scheme).ok_or_else(|| wrong(format!("nothing is known of {scheme}://")))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(wrong("it names no bucket".to_owned()));
        }
        if let Some(odd) = rest.chars().find(|c| matches!(c, '?' | '#' | '%' | '\\' | '*') || c.is_control()) {
            return Err(wrong(format!("it holds {odd:?}")));
        }
        let prefix = Path::parse(prefix).map_err(|_| wrong("its prefix is not one name after the other".to_owned()))?;
        let prefix = if prefix.as_ref().is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(Place::Bucket(Bucket { cloud, root: format!("{scheme}://{bucket}"), prefix }))
    }
}

impl Bucket {
    /// The URL of all of it, without a slash at its end.
    pub fn url(&self) -> String {
        format!("{}/{}", self.root, self.prefix).trim_end_matches('/').to_owned()
    }

    /// Whether both are one bucket, by whatever scheme it is called.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let name = |root: &str| root.split_once("://").map(|(_, name)| name.to_owned());
        self.cloud == other.cloud && name(&self.root) == name(&other.root)
    }

    /// What to do where it cannot be read.
    pub(super) fn to_be_read(&self) -> String {
        let set = self.cloud.credentials();
        format!("See that it is there, and that {set} are of one who may list and read there.")
    }

    /// What the names of all its objects begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The client of the whole bucket, as the environment says how (`AWS_…`, `GOOGLE_…`, `AZURE_…`).
    pub(super) fn open(&self) -> Result<Arc<dyn ObjectStore>> {
        let (url, retry) = (self.root.clone(), retry());
        let opened: object_store::Result<Arc<dyn ObjectStore>> = match self.cloud {
            Cloud::S3 => {
                let built = AmazonS3Builder::from_env().with_url(url).with_retry(retry).build();
                built.map(|objects| Arc::new(objects) as Arc<dyn ObjectStore>)
            }
            Cloud::Google => {
                let built = GoogleCloudStorageBuilder::from_env().with_url(url).with_retry(retry).build();
                built.map(|objects| Arc::new(objects) as Arc<dyn ObjectStore>)
            }
            Cloud::Azure => {
                let built = MicrosoftAzureBuilder::from_env().with_url(url).with_retry(retry).build();
                built.map(|objects| Arc::new(objects) as Arc<dyn ObjectStore>)
            }
        };
        opened.map_err(|e| {
            let why = Error::from(e);
            Error::invalid(format!("cannot use \"{}\" as a store: {}", self.url(), why.message()))
                .with_hint(format!("Set {}.", self.cloud.credentials()))
                .with_source(why)
        })
    }

    /// What is wrong where the first look at it has failed with `e`.
    pub(super) fn refused(&self, e: object_store::Error) -> Error {
        let (url, root, set) = (self.url(), &self.root, self.cloud.credentials());
        let why = Error::from(e);
        let text = why.message().to_owned();
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        let (message, hint) = match why.kind() {
            _ if says(&["status code: 401", "status code: 403", "lacked"]) => (
                format!("no permission for store \"{url}\""),
                format!("Set {set} of one who may list, read, write and delete there."),
            ),
            kind if kind == ErrorKind::NotFound || says(&["NoSuchBucket", "ContainerNotFound"]) => (
                format!("there is no bucket \"{root}\""),
                format!("Make it, or name another one with --store. Its server is the one of {set}."),
            ),
            _ if says(&["scheme is not allowed"]) => (
                format!("the server of store \"{url}\" has no TLS"),
                "Set AWS_ALLOW_HTTP=true (AZURE_ALLOW_HTTP=true) if the network is yours alone.".to_owned(),
            ),
            _ if says(&["169.254.169.254", "metadata.google", "credential"]) => {
                (format!("no credentials for store \"{url}\""), format!("Set {set}."))
            }
            _ => (
                format!("store \"{url}\" does not answer"),
                format!("See whether it can be reached from here, and that {set} are right. It was asked for a while."),
            ),
        };
        Error::unavailable(format!("{message}: {text}")).with_hint(hint).with_source(why)
    }
}

/// What a client does by itself: little, since who waits for long wants to know of it.
fn retry() -> RetryConfig {
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(50), max_backoff: Duration::from_secs(1), base: 2.0 };
    RetryConfig { backoff, max_retries: 3, retry_timeout: Duration::from_secs(30) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(text: &str) -> Bucket {
        match Place::parse(text).expect("a place") {
            Place::Bucket(bucket) => bucket,
            Place::Folder(_) => panic!("{text} is a bucket"),
        }
    }

    #[test]
    fn urls_are_buckets_and_all_else_are_folders() {
        for folder in ["orders", "./a/b", "/tmp/a:b", "s3:/x"] {
            assert_eq!(Place::parse(folder).expect("a place"), Place::Folder(folder.into()));
        }
        for (text, url, prefix) in [
            ("s3://b", "s3://b", ""),
            ("s3://b/", "s3://b", ""),
            ("gs://b/a/c/", "gs://b/a/c", "a/c/"),
            ("az://box/a", "az://box/a", "a/"),
        ] {
            let bucket = bucket(text);
            assert_eq!((bucket.url().as_str(), bucket.prefix.as_str()), (url, prefix));
        }
        for (text, what) in [
            ("ftp://b/a", "nothing is known of ftp://"),
            ("s3:///a", "names no bucket"),
            ("s3://b/a?region=x", "holds '?'"),
            ("s3://b/a//c", "one name after the other"),
            ("s3://b/../c", "one name after the other"),
        ] {
            let e = Place::parse(text).expect_err("is none");
            assert_eq!(e.kind(), ErrorKind::Invalid);
            assert!(e.message().contains(what) && e.message().contains(text), "{e}");
            assert!(e.hint().is_some_and(|hint| hint.contains("s3://bucket/prefix")));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let fails = |text: &str| object_store::Error::Generic { store: "S3", source: text.into() };
        let b = bucket("s3://b/a");
        for (e, what, hint) in [
            (
                fails("status code: 404 Not Found: <Code>NoSuchBucket</Code>"),
                "there is no bucket \"s3://b\"",
                "Make it",
            ),
            (fails("status code: 403 Forbidden: <Code>AccessDenied</Code>"), "no permission", "may list, read, write"),
            (fails("PUT http://169.254.169.254/latest/api/token"), "no credentials", "AWS_ACCESS_KEY_ID"),
            (fails("error sending request: connection refused"), "does not answer", "can be reached"),
        ] {
            let e = b.refused(e);
            assert!(e.message().starts_with(what) || e.message().contains(what), "{e}");
            assert!(e.hint().is_some_and(|h| h.contains(hint)), "{:?}", e.hint());
        }
    }
}
