//! The options of files, and which files a path means.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::hive::{self, Key};
use super::listing::{FoundFile, list};
use super::place::{name_in, parts};
use super::pruning::Pruning;
use crate::connector::generator::Pace;
use crate::error::{Error, ErrorKind, Result};
use crate::format::Format;
use crate::format::compression::Compression;
use crate::format::form::{CHANGES, DEBEZIUM_JSON, Form};
use crate::format::options::{CsvOptions, JsonOptions, ON_ERROR, TEXT};
use crate::options::{OptionSpec, Options, Takes};
use crate::reach::Reach;
use crate::store::{ObjectsUrl, is_url};

const PATH: OptionSpec = OptionSpec::new(
    "path",
    Takes::Text,
    "data/*.csv",
    "a file, a folder, a pattern (** for depth), or several between commas, also s3://, gs://, az://",
)
.required();
const FORMAT: OptionSpec = OptionSpec::new(
    "format",
    Takes::OneOf(&["json", "csv", "parquet", "arrow", DEBEZIUM_JSON]),
    "csv",
    "what the files are",
)
.otherwise("by the ending");
pub(super) const COMPRESSION: OptionSpec = OptionSpec::new(
    "compression",
    Takes::OneOf(&["auto", "none", "gzip", "zstd"]),
    "gzip",
    "how text is compressed; by the ending when auto",
)
.or("auto");
const FOLLOW: OptionSpec = OptionSpec::new(
    "follow",
    Takes::Flag,
    "true",
    "wait for appended lines, new files and rotation; the stream then never ends",
)
.or("false");
const POLL_INTERVAL: OptionSpec =
    OptionSpec::new("poll_interval", Takes::Duration, "1 s", "how often to look; less often where looking takes long")
        .otherwise("100 ms; in a bucket 10 s");
/// How often a bucket is looked into.
const POLL_BUCKET: Duration = Duration::from_secs(10);
/// How often files are looked for.
const POLL: Duration = Duration::from_millis(100);
const SETTLE: OptionSpec = OptionSpec::new(
    "settle",
    Takes::Duration,
    "1 min",
    "with follow: how long a file that is not whole or cannot be read may stay so before it is put aside",
)
.or("10 s");
const ORDERED: OptionSpec = OptionSpec::new(
    "ordered",
    Takes::Flag,
    "true",
    "files in the order of their names are in the order of time: later ones do not hold the watermark",
)
.or("false");
const RATE: OptionSpec = OptionSpec::new("rate", Takes::Number, "1000", "rows a second on the clock, to replay files")
    .otherwise("full speed");
const SHARED: OptionSpec = OptionSpec::new(
    "shared",
    Takes::Flag,
    "true",
    "all nodes of a cluster have the files under this path, and share the reading",
)
.or("false");
const PARTITIONS: OptionSpec =
    OptionSpec::new("partitions", Takes::Flag, "false", "names of folders like k=v tell the values of columns")
        .or("true");
pub(super) const SINK_PATH: OptionSpec = OptionSpec::new(
    "path",
    Takes::Text,
    "results/",
    "a file that is appended to (JSON, CSV), or a folder that gets new files; kept absolute",
)
.required();
pub(super) const SINK_FORMAT: OptionSpec = OptionSpec::new(
    "format",
    Takes::OneOf(&["json", "csv", "parquet"]),
    "parquet",
    "what the files are; Parquet for a folder only",
)
.otherwise("by the ending");

/// The options of files that are read.
pub(super) fn read_options() -> Vec<OptionSpec> {
    let own = [
        PATH,
        FORMAT,
        CHANGES,
        COMPRESSION,
        FOLLOW,
        POLL_INTERVAL,
        SETTLE,
        ORDERED,
        RATE,
        PARTITIONS,
        SHARED,
        ON_ERROR,
    ];
    [&own, TEXT].concat()
}

/// The options of files that are written.
pub(super) fn written_options() -> Vec<OptionSpec> {
    [&[SINK_PATH, SINK_FORMAT, COMPRESSION], TEXT].concat()
}

/// What the records of files say under `options`.
pub(super) fn form(options: &Options) -> Form {
    Form::of(options, &FORMAT, "")
}

/// Whether `options` say what the files are.
pub(super) fn names_format(options: &Options) -> bool {
    options.is_set(&FORMAT)
}

/// `WITH (…)` of a file source.
#[derive(Clone, Debug)]
pub(crate) struct FileOptions {
    /// A file, a folder or a pattern, or several of them between commas.
    pub(crate) path: String,
    /// What the path was relative to when the stream was created; not a part of the files' names.
    pub(crate) folder: Option<String>,
    /// Whether the names of folders tell the values of columns.
    pub(crate) partitions: bool,
    /// The folders below which they do.
    roots: Vec<PathBuf>,
    /// Conditions on those for files that are to be read.
    pub(crate) pruning: Option<Arc<Pruning>>,
    /// What the files are.
    pub(crate) format: Format,
    /// Whether `format` was written, so that files of any name are taken.
    any_name: bool,
    /// How the files are compressed; by their names when `None`.
    pub(crate) compression: Option<Compression>,
    /// Whether appended lines and new files are waited for.
    pub(crate) follow: bool,
    /// How often to look for them.
    pub(crate) poll_interval: Duration,
    /// For how long a followed file that is not whole, or not readable, may stay so before it is put aside.
    pub(crate) settle: Duration,
    /// Whether files in the order of their names are in the order of time.
    pub(crate) ordered: bool,
    /// How fast rows are given; as fast as they are read when `None`.
    pub(crate) rate: Option<Pace>,
    /// Whether the path means the same files on all nodes of a cluster.
    pub(crate) shared: bool,
    /// Whether a piece of input that cannot be decoded ends the job.
    pub(crate) fail: bool,
    /// Where the files must lie, links followed, if that is bounded.
    reach: Option<Arc<Reach>>,
    pub(crate) json: JsonOptions,
    pub(crate) csv: CsvOptions,
}

impl FileOptions {
    /// Reads `options`; looks at the files where they do not say the format.
    pub(crate) fn take(mut options: Options) -> Result<Self> {
        let o = &mut options;
        let path = o.required(&PATH)?;
        let folder = o.found("folder").map(str::to_owned);
        let named = o.choice(&FORMAT)?;
        // Streams of builds that did not look at the names of folders go on without.
        let partitions = match o.is_set(&PARTITIONS) {
            true => o.flag(&PARTITIONS)?,
            false => o.flag(&PARTITIONS)? && o.found("partitions") == Some("true"),
        };
        let compression = match o.choice(&COMPRESSION)? {
            Some("none") => Some(Compression::None),
            Some("gzip") => Some(Compression::Gzip),
            Some("zstd") => Some(Compression::Zstd),
            _ => None,
        };
        let follow = o.flag(&FOLLOW)?;
        let is_far = is_url(&path);
        let poll_interval = o.duration(&POLL_INTERVAL)?.unwrap_or(if is_far { POLL_BUCKET } else { POLL });
        let settle = settle(o, follow, is_far)?;
        let ordered = o.flag(&ORDERED)?;
        let rate = Pace::option(o, &RATE)?;
        let shared = o.flag(&SHARED)? || is_far;
        let fail = o.choice(&ON_ERROR)? == Some("fail");
        let format = match named.or_else(|| o.found("format")) {
            Some("json") => Format::Json,
            Some("csv") => Format::Csv,
            Some("parquet") => Format::Parquet,
            Some(DEBEZIUM_JSON) => Format::Json,
            Some(_) => Format::Arrow,
            None => guess_format(&path, folder.as_deref(), follow, o.owner())?,
        };
        let form = Form::take(o, named.filter(|named| *named == DEBEZIUM_JSON).unwrap_or(format.name()))?;
        let (json, csv) = match format {
            Format::Json => (JsonOptions { form, ..JsonOptions::take(o)? }, CsvOptions::default()),
            Format::Csv => (JsonOptions::default(), CsvOptions { form, ..CsvOptions::take(o)? }),
            Format::Parquet | Format::Arrow => (JsonOptions::default(), CsvOptions::default()),
        };
        let reach = options.reach().cloned();
        options.finish()?;
        let any_name = named.is_some();
        let roots = roots(&path);
        Ok(FileOptions {
            path,
            roots,
            folder,
            partitions,
            pruning: None,
            format,
            any_name,
            compression,
            follow,
            poll_interval,
            settle,
            ordered,
            rate,
            shared,
            fail,
            reach,
            json,
            csv,
        })
    }

    /// How the file of this name is compressed.
    pub(crate) fn compression_of(&self, name: &str) -> Compression {
        self.compression.unwrap_or_else(|| Compression::of_name(name).0)
    }

    /// The path as it is told.
    pub(crate) fn shown_path(&self) -> &str {
        name_in(&self.path, self.folder.as_deref())
    }

    /// What the file at `path` is called.
    pub(crate) fn name_of(&self, path: &Path) -> Arc<str> {
        name_in(&path.to_string_lossy(), self.folder.as_deref()).into()
    }

    /// What the names of the folders of the file at `path` say, below what the path of the options means.
    pub(crate) fn keys_of(&self, path: &Path) -> Vec<Key> {
        if !self.partitions {
            return vec![];
        }
        let nearest = self.roots.iter().filter(|root| path.starts_with(root)).max_by_key(|root| root.as_os_str().len());
        nearest.map(|root| hive::keys(path, root)).unwrap_or_default()
    }

    /// The files there are now, by name. It is an error that a file that is named is not there, and without
    /// `follow` that there are none.
    pub(crate) fn list(&self) -> Result<Vec<FoundFile>> {
        self.fit(list(&self.path, self.folder.as_deref())?)
    }

    /// As [`FileOptions::list`], but a followed file may be away for a while.
    pub(crate) fn list_again(&self) -> Result<Vec<FoundFile>> {
        match list(&self.path, self.folder.as_deref()) {
            Err(e) if self.follow && e.kind() == ErrorKind::NotFound => Ok(vec![]),
            files => self.fit(files?),
        }
    }

    /// Of `files` those that are meant.
    pub(super) fn fit(&self, mut files: Vec<FoundFile>) -> Result<Vec<FoundFile>> {
        if let Some(reach) = &self.reach {
            // What the path means now may be a link to elsewhere.
            files.iter().try_for_each(|file| match &file.object {
                Some(object) => reach.check_objects(&ObjectsUrl::parse(&object.url)?),
                None => reach.check_file(&file.path),
            })?;
        }
        if !self.any_name {
            files.retain(|f| f.alone || Format::of_name(&f.name) == Some(self.format));
        }
        if files.is_empty() && !self.follow {
            return Err(nothing(self.shown_path()));
        }
        if let Some(pruning) = &self.pruning {
            files.retain(|f| pruning.keeps(&self.keys_of(&f.path)));
        }
        Ok(files)
    }
}

/// For how long a followed file may stay what it is before it is put aside.
fn settle(o: &mut Options, follow: bool, is_far: bool) -> Result<Duration> {
    let wrong = |why: &str| Error::invalid(format!("option \"settle\" of {} is {why}", o.owner()));
    match o.is_set(&SETTLE) {
        true if is_far => {
            Err(wrong("not for objects in a bucket").with_hint("Leave it out: objects are whole when they are there."))
        }
        true if !follow => Err(wrong("for files that are followed").with_hint("Add follow = true, or leave it out.")),
        _ => Ok(o.duration(&SETTLE)?.unwrap_or_default()),
    }
}

/// The folders below which lie the files that `path` means.
fn roots(path: &str) -> Vec<PathBuf> {
    match Path::new(path).exists() {
        true => vec![path.into()],
        false => parts(path).map(root).collect(),
    }
}

/// The folder that a path begins with, up to the first part that is a pattern.
fn root(path: &str) -> PathBuf {
    let is_plain = |part: &std::path::Component<'_>| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']);
    Path::new(path).components().take_while(is_plain).collect()
}

fn nothing(path: &str) -> Error {
    Error::not_found(format!("there are no files in \"{path}\""))
        .with_hint("Put files there first, or write follow = true to wait for them.")
}

fn guess_format(path: &str, folder: Option<&str>, follow: bool, owner: &str) -> Result<Format> {
    let files = match list(path, folder) {
        // What is followed may be away; its name stays.
        Err(e) if follow && e.kind() == ErrorKind::NotFound => vec![],
        files => files?,
    };
    let mut formats: Vec<Format> = files.iter().filter_map(|f| Format::of_name(&f.name)).collect();
    if let Some(named) = Format::of_name(path).filter(|_| formats.is_empty()) {
        formats.push(named);
    }
    formats.sort_by_key(|f| f.name());
    formats.dedup();
    match formats.as_slice() {
        [one] => Ok(*one),
        [] => Err(Error::invalid(format!("{owner} does not say the format of \"{path}\""))
            .with_hint("Add format = 'json', 'csv', 'parquet' or 'arrow'.")),
        several => {
            let names: Vec<_> = several.iter().map(|f| f.name()).collect();
            Err(Error::invalid(format!("\"{path}\" has files of several formats: {}", names.join(", ")))
                .with_hint("Write a path that means files of one format, like 'data/*.csv'."))
        }
    }
}
