//! Parquet files as DataFusion reads and writes them for us: without statistics of floats.
//!
//! Statistics leave NaN out. DataFusion takes a column whose least and largest value are equal for a constant,
//! and prunes files, row groups and pages by what floats they cannot hold: both lose rows with NaN. Files of
//! this build have no such statistics; those of older builds have, so they are taken out of what is read of a
//! file before anything looks at them. Statistics of other columns, and row counts, serve as ever.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::error::Error;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::catalog::Session;
use datafusion::common::{ColumnStatistics, GetExt, Statistics};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::file_format::parquet::{ParquetFormat, ParquetFormatFactory};
use datafusion::datasource::file_format::{FileFormat, FileFormatFactory};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfig, FileScanConfigBuilder, FileSinkConfig, FileSource, ParquetFileReaderFactory,
    ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::SessionState;
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::errors::Result as ParquetResult;
use datafusion::parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use datafusion::parquet::file::page_index::column_index::ColumnIndexMetaData;
use datafusion::physical_expr::LexRequirement;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::future::{BoxFuture, FutureExt};
use millstream_engine::float::{float_columns, has_floats, is_float_column};
use object_store::{ObjectMeta, ObjectStore};

/// Makes `COPY TO` write Parquet as [`ParquetFiles`] does.
pub(crate) fn register(state: &mut SessionState) -> Result<()> {
    state.register_file_format(Arc::new(Factory(ParquetFormatFactory::new())), true)
}

#[derive(Debug)]
struct Factory(ParquetFormatFactory);

impl GetExt for Factory {
    fn get_ext(&self) -> String {
        self.0.get_ext()
    }
}

impl FileFormatFactory for Factory {
    fn create(&self, state: &dyn Session, options: &HashMap<String, String>) -> Result<Arc<dyn FileFormat>> {
        let plain = self.0.create(state, options)?;
        let options = plain.downcast_ref::<ParquetFormat>().map(|f| f.options().clone());
        Ok(Arc::new(ParquetFiles::new(options.unwrap_or_default())))
    }

    fn default(&self) -> Arc<dyn FileFormat> {
        Arc::new(ParquetFiles::default())
    }
}

/// DataFusion's Parquet format, without statistics of floats.
#[derive(Debug, Default)]
pub(crate) struct ParquetFiles {
    plain: ParquetFormat,
}

impl ParquetFiles {
    fn new(options: TableParquetOptions) -> Self {
        ParquetFiles { plain: ParquetFormat::default().with_options(options) }
    }
}

#[async_trait]
impl FileFormat for ParquetFiles {
    fn get_ext(&self) -> String {
        self.plain.get_ext()
    }

    fn get_ext_with_compression(&self, compression: &FileCompressionType) -> Result<String> {
        self.plain.get_ext_with_compression(compression)
    }

    fn compression_type(&self) -> Option<FileCompressionType> {
        self.plain.compression_type()
    }

    async fn infer_schema(
        &self,
        state: &dyn Session,
        store: &Arc<dyn ObjectStore>,
        objects: &[ObjectMeta],
    ) -> Result<SchemaRef> {
        self.plain.infer_schema(state, store, objects).await
    }

    async fn infer_stats(
        &self,
        state: &dyn Session,
        store: &Arc<dyn ObjectStore>,
        table_schema: SchemaRef,
        object: &ObjectMeta,
    ) -> Result<Statistics> {
        let mut statistics = self.plain.infer_stats(state, store, table_schema.clone(), object).await?;
        for (column, field) in statistics.column_statistics.iter_mut().zip(table_schema.fields()) {
            if has_floats(field.data_type()) {
                *column = ColumnStatistics { null_count: column.null_count, ..ColumnStatistics::new_unknown() };
            }
        }
        Ok(statistics)
    }

    async fn create_physical_plan(&self, state: &dyn Session, scan: FileScanConfig) -> Result<Arc<dyn ExecutionPlan>> {
        let source = scan.file_source().downcast_ref::<ParquetSource>().cloned();
        let source = source.ok_or_else(|| DataFusionError::Internal("a Parquet file of another source".to_owned()))?;
        let store = state.runtime_env().object_store(scan.object_store_url.clone())?;
        let cache = state.runtime_env().cache_manager.get_file_metadata_cache();
        let readers = Arc::new(Readers(CachedParquetFileReaderFactory::new(store, cache)));
        let source =
            source.with_table_parquet_options(self.plain.options().clone()).with_parquet_file_reader_factory(readers);
        // What is not worth several threads is read in the order of the files' names, as if it were one file.
        let bytes: u64 = scan.file_groups.iter().flat_map(FileGroup::iter).map(|f| f.object_meta.size).sum();
        let small = bytes < state.config_options().optimizer.repartition_file_min_size as u64;
        let mut groups = scan.file_groups.clone();
        if small && groups.len() > 1 {
            groups = vec![FileGroup::new(groups.into_iter().flat_map(FileGroup::into_inner).collect())];
        }
        let scan = FileScanConfigBuilder::from(scan).with_file_groups(groups).with_source(Arc::new(source)).build();
        Ok(DataSourceExec::from_data_source(scan))
    }

    async fn create_writer_physical_plan(
        &self,
        input: Arc<dyn ExecutionPlan>,
        state: &dyn Session,
        sink: FileSinkConfig,
        order: Option<LexRequirement>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut options = self.plain.options().clone();
        for path in float_columns(sink.output_schema()).map_err(Error::from)? {
            let column = options.column_specific_options.entry(path.string()).or_default();
            column.statistics_enabled.get_or_insert_with(|| "none".to_owned());
        }
        ParquetFormat::default().with_options(options).create_writer_physical_plan(input, state, sink, order).await
    }

    fn file_source(&self, table_schema: TableSchema) -> Arc<dyn FileSource> {
        self.plain.file_source(table_schema)
    }
}

#[derive(Debug)]
struct Readers(CachedParquetFileReaderFactory);

impl ParquetFileReaderFactory for Readers {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        Ok(Box::new(Reader(self.0.create_reader(partition, file, size_hint, metrics)?)))
    }
}

struct Reader(Box<dyn AsyncFileReader + Send>);

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.0.get_bytes(range)
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        self.0.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move { without_float_statistics(self.0.get_metadata(options).await?) }.boxed()
    }
}

/// Whether anything in a column's metadata says which floats it holds.
fn tells(column: &ColumnChunkMetaData) -> bool {
    is_float_column(column.column_descr())
        && (column.statistics().is_some()
            || column.column_index_offset().is_some()
            || column.bloom_filter_offset().is_some())
}

fn without_float_statistics(metadata: Arc<ParquetMetaData>) -> ParquetResult<Arc<ParquetMetaData>> {
    if !metadata.row_groups().iter().any(|g| g.columns().iter().any(tells)) {
        return Ok(metadata);
    }
    let mut builder = ParquetMetaData::clone(&metadata).into_builder();
    let mut groups = builder.take_row_groups();
    for column in groups.iter_mut().flat_map(|g| g.columns_mut()).filter(|c| tells(c)) {
        let blind = column.clone().into_builder().clear_statistics();
        let blind = blind.set_column_index_offset(None).set_column_index_length(None);
        *column = blind.set_bloom_filter_offset(None).set_bloom_filter_length(None).build()?;
    }
    let mut index = builder.take_column_index();
    for (pages, group) in index.iter_mut().flatten().zip(&groups) {
        for (page, column) in pages.iter_mut().zip(group.columns()) {
            if is_float_column(column.column_descr()) {
                *page = ColumnIndexMetaData::NONE;
            }
        }
    }
    Ok(Arc::new(builder.set_row_groups(groups).set_column_index(index).build()))
}
