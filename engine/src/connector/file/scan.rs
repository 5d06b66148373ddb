//! What there is to read: files to units, once or again and again.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, Metadata};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::options::{FileOptions, FoundFile};
use crate::connector::{Offsets, Split, Unit};
use crate::error::{Error, Result};
use crate::format::Format;
use crate::format::columnar::ParquetFile;
use crate::format::compression::Compression;
use crate::time::EventTime;

/// The bytes of a unit of text: enough to make its cost small, few enough to spread over tasks.
const UNIT_BYTES: Range<u64> = 1 << 20..8 << 20;

/// A file and what of it is still to be handed out.
#[derive(Clone, Debug)]
pub(super) struct Input {
    pub(super) name: Arc<str>,
    pub(super) path: PathBuf,
    pub(super) compression: Compression,
    /// Its footer, where it has one.
    pub(super) parquet: Option<ParquetFile>,
    end: Option<u64>,
    min_time: Option<EventTime>,
    /// Whether any unit of it has been handed out, or all was consumed before.
    touched: bool,
    queued: usize,
}

impl Input {
    /// Its size in bytes when it was first seen, where that is how far it is read.
    pub(super) fn size(&self) -> Option<u64> {
        self.end
    }
}

/// The units that wait to be read; shared by the source, its readers and the scanner.
#[derive(Debug, Default)]
pub(super) struct Queue {
    inputs: Vec<Input>,
    by_name: HashMap<Arc<str>, usize>,
    units: VecDeque<Unit>,
}

impl Queue {
    /// Takes the next unit.
    pub(super) fn pop(&mut self) -> Option<Unit> {
        let unit = self.units.pop_front()?;
        if let Some(input) = self.by_name.get(&unit.split).and_then(|i| self.inputs.get_mut(*i)) {
            input.touched = true;
            input.queued -= 1;
        }
        Some(unit)
    }

    /// The file of this name.
    pub(super) fn input(&self, name: &str) -> Option<&Input> {
        self.by_name.get(name).and_then(|i| self.inputs.get(*i))
    }

    /// Whether units wait.
    pub(super) fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// A reader has found the end of a file.
    pub(super) fn set_end(&mut self, name: &str, end: u64) {
        if let Some(input) = self.by_name.get(name).and_then(|i| self.inputs.get_mut(*i)) {
            input.end = Some(end);
        }
    }

    /// The splits. Where files are in time order, the ones behind the first that nobody has begun to
    /// read do not hold the watermark.
    pub(super) fn splits(&self, ordered: bool) -> Vec<Split> {
        let next = self.inputs.iter().position(|i| !i.touched).unwrap_or(self.inputs.len());
        let split = |(i, input): (usize, &Input)| Split {
            name: input.name.clone(),
            end: input.end,
            min_time: input.min_time,
            holds: !ordered || i <= next,
        };
        self.inputs.iter().enumerate().map(split).collect()
    }

    fn add_input(&mut self, input: Input) {
        self.by_name.insert(input.name.clone(), self.inputs.len());
        self.inputs.push(input);
    }

    /// Queues `ranges` of `name`.
    fn add_units(&mut self, name: &Arc<str>, ranges: Vec<Range<u64>>, whole: bool) {
        if let Some(input) = self.by_name.get(name).and_then(|i| self.inputs.get_mut(*i)) {
            input.queued += ranges.len();
            // A file that was consumed by an earlier run is behind us.
            input.touched |= whole && input.queued == 0;
        }
        self.units.extend(ranges.into_iter().map(|r| Unit { split: name.clone(), start: r.start, end: r.end }));
    }
}

/// How far a file has been looked at.
#[derive(Clone, Copy, Debug)]
enum Seen {
    /// Lines are appended; all before has been queued.
    Growing(u64, Identity),
    /// Had this size last time; taken once it keeps it, since it can only be read when it is whole.
    Waiting(u64),
    /// All of it has been queued.
    Whole,
}

/// What tells a file from another that has taken its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    /// Device and number on the device.
    place: Option<(u64, u64)>,
    /// Numbers are given anew when a file is gone.
    created: Option<SystemTime>,
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let place =
            Some((std::os::unix::fs::MetadataExt::dev(metadata), std::os::unix::fs::MetadataExt::ino(metadata)));
        #[cfg(not(unix))]
        let place = None;
        Identity { place, created: metadata.created().ok() }
    }
}

const ROTATE: &str = "Write each period to a file of its own and follow them all with a pattern like 'logs/app-*.log'. To \
                      read this file from its start, drop the stream and create it again.";

fn replaced(name: &str, queued: u64) -> Error {
    Error::data(format!(
        "file \"{name}\" was replaced by another file while it is followed, after {queued} bytes of it were read"
    ))
    .with_hint(ROTATE)
}

/// Finds files and their units. Blocks on the file system.
#[derive(Debug)]
pub(super) struct Scanner {
    options: FileOptions,
    /// The name of the event-time column.
    event_time: Option<String>,
    parallelism: u64,
    /// The least and the most bytes of a unit of text.
    pub(super) unit_bytes: Range<u64>,
    consumed: Offsets,
    seen: HashMap<Arc<str>, Seen>,
}

impl Scanner {
    pub(super) fn new(options: FileOptions, event_time: Option<String>, parallelism: usize) -> Self {
        let parallelism = parallelism.max(1) as u64;
        let (consumed, seen) = (Offsets::default(), HashMap::new());
        Scanner { options, event_time, parallelism, unit_bytes: UNIT_BYTES, consumed, seen }
    }

    /// Finds all units that have not been consumed.
    pub(super) fn start(&mut self, consumed: &Offsets, queue: &Mutex<Queue>) -> Result<()> {
        self.consumed = consumed.clone();
        for file in self.options.list_again()? {
            self.look(file, queue, true)?;
        }
        Ok(())
    }

    /// Looks for what has been added since.
    pub(super) fn again(&mut self, queue: &Mutex<Queue>) -> Result<()> {
        for file in self.options.list_again()? {
            self.look(file, queue, false)?;
        }
        Ok(())
    }

    fn look(&mut self, file: FoundFile, queue: &Mutex<Queue>, first: bool) -> Result<()> {
        let seen = self.seen.get(&file.name).copied();
        if matches!(seen, Some(Seen::Whole)) {
            return Ok(());
        }
        let metadata = match std::fs::metadata(&file.path) {
            Ok(metadata) => metadata,
            Err(_) if !first || self.options.follow => return Ok(()),
            Err(e) => return Err(Error::from(e).context(format_args!("file \"{}\"", file.name))),
        };
        let size = metadata.len();
        let compression = self.options.compression_of(&file.name);
        let name = file.name.clone();
        let grows = self.options.follow && self.options.format.is_text() && compression == Compression::None;
        let now = match seen {
            _ if grows => {
                let identity = Identity::of(&metadata);
                let queued = match seen {
                    Some(Seen::Growing(queued, before)) if before == identity => queued,
                    Some(Seen::Growing(queued, _)) => return Err(replaced(&name, queued)),
                    _ => 0,
                };
                Seen::Growing(self.grow(file, queued, size, queue, seen.is_none())?, identity)
            }
            Some(Seen::Waiting(before)) if before == size => self.whole(file, compression, size, queue)?,
            _ if first => self.whole(file, compression, size, queue)?,
            _ => Seen::Waiting(size),
        };
        self.seen.insert(name, now);
        Ok(())
    }

    /// Queues the whole lines from `queued` on; gives the place up to which all is queued.
    fn grow(&self, file: FoundFile, queued: u64, size: u64, queue: &Mutex<Queue>, new: bool) -> Result<u64> {
        if size < queued {
            let message = format!("file \"{}\" was cut from {queued} to {size} bytes while it is followed", file.name);
            return Err(Error::data(message).with_hint(ROTATE));
        }
        if new {
            self.check_length(&file.name, size, "bytes")?;
        }
        let end = if size > queued { last_line(&file, queued, size)? } else { queued };
        let mut queue = queue.lock();
        let name = file.name.clone();
        if new {
            queue.add_input(input(file, Compression::None, None));
        }
        queue.add_units(&name, self.cut(&name, queued..end), false);
        Ok(end)
    }

    /// Errors when more of a file was read by an earlier run than there is of it: it is not that file any more.
    fn check_length(&self, name: &str, length: u64, unit: &str) -> Result<()> {
        let read = self.consumed.splits.get(name).and_then(|r| r.last()).map_or(0, |r| r.end);
        if length < read {
            let message = format!(
                "file \"{name}\" has {length} {unit}, of which {read} were read before: it was cut or replaced"
            );
            return Err(Error::data(message).with_hint(ROTATE));
        }
        Ok(())
    }

    /// Queues a file that does not change any more.
    fn whole(&self, file: FoundFile, compression: Compression, size: u64, queue: &Mutex<Queue>) -> Result<Seen> {
        let name = file.name.clone();
        let mut input = input(file, compression, None);
        let units = match self.options.format {
            Format::Parquet => {
                let failed = |e| Error::from(e).context(format_args!("file \"{name}\""));
                let parquet = ParquetFile::open(&File::open(&input.path).map_err(failed)?, &name)?;
                input.end = Some(parquet.rows());
                self.check_length(&name, parquet.rows(), "rows")?;
                input.min_time = self.event_time.as_deref().and_then(|column| parquet.min_time(column));
                let gaps = |unit: Range<u64>| self.consumed.gaps(&name, unit);
                let units = parquet.units().into_iter().flat_map(gaps).collect();
                input.parquet = Some(parquet);
                units
            }
            Format::Json | Format::Csv if compression == Compression::None => {
                input.end = Some(size);
                self.check_length(&name, size, "bytes")?;
                self.cut(&name, 0..size)
            }
            // The end shows when it is read.
            _ => std::iter::once(self.consumed.prefix(&name)..u64::MAX).collect(),
        };
        let mut queue = queue.lock();
        queue.add_input(input);
        queue.add_units(&name, units, true);
        Ok(Seen::Whole)
    }

    /// What has not been consumed of `range`, in pieces.
    fn cut(&self, name: &str, range: Range<u64>) -> Vec<Range<u64>> {
        let step = ((range.end - range.start) / self.parallelism).clamp(self.unit_bytes.start, self.unit_bytes.end);
        // Quotes can only be followed from the start, so such a file is one piece.
        let one = self.options.format == Format::Csv && self.options.csv.newlines_in_values;
        let pieces = |gap: Range<u64>| {
            let step = if one { u64::MAX } else { step };
            let end = gap.end;
            std::iter::successors(Some(gap.start), move |s| s.checked_add(step).filter(|s| *s < end))
                .map(move |s| s..s.saturating_add(step).min(end))
        };
        self.consumed.gaps(name, range).into_iter().flat_map(pieces).collect()
    }
}

fn input(file: FoundFile, compression: Compression, end: Option<u64>) -> Input {
    let FoundFile { name, path, .. } = file;
    Input { name, path, compression, parquet: None, end, min_time: None, touched: false, queued: 0 }
}

/// The place behind the last newline of `from..size`; `from` when there is none.
fn last_line(file: &FoundFile, from: u64, size: u64) -> Result<u64> {
    let failed = |e| Error::from(e).context(format_args!("file \"{}\"", file.name));
    let mut open = File::open(&file.path).map_err(failed)?;
    let mut end = size;
    let mut bytes = vec![];
    while end > from {
        let start = from.max(end.saturating_sub(64 << 10));
        bytes.clear();
        open.seek(SeekFrom::Start(start)).map_err(failed)?;
        (&mut open).take(end - start).read_to_end(&mut bytes).map_err(failed)?;
        if let Some(i) = memchr::memrchr(b'\n', &bytes) {
            return Ok(start + i as u64 + 1);
        }
        end = start;
    }
    Ok(from)
}
