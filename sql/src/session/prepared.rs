//! Prepared statements: what they ask for, what they give, and running them with values.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::{CopyToSource, Statement as DfStatement};
use datafusion::sql::sqlparser::ast;

use super::Session;
use super::execute::{one_statement, with_headers};
use super::left_out::LeftOutRows;
use super::outcome::{Done, Outcome, Prepared};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::{
    Headed, TableResolver, bind_parameters, count_parameters, parameter_types, result_plan, session_state,
    statement_plan,
};
use crate::statement::{ExplainTarget, Parsed, Query, Statement};

/// Parameters that a statement may have.
const MOST: usize = 65_535;

impl Session {
    /// Checks and types a statement without running it.
    pub async fn prepare(&self, sql: &str) -> Result<Prepared> {
        self.typed(sql).inspect_err(|e| {
            if e.kind() == ErrorKind::Denied {
                self.note_text(sql, false, Some(e.message()));
            }
        })
    }

    fn typed(&self, sql: &str) -> Result<Prepared> {
        let mut parsed = one_statement(self.parse(sql)?)?;
        self.admit(&parsed.statement).map_err(|e| e.or_at(Some(parsed.position)))?;
        let count = count(&mut parsed.statement)?;
        let is_query = self.is_query(&parsed.statement);
        if count == 0 {
            let none = Arc::new(Schema::empty());
            let schema = self.described(&parsed).map_err(|e| e.or_at(Some(parsed.position)))?;
            return Ok(Prepared { sql: sql.to_owned(), schema, parameters: none, untyped: vec![], is_query });
        }
        let types = self.types(&parsed.statement, count);
        let described = |types: &[Option<DataType>], open| self.described(&with(&parsed, &nulls(types, open))?);
        let open = vec![None; count];
        // The planner's guess at a type may be wrong: `at > ? - INTERVAL '1 day'` is no interval.
        let (schema, types) = match described(&types, DataType::Utf8) {
            Ok(schema) => (schema, types),
            Err(e) if e.kind() == ErrorKind::NotFound => return Err(e.or_at(Some(parsed.position))),
            Err(_) => match described(&open, DataType::Null) {
                Ok(schema) => (as_text(schema), open),
                // What depends on values that are not there yet is told when they are.
                Err(_) => (Arc::new(Schema::empty()), open),
            },
        };
        let untyped = types.iter().map(Option::is_none).collect();
        let types = types.into_iter().enumerate();
        let field =
            |(i, t): (usize, Option<DataType>)| Field::new(format!("${}", i + 1), t.unwrap_or(DataType::Utf8), true);
        let parameters = Arc::new(Schema::new(types.map(field).collect::<Vec<_>>()));
        Ok(Prepared { sql: sql.to_owned(), schema, parameters, untyped, is_query })
    }

    /// The columns that a query gives with `parameters`, which may bring types of their own.
    pub fn prepared_schema(&self, prepared: &Prepared, parameters: &RecordBatch) -> Result<SchemaRef> {
        let parsed = one_statement(self.parse(&prepared.sql)?)?;
        self.admit(&parsed.statement)?;
        match parameters.num_rows() {
            1 => self.described(&with(&parsed, parameters.columns())?).map(as_text),
            // Running it will be refused.
            _ => Ok(prepared.schema.clone()),
        }
    }

    /// Runs a prepared statement with `parameters`, a batch with one column per parameter. A query takes
    /// one row. INSERT takes any number, whose rows go in together; what changes rows runs once for each.
    pub async fn execute_prepared(&self, prepared: &Prepared, parameters: Option<RecordBatch>) -> Result<Outcome> {
        let parsed = one_statement(self.parse(&prepared.sql)?)?;
        self.admit(&parsed.statement)?;
        let Some(batch) = parameters.filter(|p| p.num_columns() > 0) else {
            return match prepared.parameters.fields().len() {
                0 => self.execute(&parsed).await,
                n => Err(Error::invalid(format!("the statement has {}, but no values were given", counted(n)))
                    .with_hint("Bind a value to each.")),
            };
        };
        let rows = (0..batch.num_rows()).map(|row| with(&parsed, batch.slice(row, 1).columns()));
        if let Statement::Insert(insert) = &parsed.statement
            && !insert.has_conflict()
        {
            let inserts = rows.map(|bound| match bound?.statement {
                Statement::Insert(insert) => Ok(*insert),
                _ => Err(Error::internal("an INSERT that is none")),
            });
            let done = self.insert_all(insert, Some(&batch), inserts).await;
            return done.map_err(|e| e.or_at(Some(parsed.position)));
        }
        if let Statement::Insert(_) | Statement::Change(_) = &parsed.statement
            && batch.num_rows() > 1
        {
            return self.execute_each(rows, batch.num_rows()).await;
        }
        let mut rows = rows;
        match (rows.next(), rows.next()) {
            (Some(one), None) => self.execute(&one?).await,
            _ => Err(Error::invalid(format!("{} rows of parameters for one statement", batch.num_rows()))
                .with_hint("Bind one row.")),
        }
    }

    /// Runs changes one after the other: each is committed when the next begins.
    async fn execute_each(&self, changes: impl Iterator<Item = Result<Parsed>>, all: usize) -> Result<Outcome> {
        let mut sum: Option<Done> = None;
        for (i, change) in changes.enumerate() {
            let done = match change {
                Ok(change) => self.execute(&change).await,
                Err(e) => Err(e),
            };
            let done = done.map_err(|e| match i {
                0 => e,
                n => e.context(format!("after {n} of {all} rows of parameters, whose changes are committed")),
            });
            let Outcome::Done(done) = done? else { return Err(Error::internal("a change that gives rows")) };
            sum = Some(match sum {
                None => done,
                Some(sum) => Done { rows: Some(sum.rows.unwrap_or(0) + done.rows.unwrap_or(0)), ..done },
            });
        }
        sum.map(Outcome::Done).ok_or_else(|| Error::invalid("there are no rows of parameters"))
    }

    fn is_query(&self, statement: &Statement) -> bool {
        matches!(statement, Statement::Query(_)) || self.listing_schema(statement).is_some()
    }

    /// The columns of what a statement gives, none if it gives no rows.
    fn described(&self, parsed: &Parsed) -> Result<SchemaRef> {
        let ms = &self.millstream;
        match &parsed.statement {
            Statement::Query(query) if query.emit.is_some() => {
                let planned = ms.plan_continuous(query, 1, &self.reading())?;
                Ok(match planned.lowered.output.append_only {
                    true => planned.schema,
                    false => millstream_engine::changelog::op_schema(&planned.schema),
                })
            }
            Statement::Query(query) => {
                let state = session_state();
                let Headed { plan, headers } = result_plan(&state, self.looking(None), &query.query)?;
                let analyzed = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})?;
                Ok(with_headers(analyzed.schema().inner(), &headers))
            }
            statement => {
                match statement {
                    Statement::Insert(insert) => match insert.conflict()? {
                        Some(conflict) => self.check_conflict(insert, &conflict)?,
                        None => drop(self.planned(statement)?),
                    },
                    Statement::CopyTo(_) => drop(self.planned(statement)?),
                    Statement::Change(change) => self.check_change(change)?,
                    _ => {}
                }
                Ok(self.listing_schema(statement).unwrap_or_else(|| Arc::new(Schema::empty())))
            }
        }
    }

    /// A statement with parameters as DataFusion plans it.
    fn planned(&self, statement: &Statement) -> Result<Option<LogicalPlan>> {
        let statement = match statement {
            Statement::Query(query) => query_of(query),
            Statement::Explain(explain) => match &explain.target {
                ExplainTarget::Query(query) => query_of(query),
                _ => return Ok(None),
            },
            Statement::Insert(insert) => {
                let statement = DfStatement::Statement(Box::new(insert.alone()));
                let resolver = self.looking(Some(&insert.target.name));
                return statement_plan(&session_state(), resolver, statement).map(Some);
            }
            Statement::Change(change) => {
                let statement = DfStatement::Statement(Box::new(change.statement.clone()));
                let resolver = self.looking(Some(&change.target.name));
                return statement_plan(&session_state(), resolver, statement).map(Some);
            }
            Statement::CopyTo(copy) => DfStatement::CopyTo(copy.statement.clone()),
            _ => return Ok(None),
        };
        statement_plan(&session_state(), self.looking(None), statement).map(Some)
    }

    /// Finds tables for a statement that is looked at only, and puts rows into `target`.
    fn looking(&self, target: Option<&str>) -> Arc<dyn TableResolver> {
        let reading = self.reading();
        let reading = match target {
            Some(target) => reading.into_stream(target),
            None => reading,
        };
        self.millstream.batch_resolver(&LeftOutRows::default(), &reading)
    }

    /// The types of the parameters, where the statement says them.
    fn types(&self, statement: &Statement, count: usize) -> Vec<Option<DataType>> {
        let types = match self.planned(statement) {
            Ok(Some(plan)) => parameter_types(&plan).unwrap_or_default(),
            // It may still be planned with values.
            Ok(None) | Err(_) => Default::default(),
        };
        (1..=count).map(|n| types.get(&n).cloned()).collect()
    }
}

fn query_of(query: &Query) -> DfStatement {
    DfStatement::Statement(Box::new(ast::Statement::Query(query.query.clone())))
}

/// A NULL for each parameter; those without a type are `open`.
fn nulls(types: &[Option<DataType>], open: DataType) -> Vec<ArrayRef> {
    types.iter().map(|t| new_null_array(t.as_ref().unwrap_or(&open), 1)).collect()
}

/// Columns that are NULL and nothing else are TEXT, for who asks.
fn as_text(schema: SchemaRef) -> SchemaRef {
    let field = |f: &Arc<Field>| match f.data_type() {
        DataType::Null => f.as_ref().clone().with_data_type(DataType::Utf8),
        _ => f.as_ref().clone(),
    };
    Arc::new(Schema::new_with_metadata(
        schema.fields().iter().map(field).collect::<Vec<_>>(),
        schema.metadata().clone(),
    ))
}

/// The number of parameters of a statement, which must be one that can have some.
fn count(statement: &mut Statement) -> Result<usize> {
    let count = match statement {
        Statement::Query(query) => count_parameters(query.query.as_mut())?,
        Statement::Insert(insert) => count_parameters(&mut insert.statement)?,
        Statement::Change(change) => count_parameters(&mut change.statement)?,
        Statement::CopyTo(copy) => match &mut copy.statement.source {
            CopyToSource::Query(query) => count_parameters(query.as_mut())?,
            CopyToSource::Relation(_) => 0,
        },
        Statement::Explain(explain) => match &mut explain.target {
            ExplainTarget::Query(query) => count_parameters(query.query.as_mut())?,
            ExplainTarget::CreateStream(create) => kept(create.query.as_mut(), "CREATE STREAM")?,
            ExplainTarget::Stream(_) => 0,
        },
        Statement::CreateStream(create) => kept(create.query.as_mut(), "CREATE STREAM")?,
        Statement::CreateView(create) => kept(Some(&mut create.query), "CREATE VIEW")?,
        _ => 0,
    };
    match count <= MOST {
        true => Ok(count),
        false => Err(Error::invalid(format!("parameter ${count} is too far: there may be {MOST}"))),
    }
}

fn counted(n: usize) -> String {
    format!("{n} parameter{}", if n == 1 { "" } else { "s" })
}

/// What is created keeps its text, in which a value would be missing.
fn kept(query: Option<&mut Query>, what: &str) -> Result<usize> {
    match query.map(|query| count_parameters(query.query.as_mut())).transpose()? {
        None | Some(0) => Ok(0),
        // Not `unsupported`: clients take that for a server that does not prepare statements.
        Some(_) => Err(Error::invalid(format!("{what} cannot have parameters"))
            .with_hint("Write the values into the statement: it is kept as it is written.")),
    }
}

/// `parsed` with `values` for its parameters.
fn with(parsed: &Parsed, values: &[ArrayRef]) -> Result<Parsed> {
    let mut parsed = parsed.clone();
    match &mut parsed.statement {
        Statement::Query(query) => bind_parameters(query.query.as_mut(), values)?,
        Statement::Insert(insert) => {
            bind_parameters(&mut insert.statement, values)?;
            bind_parameters(insert.source.query.as_mut(), values)?;
        }
        Statement::Change(change) => bind_parameters(&mut change.statement, values)?,
        Statement::CopyTo(copy) => {
            if let CopyToSource::Query(query) = &mut copy.statement.source {
                bind_parameters(query.as_mut(), values)?;
            }
        }
        Statement::Explain(explain) => {
            if let ExplainTarget::Query(query) = &mut explain.target {
                bind_parameters(query.query.as_mut(), values)?;
            }
        }
        _ => {}
    }
    Ok(parsed)
}
