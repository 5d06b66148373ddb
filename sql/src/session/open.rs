//! Opening and closing a store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use datafusion::execution::runtime_env::RuntimeEnv;
use millstream_engine::memory::MemoryBudget;
use millstream_engine::nearest::nearest;
use millstream_engine::runtime::{Network, Runtime};
use millstream_engine::store::{Lease, Store};
use millstream_engine::table::Upkeep;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{broadcast, watch};

use super::alone::{CLUSTER, Hold, Made, Seat, clean};
use super::audit::Audit;
use super::batch_memory::{SPILL, batch_environment};
use super::ddl::sweep_dropped;
use super::jobs::{Job, failed};
use super::stdin::StdinReader;
use super::tables::StreamDef;
use super::view::ViewDef;
use super::{Config, Session};
use crate::catalog::Catalog;
use crate::error::{Error, ErrorKind, Result};
use crate::rights::{Access, Principal, Throttle};
use crate::statement::{STACK, quote_name};

/// Failures that a slow listener may miss.
const FAILURES: usize = 64;

/// How long what is done for a stream that is complete may take to end when the store is closed.
const PATIENCE: Duration = Duration::from_secs(5);

/// An opened store with its running jobs. One process at a time may have a store open.
pub struct Millstream {
    config: Config,
    store: Store,
    pub(super) catalog: tokio::sync::Mutex<Catalog>,
    pub(super) objects: RwLock<Objects>,
    pub(super) jobs: RwLock<BTreeMap<String, Arc<Job>>>,
    /// The names of objects that are not in the catalog any more, while their jobs end and their files go.
    pub(super) leaving: watch::Sender<BTreeSet<String>>,
    /// Who reads standard input.
    pub(super) stdin: Mutex<Option<StdinReader>>,
    pub(super) failures: broadcast::Sender<(String, String)>,
    /// Who may do what, as the catalog has it.
    pub(super) access: watch::Sender<Arc<Access>>,
    pub(super) throttle: Throttle,
    pub(super) audit: Arc<Audit>,
    runtime: Runtime,
    upkeep: Arc<Upkeep>,
    /// How far the readers of streams have got that are not open yet, as (stream, reader, rows).
    pub(super) positions: Mutex<Vec<(String, String, u64)>>,
    batch: Arc<RuntimeEnv>,
    /// Kept to be shut down.
    threads: Mutex<Vec<tokio::runtime::Runtime>>,
    /// No job is started any more.
    pub(super) closes: AtomicBool,
    made: Made,
    /// What keeps the store for this process.
    pub(super) hold: Hold,
}

/// What there is, by name.
#[derive(Default)]
pub(super) struct Objects {
    pub(super) streams: BTreeMap<String, Arc<StreamDef>>,
    pub(super) views: BTreeMap<String, Arc<ViewDef>>,
}

impl Millstream {
    /// Opens (or makes) the store for this process alone and starts its jobs.
    pub async fn open(config: Config) -> Result<Arc<Self>> {
        let (store, made, hold) = Hold::take(&config.store).await?;
        let catalog = known(&store, &hold).await?;
        let millstream = Millstream::assembled(config, store, catalog, made, hold)?;
        millstream.begin().await?;
        Ok(millstream)
    }

    /// The same for a node that leads others by `lease`, for as long as it holds that. Its jobs have tasks on them, which are
    /// reached through the network that `join` makes.
    pub async fn lead(
        config: Config,
        seat: &Seat,
        lease: Lease,
        join: impl FnOnce(&Runtime) -> Arc<dyn Network>,
    ) -> Result<Arc<Self>> {
        let (store, made, hold) = (lease.fenced(), seat.made.clone(), Hold::Lease(lease));
        if let Err(e) = clean(&store).await {
            hold.release(false).await;
            return Err(e);
        }
        let catalog = known(&store, &hold).await?;
        let millstream = Millstream::assembled(config, store, catalog, made, hold)?;
        millstream.runtime.join(join(&millstream.runtime));
        millstream.begin().await?;
        millstream.tend();
        Ok(millstream)
    }

    /// For a node that has tasks of jobs that another leads: it has no jobs and no content, and [plans](Millstream::planner) what
    /// it is told to.
    pub fn beside(config: Config, seat: &Seat, join: impl FnOnce(&Runtime) -> Arc<dyn Network>) -> Result<Arc<Self>> {
        let (store, catalog) = (seat.store().clone(), Catalog::default());
        let millstream = Millstream::assembled(config, store, catalog, Made::default(), Hold::Not)?;
        millstream.runtime.join(join(&millstream.runtime));
        Ok(millstream)
    }

    /// The lease by which it has the store, where it has one.
    pub fn lease(&self) -> Option<&Lease> {
        self.hold.lease()
    }

    /// Without anything that runs.
    fn assembled(config: Config, store: Store, catalog: Catalog, made: Made, hold: Hold) -> Result<Arc<Self>> {
        let (cpu, io) = (threads("millstream-cpu", config.parallelism)?, threads("millstream-io", 2)?);
        let budget = MemoryBudget::new(config.memory_limit);
        let runtime = Runtime::new(cpu.handle().clone(), io.handle().clone(), budget);
        let batch = batch_environment(runtime.budget.clone(), &store)?;
        let upkeep = Upkeep::new(runtime.budget.clone(), runtime.io.clone());
        let (failures, _) = broadcast::channel(FAILURES);
        let audit = Audit::begin(store.clone(), &runtime.io);
        let access = watch::Sender::new(Arc::new(catalog.access.clone()));
        Ok(Arc::new(Millstream {
            config,
            store,
            catalog: tokio::sync::Mutex::new(catalog),
            objects: RwLock::default(),
            jobs: RwLock::default(),
            leaving: watch::Sender::default(),
            stdin: Mutex::default(),
            failures,
            access,
            throttle: Throttle::default(),
            audit,
            runtime,
            upkeep,
            positions: Mutex::default(),
            batch,
            threads: Mutex::new(vec![cpu, io]),
            closes: AtomicBool::new(false),
            made,
            hold,
        }))
    }

    /// Takes all that the catalog has into operation.
    async fn begin(self: &Arc<Self>) -> Result<()> {
        let entries = self.catalog.lock().await.entries.clone();
        self.find_positions(&entries).await;
        let mut now = entries.clone();
        // Views that are known open without a look at what they read; older builds may have listed them behind their readers.
        let (views, others): (Vec<_>, Vec<_>) = now.iter_mut().partition(|e| !e.has_job() && e.resolved.is_some());
        for entry in views.into_iter().chain(others) {
            if let Err(e) = self.recover(entry).await {
                tracing::error!(stream = %entry.name, error = %e, "stream cannot be started");
                self.add_broken(entry, &e);
            }
        }
        self.note_views_read(&mut now);
        if now != entries {
            // From a build that kept less: kept from here on.
            let mut catalog = self.catalog.lock().await;
            catalog.entries = now;
            catalog.save(self.store()).await?;
        }
        Ok(())
    }

    /// A session of the owner, who may do all, with default settings.
    pub fn session(self: &Arc<Self>) -> Session {
        self.session_of(Principal::owner())
    }

    /// A session of `who`, with default settings.
    pub fn session_of(self: &Arc<Self>, who: Principal) -> Session {
        Session { millstream: self.clone(), settings: Mutex::default(), touched: Mutex::default(), who }
    }

    /// Who may do what, as of now.
    pub fn access(&self) -> Arc<Access> {
        self.access.borrow().clone()
    }

    /// How the store was opened.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The process's memory budget.
    pub fn budget(&self) -> &Arc<MemoryBudget> {
        &self.runtime.budget
    }

    /// Where statements run in batch.
    pub(super) fn batch(&self) -> &Arc<RuntimeEnv> {
        &self.batch
    }

    /// What is done for streams beside their jobs.
    pub(super) fn upkeep(&self) -> &Arc<Upkeep> {
        &self.upkeep
    }

    pub(super) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Failures of jobs as they happen: (stream, reason).
    pub fn failures(&self) -> broadcast::Receiver<(String, String)> {
        self.failures.subscribe()
    }

    /// The stream of that name.
    pub(super) fn stream(&self, name: &str) -> Result<Arc<StreamDef>> {
        let found = self.objects.read().streams.get(name).cloned();
        found.ok_or_else(|| self.missing("stream ", name))
    }

    /// That there is no `what` called `name`, and what may have been meant.
    pub(super) fn missing(&self, what: &str, name: &str) -> Error {
        if let Some(why) = self.job(name).and_then(|job| job.broken()) {
            return failed(name, &why);
        }
        let objects = self.objects.read();
        if objects.views.contains_key(name) {
            return Error::invalid(format!("\"{name}\" is a view"))
                .with_hint("Name a stream: SHOW STREAMS lists them.");
        }
        let names = objects.streams.keys().chain(objects.views.keys()).map(String::as_str);
        let hint = match nearest(name, names) {
            Some(near) => format!("Did you mean {}?", quote_name(near)),
            None if what.is_empty() => "SHOW STREAMS and SHOW VIEWS list what there is.".to_owned(),
            None => "SHOW STREAMS lists what there is.".to_owned(),
        };
        Error::not_found(format!("{what}\"{name}\" does not exist")).with_hint(hint)
    }

    /// Stops the jobs where they are, since another process may have the store: nothing is committed any more.
    pub async fn abandon(&self) {
        self.closes.store(true, Ordering::Relaxed);
        let jobs: Vec<Arc<Job>> = self.jobs.read().values().cloned().collect();
        futures::future::join_all(jobs.iter().map(|job| job.abandon())).await;
        // Threads that wait for the store must not outlive what wakes them.
        let logs: Vec<_> = self.objects.read().streams.values().filter_map(|def| def.log.clone()).collect();
        futures::future::join_all(logs.iter().map(|log| log.close(Duration::ZERO))).await;
        for threads in self.threads.lock().drain(..) {
            threads.shutdown_background();
        }
    }

    /// Commits what the jobs have and stops them, all at once. Of a store that was new and in which nothing was made,
    /// nothing stays.
    pub async fn close(&self) -> Result<()> {
        self.closes.store(true, Ordering::Relaxed);
        // Who is just starting one has done so.
        drop(self.catalog.lock().await);
        let jobs: Vec<Arc<Job>> = self.jobs.read().values().cloned().collect();
        let stopped = futures::future::join_all(jobs.iter().map(|job| job.stop())).await;
        let logs: Vec<_> = self.objects.read().streams.values().filter_map(|def| def.log.clone()).collect();
        futures::future::join_all(logs.iter().map(|log| log.close(PATIENCE))).await;
        let settled = self.audit.settle().await;
        let is_alone = self.config.nodes.as_ref().is_none_or(|nodes| !nodes.has_others());
        let is_new = is_alone && self.catalog.lock().await.version == 0;
        if is_new && self.store.root().is_some() {
            self.store.delete_folder(SPILL).await?;
            self.store.delete_folder(CLUSTER).await?;
        }
        self.hold.release(is_new).await;
        if is_new {
            self.made.remove();
        }
        settled?;
        // A job that has failed says so in SHOW JOBS; here only the stop itself counts.
        stopped
            .into_iter()
            .find(|stopped| matches!(stopped, Err(e) if e.kind() == ErrorKind::Internal))
            .unwrap_or(Ok(()))
    }
}

/// The catalog of a store, from which what was dropped has gone. Where it cannot be had, `hold` is given up: that is before there
/// are threads, which cannot be dropped here.
async fn known(store: &Store, hold: &Hold) -> Result<Catalog> {
    let known = async {
        let catalog = Catalog::load(store).await?;
        sweep_dropped(store, &catalog).await?;
        Ok(catalog)
    };
    let known = known.await;
    if known.is_err() {
        hold.release(false).await;
    }
    known
}

impl Drop for Millstream {
    fn drop(&mut self) {
        for threads in self.threads.lock().drain(..) {
            threads.shutdown_background();
        }
    }
}

fn threads(name: &str, n: usize) -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(n.max(1))
        .thread_name(name)
        .thread_stack_size(STACK)
        .enable_all()
        .build()
        .map_err(|e| Error::internal(format!("cannot start threads: {e}")))
}
