//! CREATE OR REPLACE of what others read. They stay, and are made anew over what takes its place.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use millstream_engine::format::sql_name;
use millstream_engine::store::folder_name;

use super::Millstream;
use super::entry::statement_of;
use super::outcome::{ObjectKind, Outcome};
use super::reading::Reading;
use super::resolve::conform;
use super::tables::StreamDef;
use super::view::ViewDef;
use crate::catalog::{Catalog, Entry};
use crate::error::{Error, Result};
use crate::plan::lower::event_column;
use crate::statement::Statement;

const KEEP_STREAM: &str = "Keep its columns and its kind, or DROP … CASCADE it first and create all of them again.";
const KEEP_VIEW: &str =
    "Keep the names and types of its columns, or DROP … CASCADE it first and create all of them again.";

impl Millstream {
    /// What reads the name of `new`, and what reads that, as it will be: views, and streams with jobs that have not
    /// begun. In the order in which they were created.
    ///
    /// Errors when they cannot stay: `new` has other columns than what it replaces, or is of another kind, or reads one
    /// of them or itself; or one of them is written to another place, where nothing can be taken back.
    pub(super) fn readers_of_stream_anew(&self, catalog: &mut Catalog, new: &StreamDef) -> Result<Vec<Entry>> {
        let old = self.objects.read().streams.get(&new.name).cloned();
        let differs = old.and_then(|old| differs(&old, new));
        self.readers_anew(catalog, &new.name, &new.reads, differs.map(|why| (why, KEEP_STREAM)))
    }

    /// As [`Self::readers_of_stream_anew`]. All of them are planned over the view, since what they are may depend on
    /// more than its columns.
    pub(super) async fn readers_of_view_anew(
        self: &Arc<Self>,
        catalog: &mut Catalog,
        new: &Arc<ViewDef>,
    ) -> Result<Vec<Entry>> {
        let name = &new.create.name.name;
        let old = self.objects.read().views.get(name).cloned();
        let differs = old.and_then(|old| columns_differ(&may_be_null(&old.schema), &new.schema));
        let mut readers = self.readers_anew(catalog, name, &new.reads, differs.map(|why| (why, KEEP_VIEW)))?;
        let reading = Reading::with(new.clone());
        for entry in &mut readers {
            if let Err(e) = self.plan_over(entry, &reading).await {
                let why = format!("\"{name}\" is read by \"{}\", which could not go on over it", entry.name);
                return Err(e.elsewhere().context(why));
            }
        }
        Ok(readers)
    }

    fn readers_anew(
        &self,
        catalog: &mut Catalog,
        name: &str,
        reads: &[String],
        differs: Option<(String, &str)>,
    ) -> Result<Vec<Entry>> {
        let names: BTreeSet<String> = self.with_readers(catalog, name).into_iter().collect();
        let is_reader = |e: &&Entry| e.name != name && names.contains(&e.name);
        let mut readers: Vec<Entry> = catalog.entries.iter().filter(is_reader).cloned().collect();
        if let Some(read) = reads.iter().find(|r| names.contains(*r)) {
            let through = if *read == name { String::new() } else { format!(", through \"{read}\"") };
            return Err(Error::invalid(format!("\"{name}\" would read itself{through}"))
                .with_hint("What it reads cannot depend on it: give the new one another name."));
        }
        let Some(first) = readers.first() else { return Ok(readers) };
        let refused = |why: String, hint: &str| {
            Err(Error::invalid(format!("\"{name}\" is read by \"{}\", and {why}", first.name)).with_hint(hint))
        };
        let objects = self.objects.read();
        let is_open = |e: &Entry| objects.streams.contains_key(&e.name) || objects.views.contains_key(&e.name);
        if let Some(closed) = catalog.entries.iter().find(|e| names.contains(&e.name) && !is_open(e)) {
            let why = format!("\"{}\" could not be opened, so that it is not known what would change", closed.name);
            return refused(why, "DROP … CASCADE it first and create all of them again.");
        }
        if let Some((why, hint)) = differs {
            return refused(why, hint);
        }
        let written = |e: &&Entry| objects.streams.get(&e.name).is_some_and(|d| d.kind == ObjectKind::Written);
        if let Some(written) = readers.iter().find(written) {
            let why = format!("stream \"{}\" has written rows of it out, which cannot be taken back", written.name);
            return refused(why, "DROP that stream first, and create it again with another path.");
        }
        for entry in readers.iter_mut().filter(|e| e.has_job()) {
            catalog.next_job += 1;
            entry.job = format!("{:06}-{}", catalog.next_job, folder_name(&entry.name));
        }
        Ok(readers)
    }

    /// Sees to it that `entry`, which is open, is over the view of `reading` what it is now, and can be started. What it
    /// will read is noted in it.
    async fn plan_over(self: &Arc<Self>, entry: &mut Entry, reading: &Reading) -> Result<()> {
        let reading = reading.anew();
        let (stream, view) = {
            let objects = self.objects.read();
            (objects.streams.get(&entry.name).cloned(), objects.views.get(&entry.name).cloned())
        };
        let why = match (statement_of(&entry.sql)?, stream, view) {
            (Statement::CreateView(create), _, Some(was)) => {
                let is = self.view(create, entry.sql.clone(), was.semantics, was.maker.clone(), &reading)?;
                entry.resolved = Some(is.resolved()?);
                columns_differ(&may_be_null(&was.schema), &is.schema)
            }
            (Statement::CreateStream(create), Some(def), _) => {
                let Some(query) = &create.query else { return Ok(()) };
                let fit = |plan| conform(plan, &def.schema, def.kind, &def.name);
                let planned = self.plan_query(query, entry.parallelism, def.semantics, &reading, fit)?;
                let output = &planned.lowered.output;
                let is = Shape {
                    schema: &planned.schema,
                    changelog: !output.append_only,
                    key: output.key.as_deref(),
                    time: event_column(&output.time),
                };
                let differs = Shape::of(&def).differs(&is);
                if differs.is_none() {
                    self.try_out(&def, &create, entry.parallelism, &reading).await?;
                }
                differs
            }
            _ => return Err(Error::internal("a reader that is neither a stream nor a view")),
        };
        entry.reads = reading.names();
        match why {
            None => Ok(()),
            Some(why) => {
                Err(Error::invalid(why).with_hint("DROP … CASCADE the view first and create all of them again."))
            }
        }
    }

    /// Takes `entries` into operation, streams from the first row on. One that does not start says so like any job that
    /// fails. Gives what the statement `tag` says of it.
    pub(super) async fn start_anew(self: &Arc<Self>, tag: impl Into<String>, entries: Vec<Entry>) -> Outcome {
        let streams = entries.iter().filter(|e| e.has_job());
        let names: Vec<_> = streams.map(|e| format!("\"{}\"", e.name)).collect();
        for mut entry in entries {
            if let Err(e) = self.recover(&mut entry).await {
                self.add_broken(&entry, &e);
                // Nobody may be listening.
                let _ = self.failures.send((entry.name, e.message().to_owned()));
            }
        }
        match names.is_empty() {
            true => Outcome::tag(tag),
            false => Outcome::notice(tag, format!("made anew with it: {}", names.join(", "))),
        }
    }
}

/// What readers of a stream rely on.
struct Shape<'a> {
    schema: &'a Schema,
    changelog: bool,
    key: Option<&'a [usize]>,
    time: Option<usize>,
}

impl<'a> Shape<'a> {
    fn of(def: &'a StreamDef) -> Self {
        let time = def.event_time.as_ref().map(|(column, _)| *column);
        Shape { schema: &def.schema, changelog: def.changelog, key: def.key.as_deref(), time }
    }

    /// What would be new in `new`, in words.
    fn differs(&self, new: &Shape<'_>) -> Option<String> {
        if let Some(why) = columns_differ(self.schema, new.schema) {
            return Some(why);
        }
        if self.changelog != new.changelog || self.key != new.key {
            return Some(match (self.changelog, new.changelog) {
                (false, true) => "its rows could be taken back".to_owned(),
                (true, false) => "its rows could no longer be taken back".to_owned(),
                _ => "other columns would tell its rows apart".to_owned(),
            });
        }
        (self.time != new.time).then(|| "another column would be its event time".to_owned())
    }
}

/// What readers of `old` would notice of `new`, in words.
fn differs(old: &StreamDef, new: &StreamDef) -> Option<String> {
    let word = |kind: ObjectKind| match kind {
        ObjectKind::Derived => "the result of a query",
        ObjectKind::Written => "written to a connector",
        ObjectKind::External => "read from a connector",
        _ => "a stream into which rows are put",
    };
    if old.kind != new.kind {
        return Some(format!("it would be {} instead of {}", word(new.kind), word(old.kind)));
    }
    Shape::of(old).differs(&Shape::of(new))
}

/// The columns of a view: whether one may be NULL is no promise.
fn may_be_null(schema: &Schema) -> Schema {
    Schema::new(schema.fields().iter().map(|f| Field::clone(f).with_nullable(true)).collect::<Vec<_>>())
}

fn columns_differ(old: &Schema, new: &Schema) -> Option<String> {
    let names = |schema: &Schema| schema.fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>();
    if names(old) != names(new) {
        return Some(format!("its columns would be {} instead of {}", names(new).join(", "), names(old).join(", ")));
    }
    let mut fields = old.fields().iter().zip(new.fields());
    let (was, is) =
        fields.find(|(was, is)| was.data_type() != is.data_type() || (is.is_nullable() && !was.is_nullable()))?;
    Some(match (sql_name(was.data_type()), sql_name(is.data_type())) {
        (a, b) if a == b => format!("its column \"{}\" could be NULL", is.name()),
        (a, b) => format!("its column \"{}\" would be {b} instead of {a}", is.name()),
    })
}
