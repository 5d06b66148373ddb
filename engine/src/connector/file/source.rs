//! The file source.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion_physical_expr::PhysicalExpr;
use parking_lot::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::aside::{Guarded, Said, put_aside, vanished};
use super::known::SavedFiles;
use super::options::FileOptions;
use super::paced::{Paced, Pacer};
use super::partition::Partition;
use super::print::Stamp;
use super::pruning::Pruning;
use super::queue::{Input, Queue};
use super::scan::Scanner;
use super::units::{ColumnarReader, Report, Text, TextReader, open_text};
use super::whole::{first_line, newlines_before};
use crate::connector::registry::SourceRequest;
use crate::connector::{Intake, Opening, Reach, Read, Readers, Source, Split, Unit, UnitReader};
use crate::error::{Error, Result};
use crate::format::blocks::{Cut, Want};
use crate::format::columnar::{Fit, ipc_reader};
use crate::format::compression::Compression;
use crate::format::form::Form;
use crate::format::metadata::Layout;
use crate::format::{Format, LineDecoder, Place, csv, json};

/// Files to be read.
pub(super) struct FileSource {
    spec: Arc<Spec>,
    /// The name of the event-time column, where statistics may tell of it.
    event_time: Option<String>,
    parallelism: usize,
    /// The bytes of a unit of text, if they are said.
    unit_bytes: Option<u64>,
}

/// Files being read: what the scanner finds, tasks read, and what they tell of it the scanner goes by.
pub(super) struct OpenFiles {
    spec: Arc<Spec>,
    pub(super) queue: Arc<Mutex<Queue>>,
    pub(super) scanner: Arc<Mutex<Scanner>>,
    pacer: Option<Arc<Pacer>>,
    /// When the files were last looked at and how long that took, so that waiting tasks do not all do it.
    looked: tokio::sync::Mutex<(Instant, Duration)>,
}

/// Of the time, looking at the files takes no more than one part of so many.
const IDLE_SHARE: u32 = 10;

/// What is read and how.
struct Spec {
    options: FileOptions,
    /// All columns of the stream, and which are metadata.
    schema: SchemaRef,
    metadata: BTreeSet<usize>,
    layout: Layout,
}

impl FileSource {
    pub(super) fn new(request: SourceRequest) -> Result<Self> {
        let layout = request.layout()?;
        let options = FileOptions::take(request.options)?;
        let compressed = options.compression.is_some_and(|c| c != Compression::None);
        if compressed && !options.format.is_text() {
            return Err(Error::invalid(format!("{} files compress themselves", options.format.name()))
                .with_hint("Leave out option compression."));
        }
        // Statistics tell of what is in the file.
        let event_time = request.event_time.filter(|column| !request.metadata.contains_key(column));
        let event_time = event_time.map(|column| request.schema.field(column).name().clone());
        let metadata = request.metadata.into_keys().collect();
        let spec = Spec { options, schema: request.schema, metadata, layout };
        Ok(FileSource { spec: Arc::new(spec), event_time, parallelism: request.parallelism, unit_bytes: None })
    }

    #[cfg(test)]
    pub(super) fn with_unit_bytes(self, bytes: u64) -> Self {
        FileSource { unit_bytes: Some(bytes), ..self }
    }

    /// Looks for the files, and takes those that are there.
    pub(super) async fn begin(&self, opening: Opening) -> Result<Arc<OpenFiles>> {
        let Opening { consumed, state, conditions, .. } = opening;
        let mut options = self.spec.options.clone();
        options.pruning = (!conditions.is_empty()).then(|| Arc::new(self.spec.pruning(conditions)));
        let pacer = options.rate.map(Pacer::new);
        let mut scanner = Scanner::new(options, self.event_time.clone(), self.parallelism);
        if let Some(bytes) = self.unit_bytes {
            scanner.unit_bytes = bytes..bytes;
        }
        let saved: SavedFiles = state.map(serde_json::from_value).transpose()?.unwrap_or_default();
        let files = OpenFiles {
            spec: self.spec.clone(),
            queue: Arc::default(),
            scanner: Arc::new(Mutex::new(scanner)),
            pacer,
            looked: tokio::sync::Mutex::new((Instant::now(), Duration::ZERO)),
        };
        files.scan(move |scanner, queue| scanner.start(&consumed, saved, queue)).await?;
        Ok(Arc::new(files))
    }
}

#[async_trait]
impl Source for FileSource {
    fn describe(&self) -> String {
        let o = &self.spec.options;
        let follow = if o.follow { ", followed" } else { "" };
        let form = match (o.json.form, o.csv.form) {
            (Form::Debezium, _) => " of Debezium",
            (Form::Ops, _) | (_, Form::Ops) => ", changes",
            _ => "",
        };
        format!("file {} ({}{form}{follow})", o.shown_path(), o.format.name())
    }

    fn bounded(&self) -> bool {
        !self.spec.options.follow
    }

    /// Those that read tell the scanner what has become of a file.
    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> {
        None
    }

    async fn open(self: Arc<Self>, opening: Opening) -> Result<Arc<dyn Intake>> {
        Ok(self.begin(opening).await?)
    }
}

impl OpenFiles {
    /// Runs the scanner on a thread that may block. It works on the shared queue itself, so that nothing
    /// is lost when the caller's future is dropped.
    async fn scan(&self, run: impl FnOnce(&mut Scanner, &Mutex<Queue>) -> Result<()> + Send + 'static) -> Result<()> {
        let (scanner, queue) = (self.scanner.clone(), self.queue.clone());
        spawn_blocking(move || run(&mut scanner.lock(), &queue)).await.map_err(ended_early)?
    }
}

fn ended_early(e: tokio::task::JoinError) -> Error {
    Error::internal(format!("a reading thread ended early: {e}")).with_source(e)
}

#[async_trait]
impl Intake for OpenFiles {
    fn splits(&self) -> Vec<Split> {
        self.queue.lock().splits(self.spec.options.ordered)
    }

    async fn next_unit(&self) -> Result<Option<Unit>> {
        let interval = self.spec.options.poll_interval;
        loop {
            // Nothing is awaited between taking a unit and giving it.
            if let Some(unit) = self.queue.lock().pop() {
                return Ok(Some(unit));
            }
            if !self.spec.options.follow {
                return Ok(None);
            }
            let mut looked = self.looked.lock().await;
            if !self.queue.lock().is_empty() {
                continue;
            }
            tokio::time::sleep_until(looked.0 + interval.max(looked.1 * IDLE_SHARE)).await;
            let begun = Instant::now();
            looked.0 = begun;
            self.scan(Scanner::look).await?;
            *looked = (Instant::now(), begun.elapsed());
        }
    }

    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> {
        Some(self)
    }

    async fn state(&self) -> Result<serde_json::Value> {
        let (scanner, queue) = (self.scanner.clone(), self.queue.clone());
        let save = move || Ok(serde_json::to_value(scanner.lock().save(&queue))?);
        spawn_blocking(save).await.map_err(ended_early)?
    }

    fn there(&self) -> Vec<Reach> {
        self.queue.lock().there()
    }

    async fn place(&self, split: &Arc<str>, from: u64, read: &Read, row: usize) -> Result<Option<String>> {
        let Some(input) = self.queue.lock().input(split).cloned() else { return Ok(None) };
        if !self.spec.options.format.is_text() {
            return Ok(Some(format!("file \"{split}\", row {}", row_number(from, read, row))));
        }
        let spec = self.spec.clone();
        let line = spawn_blocking(move || spec.line_of(&input, from, row)).await.map_err(ended_early)??;
        let line = line.map(|line| format!(", line {line}")).unwrap_or_default();
        Ok(Some(format!("file \"{split}\"{line}")))
    }
}

#[async_trait]
impl Readers for OpenFiles {
    async fn read(&self, unit: &Unit) -> Result<Box<dyn UnitReader>> {
        let input = self.queue.lock().input(&unit.split).cloned();
        let input = input.ok_or_else(|| Error::internal(format!("split \"{}\" is not known", unit.split)))?;
        let (fail, patient) = (self.spec.options.fail, input.patient);
        let report = Report { queue: self.queue.clone(), unit: unit.clone(), fail, patient };
        if input.vanished {
            return Ok(Box::new(vanished(&report, self.spec.layout.schema())?));
        }
        let spec = self.spec.clone();
        let name = unit.split.clone();
        let of_file = report.clone();
        let opened = spawn_blocking(move || spec.open(&input, of_file)).await.map_err(ended_early)?;
        let schema = self.spec.layout.schema();
        let reader: Box<dyn UnitReader> = match opened {
            Ok(Some(reader)) => {
                let (schema, at) = (schema.clone(), unit.start);
                Box::new(Guarded { reader, report, schema, at, done: false })
            }
            // It has been moved since it was looked at.
            Ok(None) => {
                self.queue.lock().give_back(unit.clone());
                Box::new(Said { read: None, whole: false })
            }
            Err(e) => {
                let named = e.message().contains(&*name);
                let e = if named { e } else { e.context(format_args!("file \"{name}\"")) };
                match report.waits(unit.start, &e) {
                    true => Box::new(Said { read: None, whole: true }),
                    false => {
                        let read = put_aside(&report, unit.start, schema, e)?;
                        Box::new(Said { read: Some(read), whole: true })
                    }
                }
            }
        };
        Ok(match &self.pacer {
            Some(pacer) => Box::new(Paced { reader, pacer: pacer.clone() }),
            None => reader,
        })
    }
}

/// The number of a row of a columnar file, from 1. Rows that became dead letters stood between those of `read`.
fn row_number(from: u64, read: &Read, row: usize) -> u64 {
    let dead = read.dead.iter().map(|dead| dead.position);
    1 + dead.fold(from + row as u64, |at, dead| if dead <= at { at + 1 } else { at })
}

impl Spec {
    /// What `conditions` leave to be read.
    fn pruning(&self, conditions: Vec<Vec<Arc<dyn PhysicalExpr>>>) -> Pruning {
        Pruning { schema: self.schema.clone(), metadata: self.metadata.clone(), readers: conditions }
    }

    /// The number of the line on which row `row` begins of those that are read from `from` on, from 1.
    fn line_of(&self, input: &Input, from: u64, row: usize) -> Result<Option<u64>> {
        let Some(file) = self.file(input)? else { return Ok(None) };
        let keys = self.options.keys_of(&input.path);
        let partition = Partition::new(&keys, &self.layout, &input.name, &file)?;
        let mut decoder = self.decoder(input, &file, from, &partition)?;
        let want = self.want(from..u64::MAX, input.compression);
        let cut = want.cut.clone();
        let mut blocks = open_text(file.clone(), input.compression, want, input.end)?;
        let mut before = 0;
        while let Some(block) = blocks.next()? {
            let mut start = 0;
            while start < block.bytes.len() {
                let rest = &block.bytes[start..];
                let record = &rest[..cut.first(rest).unwrap_or(rest.len())];
                let at = block.position + start as u64;
                before += decoder.decode(record, Place { position: at, line: None })?.rows.num_rows();
                if before > row {
                    return Ok(Some(1 + newlines_before(&file, input.compression, at)?));
                }
                start += record.len();
            }
        }
        Ok(None)
    }

    fn want(&self, range: std::ops::Range<u64>, compression: Compression) -> Want {
        let csv = &self.options.csv;
        let records = self.options.format == Format::Csv && csv.newlines_in_values;
        Want {
            start: range.start,
            end: range.end,
            cut: if records { Cut::Record(csv.clone()) } else { Cut::Newline },
            eager: false,
            fragile: (compression != Compression::None).then(|| compression.name()),
        }
    }

    /// Opens the unit of `report`; `None` when the file is not at its place. Blocks on the file system.
    fn open(&self, input: &Input, report: Report) -> Result<Option<Box<dyn UnitReader>>> {
        if let Some(reason) = &input.refused {
            return Err(Error::data(reason.clone()));
        }
        let Some(file) = self.file(input)? else { return Ok(None) };
        let unit = &report.unit;
        let keys = self.options.keys_of(&input.path);
        let partition = Partition::new(&keys, &self.layout, &input.name, &file)?;
        let fit = Fit { schema: partition.projected.clone(), split: input.name.clone() };
        let given = partition.given.clone();
        let own: Box<dyn UnitReader> = match self.options.format {
            Format::Parquet => {
                let footer = input.parquet.as_ref().ok_or_else(|| Error::internal("a Parquet file without footer"))?;
                let batches = footer.reader(file.try_clone()?, unit.start..unit.end, fit)?;
                Box::new(ColumnarReader::new(batches, given, report))
            }
            Format::Arrow => {
                let batches = ipc_reader(file.try_clone()?, unit.start, fit)?;
                Box::new(ColumnarReader::new(batches, given, report))
            }
            Format::Json | Format::Csv => {
                let decoder = match self.decoder(input, &file, unit.start, &partition) {
                    // Another header: the file was cut.
                    Err(_) if input.print.is_some_and(|print| !print.is_of(&file)) => return Ok(None),
                    decoder => decoder?,
                };
                let want = self.want(unit.start..unit.end, input.compression);
                let print = input.print.map(|print| (file.clone(), print));
                let text = Text { blocks: open_text(file, input.compression, want, input.end)?, print };
                Box::new(TextReader::new(text, decoder, given, report))
            }
        };
        Ok(Some(partition.complete(own)))
    }

    /// The file of `input`; `None` when it has been moved away.
    fn file(&self, input: &Input) -> Result<Option<Arc<File>>> {
        if let Some(file) = &input.file {
            return Ok(Some(file.clone()));
        }
        let file = match File::open(&input.path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound && self.options.follow => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let moved = match input.identity {
            Some(identity) => identity != Stamp::of(&file.metadata()?).identity,
            None => false,
        };
        Ok((!moved).then(|| Arc::new(file)))
    }

    fn decoder(&self, input: &Input, file: &Arc<File>, start: u64, own: &Partition) -> Result<Box<dyn LineDecoder>> {
        if self.options.format == Format::Json {
            let key = &self.layout.key;
            return Ok(json::decoder(own.projected.clone(), &self.options.json, key, input.name.clone()));
        }
        let options = &self.options.csv;
        let header = if options.header && start > 0 { Some(first_line(file, input.compression)?) } else { None };
        csv::decoder(&own.declared, &own.projection, options, input.name.clone(), header.as_deref())
    }
}
