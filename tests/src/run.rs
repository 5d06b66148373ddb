//! Running a case with a seed.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millstream_engine::checkpoint::Checkpoints;
use millstream_engine::connector::{Sink, Start};
use millstream_engine::graph::{Graph, NodeKind, SinkNode};
use millstream_engine::memory::MemoryBudget;
use millstream_engine::operator::aggregate::EmitMode;
use millstream_engine::runtime::{JobConfig, JobHandle, JobPhase, Runtime};
use millstream_engine::store::Store;
use millstream_engine::testing::Faulty;
use millstream_sql::plan::lower::{Lowered, finish, lower};
use millstream_sql::plan::{query_plan, session_state, streaming_plan};
use millstream_sql::statement::{Emit, Query};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::Handle;

use crate::Result;
use crate::case::Case;
use crate::compare::{Checker, Expected};
use crate::duck::Duck;
use crate::elsewhere;
use crate::late::Closing;
use crate::sink::Collector;
use crate::watch::Watchdog;
use crate::world::{Content, World};

/// No case takes this long.
const LONGEST: Duration = Duration::from_secs(20);

/// A query to be run with a seed, and what must come out.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What is run.
    pub query: Query,
    /// What decides all that is random.
    pub seed: u64,
    /// What comes out.
    pub expected: Expected,
}

impl Trial {
    /// The query must say what it says in batch.
    pub fn new(query: &Query, seed: u64) -> Self {
        let expected = Expected { query: query.clone(), poisoned: false, closings: vec![] };
        Trial { query: query.clone(), seed, expected }
    }

    /// The rows whose `p` is 0 do not count.
    pub fn poisoned(mut self) -> Self {
        self.expected.poisoned = true;
        self
    }

    /// What comes out is what `query` says in batch.
    pub fn expecting(mut self, query: &Query) -> Self {
        self.expected.query = query.clone();
        self
    }

    /// The rows of stream `tardy` may be late for windows.
    pub fn closing(mut self, closings: &[Closing]) -> Self {
        self.expected.closings = closings.to_vec();
        self
    }
}

/// A number from the environment.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok())
}

/// The seeds of each case: one that is asked for, or some.
pub fn seeds(usual: u64) -> Vec<u64> {
    match number("MILLSTREAM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("MILLSTREAM_ROUNDS").unwrap_or(usual)).collect(),
    }
}

/// Checks `cases` with a number of seeds each, and their batch answers with DuckDB's; gives all failures, or
/// nothing.
pub fn check(cases: &[Case]) -> Result<()> {
    let dog = Watchdog::start();
    let mut duck = Duck::start()?;
    let mut failures = Failures::default();
    'all: for case in cases {
        for seed in seeds(4) {
            dog.step(format!("# {}\n  MILLSTREAM_SEED={seed}", case.name));
            if let Err(e) = check_emits(&Trial::new(&case.query, seed), &mut duck) {
                if !failures.add(&format!("# {}\n  MILLSTREAM_SEED={seed} fails: {e}", case.name)) {
                    break 'all;
                }
                break;
            }
        }
    }
    failures.told(cases.len())?;
    println!("{}", duck.report()?);
    Ok(())
}

/// The same for queries that DuckDB is not asked for; those without EMIT run with EMIT CHANGES as well.
pub fn check_alone(cases: &[Case]) -> Result<()> {
    let dog = Watchdog::start();
    let mut failures = Failures::default();
    for case in cases {
        for seed in seeds(6) {
            dog.step(format!("# {}\n  MILLSTREAM_SEED={seed}", case.name));
            let trial = Trial::new(&case.query, seed);
            let both = check_one(&trial, case.query.emit).and_then(|first| match case.query.emit {
                None if first.closes => check_one(&trial, Some(Emit::Changes)).map(|_| ()),
                _ => Ok(()),
            });
            if let Err(e) = both {
                failures.add(&format!("# {}\n  MILLSTREAM_SEED={seed} fails: {e}", case.name));
                break;
            }
        }
    }
    failures.told(cases.len())
}

/// What has failed.
#[derive(Debug, Default)]
pub struct Failures(usize);

impl Failures {
    /// After so many a test has been told enough: where all hang, it would be ended from outside.
    const MOST: usize = 8;

    /// Prints a failure, at once and past the capture of output, as the test may be ended before it is over. Says
    /// whether to go on.
    pub fn add(&mut self, failure: &str) -> bool {
        // Where it cannot be printed it still counts.
        let _ = writeln!(std::io::stderr(), "{failure}\n");
        self.0 += 1;
        self.0 < Self::MOST
    }

    /// An error where anything has failed of `of` cases.
    pub fn told(self, of: usize) -> Result<()> {
        match self.0 {
            0 => Ok(()),
            n => Err(format!("{n} of {of} cases fail, see above").into()),
        }
    }
}

/// Runs a trial with the EMIT that it has, and once more with EMIT CHANGES where that is another thing; compares the
/// batch answer with DuckDB's.
pub fn check_emits(trial: &Trial, duck: &mut Duck) -> Result<()> {
    let emit = trial.query.emit;
    let first = check_one(trial, emit)?;
    duck.check(&trial.expected.query, &first.content, &first.answer)?;
    if emit.is_none() && first.closes {
        check_one(trial, Some(Emit::Changes)).map_err(|e| format!("EMIT CHANGES: {e}"))?;
    }
    Ok(())
}

/// A run that said what it should.
#[derive(Debug)]
pub struct Checked {
    /// Whether results were said as they closed: with EMIT CHANGES the query is another one.
    pub closes: bool,
    /// All rows that count.
    pub content: Content,
    /// The batch answer over them.
    pub answer: Vec<RecordBatch>,
}

/// What a seed decides of a run.
struct Setup {
    rng: StdRng,
    world: World,
    store: Store,
    sink: Collector,
    grouped: bool,
    kills: usize,
}

/// Runs a query to its end, through kills and restores, and compares.
pub fn check_one(trial: &Trial, emit: Option<Emit>) -> Result<Checked> {
    let mut rng = StdRng::seed_from_u64(trial.seed);
    let world = World::of(trial.seed)?;
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    // Some have a store that fails now and then.
    let store = match trial.seed % 4 {
        3 => Store::over(Arc::new(Faulty::new(objects, trial.seed, 2))),
        _ => Store::over(objects),
    };
    let changes = plan(&world, &trial.query, emit, 1)?.0.graph.nodes.iter().any(|n| match &n.kind {
        NodeKind::Source(s) => world.streams.get(&s.stream).is_some_and(|s| s.is_changing()),
        _ => false,
    });
    let late = !trial.expected.closings.is_empty();
    let grouped = rng.random_bool(0.7) || changes || late;
    let kills = rng.random_range(0..=2);
    let mut setup = Setup { rng, world, store, sink: Collector::default(), grouped, kills };
    let mut checker = Checker::new(&setup.world, trial.expected.clone());
    loop {
        let threads = setup.rng.random_range(1..=2);
        let runtime = match threads {
            1 => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            n => tokio::runtime::Builder::new_multi_thread().worker_threads(n).enable_all().build()?,
        };
        let second = setup.rng.random_bool(0.3);
        let one = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let other = second.then(one).transpose()?;
        let elsewhere = other.as_ref().map(|o| o.handle());
        let ended = runtime.block_on(attempt(&mut setup, &trial.query, emit, elsewhere, &mut checker))?;
        drop((runtime, other));
        if let Some(checked) = ended {
            return Ok(checked);
        }
    }
}

/// Plans `query` over the streams of `world`; gives the dataflow and its result's schema.
pub fn plan(
    world: &World,
    query: &Query,
    emit: Option<Emit>,
    parallelism: usize,
) -> millstream_sql::Result<(Lowered, SchemaRef)> {
    let state = session_state();
    let plan = query_plan(&state, world.resolver(), &query.query)?;
    let plan = streaming_plan(&state, plan)?;
    Ok((lower(&state, &plan, emit, parallelism)?, Arc::new(plan.schema().as_arrow().clone())))
}

/// Runs the job until it ends, and compares, or until it is killed.
async fn attempt(
    setup: &mut Setup,
    query: &Query,
    emit: Option<Emit>,
    elsewhere: Option<&Handle>,
    checker: &mut Checker,
) -> Result<Option<Checked>> {
    let parallelism = setup.rng.random_range(1..=4);
    let (mut lowered, schema) = plan(&setup.world, query, emit, parallelism)?;
    let sink = SinkNode { name: "result".to_owned(), sink: Arc::new(setup.sink.clone()) };
    finish(&mut lowered, sink, setup.rng.random_bool(0.3));
    let checkpoints = Checkpoints::new(setup.store.clone(), "job");
    let last = checkpoints.last().await?;
    let start = last.as_ref().map_or(0, |m| m.epoch);
    setup.sink.kept.lock().published.retain(|epoch, _| *epoch <= start);
    for stream in setup.world.streams.values() {
        let mut run = stream.input.run.lock();
        (run.grouped, run.seed) = (setup.grouped, setup.rng.random());
    }
    checker.begin(&setup.world, &last);
    if let Some(m) = &last {
        let read = serde_json::to_string(&m.sources)?;
        checker.history.push(format!("restored checkpoint {} of epoch {}, read {read}", m.checkpoint, m.epoch));
    }
    if let Some(m) = last.filter(|m| m.end) {
        // A result that is complete is not computed again: what was committed is shown.
        let staged = m.staged.values().next().map_or(&[][..], |staged| staged);
        setup.sink.start(Start { state: m.sinks.values().next(), ..Start::new(staged, u64::MAX) }).await?;
    } else if !run(setup, lowered.graph, emit, (parallelism, elsewhere), (checkpoints, start), checker).await? {
        return Ok(None);
    }
    let closes = lowered.output.emit == EmitMode::OnClose;
    let found = checker.compare(&setup.world, &setup.sink, setup.grouped, schema, closes).await;
    let manifest = Checkpoints::new(setup.store.clone(), "job").last().await?.ok_or("a job without a checkpoint")?;
    let found = found.and_then(|found| checker.lateness(&setup.world, &setup.sink, manifest.late).map(|()| found));
    let (content, answer) =
        found.map_err(|e| format!("in groups {}: {e}\n  {}", setup.grouped, checker.history.join("\n  ")))?;
    Ok(Some(Checked { closes, content, answer }))
}

/// Runs `graph` from epoch `start` on to its end, or until it is killed. Says whether it ended.
async fn run(
    setup: &mut Setup,
    graph: Graph,
    emit: Option<Emit>,
    (parallelism, elsewhere): (usize, Option<&Handle>),
    (checkpoints, start): (Checkpoints, u64),
    checker: &mut Checker,
) -> Result<bool> {
    let place = if elsewhere.is_some() { ", half of it elsewhere" } else { "" };
    checker.history.push(format!("run with parallelism {parallelism}{place}"));
    let config = config(&mut setup.rng, emit);
    let (here, budget) = (Handle::current(), MemoryBudget::new(1 << 30));
    let runtime = match elsewhere {
        Some(other) => elsewhere::runtime(&here, other, budget),
        None => Runtime::new(here.clone(), here, budget),
    };
    let job = runtime.start(graph, config, Some(checkpoints)).await?;
    if setup.kills > 0 {
        setup.kills -= 1;
        if kill(&job, start, &mut setup.rng).await? {
            job.abort();
            return Ok(false);
        }
    }
    let waited = tokio::time::timeout(LONGEST, job.wait()).await;
    let status = waited.map_err(|_| format!("parallelism {parallelism}: the job hangs: {:?}", job.status()))?;
    job.failure()?;
    if status.phase != JobPhase::Finished {
        return Err(format!("the job ended {:?}", status.phase).into());
    }
    Ok(true)
}

fn config(rng: &mut StdRng, emit: Option<Emit>) -> JobConfig {
    let mut config = JobConfig::new("job");
    let most = rng.random_range(0..3);
    (config.min_epoch, config.max_epoch) = (Duration::ZERO, Duration::from_millis(most));
    config.every = matches!(emit, Some(Emit::Every(_))).then_some(Duration::from_millis(1));
    config.checkpoint_interval = Duration::from_millis(rng.random_range(0..4));
    config.edge_bytes = if rng.random_bool(0.3) { 64 } else { 1 << 20 };
    config
}

/// Waits some epochs and a moment; says whether the job still runs.
async fn kill(job: &JobHandle, start: u64, rng: &mut StdRng) -> Result<bool> {
    let until = start + rng.random_range(0..20);
    let mut watch = job.watch();
    let waited = watch.wait_for(|s| s.epoch >= until || s.phase != JobPhase::Running);
    tokio::time::timeout(LONGEST, waited).await.map_err(|_| format!("the job hangs: {:?}", job.status()))??;
    for _ in 0..rng.random_range(0..30) {
        tokio::task::yield_now().await;
    }
    Ok(job.status().phase == JobPhase::Running)
}
