//! The files that a path means now: those in a folder, or that a pattern fits.

use std::ffi::OsStr;
use std::fs::{DirEntry, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use glob::{Pattern, PatternError};

use super::buckets::{Buckets, urls};
use super::place::{name_in, parts};
use crate::connector::ask;
use crate::error::{Error, ErrorKind, Result};
use crate::pattern::{SPECIAL, no_pattern};
use crate::store::{Object, is_url};

/// A file that a path means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FoundFile {
    /// Its split's name: the path as it was written at CREATE, with what is below it.
    pub(crate) name: Arc<str>,
    pub(crate) path: PathBuf,
    /// Whether the path named this one file.
    pub(super) alone: bool,
    /// Whether it is known to be a regular file.
    pub(super) plain: bool,
    /// As it was listed, where it is an object in a bucket.
    pub(super) object: Option<Object>,
}

impl FoundFile {
    /// Opens it, or what an object holds, of which up to `most` bytes are fetched where that is said. Waits.
    pub(super) fn open(&self, most: Option<u64>) -> Result<File> {
        let Some(object) = &self.object else {
            return File::open(&self.path).map_err(|e| Error::from(e).context(format_args!("file \"{}\"", self.name)));
        };
        let object = object.clone();
        ask(async move { Buckets::of(&object.url)?.fetch(&object.url, Some(&object.version), most).await })
    }

    /// Its bytes, where they are known.
    pub(super) fn bytes(&self) -> Option<u64> {
        match &self.object {
            Some(object) => Some(object.bytes),
            None => std::fs::metadata(&self.path).ok().map(|metadata| metadata.len()),
        }
    }
}

/// Objects, as files.
pub(super) fn listed(objects: Vec<Object>) -> Vec<FoundFile> {
    let file = |object: Object| {
        let (name, path, alone) = (object.url.clone(), PathBuf::from(&*object.url), object.is_named);
        FoundFile { name, path, alone, plain: true, object: Some(object) }
    };
    objects.into_iter().map(file).collect()
}

/// The files that `path` means, by name; `folder` is where it was written.
pub(super) fn list(path: &str, folder: Option<&str>) -> Result<Vec<FoundFile>> {
    if is_url(path) {
        let urls = urls(path)?;
        return Ok(listed(ask(async move { Buckets::open(urls, false)?.list().await })?));
    }
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
        files.push(FoundFile { name: path.into(), path: at.to_owned(), alone: true, plain: false, object: None });
        return Ok(());
    }
    if !path.contains(SPECIAL) {
        let hint = match folder.filter(|folder| path.starts_with(folder)) {
            Some(folder) => format!("It is looked for in \"{folder}\", where the stream was created."),
            None => "Paths are relative to the folder that millstream was started in.".to_owned(),
        };
        let shown = name_in(path, folder);
        return Err(Error::not_found(format!("file \"{shown}\" does not exist")).with_hint(hint));
    }
    let wrong = |e: PatternError| no_pattern(path, &e);
    match at.parent().zip(at.file_name().and_then(OsStr::to_str)) {
        // One folder may have very many files, whose kinds are known from its listing.
        Some((folder, name)) if name.contains(SPECIAL) && !path.contains("**") => {
            let name = Pattern::new(name).map_err(wrong)?;
            let folders = match folder.to_string_lossy() {
                plain if !plain.contains(SPECIAL) => vec![folder.to_owned()],
                pattern => glob::glob(&pattern).map_err(wrong)?.flatten().collect(),
            };
            folders.iter().try_for_each(|folder| list_fitting(folder, &name, files))
        }
        _ => {
            for found in glob::glob(path).map_err(wrong)?.flatten() {
                match found.is_dir() {
                    true => list_folder(&found, files)?,
                    false => push(found, false, files),
                }
            }
            Ok(())
        }
    }
}

fn push(path: PathBuf, plain: bool, files: &mut Vec<FoundFile>) {
    files.push(FoundFile { name: path.to_string_lossy().into(), path, alone: false, plain, object: None });
}

/// The files in `folder` whose names fit `name`, and those in folders whose names do. What cannot be looked into has none.
fn list_fitting(folder: &Path, name: &Pattern, files: &mut Vec<FoundFile>) -> Result<()> {
    let real = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    for entry in std::fs::read_dir(real).into_iter().flatten().flatten() {
        if !entry.file_name().to_str().is_some_and(|found| name.matches(found)) {
            continue;
        }
        let path = folder.join(entry.file_name());
        match kind_of(&entry, &path) {
            Ok(Listed::Folder) => list_folder(&path, files)?,
            Ok(listed) => push(path, listed == Listed::File, files),
            Err(_) => {}
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
        match kind_of(&entry, &path).map_err(failed)? {
            Listed::Folder => match list_folder(&path, files) {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                listed => listed?,
            },
            listed => push(path, listed == Listed::File, files),
        }
    }
    Ok(())
}

/// What a listing says of an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Listed {
    Folder,
    /// A regular file.
    File,
    /// A link to one, or a pipe, a socket, a device.
    Other,
}

fn kind_of(entry: &DirEntry, path: &Path) -> io::Result<Listed> {
    let kind = entry.file_type()?;
    Ok(match kind.is_file() {
        true => Listed::File,
        false if kind.is_dir() || (kind.is_symlink() && path.is_dir()) => Listed::Folder,
        false => Listed::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_means_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for name in
            ["a/1.json", "a/2.csv", "a/.3.json", "a/deep.json/4.json", "a/deep.json/_5.json", "b/6.json", "x[1]/7.json"]
        {
            std::fs::create_dir_all(at(name).parent().expect("a folder")).expect("made");
            std::fs::write(at(name), "").expect("written");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(at("b/6.json"), at("a/link.json")).expect("linked");
            std::os::unix::fs::symlink(at("b"), at("a/linked.json")).expect("linked");
        }
        let links = |names: &[&'static str]| if cfg!(unix) { names.to_vec() } else { vec![] };
        let listed = |pattern: &str| -> Vec<String> {
            let files = list(at(pattern).to_str().expect("text"), None).expect("lists");
            let base = format!("{}/", folder.path().display());
            files.iter().map(|f| f.name.strip_prefix(&base).unwrap_or(&f.name).to_owned()).collect()
        };
        let all =
            [vec!["a/.3.json", "a/1.json", "a/deep.json/4.json"], links(&["a/link.json", "a/linked.json/6.json"])];
        assert_eq!(listed("a/*.json"), all.concat(), "a folder that fits has its files");
        assert_eq!(listed("a/?.json"), ["a/1.json"]);
        assert_eq!(listed("[ab]/[16].json"), ["a/1.json", "b/6.json"]);
        assert_eq!(listed("*/6.json"), ["b/6.json"]);
        assert_eq!(listed("x[[]1]/*"), ["x[1]/7.json"], "brackets that stand for themselves");
        assert_eq!(listed("x[1]"), ["x[1]/7.json"], "a folder that is there is no pattern");
        assert_eq!(listed("b/**/*.json"), ["b/6.json"]);
        let lists = listed(&format!("b/*.json,{}", at("a/2.*").display()));
        assert_eq!(lists, ["a/2.csv", "b/6.json"]);
        assert!(listed("nowhere/*.json").is_empty());
        assert!(list("a/[.json", None).expect_err("no pattern").message().contains("is not a pattern"));
    }
}
