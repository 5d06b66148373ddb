//! What there is to read: files to units, once or again and again.
//!
//! A look lists the files and passes over those that are as they were. A known file that has changed or is not at its
//! place is looked for ([`Finder`]); what is left of the listing is new. Files that grow are taken up to their last
//! whole line, others when they are whole.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::find::{Finder, Found, Fresh, News, open};
use super::known::{Kind, Known, Place, SavedFiles, save};
use super::names;
use super::options::FileOptions;
use super::print::{Likeness, Stamp};
use super::queue::{Input, Queue};
use crate::connector::Offsets;
use crate::error::{Error, Result};
use crate::format::Format;
use crate::format::compression::Compression;
use crate::format::form::Form;

/// The bytes of a unit of text: enough to make its cost small, few enough to spread over tasks.
const UNIT_BYTES: Range<u64> = 1 << 20..8 << 20;
/// For how long a file that is away is looked for beside its place.
const SEARCH: Duration = Duration::from_secs(60);

pub(super) const ROTATE: &str = "A file that rotation renames or compresses in its folder is followed; one that is removed, or cut without \
                      a copy beside it, cannot be. To read the file of this name from its start, drop the stream and create \
                      it again.";

/// A file that cannot be taken yet, as it was when it was seen last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) stamp: Stamp,
    pub(super) since: Instant,
    /// It looks like a copy of a file that is known.
    pub(super) copy: bool,
    /// The last look that saw it.
    pub(super) round: u64,
}

/// Finds files and their units. Blocks on the file system.
#[derive(Debug)]
pub(super) struct Scanner {
    pub(super) options: FileOptions,
    /// The name of the event-time column.
    pub(super) event_time: Option<String>,
    parallelism: u64,
    /// The least and the most bytes of a unit of text.
    pub(super) unit_bytes: Range<u64>,
    pub(super) consumed: Offsets,
    pub(super) known: HashMap<Arc<str>, Known>,
    pub(super) by_path: HashMap<PathBuf, Arc<str>>,
    /// The folders with files, as they were when they were looked into last, and when that was.
    pub(super) folders: HashMap<PathBuf, Option<(Option<SystemTime>, Instant)>>,
    pub(super) waiting: HashMap<PathBuf, Waiting>,
    /// Files that may have to be taken again although they stay as they are.
    pub(super) tended: BTreeSet<Arc<str>>,
    /// Names held open, the one that grew last at the end.
    pub(super) held: Vec<Arc<str>>,
    pub(super) finder: Finder,
    /// How many looks there were.
    pub(super) round: u64,
}

impl Scanner {
    pub(super) fn new(options: FileOptions, event_time: Option<String>, parallelism: usize) -> Self {
        Scanner {
            options,
            event_time,
            parallelism: parallelism.max(1) as u64,
            unit_bytes: UNIT_BYTES,
            consumed: Offsets::default(),
            known: HashMap::new(),
            by_path: HashMap::new(),
            folders: HashMap::new(),
            waiting: HashMap::new(),
            tended: BTreeSet::new(),
            held: vec![],
            finder: Finder::default(),
            round: 0,
        }
    }

    /// Takes up what an earlier run has left, and finds all units that it has not consumed.
    pub(super) fn start(&mut self, consumed: &Offsets, saved: SavedFiles, queue: &Mutex<Queue>) -> Result<()> {
        self.consumed = consumed.clone();
        for (name, saved) in saved {
            let told = saved.aside.clone();
            // What was put aside after the checkpoint is put aside again.
            let is_told = told.as_ref().is_some_and(|(at, _)| consumed.gaps(&name, *at..at + 1).is_empty());
            if told.is_some() && !is_told && !consumed.splits.contains_key(&name) {
                continue;
            }
            let mut known = saved.restore(&name, |compression| self.kind_of(compression));
            let name: Arc<str> = name.into();
            let mut input = Input::new(name.clone(), known.path.clone(), known.compression);
            if let Some((at, reasons)) = told.filter(|_| is_told) {
                (input.aside, input.told) = (Some(at), reasons);
            } else {
                known.frozen = false;
            }
            if known.frozen {
                input.end = known.ended;
            }
            input.identity = known.identity.filter(|_| self.options.follow);
            input.print = (known.kind == Kind::Lines).then_some(known.print);
            if let Some(folder) = known.path.parent() {
                self.folders.entry(folder.to_owned()).or_default();
            }
            self.by_path.insert(known.path.clone(), name.clone());
            queue.lock().add_input(input);
            self.known.insert(name, known);
        }
        self.look(queue)
    }

    /// Looks for what there is, and what has changed since the last look.
    pub(super) fn look(&mut self, queue: &Mutex<Queue>) -> Result<()> {
        self.round += 1;
        self.finder.forget();
        let mut news = self.changed(queue)?;
        let families = self.families();
        self.place(&mut news, queue)?;
        self.between(&families, &news, queue)?;
        let rest: Vec<Fresh> = news.rest().collect();
        let paths: HashSet<PathBuf> = rest.iter().map(|fresh| fresh.file.path.clone()).collect();
        for fresh in rest {
            self.take(fresh.file, fresh.stamp, &paths, queue)?;
        }
        self.tend(queue)?;
        let round = self.round;
        self.waiting.retain(|_, w| w.round == round);
        Ok(())
    }

    /// What is to be kept of the files with a checkpoint.
    pub(super) fn save(&self, queue: &Mutex<Queue>) -> SavedFiles {
        save(self.known.iter(), &queue.lock())
    }

    pub(super) fn is_first(&self) -> bool {
        self.round == 1
    }

    /// How a file that is compressed like that is read.
    pub(super) fn kind_of(&self, compression: Compression) -> Kind {
        match (self.options.format, compression) {
            (Format::Parquet, _) => Kind::Parquet,
            (Format::Json | Format::Csv, Compression::None) if self.options.follow => Kind::Lines,
            (Format::Json | Format::Csv, Compression::None) => Kind::Text,
            _ => Kind::Stream,
        }
    }

    /// Lists the files; gives those that are not known as they are.
    fn changed(&mut self, queue: &Mutex<Queue>) -> Result<News> {
        let mut news = News::default();
        let files = self.options.list_again()?;
        // There is nothing to tell them from: opening them is enough.
        let all_new = self.known.is_empty() && !self.options.follow && files.iter().all(|file| file.plain);
        if all_new {
            files.into_iter().try_for_each(|file| self.add(file, None, Place::Listed, queue))?;
            return Ok(news);
        }
        for file in files {
            let metadata = match std::fs::metadata(&file.path) {
                Ok(metadata) => metadata,
                // It went between the listing and now, or cannot be looked at.
                Err(_) if self.options.follow => continue,
                Err(e) => {
                    let e = Error::from(e).context(format_args!("file \"{}\"", file.name));
                    self.refuse(&file, None, e, queue)?;
                    continue;
                }
            };
            if !metadata.is_file() && !file.alone {
                continue;
            }
            let stamp = Stamp::of(&metadata);
            if !self.is_as_it_was(&file.path, stamp) {
                news.add(file, stamp);
            }
        }
        // Rotated files are in no listing.
        let beside: Vec<PathBuf> =
            self.known.values().filter(|k| k.place == Place::Beside).map(|k| k.path.clone()).collect();
        for path in beside {
            if let Ok(metadata) = std::fs::metadata(&path) {
                self.is_as_it_was(&path, Stamp::of(&metadata));
            }
        }
        Ok(news)
    }

    fn is_as_it_was(&mut self, path: &Path, stamp: Stamp) -> bool {
        let known = self.by_path.get(path).and_then(|name| self.known.get_mut(name));
        let Some(known) = known.filter(|k| k.stamp == Some(stamp)) else { return false };
        known.round = self.round;
        true
    }

    /// Finds the known files that are not as they were: by their place on the disk first, since two files may begin
    /// alike.
    fn place(&mut self, news: &mut News, queue: &Mutex<Queue>) -> Result<()> {
        let mut names: Vec<Arc<str>> = vec![];
        for (name, known) in &mut self.known {
            let away = match known.place {
                Place::Away(since) => Some(since.elapsed()),
                _ => None,
            };
            if known.round == self.round || away.is_some_and(|t| news.is_empty() && t > SEARCH) {
                continue;
            }
            // Lines that follow an odd header are as odd; anything else that changes is worth another look.
            known.frozen |= known.is_taken_whole() && queue.lock().input(name).is_some_and(|i| i.odd);
            names.push(name.clone());
        }
        names.sort_unstable();
        names.retain(|name| !self.is_still_refused(name, news));
        for by_place in [true, false] {
            let mut open = vec![];
            for name in names {
                match self.find(&name, news, by_place) {
                    Some(found) => self.found(&name, found, news, queue)?,
                    None => open.push(name),
                }
            }
            names = open;
        }
        names.retain(|name| !self.is_being_written(name, news));
        names.into_iter().try_for_each(|name| self.lost(&name, news, queue))
    }

    /// Whether a file that could not be read at all still cannot.
    fn is_still_refused(&mut self, name: &Arc<str>, news: &mut News) -> bool {
        let Some(known) = self.known.get_mut(name).filter(|k| k.frozen) else { return false };
        let Some(fresh) = news.at(&known.path) else { return false };
        let same = known.identity == Some(fresh.stamp.identity) && known.print.at() == fresh.stamp.size;
        if !same || open(&known.path).is_ok() {
            return false;
        }
        (known.stamp, known.round, known.place) = (Some(fresh.stamp), self.round, Place::Listed);
        let path = known.path.clone();
        news.take(&path);
        true
    }

    /// Whether a file that is taken as a whole is being written anew, the same as far as it goes.
    fn is_being_written(&mut self, name: &Arc<str>, news: &mut News) -> bool {
        let Some(known) = self.known.get(name).filter(|k| k.kind != Kind::Lines && !k.frozen) else { return false };
        let (path, print) = (known.path.clone(), known.print);
        let Some(stamp) = news.at(&path).map(|fresh| fresh.stamp).filter(|_| self.options.follow) else { return false };
        let short = |(file, _)| matches!(print.compare(&file, Compression::None), Ok(Likeness::Short));
        if self.waited(&path, stamp) >= self.options.settle || !open(&path).is_ok_and(short) {
            return false;
        }
        news.take(&path);
        true
    }

    fn find(&mut self, name: &Arc<str>, news: &News, by_place: bool) -> Option<Found> {
        let known = self.known.get(name)?;
        // Only what may have grown since is worth a search; without `follow` a file is what its path means.
        let deep = self.options.follow
            && match known.place {
                Place::Away(since) => since.elapsed() <= SEARCH,
                _ => known.kind == Kind::Lines,
            };
        if by_place {
            return self.finder.by_identity(&self.options, name, known, news, deep);
        }
        let (by_path, all, round) = (&self.by_path, &self.known, self.round);
        let is_free = |path: &Path| {
            let owner = by_path.get(path).filter(|owner| *owner != name);
            owner.and_then(|owner| all.get(owner)).is_none_or(|owner| owner.round != round)
        };
        self.finder.by_content(&self.options, name, known, news, deep, is_free)
    }

    /// A known file is here now.
    fn found(&mut self, name: &Arc<str>, found: Found, news: &mut News, queue: &Mutex<Queue>) -> Result<()> {
        let listed = news.at(&found.path).is_some();
        news.take(&found.path);
        let (kind, round) = (self.kind_of(found.compression), self.round);
        let Some(known) = self.known.get_mut(name) else { return Ok(()) };
        let before = std::mem::replace(&mut known.path, found.path.clone());
        if known.stamp != Some(found.stamp) {
            known.since = Instant::now();
            // A name is no reason to read it again.
            known.pending |=
                known.kind != Kind::Stream || known.taken.is_none() || known.print.at() != found.stamp.size;
        }
        (known.stamp, known.modified) = (Some(found.stamp), known.modified.max(found.stamp.modified));
        known.identity = Some(found.stamp.identity);
        known.place = if listed { Place::Listed } else { Place::Beside };
        (known.round, known.gone) = (round, false);
        let moved = before != found.path;
        known.rotated |= moved;
        known.compression = found.compression;
        if known.kind == Kind::Lines && kind != Kind::Lines {
            // From here on it is known by its compressed bytes.
            known.queued = known.queued.max(known.print.at());
            (known.kind, known.file, known.pending) = (kind, None, true);
        }
        if self.by_path.get(&before).is_some_and(|owner| owner == name) {
            self.by_path.remove(&before);
        }
        self.by_path.insert(found.path.clone(), name.clone());
        if let Some(input) = queue.lock().input_mut(name) {
            (input.path, input.compression) = (found.path.clone(), found.compression);
            (input.refused, input.vanished) = (None, false);
            input.identity = self.options.follow.then_some(found.stamp.identity);
            if kind != Kind::Lines {
                (input.file, input.print) = (None, None);
            } else {
                input.end = None;
            }
        }
        self.again(name, &found.file, found.stamp, queue)
    }

    /// A known file is nowhere.
    fn lost(&mut self, name: &Arc<str>, news: &News, queue: &Mutex<Queue>) -> Result<()> {
        let Some(known) = self.known.get(name) else { return Ok(()) };
        let replaced = news.at(&known.path);
        let read = self.consumed.prefix(name).max(known.queued);
        if known.print.at() == 0 && read == 0 && known.file.is_none() && !known.is_away() {
            // Nothing was read of it: what has its name is as good.
            if let Some(input) = queue.lock().input_mut(name) {
                input.end = Some(0);
            }
            self.by_path.remove(&known.path);
            self.known.remove(name);
            return Ok(());
        }
        let aside = queue.lock().input(name).is_some_and(|i| i.aside.is_some());
        let cut = replaced.is_some_and(|fresh| known.identity == Some(fresh.stamp.identity));
        let held = known.file.is_some() && !cut;
        let grows = known.kind == Kind::Lines && !self.was_rotated(known);
        if let Some(fresh) = replaced
            && !aside
            && !held
            && !known.gone
            && (grows || !self.options.follow)
        {
            let at = known.print.at();
            let message = match cut && fresh.stamp.size < at {
                true => {
                    format!("was cut from {at} to {} bytes, and no copy of it is found beside it", fresh.stamp.size)
                }
                false => format!(
                    "was replaced by another file after {at} bytes of it were taken, and is not found beside it"
                ),
            };
            return Err(Error::data(format!("file \"{name}\" {message}")).with_hint(ROTATE));
        }
        let first = self.is_first();
        let unread = if first { self.cut(name, 0..known.print.at()) } else { vec![] };
        let Some(known) = self.known.get_mut(name) else { return Ok(()) };
        known.gone |= held && replaced.is_some();
        if first && matches!(known.kind, Kind::Lines | Kind::Text) && !aside {
            // What was seen of it and has not been read waits for it.
            known.queued = known.print.at();
            queue.lock().add_units(name, unread, true);
        }
        if !known.is_away() {
            known.place = Place::Away(Instant::now());
            known.stamp = None;
            if let (Kind::Lines, Some(input)) = (known.kind, queue.lock().input_mut(name)) {
                // It does not hold the watermark.
                input.end = Some(known.queued);
            }
        }
        Ok(())
    }

    /// Whether a file was rotated before, so that it will not have grown any more when its name was used again.
    fn was_rotated(&self, known: &Known) -> bool {
        let name = known.file_name();
        let live = names::live_name(&name);
        known.rotated || (live != name && self.by_path.contains_key(&known.path.with_file_name(live)))
    }

    /// What has not been consumed of `range`, in pieces.
    pub(super) fn cut(&self, name: &str, range: Range<u64>) -> Vec<Range<u64>> {
        let step = ((range.end - range.start) / self.parallelism).clamp(self.unit_bytes.start, self.unit_bytes.end);
        // Quotes can only be followed from the start, and both halves of a change are read together: such a file is one piece.
        let one = match self.options.format {
            Format::Csv => self.options.csv.newlines_in_values || self.options.csv.form == Form::Ops,
            _ => self.options.json.form == Form::Ops,
        };
        let pieces = |gap: Range<u64>| {
            let step = if one { u64::MAX } else { step };
            let end = gap.end;
            std::iter::successors(Some(gap.start), move |s| s.checked_add(step).filter(|s| *s < end))
                .map(move |s| s..s.saturating_add(step).min(end))
        };
        self.consumed.gaps(name, range).into_iter().flat_map(pieces).collect()
    }
}
