//! The options of files, and which files a path means.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::partition::Pruning;
use super::place::{name_in, parts};
use crate::connector::generator::Pace;
use crate::connector::options::Options;
use crate::error::{Error, ErrorKind, Result};
use crate::format::Format;
use crate::format::compression::Compression;
use crate::format::options::{CsvOptions, JsonOptions};

/// The default of `settle`.
const SETTLE: Duration = Duration::from_secs(10);

/// `WITH (…)` of a file source.
#[derive(Clone, Debug)]
pub(crate) struct FileOptions {
    /// A file, a folder or a pattern, or several of them between commas.
    pub(crate) path: String,
    /// What the path was relative to when the stream was created; not a part of the files' names.
    pub(crate) folder: Option<String>,
    /// Whether the names of folders tell the values of columns.
    pub(crate) partitions: bool,
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
    /// Whether a piece of input that cannot be decoded ends the job.
    pub(crate) fail: bool,
    pub(crate) json: JsonOptions,
    pub(crate) csv: CsvOptions,
}

impl FileOptions {
    /// Reads `options`; looks at the files where they do not say the format.
    pub(crate) fn take(mut options: Options) -> Result<Self> {
        let o = &mut options;
        let path = o.required("path", "data/*.csv")?;
        let folder = o.found("folder").map(str::to_owned);
        let named = o.choice("format", &["json", "csv", "parquet", "arrow"])?;
        let partitions = o.flag("partitions")?.unwrap_or(o.found("partitions") == Some("true"));
        let compression = match o.choice("compression", &["auto", "none", "gzip", "zstd"])? {
            Some("none") => Some(Compression::None),
            Some("gzip") => Some(Compression::Gzip),
            Some("zstd") => Some(Compression::Zstd),
            _ => None,
        };
        let follow = o.flag("follow")?.unwrap_or(false);
        let poll_interval = o.duration("poll_interval")?.unwrap_or(Duration::from_millis(100));
        let settle = o.duration("settle")?;
        if settle.is_some() && !follow {
            return Err(Error::invalid(format!("option \"settle\" of {} is for files that are followed", o.owner()))
                .with_hint("Add follow = true, or leave it out."));
        }
        let settle = settle.unwrap_or(SETTLE);
        let ordered = o.flag("ordered")?.unwrap_or(false);
        let rate = Pace::option(o, "rate")?;
        let fail = o.choice("on_error", &["dead_letter", "fail"])? == Some("fail");
        let format = match named.or_else(|| o.found("format")) {
            Some("json") => Format::Json,
            Some("csv") => Format::Csv,
            Some("parquet") => Format::Parquet,
            Some(_) => Format::Arrow,
            None => guess_format(&path, folder.as_deref(), follow, o.owner())?,
        };
        let (json, csv) = match format {
            Format::Json => (JsonOptions::take(o)?, CsvOptions::default()),
            Format::Csv => (JsonOptions::default(), CsvOptions::take(o)?),
            Format::Parquet | Format::Arrow => (JsonOptions::default(), CsvOptions::default()),
        };
        options.finish()?;
        let any_name = named.is_some();
        Ok(FileOptions {
            path,
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
            fail,
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

    fn fit(&self, mut files: Vec<FoundFile>) -> Result<Vec<FoundFile>> {
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

/// A file that a path means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FoundFile {
    /// Its split's name: the path as it was written at CREATE, with what is below it.
    pub(crate) name: Arc<str>,
    pub(crate) path: PathBuf,
    /// Whether the path named this one file.
    pub(super) alone: bool,
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

fn list(path: &str, folder: Option<&str>) -> Result<Vec<FoundFile>> {
    let mut files = vec![];
    if path.contains(',') && !Path::new(path).exists() {
        for part in parts(path) {
            list_one(part, folder, &mut files)?;
        }
    } else {
        list_one(path, folder, &mut files)?;
    }
    for file in &mut files {
        let shown = name_in(&file.name, folder);
        if shown.len() < file.name.len() {
            file.name = shown.into();
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files.dedup_by(|a, b| a.name == b.name);
    Ok(files)
}

fn list_one(path: &str, folder: Option<&str>, files: &mut Vec<FoundFile>) -> Result<()> {
    let at = Path::new(path);
    if at.is_dir() {
        return list_folder(at, files);
    }
    if at.exists() {
        files.push(FoundFile { name: path.into(), path: at.to_owned(), alone: true });
        return Ok(());
    }
    if !path.contains(['*', '?', '[']) {
        let hint = match folder.filter(|folder| path.starts_with(folder)) {
            Some(folder) => format!("It is looked for in \"{folder}\", where the stream was created."),
            None => "Paths are relative to the folder that millstream was started in.".to_owned(),
        };
        let shown = name_in(path, folder);
        return Err(Error::not_found(format!("file \"{shown}\" does not exist")).with_hint(hint));
    }
    let paths = glob::glob(path).map_err(|e| {
        Error::invalid(format!("\"{path}\" is not a pattern: {}", e.msg))
            .with_hint("Use *, ?, [abc] and ** (folders at any depth).")
    })?;
    for found in paths.flatten() {
        if found.is_dir() {
            list_folder(&found, files)?;
        } else {
            files.push(FoundFile { name: found.to_string_lossy().into(), path: found, alone: false });
        }
    }
    Ok(())
}

/// The files in and below `folder`, without the ones that begin with `.` or `_`, which are hidden or
/// not finished by custom. A folder in it may be gone when it is looked into.
fn list_folder(folder: &Path, files: &mut Vec<FoundFile>) -> Result<()> {
    let failed = |e| Error::from(e).context(format_args!("folder \"{}\"", folder.display()));
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_string_lossy().starts_with(['.', '_']) {
            continue;
        }
        let path = entry.path();
        // The type is known from the listing, unless it is a link's.
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() || (kind.is_symlink() && path.is_dir()) {
            match list_folder(&path, files) {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                listed => listed?,
            }
        } else {
            files.push(FoundFile { name: path.to_string_lossy().into(), path, alone: false });
        }
    }
    Ok(())
}
