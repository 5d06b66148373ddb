//! Executing statements.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execute_stream;
use futures::StreamExt;

use super::batch_memory::batch_context;
use super::failed_row::Executed;
use super::jobs::public;
use super::left_out::LeftOutRows;
use super::outcome::{Outcome, RowStream};
use super::settings::{Settings, duration_text};
use super::tables::source_parts;
use super::{Millstream, Session};
use crate::error::{Error, Result};
use crate::plan::{Headed, result_plan, session_state, with_pauses};
use crate::statement::{CreateStream, Parsed, Statement, StreamForm};

/// The longest text of statements.
const LONGEST: usize = 16 << 20;
/// What a byte of it may take while it is read: that of a token of one character, with its place.
const TOKEN_BYTES: usize = 128;

impl Session {
    /// The store this session works on.
    pub fn millstream(&self) -> &Arc<Millstream> {
        &self.millstream
    }

    /// Executes one statement as [`crate::statement::parse`] gave it.
    pub async fn execute(&self, parsed: &Parsed) -> Result<Outcome> {
        let plans_its_text = matches!(
            parsed.statement,
            Statement::Query(_)
                | Statement::Insert(_)
                | Statement::Change(_)
                | Statement::CopyTo(_)
                | Statement::CreateStream(_)
                | Statement::CreateView(_)
                | Statement::Explain(_)
        );
        // What another statement failed with, as FLUSH and RESUME tell it, has its place in the other's text.
        let own = |e: Error| if plans_its_text { e } else { e.elsewhere() };
        let done = match self.admit(&parsed.statement).and_then(|()| self.millstream.check_held()) {
            Ok(()) => self.run(parsed).await,
            Err(e) => Err(e),
        };
        self.note(parsed, done.as_ref().err()).await;
        done.map_err(|e| own(e).or_at(Some(parsed.position)))
    }

    /// Executes a text that holds exactly one statement.
    pub async fn execute_sql(&self, sql: &str) -> Result<Outcome> {
        self.execute(&one_statement(self.parse(sql)?)?).await
    }

    /// Reads a text of statements, as [`crate::statement::parse`] does, within the memory that there is.
    pub fn parse(&self, sql: &str) -> Result<Vec<Parsed>> {
        if sql.len() > LONGEST {
            return Err(Error::invalid(format!("the statement is longer than {LONGEST} bytes"))
                .with_hint("Send many rows by bulk ingestion."));
        }
        let mut held = self.millstream.budget().account("the text of a statement");
        held.resize_large(sql.len().saturating_mul(TOKEN_BYTES))?;
        crate::statement::parse(sql)
    }

    async fn run(&self, parsed: &Parsed) -> Result<Outcome> {
        let ms = &self.millstream;
        match &parsed.statement {
            Statement::CreateStream(create) => {
                let (create, parallelism) = (self.with_settings(create), self.parallelism(create)?);
                self.touch(&create.name.name);
                ms.to_the_end(ms.clone().create_stream(create, parallelism, false, self.who.clone())).await
            }
            Statement::CreateView(create) => {
                ms.to_the_end(ms.clone().create_view(create.clone(), self.who.clone())).await
            }
            Statement::Drop(drop) => ms.to_the_end(ms.clone().drop_object(drop.clone(), self.who.clone())).await,
            Statement::Query(query) if query.emit.is_some() => self.follow(query).await,
            Statement::Query(query) => {
                let (state, left_out, reading) = (session_state(), LeftOutRows::default(), self.reading());
                let resolver = ms.batch_resolver(&left_out, &reading);
                let Headed { plan, headers } = result_plan(&state, resolver, &query.query)?;
                let outcome = snapshot(ms, &state, plan, &left_out).await?;
                Ok(match under(outcome, &headers) {
                    Outcome::Rows(RowStream { schema, rows, left_out }) => {
                        Outcome::Rows(RowStream { schema, rows: self.while_allowed(rows, reading), left_out })
                    }
                    other => other,
                })
            }
            Statement::Insert(insert) => self.insert(insert).await,
            Statement::Change(change) => self.change(change).await,
            Statement::CopyTo(copy) => self.copy(copy).await,
            Statement::Pause(name) => Ok(match ms.to_the_end(ms.clone().pause(public(name)?.to_owned())).await? {
                true => Outcome::tag("PAUSE STREAM"),
                false => Outcome::notice("PAUSE STREAM", format!("stream \"{}\" does not run", name.name)),
            }),
            Statement::Resume(name) => {
                self.touch(&name.name);
                Ok(match ms.to_the_end(ms.clone().resume(public(name)?.to_owned())).await? {
                    true => Outcome::tag("RESUME STREAM"),
                    false => Outcome::notice(
                        "RESUME STREAM",
                        format!("stream \"{}\" runs already or has finished", name.name),
                    ),
                })
            }
            Statement::DrainNode(address) => self.drain(address).await,
            Statement::Set { name, value } => self.set(name, value),
            Statement::Reset(name) => self.reset(name.as_deref()),
            Statement::Flush => Ok(match self.flush().await? {
                Some(notice) => Outcome::notice("FLUSH", notice),
                None => Outcome::tag("FLUSH"),
            }),
            Statement::Explain(explain) => self.explain(explain).await,
            Statement::Access(access) => self.access(access).await,
            Statement::Begin | Statement::Commit | Statement::Rollback => {
                Err(Error::unsupported("transactions of several statements are not supported")
                    .with_hint("Each statement commits by itself."))
            }
            other => self.show(other),
        }
    }

    pub(super) fn parallelism(&self, create: &CreateStream) -> Result<usize> {
        Ok(self.millstream.own_parallelism(create)?.unwrap_or(self.tasks()))
    }

    /// `create` with the settings of this session that it does not give itself.
    fn with_settings(&self, create: &CreateStream) -> CreateStream {
        let mut create = create.clone();
        let Settings { checkpoint_interval: interval, parallelism } = *self.settings.lock();
        if let (Some(interval), false) = (interval, create.form() == StreamForm::External) {
            create.options.entry("checkpoint_interval".to_owned()).or_insert_with(|| duration_text(interval));
        }
        if let (Some(parallelism), true) = (parallelism, create.query.is_some()) {
            create.options.entry("parallelism".to_owned()).or_insert_with(|| parallelism.to_string());
        }
        create
    }
}

/// The one statement among `all`.
pub(super) fn one_statement(mut all: Vec<Parsed>) -> Result<Parsed> {
    match (all.pop(), all.len()) {
        (Some(one), 0) => Ok(one),
        (None, _) => Err(Error::invalid("there is no statement in the text")),
        (Some(_), n) => {
            Err(Error::invalid(format!("{} statements where one is expected", n + 1))
                .with_hint("Send them one by one."))
        }
    }
}

/// Runs a plan over the committed content; its tables note in `left_out` what they leave out.
pub(super) async fn snapshot(
    millstream: &Millstream,
    state: &SessionState,
    plan: LogicalPlan,
    left_out: &LeftOutRows,
) -> Result<Outcome> {
    // What is replaced while rows are read stays until they have been.
    let reading = super::tables::hold_files(&plan)?;
    let physical = state.create_physical_plan(&plan).await?;
    let context = batch_context(state, millstream.batch(), millstream.budget().limit());
    let (paused, wanted) = with_pauses(physical.clone())?;
    let rows = execute_stream(paused, context.clone())?;
    let schema = rows.schema();
    let executed = Arc::new(Executed { parts: source_parts(&plan)?, plan: physical, context });
    let rows = rows.then(move |batch| {
        let _ = (&reading, &wanted);
        let executed = executed.clone();
        async move {
            match batch {
                Ok(batch) => Ok(batch),
                Err(e) => Err(executed.told(e).await),
            }
        }
    });
    Ok(Outcome::Rows(RowStream { schema, rows: rows.boxed(), left_out: left_out.clone() }))
}

/// A result under the headers of its query.
fn under(outcome: Outcome, headers: &[String]) -> Outcome {
    match outcome {
        Outcome::Rows(RowStream { schema, rows, left_out }) => {
            let shown = with_headers(&schema, headers);
            if Arc::ptr_eq(&shown, &schema) {
                return Outcome::Rows(RowStream { schema, rows, left_out });
            }
            let schema = shown.clone();
            let rows = rows.map(move |batch| {
                let batch = batch?;
                let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                Ok(RecordBatch::try_new_with_options(shown.clone(), batch.columns().to_vec(), &options)?)
            });
            let rows = rows.boxed();
            Outcome::Rows(RowStream { schema, rows, left_out })
        }
        other => other,
    }
}

/// `schema` with other names for its columns.
pub(super) fn with_headers(schema: &SchemaRef, headers: &[String]) -> SchemaRef {
    if headers.len() != schema.fields().len() || schema.fields().iter().zip(headers).all(|(f, name)| f.name() == name) {
        return schema.clone();
    }
    let fields = schema.fields().iter().zip(headers).map(|(f, name)| f.as_ref().clone().with_name(name));
    Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
}
