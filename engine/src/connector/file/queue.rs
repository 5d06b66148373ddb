//! The files that are read and the units of them that wait; shared by the source, its readers and the scanner.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::print::{Identity, Print};
use crate::connector::{Reach, Split, Unit};
use crate::format::columnar::ParquetFile;
use crate::format::compression::Compression;
use crate::time::EventTime;

/// A file as its readers see it.
#[derive(Clone, Debug)]
pub(super) struct Input {
    pub(super) name: Arc<str>,
    /// Where it is now.
    pub(super) path: PathBuf,
    /// What must be found there; whatever is, when `None`.
    pub(super) identity: Option<Identity>,
    /// Held open, so that it can be read whatever becomes of its name.
    pub(super) file: Option<Arc<File>>,
    pub(super) compression: Compression,
    /// Of what has been queued of it, where it may be cut at any time.
    pub(super) print: Option<Print>,
    /// Its footer, where it has one.
    pub(super) parquet: Option<ParquetFile>,
    /// Where it ends, once known.
    pub(super) end: Option<u64>,
    pub(super) min_time: Option<EventTime>,
    /// Whether an end that is missing may still come.
    pub(super) patient: bool,
    /// It has been away for so long that this is to be told.
    pub(super) vanished: bool,
    /// Why no unit of it can be read.
    pub(super) refused: Option<String>,
    /// A unit that reads on to the end of the file is queued or being read.
    pub(super) reading: bool,
    /// How far units that read on to the end have come.
    pub(super) reached: u64,
    /// What is missing where a patient reader came to the end.
    pub(super) missing: Option<String>,
    /// Where it was first put aside, and the reasons that have been told.
    pub(super) aside: Option<u64>,
    /// It is not such a file as the stream is made of: it lacks a column.
    pub(super) odd: bool,
    pub(super) told: Vec<String>,
    /// Whether any unit of it has been handed out, or all was consumed before.
    touched: bool,
    queued: usize,
}

impl Input {
    pub(super) fn new(name: Arc<str>, path: PathBuf, compression: Compression) -> Self {
        Input {
            name,
            path,
            identity: None,
            file: None,
            compression,
            print: None,
            parquet: None,
            end: None,
            min_time: None,
            patient: false,
            vanished: false,
            refused: None,
            reading: false,
            reached: 0,
            missing: None,
            aside: None,
            odd: false,
            told: vec![],
            touched: false,
            queued: 0,
        }
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Queue {
    inputs: Vec<Input>,
    by_name: HashMap<Arc<str>, usize>,
    units: VecDeque<Unit>,
    /// Units whose file was not where it should be.
    returned: Vec<Unit>,
}

impl Queue {
    /// Takes the next unit.
    pub(super) fn pop(&mut self) -> Option<Unit> {
        let unit = self.units.pop_front()?;
        if let Some(input) = self.input_mut(&unit.split) {
            input.touched = true;
            input.queued = input.queued.saturating_sub(1);
        }
        Some(unit)
    }

    /// The file of this name.
    pub(super) fn input(&self, name: &str) -> Option<&Input> {
        self.by_name.get(name).and_then(|i| self.inputs.get(*i))
    }

    /// The file of this name, to be changed.
    pub(super) fn input_mut(&mut self, name: &str) -> Option<&mut Input> {
        self.by_name.get(name).and_then(|i| self.inputs.get_mut(*i))
    }

    /// Whether any of the file of this name has been handed out, or all of it was consumed before.
    pub(super) fn is_touched(&self, name: &str) -> bool {
        self.input(name).is_some_and(|input| input.touched)
    }

    /// Whether no units wait.
    pub(super) fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// A reader has found the end of a file.
    pub(super) fn set_end(&mut self, name: &str, end: u64) {
        if let Some(input) = self.input_mut(name) {
            (input.end, input.reached) = (Some(end), end);
            (input.reading, input.missing) = (false, None);
        }
    }

    /// A patient reader has come to where more must follow.
    pub(super) fn set_missing(&mut self, name: &str, at: u64, why: String) {
        if let Some(input) = self.input_mut(name) {
            (input.end, input.reached) = (None, at);
            (input.reading, input.missing) = (false, Some(why));
        }
    }

    /// Notes that the file is put aside from `at` on; whether this reason has not been told before. `odd`: it is
    /// about the file, not a part of it.
    pub(super) fn put_aside(&mut self, name: &str, at: u64, why: &str, odd: bool) -> bool {
        let Some(input) = self.input_mut(name) else { return true };
        input.odd |= odd;
        input.aside.get_or_insert(at);
        self.tell(name, why)
    }

    /// Whether this has not been told of the file before.
    pub(super) fn tell(&mut self, name: &str, why: &str) -> bool {
        let Some(input) = self.input_mut(name) else { return true };
        let new = !input.told.iter().any(|t| t == why);
        if new {
            input.told.push(why.to_owned());
        }
        new
    }

    /// The file of `unit` was not where it should be: the unit waits until it has been found.
    pub(super) fn give_back(&mut self, unit: Unit) {
        self.returned.push(unit);
    }

    /// Whether units wait for their file to be found, and takes those of `name`.
    pub(super) fn take_returned(&mut self, name: &str) -> Vec<Unit> {
        self.returned.extract_if(.., |u| &*u.split == name).collect()
    }

    /// The files of which units were given back.
    pub(super) fn returned(&self) -> Vec<Arc<str>> {
        self.returned.iter().map(|u| u.split.clone()).collect()
    }

    /// Whether units of `name` wait or were given back.
    pub(super) fn has_units(&self, name: &str) -> bool {
        self.input(name).is_some_and(|i| i.queued > 0) || self.returned.iter().any(|u| &*u.split == name)
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

    /// How far what waits reaches, by file.
    pub(super) fn there(&self) -> Vec<Reach> {
        let mut ends: HashMap<&Arc<str>, u64> = HashMap::new();
        for unit in &self.units {
            let end = ends.entry(&unit.split).or_default();
            *end = unit.end.max(*end);
        }
        ends.into_iter().map(|(split, end)| Reach { split: split.clone(), end, watermark: None }).collect()
    }

    /// Adds a file, or takes it for the one of its name.
    pub(super) fn add_input(&mut self, input: Input) {
        match self.by_name.get(&input.name) {
            Some(i) if *i < self.inputs.len() => self.inputs[*i] = input,
            _ => {
                self.by_name.insert(input.name.clone(), self.inputs.len());
                self.inputs.push(input);
            }
        }
    }

    /// Queues `ranges` of `name`; `whole` says that there will be no more of it.
    pub(super) fn add_units(&mut self, name: &Arc<str>, ranges: Vec<Range<u64>>, whole: bool) {
        if let Some(input) = self.input_mut(name) {
            input.queued += ranges.len();
            input.reading |= ranges.iter().any(|r| r.end == u64::MAX);
            // A file that was consumed by an earlier run is behind us.
            input.touched |= whole && input.queued == 0;
        }
        self.units.extend(ranges.into_iter().map(|r| Unit { split: name.clone(), start: r.start, end: r.end }));
    }
}
