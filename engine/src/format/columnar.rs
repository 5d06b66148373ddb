//! Files that hold Arrow columns already: Parquet and Arrow IPC.
//!
//! Columns are found by name and cast to the declared types; a value that its type cannot hold makes a dead
//! letter of its row. A position is a row number.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use crate::connector::DeadLetter;
use crate::error::{Error, Result};
use crate::format::sql_name;
use crate::time::{EventTime, micros_of};

/// The rows of a batch.
const BATCH: usize = 8192;

/// The rows of a unit at most: a row group may be too much to be lost to a restart.
const UNIT_ROWS: u64 = 128 << 10;

/// The type that this engine keeps values of `data_type` in: text as views, dictionaries unpacked.
pub fn native_type(data_type: &DataType) -> DataType {
    let inner = |f: &FieldRef| Arc::new(native_field(f));
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary => DataType::BinaryView,
        DataType::Dictionary(_, value) => native_type(value),
        DataType::List(f) => DataType::List(inner(f)),
        DataType::LargeList(f) => DataType::LargeList(inner(f)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        other => other.clone(),
    }
}

fn native_field(field: &Field) -> Field {
    Field::new(field.name(), native_type(field.data_type()), field.is_nullable())
}

/// The schema with [`native_type`]s and without metadata.
pub fn native_schema(schema: &Schema) -> Schema {
    Schema::new(schema.fields().iter().map(|f| native_field(f)).collect::<Vec<_>>())
}

/// Finds column `name` in `schema`, first to the letter, then without regard to case.
pub(crate) fn find(schema: &Schema, name: &str, file: &str) -> Result<usize> {
    let fields = schema.fields();
    let exact = fields.iter().position(|f| f.name() == name);
    exact.or_else(|| fields.iter().position(|f| f.name().eq_ignore_ascii_case(name))).ok_or_else(|| {
        let names: Vec<_> = fields.iter().map(|f| f.name().as_str()).collect();
        Error::invalid(format!("file \"{file}\" has no column \"{name}\""))
            .with_hint(format!("It has: {}.", names.join(", ")))
    })
}

/// The batches of a file, as its reader gives them.
type BoxedBatches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;

/// A Parquet file whose footer has been read.
#[derive(Clone, Debug)]
pub struct ParquetFile {
    metadata: ArrowReaderMetadata,
}

impl ParquetFile {
    /// Reads the footer of `file`; `name` goes into errors.
    pub fn open(file: &File, name: &str) -> Result<Self> {
        let failed = |e| Error::from(e).context(format_args!("file \"{name}\" cannot be read as Parquet"));
        let plain = ArrowReaderMetadata::load(file, ArrowReaderOptions::new()).map_err(failed)?;
        let wanted = Arc::new(native_schema(plain.schema()));
        let options = ArrowReaderOptions::new().with_schema(wanted);
        // Types that Parquet's reader does not give directly are cast later.
        let metadata = ArrowReaderMetadata::try_new(plain.metadata().clone(), options).unwrap_or(plain);
        Ok(ParquetFile { metadata })
    }

    /// Its columns.
    pub fn schema(&self) -> Schema {
        native_schema(self.metadata.schema())
    }

    /// The rows of its row groups, in order.
    fn groups(&self) -> Vec<Range<u64>> {
        let sizes = self.metadata.metadata().row_groups().iter().map(|g| g.num_rows().unsigned_abs());
        let after = |at: &mut u64, n: u64| {
            let start = *at;
            *at += n;
            Some(start..*at)
        };
        sizes.scan(0, after).collect()
    }

    /// How many rows it has.
    pub fn rows(&self) -> u64 {
        self.metadata.metadata().row_groups().iter().map(|g| g.num_rows().unsigned_abs()).sum()
    }

    /// The pieces to read it in: row groups, or parts of large ones.
    pub fn units(&self) -> Vec<Range<u64>> {
        let cut = |g: Range<u64>| {
            let end = g.end;
            g.step_by(UNIT_ROWS as usize).map(move |start| start..end.min(start + UNIT_ROWS))
        };
        self.groups().into_iter().flat_map(cut).collect()
    }

    /// A bound below all values of the timestamp column `name`, where statistics tell.
    pub fn min_time(&self, name: &str) -> Option<EventTime> {
        let metadata = self.metadata.metadata();
        let schema = self.metadata.schema();
        let column = find(schema, name, "").ok()?;
        let name = schema.field(column).name();
        let statistics = StatisticsConverter::try_new(name, schema, self.metadata.parquet_schema()).ok()?;
        let mins = statistics.row_group_mins(metadata.row_groups()).ok()?;
        let mins = matches!(mins.data_type(), DataType::Timestamp(_, _)).then(|| micros_of(&mins).ok())??;
        if mins.null_count() > 0 {
            return None;
        }
        arrow::compute::min(&mins).map(EventTime)
    }

    /// Reads rows `unit`, which lie in one row group, from `file`.
    pub(crate) fn reader(&self, file: File, unit: Range<u64>, fit: Fit) -> Result<Batches> {
        let groups = self.groups();
        let overlaps = |g: &Range<u64>| g.start < unit.end && unit.start < g.end;
        let chosen: Vec<usize> = (0..groups.len()).filter(|i| overlaps(&groups[*i])).collect();
        let before = chosen.first().map_or(unit.start, |i| groups[*i].start);
        let schema = self.metadata.schema();
        let columns = fit.columns(schema)?;
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), columns.iter().copied());
        // The reader gives columns in the file's order.
        let mut sorted = columns.clone();
        sorted.sort_unstable();
        sorted.dedup();
        let order = columns.iter().filter_map(|c| sorted.binary_search(c).ok()).collect();
        let batches = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
            .with_row_groups(chosen)
            .with_projection(mask)
            .with_offset((unit.start - before) as usize)
            .with_limit((unit.end - unit.start) as usize)
            .with_batch_size(BATCH)
            .build()?;
        Ok(Batches { batches: Box::new(batches), order, fit, position: unit.start, skip: 0, end: Some(unit.end) })
    }
}

/// Opens an Arrow IPC file or stream, whichever it is.
fn open_ipc(file: File, name: &str) -> Result<(SchemaRef, BoxedBatches)> {
    let failed = |e| Error::from(e).context(format_args!("file \"{name}\" cannot be read as Arrow"));
    let mut input = BufReader::with_capacity(1 << 20, file);
    let mut magic = [0; 6];
    let is_file = input.read_exact(&mut magic).is_ok() && &magic == b"ARROW1";
    input.rewind()?;
    if is_file {
        let reader = FileReader::try_new(input, None).map_err(failed)?;
        return Ok((reader.schema(), Box::new(reader)));
    }
    let reader = StreamReader::try_new(input, None).map_err(failed)?;
    Ok((reader.schema(), Box::new(reader)))
}

/// The columns of an Arrow IPC file.
pub fn ipc_schema(file: File, name: &str) -> Result<Schema> {
    Ok(native_schema(&open_ipc(file, name)?.0))
}

/// Reads an Arrow IPC file from row `start` on.
pub(crate) fn ipc_reader(file: File, start: u64, fit: Fit) -> Result<Batches> {
    let (schema, batches) = open_ipc(file, &fit.split)?;
    let order = fit.columns(&schema)?;
    Ok(Batches { batches, order, fit, position: start, skip: start, end: None })
}

/// Rows of a columnar file as they were declared.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) rows: RecordBatch,
    pub(crate) dead: Vec<DeadLetter>,
    /// Everything before this has been read.
    pub(crate) after: u64,
    /// Whether the file ends at `after`.
    pub(crate) ended: bool,
}

/// A columnar file being read.
pub(crate) struct Batches {
    batches: BoxedBatches,
    /// Which columns of a batch to take, in the order of the schema.
    order: Vec<usize>,
    fit: Fit,
    position: u64,
    /// Rows to pass over.
    skip: u64,
    /// The end of the unit; `None` when the file's end is found only by reading.
    end: Option<u64>,
}

impl Batches {
    /// The next rows; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Rows>> {
        let Some(batch) = self.batches.next() else { return Ok(self.finish()) };
        let failed = |e| Error::from(e).context(format_args!("file \"{}\", row {}", self.fit.split, self.position));
        let mut batch = batch.map_err(failed)?;
        let skipped = self.skip.min(batch.num_rows() as u64);
        self.skip -= skipped;
        batch = batch.slice(skipped as usize, batch.num_rows() - skipped as usize);
        let first = self.position;
        self.position += batch.num_rows() as u64;
        let rows = batch.num_rows();
        let columns = self.order.iter().map(|i| batch.column(*i).clone()).collect();
        let (rows, dead) = self.fit.apply(columns, rows, first)?;
        Ok(Some(Rows { rows, dead, after: self.position, ended: false }))
    }

    /// Says once where the file ends, if that was not known.
    fn finish(&mut self) -> Option<Rows> {
        if self.end.is_some() {
            return None;
        }
        self.end = Some(self.position);
        let rows = RecordBatch::new_empty(self.fit.schema.clone());
        Some(Rows { rows, dead: vec![], after: self.position, ended: true })
    }
}

/// Makes the columns of a file the declared ones.
#[derive(Clone, Debug)]
pub(crate) struct Fit {
    /// The columns to yield.
    pub(crate) schema: SchemaRef,
    /// The split, for dead letters and errors.
    pub(crate) split: Arc<str>,
}

impl Fit {
    /// Where the wanted columns are in a file's schema.
    fn columns(&self, file: &Schema) -> Result<Vec<usize>> {
        self.schema.fields().iter().map(|f| find(file, f.name(), &self.split)).collect()
    }

    fn apply(&self, columns: Vec<ArrayRef>, rows: usize, first: u64) -> Result<(RecordBatch, Vec<DeadLetter>)> {
        let mut bad = vec![];
        let mut fitted = Vec::with_capacity(columns.len());
        for (column, field) in columns.into_iter().zip(self.schema.fields()) {
            fitted.push(self.column(column, field, &mut bad)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        // Until the bad rows are out, columns that must not be null may be.
        let nullable = |f: &FieldRef| f.as_ref().clone().with_nullable(true);
        let loose = Schema::new(self.schema.fields().iter().map(nullable).collect::<Vec<_>>());
        let mut batch = RecordBatch::try_new_with_options(Arc::new(loose), fitted, &options)?;
        bad.sort_by_key(|(row, _, _)| *row);
        bad.dedup_by_key(|(row, _, _)| *row);
        if !bad.is_empty() {
            let mut good = vec![true; rows];
            bad.iter().for_each(|(row, _, _)| good[*row] = false);
            batch = filter_record_batch(&batch, &BooleanArray::from(good))?;
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), batch.columns().to_vec(), &options)?;
        let dead = bad.into_iter().map(|(row, reason, raw)| {
            let position = first + row as u64;
            DeadLetter { split: self.split.clone(), position, line: None, reason, raw }
        });
        Ok((batch, dead.collect()))
    }

    fn column(&self, column: ArrayRef, field: &Field, bad: &mut Vec<(usize, String, Vec<u8>)>) -> Result<ArrayRef> {
        let (from, to) = (column.data_type().clone(), field.data_type());
        let name = field.name();
        let mut fitted = column.clone();
        if from != *to {
            let options = CastOptions { safe: true, ..CastOptions::default() };
            fitted = cast_with_options(&column, to, &options).map_err(|e| {
                let (from, to) = (sql_name(&from), sql_name(to));
                Error::invalid(format!(
                    "column \"{name}\" of file \"{}\" is {from}, which cannot be read as {to}",
                    self.split
                ))
                .with_hint(format!("Declare the column as {from}."))
                .with_source(e)
            })?;
        }
        if fitted.null_count() > column.null_count() {
            let show = ArrayFormatter::try_new(&column, &FormatOptions::default())?;
            for row in (0..column.len()).filter(|r| fitted.is_null(*r) && column.is_valid(*r)) {
                let value = show.value(row).to_string();
                bad.push((row, format!("column \"{name}\": {value} is not a {}", sql_name(to)), value.into_bytes()));
            }
        }
        if !field.is_nullable() && column.null_count() > 0 {
            let nulls = (0..column.len()).filter(|r| column.is_null(*r));
            bad.extend(nulls.map(|row| (row, format!("column \"{name}\" is null"), vec![])));
        }
        Ok(fitted)
    }
}

/// The columns of the Parquet file at `path`.
pub fn parquet_schema(path: &Path, name: &str) -> Result<Schema> {
    Ok(ParquetFile::open(&File::open(path)?, name)?.schema())
}
