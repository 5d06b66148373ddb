//! Finding streams and views by the names that a statement has, and noting what was found.

use std::sync::Arc;

use datafusion::common::TableReference;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::logical_expr::TableSource;

use super::Millstream;
use super::audit_table;
use super::left_out::{FailedStream, LeftOutRows};
use super::outcome::ObjectKind;
use super::reading::Reading;
use super::resolve::conform;
use super::tables::StreamTable;
use crate::error::{Error, Result};
use crate::plan::lower::SourceTable;
use crate::plan::{TableResolver, named_plan, session_state_of};
use crate::rights::{Need, Principal, Right};

/// Finds streams and views by name.
struct Lookup {
    millstream: Arc<Millstream>,
    continuous: bool,
    left_out: LeftOutRows,
    reading: Reading,
}

impl Millstream {
    /// Finds tables for a statement that reads in batch; what they leave out is noted in `left_out`.
    pub(super) fn batch_resolver(
        self: &Arc<Self>,
        left_out: &LeftOutRows,
        reading: &Reading,
    ) -> Arc<dyn TableResolver> {
        self.lookup(false, left_out, reading)
    }

    /// Finds tables for a plan that is to run continuously; which ones is noted in `reading`.
    pub(super) fn noting_resolver(self: &Arc<Self>, reading: &Reading) -> Arc<dyn TableResolver> {
        self.lookup(true, &LeftOutRows::default(), reading)
    }

    fn lookup(self: &Arc<Self>, continuous: bool, left_out: &LeftOutRows, reading: &Reading) -> Arc<dyn TableResolver> {
        let (left_out, reading) = (left_out.clone(), reading.clone());
        Arc::new(Lookup { millstream: self.clone(), continuous, left_out, reading })
    }

    /// Notes the streams that have failed among `name` and all that it reads. Of those that `who` may not read it is not
    /// told which, nor why.
    fn note_failed(&self, name: &str, who: &Principal, left_out: &LeftOutRows) {
        let named = name;
        let mut names = vec![name.to_owned()];
        let mut at = 0;
        while let Some(name) = names.get(at) {
            at += 1;
            let reads = self.objects.read().streams.get(name).map(|def| def.reads.clone()).unwrap_or_default();
            names.extend(reads.into_iter().filter(|read| !names.contains(read)).collect::<Vec<_>>());
        }
        for stream in names {
            let Some(reason) = self.job(&stream).and_then(|job| job.info().error) else { continue };
            left_out.add_failed(match self.access().allows(who, Need::On(Right::Read, &stream)) {
                true => FailedStream { stream, reason },
                false => FailedStream { stream: named.to_owned(), reason: "what it reads has failed".to_owned() },
            });
        }
    }
}

impl TableResolver for Lookup {
    fn table(&self, name: &TableReference) -> Result<Option<Arc<dyn TableSource>>> {
        match name {
            TableReference::Bare { table } => self.public(table),
            TableReference::Partial { schema, table } if &**schema == "millstream" && &**table == "dead_letters" => {
                if self.continuous {
                    return Err(Error::unsupported("millstream.dead_letters cannot be read continuously yet")
                        .with_hint("Read it with SELECT, without EMIT."));
                }
                Ok(Some(provider_as_source(self.millstream.dead_letters(&self.reading.who))))
            }
            TableReference::Partial { schema, table } if &**schema == "millstream" && **table == *audit_table::NAME => {
                self.millstream.access().decide(&self.reading.who, Need::OnAll(Right::Admin))?;
                if self.continuous {
                    return Err(Error::unsupported("millstream.audit cannot be read continuously yet")
                        .with_hint("Read it with SELECT, without EMIT."));
                }
                let table = audit_table::AuditTable(self.millstream.audit.clone());
                Ok(Some(provider_as_source(Arc::new(table))))
            }
            _ => Ok(None),
        }
    }

    fn version_time(&self, name: &TableReference) -> Result<Option<String>> {
        let TableReference::Bare { table } = name else { return Ok(None) };
        self.reading.ask(&self.millstream.access(), table)?;
        let stream = self.millstream.objects.read().streams.get(&**table).cloned();
        let time = stream.as_ref().filter(|def| !def.changelog).and_then(|def| def.event_time.as_ref());
        Ok(time.zip(stream.as_ref()).map(|((column, _), def)| def.schema.field(*column).name().clone()))
    }
}

impl Lookup {
    fn public(&self, name: &str) -> Result<Option<Arc<dyn TableSource>>> {
        self.reading.ask(&self.millstream.access(), name)?;
        let instead = self.reading.instead.as_ref().filter(|view| view.create.name.name == name);
        let (stream, view) = {
            let objects = self.millstream.objects.read();
            (objects.streams.get(name).cloned(), instead.or(objects.views.get(name)).cloned())
        };
        if stream.is_some() || view.is_some() {
            self.reading.met.lock().insert(name.to_owned());
        }
        if let Some(def) = stream {
            if self.continuous {
                return Ok(Some(provider_as_source(Arc::new(SourceTable(def)))));
            }
            self.millstream.note_failed(name, &self.reading.who, &self.left_out);
            let table = StreamTable::new(def, self.left_out.clone(), self.millstream.budget().clone());
            return Ok(Some(provider_as_source(Arc::new(table))));
        }
        let view = view.ok_or_else(|| self.millstream.missing("stream ", name))?;
        view.semantics.check().map_err(|e| e.context(format!("view \"{name}\"")))?;
        let what = format!("view \"{name}\"");
        let within = self.reading.within(view.maker.principal());
        let resolver = self.millstream.lookup(self.continuous, &self.left_out, &within);
        // Its places are in the text of the view.
        let plan = named_plan(&session_state_of(view.semantics), resolver, &view.create.query, &what);
        let plan = plan.map_err(|e| e.elsewhere().context(what))?;
        let plan = conform(plan, &view.schema, ObjectKind::View, name)?;
        Ok(Some(provider_as_source(Arc::new(ViewTable::new(plan, Some(view.sql.clone()))))))
    }
}
