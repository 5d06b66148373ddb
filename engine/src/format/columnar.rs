//! Files that hold Arrow columns already: Parquet and Arrow IPC.
//!
//! Columns are found by name and converted to the declared types (see [`convert`](super::convert)); a value that
//! its type cannot hold makes a dead letter of its row. Files of one folder may differ: a column or field that one
//! lacks is null in its rows. A position is a row number.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::{ConvertedType, LogicalType};
use parquet::schema::types::Type;

use crate::error::{Error, Result};
use crate::format::DeadLetter;
use crate::format::convert::{Misfit, convert, find_field};
use crate::format::ipc::{IpcFile, IpcStream};
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

/// That `file`, which has the columns of `schema`, does not have `name`.
pub(crate) fn lacks(schema: &Schema, name: &str, file: &str) -> Error {
    let names: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    Error::invalid(format!("file \"{file}\" has no column \"{name}\""))
        .with_hint(format!("It has: {}.", names.join(", ")))
}

/// What keeps a column of Parquet from being read: types whose values would come out as others.
fn unreadable(t: &Type) -> Option<&'static str> {
    let info = t.get_basic_info();
    if matches!(info.logical_type_ref(), Some(LogicalType::Variant { .. })) {
        return Some("VARIANT");
    }
    if info.converted_type() == ConvertedType::INTERVAL {
        return Some("INTERVAL");
    }
    t.is_group().then(|| t.get_fields().iter().find_map(|f| unreadable(f)))?
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

    /// Errors when one of the columns at `places` cannot be read; `name` goes into it.
    fn check(&self, places: impl Iterator<Item = usize>, name: &str) -> Result<()> {
        let columns = self.metadata.parquet_schema().root_schema().get_fields();
        for column in places.filter_map(|i| columns.get(i)) {
            if let Some(kind) = unreadable(column) {
                let column = column.name();
                return Err(Error::unsupported(format!(
                    "column \"{column}\" of file \"{name}\" is {kind}, which cannot be read from Parquet"
                ))
                .with_hint(format!(
                    "Declare the columns without \"{column}\", or write it as another type, for example as text."
                )));
            }
        }
        Ok(())
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

    /// The place in the file behind its last values: what follows is replaced when rows are added to it.
    pub fn data_end(&self) -> u64 {
        let columns = self.metadata.metadata().row_groups().iter().flat_map(|group| group.columns());
        columns.map(|c| c.byte_range()).map(|(start, length)| start.saturating_add(length)).max().unwrap_or(0)
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
        let column = find_field(schema.fields(), name)?;
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
        let columns = fit.columns(schema);
        self.check(columns.iter().flatten().copied(), &fit.split)?;
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), columns.iter().flatten().copied());
        // The reader gives columns in the file's order.
        let mut sorted: Vec<usize> = columns.iter().flatten().copied().collect();
        sorted.sort_unstable();
        sorted.dedup();
        let order = columns.iter().map(|c| sorted.binary_search(&(*c)?).ok()).collect();
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
    let failed = |e: Error| e.context(format_args!("file \"{name}\" cannot be read as Arrow"));
    ipc_batches(BufReader::with_capacity(1 << 20, file)).map_err(failed)
}

/// The columns and the batches of Arrow IPC, as a file or a stream.
fn ipc_batches(mut input: impl Read + Seek + Send + 'static) -> Result<(SchemaRef, BoxedBatches)> {
    let mut magic = [0; 6];
    let is_file = input.read_exact(&mut magic).is_ok() && &magic == b"ARROW1";
    input.rewind()?;
    if is_file {
        let reader = IpcFile::new(input)?;
        return Ok((reader.schema(), Box::new(reader)));
    }
    let reader = IpcStream::new(input, usize::MAX)?;
    Ok((reader.schema(), Box::new(reader)))
}

/// The columns of an Arrow IPC file.
pub fn ipc_schema(file: File, name: &str) -> Result<Schema> {
    Ok(native_schema(&open_ipc(file, name)?.0))
}

/// Reads an Arrow IPC file from row `start` on.
pub(crate) fn ipc_reader(file: File, start: u64, fit: Fit) -> Result<Batches> {
    let (schema, batches) = open_ipc(file, &fit.split)?;
    let order = fit.columns(&schema);
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
    /// Which columns of a batch to take, in the order of the schema; none where the file lacks one.
    order: Vec<Option<usize>>,
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
        let columns = self.order.iter().map(|i| i.and_then(|i| batch.columns().get(i)).cloned()).collect();
        let fitted = self.fit.apply(columns, rows, first);
        let (rows, dead) = fitted.map_err(|e| e.context(format_args!("file \"{}\"", self.fit.split)))?;
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
    pub(super) fn columns(&self, file: &Schema) -> Vec<Option<usize>> {
        self.schema.fields().iter().map(|f| find_field(file.fields(), f.name())).collect()
    }

    /// Makes `columns` of `rows` rows, the first of which is number `first`, the wanted ones; a row that does not fit
    /// becomes a dead letter.
    pub(super) fn apply(
        &self,
        columns: Vec<Option<ArrayRef>>,
        rows: usize,
        first: u64,
    ) -> Result<(RecordBatch, Vec<DeadLetter>)> {
        let mut bad: Vec<Misfit> = vec![];
        let mut fitted = Vec::with_capacity(columns.len());
        for (column, field) in columns.into_iter().zip(self.schema.fields()) {
            let column = column.unwrap_or_else(|| new_null_array(&DataType::Null, rows));
            fitted.push(convert(&column, field, &mut bad)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        // Until the bad rows are out, columns that must not be null may be.
        let nullable = |f: &FieldRef| f.as_ref().clone().with_nullable(true);
        let loose = Schema::new(self.schema.fields().iter().map(nullable).collect::<Vec<_>>());
        let mut batch = RecordBatch::try_new_with_options(Arc::new(loose), fitted, &options)?;
        bad.sort_by_key(|m| m.row);
        bad.dedup_by_key(|m| m.row);
        if !bad.is_empty() {
            let mut good = vec![true; rows];
            bad.iter().for_each(|m| good[m.row] = false);
            batch = filter_record_batch(&batch, &BooleanArray::from(good))?;
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), batch.columns().to_vec(), &options)?;
        let dead = bad.into_iter().map(|Misfit { row, reason, raw }| {
            let position = first + row as u64;
            DeadLetter { split: self.split.clone(), position, line: None, reason, raw }
        });
        Ok((batch, dead.collect()))
    }
}

/// The columns of a Parquet file called `name`; errors when one of `wanted`, or any if there are none, cannot be
/// read.
pub fn parquet_schema(file: &File, name: &str, wanted: Option<&Schema>) -> Result<Schema> {
    let file = ParquetFile::open(file, name)?;
    let schema = file.schema();
    match wanted {
        Some(wanted) => {
            let places = wanted.fields().iter().filter_map(|f| find_field(schema.fields(), f.name()));
            file.check(places, name)?;
        }
        None => file.check(0..schema.fields().len(), name)?,
    }
    Ok(schema)
}
