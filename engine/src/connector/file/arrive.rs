//! Files that are new: taken at once, held back while they look like a copy of one that is known, or put aside.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::find::{News, open};
use super::known::{Kind, Known, Place};
use super::listing::FoundFile;
use super::names;
use super::print::{Likeness, Print, Stamp};
use super::queue::{Input, Queue};
use super::scan::{Scanner, Waiting};
use crate::error::{Error, Result};
use crate::format::compression::Compression;

/// For how long after a change of a folder another may have the same time.
const SAME_TIME: Duration = Duration::from_secs(1);

/// Files that rotation has made of one name.
#[derive(Debug, Default)]
pub(super) struct Family {
    /// Whether the file of this name was followed.
    followed: bool,
    /// The last write to any of them that is known.
    last: Option<SystemTime>,
}

/// By the path that is followed.
pub(super) type Families = HashMap<PathBuf, Family>;

/// The name of a split without the number that tells it from others of its path.
fn without_turn(name: &str) -> &str {
    match name.rsplit_once('#') {
        Some((path, turn)) if !turn.is_empty() && turn.bytes().all(|b| b.is_ascii_digit()) => path,
        _ => name,
    }
}

/// Whether the file at `path` begins with all of `file`.
fn is_beginning_of(file: &Arc<File>, stamp: Stamp, path: &Path) -> bool {
    let print = Print::of(file, stamp.size);
    print.is_ok_and(|print| open(path).is_ok_and(|(whole, _)| print.is_of(&whole)))
}

impl Scanner {
    /// The files that lie beside those the path means, and of which some were followed under the name that rotation
    /// changes: when something of each was written last, as far as is known. Empty where no folder has changed.
    pub(super) fn families(&mut self) -> Families {
        let mut changed: HashSet<PathBuf> = HashSet::new();
        for (folder, seen) in &mut self.folders {
            let real = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            let modified = std::fs::metadata(real).and_then(|m| m.modified()).ok();
            let now = Instant::now();
            // Two changes may have one time.
            if seen.is_none_or(|(before, at)| modified != before || now.duration_since(at) < SAME_TIME) {
                changed.insert(folder.clone());
            }
            match seen {
                Some((before, _)) if *before == modified => {}
                _ => *seen = Some((modified, now)),
            }
        }
        let mut families = Families::new();
        if !self.options.follow || changed.is_empty() {
            return families;
        }
        for (name, known) in &self.known {
            let Some(folder) = known.path.parent().filter(|folder| changed.contains(*folder)) else { continue };
            let live = names::live_name(&known.file_name());
            let family = families.entry(folder.join(&live)).or_default();
            family.last = family.last.max(known.modified);
            let first = Path::new(without_turn(name)).file_name().unwrap_or_default().to_string_lossy();
            family.followed |= *first == *live && self.options.format.is_text();
        }
        families.retain(|_, family| family.followed);
        families
    }

    /// Takes files that had the name of a followed one and were rotated between two looks: the path does not mean
    /// them.
    pub(super) fn between(&mut self, families: &Families, news: &News, queue: &Mutex<Queue>) -> Result<()> {
        let mut later = vec![];
        let folders: BTreeSet<PathBuf> = families.keys().filter_map(|path| Some(path.parent()?.to_owned())).collect();
        for folder in folders {
            for (beside, _) in &*self.finder.beside(&folder.join("x")) {
                let name = beside.file_name().unwrap_or_default().to_string_lossy();
                let live = folder.join(names::live_name(&name));
                let Some(family) = families.get(&live).filter(|_| live != *beside) else { continue };
                if news.lists(beside) || self.by_path.contains_key(beside) {
                    continue;
                }
                let Ok((file, stamp)) = open(beside) else { continue };
                if news.at(&live).is_some() && is_beginning_of(&file, stamp, &live) {
                    continue;
                }
                if family.last.is_some() && stamp.modified > family.last && !self.is_copy_beside(&live, &file, beside) {
                    later.push((stamp, live, beside.clone()));
                }
            }
        }
        later.sort_by_key(|(stamp, _, _)| stamp.modified);
        for (stamp, live, beside) in later {
            let name = self.options.name_of(&live);
            let file = FoundFile { name, path: beside, alone: false, plain: false, object: None };
            self.add(file, Some(stamp), Place::Beside, queue)?;
        }
        Ok(())
    }

    /// Whether `file` is a copy of one of the family of `live` that is known, or is being made one.
    fn is_copy_beside(&self, live: &Path, file: &Arc<File>, path: &Path) -> bool {
        let compression = self.options.compression_of(&path.to_string_lossy());
        let is_copy = |known: &Known| {
            let near = known.path.parent() == live.parent() && known.kind == Kind::Lines && known.print.at() > 0;
            near && match known.print.compare(file, compression) {
                Ok(Likeness::Same) => true,
                Ok(Likeness::Short) => !super::whole::is_whole(file, compression),
                _ => false,
            }
        };
        self.known.values().any(is_copy)
    }

    /// For how long the file at `path` has been as it is.
    pub(super) fn waited(&mut self, path: &Path, stamp: Stamp) -> Duration {
        let now = Instant::now();
        let waiting =
            self.waiting.entry(path.to_owned()).or_insert(Waiting { stamp, since: now, copy: false, round: 0 });
        if waiting.stamp != stamp {
            *waiting = Waiting { stamp, since: now, copy: false, round: 0 };
        }
        waiting.round = self.round;
        now.duration_since(waiting.since)
    }

    /// Takes a file that is new, as all of `fresh` are.
    pub(super) fn take(
        &mut self,
        file: FoundFile,
        stamp: Stamp,
        fresh: &HashSet<PathBuf>,
        queue: &Mutex<Queue>,
    ) -> Result<()> {
        if self.options.follow {
            let seen = self.waiting.get(&file.path).is_some_and(|w| w.stamp == stamp);
            let waited = self.waited(&file.path, stamp);
            if self.is_copy(&file, stamp, seen, fresh) && waited < self.options.settle {
                return Ok(());
            }
            // What is written as a whole has been when it rests.
            let kind = self.kind_of(self.options.compression_of(&file.name));
            if kind == Kind::Stream && !seen && !self.is_first() {
                return Ok(());
            }
        }
        self.add(file, Some(stamp), Place::Listed, queue)
    }

    /// Whether a new file begins as one beside it does that is known or as `fresh` as it is, and of which rotation would
    /// make one of this name: it may be about to take its place. `seen` says that nothing has changed since this was
    /// asked last.
    fn is_copy(&mut self, file: &FoundFile, stamp: Stamp, seen: bool, fresh: &HashSet<PathBuf>) -> bool {
        if seen && let Some(waiting) = self.waiting.get(&file.path) {
            return waiting.copy;
        }
        let name = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let live = names::live_name(&name);
        let (_, inner) = Compression::of_name(&name);
        let compression = self.options.compression_of(&name);
        let copy = [live.as_str(), inner].iter().filter(|of| names::is_made_of(&name, of)).any(|of| {
            let Ok((open, now)) = open(&file.path) else { return false };
            let path = file.path.with_file_name(of);
            let known = self.by_path.get(&path).and_then(|owner| self.known.get(owner));
            let Some(known) = known.filter(|k| k.print.at() > 0 && !k.is_away()) else {
                return fresh.contains(&path) && path != file.path && is_beginning_of(&open, now, &path);
            };
            let around = if known.kind == Kind::Lines { compression } else { Compression::None };
            !matches!(known.print.compare(&open, around), Ok(Likeness::Other))
        });
        if let Some(waiting) = self.waiting.get_mut(&file.path).filter(|w| w.stamp == stamp) {
            waiting.copy = copy;
        }
        copy
    }

    /// Adds a file that is not known, as it was when it was looked at.
    pub(super) fn add(
        &mut self,
        file: FoundFile,
        stamp: Option<Stamp>,
        place: Place,
        queue: &Mutex<Queue>,
    ) -> Result<()> {
        let was = stamp.filter(|_| self.options.follow).map(|stamp| stamp.identity);
        let (opened, stamp) = match open(&file.path) {
            // Files change places while a folder is looked at. This may be one that is known.
            Ok((_, now)) if was.is_some_and(|was| was != now.identity) => return Ok(()),
            Ok(opened) => opened,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && self.options.follow => return Ok(()),
            Err(e) => {
                let e = Error::from(e).context(format_args!("file \"{}\"", file.name));
                return self.refuse(&file, stamp, e, queue);
            }
        };
        let compression = self.options.compression_of(&file.path.to_string_lossy());
        if self.kind_of(compression) == Kind::Parquet
            && let Err(e) = super::whole::footer(&opened, &file.name)
        {
            return self.refuse(&file, Some(stamp), e, queue);
        }
        let name = self.introduce(&file, compression, place, stamp, queue);
        self.again(&name, &opened, stamp, queue)
    }

    /// Makes a file known; gives the name of its split.
    fn introduce(
        &mut self,
        file: &FoundFile,
        compression: Compression,
        place: Place,
        stamp: Stamp,
        queue: &Mutex<Queue>,
    ) -> Arc<str> {
        // What an earlier run read without knowing more of it is taken up by its name.
        let taken = |name: &str| self.known.contains_key(name);
        let numbered = |n: u32| Arc::from(format!("{}#{n}", file.name));
        let name = match taken(&file.name) {
            false => file.name.clone(),
            true => (2u32..).map(numbered).find(|name| !taken(name)).unwrap_or_else(|| file.name.clone()),
        };
        let mut known = Known::new(file.path.clone(), self.kind_of(compression), compression);
        (known.identity, known.stamp, known.place) = (Some(stamp.identity), Some(stamp), place);
        known.modified = stamp.modified;
        if let Some(folder) = file.path.parent() {
            self.folders.entry(folder.to_owned()).or_default();
        }
        (known.round, known.pending, known.rotated) = (self.round, true, place == Place::Beside);
        let mut input = Input::new(name.clone(), file.path.clone(), compression);
        input.identity = self.options.follow.then_some(stamp.identity);
        queue.lock().add_input(input);
        self.by_path.insert(file.path.clone(), name.clone());
        self.known.insert(name.clone(), known);
        name
    }

    /// A file that cannot be read at all: it is put aside, where it is followed after it has been like
    /// that for a while.
    pub(super) fn refuse(
        &mut self,
        file: &FoundFile,
        stamp: Option<Stamp>,
        error: Error,
        queue: &Mutex<Queue>,
    ) -> Result<()> {
        if self.options.follow
            && let Some(stamp) = stamp
        {
            // An empty file is one that nothing has been written to yet.
            if stamp.size == 0 || self.waited(&file.path, stamp) < self.options.settle {
                return Ok(());
            }
        }
        if self.options.fail {
            return Err(error);
        }
        let stamp = match stamp {
            Some(stamp) => stamp,
            None => match std::fs::symlink_metadata(&file.path) {
                Ok(metadata) => Stamp::of(&metadata),
                Err(_) => return Err(error),
            },
        };
        let name = self.introduce(file, Compression::None, Place::Listed, stamp, queue);
        let print = open(&file.path).and_then(|(opened, _)| Print::of(&opened, stamp.size));
        if let Some(known) = self.known.get_mut(&name) {
            known.print = print.unwrap_or(Print::none(stamp.size));
            (known.frozen, known.pending) = (true, false);
        }
        let mut queue = queue.lock();
        if let Some(input) = queue.input_mut(&name) {
            (input.refused, input.end) = (Some(error.message().to_owned()), Some(1));
        }
        let units = self.consumed.gaps(&name, 0..1);
        queue.add_units(&name, units, true);
        Ok(())
    }
}
