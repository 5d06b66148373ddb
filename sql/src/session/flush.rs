//! `FLUSH`: all that was acknowledged before is committed in every stream.
//!
//! A stream that has failed holds up no other. Whether it is an error of the statement depends on who asks: a session
//! has to do with the streams that it made, resumed or put rows into, with what reads those, and with what all of them
//! read. It is told of others, and goes on.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use millstream_engine::runtime::JobPhase;

use super::jobs::{Job, failed};
use super::{Millstream, Session};
use crate::catalog::Catalog;
use crate::error::{Error, Result};

impl Session {
    /// Waits until every job over bounded input has finished and everything acknowledged before is in every derived
    /// stream. Gives a word on streams that have failed and are not of this session.
    ///
    /// Errors, when all others are done, where one of this session's has failed.
    pub async fn flush(&self) -> Result<Option<String>> {
        let ms = &self.millstream;
        let mut failures = ms.flush_each().await;
        failures.retain(|(name, _)| self.may_read(name));
        let own = {
            let catalog = ms.catalog.lock().await;
            ms.concerned(&catalog, &self.touched.lock())
        };
        let (own, others): (Vec<_>, Vec<_>) = failures.into_iter().partition(|(name, _)| own.contains(name));
        first_of(own)?;
        Ok(first_of(others).err().map(|e| e.message().to_owned()))
    }

    /// Notes that this session has to do with stream `name`.
    pub fn touch(&self, name: &str) {
        self.touched.lock().insert(name.to_owned());
    }
}

impl Millstream {
    /// Waits until every job over bounded input has finished and everything acknowledged before is in
    /// every derived stream. Errors, when all others are done, where a job has failed.
    pub async fn flush(&self) -> Result<()> {
        first_of(self.flush_each().await)
    }

    /// Gives the streams that have failed.
    async fn flush_each(&self) -> Vec<(String, Error)> {
        // Streams are created after those they read: this order visits inputs first.
        let names: Vec<String> = self.catalog.lock().await.entries.iter().map(|e| e.name.clone()).collect();
        let mut failures = vec![];
        for name in names {
            while let Some(job) = self.settled_job(&name).await {
                let flushed = flush_one(&name, &job).await;
                if !job.is_between() || self.closes.load(Ordering::Relaxed) {
                    failures.extend(flushed.err().map(|e| (name.clone(), e)));
                    break;
                }
            }
        }
        failures
    }

    /// `names`, what reads them, and what all of these read.
    fn concerned(&self, catalog: &Catalog, names: &BTreeSet<String>) -> BTreeSet<String> {
        let mut all: Vec<String> = names.iter().flat_map(|name| self.with_readers(catalog, name)).collect();
        let mut at = 0;
        while let Some(name) = all.get(at) {
            let reads = catalog.get(name).map(|entry| entry.reads.clone()).unwrap_or_default();
            all.extend(reads.into_iter().filter(|r| !all.contains(r)).collect::<Vec<_>>());
            at += 1;
        }
        all.into_iter().collect()
    }
}

async fn flush_one(name: &str, job: &Job) -> Result<()> {
    if let Some(why) = job.info().error {
        return Err(failed(name, &why));
    }
    match job.handle().filter(|handle| handle.status().phase == JobPhase::Running) {
        Some(handle) => handle.flush().await.map_err(|e| Error::from(e).context(format!("stream \"{name}\""))),
        None => Ok(()),
    }
}

fn first_of(failures: Vec<(String, Error)>) -> Result<()> {
    let mut failures = failures.into_iter();
    let Some((_, first)) = failures.next() else { return Ok(()) };
    let others: Vec<String> = failures.map(|(name, _)| name).collect();
    Err(match others.is_empty() {
        true => first,
        false => first.with_hint(format!("Streams that have failed too: {}.", others.join(", "))),
    })
}
