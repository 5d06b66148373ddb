//! The file sink: each row once, whatever crashes.
//!
//! Writers put rows into hidden files in a staging folder. A checkpoint makes them durable and notes them
//! in its manifest; the commit behind it renames them into place (a folder), or appends them to the one
//! file behind what earlier checkpoints put there. Both may be repeated.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::task::spawn_blocking;

use super::append::Appended;
use super::options::{COMPRESSION, SINK_FORMAT, SINK_PATH};
use super::part::{Layout, Part, failed, sync_folder};
use super::staged::StagedFile;
use crate::changelog::{Outgoing, op_schema, with_ops};
use crate::changes::Changes;
use crate::connector::registry::SinkRequest;
use crate::connector::{Commit, Sink, SinkWriter, Staged, Start};
use crate::epoch::EpochMark;
use crate::error::{Error, Result};
use crate::format::Format;
use crate::format::compression::Compression;
use crate::format::options::CsvOptions;
use crate::format::stored::{cast_rows, check_storable, file_schema};
use crate::token::token;

const KIND: &str = "file";

/// Opens the sink that `request` describes; creates nothing yet.
pub(super) fn open(mut request: SinkRequest) -> Result<Arc<dyn Sink>> {
    let o = &mut request.options;
    let path = o.required(&SINK_PATH)?;
    let named = o.choice(&SINK_FORMAT)?;
    let by_name = Format::of_name(&path).filter(|_| !Path::new(&path).is_dir());
    let format = match named {
        Some("json") => Format::Json,
        Some("csv") => Format::Csv,
        Some(_) => Format::Parquet,
        None => by_name.ok_or_else(|| {
            Error::invalid(format!("{} does not say the format of \"{path}\"", o.owner()))
                .with_hint("Add format = 'json', 'csv' or 'parquet'.")
        })?,
    };
    let compression = match o.choice(&COMPRESSION)? {
        Some("none") => Compression::None,
        Some("gzip") => Compression::Gzip,
        Some("zstd") => Compression::Zstd,
        _ => Compression::of_name(&path).0,
    };
    let csv = if format == Format::Csv { CsvOptions::take(o)? } else { CsvOptions::default() };
    let owner = o.owner().to_owned();
    request.options.finish()?;
    if format == Format::Arrow || (format == Format::Parquet && by_name.is_some()) {
        return Err(Error::unsupported(format!("{owner} cannot append to the {} file \"{path}\"", format.name()))
            .with_hint("Write to a folder: path = 'results/', format = 'parquet'."));
    }
    if format == Format::Parquet && compression != Compression::None {
        return Err(Error::invalid("Parquet files compress themselves").with_hint("Leave out option compression."));
    }
    let rows = Rows { schema: request.schema, retracts: request.retracts, key: request.key };
    let mut schema = if rows.retracts { op_schema(&rows.schema) } else { rows.schema.clone() };
    if format == Format::Parquet {
        check_storable(&schema).map_err(|e| e.context(owner))?;
        schema = file_schema(&schema);
    }
    let layout = Layout { format, compression, csv, schema };
    Ok(Arc::new(FileSink { shared: Arc::new(Shared::new(path, by_name.is_some(), layout, rows)?) }))
}

/// The rows that are written.
struct Rows {
    schema: SchemaRef,
    retracts: bool,
    key: Option<Vec<usize>>,
}

struct FileSink {
    shared: Arc<Shared>,
}

/// Where the files are; shared with the writers.
struct Shared {
    path: PathBuf,
    staging: PathBuf,
    layout: Layout,
    rows: Rows,
    run: String,
    /// What has been appended, where the target is one file.
    appended: Option<Mutex<Appended>>,
}

impl Shared {
    fn new(path: String, one_file: bool, layout: Layout, rows: Rows) -> Result<Self> {
        let path = PathBuf::from(path);
        let run = token()?;
        if !one_file {
            let staging = path.join(".staging");
            return Ok(Shared { path, staging, layout, rows, run, appended: None });
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let staging = path.with_file_name(format!(".{name}.staging"));
        let appended = Appended::new(path.clone(), staging.clone(), layout.clone());
        Ok(Shared { path, staging, layout, rows, run, appended: Some(Mutex::new(appended)) })
    }

    /// Makes `staged` visible. Blocks on the disk.
    fn commit(&self, staged: &[StagedFile]) -> Result<()> {
        if let Some(appended) = &self.appended {
            return appended.lock().commit(staged);
        }
        for file in staged {
            let from = self.staging.join(&file.name);
            // It has been renamed when it is not there.
            if from.exists() {
                let to = free_name(&self.path, &file.name);
                fs::rename(&from, &to).map_err(|e| failed(&to, e))?;
            }
        }
        sync_folder(&self.path.join("any"))
    }

    /// Ends what a crash left open. Blocks on the disk.
    fn start(&self, committed: &[StagedFile]) -> Result<()> {
        fs::create_dir_all(&self.staging).map_err(|e| failed(&self.staging, e))?;
        self.commit(committed)?;
        if let Some(appended) = &self.appended {
            appended.lock().start()?;
        }
        for entry in fs::read_dir(&self.staging).map_err(|e| failed(&self.staging, e))? {
            let path = entry.map_err(|e| failed(&self.staging, e))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with("part-") || name.starts_with("open-") {
                fs::remove_file(&path).map_err(|e| failed(&path, e))?;
            }
        }
        Ok(())
    }
}

/// `name` in `folder`, or a name like it where another job has put a file of that name there.
fn free_name(folder: &Path, name: &str) -> PathBuf {
    let (stem, ending) = name.split_once('.').unwrap_or((name, ""));
    let names = std::iter::once(name.to_owned()).chain((1..).map(|i| format!("{stem}-{i}.{ending}")));
    let mut paths = names.map(|n| folder.join(n));
    paths.find(|p| !p.exists()).unwrap_or_else(|| folder.join(name))
}

fn files(staged: &[Staged]) -> Result<Vec<StagedFile>> {
    let read = |s: &Staged| Ok(serde_json::from_value(s.body.clone())?);
    staged.iter().filter(|s| s.kind == KIND).map(read).collect()
}

async fn blocking(run: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let ended = |e| Error::internal(format!("a writing thread ended early: {e}")).with_source(e);
    spawn_blocking(run).await.map_err(ended)?
}

#[async_trait]
impl Sink for FileSink {
    async fn start(&self, start: Start<'_>) -> Result<()> {
        let (shared, committed) = (self.shared.clone(), files(start.committed)?);
        blocking(move || shared.start(&committed)).await
    }

    fn open(&self, task: usize) -> Result<Box<dyn SinkWriter>> {
        let Rows { schema, retracts, key } = &self.shared.rows;
        let outgoing = Outgoing::new(schema.clone(), *retracts, key.clone());
        Ok(Box::new(FileWriter { shared: self.shared.clone(), task, outgoing, part: None }))
    }

    async fn commit(&self, commit: &Commit<'_>) -> Result<()> {
        let (shared, staged) = (self.shared.clone(), files(commit.staged)?);
        if staged.is_empty() {
            return Ok(());
        }
        blocking(move || shared.commit(&staged)).await
    }

    fn place(&self) -> Option<PathBuf> {
        std::path::absolute(&self.shared.path).ok()
    }

    fn tells_time(&self) -> bool {
        false
    }

    fn takes_retractions(&self) -> bool {
        self.shared.rows.retracts
    }

    fn describe(&self) -> String {
        format!("file {} ({})", self.shared.path.display(), self.shared.layout.format.name())
    }
}

/// Writes the rows of one task between two checkpoints to one hidden file.
struct FileWriter {
    shared: Arc<Shared>,
    task: usize,
    outgoing: Outgoing,
    part: Option<Part>,
}

impl FileWriter {
    fn ending(&self) -> String {
        let layout = &self.shared.layout;
        format!("{}{}", layout.format.name(), layout.compression.ending())
    }

    fn append(&mut self, rows: &RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let layout = &self.shared.layout;
        let mut part = match self.part.take() {
            Some(part) => part,
            None => {
                let path = self.shared.staging.join(format!("open-{}.{}", self.task, self.ending()));
                // One file has one header, which the commit writes.
                Part::create(path, layout, self.shared.appended.is_none())?
            }
        };
        part.write(&cast_rows(rows, &layout.schema)?)?;
        self.part = Some(part);
        Ok(())
    }
}

#[async_trait]
impl SinkWriter for FileWriter {
    async fn write(&mut self, changes: Changes) -> Result<()> {
        match self.outgoing.write(changes)? {
            Some(rows) => self.append(&rows),
            None => Ok(()),
        }
    }

    async fn epoch(&mut self, _mark: &EpochMark) -> Result<()> {
        match self.outgoing.end()? {
            Some((changes, ops)) => self.append(&with_ops(changes.rows(), &ops)?),
            None => Ok(()),
        }
    }

    async fn stage(&mut self, checkpoint: u64) -> Result<Vec<Staged>> {
        let Some(part) = self.part.take() else { return Ok(vec![]) };
        let name = format!("part-{}-{checkpoint:06}.{}", self.task, self.ending());
        let to = self.shared.staging.join(&name);
        blocking(move || part.finish(&to)).await?;
        let body =
            serde_json::to_value(StagedFile { run: self.shared.run.clone(), checkpoint, task: self.task, name })?;
        Ok(vec![Staged { kind: KIND.to_owned(), body }])
    }

    fn bytes(&self) -> usize {
        self.outgoing.bytes() + self.part.as_ref().map_or(0, Part::bytes)
    }

    async fn shrink(&mut self) -> Result<()> {
        let Some(mut part) = self.part.take() else { return Ok(()) };
        let ended = |e| Error::internal(format!("a writing thread ended early: {e}")).with_source(e);
        self.part = Some(spawn_blocking(move || part.shrink().map(|()| part)).await.map_err(ended)??);
        Ok(())
    }
}
