//! The file source.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::known::SavedFiles;
use super::objects::OpenObjects;
use super::options::FileOptions;
use super::paced::Pacer;
use super::queue::Queue;
use super::readers::{FileReaders, Spec, ended_early};
use super::scan::Scanner;
use crate::connector::registry::SourceRequest;
use crate::connector::{Intake, Opening, Reach, Read, Readers, Source, Split, Unit};
use crate::error::{Error, Result};
use crate::format::compression::Compression;
use crate::format::form::Form;
use crate::store::is_url;

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
    pub(super) readers: Arc<FileReaders>,
    /// When the files were last looked at and how long that took, so that waiting tasks do not all do it.
    looked: tokio::sync::Mutex<(Instant, Duration)>,
}

/// Of the time, looking at the files takes no more than one part of so many.
const IDLE_SHARE: u32 = 10;

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
        let queue = Arc::default();
        let files = OpenFiles {
            spec: self.spec.clone(),
            readers: FileReaders::beside(self.spec.clone(), &queue, pacer),
            queue,
            scanner: Arc::new(Mutex::new(scanner)),
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

    /// Files that move are followed, and read at a pace, in one process; and files that others may not have.
    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> {
        let FileOptions { path, follow, rate, shared, .. } = &self.spec.options;
        if *follow && !is_url(path) || rate.is_some() || !shared {
            return None;
        }
        FileReaders::elsewhere(self.spec.clone()).ok().map(|readers| readers as Arc<dyn Readers>)
    }

    async fn open(self: Arc<Self>, opening: Opening) -> Result<Arc<dyn Intake>> {
        if is_url(&self.spec.options.path) {
            return Ok(OpenObjects::begin(self.spec.clone(), opening).await?);
        }
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

    /// Those that go by what the scanner knows, and tell it what has become of a file.
    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> {
        Some(self.readers.clone())
    }

    fn ended(&self, unit: &Unit, at: u64) {
        // Of one that is followed its reader knows whether that is the end.
        if !self.spec.options.follow {
            self.queue.lock().set_end(&unit.split, at);
        }
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

/// The number of a row of a columnar file, from 1. Rows that became dead letters stood between those of `read`.
fn row_number(from: u64, read: &Read, row: usize) -> u64 {
    let dead = read.dead.iter().map(|dead| dead.position);
    1 + dead.fold(from + row as u64, |at, dead| if dead <= at { at + 1 } else { at })
}
