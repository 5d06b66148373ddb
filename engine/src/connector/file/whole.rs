//! Taking a file that is found: lines up to the last whole one, everything else as far as it is whole.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::known::{Kind, Place};
use super::print::{Print, ReadAt, Stamp, links};
use super::queue::Queue;
use super::scan::{ROTATE, Scanner};
use crate::error::{Error, Result};
use crate::format::columnar::ParquetFile;
use crate::format::compression::Compression;

/// As many files are held open at most.
const HELD: usize = 64;
/// A compressed file that grows is read from its beginning each time: not more often than this many bytes a second.
const AGAIN: u64 = 2 << 20;

/// The footer of a Parquet file.
pub(super) fn footer(file: &Arc<File>, name: &str) -> Result<ParquetFile> {
    let file = file.try_clone().map_err(|e| Error::from(e).context(format_args!("file \"{name}\"")))?;
    ParquetFile::open(&file, name)
}

fn failed(name: &str) -> impl Fn(io::Error) -> Error {
    move |e| Error::from(e).context(format_args!("file \"{name}\""))
}

impl Scanner {
    /// Takes what has been added to the file, which is `file` now.
    pub(super) fn again(
        &mut self,
        name: &Arc<str>,
        file: &Arc<File>,
        stamp: Stamp,
        queue: &Mutex<Queue>,
    ) -> Result<()> {
        let Some(known) = self.known.get(name) else { return Ok(()) };
        match known.kind {
            Kind::Stream if known.frozen => Ok(()),
            Kind::Lines => self.grow(name, file, stamp.size, queue),
            Kind::Text => self.text(name, file, stamp.size, queue),
            Kind::Parquet => self.parquet(name, file, queue),
            Kind::Stream => {
                self.tended.insert(name.clone());
                Ok(())
            }
        }
    }

    /// How far an earlier run has read, with parts that were left out before.
    fn read_before(&self, name: &str) -> u64 {
        self.consumed.splits.get(name).and_then(|r| r.last()).map_or(0, |r| r.end)
    }

    /// Errors when more of a file was read by an earlier run than there is of it: it is not that file any more.
    fn check_length(&self, name: &str, length: u64, unit: &str) -> Result<()> {
        let read = self.read_before(name);
        if length < read {
            let message = format!(
                "file \"{name}\" has {length} {unit}, of which {read} were read before: it was cut or replaced"
            );
            return Err(Error::data(message).with_hint(ROTATE));
        }
        Ok(())
    }

    /// Queues the whole lines behind those that are queued.
    pub(super) fn grow(&mut self, name: &Arc<str>, file: &Arc<File>, size: u64, queue: &Mutex<Queue>) -> Result<()> {
        self.check_length(name, size, "bytes")?;
        let before = self.read_before(name);
        let Some(known) = self.known.get(name) else { return Ok(()) };
        let (queued, least) = (known.queued, known.queued.max(known.print.at()).max(before));
        let end = last_line(file, least, size).map_err(failed(name))?;
        let print = Print::of(file, end).map_err(failed(name))?;
        if print.at() < end || !known.print.is_of(file) {
            // It is being cut: the next look will tell.
            return Ok(());
        }
        let units = self.cut(name, queued..end);
        self.hold(name, file, queue);
        if let Some(known) = self.known.get_mut(name) {
            (known.queued, known.print, known.pending) = (end, print, false);
        }
        let mut queue = queue.lock();
        if let Some(input) = queue.input_mut(name) {
            input.print = Some(print);
        }
        queue.add_units(name, units, false);
        Ok(())
    }

    /// Keeps a file open that may grow, so that the last of it is read whatever its name becomes.
    fn hold(&mut self, name: &Arc<str>, file: &Arc<File>, queue: &Mutex<Queue>) {
        if self.held.last() != Some(name) {
            self.held.retain(|held| held != name);
            self.held.push(name.clone());
        }
        if self.held.len() > HELD {
            let oldest = self.held.remove(0);
            self.let_go(&oldest, queue);
        }
        if let Some(known) = self.known.get_mut(name) {
            known.file = Some(file.clone());
        }
        if let Some(input) = queue.lock().input_mut(name) {
            input.file = Some(file.clone());
        }
    }

    fn let_go(&mut self, name: &Arc<str>, queue: &Mutex<Queue>) {
        if let Some(known) = self.known.get_mut(name) {
            known.file = None;
        }
        if let Some(input) = queue.lock().input_mut(name) {
            input.file = None;
        }
    }

    /// Queues a text file that does not change any more.
    fn text(&mut self, name: &Arc<str>, file: &Arc<File>, size: u64, queue: &Mutex<Queue>) -> Result<()> {
        self.check_length(name, size, "bytes")?;
        let print = Print::of(file, size).map_err(failed(name))?;
        let units = self.cut(name, 0..size);
        if let Some(known) = self.known.get_mut(name) {
            (known.print, known.queued, known.pending) = (print, size, false);
        }
        let mut queue = queue.lock();
        if let Some(input) = queue.input_mut(name) {
            input.end = Some(size);
        }
        queue.add_units(name, units, true);
        Ok(())
    }

    /// Queues the rows of a Parquet file that are not queued yet. One whose footer is being written anew is
    /// taken later.
    fn parquet(&mut self, name: &Arc<str>, file: &Arc<File>, queue: &Mutex<Queue>) -> Result<()> {
        let parquet = match footer(file, name) {
            Ok(parquet) => parquet,
            Err(_) if self.known.get(name).is_some_and(|k| k.frozen) => return Ok(()),
            Err(e) if self.options.follow => {
                tracing::debug!(file = %name, error = %e, "not whole");
                self.tended.insert(name.clone());
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        let rows = parquet.rows();
        self.check_length(name, rows, "rows")?;
        let print = Print::of(file, parquet.data_end()).map_err(failed(name))?;
        let Some(known) = self.known.get_mut(name) else { return Ok(()) };
        let queued = known.queued.min(rows);
        (known.print, known.queued, known.pending) = (print, rows, false);
        let ranges = parquet.units().into_iter().filter_map(|r| (r.end > queued).then(|| r.start.max(queued)..r.end));
        let units = ranges.flat_map(|range| self.consumed.gaps(name, range)).collect();
        let mut queue = queue.lock();
        if let Some(input) = queue.input_mut(name) {
            input.min_time = self.event_time.as_deref().and_then(|column| parquet.min_time(column));
            (input.end, input.parquet) = (Some(rows), Some(parquet));
        }
        queue.add_units(name, units, true);
        Ok(())
    }

    /// Queues a file that is read from its beginning, behind what was read of it. `patient`: where it ends too early,
    /// it may still grow.
    fn stream(
        &mut self,
        name: &Arc<str>,
        file: &Arc<File>,
        size: u64,
        patient: bool,
        queue: &Mutex<Queue>,
    ) -> Result<()> {
        let before = self.read_before(name);
        let Some(known) = self.known.get(name) else { return Ok(()) };
        let first = known.ended.filter(|_| known.print.at() == size);
        let print = Print::of(file, size).map_err(failed(name))?;
        let mut lock = queue.lock();
        let Some(input) = lock.input_mut(name) else { return Ok(()) };
        let last = input.reached.max(before).max(known.queued);
        let again = input.reached > 0 || known.queued > 0;
        let mut units = if again && !self.is_first() { vec![] } else { self.consumed.gaps(name, 0..last) };
        match first {
            // An earlier run has come to its end.
            Some(end) if end <= last => (input.end, input.reached) = (Some(end), end),
            _ => {
                units.push(last..u64::MAX);
                (input.end, input.patient, input.missing) = (None, patient, None);
            }
        }
        lock.add_units(name, units, true);
        drop(lock);
        if let Some(known) = self.known.get_mut(name) {
            (known.print, known.queued, known.ended) = (print, last, None);
            (known.pending, known.taken) = (false, Some(Instant::now()));
        }
        Ok(())
    }

    /// Looks after what does not show in a listing: files that are not whole yet, units that were given back, and
    /// files that are held without a name.
    pub(super) fn tend(&mut self, queue: &Mutex<Queue>) -> Result<()> {
        for name in self.tended.clone() {
            self.tend_one(&name, queue)?;
        }
        let returned = queue.lock().returned();
        for name in returned {
            self.hand_out_again(&name, queue);
        }
        for name in self.held.clone() {
            self.tend_held(&name, queue)?;
        }
        Ok(())
    }

    fn tend_one(&mut self, name: &Arc<str>, queue: &Mutex<Queue>) -> Result<()> {
        let (Some(known), Some(input)) = (self.known.get(name), queue.lock().input(name).cloned()) else {
            self.tended.remove(name);
            return Ok(());
        };
        let settled = !self.options.follow || known.since.elapsed() >= self.options.settle;
        if input.reading || known.is_away() {
            return Ok(());
        }
        if !known.pending && (input.end.is_some() || input.missing.is_none()) {
            self.tended.remove(name);
            return Ok(());
        }
        let Some(stamp) = known.stamp else { return Ok(()) };
        let pace = Duration::from_millis(stamp.size * 1000 / AGAIN);
        let rested = known.taken.is_none_or(|taken| taken.elapsed() >= pace);
        if !rested || (!known.pending && !settled) {
            return Ok(());
        }
        // Nothing is written to it yet.
        if self.options.follow && stamp.size == 0 {
            return Ok(());
        }
        let (path, kind, pending) = (known.path.clone(), known.kind, known.pending);
        let Ok((file, now)) = super::find::open(&path) else { return Ok(()) };
        if now.identity != stamp.identity {
            return Ok(());
        }
        match kind {
            Kind::Parquet => self.parquet(name, &file, queue),
            _ => self.stream(name, &file, stamp.size, self.options.follow && (pending || !settled), queue),
        }
    }

    /// Queues the units of `name` that were given back once it is found, or once more when it is not, to be told of.
    fn hand_out_again(&mut self, name: &Arc<str>, queue: &Mutex<Queue>) {
        let Some(known) = self.known.get(name) else { return };
        let vanished = match known.place {
            Place::Away(since) if known.file.is_none() => {
                if since.elapsed() < self.options.settle {
                    return;
                }
                true
            }
            _ => false,
        };
        let mut queue = queue.lock();
        if vanished {
            let Some(input) = queue.input_mut(name) else { return };
            if std::mem::replace(&mut input.vanished, true) {
                return;
            }
        }
        let units = queue.take_returned(name);
        queue.add_units(name, units.into_iter().map(|u| u.start..u.end).collect(), false);
    }

    /// Reads on in a file that is held without a name, and lets it go when it can grow no more.
    fn tend_held(&mut self, name: &Arc<str>, queue: &Mutex<Queue>) -> Result<()> {
        let Some(known) = self.known.get(name) else { return Ok(()) };
        let (Place::Away(since), Some(file)) = (known.place, known.file.clone()) else { return Ok(()) };
        let metadata = file.metadata().map_err(failed(name))?;
        let queued = known.queued;
        if metadata.len() > queued {
            self.grow(name, &file, metadata.len(), queue)?;
        }
        let Some(known) = self.known.get_mut(name) else { return Ok(()) };
        let end = known.queued;
        if links(&metadata) == 0 && since.elapsed() >= self.options.settle {
            known.gone = true;
            if !queue.lock().has_units(name) {
                self.held.retain(|held| held != name);
                self.let_go(name, queue);
            }
        }
        if let Some(input) = queue.lock().input_mut(name) {
            input.end = Some(end);
        }
        Ok(())
    }
}

/// The place behind the last newline of `from..size`; `from` when there is none.
fn last_line(file: &Arc<File>, from: u64, size: u64) -> io::Result<u64> {
    let mut end = size;
    let mut bytes = vec![];
    while end > from {
        let start = from.max(end.saturating_sub(64 << 10));
        bytes.clear();
        ReadAt { file: file.clone(), at: start }.take(end - start).read_to_end(&mut bytes)?;
        if let Some(i) = memchr::memrchr(b'\n', &bytes) {
            return Ok(start + i as u64 + 1);
        }
        end = start;
    }
    Ok(from)
}

/// The first line of a file, without its newline.
pub(super) fn first_line(file: &Arc<File>, compression: Compression) -> Result<Vec<u8>> {
    let mut line = vec![];
    BufReader::new(compression.reader(ReadAt { file: file.clone(), at: 0 })?).read_until(b'\n', &mut line)?;
    Ok(line)
}

/// The newlines before `position` of the text of a file.
pub(super) fn newlines_before(file: &Arc<File>, compression: Compression, position: u64) -> Result<u64> {
    let mut text = BufReader::new(compression.reader(ReadAt { file: file.clone(), at: 0 })?.take(position));
    let mut count = 0;
    loop {
        let bytes = text.fill_buf()?;
        if bytes.is_empty() {
            return Ok(count);
        }
        count += memchr::memchr_iter(b'\n', bytes).count() as u64;
        let used = bytes.len();
        text.consume(used);
    }
}

/// Whether `file` can be read to its end.
pub(super) fn is_whole(file: &Arc<File>, compression: Compression) -> bool {
    let read = |mut input| io::copy(&mut input, &mut io::sink()).is_ok();
    compression == Compression::None || compression.reader(ReadAt { file: file.clone(), at: 0 }).is_ok_and(read)
}
