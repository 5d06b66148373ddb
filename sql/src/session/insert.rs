//! INSERT: rows of a query, committed whole.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, concat_batches};
use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement as DfStatement;
use futures::TryStreamExt;
use millstream_engine::changes::row_bytes;
use millstream_engine::memory::MemoryAccount;

use super::Session;
use super::execute::snapshot;
use super::jobs::public;
use super::left_out::LeftOutRows;
use super::outcome::Outcome;
use super::tables::StreamDef;
use super::written::written;
use crate::error::{Error, Result};
use crate::plan::{assign_columns, session_state, statement_plan};
use crate::statement::{Insert, quote_name};

impl Session {
    pub(super) async fn insert(&self, insert: &Insert) -> Result<Outcome> {
        match insert.conflict()? {
            Some(conflict) => self.insert_conflicting(insert, &conflict).await,
            None => self.insert_all(insert, None, std::iter::once_with(|| Ok(insert.clone()))).await,
        }
    }

    /// Runs all of `inserts`, which are `insert` with a row of `parameters` each. All rows are there before the first goes
    /// in, and they go in together.
    pub(super) async fn insert_all(
        &self,
        insert: &Insert,
        parameters: Option<&RecordBatch>,
        inserts: impl Iterator<Item = Result<Insert>>,
    ) -> Result<Outcome> {
        let ms = &self.millstream;
        let def = ms.stream(public(&insert.target)?)?;
        self.touch(&def.name);
        let intake = ms.intake(&def)?;
        let held = ms.budget().account(format!("INSERT INTO {}", quote_name(&def.name)));
        let mut gathered = Gathered { def, batches: vec![], bytes: 0, held };
        let left_out = LeftOutRows::default();
        let written = written(insert, &gathered.def, parameters);
        if let Some(rows) = &written {
            gathered.keep(rows)?;
        }
        for insert in inserts.take_while(|_| written.is_none()) {
            let (state, reading) = (session_state(), self.reading().into_stream(&gathered.def.name));
            let statement = DfStatement::Statement(Box::new(insert?.statement));
            let plan = statement_plan(&state, ms.batch_resolver(&left_out, &reading), statement)?;
            let LogicalPlan::Dml(dml) = plan else { return Err(Error::internal("an INSERT that is none")) };
            let input = assign_columns(dml.input.as_ref().clone(), &gathered.def.name)?;
            gathered.add(snapshot(ms, &state, input, &left_out).await?).await?;
        }
        let rows = gathered.whole()?;
        let count = rows.num_rows() as u64;
        intake.push(rows).await?;
        intake.settle().await?;
        Ok(Outcome::rows("INSERT", count, &left_out))
    }
}

/// The rows of an INSERT.
struct Gathered {
    def: Arc<StreamDef>,
    batches: Vec<RecordBatch>,
    bytes: usize,
    held: MemoryAccount,
}

impl Gathered {
    async fn add(&mut self, rows: Outcome) -> Result<()> {
        let Outcome::Rows(mut rows) = rows else { return Err(Error::internal("a query without rows")) };
        while let Some(batch) = rows.rows.try_next().await? {
            self.keep(&batch)?;
        }
        Ok(())
    }

    fn keep(&mut self, rows: &RecordBatch) -> Result<()> {
        let batch = fit(rows, &self.def.schema, &self.def.name)?;
        self.bytes += row_bytes(&batch);
        // Twice: as batches, and as a whole.
        self.held.resize(2 * self.bytes).map_err(|e| {
            Error::from(e).with_hint(
                "An INSERT is committed whole: insert fewer rows at a time, or raise the budget with \
                 SET memory_limit = '8GB'. A query that goes on is CREATE STREAM … AS SELECT ….",
            )
        })?;
        self.batches.push(batch);
        Ok(())
    }

    fn whole(&mut self) -> Result<RecordBatch> {
        Ok(concat_batches(&self.def.schema, &std::mem::take(&mut self.batches))?)
    }
}

/// Rows as stream `name` with `schema` takes them: columns by name, missing ones null, each value cast or
/// refused.
pub(super) fn fit(rows: &RecordBatch, schema: &SchemaRef, name: &str) -> Result<RecordBatch> {
    let given = rows.schema();
    for f in given.fields() {
        if schema.index_of(f.name()).is_err() {
            return Err(Error::invalid(format!("stream \"{name}\" has no column \"{}\"", f.name())));
        }
    }
    let strict = CastOptions { safe: false, ..Default::default() };
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for f in schema.fields() {
        let column = match rows.column_by_name(f.name()) {
            None => new_null_array(f.data_type(), rows.num_rows()),
            Some(c) if c.data_type() == f.data_type() => c.clone(),
            Some(c) => cast_with_options(c, f.data_type(), &strict)
                .map_err(|e| Error::invalid(format!("column \"{}\" of stream \"{name}\": {e}", f.name())))?,
        };
        if !f.is_nullable() && column.null_count() > 0 {
            return Err(Error::invalid(format!("column \"{}\" of stream \"{name}\" must not be null", f.name()))
                .with_hint("Give it a value: it is declared NOT NULL, or tells rows apart as PRIMARY KEY."));
        }
        columns.push(column);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}
