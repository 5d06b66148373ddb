//! What a stream of an existing store goes on as.
//!
//! The catalog keeps what each statement was resolved to: its columns, and the rules by which it is planned. The
//! first builds kept the text alone; for their streams it is found out once, from the files that they have written
//! and from a plan by the rules of then, and kept from there on. [`Millstream::resolved`] is the one place that
//! decides. A query that now gives other columns is cast into those of its stream, or refused by [`conform`].

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::Column;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast};
use millstream_engine::changelog::{EPOCH, OP};
use millstream_engine::checkpoint::Checkpoints;
use millstream_engine::connector::registry::Shape;
use millstream_engine::format::columnar::native_schema;
use millstream_engine::format::sql_name;
use millstream_engine::format::stored::file_schema;
use millstream_engine::table::schema_of_files;

use super::Millstream;
use super::outcome::ObjectKind;
use super::reading::Reading;
use super::sql_type::sql_type;
use crate::catalog::{Entry, Resolved, columns_of, schema_of};
use crate::error::{Error, Result};
use crate::plan::Semantics;
use crate::statement::{CreateStream, Statement, quote_name};

impl Millstream {
    /// What the stream of `entry` goes on as. What had to be found out for it is noted in `entry`.
    pub(super) async fn resolved(
        self: &std::sync::Arc<Self>,
        entry: &mut Entry,
        create: &mut CreateStream,
    ) -> Result<Resolved> {
        if let Some(known) = &entry.resolved {
            return Ok(known.clone());
        }
        let planned = self.resolve(
            create,
            entry.parallelism,
            Semantics::FIRST,
            BTreeMap::new(),
            &entry.maker,
            &Reading::of_job(),
        );
        let is_kept = create.query.is_some() && !create.options.contains_key("connector");
        let written = if is_kept { self.columns_written(entry).await? } else { None };
        let resolved = match (planned, written) {
            (Ok((resolved, reads)), written) => {
                if entry.reads.is_empty() {
                    entry.reads = reads;
                }
                match written {
                    Some(written) => written.over(resolved)?,
                    None => resolved,
                }
            }
            // Its job will say why it cannot go on. The reason may pass: nothing is noted.
            (Err(_), Some(written)) => return written.alone(),
            (Err(e), None) => return Err(e),
        };
        entry.sql = create.to_string();
        entry.resolved = Some(resolved.clone());
        Ok(resolved)
    }

    /// The columns of the files that the stream of `entry` has committed, if it has any.
    async fn columns_written(&self, entry: &Entry) -> Result<Option<Written>> {
        let last = Checkpoints::new(self.store().clone(), &entry.job).last().await?;
        let Some(manifest) = last else { return Ok(None) };
        let Some(state) = manifest.sinks.values().next() else { return Ok(None) };
        let staged = manifest.staged.values().next().map_or(&[][..], |s| s);
        let found = schema_of_files(self.store(), &entry.name, &entry.job, state, staged).await?;
        Ok(found.map(|schema| Written::of(&schema)))
    }
}

/// What the files of a stream say about it.
struct Written {
    columns: Schema,
    changelog: bool,
}

impl Written {
    fn of(schema: &Schema) -> Self {
        let is_own = |f: &Field| f.name() == OP || f.name() == EPOCH;
        let changelog = schema.fields().iter().any(|f| is_own(f));
        let columns: Vec<_> = schema.fields().iter().filter(|f| !is_own(f)).cloned().collect();
        Written { columns: Schema::new(columns), changelog }
    }

    /// `planned` with the types that the files have. Where the columns are not the same ones, the files count: the
    /// job is refused then.
    fn over(self, planned: Resolved) -> Result<Resolved> {
        let now = schema_of(&planned.columns)?;
        let as_written = file_schema(&now);
        let native = native_schema(&self.columns);
        let same_names = now.fields().len() == native.fields().len()
            && now.fields().iter().zip(native.fields()).all(|(a, b)| a.name() == b.name());
        if !same_names || planned.changelog != self.changelog {
            return Ok(Resolved { semantics: planned.semantics, ..self.alone()? });
        }
        let field = |i: usize| match as_written.field(i).data_type() == self.columns.field(i).data_type() {
            true => now.field(i).clone(),
            false => native.field(i).clone().with_nullable(true),
        };
        let fields: Vec<_> = (0..now.fields().len()).map(field).collect();
        Ok(Resolved { columns: columns_of(&Schema::new(fields))?, ..planned })
    }

    fn alone(self) -> Result<Resolved> {
        let columns = columns_of(&native_schema(&self.columns))?;
        Ok(Resolved { columns, changelog: self.changelog, ..Resolved::by(Semantics::FIRST) })
    }
}

/// Notes in `resolved` what a connector says of what it yields, by the places of `columns`.
pub(super) fn take_shape(resolved: &mut Resolved, shape: &Shape, columns: &Schema) {
    let place = |name: &String| columns.index_of(name).ok();
    resolved.changelog = shape.changelog;
    resolved.key = shape.key.as_ref().and_then(|key| key.iter().map(place).collect());
    resolved.event_time = shape.event_time.as_ref().and_then(place);
}

/// `plan` with the columns that the stream or view `name` has: those that have become another type are cast back, where that keeps
/// what they say.
///
/// Errors with `Unsupported` for the first that cannot, and says what to write.
pub(super) fn conform(plan: LogicalPlan, columns: &Schema, kind: ObjectKind, name: &str) -> Result<LogicalPlan> {
    let now = plan.schema().clone();
    let names = |schema: &Schema| schema.fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>();
    if names(now.as_arrow()) != names(columns) {
        let (has, gives) = (names(columns).join(", "), names(now.as_arrow()).join(", "));
        return Err(cannot_go_on(kind, name, format!("has columns {has}, and its query now gives {gives}")));
    }
    let types = |schema: &Schema| schema.fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>();
    if types(now.as_arrow()) == types(columns) {
        return Ok(plan);
    }
    let mut exprs = Vec::with_capacity(columns.fields().len());
    for ((qualifier, from), to) in now.iter().zip(columns.fields()) {
        let column = Expr::Column(Column::from((qualifier, from)));
        exprs.push(if from.data_type() == to.data_type() {
            column
        } else if goes_on(from.data_type(), to.data_type()) {
            cast(column, to.data_type().clone()).alias_qualified(qualifier.cloned(), from.name())
        } else {
            let (has, gives) = (sql_name(to.data_type()), sql_name(from.data_type()));
            let why = format!("has column \"{}\" as {has}, and its query now gives {gives}", to.name());
            return Err(cannot_go_on(kind, name, why));
        });
    }
    Ok(LogicalPlanBuilder::from(plan).project(exprs)?.build()?)
}

/// Whether a value of type `from` says the same as one of type `to`, at least where it fits.
fn goes_on(from: &DataType, to: &DataType) -> bool {
    use DataType::{Binary, BinaryView, Date32, Date64, Dictionary, Duration, FixedSizeList, LargeBinary, LargeList};
    use DataType::{LargeUtf8, List, Null, Struct, Time32, Time64, Timestamp, Utf8, Utf8View};
    match (from, to) {
        (from, to) if from == to || from == &Null => true,
        (from, to) if from.is_numeric() && to.is_numeric() => true,
        (Utf8 | LargeUtf8 | Utf8View, Utf8 | LargeUtf8 | Utf8View) => true,
        (Binary | LargeBinary | BinaryView, Binary | LargeBinary | BinaryView) => true,
        (Timestamp(_, a), Timestamp(_, b)) => a.is_some() == b.is_some(),
        (Date32 | Date64, Date32 | Date64) | (Time32(_) | Time64(_), Time32(_) | Time64(_)) => true,
        (Duration(_), Duration(_)) => true,
        (Dictionary(_, from), to) => goes_on(from, to),
        (from, Dictionary(_, to)) => goes_on(from, to),
        (List(a) | LargeList(a) | FixedSizeList(a, _), List(b) | LargeList(b)) => goes_on(a.data_type(), b.data_type()),
        (Struct(a), Struct(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| a.name() == b.name() && goes_on(a.data_type(), b.data_type()))
        }
        _ => false,
    }
}

/// The error of a stream or view whose columns its query does not give any more.
pub(super) fn cannot_go_on(kind: ObjectKind, name: &str, why: impl std::fmt::Display) -> Error {
    let quoted = quote_name(name);
    let (word, keep) = match kind {
        ObjectKind::View => ("view", ""),
        _ => ("stream", "Its result can still be read. "),
    };
    let upper = word.to_uppercase();
    Error::unsupported(format!("{word} \"{name}\" cannot go on: it {why}")).with_hint(format!(
        "{keep}Write CREATE OR REPLACE {upper} {quoted} AS … to make it anew (SHOW CREATE {upper} {quoted} has the query); \
         what reads it is made anew with it where its columns stay."
    ))
}

/// Writes columns that were found out into `create`, before those that it has, where SQL has names for their types.
pub(super) fn write_columns(create: &mut CreateStream, found: &Schema) {
    if let Some(columns) = as_written(found) {
        create.columns.splice(0..0, columns);
    }
}

fn as_written(found: &Schema) -> Option<Vec<crate::statement::ColumnDef>> {
    let column = |f: &std::sync::Arc<Field>| {
        let not_null = if f.is_nullable() { "" } else { " NOT NULL" };
        Some(format!("{} {}{not_null}", quote_name(f.name()), sql_type(f.data_type()).ok()?))
    };
    let text = found.fields().iter().map(column).collect::<Option<Vec<_>>>()?.join(", ");
    let parsed = crate::statement::parse(&format!("CREATE STREAM s ({text})")).ok()?.pop()?;
    let Statement::CreateStream(read) = parsed.statement else { return None };
    // Only what reads back as it is: names that a statement cannot have (twice the same) stay unwritten.
    let same = |(c, f): (&crate::statement::ColumnDef, &std::sync::Arc<Field>)| {
        c.name == *f.name() && sql_type(&c.data_type).ok() == sql_type(f.data_type()).ok()
    };
    let all = read.columns.len() == found.fields().len() && read.columns.iter().zip(found.fields()).all(same);
    all.then_some(read.columns)
}

#[cfg(test)]
mod tests;
