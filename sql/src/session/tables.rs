//! Streams as DataFusion's tables: what a snapshot SELECT reads, and what the lowering finds in a plan.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::datasource::source_as_provider;
use datafusion::error::Result as DfResult;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::{Expr, LogicalPlan, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::streaming::{PartitionStream as _, StreamingTableExec};
use millstream_engine::connector::Source;
use millstream_engine::connector::ingest::IngestSource;
use millstream_engine::connector::registry::{Connector, SinkRequest, SourceRequest};
use millstream_engine::memory::MemoryBudget;
use millstream_engine::options::Options;
use millstream_engine::store::Store;
use millstream_engine::table::{Hold, StreamLog, StreamSource};
use parking_lot::Mutex;

use super::content::scan_content;
use super::left_out::LeftOutRows;
use super::metadata::told_apart;
use super::opening::Opening;
use super::outcome::ObjectKind;
use super::source_content::SourceContent;
use super::source_part::{SourcePart, SourceScan};
use crate::error::{Error, Result};
use crate::files::ParquetFiles;
use crate::plan::Semantics;
use crate::plan::lower::{Replaces, StreamScan};

/// A stream of the catalog, ready to be read.
pub struct StreamDef {
    /// Its name.
    pub(crate) name: String,
    /// What it is.
    pub(crate) kind: ObjectKind,
    /// The statement that makes it.
    pub(crate) sql: String,
    /// Its columns.
    pub(crate) schema: SchemaRef,
    /// The rules by which its expressions are planned.
    pub(crate) semantics: Semantics,
    /// The columns of its primary key.
    pub(crate) primary_key: Vec<usize>,
    /// The columns that identify a row, where known.
    pub(crate) key: Option<Vec<usize>>,
    /// Whether rows can be taken back.
    pub(crate) changelog: bool,
    /// Whether its rows mean what they say in their order only.
    pub(crate) in_order: bool,
    /// The event-time column and the bound that rows set.
    pub(crate) event_time: Option<(usize, Option<Arc<dyn PhysicalExpr>>)>,
    pub(crate) idle_timeout: Duration,
    /// Which of its columns are metadata of its connector, by the connector's names.
    pub(crate) metadata: BTreeMap<usize, String>,
    /// The connector and its options, for an external stream.
    pub(crate) connector: Option<(Arc<dyn Connector>, Options)>,
    /// How that is opened.
    pub(crate) opening: Opening,
    /// Where its connector writes, if nothing else may.
    pub(crate) place: Option<PathBuf>,
    /// The committed rows, for a stored or derived stream.
    pub(crate) log: Option<Arc<StreamLog>>,
    /// Where rows are handed in, for a stored stream.
    pub(crate) ingest: Option<Arc<IngestSource>>,
    /// The streams and views that it reads, also through others.
    pub(crate) reads: Vec<String>,
}

impl fmt::Debug for StreamDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamDef").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl StreamScan for StreamDef {
    fn name(&self) -> &str {
        &self.name
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn is_changelog(&self) -> bool {
        self.changelog
    }

    fn key(&self) -> Option<Vec<usize>> {
        self.key.clone()
    }

    fn event_time(&self) -> Option<(usize, Option<Arc<dyn PhysicalExpr>>)> {
        self.event_time.clone()
    }

    fn replaces(&self) -> Option<Replaces> {
        let key = Some(self.primary_key.clone()).filter(|key| self.kind == ObjectKind::External && !key.is_empty())?;
        Some(Replaces { key, beside: self.metadata.keys().copied().collect() })
    }

    fn is_in_order(&self) -> bool {
        self.in_order
    }

    fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    fn source(&self, projection: Vec<usize>, parallelism: usize) -> Result<Arc<dyn Source>> {
        if let Some(log) = &self.log {
            return Ok(Arc::new(StreamSource::new(log.clone(), projection)?));
        }
        let request = self.source_request(projection, parallelism)?;
        let (connector, _) = self.connector.as_ref().ok_or_else(|| Error::internal("a source of no connector"))?;
        Ok(connector.readable()?.scan(request)?)
    }
}

impl StreamDef {
    /// The scan of `projection` to ask its connector for.
    pub(super) fn source_request(&self, projection: Vec<usize>, parallelism: usize) -> Result<SourceRequest> {
        let (connector, options) = self.connector.as_ref().ok_or_else(|| {
            Error::unsupported(format!("stream \"{}\" is written to a connector and cannot be read", self.name))
                .with_hint("Create a derived stream of the same query without WITH (connector = …) and read that.")
        })?;
        let (schema, metadata) = told_apart(connector, &self.schema, &self.metadata)?;
        Ok(SourceRequest {
            stream: self.name.clone(),
            schema,
            projection,
            metadata,
            key: self.primary_key.clone(),
            event_time: self.event_time.as_ref().map(|(column, _)| *column),
            options: self.opening.options(&**connector, options)?,
            parallelism,
        })
    }
}

/// The idle timeout of a source that tells the watermark: its silence says nothing, since it may be cut off.
pub(super) const NEVER: Duration = Duration::from_secs(100 * 365 * 86_400);

impl StreamDef {
    /// Checks, once, that there is what its connector is asked for.
    pub(super) fn check_other_side(&self, parallelism: usize) -> Result<()> {
        match (self.kind, &self.connector) {
            (ObjectKind::External, Some((connector, _))) => {
                let all = (0..self.schema.fields().len()).collect();
                Ok(connector.readable()?.check(self.source_request(all, parallelism)?)?)
            }
            (ObjectKind::Written, Some((connector, options))) => {
                Ok(connector.writable()?.check(self.sink_request(&**connector, options, parallelism)?)?)
            }
            _ => Ok(()),
        }
    }

    /// What its connector is asked for, to be written with `options`.
    pub(super) fn sink_request(
        &self,
        connector: &dyn Connector,
        options: &Options,
        parallelism: usize,
    ) -> Result<SinkRequest> {
        let options = self.opening.options(connector, options)?;
        let key = self.key.clone().filter(|_| self.semantics.pairs_changes());
        let (stream, schema) = (self.name.clone(), self.schema.clone());
        Ok(SinkRequest { stream, schema, retracts: self.changelog, key, options, parallelism })
    }
}

/// A stream as a table in batch.
#[derive(Clone)]
pub(super) struct StreamTable {
    def: Arc<StreamDef>,
    /// Where a batch read notes what it could not decode.
    left_out: LeftOutRows,
    /// What a batch read holds counts in it.
    budget: Arc<MemoryBudget>,
    /// What was made to read it in batch, where it can be read again.
    parts: Arc<Mutex<Vec<Arc<SourcePart>>>>,
}

impl StreamTable {
    pub(super) fn new(def: Arc<StreamDef>, left_out: LeftOutRows, budget: Arc<MemoryBudget>) -> Self {
        StreamTable { def, left_out, budget, parts: Arc::default() }
    }
}

impl fmt::Debug for StreamTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamTable({})", self.def.name)
    }
}

#[async_trait]
impl TableProvider for StreamTable {
    fn schema(&self) -> SchemaRef {
        self.def.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        // Files are pruned by them.
        let logs = self.def.log.as_ref().is_some_and(|l| !l.is_changelog());
        let source = self.def.connector.as_ref().and_then(|(connector, _)| connector.source());
        // Of rows that are replaced none may be left out before.
        let files = logs || self.def.replaces().is_none() && source.is_some_and(|source| source.prunes());
        let answer =
            if files { TableProviderFilterPushDown::Inexact } else { TableProviderFilterPushDown::Unsupported };
        Ok(vec![answer; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        match &self.def.log {
            Some(log) if log.is_changelog() => scan_content(log, projection, limit),
            Some(log) => {
                let files = log.snapshot().files.iter().map(|f| log.path(&f.name)).collect::<Vec<_>>();
                scan_files(log.store(), &files, log.schema(), session, projection, filters, limit).await
            }
            None => self.scan_source(session, projection, filters, limit),
        }
    }
}

impl StreamTable {
    /// Reads an external stream to its end.
    fn scan_source(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let columns = projection.cloned().unwrap_or_else(|| (0..self.def.schema.fields().len()).collect());
        let filters = match filters.is_empty() {
            true => vec![],
            false => {
                let all = DFSchema::try_from(self.def.schema.as_ref().clone())?;
                // They stay above the scan, too: one that cannot be planned here prunes nothing.
                filters.iter().filter_map(|f| session.create_physical_expr(f.clone(), &all).ok()).collect()
            }
        };
        if self.def.changelog {
            let stream: Arc<dyn StreamScan> = self.def.clone();
            let scan = SourceScan { stream, columns, filters, budget: self.budget.clone() };
            let part = Arc::new(SourceContent::new(scan, self.left_out.clone())?);
            return Ok(Arc::new(StreamingTableExec::try_new(
                part.schema().clone(),
                vec![part],
                None,
                None,
                false,
                limit,
            )?));
        }
        let scan = SourceScan { stream: self.def.clone(), columns, filters, budget: self.budget.clone() };
        let part = Arc::new(SourcePart::new(scan, self.left_out.clone())?);
        let source = self.def.connector.as_ref().and_then(|(connector, _)| connector.source());
        if !source.is_some_and(|source| source.is_single()) {
            self.parts.lock().push(part.clone());
        }
        Ok(Arc::new(StreamingTableExec::try_new(part.schema().clone(), vec![part], None, None, false, limit)?))
    }
}

/// Keeps the files of all streams that `plan` reads, until what is given is dropped.
pub(super) fn hold_files(plan: &LogicalPlan) -> Result<Vec<Hold>> {
    let mut logs = vec![];
    each_table(plan, |table| logs.extend(table.def.log.clone()))?;
    Ok(logs.iter().map(StreamLog::hold).collect())
}

/// The scans of external streams that physical plans of `plan` have, as far as they can be read again.
pub(super) fn source_parts(plan: &LogicalPlan) -> Result<Vec<Arc<SourcePart>>> {
    let mut parts = vec![];
    each_table(plan, |table| parts.extend_from_slice(&table.parts.lock()))?;
    Ok(parts)
}

fn each_table(plan: &LogicalPlan, mut see: impl FnMut(&StreamTable)) -> Result<()> {
    plan.apply_with_subqueries(|p| {
        if let LogicalPlan::TableScan(scan) = p
            && let Ok(provider) = source_as_provider(&scan.source)
            && let Some(table) = provider.downcast_ref::<StreamTable>()
        {
            see(table);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// By what URL DataFusion knows the objects of a store that is no folder.
const OBJECTS: &str = "store://objects/";

/// Lets plans that run in `environment` read the objects of `store`. Files of a folder they find without.
pub(super) fn reach_objects(store: &Store, environment: &RuntimeEnv) -> DfResult<()> {
    if let Some((objects, _)) = store.outright() {
        environment.register_object_store(ObjectStoreUrl::parse(OBJECTS)?.as_ref(), objects);
    }
    Ok(())
}

/// A plan over Parquet files of the store, pruned by their statistics.
pub(super) async fn scan_files(
    store: &Store,
    files: &[String],
    schema: &SchemaRef,
    session: &dyn Session,
    projection: Option<&Vec<usize>>,
    filters: &[Expr],
    limit: Option<usize>,
) -> DfResult<Arc<dyn ExecutionPlan>> {
    if files.is_empty() {
        let plan = MemorySourceConfig::try_new_exec(&[vec![]], schema.clone(), projection.cloned())?;
        return Ok(plan);
    }
    reach_objects(store, session.runtime_env())?;
    let prefix = store.outright().map(|(_, prefix)| prefix);
    let url = |file: &String| match prefix {
        None => format!("file://{}", store.locate(file)),
        Some(prefix) => format!("{OBJECTS}{prefix}{file}"),
    };
    let urls = files.iter().map(|f| ListingTableUrl::parse(url(f))).collect::<DfResult<Vec<_>>>()?;
    let options = ListingOptions::new(Arc::new(ParquetFiles::default())).with_file_extension("parquet");
    let config =
        ListingTableConfig::new_with_multi_paths(urls).with_listing_options(options).with_schema(schema.clone());
    ListingTable::try_new(config)?.scan(session, projection, filters, limit).await
}
