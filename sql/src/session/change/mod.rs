//! `DELETE`, `UPDATE`, `TRUNCATE` and `INSERT … ON CONFLICT`: rows change by what they are.
//!
//! A statement takes the way into its stream for itself, so that statements take effect one after the other and a concurrent INSERT is
//! wholly before or after. It waits until what was put in before is committed, and reads with a query of batch what it changes. What
//! it makes of that goes in at once, as one parcel, and so is committed whole or not at all. Then the next one has its turn.
//!
//! Rows that it makes are kept aside meanwhile, in memory while they are few and then in a file, so that much is changed with little
//! memory. Whoever stops waiting before they go in has changed nothing.

mod conflict;
mod keys;
mod made;
mod queries;

use arrow::datatypes::DataType;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::Expr;
use futures::TryStreamExt;
use millstream_engine::connector::ingest::Parcel;
use millstream_engine::nearest::nearest;

use self::made::{Made, Making};
use super::execute::snapshot;
use super::intake::IntakeAlone;
use super::jobs::public;
use super::left_out::LeftOutRows;
use super::outcome::{ObjectKind, Outcome, RowStream};
use super::reading::Reading;
use super::tables::StreamDef;
use super::{Millstream, Session};
use crate::error::{Error, Result};
use crate::plan::{assign_last, query_plan, session_state};
use crate::statement::{Change, SetColumn, calls, quote_name};

/// A query of batch that is planned and not run.
struct Planned {
    state: SessionState,
    plan: LogicalPlan,
    left_out: LeftOutRows,
}

impl Session {
    /// `DELETE`, `UPDATE`, `TRUNCATE`.
    pub(super) async fn change(&self, change: &Change) -> Result<Outcome> {
        let assignments = change.assignments()?;
        self.changed(change).await.map_err(|e| placed(e, &assignments))
    }

    async fn changed(&self, change: &Change) -> Result<Outcome> {
        let ms = &self.millstream;
        let def = ms.stream(public(&change.target)?)?;
        let (planned, making) = self.planned_change(&def, change)?;
        self.touch(&def.name);
        let alone = ms.intake(&def)?.alone().await?;
        let what = format!("{} on stream \"{}\"", change.verb(), def.name);
        // DELETE asks whether there are others, and so meets each of its rows once.
        let meets = !matches!(making, Making::Deleted) && !change.others().is_empty();
        let mut made = Made::new(ms, def, making, meets, &what)?;
        let left_out = planned.left_out.clone();
        let mut rows = planned.run(ms).await?;
        while let Some(batch) = rows.rows.try_next().await? {
            made = made.add(&batch).await?;
        }
        self.refuse_equal_keys(&mut made).await?;
        let count = made.count;
        ms.take_turn(alone, made.finish().await?).await?;
        Ok(Outcome::rows(change.verb(), count, &left_out))
    }

    /// Plans `change` of `def`, and says what becomes of the rows that the query gives.
    fn planned_change(&self, def: &StreamDef, change: &Change) -> Result<(Planned, Making)> {
        refuse_unchangeable(def, change.verb())?;
        let assignments = change.assignments()?;
        let set = assignments.iter().map(|set| place_of(def, set)).collect::<Result<Vec<_>>>()?;
        let names: Vec<&str> = def.schema.fields().iter().map(|f| f.name().as_str()).collect();
        if !assignments.is_empty() && !change.others().is_empty() && def.primary_key.is_empty() {
            let message =
                format!("UPDATE … FROM is not supported on stream \"{}\", which has no PRIMARY KEY", def.name);
            return Err(Error::unsupported(message).with_hint("Write SET column = (SELECT …) WHERE …."));
        }
        let (state, left_out) = (session_state(), LeftOutRows::default());
        let values = assignments.iter().map(|set| set.value);
        refuse_aggregates(&state, change.verb(), values.chain(change.condition()))?;
        let resolver = |reading: &Reading| self.millstream.batch_resolver(&left_out, reading);
        if let Some(names) = queries::names(change)? {
            query_plan(&state, resolver(&self.reading().into_stream(&def.name)), &names)?;
        }
        let query = queries::changed_rows(change, &names, &assignments)?;
        let plan = query_plan(&state, resolver(&self.reading().into_stream(&def.name)), &query)?;
        let plan = match set.is_empty() {
            true => plan,
            false => assigned(plan, def, &set, false)?,
        };
        let making = match set {
            _ if assignments.is_empty() => Making::Deleted,
            set if !def.primary_key.is_empty() && !set.iter().any(|at| def.primary_key.contains(at)) => {
                Making::Replaced(set)
            }
            set => Making::Exchanged(set),
        };
        Ok((Planned { state, plan, left_out }, making))
    }

    /// Checks a statement that is not run.
    pub(super) fn check_change(&self, change: &Change) -> Result<()> {
        let def = self.millstream.stream(public(&change.target)?)?;
        self.planned_change(&def, change).map(drop)
    }

    /// Errors where two rows of the stream would have one key.
    async fn refuse_equal_keys(&self, made: &mut Made) -> Result<()> {
        let Made { def, keys: Some(keys), .. } = made else { return Ok(()) };
        let equal = |key: String| {
            Err(Error::invalid(format!("stream \"{}\" would have two rows with {key}", def.name))
                .with_hint("Nothing was changed. Set keys that no other row has, or delete that row first."))
        };
        if let Some(key) = keys.settle()? {
            return equal(key);
        }
        if keys.is_empty() {
            return Ok(());
        }
        let columns: Vec<String> = def.primary_key.iter().map(|at| quote_name(def.schema.field(*at).name())).collect();
        let query = format!("SELECT {} FROM {}", columns.join(", "), quote_name(&def.name));
        let query = crate::statement::parse_query(&query)?.query;
        let (state, left_out) = (session_state(), LeftOutRows::default());
        let reading = self.reading().into_stream(&def.name);
        let plan = query_plan(&state, self.millstream.batch_resolver(&left_out, &reading), &query)?;
        let mut rows = Planned { state, plan, left_out }.run(&self.millstream).await?;
        while let Some(batch) = rows.rows.try_next().await? {
            if let Some(key) = keys.met(&batch)? {
                return equal(key);
            }
        }
        Ok(())
    }
}

impl Planned {
    async fn run(self, ms: &Millstream) -> Result<RowStream> {
        match snapshot(ms, &self.state, self.plan, &self.left_out).await? {
            Outcome::Rows(rows) => Ok(rows),
            _ => Err(Error::internal("a query without rows")),
        }
    }
}

impl Millstream {
    /// Hands `parcel` in and waits until it is committed, also when nobody waits for that any more: only then others have their turn.
    async fn take_turn(&self, alone: IntakeAlone, parcel: Parcel) -> Result<()> {
        self.to_the_end(async move {
            alone.push(parcel).await?;
            alone.settle().await
        })
        .await
    }
}

/// A plan whose last columns are the values of columns `set` of `def`, with these assigned.
fn assigned(plan: LogicalPlan, def: &StreamDef, set: &[usize], guarded: bool) -> Result<LogicalPlan> {
    let target = |at: &usize| {
        let field = def.schema.field(*at);
        (field.name().as_str(), field.data_type())
    };
    let targets: Vec<(&str, &DataType)> = set.iter().map(target).collect();
    assign_last(plan, &targets, &def.name, guarded)
}

/// Refuses what makes one row of several, or several of one: each row is changed by itself.
fn refuse_aggregates<'a>(state: &SessionState, verb: &str, exprs: impl Iterator<Item = &'a Expr>) -> Result<()> {
    for (name, place) in calls(exprs) {
        let several = matches!(name.as_str(), "unnest" | "generate_series");
        if several || state.aggregate_functions().contains_key(&name) {
            return Err(Error::unsupported(format!("{verb} with {name}(…) over its own rows is not supported"))
                .with_hint(format!("Write a query around it: (SELECT {name}(…) FROM …)."))
                .or_at(place));
        }
    }
    Ok(())
}

/// An error about a column, at the place where it is set.
fn placed(e: Error, set: &[SetColumn<'_>]) -> Error {
    let is_about = |set: &&SetColumn<'_>| {
        set.name().is_ok_and(|name| e.message().starts_with(&format!("column \"{name}\" of stream ")))
    };
    let place = set.iter().find(is_about).and_then(SetColumn::place);
    e.or_at(place)
}

/// The place of a column that is set.
fn place_of(def: &StreamDef, set: &SetColumn<'_>) -> Result<usize> {
    let name = set.name()?;
    let names = def.schema.fields().iter().map(|f| f.name().as_str());
    def.schema.index_of(&name).map_err(|_| {
        let hint = match nearest(&name, names) {
            Some(near) => format!("Did you mean {}?", quote_name(near)),
            None => format!("DESCRIBE {} lists them.", quote_name(&def.name)),
        };
        let e = Error::invalid(format!("stream \"{}\" has no column \"{name}\"", def.name));
        e.with_hint(hint).or_at(set.place())
    })
}

/// Refuses a stream whose rows do not change by statements.
fn refuse_unchangeable(def: &StreamDef, verb: &str) -> Result<()> {
    let name = &def.name;
    let (why, hint) = match def.kind {
        ObjectKind::Stored if def.changelog => return Ok(()),
        ObjectKind::Stored => (
            "only grows: those who read it do not expect that rows are taken back",
            "Make it with a PRIMARY KEY (…), or WITH (changes = true).".to_owned(),
        ),
        ObjectKind::Derived => (
            "is the result of a query: its rows follow from what that reads",
            "Change the rows of what it reads, or its query with CREATE OR REPLACE STREAM.".to_owned(),
        ),
        ObjectKind::External => (
            "is read from a connector: its rows are kept elsewhere",
            "Change them there, or keep them in a stream with a PRIMARY KEY: INSERT INTO kept SELECT ….".to_owned(),
        ),
        _ => (
            "is written to a connector: what was written is not taken back by a statement",
            "Change what its query reads.".to_owned(),
        ),
    };
    Err(Error::unsupported(format!("{verb} on stream \"{name}\", which {why}")).with_hint(hint))
}
