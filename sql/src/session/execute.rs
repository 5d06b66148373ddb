//! Executing statements.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execute_stream;
use datafusion::sql::parser::Statement as DfStatement;
use futures::{StreamExt, TryStreamExt};
use millstream_engine::connector::feed::FeedSink;
use millstream_engine::graph::SinkNode;
use millstream_engine::runtime::JobConfig;

use super::define::{every, own_parallelism};
use super::jobs::public;
use super::outcome::{ChangeFeed, EpochChanges, ObjectKind, Outcome, Prepared, RowStream};
use super::{Millstream, Session};
use crate::catalog::Entry;
use crate::error::{Error, Result};
use crate::plan::lower::finish;
use crate::plan::{query_plan, session_state, statement_plan};
use crate::statement::{CreateStream, CreateView, DropObject, Parsed, Query, Statement, quote_name};

/// How long a job that is dropped may take to end.
const STOP_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

impl Session {
    /// The store this session works on.
    pub fn millstream(&self) -> &Arc<Millstream> {
        &self.millstream
    }

    /// Executes one statement as [`crate::statement::parse`] gave it.
    pub async fn execute(&self, parsed: &Parsed) -> Result<Outcome> {
        self.run(parsed, None).await.map_err(|e| e.or_at(Some(parsed.position)))
    }

    /// Executes a text that holds exactly one statement.
    pub async fn execute_sql(&self, sql: &str) -> Result<Outcome> {
        self.execute(&one_statement(sql)?).await
    }

    async fn run(&self, parsed: &Parsed, parameters: Option<ParamValues>) -> Result<Outcome> {
        let ms = &self.millstream;
        match &parsed.statement {
            Statement::CreateStream(create) => ms.create_stream((**create).clone(), self.parallelism(create)?).await,
            Statement::CreateView(create) => ms.create_view(create.clone(), &parsed.text).await,
            Statement::Drop(drop) => ms.drop_object(drop).await,
            Statement::Query(query) if query.emit.is_some() => self.follow(query).await,
            Statement::Query(query) => {
                let state = session_state();
                let plan = query_plan(&state, ms.resolver(false), &query.query)?;
                snapshot(&state, with_parameters(plan, parameters)?).await
            }
            Statement::Insert(insert) => self.insert(insert, parameters).await,
            Statement::CopyTo(copy) => {
                if copy.target.contains("://") && !copy.target.starts_with("file://") {
                    return Err(Error::unsupported(format!("COPY TO '{}' is not supported yet", copy.target))
                        .with_hint("Write to a local file or folder: COPY … TO 'result.parquet'."));
                }
                let state = session_state();
                let plan = statement_plan(&state, ms.resolver(false), DfStatement::CopyTo(copy.clone()))?;
                let rows = count_of(snapshot(&state, plan).await?).await?;
                Ok(Outcome::rows("COPY", rows))
            }
            Statement::Pause(name) => Ok(match ms.pause(public(name)?).await? {
                true => Outcome::tag("PAUSE STREAM"),
                false => Outcome::notice("PAUSE STREAM", format!("stream \"{}\" does not run", name.name)),
            }),
            Statement::Resume(name) => Ok(match ms.resume(public(name)?).await? {
                true => Outcome::tag("RESUME STREAM"),
                false => {
                    Outcome::notice("RESUME STREAM", format!("stream \"{}\" runs already or has finished", name.name))
                }
            }),
            Statement::Set { name, value } => self.set(name, value),
            Statement::Reset(name) => self.reset(name.as_deref()),
            Statement::Flush => {
                ms.flush().await?;
                Ok(Outcome::tag("FLUSH"))
            }
            Statement::Explain(explain) => self.explain(explain).await,
            Statement::Begin | Statement::Commit | Statement::Rollback => {
                Err(Error::unsupported("transactions of several statements are not supported")
                    .with_hint("Each statement commits by itself."))
            }
            other => self.show(other),
        }
    }

    pub(super) fn parallelism(&self, create: &CreateStream) -> Result<usize> {
        Ok(own_parallelism(create)?.unwrap_or(self.settings.lock().parallelism))
    }

    /// `SELECT … EMIT …`: a job of its own that ends with the feed.
    async fn follow(&self, query: &Query) -> Result<Outcome> {
        let parallelism = self.settings.lock().parallelism;
        let mut planned = self.millstream.plan_continuous(query, parallelism)?;
        let output = planned.lowered.output.clone();
        let updating = !output.append_only;
        let (sink, epochs) = FeedSink::new(planned.schema.clone(), updating, output.key.clone());
        let schema = sink.batch_schema();
        finish(&mut planned.lowered, SinkNode { name: "result".to_owned(), sink }, true);
        let mut config = JobConfig::new("query");
        config.every = every(query.emit);
        let job = self.millstream.runtime().start(planned.lowered.graph, config, None).await?;
        let following = Following { job, epochs };
        let epochs = futures::stream::unfold(Some(following), |following| async move {
            let mut following = following?;
            match following.epochs.recv().await {
                Some(e) => {
                    let epoch = EpochChanges { epoch: e.epoch, watermark: e.watermark, batches: e.batches };
                    Some((Ok(epoch), Some(following)))
                }
                None => {
                    following.job.wait().await;
                    following.job.failure().err().map(|e| (Err(Error::from(e)), None))
                }
            }
        });
        Ok(Outcome::Changes(ChangeFeed { schema, updating, key: output.key, epochs: epochs.boxed() }))
    }

    /// Checks and types a statement without running it.
    pub async fn prepare(&self, sql: &str) -> Result<Prepared> {
        let parsed = one_statement(sql)?;
        let ms = &self.millstream;
        let state = session_state();
        let none = Arc::new(Schema::empty());
        let (schema, parameters, is_query) = match &parsed.statement {
            Statement::Query(query) if query.emit.is_some() => {
                let planned = ms.plan_continuous(query, 1)?;
                let schema = match planned.lowered.output.append_only {
                    true => planned.schema,
                    false => millstream_engine::changelog::op_schema(&planned.schema),
                };
                (schema, none, true)
            }
            Statement::Query(query) => {
                let plan = query_plan(&state, ms.resolver(false), &query.query)?;
                (Arc::new(plan.schema().as_arrow().clone()), parameters_of(&plan)?, true)
            }
            Statement::Insert(insert) => {
                let statement = DfStatement::Statement(Box::new(insert.statement.clone()));
                let plan = statement_plan(&state, ms.resolver(false), statement)?;
                (none, parameters_of(&plan)?, false)
            }
            other => match self.listing_schema(other) {
                Some(schema) => (schema, none, true),
                None => (none, Arc::new(Schema::empty()), false),
            },
        };
        Ok(Prepared { sql: sql.to_owned(), schema, parameters, is_query })
    }

    /// Runs a prepared statement with `parameters`, a batch with one column per parameter. A query takes
    /// one row; INSERT runs once for each row.
    pub async fn execute_prepared(&self, prepared: &Prepared, parameters: Option<RecordBatch>) -> Result<Outcome> {
        let parsed = one_statement(&prepared.sql)?;
        let Some(batch) = parameters.filter(|p| p.num_columns() > 0) else { return self.execute(&parsed).await };
        let row = |i: usize| -> Result<ParamValues> {
            let values = batch.columns().iter().map(|c| Ok(ScalarValue::try_from_array(c, i)?.into()));
            Ok(ParamValues::List(values.collect::<Result<Vec<_>>>()?))
        };
        if let Statement::Insert(insert) = &parsed.statement {
            return self.insert_rows(insert, &batch, row).await;
        }
        if batch.num_rows() != 1 {
            return Err(Error::invalid(format!("{} rows of parameters for a query", batch.num_rows()))
                .with_hint("Bind one row."));
        }
        self.run(&parsed, Some(row(0)?)).await
    }
}

/// A followed query; dropping it ends the job.
struct Following {
    job: millstream_engine::runtime::JobHandle,
    epochs: tokio::sync::mpsc::Receiver<millstream_engine::connector::feed::FeedEpoch>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.job.abort();
    }
}

impl Millstream {
    async fn create_stream(self: &Arc<Self>, mut create: CreateStream, parallelism: usize) -> Result<Outcome> {
        let name = public(&create.name)?.to_owned();
        let tag = format!("CREATE {}", create.kind.to_string().to_uppercase());
        let mut catalog = self.catalog.lock().await;
        if catalog.get(&name).is_some() {
            if create.if_not_exists {
                return Ok(Outcome::notice(tag, format!("\"{name}\" exists already")));
            }
            if !create.or_replace {
                return Err(Error::exists(format!("\"{name}\" exists already"))
                    .with_hint(format!("DROP STREAM {0}, or write CREATE OR REPLACE STREAM {0}.", quote_name(&name))));
            }
        }
        let replaces = catalog.get(&name).is_some();
        (create.or_replace, create.if_not_exists) = (false, false);
        // What is wrong with the new one is found before the old one goes.
        let sql = create.to_string();
        let def = Arc::new(self.define(&mut create, sql.clone(), parallelism)?);
        if replaces {
            self.remove(&mut catalog, &name, false).await?;
        }
        catalog.next_job += 1;
        let job = format!("{:06}-{name}", catalog.next_job);
        let entry = Entry { name: name.clone(), sql, job, parallelism, paused: false };
        self.objects.write().streams.insert(name.clone(), def.clone());
        if def.kind != ObjectKind::External {
            match self.start_job(&def, &create, &entry).await {
                Ok(job) => self.jobs.write().insert(name.clone(), job),
                Err(e) => {
                    self.objects.write().streams.remove(&name);
                    return Err(e);
                }
            };
        }
        catalog.entries.push(entry);
        if let Err(e) = catalog.save(self.store()).await {
            catalog.entries.pop();
            self.objects.write().streams.remove(&name);
            if let Some(job) = self.jobs.write().remove(&name).and_then(|j| j.handle()) {
                job.abort();
            }
            return Err(e);
        }
        Ok(Outcome::tag(tag))
    }

    async fn create_view(self: &Arc<Self>, mut create: CreateView, _text: &str) -> Result<Outcome> {
        let name = public(&create.name)?.to_owned();
        let mut catalog = self.catalog.lock().await;
        if catalog.get(&name).is_some() {
            if create.if_not_exists {
                return Ok(Outcome::notice("CREATE VIEW", format!("\"{name}\" exists already")));
            }
            if !create.or_replace {
                return Err(Error::exists(format!("\"{name}\" exists already"))
                    .with_hint(format!("Write CREATE OR REPLACE VIEW {}.", quote_name(&name))));
            }
            self.remove(&mut catalog, &name, false).await?;
        }
        (create.or_replace, create.if_not_exists) = (false, false);
        let sql = create.to_string();
        self.add_view(create, sql.clone())?;
        catalog.entries.push(Entry { name, sql, job: String::new(), parallelism: 1, paused: false });
        catalog.save(self.store()).await?;
        Ok(Outcome::tag("CREATE VIEW"))
    }

    async fn drop_object(self: &Arc<Self>, drop: &DropObject) -> Result<Outcome> {
        let name = public(&drop.name)?;
        let tag = format!("DROP {}", drop.kind.to_string().to_uppercase());
        let mut catalog = self.catalog.lock().await;
        if catalog.get(name).is_none() {
            if drop.if_exists {
                return Ok(Outcome::notice(tag, format!("\"{name}\" does not exist")));
            }
            return Err(
                Error::not_found(format!("\"{name}\" does not exist")).with_hint("SHOW STREAMS lists what there is.")
            );
        }
        self.remove(&mut catalog, name, drop.cascade).await?;
        catalog.save(self.store()).await?;
        Ok(Outcome::tag(tag))
    }

    /// Who reads `name`.
    fn readers(&self, name: &str) -> Vec<String> {
        let objects = self.objects.read();
        let streams = objects.streams.values().filter(|d| d.reads.iter().any(|r| r == name)).map(|d| d.name.clone());
        let views =
            objects.views.values().filter(|v| v.reads.iter().any(|r| r == name)).map(|v| v.create.name.name.clone());
        streams.chain(views).collect()
    }

    async fn remove(self: &Arc<Self>, catalog: &mut crate::catalog::Catalog, name: &str, cascade: bool) -> Result<()> {
        let readers = self.readers(name);
        if !readers.is_empty() && !cascade {
            return Err(Error::invalid(format!("\"{name}\" is read by \"{}\"", readers.join("\", \"")))
                .with_hint("Drop those first, or write DROP … CASCADE."));
        }
        for reader in readers {
            Box::pin(self.remove(catalog, &reader, true)).await?;
        }
        let job = self.jobs.write().remove(name);
        if let Some(handle) = job.and_then(|j| j.handle()) {
            // It ends in good order, so that no commit under way writes into a folder that has gone.
            let stopped = tokio::time::timeout(STOP_TIMEOUT, handle.stop()).await;
            if stopped.is_err() {
                handle.abort();
            }
        }
        let def = self.objects.write().streams.remove(name);
        self.objects.write().views.remove(name);
        let entry = catalog.entries.iter().position(|e| e.name == name).map(|i| catalog.entries.remove(i));
        if let Some(entry) = entry.filter(|e| !e.job.is_empty()) {
            self.store().delete_folder(&format!("jobs/{}", entry.job)).await?;
            if def.is_some_and(|d| d.log.is_some()) {
                self.store().delete_folder(&format!("streams/{name}")).await?;
            }
        }
        Ok(())
    }
}

fn one_statement(sql: &str) -> Result<Parsed> {
    let mut all = crate::statement::parse(sql)?;
    match (all.pop(), all.len()) {
        (Some(one), 0) => Ok(one),
        (None, _) => Err(Error::invalid("there is no statement in the text")),
        (Some(_), n) => {
            Err(Error::invalid(format!("{} statements where one is expected", n + 1))
                .with_hint("Send them one by one."))
        }
    }
}

pub(super) fn with_parameters(plan: LogicalPlan, parameters: Option<ParamValues>) -> Result<LogicalPlan> {
    match parameters {
        None => Ok(plan),
        Some(values) => Ok(plan.with_param_values(values)?),
    }
}

/// The parameters of a plan as fields `$1`, `$2`, ….
fn parameters_of(plan: &LogicalPlan) -> Result<SchemaRef> {
    let types = plan.get_parameter_types()?;
    let mut fields: Vec<_> = types
        .into_iter()
        .map(|(name, t)| arrow::datatypes::Field::new(name, t.unwrap_or(arrow::datatypes::DataType::Utf8), true))
        .collect();
    fields.sort_by_key(|f| f.name().trim_start_matches('$').parse::<usize>().unwrap_or(usize::MAX));
    Ok(Arc::new(Schema::new(fields)))
}

/// Runs a plan over the committed content.
pub(super) async fn snapshot(state: &SessionState, plan: LogicalPlan) -> Result<Outcome> {
    // While rows are read no file is replaced by a longer one.
    let reading = super::tables::hold_files(&plan).await?;
    let physical = state.create_physical_plan(&plan).await?;
    let rows = execute_stream(physical, state.task_ctx())?;
    let schema = rows.schema();
    let rows = rows.map_err(Error::from).inspect(move |_| {
        let _ = &reading;
    });
    Ok(Outcome::Rows(RowStream { schema, rows: rows.boxed() }))
}

/// The count that COPY gives.
async fn count_of(outcome: Outcome) -> Result<u64> {
    let Outcome::Rows(rows) = outcome else { return Ok(0) };
    let mut count = 0;
    for batch in rows.rows.try_collect::<Vec<_>>().await? {
        if batch.num_columns() > 0 {
            use arrow::array::AsArray;
            let values = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::UInt64)?;
            count += values.as_primitive::<arrow::datatypes::UInt64Type>().iter().flatten().sum::<u64>();
        }
    }
    Ok(count)
}
