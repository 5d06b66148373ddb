//! The jobs of a store: starting, stopping, recovering and flushing them.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use millstream_engine::checkpoint::{Checkpoints, Manifest};
use millstream_engine::connector::lag::Lag;
use millstream_engine::connector::{Sink, Start};
use millstream_engine::graph::NodeKind;
use millstream_engine::runtime::{JobConfig, JobHandle, JobPhase, JobStatus};
use millstream_engine::table::{StreamSource, TableSink, followed, follower};
use millstream_engine::time::EventTime;
use parking_lot::Mutex;

use super::Millstream;
use super::dataflow::every;
use super::entry::statement_of;
use super::outcome::{JobInfo, JobLag, JobState, ObjectKind};
use super::reading::Reading;
use super::tables::StreamDef;
use super::view::ViewDef;
use crate::catalog::{Entry, Maker, schema_of};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::Semantics;
use crate::rights::Principal;
use crate::statement::{CreateStream, CreateView, Name, Statement, quote_name};

/// How long PAUSE waits for a job to commit what it has: large states take their time. Given up sooner, all since the last
/// checkpoint would be read again.
pub(super) const PAUSE_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// The job of a stream.
pub(super) struct Job {
    pub(super) stream: String,
    /// Whether it is about to stop on some nodes, to go on on others.
    pub(super) moves: AtomicBool,
    /// Whether it goes on with the nodes that are left when it has lost one.
    pub(super) goes_on: bool,
    state: Mutex<State>,
}

enum State {
    Running(Arc<JobHandle>),
    Paused,
    Finished(Box<Manifest>),
    /// It could not even be started.
    Broken(String),
}

impl Job {
    fn new(stream: &str, state: State) -> Arc<Self> {
        let (stream, state) = (stream.to_owned(), Mutex::new(state));
        Arc::new(Job { stream, moves: AtomicBool::new(false), goes_on: false, state })
    }

    /// One that runs; it `goes_on` when it has lost a node.
    fn running(stream: &str, handle: Arc<JobHandle>, goes_on: bool) -> Arc<Self> {
        let (stream, state) = (stream.to_owned(), Mutex::new(State::Running(handle)));
        Arc::new(Job { stream, moves: AtomicBool::new(false), goes_on, state })
    }

    /// The running (or ended) job, if it was started in this process.
    pub(super) fn handle(&self) -> Option<Arc<JobHandle>> {
        match &*self.state.lock() {
            State::Running(handle) => Some(handle.clone()),
            _ => None,
        }
    }

    /// Commits and stops.
    pub(super) async fn stop(&self) -> Result<()> {
        match self.handle() {
            Some(handle) => Ok(handle.stop().await?),
            None => Ok(()),
        }
    }

    /// Stops without another commit.
    pub(super) async fn abandon(&self) {
        if let Some(handle) = self.handle() {
            handle.abort();
            handle.wait().await;
        }
    }

    /// The tasks that run.
    pub(super) fn tasks(&self) -> usize {
        match &*self.state.lock() {
            State::Running(handle) if handle.status().phase == JobPhase::Running => handle.tasks(),
            _ => 0,
        }
    }

    /// Why it could not even be started, if that is so.
    pub(super) fn broken(&self) -> Option<String> {
        match &*self.state.lock() {
            State::Broken(why) => Some(why.clone()),
            _ => None,
        }
    }

    pub(super) fn info(&self) -> JobInfo {
        let mut info = JobInfo {
            stream: self.stream.clone(),
            state: JobState::Paused,
            rows_in: None,
            rows_out: None,
            epoch: 0,
            watermark: EventTime::MIN,
            progress: None,
            lag: None,
            error: None,
        };
        let is_between = self.is_between();
        match &*self.state.lock() {
            State::Paused => {}
            State::Finished(manifest) => {
                (info.state, info.epoch) = (JobState::Finished, manifest.epoch);
                (info.watermark, info.progress) = (manifest.watermark, Some(1.0));
                let sum = |rows: &Vec<u64>| (!rows.is_empty()).then(|| rows.iter().sum());
                (info.rows_in, info.rows_out) = (sum(&manifest.rows), sum(&manifest.rows_out));
            }
            State::Broken(why) => (info.state, info.error) = (JobState::Failed, Some(why.clone())),
            State::Running(handle) => {
                let status = handle.status();
                info.state = if is_between { JobState::Running } else { status.phase.into() };
                (info.epoch, info.watermark, info.progress) = (status.epoch, status.watermark, status.share);
                info.error = status.error.map(|(_, message, hint)| with_hint(&message, hint.as_deref()));
                let (mut rows_in, mut rows_out) = (0, 0);
                for (node, figures) in handle.graph().nodes.iter().zip(handle.figures()) {
                    match node.kind {
                        NodeKind::Source(_) => rows_in += figures.rows_out,
                        NodeKind::Sink(_) => rows_out += figures.rows_in,
                        NodeKind::Operator(_) => {}
                    }
                }
                (info.rows_in, info.rows_out) = (Some(rows_in), Some(rows_out));
                let lags = (0..handle.graph().nodes.len()).filter_map(|id| handle.lag(id));
                info.lag = lags.reduce(Lag::with).filter(|_| status.phase == JobPhase::Running).map(JobLag::from);
            }
        }
        info
    }
}

impl Millstream {
    /// The jobs, by stream name.
    pub fn jobs(&self) -> Vec<JobInfo> {
        let trouble = self.store_trouble();
        let info = |job: &Arc<Job>| {
            let info = job.info();
            let waits = trouble.clone().filter(|_| info.state == JobState::Running);
            JobInfo { error: info.error.or(waits), ..info }
        };
        self.jobs.read().values().map(info).collect()
    }

    pub(super) fn job(&self, stream: &str) -> Option<Arc<Job>> {
        self.jobs.read().get(stream).cloned()
    }

    /// Takes an entry of the catalog back into operation. What has to be found out for it is noted in it.
    pub(super) async fn recover(self: &Arc<Self>, entry: &mut Entry) -> Result<()> {
        match statement_of(&entry.sql)? {
            Statement::CreateStream(_) => {
                let (def, create) = self.opened(entry).await?;
                if let Some(log) = &def.log {
                    // Before its job lets go of history.
                    let mut positions = self.positions.lock();
                    positions
                        .extract_if(.., |(stream, ..)| *stream == def.name)
                        .for_each(|(_, reader, rows)| log.follow(&reader, rows));
                }
                self.objects.write().streams.insert(entry.name.clone(), def.clone());
                if def.kind == ObjectKind::External {
                    return Ok(());
                }
                // What it has committed can be read from here on, whatever becomes of its job.
                let job = if entry.paused || !self.config().start_jobs {
                    self.load_result(&def, &entry.job).await?;
                    Job::new(&def.name, State::Paused)
                } else {
                    self.start_job(&def, &create, entry).await?
                };
                self.jobs.write().insert(entry.name.clone(), job);
            }
            Statement::CreateView(create) => self.open_view(entry, create)?,
            _ => return Err(Error::internal("an entry of the catalog creates nothing")),
        }
        Ok(())
    }

    /// The stream of `entry`, as which nothing runs, and its statement.
    pub(super) async fn opened(self: &Arc<Self>, entry: &mut Entry) -> Result<(Arc<StreamDef>, CreateStream)> {
        let Statement::CreateStream(mut create) = statement_of(&entry.sql)? else {
            return Err(Error::internal(format!("\"{}\" is no stream", entry.name)));
        };
        let resolved = self.resolved(entry, &mut create).await?;
        let mut def = self.define(&create, entry.sql.clone(), entry.parallelism, &resolved, &entry.maker)?;
        def.reads = entry.reads.clone();
        Ok((Arc::new(def), *create))
    }

    /// Makes the view of `entry`, which says `create`, known to who reads it.
    pub(super) fn open_view(self: &Arc<Self>, entry: &mut Entry, create: CreateView) -> Result<()> {
        let view = match entry.resolved.clone() {
            Some(known) => {
                let schema = schema_of(&known.columns)?;
                let (sql, semantics, reads) = (entry.sql.clone(), known.semantics, entry.reads.clone());
                ViewDef { sql, create, schema, semantics, reads, maker: entry.maker.clone() }
            }
            None => {
                let (sql, reading) = (entry.sql.clone(), Reading::of_job());
                self.view(create, sql, Semantics::FIRST, entry.maker.clone(), &reading)?
            }
        };
        entry.resolved = Some(view.resolved()?);
        self.objects.write().views.insert(entry.name.clone(), Arc::new(view));
        Ok(())
    }

    /// Notes how far the readers of streams have got: what they need is not to go while they are not running.
    pub(super) async fn find_positions(&self, entries: &[Entry]) {
        let mut found = vec![];
        for entry in entries.iter().filter(|e| e.has_job()) {
            // One that cannot be read is told when its stream is taken into operation.
            let Ok(Some(manifest)) = Checkpoints::new(self.store().clone(), &entry.job).last().await else { continue };
            for (place, stream) in followed(&manifest.source_states) {
                let rows = manifest.sources.get(place).map_or(0, |read| StreamSource::rows_read(&read.offsets()));
                if rows > 0 {
                    found.push((stream, follower(&entry.name, place), rows));
                }
            }
        }
        *self.positions.lock() = found;
    }

    /// Notes a stream that could not be recovered.
    pub(super) fn add_broken(&self, entry: &Entry, why: &Error) {
        let job = Job::new(&entry.name, State::Broken(with_hint(why.message(), why.hint())));
        self.jobs.write().insert(entry.name.clone(), job);
    }

    /// What a view defines.
    pub(super) fn view(
        self: &Arc<Self>,
        create: CreateView,
        sql: String,
        semantics: Semantics,
        maker: Maker,
        reading: &Reading,
    ) -> Result<ViewDef> {
        let state = crate::plan::session_state_of(semantics);
        let what = format!("view \"{}\"", create.name.name);
        let plan = crate::plan::named_plan(&state, self.noting_resolver(reading), &create.query, &what)?;
        let reads = reading.names();
        let schema: SchemaRef = Arc::new(plan.schema().as_arrow().clone());
        Ok(ViewDef { sql, create, schema, semantics, reads, maker })
    }

    /// Makes the committed result of a job that does not run readable, and removes nothing that an owner of the job may
    /// still need.
    async fn load_result(&self, def: &StreamDef, job: &str) -> Result<()> {
        match Checkpoints::new(self.store().clone(), job).last().await? {
            Some(last) => self.show_result(def, job, &last).await,
            None => Ok(()),
        }
    }

    /// The same, where `manifest` is the last one.
    async fn show_result(&self, def: &StreamDef, job: &str, manifest: &Manifest) -> Result<()> {
        let Some(log) = &def.log else { return Ok(()) };
        let sink = TableSink::new(log.clone(), job, def.key.clone());
        let committed = manifest.staged.values().next().map_or(&[][..], |s| s);
        // Nothing can follow the end.
        let generation = if manifest.end { u64::MAX } else { 0 };
        let state = manifest.sinks.values().next();
        Ok(sink.start(Start { state, ..Start::new(committed, generation) }).await?)
    }

    /// Starts the job of `def` where it stopped.
    pub(super) async fn start_job(
        self: &Arc<Self>,
        def: &Arc<StreamDef>,
        create: &CreateStream,
        entry: &Entry,
    ) -> Result<Arc<Job>> {
        let checkpoints = Checkpoints::new(self.store().clone(), &entry.job);
        if let Some(manifest) = checkpoints.last().await?.filter(|m| m.end) {
            self.show_result(def, &entry.job, &manifest).await?;
            return Ok(Job::new(&def.name, State::Finished(Box::new(manifest))));
        }
        let launched = self.launch_job(def, create, entry, checkpoints).await;
        if launched.is_err() {
            // What it has committed can be read all the same.
            self.load_result(def, &entry.job).await?;
        }
        launched
    }

    async fn launch_job(
        self: &Arc<Self>,
        def: &Arc<StreamDef>,
        create: &CreateStream,
        entry: &Entry,
        checkpoints: Checkpoints,
    ) -> Result<Arc<Job>> {
        let reader = format!("stream \"{}\"", def.name);
        self.refuse_second_stdin(&reader, &def.reads)?;
        let handle = loop {
            let parallelism = self.width(entry.parallelism);
            let (graph, own) = self.dataflow(def, create, &entry.job, parallelism, &Reading::of_job())?;
            let mut config = JobConfig::new(&def.name);
            config.checkpoint_interval = own.checkpoint_interval.unwrap_or(self.config().checkpoint_interval);
            config.every = every(create.emit());
            config.eager = def.ingest.is_some();
            (config.on_error, config.dead_letters) = (own.on_error, own.dead_letters);
            config.placement = self.placement(def, entry, parallelism)?;
            let seats = config.placement.seats.clone();
            match self.runtime().start(graph, config, Some(checkpoints.clone())).await {
                Ok(handle) => break Arc::new(handle),
                // It goes without it.
                Err(e) if self.note_lost(&e, &seats) => {
                    tracing::warn!(stream = %def.name, error = %e, "a job starts on other nodes");
                }
                Err(e) => return Err(e.into()),
            }
        };
        self.note_stdin(&reader, &def.reads, &handle);
        let (watched, name, weak, began) = (handle.clone(), def.name.clone(), Arc::downgrade(self), Instant::now());
        self.runtime().io.spawn(async move {
            let ended = watched.wait().await;
            let Some(millstream) = weak.upgrade() else { return };
            match ended {
                JobStatus { lost_node: Some(address), .. } => {
                    millstream.go_on_without(name, watched, address, began).await
                }
                JobStatus { error: Some((_, message, hint)), .. } => {
                    millstream.tell_failure(name, &message, hint.as_deref())
                }
                _ => {}
            }
        });
        Ok(Job::running(&def.name, handle, self.config().nodes.is_some()))
    }

    /// Tells who listens that the job of `stream` has failed.
    pub(super) fn tell_failure(&self, stream: String, message: &str, hint: Option<&str>) {
        // Nobody may be listening.
        let _ = self.failures.send((stream, with_hint(message, hint)));
    }

    /// `PAUSE STREAM`.
    pub(super) async fn pause(self: Arc<Self>, name: String) -> Result<bool> {
        let mut catalog = loop {
            // While the job stops, which may take long, others may go on.
            let job = {
                let _settled = self.catalog_for(|_| vec![name.clone()]).await;
                let def = self.stream(&name)?;
                self.job(&name).ok_or_else(|| no_job(&def))?
            };
            if matches!(job.info().state, JobState::Paused | JobState::Finished) {
                return Ok(false);
            }
            // A failed job is paused too: its error is known, and it will not be tried at the next start.
            job.stop_within(PAUSE_TIMEOUT).await;
            let catalog = self.catalog_for(|_| vec![name.clone()]).await;
            match self.job(&name) {
                Some(now) if Arc::ptr_eq(&now, &job) => break catalog,
                // It has moved to other nodes meanwhile.
                Some(_) if job.is_between() && catalog.get(&name).is_some_and(|entry| !entry.paused) => {}
                // Meanwhile somebody else has done something with it, which came after this.
                _ => return Ok(true),
            }
        };
        for e in catalog.entries.iter_mut().filter(|e| e.name == name) {
            e.paused = true;
        }
        catalog.save(self.store()).await?;
        self.jobs.write().insert(name.clone(), Job::new(&name, State::Paused));
        Ok(true)
    }

    /// `RESUME STREAM`: also tries a failed one again.
    pub(super) async fn resume(self: Arc<Self>, name: String) -> Result<bool> {
        let mut catalog = self.catalog_for(|_| vec![name.clone()]).await;
        let name = name.as_str();
        let known = self.job(name);
        let state = known.as_ref().map(|j| j.info().state);
        if matches!(state, Some(JobState::Running | JobState::Finished)) {
            return Ok(false);
        }
        let entry = catalog.get(name).cloned().ok_or_else(|| self.missing("stream ", name))?;
        if known.is_none() {
            return Err(no_job(&*self.stream(name)?));
        }
        let mut entry = Entry { paused: false, ..entry };
        let def = self.objects.read().streams.get(name).cloned();
        match (def, statement_of(&entry.sql)?) {
            // The same log goes on, so that those who follow it stay with it.
            (Some(def), Statement::CreateStream(create)) => {
                let started = self.start_job(&def, &create, &entry).await.inspect_err(|e| {
                    // What it would go on from is not there: it has failed, and may be replaced by the same.
                    if e.kind() == ErrorKind::Data {
                        self.add_broken(&entry, e);
                    }
                });
                self.jobs.write().insert(name.to_owned(), started?);
            }
            _ => self.recover(&mut entry).await?,
        }
        for e in catalog.entries.iter_mut().filter(|e| e.name == name) {
            *e = entry.clone();
        }
        catalog.save(self.store()).await?;
        Ok(true)
    }

    /// Those that `who` may see.
    pub(super) fn dead_letters(&self, who: &Principal) -> Arc<dyn datafusion::catalog::TableProvider> {
        Arc::new(super::dead_letters::DeadLetters::new(self.store().clone(), who.clone(), self.access.subscribe()))
    }
}

/// `message` with its hint, in a line.
pub(super) fn with_hint(message: &str, hint: Option<&str>) -> String {
    match hint {
        Some(hint) => format!("{message} ({hint})"),
        None => message.to_owned(),
    }
}

pub(super) fn failed(stream: &str, why: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("stream \"{stream}\" has failed: {why}"))
        .with_hint(format!("Mend the cause, then RESUME STREAM {}.", quote_name(stream)))
}

pub(super) fn no_job(def: &StreamDef) -> Error {
    Error::invalid(format!("stream \"{}\" is read from a connector and has no job of its own", def.name))
        .with_hint("Name a stream derived from it: SHOW STREAMS lists them.")
}

pub(super) fn not_stored(def: &StreamDef) -> Error {
    let what = match def.kind {
        ObjectKind::Derived => "is the result of a query",
        ObjectKind::External => "is read from a connector",
        _ => "is written to a connector",
    };
    Error::invalid(format!("stream \"{}\" {what} and takes no rows", def.name))
        .with_hint("Rows go into stored streams: CREATE STREAM name (column TYPE, …).")
}

/// The name of a stream or view in schema `public`.
pub(super) fn public(name: &Name) -> Result<&str> {
    match &name.schema {
        None => Ok(&name.name),
        Some(schema) => Err(Error::invalid(format!("schema \"{schema}\" cannot be written"))
            .with_hint("Leave the schema out: streams live in schema public.")),
    }
}
