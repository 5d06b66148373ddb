//! One file being written, and files made durable.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::FileWriter;
use flate2::write::GzEncoder;
use parquet::arrow::ArrowWriter;

use crate::error::{Error, Result};
use crate::format::Format;
use crate::format::compression::Compression;
use crate::format::options::CsvOptions;
use crate::format::write::{parquet_writer, write_header, write_lines};

/// What is written to the disk at once; columnar files have pages of their own.
fn buffer(format: Format) -> usize {
    if format.is_text() { 256 << 10 } else { 32 << 10 }
}

/// About what a compressor of zstd holds at the level that is used.
const ZSTD_BYTES: usize = 4 << 20;

/// How files are written.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) format: Format,
    pub(super) compression: Compression,
    /// How, if it is CSV.
    pub(super) csv: CsvOptions,
    pub(super) schema: SchemaRef,
}

/// A file being written.
pub(super) struct Part {
    path: PathBuf,
    layout: Layout,
    body: Body,
    scratch: Vec<u8>,
}

enum Body {
    Plain(BufWriter<File>),
    Gzip(GzEncoder<BufWriter<File>>),
    Zstd(zstd::Encoder<'static, BufWriter<File>>),
    Parquet(Box<ArrowWriter<BufWriter<File>>>),
    Arrow(Box<FileWriter<BufWriter<File>>>),
}

impl Part {
    /// Creates the file at `path`; `header` says whether it begins with one, if it is CSV.
    pub(super) fn create(path: PathBuf, layout: &Layout, header: bool) -> Result<Self> {
        let file = BufWriter::with_capacity(buffer(layout.format), File::create(&path).map_err(|e| failed(&path, e))?);
        let body = match (layout.format, layout.compression) {
            (Format::Parquet, _) => Body::Parquet(Box::new(parquet_writer(&layout.schema, file)?)),
            (Format::Arrow, _) => Body::Arrow(Box::new(FileWriter::try_new(file, &layout.schema)?)),
            (_, Compression::None) => Body::Plain(file),
            (_, Compression::Gzip) => Body::Gzip(GzEncoder::new(file, flate2::Compression::default())),
            (_, Compression::Zstd) => Body::Zstd(zstd::Encoder::new(file, 3)?),
        };
        let mut part = Part { path, layout: layout.clone(), body, scratch: vec![] };
        if header && layout.csv.header && layout.format == Format::Csv {
            write_header(&layout.csv, &layout.schema, &mut part.scratch);
            part.flush_scratch()?;
        }
        Ok(part)
    }

    /// Adds rows.
    pub(super) fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        let written = match &mut self.body {
            Body::Parquet(writer) => writer.write(rows).map_err(Error::from),
            Body::Arrow(writer) => writer.write(rows).map_err(Error::from),
            Body::Plain(_) | Body::Gzip(_) | Body::Zstd(_) => {
                write_lines(self.layout.format, &self.layout.csv, rows, &mut self.scratch)?;
                return self.flush_scratch();
            }
        };
        written.map_err(|e| e.context(format_args!("file \"{}\"", self.path.display())))
    }

    /// Bytes that it holds.
    pub(super) fn bytes(&self) -> usize {
        let own = match &self.body {
            Body::Parquet(writer) => writer.memory_size(),
            Body::Zstd(_) => ZSTD_BYTES,
            Body::Plain(_) | Body::Gzip(_) | Body::Arrow(_) => 0,
        };
        own + buffer(self.layout.format) + self.scratch.capacity()
    }

    /// Gives back what it can: of Parquet, the row group that is being written ends. Blocks on the disk.
    pub(super) fn shrink(&mut self) -> Result<()> {
        self.scratch = vec![];
        match &mut self.body {
            Body::Parquet(writer) => {
                writer.flush().map_err(|e| Error::from(e).context(format_args!("file \"{}\"", self.path.display())))
            }
            Body::Plain(_) | Body::Gzip(_) | Body::Zstd(_) | Body::Arrow(_) => Ok(()),
        }
    }

    fn flush_scratch(&mut self) -> Result<()> {
        let bytes = &self.scratch;
        match &mut self.body {
            Body::Plain(out) => out.write_all(bytes),
            Body::Gzip(out) => out.write_all(bytes),
            Body::Zstd(out) => out.write_all(bytes),
            Body::Parquet(_) | Body::Arrow(_) => Ok(()),
        }
        .map_err(|e| failed(&self.path, e))?;
        self.scratch.clear();
        Ok(())
    }

    /// Ends the file, makes it durable and gives it the name `to`. Blocks on the disk.
    pub(super) fn finish(self, to: &Path) -> Result<()> {
        let path = self.path.clone();
        self.end()?.sync_all().map_err(|e| failed(&path, e))?;
        fs::rename(&path, to).map_err(|e| failed(to, e))?;
        sync_folder(to)
    }

    /// Writes all that is still to be written. Blocks on the disk.
    pub(super) fn end(self) -> Result<File> {
        let path = self.path;
        let named = |e: Error| e.context(format_args!("file \"{}\"", path.display()));
        let out = match self.body {
            Body::Plain(out) => out,
            Body::Gzip(out) => out.finish().map_err(|e| failed(&path, e))?,
            Body::Zstd(out) => out.finish().map_err(|e| failed(&path, e))?,
            Body::Parquet(writer) => writer.into_inner().map_err(|e| named(e.into()))?,
            Body::Arrow(writer) => writer.into_inner().map_err(|e| named(e.into()))?,
        };
        out.into_inner().map_err(|e| failed(&path, e.into_error()))
    }
}

/// An IO error that names its file.
pub(super) fn failed(path: &Path, e: std::io::Error) -> Error {
    Error::from(e).context(format_args!("file \"{}\"", path.display()))
}

/// Makes the names in the folder of `path` durable.
pub(super) fn sync_folder(path: &Path) -> Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| failed(folder, e))
}
