//! The file source.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::options::FileOptions;
use super::paced::{Paced, Pacer};
use super::scan::{Input, Queue, Scanner};
use super::units::{ColumnarReader, Report, TextReader, open_text};
use crate::connector::registry::SourceRequest;
use crate::connector::{Offsets, Source, Split, Unit, UnitReader};
use crate::error::{Error, Result};
use crate::format::blocks::{Cut, Want};
use crate::format::columnar::{Fit, ipc_reader};
use crate::format::compression::Compression;
use crate::format::{Format, LineDecoder, csv, json};

/// Files being read.
pub(super) struct FileSource {
    spec: Arc<Spec>,
    queue: Arc<Mutex<Queue>>,
    scanner: Arc<Mutex<Scanner>>,
    pacer: Option<Arc<Pacer>>,
    /// When the files were last looked at, so that waiting tasks do not all do it.
    looked: tokio::sync::Mutex<Instant>,
}

/// What is read and how.
struct Spec {
    options: FileOptions,
    declared: SchemaRef,
    projection: Vec<usize>,
    projected: SchemaRef,
}

impl FileSource {
    pub(super) fn open(request: SourceRequest) -> Result<Self> {
        let options = FileOptions::take(request.options)?;
        let compressed = options.compression.is_some_and(|c| c != Compression::None);
        if compressed && !options.format.is_text() {
            return Err(Error::invalid(format!("{} files compress themselves", options.format.name()))
                .with_hint("Leave out option compression."));
        }
        let projected = Arc::new(request.schema.project(&request.projection)?);
        let event_time = request.event_time.map(|column| request.schema.field(column).name().clone());
        let scanner = Scanner::new(options.clone(), event_time, request.parallelism);
        let pacer = options.rate.map(Pacer::new);
        let spec = Spec { options, declared: request.schema, projection: request.projection, projected };
        Ok(FileSource {
            spec: Arc::new(spec),
            queue: Arc::default(),
            scanner: Arc::new(Mutex::new(scanner)),
            pacer,
            looked: tokio::sync::Mutex::new(Instant::now()),
        })
    }

    #[cfg(test)]
    pub(super) fn with_unit_bytes(self, bytes: u64) -> Self {
        self.scanner.lock().unit_bytes = bytes..bytes;
        self
    }

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
impl Source for FileSource {
    async fn start(&self, consumed: &Offsets) -> Result<()> {
        let consumed = consumed.clone();
        self.scan(move |scanner, queue| scanner.start(&consumed, queue)).await
    }

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
            tokio::time::sleep_until(*looked + interval).await;
            *looked = Instant::now();
            self.scan(Scanner::again).await?;
        }
    }

    async fn open(&self, unit: &Unit) -> Result<Box<dyn UnitReader>> {
        let input = self.queue.lock().input(&unit.split).cloned();
        let input = input.ok_or_else(|| Error::internal(format!("split \"{}\" is not known", unit.split)))?;
        let report = Report { queue: self.queue.clone(), unit: unit.clone(), fail: self.spec.options.fail };
        let spec = self.spec.clone();
        let name = unit.split.clone();
        let opened = spawn_blocking(move || spec.open(&input, report)).await.map_err(ended_early)?;
        let reader = opened
            .map_err(|e| if e.message().contains(&*name) { e } else { e.context(format_args!("file \"{name}\"")) });
        Ok(match &self.pacer {
            Some(pacer) => Box::new(Paced { reader: reader?, pacer: pacer.clone() }),
            None => reader?,
        })
    }

    fn bounded(&self) -> bool {
        !self.spec.options.follow
    }

    fn describe(&self) -> String {
        let o = &self.spec.options;
        let follow = if o.follow { ", followed" } else { "" };
        format!("file {} ({}{follow})", o.path, o.format.name())
    }
}

impl Spec {
    /// Opens the unit of `report`. Blocks on the file system.
    fn open(&self, input: &Input, report: Report) -> Result<Box<dyn UnitReader>> {
        let unit = &report.unit;
        let fit = Fit { schema: self.projected.clone(), split: input.name.clone() };
        match self.options.format {
            Format::Parquet => {
                let footer = input.parquet.as_ref().ok_or_else(|| Error::internal("a Parquet file without footer"))?;
                let batches = footer.reader(File::open(&input.path)?, unit.start..unit.end, fit)?;
                Ok(Box::new(ColumnarReader::new(batches, report)))
            }
            Format::Arrow => {
                let batches = ipc_reader(File::open(&input.path)?, unit.start, fit)?;
                Ok(Box::new(ColumnarReader::new(batches, report)))
            }
            Format::Json | Format::Csv => {
                let decoder = self.decoder(input, unit.start)?;
                let csv = &self.options.csv;
                let records = self.options.format == Format::Csv && csv.newlines_in_values;
                let compressed = input.compression != Compression::None;
                let want = Want {
                    start: unit.start,
                    end: unit.end,
                    cut: if records { Cut::Record(csv.clone()) } else { Cut::Newline },
                    eager: false,
                    fragile: compressed.then(|| input.compression.name()),
                };
                let blocks = open_text(&input.path, input.compression, want, input.size())?;
                Ok(Box::new(TextReader::new(blocks, decoder, self.projected.clone(), report)))
            }
        }
    }

    fn decoder(&self, input: &Input, start: u64) -> Result<Box<dyn LineDecoder>> {
        if self.options.format == Format::Json {
            return Ok(json::decoder(self.projected.clone(), &self.options.json, input.name.clone()));
        }
        let options = &self.options.csv;
        let header = if options.header && start > 0 { Some(first_line(&input.path, input.compression)?) } else { None };
        csv::decoder(&self.declared, &self.projection, options, input.name.clone(), header.as_deref())
    }
}

/// The first line of a file, without its newline.
pub(super) fn first_line(path: &Path, compression: Compression) -> Result<Vec<u8>> {
    let mut line = vec![];
    BufReader::new(compression.reader(File::open(path)?)?).read_until(b'\n', &mut line)?;
    Ok(line)
}
