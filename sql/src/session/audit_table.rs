//! `millstream.audit` as a table.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

use super::audit::{Audit, Event};
use crate::error::Result;

/// What it is called within its schema.
pub(super) const NAME: &str = "audit";

/// Its columns.
pub(super) fn schema() -> SchemaRef {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("at", time, false),
        text("user", true),
        text("address", true),
        text("action", false),
        text("statement", true),
        Field::new("allowed", DataType::Boolean, false),
        text("reason", true),
        Field::new("times", DataType::UInt64, false),
    ]))
}

fn rows(events: &[Event]) -> Result<RecordBatch> {
    let text = |f: fn(&Event) -> Option<&String>| -> ArrayRef {
        Arc::new(StringArray::from_iter(events.iter().map(|event| f(event).map(String::as_str))))
    };
    let times = TimestampMicrosecondArray::from_iter_values(events.iter().map(|e| e.at)).with_timezone("UTC");
    let columns = vec![
        Arc::new(times) as ArrayRef,
        text(|e| e.user.as_ref()),
        text(|e| e.address.as_ref()),
        text(|e| Some(&e.action)),
        text(|e| e.statement.as_ref()),
        Arc::new(BooleanArray::from_iter(events.iter().map(|e| Some(e.allowed)))),
        text(|e| e.reason.as_ref()),
        Arc::new(UInt64Array::from_iter_values(events.iter().map(|e| e.times))),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

/// See the module's text.
pub(super) struct AuditTable(pub(super) Arc<Audit>);

impl fmt::Debug for AuditTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditTable")
    }
}

#[async_trait]
impl TableProvider for AuditTable {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        self.0.settle().await?;
        let rows = rows(&self.0.read().await?)?;
        let plan = MemorySourceConfig::try_new_exec(&[vec![rows]], schema(), projection.cloned())?;
        Ok(plan)
    }
}
