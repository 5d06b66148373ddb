//! CREATE and DROP. The catalog decides: it changes first, then jobs end and files go, and what a crash leaves
//! between the two is removed when the store is opened.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use millstream_engine::checkpoint::Checkpoints;
use millstream_engine::connector::Opening;
use millstream_engine::store::{Store, folder_name};
use millstream_engine::table::{StreamLog, follower, remove_shown};
use tokio::sync::MutexGuard;

use super::Millstream;
use super::explain::unbounded_words;
use super::jobs::{Job, public};
use super::outcome::{JobState, ObjectKind, Outcome};
use super::reading::Reading;
use super::tables::StreamDef;
use crate::catalog::{Catalog, Entry, Maker, Resolved};
use crate::error::{Error, Result};
use crate::plan::Semantics;
use crate::rights::{Need, Principal, Right};
use crate::statement::{self, CreateStream, CreateView, DropObject, quote_name};

/// How long a job may take to end in good order, where it is on its way out.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Names become folders, whose names file systems bound.
const LONGEST_NAME: usize = 200;

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid("the name is empty").with_hint("Write a name of at least one character."));
    }
    if folder_name(name).len() > LONGEST_NAME {
        let short: String = name.chars().take(20).collect();
        return Err(Error::invalid(format!("the name \"{short}…\" is too long"))
            .with_hint(format!("Its letters and digits may be {LONGEST_NAME}; other characters count for more.")));
    }
    Ok(())
}

/// What CREATE finds under the name it is given.
enum Place {
    Free,
    Replaces(Box<Entry>),
    /// It exists and is to stay.
    Kept,
}

fn is_view(entry: &Entry) -> bool {
    !entry.has_job()
}

fn kind_word(entry: &Entry) -> &'static str {
    if is_view(entry) { "VIEW" } else { "STREAM" }
}

/// Refuses what is meant for a view where `entry` is a stream, and the reverse. The hint says `before` DROP.
fn check_kind(entry: &Entry, kind: statement::ObjectKind, before: &str) -> Result<()> {
    if is_view(entry) == (kind == statement::ObjectKind::View) {
        return Ok(());
    }
    let is = kind_word(entry);
    Err(Error::invalid(format!("\"{}\" is a {}", entry.name, is.to_lowercase()))
        .with_hint(format!("{before} DROP {is} {}.", quote_name(&entry.name))))
}

/// Objects that are no longer in use while their jobs end and their files go. Their names are free again when
/// this is dropped.
struct Leaving {
    millstream: Arc<Millstream>,
    objects: Vec<(Entry, Option<Arc<Job>>)>,
    logs: Vec<Arc<StreamLog>>,
}

impl Leaving {
    async fn clear(&self) -> Result<()> {
        let store = self.millstream.store();
        for (_, job) in &self.objects {
            if let Some(job) = job {
                // In good order, so that no commit under way writes into a folder that has gone.
                job.stop_within(STOP_TIMEOUT).await;
            }
        }
        for log in &self.logs {
            log.drop_readers();
            log.close(Duration::ZERO).await;
        }
        for (entry, _) in self.objects.iter().filter(|(e, _)| e.has_job()) {
            // The job's folder last: while it is there the other is known to be left over.
            remove_shown(store, &folder_name(&entry.name)).await?;
            store.delete_folder(&format!("jobs/{}", entry.job)).await?;
        }
        Ok(())
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let gone = |names: &mut BTreeSet<String>| names.retain(|n| !self.objects.iter().any(|(e, _)| e.name == *n));
        self.millstream.leaving.send_modify(gone);
    }
}

impl Job {
    /// Commits and stops; at once, when that takes too long.
    pub(super) async fn stop_within(&self, patience: Duration) {
        if let Some(handle) = self.handle()
            && tokio::time::timeout(patience, handle.stop()).await.is_err()
        {
            handle.abort();
            handle.wait().await;
        }
    }
}

impl Millstream {
    /// Runs a change of the catalog to its end, also when nobody waits for it any more.
    pub(super) async fn to_the_end<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let done = self.runtime().io.spawn(change).await;
        done.unwrap_or_else(|e| Err(Error::internal(format!("the statement was cut off: {e}"))))
    }

    /// The catalog, once none of the objects that `involved` names is on its way out.
    pub(super) async fn catalog_for(&self, involved: impl Fn(&Catalog) -> Vec<String>) -> MutexGuard<'_, Catalog> {
        let mut leaving = self.leaving.subscribe();
        loop {
            let catalog = self.catalog.lock().await;
            let names = involved(&catalog);
            if !leaving.borrow_and_update().iter().any(|n| names.contains(n)) {
                return catalog;
            }
            drop(catalog);
            // The sender lives as long as this does.
            let _ = leaving.changed().await;
        }
    }

    /// Takes `entries`, which the catalog has no more, out of use.
    fn take_out(self: &Arc<Self>, entries: Vec<Entry>) -> Leaving {
        self.leaving.send_modify(|names| names.extend(entries.iter().map(|e| e.name.clone())));
        let (mut objects, mut jobs, mut logs) = (self.objects.write(), self.jobs.write(), vec![]);
        let mut out = |entry: Entry| {
            logs.extend(objects.streams.remove(&entry.name).and_then(|def| def.log.clone()));
            objects.views.remove(&entry.name);
            let job = jobs.remove(&entry.name);
            (entry, job)
        };
        let left: Vec<_> = entries.into_iter().map(&mut out).collect();
        for (entry, _) in &left {
            // What only they needed need not be kept.
            objects
                .streams
                .values()
                .filter_map(|def| def.log.as_ref())
                .for_each(|l| l.unfollow(&follower(&entry.name, "")));
        }
        let objects = left;
        Leaving { millstream: self.clone(), objects, logs }
    }

    /// `anew` replaces also a stream that is the same already.
    pub(super) async fn create_stream(
        self: Arc<Self>,
        mut create: CreateStream,
        parallelism: usize,
        anew: bool,
        who: Principal,
    ) -> Result<Outcome> {
        let (name, reading) = (public(&create.name)?.to_owned(), Reading::by(&who));
        check_name(&name)?;
        let tag = format!("CREATE {}", create.kind.to_string().to_uppercase());
        let mut catalog = self.catalog_for(|c| self.with_readers(c, &name)).await;
        let replaced = match self.place(&catalog, &name, create.kind, create.or_replace, create.if_not_exists)? {
            Place::Free => None,
            Place::Replaces(entry) => Some(*entry),
            Place::Kept => return Ok(Outcome::notice(tag, format!("\"{name}\" exists already"))),
        };
        (create.or_replace, create.if_not_exists) = (false, false);
        if replaced.is_some() {
            self.ask_for_all(&catalog, &name, &who)?;
        }
        // What is wrong with the new one is found before the old one goes.
        let (def, resolved) = self.make(&mut create, parallelism, &reading)?;
        let (def, sql) = (Arc::new(def), create.to_string());
        let readers = match &replaced {
            Some(old) if !anew && old.maker == Maker::of(&who) && self.is_as(old, &sql, parallelism, &resolved) => {
                return Ok(Outcome::notice(tag, format!("\"{name}\" is so already")));
            }
            Some(_) => self.readers_of_stream_anew(&mut catalog, &def)?,
            None => vec![],
        };
        self.refuse_unsteady_watermark(&create, &def)?;
        if replaced.is_some() {
            self.try_out(&def, &create, parallelism, &reading.anew()).await?;
        }
        let job = format!("{:06}-{}", catalog.next_job + 1, folder_name(&name));
        let (reads, resolved, maker) = (def.reads.clone(), Some(resolved), Maker::of(&who));
        let entry = Entry { name: name.clone(), sql, job, parallelism, paused: false, reads, resolved, maker };
        let before = catalog.clone();
        catalog.next_job += 1;
        let out = catalog.put(entry.clone(), &readers);
        self.save(&mut catalog, before).await?;
        // Views stay as they are.
        let anew: Vec<Entry> = readers.into_iter().filter(Entry::has_job).collect();
        if replaced.is_some() {
            catalog = self.clear_replaced(catalog, out, [&entry].into_iter().chain(&anew)).await?;
        }
        let started = self.start_new(&mut catalog, def, &create, &entry, replaced.is_some()).await;
        let outcome = self.start_anew(tag, anew).await;
        started?;
        let handle = self.job(&name).and_then(|job| job.handle());
        Ok(outcome.and(handle.and_then(|handle| unbounded_words(handle.graph()))))
    }

    /// Ends the jobs of those among `out` that have one, and removes their files; meanwhile the catalog is free. Those
    /// of `anew`, which are to take their places, cannot start when that fails.
    async fn clear_replaced<'a>(
        self: &'a Arc<Self>,
        catalog: MutexGuard<'a, Catalog>,
        out: Vec<Entry>,
        anew: impl IntoIterator<Item = &Entry>,
    ) -> Result<MutexGuard<'a, Catalog>> {
        let leaving = self.take_out(out.into_iter().filter(Entry::has_job).collect());
        drop(catalog);
        let cleared = leaving.clear().await;
        let catalog = self.catalog.lock().await;
        drop(leaving);
        if let Err(e) = cleared {
            anew.into_iter().filter(|entry| entry.has_job()).for_each(|entry| self.add_broken(entry, &e));
            return Err(e);
        }
        Ok(catalog)
    }

    async fn start_new(
        self: &Arc<Self>,
        catalog: &mut Catalog,
        def: Arc<StreamDef>,
        create: &CreateStream,
        entry: &Entry,
        replaces: bool,
    ) -> Result<()> {
        let job = match def.kind {
            ObjectKind::External => None,
            _ => match self.first_start(&def, create, entry).await {
                Ok(job) => Some(job),
                Err(e) => return Err(self.not_started(catalog, entry, replaces, e).await),
            },
        };
        self.objects.write().streams.insert(def.name.clone(), def);
        self.jobs.write().extend(job.map(|job| (entry.name.clone(), job)));
        Ok(())
    }

    /// A new stream that does not start is not kept, unless it took the place of another: then RESUME may try
    /// again.
    async fn not_started(&self, catalog: &mut Catalog, entry: &Entry, replaces: bool, e: Error) -> Error {
        let before = catalog.clone();
        catalog.entries.retain(|other| replaces || other.name != entry.name);
        if replaces || self.save(catalog, before).await.is_err() {
            self.add_broken(entry, &e);
        }
        e
    }

    /// Saves a changed catalog; when that fails the change is taken back.
    pub(super) async fn save(&self, catalog: &mut Catalog, before: Catalog) -> Result<()> {
        let saved = catalog.save(self.store()).await;
        if saved.is_err() {
            // A version that may have been written is not written again.
            *catalog = Catalog { version: catalog.version, next_job: catalog.next_job, ..before };
        }
        // All who ask from here on are answered by it.
        self.access.send_replace(Arc::new(catalog.access.clone()));
        saved
    }

    /// Does what may fail at a start, before anything is changed.
    pub(super) async fn try_out(
        self: &Arc<Self>,
        def: &StreamDef,
        create: &CreateStream,
        parallelism: usize,
        reading: &Reading,
    ) -> Result<()> {
        if def.ingest.is_some() || def.kind == ObjectKind::External {
            return Ok(());
        }
        let (graph, _) = self.dataflow(def, create, "trial", parallelism, reading)?;
        self.refuse_second_stdin(&format!("stream \"{}\"", def.name), &reading.names())?;
        graph.validate()?;
        for node in graph.sources() {
            let opening = Opening { conditions: node.conditions.clone(), ..Opening::new(self.budget().clone()) };
            node.source.clone().open(opening).await?;
        }
        Ok(())
    }

    /// Starts the job of a new stream, which finds nothing under its name.
    async fn first_start(
        self: &Arc<Self>,
        def: &Arc<StreamDef>,
        create: &CreateStream,
        entry: &Entry,
    ) -> Result<Arc<Job>> {
        self.store().delete_folder(&format!("jobs/{}", entry.job)).await?;
        if let Some(log) = &def.log {
            self.store().delete_folder(&log.folder()).await?;
        }
        self.start_job(def, create, entry).await
    }

    pub(super) async fn create_view(self: Arc<Self>, mut create: CreateView, who: Principal) -> Result<Outcome> {
        let name = public(&create.name)?.to_owned();
        check_name(&name)?;
        let mut catalog = self.catalog_for(|c| self.with_readers(c, &name)).await;
        let view = statement::ObjectKind::View;
        let replaced = match self.place(&catalog, &name, view, create.or_replace, create.if_not_exists)? {
            Place::Free => None,
            Place::Replaces(entry) => Some(*entry),
            Place::Kept => return Ok(Outcome::notice("CREATE VIEW", format!("\"{name}\" exists already"))),
        };
        (create.or_replace, create.if_not_exists) = (false, false);
        let sql = create.to_string();
        let (maker, reading) = (Maker::of(&who), Reading::by(&who));
        let view = Arc::new(self.view(create, sql.clone(), Semantics::NOW, maker.clone(), &reading)?);
        let mut readers = vec![];
        if let Some(old) = &replaced {
            self.ask_for_all(&catalog, &name, &who)?;
            if old.sql == sql
                && old.maker == maker
                && old.resolved.as_ref().is_some_and(|r| r.semantics == Semantics::NOW)
            {
                return Ok(Outcome::notice("CREATE VIEW", format!("\"{name}\" is so already")));
            }
            readers = self.readers_of_view_anew(&mut catalog, &view).await?;
        }
        let before = catalog.clone();
        let (reads, resolved) = (view.reads.clone(), Some(view.resolved()?));
        let job = String::new();
        let entry = Entry { name: name.clone(), sql, job, parallelism: 1, paused: false, reads, resolved, maker };
        let out = catalog.put(entry, &readers);
        self.save(&mut catalog, before).await?;
        self.objects.write().views.insert(name, view);
        let catalog = self.clear_replaced(catalog, out, &readers).await?;
        let outcome = self.start_anew("CREATE VIEW", readers).await;
        drop(catalog);
        Ok(outcome)
    }

    pub(super) async fn drop_object(self: Arc<Self>, drop: DropObject, who: Principal) -> Result<Outcome> {
        let name = public(&drop.name)?;
        let tag = format!("DROP {}", drop.kind.to_string().to_uppercase());
        let mut catalog = self.catalog_for(|c| self.with_readers(c, name)).await;
        let Some(entry) = catalog.get(name) else {
            if drop.if_exists {
                return Ok(Outcome::notice(tag, format!("\"{name}\" does not exist")));
            }
            return Err(self.missing("", name));
        };
        check_kind(entry, drop.kind, "Write")?;
        if !drop.cascade {
            self.refuse_if_read(&catalog, name)?;
        }
        let going = self.ask_for_all(&catalog, name, &who)?;
        let before = catalog.clone();
        let (out, stay) = std::mem::take(&mut catalog.entries).into_iter().partition(|e| going.contains(&e.name));
        catalog.entries = stay;
        self.save(&mut catalog, before).await?;
        let leaving = self.take_out(out);
        std::mem::drop(catalog);
        leaving.clear().await?;
        Ok(Outcome::tag(tag))
    }

    /// `name` and all that reads it, which goes or is made anew with it.
    ///
    /// Errors unless `who` may do that to each.
    fn ask_for_all(&self, catalog: &Catalog, name: &str, who: &Principal) -> Result<Vec<String>> {
        let (all, access) = (self.with_readers(catalog, name), self.access());
        all.iter().try_for_each(|name| access.decide(who, Need::On(Right::Admin, name)))?;
        Ok(all)
    }

    /// Whether an object of `kind` can be made under `name`.
    fn place(
        &self,
        catalog: &Catalog,
        name: &str,
        kind: statement::ObjectKind,
        or_replace: bool,
        if_not_exists: bool,
    ) -> Result<Place> {
        let Some(entry) = catalog.get(name) else { return Ok(Place::Free) };
        if if_not_exists {
            return Ok(Place::Kept);
        }
        check_kind(entry, kind, "Choose another name, or")?;
        if !or_replace {
            let what = kind_word(entry);
            return Err(Error::exists(format!("\"{name}\" exists already"))
                .with_hint(format!("DROP {what} {0}, or write CREATE OR REPLACE {what} {0}.", quote_name(name))));
        }
        Ok(Place::Replaces(Box::new(entry.clone())))
    }

    /// Whether the stream of `entry` is what `sql` says, by the rules of now, and works: then there is nothing to
    /// replace.
    fn is_as(&self, entry: &Entry, sql: &str, parallelism: usize, resolved: &Resolved) -> bool {
        let works = self.job(&entry.name).is_none_or(|job| job.info().state != JobState::Failed);
        works && entry.sql == sql && entry.parallelism == parallelism && entry.resolved.as_ref() == Some(resolved)
    }
}

/// Removes what a DROP or a replacement that was cut off has left: the folders of jobs that `catalog` does not
/// name, and those of their streams. Nothing else in the store is touched.
pub(super) async fn sweep_dropped(store: &Store, catalog: &Catalog) -> Result<()> {
    // A store without any catalog is not one where all was dropped.
    if catalog.version == 0 {
        return Ok(());
    }
    for folder in store.folders("jobs").await? {
        if catalog.entries.iter().any(|e| e.job == folder) {
            continue;
        }
        let Some((_, name)) = folder.split_once('-').filter(|(n, _)| n.bytes().all(|b| b.is_ascii_digit())) else {
            continue;
        };
        let fresh = match catalog.entries.iter().find(|e| folder_name(&e.name) == name) {
            None => true,
            // The one that takes its place has not begun while the old files were there.
            Some(entry) => Checkpoints::new(store.clone(), &entry.job).last().await?.is_none_or(|m| m.is_new()),
        };
        if fresh {
            remove_shown(store, name).await?;
        }
        store.delete_folder(&format!("jobs/{folder}")).await?;
    }
    Ok(())
}
