//! Who reads a stream or a view. The catalog says so for each object, with the views that its query names and all
//! that stands behind them.

use std::sync::Arc;

use super::Millstream;
use super::entry::statement_of;
use super::reading::Reading;
use crate::catalog::{Catalog, Entry};
use crate::error::{Error, Result};
use crate::plan::{Semantics, named_plan, session_state_of};
use crate::statement::Statement;

impl Millstream {
    /// Who reads `name`: also those that could not be started.
    fn readers(&self, catalog: &Catalog, name: &str) -> Vec<String> {
        let objects = self.objects.read();
        let reads = |entry: &Entry| {
            let stream = objects.streams.get(&entry.name).map_or(&[][..], |d| &d.reads);
            let view = objects.views.get(&entry.name).map_or(&[][..], |v| &v.reads);
            entry.reads.iter().chain(stream).chain(view).any(|r| r == name)
        };
        catalog.entries.iter().filter(|e| reads(e)).map(|e| e.name.clone()).collect()
    }

    /// `name`, who reads it, who reads those, and so on.
    pub(super) fn with_readers(&self, catalog: &Catalog, name: &str) -> Vec<String> {
        let mut all = vec![name.to_owned()];
        let mut at = 0;
        while at < all.len() {
            let more = self.readers(catalog, &all[at]);
            all.extend(more.into_iter().filter(|m| !all.contains(m)).collect::<Vec<_>>());
            at += 1;
        }
        all
    }

    pub(super) fn refuse_if_read(&self, catalog: &Catalog, name: &str) -> Result<()> {
        match self.readers(catalog, name) {
            readers if readers.is_empty() => Ok(()),
            readers => Err(Error::invalid(format!("\"{name}\" is read by \"{}\"", readers.join("\", \"")))
                .with_hint("Drop those first, or write DROP … CASCADE.")),
        }
    }

    /// Adds the views that they read to `entries`, for which an older build noted streams only.
    pub(super) fn note_views_read(self: &Arc<Self>, entries: &mut [Entry]) {
        let views: Vec<String> = self.objects.read().views.keys().cloned().collect();
        for entry in entries {
            // A name that stands in the text may be that of a column: the plan tells.
            let named =
                |view: &&String| entry.sql.contains(*view) && !entry.reads.contains(view) && **view != entry.name;
            if views.iter().any(|view| named(&view))
                && let Ok(reads) = self.names_read(entry)
            {
                let more: Vec<_> = reads.into_iter().filter(|name| !entry.reads.contains(name)).collect();
                entry.reads.extend(more);
            }
        }
    }

    /// The names that the query of `entry` meets.
    fn names_read(self: &Arc<Self>, entry: &Entry) -> Result<Vec<String>> {
        let query = match statement_of(&entry.sql)? {
            Statement::CreateStream(create) => create.query,
            Statement::CreateView(create) => Some(create.query),
            _ => None,
        };
        let semantics = entry.resolved.as_ref().map_or(Semantics::FIRST, |resolved| resolved.semantics);
        let reading = Reading::of_job();
        if let Some(query) = query {
            named_plan(&session_state_of(semantics), self.noting_resolver(&reading), &query, "the stream")?;
        }
        Ok(reading.names())
    }
}
