//! Running a case with a seed.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use millstream_engine::ErrorKind;
use millstream_engine::checkpoint::Checkpoints;
use millstream_engine::connector::{Sink, Start};
use millstream_engine::graph::{Graph, NodeKind};
use millstream_engine::memory::MemoryBudget;
use millstream_engine::operator::aggregate::EmitMode;
use millstream_engine::runtime::{JobConfig, JobHandle, JobPhase, Network, Placement, Runtime, Seat};
use millstream_engine::store::Store;
use millstream_engine::testing::Faulty;
use millstream_flight::Compression;
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
use crate::late::Closing;
use crate::nodes::{self, Other, Recipe};
use crate::planned::plan;
use crate::sink::Collector;
use crate::watch::Watchdog;
use crate::world::{Content, World};

/// The memory of a node.
const BUDGET: usize = 1 << 30;

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
    /// On how many nodes it runs, of which one is killed and replaced; the seed says it where nothing else does.
    pub nodes: Option<usize>,
}

impl Trial {
    /// The query must say what it says in batch.
    pub fn new(query: &Query, seed: u64) -> Self {
        let expected = Expected { query: query.clone(), poisoned: false, closings: vec![] };
        Trial { query: query.clone(), seed, expected, nodes: None }
    }

    /// It runs on `nodes` nodes, of which one is killed and replaced.
    pub fn on(mut self, nodes: usize) -> Self {
        self.nodes = Some(nodes);
        self
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
    /// How often the job failed because a node was killed.
    pub lost: usize,
}

/// What a seed decides of a run.
struct Setup {
    rng: StdRng,
    recipe: Arc<Recipe>,
    grouped: bool,
    kills: usize,
    /// How many nodes there are besides this one; drawn for each attempt where nothing is said.
    others: Option<usize>,
    lost: usize,
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
    // What is read in groups is read on one node.
    let grouped = rng.random_bool(if trial.nodes.is_some() { 0.2 } else { 0.7 }) || changes || late;
    let kills = rng.random_range(0..=2).max(usize::from(trial.nodes.is_some()));
    let mut checker = Checker::new(&world, trial.expected.clone());
    let recipe = Recipe { world, query: trial.query.clone(), emit, sink: Collector::default(), store };
    let others = trial.nodes.map(|nodes| nodes - 1);
    let mut setup = Setup { rng, recipe: Arc::new(recipe), grouped, kills, others, lost: 0 };
    loop {
        let threads = setup.rng.random_range(1..=2);
        let runtime = match threads {
            1 => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            n => tokio::runtime::Builder::new_multi_thread().worker_threads(n).enable_all().build()?,
        };
        if let Some(checked) = runtime.block_on(attempt(&mut setup, &mut checker))? {
            return Ok(checked);
        }
    }
}

/// Runs the job until it ends, and compares, or until it is killed.
async fn attempt(setup: &mut Setup, checker: &mut Checker) -> Result<Option<Checked>> {
    let recipe = setup.recipe.clone();
    let (parallelism, single) = (setup.rng.random_range(1..=4), setup.rng.random_bool(0.3));
    // Where there are to be several nodes, one of two tasks at least is on another.
    let parallelism = parallelism.max(setup.others.map_or(1, |others| others + 1));
    let schema = plan(&recipe.world, &recipe.query, recipe.emit, parallelism)?.1;
    let lowered = recipe.graph(parallelism, single)?;
    let checkpoints = Checkpoints::new(recipe.store.clone(), "job");
    let last = checkpoints.last().await?;
    let start = last.as_ref().map_or(0, |m| m.epoch);
    recipe.sink.kept.lock().published.retain(|epoch, _| *epoch <= start);
    for stream in recipe.world.streams.values() {
        let mut run = stream.input.run.lock();
        (run.grouped, run.seed) = (setup.grouped, setup.rng.random());
    }
    checker.begin(&recipe.world, &last);
    if let Some(m) = &last {
        let read = serde_json::to_string(&m.sources)?;
        checker.history.push(format!("restored checkpoint {} of epoch {}, read {read}", m.checkpoint, m.epoch));
    }
    if let Some(m) = last.filter(|m| m.end) {
        // A result that is complete is not computed again: what was committed is shown.
        let staged = m.staged.values().next().map_or(&[][..], |staged| staged);
        recipe.sink.start(Start { state: m.sinks.values().next(), ..Start::new(staged, u64::MAX) }).await?;
    } else if !run(setup, lowered.graph, (parallelism, single), (checkpoints, start), checker).await? {
        return Ok(None);
    }
    let closes = lowered.output.emit == EmitMode::OnClose;
    let found = checker.compare(&recipe.world, &recipe.sink, setup.grouped, schema, closes).await;
    let manifest = Checkpoints::new(recipe.store.clone(), "job").last().await?.ok_or("a job without a checkpoint")?;
    let found = found.and_then(|found| checker.lateness(&recipe.world, &recipe.sink, manifest.late).map(|()| found));
    let (content, answer) =
        found.map_err(|e| format!("in groups {}: {e}\n  {}", setup.grouped, checker.history.join("\n  ")))?;
    Ok(Some(Checked { closes, content, answer, lost: setup.lost }))
}

/// Runs `graph` from epoch `start` on to its end, or until the job or a node is killed. Says whether it ended.
async fn run(
    setup: &mut Setup,
    graph: Graph,
    (parallelism, single): (usize, bool),
    (checkpoints, start): (Checkpoints, u64),
    checker: &mut Checker,
) -> Result<bool> {
    let mut config = config(&mut setup.rng, setup.recipe.emit);
    let (runtime, mut others) = nodes(setup, &mut config.placement).await?;
    config.placement.description = serde_json::json!([parallelism, single]);
    checker.history.push(format!("run with parallelism {parallelism} on {} nodes", others.len() + 1));
    let job = runtime.start(graph, config, Some(checkpoints)).await?;
    if setup.kills > 0 {
        setup.kills -= 1;
        let kills_node = !others.is_empty() && (setup.others.is_some() || setup.rng.random_bool(0.5));
        if kill(&job, start, &mut setup.rng).await? {
            if !kills_node {
                job.abort();
                return Ok(false);
            }
            let victim = setup.rng.random_range(0..others.len());
            checker.history.push(format!("node {victim} is killed"));
            others[victim].kill();
            if lost(&job, &others[victim].address).await? {
                setup.lost += 1;
                return Ok(false);
            }
        }
    }
    let status = ended(&job).await?;
    job.failure()?;
    if status != JobPhase::Finished {
        return Err(format!("the job ended {status:?}").into());
    }
    Ok(true)
}

/// This node, and as many others as the seed or the trial wants; `placement` has tasks on all of them.
async fn nodes(setup: &mut Setup, placement: &mut Placement) -> Result<(Runtime, Vec<Other>)> {
    let drawn = if setup.rng.random_bool(0.3) { setup.rng.random_range(1..=2) } else { 0 };
    let (here, mut others) = (Handle::current(), vec![]);
    let wanted = setup.others.unwrap_or(drawn);
    if wanted == 0 {
        return Ok((Runtime::new(here.clone(), here, MemoryBudget::new(BUDGET)), others));
    }
    let compression = if setup.rng.random_bool(0.2) { Compression::Lz4 } else { Compression::None };
    let (runtime, network) = nodes::begin(&here, compression, BUDGET, setup.recipe.clone()).await?;
    for _ in 0..wanted {
        others.push(Other::start(compression, BUDGET, setup.recipe.clone()).await?);
    }
    placement.seats = others.iter().map(Other::seat).collect();
    let home = Seat { address: network.address().to_owned(), cores: 1 };
    placement.seats.insert(setup.rng.random_range(0..=wanted), home);
    Ok((runtime, others))
}

/// The node at `address` has been killed: waits until the job has ended, and says whether it failed for that.
async fn lost(job: &JobHandle, address: &str) -> Result<bool> {
    match (ended(job).await?, job.failure()) {
        (JobPhase::Failed, Err(e)) if e.kind() == ErrorKind::Unavailable && e.message().contains(address) => Ok(true),
        // A runtime that is dropped may still say what a process that is killed cannot.
        (JobPhase::Failed, Err(e)) if e.message().ends_with("was cancelled") => Ok(true),
        // It had no task of the job any more.
        (JobPhase::Finished, Ok(())) => Ok(false),
        (phase, failure) => Err(format!("node {address} was killed: {phase:?}, {failure:?}").into()),
    }
}

/// Waits until the job has ended.
async fn ended(job: &JobHandle) -> Result<JobPhase> {
    let waited = tokio::time::timeout(LONGEST, job.wait()).await;
    Ok(waited.map_err(|_| format!("the job hangs: {:?}", job.status()))?.phase)
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
