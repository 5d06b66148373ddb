//! `millstream.dead_letters`: what the jobs of streams have put aside, for who may read those and what they read.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use millstream_engine::checkpoint::Checkpoints;
use millstream_engine::store::Store;
use millstream_engine::table::dead_letters;
use tokio::sync::watch;

use super::tables::scan_files;
use crate::catalog::{Catalog, Entry};
use crate::error::Error;
use crate::function::bytes_text;
use crate::rights::{Access, Need, Principal, Right};

/// The column with the bytes, and the one with what can be read of them.
const RAW: &str = "raw";
const TEXT: &str = "text";

/// Its columns: those of the files, and behind the bytes their text, which is there also where a cast would fail.
pub(super) fn schema() -> SchemaRef {
    let mut fields = vec![];
    for field in dead_letters::schema().fields() {
        fields.push(field.as_ref().clone());
        if field.name() == RAW {
            fields.push(Field::new(TEXT, DataType::Utf8, true));
        }
    }
    Arc::new(Schema::new(fields))
}

/// See the module's text.
#[derive(Clone)]
pub(super) struct DeadLetters {
    store: Store,
    who: Principal,
    access: watch::Receiver<Arc<Access>>,
}

impl DeadLetters {
    /// Those that `who` may see.
    pub(super) fn new(store: Store, who: Principal, access: watch::Receiver<Arc<Access>>) -> Self {
        DeadLetters { store, who, access }
    }

    /// Whether those of `entry` are shown: they may hold rows of all that it reads.
    fn shows(&self, entry: &Entry) -> bool {
        let access = self.access.borrow();
        let may = |name: &String| access.allows(&self.who, Need::On(Right::Read, name));
        !entry.job.is_empty() && may(&entry.name) && entry.reads.iter().all(may)
    }
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeadLetters")
    }
}

/// Column `name` of `stored`.
fn column(name: &str, stored: &Schema, options: &Arc<ConfigOptions>) -> DfResult<Arc<dyn PhysicalExpr>> {
    if name != TEXT {
        return Ok(Arc::new(Column::new_with_schema(name, stored)?));
    }
    let raw: Arc<dyn PhysicalExpr> = Arc::new(Column::new_with_schema(RAW, stored)?);
    Ok(Arc::new(ScalarFunctionExpr::try_new(bytes_text(), vec![raw], stored, Arc::clone(options))?))
}

#[async_trait]
impl TableProvider for DeadLetters {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        // The files that the jobs' last manifests name.
        let mut files = vec![];
        let catalog = Catalog::load(&self.store).await?;
        for entry in catalog.entries.iter().filter(|entry| self.shows(entry)) {
            let last = Checkpoints::new(self.store.clone(), &entry.job).last().await.map_err(Error::from)?;
            files.extend(last.map(|m| m.dead_letters).unwrap_or_default());
        }
        let shown = schema();
        let wanted: Vec<&str> = match projection {
            Some(places) => places.iter().map(|i| shown.field(*i).name().as_str()).collect(),
            None => shown.fields().iter().map(|f| f.name().as_str()).collect(),
        };
        let all = dead_letters::schema();
        let reads = |f: &Field| wanted.contains(&f.name().as_str()) || (f.name() == RAW && wanted.contains(&TEXT));
        let read: Vec<usize> = (0..all.fields().len()).filter(|i| reads(all.field(*i))).collect();
        let stored = scan_files(&self.store, &files, &all, session, Some(&read), &[], limit).await?;
        let options = Arc::new(session.config_options().clone());
        let made = |name: &&str| {
            let expr = column(name, &stored.schema(), &options)?;
            Ok(ProjectionExpr { expr, alias: (*name).to_owned() })
        };
        let columns = wanted.iter().map(made).collect::<DfResult<Vec<_>>>()?;
        Ok(Arc::new(ProjectionExec::try_new(columns, Arc::clone(&stored))?))
    }
}
