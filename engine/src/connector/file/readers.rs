//! Reading units of files, in the process of the scanner or in another one.
//!
//! Beside the scanner readers go by what it knows of a file: where it has moved to, that it is held open, its footer. And they
//! tell it what they find: where a compressed file ends, that a file was cut. Elsewhere there is the plan and the name of a
//! file, which is enough where files stay as they are.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion_physical_expr::PhysicalExpr;
use parking_lot::Mutex;
use tokio::task::spawn_blocking;

use super::aside::{Guarded, Said, put_aside, vanished};
use super::buckets::Fetching;
use super::listing::FoundFile;
use super::options::FileOptions;
use super::paced::{Paced, Pacer};
use super::partition::Partition;
use super::print::Stamp;
use super::pruning::Pruning;
use super::queue::{Input, Queue};
use super::units::{ColumnarReader, Report, Text, TextReader, open_text};
use super::whole::{first_line, footer, newlines_before};
use crate::connector::{Readers, Unit, UnitReader};
use crate::error::{Error, ErrorKind, Result};
use crate::format::blocks::{Cut, Want};
use crate::format::columnar::{Fit, ipc_reader};
use crate::format::compression::Compression;
use crate::format::metadata::Layout;
use crate::format::{Format, LineDecoder, Place, csv, json};
use crate::store::is_url;

/// What is read and how.
pub(super) struct Spec {
    pub(super) options: FileOptions,
    /// All columns of the stream, and which are metadata.
    pub(super) schema: SchemaRef,
    pub(super) metadata: BTreeSet<usize>,
    pub(super) layout: Layout,
}

/// See the module's text.
pub(super) struct FileReaders {
    spec: Arc<Spec>,
    /// The files; elsewhere there are no units in it.
    queue: Arc<Mutex<Queue>>,
    pacer: Option<Arc<Pacer>>,
    is_elsewhere: bool,
    /// Where they are objects in a bucket: of those there is nothing to know but the name.
    objects: Option<Fetching>,
}

impl FileReaders {
    /// Those that share `queue` with the scanner.
    pub(super) fn beside(spec: Arc<Spec>, queue: &Arc<Mutex<Queue>>, pacer: Option<Arc<Pacer>>) -> Arc<Self> {
        Arc::new(FileReaders { spec, queue: queue.clone(), pacer, is_elsewhere: false, objects: None })
    }

    /// Those of objects, which share `queue` with who lists them.
    pub(super) fn of_objects(
        spec: Arc<Spec>,
        queue: &Arc<Mutex<Queue>>,
        pacer: Option<Arc<Pacer>>,
        objects: Fetching,
    ) -> Arc<Self> {
        Arc::new(FileReaders { spec, queue: queue.clone(), pacer, is_elsewhere: false, objects: Some(objects) })
    }

    /// Those that know the plan.
    pub(super) fn elsewhere(spec: Arc<Spec>) -> Result<Arc<Self>> {
        let objects = is_url(&spec.options.path).then(|| Fetching::elsewhere(&spec.options.path)).transpose()?;
        Ok(Arc::new(FileReaders { spec, queue: Arc::default(), pacer: None, is_elsewhere: true, objects }))
    }

    /// The file called `name`.
    async fn input(&self, name: &str) -> Result<Input> {
        let known = || self.queue.lock().input(name).cloned();
        if self.objects.is_some() {
            let new = || Input::new(name.into(), PathBuf::from(name), self.spec.options.compression_of(name));
            return Ok(known().unwrap_or_else(new));
        }
        if known().is_none() && self.is_elsewhere {
            let spec = self.spec.clone();
            let inputs = spawn_blocking(move || spec.inputs()).await.map_err(ended_early)??;
            let mut queue = self.queue.lock();
            for input in inputs {
                if queue.input(&input.name).is_none() {
                    queue.add_input(input);
                }
            }
        }
        known().ok_or_else(|| Error::data(format!("file \"{name}\" is not there any more")))
    }

    /// Opens the unit of `report`; what is wrong with the file itself is the inner error.
    async fn opened(&self, mut input: Input, report: Report) -> Result<Result<Option<Box<dyn UnitReader>>>> {
        if let Some(objects) = &self.objects {
            input.file = match objects.fetch(&input.name).await {
                Ok(file) => Some(Arc::new(file)),
                Err(e) if e.kind() == ErrorKind::Data => return Ok(Err(e)),
                Err(e) => return Err(e),
            };
        }
        let spec = self.spec.clone();
        spawn_blocking(move || spec.open(&input, report)).await.map_err(ended_early)
    }
}

#[async_trait]
impl Readers for FileReaders {
    async fn read(&self, unit: &Unit) -> Result<Box<dyn UnitReader>> {
        let input = self.input(&unit.split).await?;
        let (fail, patient) = (self.spec.options.fail, input.patient);
        let report = Report { queue: self.queue.clone(), unit: unit.clone(), fail, patient };
        if input.vanished {
            return Ok(Box::new(vanished(&report, self.spec.layout.schema())?));
        }
        let name = unit.split.clone();
        let opened = self.opened(input, report.clone()).await?;
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

pub(super) fn ended_early(e: tokio::task::JoinError) -> Error {
    Error::internal(format!("a reading thread ended early: {e}")).with_source(e)
}

impl Spec {
    /// The files that are meant, as they are known by their names. Blocks on the file system.
    fn inputs(&self) -> Result<Vec<Input>> {
        let input = |file: FoundFile| {
            let compression = self.options.compression_of(&file.path.to_string_lossy());
            Input::new(file.name, file.path, compression)
        };
        Ok(self.options.list()?.into_iter().map(input).collect())
    }

    /// What `conditions` leave to be read.
    pub(super) fn pruning(&self, conditions: Vec<Vec<Arc<dyn PhysicalExpr>>>) -> Pruning {
        Pruning { schema: self.schema.clone(), metadata: self.metadata.clone(), readers: conditions }
    }

    /// The number of the line on which row `row` begins of those that are read from `from` on, from 1.
    pub(super) fn line_of(&self, input: &Input, from: u64, row: usize) -> Result<Option<u64>> {
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
                let footer = match &input.parquet {
                    Some(footer) => footer.clone(),
                    None => report.note_footer(footer(&file, &input.name)?),
                };
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
