//! `file`: rows from files and to files.
//!
//! A split is a file. Positions are byte offsets in text (of the decompressed bytes), row numbers in Parquet
//! and Arrow. A unit of text owns the lines that begin in it, so a file may be cut anywhere: a reader skips
//! the line that began before its unit and reads the last one to its end.

mod append;
mod arrive;
mod aside;
mod buckets;
mod declare;
pub mod export;
mod find;
mod hive;
mod known;
mod listing;
mod names;
mod objects;
mod options;
mod paced;
mod part;
mod partition;
mod place;
mod print;
mod pruning;
mod queue;
mod readers;
mod sample;
mod scan;
mod sink;
mod source;
mod staged;
#[cfg(test)]
mod tests;
mod units;
mod whole;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};

use self::declare::{nothing_in, undeclared};
use self::listing::FoundFile;
use self::options::{FileOptions, names_format, read_options, written_options};
use self::partition::{MODIFIED, NAME, POSITION, with_keys};
use self::sample::sample;
use self::source::FileSource;
use super::registry::{Connector, Guarantee, Readable, SinkRequest, SourceRequest, Writable};
use super::{Sink, Source};
use crate::changelog::OP;
use crate::error::{Error, ErrorKind, Result};
use crate::format::convert::find_field;
use crate::format::form::Form;
use crate::format::metadata::MetadataKey;
use crate::format::union::union_schema;
use crate::format::{Format, columnar, csv, infer, json};
use crate::options::{OptionSpec, Options};
use crate::reach::Touch;

/// How many JSON files, or objects in a bucket, are looked at to find their columns.
const SAMPLED_FILES: usize = 10;

/// The connector.
pub(crate) struct FileConnector;

impl Connector for FileConnector {
    fn name(&self) -> &str {
        "file"
    }

    fn about(&self) -> &str {
        "rows from files and to files: JSON, CSV, Parquet, Arrow"
    }

    fn source(&self) -> Option<&dyn Readable> {
        Some(self)
    }

    fn sink(&self) -> Option<&dyn Writable> {
        Some(self)
    }

    fn fix_paths(&self, options: &mut BTreeMap<String, String>) -> BTreeMap<String, String> {
        fix_path(options)
    }

    fn touches(&self, options: &Options) -> Result<Option<Vec<Touch>>> {
        let path = options.written().find(|(name, _)| *name == "path").map(|(_, path)| path);
        path.map_or(Ok(vec![]), place::touched).map(Some)
    }
}

impl Readable for FileConnector {
    fn options(&self) -> Vec<OptionSpec> {
        read_options()
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn find_options(&self, options: &Options) -> Result<BTreeMap<String, String>> {
        find_options(options)
    }

    fn metadata(&self) -> Vec<MetadataKey> {
        let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        vec![
            MetadataKey::new(NAME, DataType::Utf8View, "the file's name, as dead letters tell it"),
            MetadataKey::new(
                POSITION,
                DataType::Int64,
                "where the row begins: a byte of text, else a row number; from 0",
            ),
            MetadataKey::new(MODIFIED, instant, "when the file was last written to, as it was when the row was read"),
        ]
    }

    fn columns(&self, options: Options) -> Result<Option<SchemaRef>> {
        infer_schema(options).map(Some)
    }

    fn form(&self, options: &Options) -> Form {
        options::form(options)
    }

    fn check(&self, request: SourceRequest) -> Result<()> {
        check_source(request)
    }

    fn scan(&self, request: SourceRequest) -> Result<Arc<dyn Source>> {
        Ok(Arc::new(FileSource::new(request)?))
    }

    fn prunes(&self) -> bool {
        true
    }
}

impl Writable for FileConnector {
    fn options(&self) -> Vec<OptionSpec> {
        written_options()
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn open(&self, request: SinkRequest) -> Result<Arc<dyn Sink>> {
        sink::open(request)
    }
}

/// What `options` leave to the files that there are now, as options: the format, where it is not written, and that the
/// names of folders are columns.
fn find_options(options: &Options) -> Result<BTreeMap<String, String>> {
    // Streams of builds that did not look at the names of folders go on without.
    let mut found = BTreeMap::from([("partitions".to_owned(), "true".to_owned())]);
    if !names_format(options) {
        found.insert("format".to_owned(), FileOptions::take(options.clone())?.format.name().to_owned());
    }
    Ok(found)
}

/// Makes the path of `options`, of a source or a sink, mean the same from every folder; gives what is to be kept with
/// them as found, so that its files are called what they were.
fn fix_path(options: &mut BTreeMap<String, String>) -> BTreeMap<String, String> {
    let Some((path, folder)) = options.get("path").and_then(|path| place::absolute_path(path)) else {
        return BTreeMap::new();
    };
    options.insert("path".to_owned(), path);
    [("folder".to_owned(), folder)].into()
}

/// As opening it; errors too when a column is in none of the files there are now, or no CSV file has all of them.
fn check_source(request: SourceRequest) -> Result<()> {
    let options = FileOptions::take(request.options.clone())?;
    let layout = request.layout()?;
    FileSource::new(request)?;
    check_columns(&options, &layout.content)
}

/// The files of `options`, those first whose names say that they are of its format.
fn likely_first(options: &FileOptions) -> Result<Vec<FoundFile>> {
    let mut files = options.list()?;
    files.sort_by_key(|file| Format::of_name(&file.name) != Some(options.format));
    Ok(files)
}

/// Those of `files` that are looked into before any is read: objects in a bucket are fetched for that.
fn looked_into(files: &[FoundFile]) -> &[FoundFile] {
    let is_far = files.iter().any(|file| file.object.is_some());
    if is_far { &files[..files.len().min(SAMPLED_FILES)] } else { files }
}

/// The columns of the files that `options` mean: of JSON those of the first few files, of CSV those of the first,
/// of Parquet and Arrow those of all, each of a type that holds what all files have. Files that cannot be read are
/// told of when they are; if none can, now.
fn infer_schema(options: Options) -> Result<SchemaRef> {
    let written = options.clone();
    let options = FileOptions::take(options)?;
    let files = likely_first(&options)?;
    if let Some(nothing) = nothing_in(&written, &options, &files) {
        return Err(nothing);
    }
    let first = files.first().ok_or_else(|| Error::internal("no files"))?;
    let own = match options.format {
        Format::Parquet | Format::Arrow => {
            let schemas: Vec<_> = looked_into(&files).iter().map(|f| columns_of(&options, f, None)).collect();
            if schemas.iter().all(Result::is_err) {
                return Err(columns_of(&options, first, None).err().unwrap_or_else(|| Error::internal("no error")));
            }
            union_schema(&schemas.into_iter().flatten().collect::<Vec<_>>())
        }
        Format::Csv => {
            let schema =
                |file: &FoundFile| -> Result<_> { Ok(infer::csv_schema(&sample(&options, file)?, &options.csv)) };
            match looked_into(&files).iter().find_map(|file| schema(file).ok().flatten()) {
                Some(found) => found,
                None => schema(first)?.ok_or_else(|| {
                    let why = format!("the columns of \"{}\" cannot be found out: it has no header", first.name);
                    undeclared(&written, &options, why)
                })?,
            }
        }
        Format::Json => {
            let mut lines = vec![];
            let samples = files.iter().filter_map(|file| sample(&options, file).ok());
            let some: Vec<_> = samples.take(SAMPLED_FILES).collect();
            if some.is_empty() {
                sample(&options, first)?;
            }
            for sample in &some {
                let taken = sample.split_inclusive(|b| *b == b'\n').take(infer::SAMPLE / some.len()).flatten();
                lines.extend(taken);
                lines.push(b'\n');
            }
            json::json_schema(&lines, &options.json).ok_or_else(|| {
                let path = options.shown_path();
                let why = format!("the columns of \"{path}\" cannot be found out: it has no line with a JSON object");
                undeclared(&written, &options, why)
            })?
        }
    };
    Ok(Arc::new(with_keys(&options, &files, own)))
}

/// The columns of a file that says which it has; errors when one of `wanted`, or any if there are none, cannot be
/// read.
fn columns_of(options: &FileOptions, file: &FoundFile, wanted: Option<&Schema>) -> Result<Schema> {
    let opened = file.open(None)?;
    match options.format {
        Format::Parquet => columnar::parquet_schema(&opened, &file.name, wanted),
        _ => columnar::ipc_schema(opened, &file.name),
    }
}

/// Errors when the files say which columns they have and one of `wanted` is in none of them, or, of CSV, none has them
/// all. CSV files without a whole line yet say nothing, nor do files that are still being written.
fn check_columns(options: &FileOptions, wanted: &Schema) -> Result<()> {
    let files = likely_first(options)?;
    match options.format {
        Format::Parquet | Format::Arrow => check_columnar(options, &files, wanted),
        Format::Csv if options.csv.header => {
            let mut first = None;
            for file in looked_into(&files) {
                match check_header(options, file, wanted) {
                    Ok(()) => return Ok(()),
                    Err(e) if options.fail => return Err(e),
                    Err(e) => first = first.or(Some(e)),
                }
            }
            first.map_or(Ok(()), Err)
        }
        Format::Csv | Format::Json => Ok(()),
    }
}

fn check_columnar(options: &FileOptions, files: &[FoundFile], wanted: &Schema) -> Result<()> {
    let mut missing: Vec<&str> = wanted.fields().iter().map(|f| f.name().as_str()).collect();
    let (mut shown, mut failed) = (None, None);
    for file in looked_into(files) {
        match columns_of(options, file, Some(wanted)) {
            Ok(schema) => {
                let keys = options.keys_of(&file.path);
                let named = |name: &str| keys.iter().any(|(key, _)| key.eq_ignore_ascii_case(name));
                missing.retain(|name| find_field(schema.fields(), name).is_none() && !named(name));
                if missing.is_empty() {
                    return Ok(());
                }
                shown = shown.or(Some((schema, file)));
            }
            Err(e) if options.fail => return Err(e),
            Err(e) => failed = failed.or(Some(e)),
        }
    }
    match (shown, missing.first(), failed) {
        (Some((schema, file)), Some(name), _) => Err(columnar::lacks(&schema, name, &file.name)),
        (_, _, Some(e)) if !options.follow || e.kind() == ErrorKind::Invalid => Err(e),
        _ => Ok(()),
    }
}

fn check_header(options: &FileOptions, file: &FoundFile, wanted: &Schema) -> Result<()> {
    let Some(header) = csv::whole_header(&sample(options, file)?, &options.csv) else { return Ok(()) };
    let keys = options.keys_of(&file.path);
    let own = |name: &&str| !keys.iter().any(|(key, _)| key.eq_ignore_ascii_case(name));
    let op = (options.csv.form == Form::Ops).then_some(OP);
    let mut names = wanted.fields().iter().map(|f| f.name().as_str()).filter(own).chain(op);
    names.try_for_each(|name| csv::find(&header, name, &file.name).map(drop))
}
