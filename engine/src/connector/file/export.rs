//! COPY: rows to a file, or to a folder of files, perhaps one folder for each value of some columns.
//!
//! All is written aside and moved to its place when it is whole, so that an error or a crash leaves what was there.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::hive;
use super::options::COMPRESSION;
use super::part::{Layout, Part, failed, sync_folder};
use crate::error::{Error, ErrorKind, Result};
use crate::format::Format;
use crate::format::compression::Compression;
use crate::format::convert::find_field;
use crate::format::options::CsvOptions;
use crate::format::stored::{cast_rows, check_storable, file_schema};
use crate::options::Options;
use crate::token::token;

/// Files that are written at the same time; with more values of the columns they come and go.
const OPEN: usize = 128;
/// What a row group should have in it when it ends before its time.
const WORTH_IT: usize = 1 << 20;

/// What to do with files that are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// A folder with files is refused.
    #[default]
    Refuse,
    /// They go when the new ones are whole.
    Overwrite,
    /// The new ones join them.
    Append,
}

/// What is written where.
#[derive(Clone, Debug)]
pub struct ExportRequest {
    /// A file or a folder.
    pub target: String,
    /// The format; by the target's ending if there is none.
    pub format: Option<Format>,
    /// The columns of the rows.
    pub schema: SchemaRef,
    /// The columns whose values name folders.
    pub partition_by: Vec<String>,
    /// What to do with files that are there.
    pub existing: Existing,
    /// How it is written: `compression`, and the options of CSV.
    pub options: Options,
}

/// An export that is under way. Without [`Export::finish`] it leaves nothing.
pub struct Export {
    place: Place,
    existing: Existing,
    /// The folders that were made for it, the innermost first.
    made: Vec<PathBuf>,
    layout: Layout,
    /// The columns that name folders.
    keys: Vec<usize>,
    /// The columns that are written.
    columns: Vec<usize>,
    converter: Option<RowConverter>,
    open: HashMap<Vec<u8>, Open>,
    /// Whole files, relative to the target.
    whole: Vec<PathBuf>,
    run: String,
    files: usize,
    rows: u64,
    done: bool,
}

enum Place {
    /// A file, and the hidden one that becomes it.
    File(PathBuf, PathBuf),
    /// A device or a pipe: written as it is.
    Device(PathBuf),
    /// A folder, and the hidden one in it where files are made.
    Folder(PathBuf, PathBuf),
}

struct Open {
    part: Part,
    name: PathBuf,
    /// The row of all rows that was written last.
    used: u64,
}

impl Export {
    /// Checks `request`, and makes the folders that it needs. Blocks on the disk.
    pub fn begin(mut request: ExportRequest) -> Result<Self> {
        let target = request.target.clone();
        let about = |e: Error| e.context(format_args!("COPY TO '{target}'"));
        let layout = layout(&mut request).map_err(about)?;
        let keys = key_columns(&request).map_err(about)?;
        let columns: Vec<usize> = (0..request.schema.fields().len()).filter(|i| !keys.contains(i)).collect();
        if columns.is_empty() {
            let e = Error::invalid(format!("COPY TO '{target}' has no column that does not name a folder"));
            return Err(e.with_hint("Leave a column out of PARTITIONED BY."));
        }
        let mut schema: SchemaRef = Arc::new(request.schema.project(&columns)?);
        if !layout.format.is_text() {
            check_storable(&schema).map_err(about)?;
            schema = file_schema(&schema);
        }
        let sort_fields = keys.iter().map(|k| SortField::new(request.schema.field(*k).data_type().clone()));
        let converter = (!keys.is_empty()).then(|| RowConverter::new(sort_fields.collect())).transpose()?;
        let run = token()?;
        let place = place(&request, &run)?;
        let (existing, files) = (request.existing, 0);
        let layout = Layout { schema, ..layout };
        let (open, whole, made) = (HashMap::new(), vec![], vec![]);
        let mut export = Export {
            place,
            existing,
            made,
            layout,
            keys,
            columns,
            converter,
            open,
            whole,
            run,
            files,
            rows: 0,
            done: false,
        };
        let cannot = |e: Error| {
            e.context(format_args!("cannot write to \"{target}\""))
                .with_hint("Name a file in a folder that this process may write to.")
        };
        export.make_folders().map_err(cannot)?;
        if export.keys.is_empty() {
            // A file without rows is one, too.
            let first = export.create(Path::new("")).map_err(cannot)?;
            export.open.insert(vec![], first);
        }
        Ok(export)
    }

    fn make_folders(&mut self) -> Result<()> {
        let folder = match &self.place {
            Place::Device(_) => return Ok(()),
            Place::File(path, _) => path.parent().unwrap_or(Path::new("")).to_owned(),
            Place::Folder(_, staging) => staging.clone(),
        };
        let missing = folder.ancestors().take_while(|f| !f.as_os_str().is_empty() && !f.exists());
        self.made = missing.map(Path::to_owned).collect();
        if folder.as_os_str().is_empty() {
            return Ok(());
        }
        Ok(fs::create_dir_all(&folder)?)
    }

    /// A new file, for rows in `folder` of the target.
    fn create(&mut self, folder: &Path) -> Result<Open> {
        self.files += 1;
        let (path, name) = match &self.place {
            Place::Device(path) => (path.clone(), PathBuf::new()),
            Place::File(_, staged) => (staged.clone(), PathBuf::new()),
            Place::Folder(_, staging) => {
                let ending = format!("{}{}", self.layout.format.name(), self.layout.compression.ending());
                let name = folder.join(format!("part-{}-{:04}.{ending}", self.run, self.files));
                // Aside they lie next to each other: nobody looks at their folders yet.
                (staging.join(format!("{:08}", self.files)), name)
            }
        };
        let part = Part::create(path, &self.layout, true)?;
        Ok(Open { part, name, used: self.rows })
    }

    /// How many rows were written.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.open.values().map(|open| open.part.bytes()).sum()
    }

    /// Gives back half of what it holds, if it can, by ending row groups that are worth it; and where memory is `short`, by
    /// ending any of them, and files. Blocks on the disk.
    pub fn shrink(&mut self, short: bool) -> Result<()> {
        let half = self.bytes() / 2;
        while self.bytes() > half {
            let largest = self.open.iter_mut().max_by_key(|(_, open)| open.part.bytes());
            let Some((key, open)) = largest else { break };
            let before = open.part.bytes();
            if !short && before < WORTH_IT {
                break;
            }
            open.part.shrink()?;
            if open.part.bytes() > before / 2 {
                if !short || self.keys.is_empty() {
                    break;
                }
                // More files come of it.
                let key = key.clone();
                if let Some(open) = self.open.remove(&key) {
                    self.end(open)?;
                }
            }
        }
        Ok(())
    }

    /// Writes rows. Blocks on the disk.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        let written = rows.project(&self.columns)?;
        let Some(converter) = &self.converter else {
            self.rows += rows.num_rows() as u64;
            return self.append(vec![], Path::new(""), &written);
        };
        let keys: Vec<ArrayRef> = self.keys.iter().map(|k| rows.column(*k).clone()).collect();
        let converted = converter.convert_columns(&keys)?;
        let mut groups: HashMap<_, Vec<u32>> = HashMap::new();
        for (i, key) in converted.iter().enumerate() {
            groups.entry(key).or_default().push(i as u32);
        }
        let names: Vec<String> = self.keys.iter().map(|k| rows.schema().field(*k).name().clone()).collect();
        let groups = groups.into_iter().map(|(key, indices)| (key.as_ref().to_vec(), indices));
        for (key, indices) in groups.collect::<Vec<_>>() {
            let row = indices.first().copied().unwrap_or_default() as usize;
            let folder = folder_of(&names, &keys, row)?;
            let of_key = take_record_batch(&written, &UInt32Array::from(indices))?;
            self.rows += of_key.num_rows() as u64;
            self.append(key, &folder, &of_key)?;
        }
        Ok(())
    }

    fn append(&mut self, key: Vec<u8>, folder: &Path, rows: &RecordBatch) -> Result<()> {
        let mut open = match self.open.remove(&key) {
            Some(open) => open,
            None => {
                self.close_oldest()?;
                self.create(folder)?
            }
        };
        open.part.write(&cast_rows(rows, &self.layout.schema)?)?;
        open.used = self.rows;
        self.open.insert(key, open);
        Ok(())
    }

    /// Ends the file that was written to longest ago, if there are many.
    fn close_oldest(&mut self) -> Result<()> {
        if self.open.len() < OPEN {
            return Ok(());
        }
        let oldest = self.open.iter().min_by_key(|(_, open)| open.used).map(|(key, _)| key.clone());
        match oldest.and_then(|key| self.open.remove(&key)) {
            Some(open) => self.end(open),
            None => Ok(()),
        }
    }

    /// Ends a file; in a folder it gets its name, still aside.
    fn end(&mut self, open: Open) -> Result<()> {
        match &self.place {
            Place::Device(_) => open.part.end().map(drop),
            Place::File(path, _) => open.part.finish(path),
            Place::Folder(_, staging) => {
                let to = staging.join(&open.name);
                if let Some(folder) = to.parent() {
                    fs::create_dir_all(folder).map_err(|e| failed(folder, e))?;
                }
                open.part.finish(&to)?;
                self.whole.push(open.name);
                Ok(())
            }
        }
    }

    /// Puts all in its place. Blocks on the disk.
    pub fn finish(mut self) -> Result<()> {
        for (_, open) in std::mem::take(&mut self.open) {
            self.end(open)?;
        }
        if let Place::Folder(target, staging) = &self.place {
            if self.existing == Existing::Overwrite {
                remove_data(target)?;
            }
            for name in &self.whole {
                let to = target.join(name);
                if let Some(folder) = to.parent() {
                    fs::create_dir_all(folder).map_err(|e| failed(folder, e))?;
                }
                fs::rename(staging.join(name), &to).map_err(|e| failed(&to, e))?;
                sync_folder(&to)?;
            }
            fs::remove_dir_all(staging).map_err(|e| failed(staging, e))?;
        }
        self.done = true;
        Ok(())
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        // What cannot be removed stays hidden.
        match &self.place {
            Place::File(_, staged) => drop(fs::remove_file(staged)),
            Place::Folder(_, staging) => drop(fs::remove_dir_all(staging)),
            Place::Device(_) => {}
        }
        self.made.iter().for_each(|folder| drop(fs::remove_dir(folder)));
    }
}

fn folder_of(names: &[String], keys: &[ArrayRef], row: usize) -> Result<PathBuf> {
    let printed = FormatOptions::new();
    let mut folder = PathBuf::new();
    for (name, key) in names.iter().zip(keys) {
        let text = match key.is_null(row) {
            true => None,
            false => Some(ArrayFormatter::try_new(key.as_ref(), &printed)?.value(row).to_string()),
        };
        folder.push(hive::folder_name(name, text.as_deref()));
    }
    Ok(folder)
}

/// How files are written, but for their columns.
fn layout(request: &mut ExportRequest) -> Result<Layout> {
    let target = &request.target;
    let o = &mut request.options;
    let format = request.format.or_else(|| Format::of_name(target)).ok_or_else(|| {
        Error::invalid("the format is not known")
            .with_hint("End the name with .parquet, .csv, .json or .arrow, or add STORED AS PARQUET.")
    })?;
    let compression = match o.choice(&COMPRESSION)? {
        Some("none") => Compression::None,
        Some("gzip") => Compression::Gzip,
        Some("zstd") => Compression::Zstd,
        _ => Compression::of_name(target).0,
    };
    let csv = if format == Format::Csv { CsvOptions::take(o)? } else { CsvOptions::default() };
    std::mem::take(o).finish()?;
    if !format.is_text() && compression != Compression::None {
        return Err(Error::invalid(format!("{} files compress themselves", format.name()))
            .with_hint("Leave the compression out."));
    }
    Ok(Layout { format, compression, csv, schema: Arc::new(Schema::empty()) })
}

fn key_columns(request: &ExportRequest) -> Result<Vec<usize>> {
    let find = |name: &String| {
        let found = find_field(request.schema.fields(), name).ok_or_else(|| {
            let names: Vec<_> = request.schema.fields().iter().map(|f| f.name().as_str()).collect();
            Error::invalid(format!("PARTITIONED BY: there is no column \"{name}\""))
                .with_hint(format!("The columns are: {}.", names.join(", ")))
        })?;
        if request.schema.field(found).data_type().is_nested() {
            return Err(Error::unsupported(format!("PARTITIONED BY: column \"{name}\" has no plain values"))
                .with_hint("Name columns of numbers, texts or times."));
        }
        Ok(found)
    };
    request.partition_by.iter().map(find).collect()
}

/// Where the rows go, and whether they may.
fn place(request: &ExportRequest, run: &str) -> Result<Place> {
    let path = PathBuf::from(&request.target);
    let found = fs::metadata(&path).ok();
    let is_folder = !request.partition_by.is_empty()
        || request.target.ends_with('/')
        || found.as_ref().is_some_and(fs::Metadata::is_dir)
        || path.extension().is_none() && found.is_none();
    if is_folder {
        if found.is_some_and(|m| !m.is_dir()) {
            return Err(Error::invalid(format!("\"{}\" is a file, not a folder", request.target))
                .with_hint("Name another place, or leave PARTITIONED BY out."));
        }
        refuse_files(request, &path)?;
        let staging = path.join(format!(".copy-{run}"));
        return Ok(Place::Folder(path, staging));
    }
    if request.existing == Existing::Append {
        return Err(Error::unsupported(format!("\"{}\" is a file, and APPEND adds files to a folder", request.target))
            .with_hint("Name a folder: COPY … TO 'results/' STORED AS PARQUET APPEND."));
    }
    if found.is_some_and(|m| !m.is_file()) {
        return Ok(Place::Device(path));
    }
    // A link stays one.
    let path = fs::canonicalize(&path).unwrap_or(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let staged = path.with_file_name(format!(".{name}.copy-{run}"));
    Ok(Place::File(path, staged))
}

/// Refuses a folder that has files, unless the statement says what becomes of them.
fn refuse_files(request: &ExportRequest, folder: &Path) -> Result<()> {
    let hidden = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(['.', '_']);
    let has_files = fs::read_dir(folder).is_ok_and(|mut all| all.any(|e| e.is_ok_and(|e| !hidden(&e))));
    if !has_files || request.existing != Existing::Refuse {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Exists, format!("folder \"{}\" has files already", request.target)).with_hint(
        "Add OVERWRITE to the statement, which removes its data files when the new ones are whole, or APPEND, which leaves them.",
    ))
}

/// Removes the files in and below `folder` that a reader would take for data, and the folders that are empty then.
fn remove_data(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(|e| failed(folder, e))? {
        let entry = entry.map_err(|e| failed(folder, e))?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if name.starts_with(['.', '_']) {
            continue;
        }
        let kind = entry.file_type().map_err(|e| failed(&path, e))?;
        if kind.is_dir() {
            remove_data(&path)?;
            // Others may have put something into it.
            let _ = fs::remove_dir(&path);
        } else if Format::of_name(&name).is_some() {
            fs::remove_file(&path).map_err(|e| failed(&path, e))?;
        }
    }
    Ok(())
}
