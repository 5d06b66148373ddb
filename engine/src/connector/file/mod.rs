//! `file`: rows from files and to files.
//!
//! A split is a file. Positions are byte offsets in text (of the decompressed bytes), row numbers in Parquet
//! and Arrow. A unit of text owns the lines that begin in it, so a file may be cut anywhere: a reader skips
//! the line that began before its unit and reads the last one to its end.

mod append;
mod options;
mod paced;
mod part;
mod scan;
mod sink;
mod source;
#[cfg(test)]
mod tests;
mod units;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};

use self::options::{FileOptions, FoundFile};
use self::source::FileSource;
use super::options::Options;
use super::registry::{SinkRequest, SourceRequest};
use super::{Sink, Source};
use crate::error::{Error, Result};
use crate::format::{Format, columnar, csv, infer};

/// How much of a text file is looked at to find its columns.
const SAMPLE: u64 = 1 << 20;

/// Opens the files of `request`; errors when there are none, unless new ones are waited for.
pub(crate) fn open_source(request: SourceRequest) -> Result<Arc<dyn Source>> {
    Ok(Arc::new(FileSource::open(request)?))
}

/// What `options` leave to the files that there are now, as options: the format, where it is not written.
pub(crate) fn find_options(options: &Options) -> Result<BTreeMap<String, String>> {
    if options.clone().text("format").is_some() {
        return Ok(BTreeMap::new());
    }
    let format = FileOptions::take(options.clone())?.format.name().to_owned();
    Ok([("format".to_owned(), format)].into())
}

/// As [`open_source`]; errors too when the first file there is now lacks a column.
pub(crate) fn check_source(request: SourceRequest) -> Result<()> {
    let options = FileOptions::take(request.options.clone())?;
    let wanted = request.schema.project(&request.projection)?;
    let files = options.list()?;
    FileSource::open(request)?;
    check_columns(&options, &files, &wanted)
}

/// The columns of the first file that `options` mean.
pub(crate) fn infer_schema(options: Options) -> Result<SchemaRef> {
    let options = FileOptions::take(options)?;
    let files = options.list()?;
    let Some(file) = files.first() else {
        return Err(Error::invalid(format!(
            "the columns of \"{}\" cannot be found out: it has no files",
            options.path
        ))
        .with_hint("Declare them: CREATE STREAM s (a BIGINT, …) WITH (…)."));
    };
    Ok(Arc::new(schema_of(&options, file)?))
}

fn schema_of(options: &FileOptions, file: &FoundFile) -> Result<Schema> {
    let failed = |e| Error::from(e).context(format_args!("file \"{}\"", file.name));
    match options.format {
        Format::Parquet => columnar::parquet_schema(&file.path, &file.name),
        Format::Arrow => columnar::ipc_schema(File::open(&file.path).map_err(failed)?, &file.name),
        Format::Csv => infer::csv_schema(&sample(options, file)?, &options.csv, &file.name),
        Format::Json => infer::json_schema(&sample(options, file)?, &options.json, &file.name),
    }
}

/// Errors when the first file says which columns it has and one of `wanted` is not among them. A CSV file
/// without a whole line yet says nothing.
fn check_columns(options: &FileOptions, files: &[FoundFile], wanted: &Schema) -> Result<()> {
    let Some(file) = files.first() else { return Ok(()) };
    let mut names = wanted.fields().iter().map(|f| f.name());
    match options.format {
        Format::Parquet | Format::Arrow => {
            let found = schema_of(options, file)?;
            names.try_for_each(|name| columnar::find(&found, name, &file.name).map(drop))
        }
        Format::Csv if options.csv.header => {
            let Some(header) = csv::whole_header(&sample(options, file)?, &options.csv) else { return Ok(()) };
            names.try_for_each(|name| csv::find(&header, name, &file.name).map(drop))
        }
        Format::Csv | Format::Json => Ok(()),
    }
}

/// The first lines of a text file; whole ones, unless the first is longer than the sample.
fn sample(options: &FileOptions, file: &FoundFile) -> Result<Vec<u8>> {
    let failed = |e| Error::from(e).context(format_args!("file \"{}\"", file.name));
    let mut bytes = vec![];
    let input = options.compression_of(&file.name).reader(File::open(&file.path).map_err(failed)?)?;
    // A damaged end is told of when the file is read.
    let _damage = input.take(SAMPLE).read_to_end(&mut bytes);
    if bytes.len() as u64 == SAMPLE
        && let Some(end) = memchr::memrchr(b'\n', &bytes)
    {
        bytes.truncate(end + 1);
    }
    Ok(bytes)
}

/// Opens the file or folder that results go to.
pub(crate) fn open_sink(request: SinkRequest) -> Result<Arc<dyn Sink>> {
    sink::open(request)
}
