//! Where a file has gone that is not as it was: renamed by rotation, compressed by it, copied and cut, or replaced.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::known::{Kind, Known};
use super::listing::FoundFile;
use super::names;
use super::options::FileOptions;
use super::print::{Likeness, Stamp};
use crate::format::compression::Compression;

/// A file of a listing that is not known, or not as it was.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) file: FoundFile,
    pub(super) stamp: Stamp,
    taken: bool,
}

/// The fresh files of a listing.
#[derive(Debug, Default)]
pub(super) struct News {
    files: Vec<Fresh>,
    by_path: HashMap<PathBuf, usize>,
    by_identity: HashMap<super::print::Identity, usize>,
    /// By the name before rotation.
    by_live: HashMap<String, Vec<usize>>,
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

impl News {
    pub(super) fn add(&mut self, file: FoundFile, stamp: Stamp) {
        let i = self.files.len();
        self.by_path.insert(file.path.clone(), i);
        self.by_identity.insert(stamp.identity, i);
        self.by_live.entry(names::live_name(&name_of(&file.path))).or_default().push(i);
        self.files.push(Fresh { file, stamp, taken: false });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    fn get(&self, i: Option<&usize>) -> Option<&Fresh> {
        i.and_then(|i| self.files.get(*i)).filter(|f| !f.taken)
    }

    /// The fresh file at `path` that nobody has taken.
    pub(super) fn at(&self, path: &Path) -> Option<&Fresh> {
        self.get(self.by_path.get(path))
    }

    /// Whether the listing has a fresh file at `path`, taken or not.
    pub(super) fn lists(&self, path: &Path) -> bool {
        self.by_path.contains_key(path)
    }

    /// The file at `path` is one that is known.
    pub(super) fn take(&mut self, path: &Path) {
        if let Some(fresh) = self.by_path.get(path).and_then(|i| self.files.get_mut(*i)) {
            fresh.taken = true;
        }
    }

    /// Those that are new.
    pub(super) fn rest(self) -> impl Iterator<Item = Fresh> {
        self.files.into_iter().filter(|f| !f.taken)
    }
}

/// A file that was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) file: Arc<File>,
    pub(super) stamp: Stamp,
    pub(super) compression: Compression,
}

/// Opens the file at `path`, with what it is now.
pub(super) fn open(path: &Path) -> io::Result<(Arc<File>, Stamp)> {
    let file = File::open(path)?;
    let stamp = Stamp::of(&file.metadata()?);
    Ok((Arc::new(file), stamp))
}

/// A file beside another, with its number on the device.
type Entry = (PathBuf, Option<u64>);

/// Looks for files. Folders are read once in a look.
#[derive(Debug, Default)]
pub(super) struct Finder {
    folders: HashMap<PathBuf, Arc<Vec<Entry>>>,
    /// Files that were compared with a known one and are not it, as they were.
    refused: HashSet<(Arc<str>, PathBuf, Stamp)>,
}

impl Finder {
    /// Begins another look.
    pub(super) fn forget(&mut self) {
        self.folders.clear();
        if self.refused.len() > 10_000 {
            self.refused.clear();
        }
    }

    /// The regular files in the folder of `path`.
    pub(super) fn beside(&mut self, path: &Path) -> Arc<Vec<Entry>> {
        let folder = path.parent().unwrap_or(Path::new(""));
        if let Some(entries) = self.folders.get(folder) {
            return entries.clone();
        }
        let real = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let mut entries = vec![];
        for entry in fs::read_dir(real).into_iter().flatten().flatten() {
            #[cfg(unix)]
            let number = Some(std::os::unix::fs::DirEntryExt::ino(&entry));
            #[cfg(not(unix))]
            let number = None;
            if entry.file_type().is_ok_and(|t| t.is_file()) {
                entries.push((folder.join(entry.file_name()), number));
            }
        }
        entries.sort_unstable();
        let entries = Arc::new(entries);
        self.folders.insert(folder.to_owned(), entries.clone());
        entries
    }

    /// The file that has the place on the disk of `known` and begins with what was read of it.
    pub(super) fn by_identity(
        &mut self,
        options: &FileOptions,
        name: &Arc<str>,
        known: &Known,
        news: &News,
        deep: bool,
    ) -> Option<Found> {
        let identity = known.identity?;
        if let Some(fresh) = news.get(news.by_identity.get(&identity)) {
            let path = fresh.file.path.clone();
            return self.compare(options, name, known, &path, true);
        }
        if let Some(found) = self.compare(options, name, known, &known.path, true)
            && found.stamp.identity == identity
        {
            return Some(found);
        }
        if !deep {
            return None;
        }
        let number = identity.number()?;
        let entries = self.beside(&known.path);
        let same = entries.iter().filter(|(_, n)| *n == Some(number));
        same.filter_map(|(path, _)| self.compare(options, name, known, path, true))
            .find(|found| found.stamp.identity == identity)
    }

    /// The file that begins with what was read of `known`: at its path, or under a name that rotation may have
    /// given to it. `is_free` says whether a path is nobody else's.
    pub(super) fn by_content(
        &mut self,
        options: &FileOptions,
        name: &Arc<str>,
        known: &Known,
        news: &News,
        deep: bool,
        is_free: impl Fn(&Path) -> bool,
    ) -> Option<Found> {
        if known.print.at() == 0 {
            return None;
        }
        if let Some(found) = self.compare(options, name, known, &known.path, false)
            && (news.at(&known.path).is_some() || is_free(&known.path))
        {
            return Some(found);
        }
        let file_name = known.file_name();
        let relatives = news.by_live.get(&names::live_name(&file_name)).into_iter().flatten();
        let mut paths: Vec<PathBuf> =
            relatives.filter_map(|i| news.get(Some(i))).map(|fresh| fresh.file.path.clone()).collect();
        if deep && known.kind == Kind::Lines {
            let entries = self.beside(&known.path);
            let may_be = |path: &Path| names::may_be(&name_of(path), &file_name) && is_free(path) && !news.lists(path);
            paths.extend(entries.iter().map(|(path, _)| path).filter(|path| may_be(path)).cloned());
        }
        paths
            .iter()
            .filter(|path| **path != known.path)
            .find_map(|path| self.compare(options, name, known, path, false))
    }

    /// The file at `path` where it begins with what was read of `known`. Without a fingerprint the place on the
    /// disk is enough, where it counts.
    fn compare(
        &mut self,
        options: &FileOptions,
        name: &Arc<str>,
        known: &Known,
        path: &Path,
        by_place: bool,
    ) -> Option<Found> {
        let (file, stamp) = open(path).ok()?;
        if by_place && known.identity != Some(stamp.identity) {
            return None;
        }
        let key = (name.clone(), path.to_owned(), stamp);
        if self.refused.contains(&key) || (known.frozen && stamp.size != known.print.at()) {
            return None;
        }
        let compression = match known.kind {
            Kind::Lines => options.compression_of(&path.to_string_lossy()),
            _ => known.compression,
        };
        // A file that grows is known by its lines, others by their bytes as they lie there.
        let around = if known.kind == Kind::Lines { compression } else { Compression::None };
        if let Ok(Likeness::Same) = known.print.compare(&file, around) {
            return Some(Found { path: path.to_owned(), file, stamp, compression });
        }
        self.refused.insert(key);
        None
    }
}
