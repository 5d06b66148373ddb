//! Parquet files of streams: how they are written and read.

use std::io::Write;
use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::{KeyValue, ParquetMetaDataReader};
use parquet::file::properties::WriterProperties;

use crate::error::{Error, Result};
use crate::float::without_float_statistics;
use crate::format::stored::{cast_rows, file_schema};
use crate::store::{Fetched, Store};

/// Rows per row group.
const ROW_GROUP: usize = 256 << 10;

/// A file being written.
pub(super) struct FileWriter<W: Write + Send> {
    schema: SchemaRef,
    writer: ArrowWriter<W>,
    rows: u64,
}

impl FileWriter<Vec<u8>> {
    /// For rows of `schema`, in memory: what a checkpoint adds.
    pub(super) fn new(schema: &Schema) -> Result<Self> {
        FileWriter::to(schema, vec![])
    }
}

impl<W: Write + Send> FileWriter<W> {
    /// For rows of `schema`, written to `out`.
    pub(super) fn to(schema: &Schema, out: W) -> Result<Self> {
        let schema = file_schema(schema);
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            .set_max_row_group_row_count(Some(ROW_GROUP))
            .set_created_by("millstream".to_owned());
        let properties = without_float_statistics(properties, &schema)?.build();
        let options = ArrowWriterOptions::new().with_properties(properties);
        Ok(FileWriter { writer: ArrowWriter::try_new_with_options(out, schema.clone(), options)?, schema, rows: 0 })
    }

    /// The columns as the file has them.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Appends rows.
    pub(super) fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        self.rows += rows.num_rows() as u64;
        Ok(self.writer.write(&cast_rows(rows, &self.schema)?)?)
    }

    /// Writes a note into the footer.
    pub(super) fn note(&mut self, key: &str, note: String) {
        self.writer.append_key_value_metadata(KeyValue::new(key.to_owned(), note));
    }

    /// Bytes of the row group that is being written.
    pub(super) fn bytes(&self) -> usize {
        self.writer.memory_size()
    }

    /// Ends the row group that is being written, so that only its compressed bytes are left.
    pub(super) fn end_group(&mut self) -> Result<()> {
        Ok(self.writer.flush()?)
    }

    /// What the file is written to.
    pub(super) fn out(&self) -> &W {
        self.writer.inner()
    }

    /// The number of rows, and what the file was written to.
    pub(super) fn finish(self) -> Result<(u64, W)> {
        Ok((self.rows, self.writer.into_inner()?))
    }
}

/// The rows `rows` of the file at `path`, of columns `columns` (by name), in batches of up to 8192 rows. The file is read as it is
/// needed; from a bucket it is fetched before.
pub async fn open_rows(
    store: &Store,
    path: &str,
    rows: Range<u64>,
    columns: &[String],
) -> Result<ParquetRecordBatchReader> {
    let damaged = |e: parquet::errors::ParquetError| Error::from(e).context(format!("file \"{}\"", store.locate(path)));
    let file = match store.root() {
        Some(_) => opened(store, path)?,
        None => match store.fetch(path).await? {
            Fetched::File(file) => file,
            Fetched::Bytes(bytes) => {
                let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(damaged)?;
                return select(builder, rows, columns).map_err(damaged);
            }
        },
    };
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(damaged)?;
    select(builder, rows, columns).map_err(damaged)
}

fn opened(store: &Store, path: &str) -> Result<std::fs::File> {
    let full = store.root().map(|root| root.join(path)).unwrap_or_default();
    std::fs::File::open(&full).map_err(|e| Error::from(e).context(format!("file \"{}\"", full.display())))
}

/// The note `key` in the footer of the file at `path`.
pub(super) async fn note_of(store: &Store, path: &str, key: &str) -> Result<Option<String>> {
    let damaged = |e: parquet::errors::ParquetError| Error::from(e).context(format!("file \"{}\"", store.locate(path)));
    let mut reader = ParquetMetaDataReader::new();
    match store.root() {
        Some(_) => reader.try_parse(&opened(store, path)?),
        None => match store.fetch(path).await? {
            Fetched::File(file) => reader.try_parse(&file),
            Fetched::Bytes(bytes) => reader.try_parse(&bytes),
        },
    }
    .map_err(damaged)?;
    let metadata = reader.finish().map_err(damaged)?;
    let notes = metadata.file_metadata().key_value_metadata();
    Ok(notes.into_iter().flatten().find(|note| note.key == key).and_then(|note| note.value.clone()))
}

/// The columns of the file at `path`.
pub(super) async fn columns_of(store: &Store, path: &str) -> Result<SchemaRef> {
    let damaged = |e: parquet::errors::ParquetError| Error::from(e).context(format!("file \"{}\"", store.locate(path)));
    let bytes = store.get(path).await?;
    Ok(ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(damaged)?.schema().clone())
}

fn select<T: parquet::file::reader::ChunkReader + 'static>(
    builder: ParquetRecordBatchReaderBuilder<T>,
    rows: Range<u64>,
    columns: &[String],
) -> parquet::errors::Result<ParquetRecordBatchReader> {
    // Only of the row groups that have some of them: those before would be unpacked to be passed over.
    let (mut groups, mut first, mut at) = (vec![], 0, 0);
    for (i, group) in builder.metadata().row_groups().iter().enumerate() {
        let end = at + group.num_rows().max(0) as u64;
        if end > rows.start && at < rows.end {
            first = if groups.is_empty() { at } else { first };
            groups.push(i);
        }
        at = end;
    }
    let (start, end) = (rows.start.min(at), rows.end.min(at));
    let selection = RowSelection::from(vec![
        RowSelector::skip(start.saturating_sub(first) as usize),
        RowSelector::select((end - start) as usize),
    ]);
    // By place: in a path of names a dot would part a column from its fields.
    let place = |name: &String| {
        let found = builder.schema().fields().iter().position(|f| f.name() == name);
        found.ok_or_else(|| parquet::errors::ParquetError::General(format!("there is no column \"{name}\"")))
    };
    let places = columns.iter().map(place).collect::<parquet::errors::Result<Vec<_>>>()?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), places);
    builder.with_row_groups(groups).with_projection(mask).with_row_selection(selection).with_batch_size(8192).build()
}
