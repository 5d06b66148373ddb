//! `INSERT … ON CONFLICT (key) DO NOTHING | DO UPDATE SET …`: what becomes of rows whose key is there.
//!
//! The rows that are put in are met with those of the stream by key. What is left of them, new rows and rows that take the place of others,
//! is an upsert: nothing has to be taken back.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, not};
use datafusion::common::TableReference;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::logical_expr::{LogicalPlan, TableSource};
use datafusion::sql::parser::Statement as DfStatement;
use futures::TryStreamExt;

use super::keys::Keys;
use super::made::{Made, Making, fitted, replaced};
use super::queries::{EXCLUDED, conflicting_rows};
use super::{Planned, assigned, place_of, refuse_aggregates};
use crate::error::{Error, Result};
use crate::plan::{TableResolver, assign_columns, query_plan, session_state, statement_plan};
use crate::session::Session;
use crate::session::jobs::{not_stored, public};
use crate::session::left_out::LeftOutRows;
use crate::session::outcome::{ObjectKind, Outcome};
use crate::session::tables::StreamDef;
use crate::statement::{Conflict, Insert};

impl Session {
    /// An INSERT with `conflict`. The count is of the rows that are new and of those that have changed.
    pub(in crate::session) async fn insert_conflicting(
        &self,
        insert: &Insert,
        conflict: &Conflict<'_>,
    ) -> Result<Outcome> {
        let ms = &self.millstream;
        let def = ms.stream(public(&insert.target)?)?;
        let (planned, set) = self.planned_conflict(&def, insert, conflict)?;
        self.touch(&def.name);
        let alone = ms.intake(&def)?.alone().await?;
        let what = format!("INSERT … ON CONFLICT into stream \"{}\"", def.name);
        let mut made = Made::new(ms, def, Making::Replaced(set), true, &what)?;
        let left_out = planned.left_out.clone();
        let mut rows = planned.run(ms).await?;
        while let Some(batch) = rows.rows.try_next().await? {
            for rows in resolved(&mut made, &batch, conflict.set.is_some())? {
                made.count += rows.num_rows() as u64;
                made = made.keep(rows).await?;
            }
        }
        let count = made.count;
        ms.take_turn(alone, made.finish().await?).await?;
        Ok(Outcome::rows("INSERT", count, &left_out))
    }

    /// Checks a statement that is not run.
    pub(in crate::session) fn check_conflict(&self, insert: &Insert, conflict: &Conflict<'_>) -> Result<()> {
        let def = self.millstream.stream(public(&insert.target)?)?;
        self.planned_conflict(&def, insert, conflict).map(drop)
    }

    /// Plans `insert` into `def`, and says which columns are set.
    fn planned_conflict(
        &self,
        def: &StreamDef,
        insert: &Insert,
        conflict: &Conflict<'_>,
    ) -> Result<(Planned, Vec<usize>)> {
        refuse_other_key(def, conflict)?;
        let set = conflict.set.iter().flatten().map(|set| place_of(def, set)).collect::<Result<Vec<_>>>()?;
        let names: Vec<&str> = def.schema.fields().iter().map(|f| f.name().as_str()).collect();
        let key: Vec<&str> = def.primary_key.iter().filter_map(|at| names.get(*at).copied()).collect();
        let (state, left_out) = (session_state(), LeftOutRows::default());
        let values = conflict.set.iter().flatten().map(|set| set.value);
        refuse_aggregates(&state, "ON CONFLICT", values.chain(conflict.condition))?;
        let resolver = self.millstream.batch_resolver(&left_out, &self.reading().into_stream(&def.name));
        let alone = DfStatement::Statement(Box::new(insert.alone()));
        let LogicalPlan::Dml(dml) = statement_plan(&state, Arc::clone(&resolver), alone)? else {
            return Err(Error::internal("an INSERT that is none"));
        };
        let excluded = assign_columns(dml.input.as_ref().clone(), &def.name)?;
        let excluded = provider_as_source(Arc::new(ViewTable::new(excluded, None)));
        let query = conflicting_rows(&def.name, &names, &key, conflict)?;
        let plan = query_plan(&state, Arc::new(WithExcluded { resolver, excluded }), &query)?;
        let plan = if set.is_empty() { plan } else { assigned(plan, def, &set, true)? };
        Ok((Planned { state, plan, left_out }, set))
    }
}

/// Finds the rows that are put in by their name.
struct WithExcluded {
    resolver: Arc<dyn TableResolver>,
    excluded: Arc<dyn TableSource>,
}

impl TableResolver for WithExcluded {
    fn table(&self, name: &TableReference) -> Result<Option<Arc<dyn TableSource>>> {
        match name {
            TableReference::Bare { table } if &**table == EXCLUDED => Ok(Some(Arc::clone(&self.excluded))),
            name => self.resolver.table(name),
        }
    }
}

/// Refuses columns that are not the key of `def`.
fn refuse_other_key(def: &StreamDef, conflict: &Conflict<'_>) -> Result<()> {
    let name = &def.name;
    if def.kind != ObjectKind::Stored {
        return Err(not_stored(def));
    }
    if def.primary_key.is_empty() {
        return Err(Error::unsupported(format!(
            "ON CONFLICT: stream \"{name}\" has no PRIMARY KEY, so no rows conflict"
        ))
        .with_hint("Leave ON CONFLICT out, or make the stream with a PRIMARY KEY (…).")
        .or_at(conflict.place));
    }
    if name == EXCLUDED {
        return Err(Error::unsupported("ON CONFLICT: the stream is called like the rows that are put in")
            .with_hint("Give the stream another name than excluded."));
    }
    let key: Vec<&str> = def.primary_key.iter().map(|at| def.schema.field(*at).name().as_str()).collect();
    let Some(columns) = &conflict.columns else { return Ok(()) };
    let same = columns.iter().all(|c| key.contains(&c.as_str())) && key.iter().all(|k| columns.iter().any(|c| c == k));
    if same {
        return Ok(());
    }
    let (said, is) = (columns.join(", "), key.join(", "));
    Err(Error::invalid(format!("ON CONFLICT ({said}): the primary key of stream \"{name}\" is ({is})"))
        .with_hint(format!("Write ON CONFLICT ({is}) …."))
        .or_at(conflict.place))
}

/// What is left of rows that are put in: those that are new, and those that take the place of others.
fn resolved(made: &mut Made, rows: &RecordBatch, updates: bool) -> Result<Vec<RecordBatch>> {
    let def = Arc::clone(&made.def);
    let (Some(keys), Making::Replaced(set)) = (&mut made.met, &made.making) else {
        return Err(Error::internal("rows that conflict have no keys"));
    };
    let n = def.schema.fields().len();
    let flag = |at: usize| -> Result<BooleanArray> {
        let flags = rows.column(at).as_boolean_opt().ok_or_else(|| Error::internal("a flag that is none"))?;
        Ok(flags.iter().map(|flag| Some(flag == Some(true))).collect())
    };
    let new = filter_record_batch(rows, &not(&flag(2 * n)?)?)?;
    let mut new = fitted(&def, new.columns()[..n].to_vec(), new.num_rows())?;
    let first = keys.claim(&new)?;
    if let (true, Some(at)) = (updates, first.iter().position(|first| !first)) {
        return Err(twice(keys, &new, at, &def)?);
    }
    new = filter_record_batch(&new, &BooleanArray::from(first))?;
    if !updates {
        return Ok(vec![new]);
    }
    let old = filter_record_batch(rows, &flag(2 * n + 1)?)?;
    let changed = replaced(&def, &old.columns()[n..2 * n], &old.columns()[2 * n + 2..], set, old.num_rows())?;
    let before: Vec<ArrayRef> = old.columns()[n..2 * n].to_vec();
    let before = fitted(&def, before, old.num_rows())?;
    refuse_other_keys(keys, &before, &changed, &def)?;
    match keys.claim(&changed)?.iter().position(|first| !first) {
        Some(at) => Err(twice(keys, &changed, at, &def)?),
        None => {
            made.note(&before);
            Ok(vec![new, changed])
        }
    }
}

fn twice(keys: &Keys, rows: &RecordBatch, at: usize, def: &StreamDef) -> Result<Error> {
    let message = format!(
        "ON CONFLICT DO UPDATE meets the row of stream \"{}\" with {} twice",
        def.name,
        keys.name_of(rows, at)?
    );
    Ok(Error::invalid(message)
        .with_hint("Nothing was changed. The rows of one statement must have different keys: put in one of each."))
}

/// Errors where a row would get another key.
fn refuse_other_keys(keys: &Keys, old: &RecordBatch, new: &RecordBatch, def: &StreamDef) -> Result<()> {
    let Some(at) = keys.first_difference(old, new)? else { return Ok(()) };
    let (was, would) = (keys.name_of(old, at)?, keys.name_of(new, at)?);
    let message =
        format!("ON CONFLICT DO UPDATE would give the row of stream \"{}\" with {was} the key {would}", def.name);
    Err(Error::unsupported(message)
        .with_hint("Nothing was changed. Keys are changed by UPDATE, in a statement of its own."))
}
