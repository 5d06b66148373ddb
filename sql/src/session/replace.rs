//! CREATE OR REPLACE of a stream that others read. They stay, and are made anew over what takes its place.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::Schema;
use millstream_engine::format::sql_name;
use millstream_engine::store::folder_name;

use super::Millstream;
use super::outcome::ObjectKind;
use super::tables::StreamDef;
use crate::catalog::{Catalog, Entry};
use crate::error::{Error, Result};

impl Millstream {
    /// What reads `new`'s name, and what reads that, as it will be: views, and streams with jobs that have not begun. In the
    /// order in which they were created.
    ///
    /// Errors when they cannot stay: `new` has other columns than what it replaces, or is of another kind, or reads one
    /// of them or itself; or one of them is written to another place, where nothing can be taken back.
    pub(super) fn readers_anew(&self, catalog: &mut Catalog, new: &StreamDef) -> Result<Vec<Entry>> {
        let names: BTreeSet<String> = self.with_readers(catalog, &new.name).into_iter().collect();
        let is_reader = |e: &&Entry| e.name != new.name && names.contains(&e.name);
        let mut readers: Vec<Entry> = catalog.entries.iter().filter(is_reader).cloned().collect();
        if let Some(read) = new.reads.iter().find(|r| names.contains(*r)) {
            let through = if *read == new.name { String::new() } else { format!(", through \"{read}\"") };
            return Err(Error::invalid(format!("\"{}\" would read itself{through}", new.name))
                .with_hint("What a stream reads cannot depend on it: give the new one another name."));
        }
        let Some(first) = readers.first() else { return Ok(readers) };
        let refused = |why: String, hint: &str| {
            Err(Error::invalid(format!("\"{}\" is read by \"{}\", and {why}", new.name, first.name)).with_hint(hint))
        };
        let objects = self.objects.read();
        let streams = catalog.entries.iter().filter(|e| names.contains(&e.name) && e.has_job());
        if let Some(closed) = streams.map(|e| &e.name).find(|name| !objects.streams.contains_key(*name)) {
            let why = format!("stream \"{closed}\" could not be opened, so that it is not known what would change");
            return refused(why, "DROP … CASCADE it first and create all of them again.");
        }
        if let Some(why) = objects.streams.get(&new.name).and_then(|old| differs(old, new)) {
            return refused(
                why,
                "Keep its columns and its kind, or DROP … CASCADE it first and create all of them again.",
            );
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

    /// Takes `streams` into operation, from the first row on. One that does not start says so like any job that fails.
    pub(super) async fn start_anew(self: &Arc<Self>, streams: Vec<Entry>) {
        for mut entry in streams {
            if let Err(e) = self.recover(&mut entry).await {
                self.add_broken(&entry, &e);
                // Nobody may be listening.
                let _ = self.failures.send((entry.name, e.message().to_owned()));
            }
        }
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
    if let Some(why) = columns_differ(&old.schema, &new.schema) {
        return Some(why);
    }
    if old.changelog != new.changelog || old.key != new.key {
        return Some(match (old.changelog, new.changelog) {
            (false, true) => "its rows could be taken back".to_owned(),
            (true, false) => "its rows could no longer be taken back".to_owned(),
            _ => "other columns would tell its rows apart".to_owned(),
        });
    }
    let time = |def: &StreamDef| def.event_time.as_ref().map(|(column, _)| *column);
    (time(old) != time(new)).then(|| "another column would be its event time".to_owned())
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
