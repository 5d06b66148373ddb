//! Running a case with a seed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit, TimestampMicrosecondType};
use millstream_engine::checkpoint::{Checkpoints, Manifest};
use millstream_engine::graph::SinkNode;
use millstream_engine::memory::MemoryBudget;
use millstream_engine::operator::aggregate::EmitMode;
use millstream_engine::runtime::{JobConfig, JobHandle, JobPhase, Runtime};
use millstream_engine::store::Store;
use millstream_engine::time::EventTime;
use millstream_sql::plan::lower::{Lowered, finish, lower};
use millstream_sql::plan::{query_plan, session_state, streaming_plan};
use millstream_sql::statement::{Emit, Query};
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::Result;
use crate::case::Case;
use crate::oracle::{Multiset, batch, equal};
use crate::sink::Collector;
use crate::world::World;

/// No case takes this long.
const LONGEST: Duration = Duration::from_secs(20);

/// Checks `cases` with a number of seeds each; gives all failures, or nothing.
pub fn check(cases: &[Case]) -> Result<()> {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let seeds: Vec<u64> = match number("MILLSTREAM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("MILLSTREAM_ROUNDS").unwrap_or(4)).collect(),
    };
    let mut failures = vec![];
    for case in cases {
        'case: for seed in &seeds {
            for emit in [case.query.emit, Some(Emit::Changes)] {
                match check_one(&case.query, emit, *seed) {
                    Ok(Checked::AsIs) => {}
                    Ok(Checked::Final) if case.query.emit.is_none() => continue,
                    Ok(Checked::Final) => {}
                    Err(e) => {
                        let by = emit.map(|e| format!(" EMIT {e:?}")).unwrap_or_default();
                        failures.push(format!("# {}{by}\n  MILLSTREAM_SEED={seed} fails: {e}", case.name));
                        break 'case;
                    }
                }
                break;
            }
        }
    }
    match failures.is_empty() {
        true => Ok(()),
        false => Err(format!("{} of {} cases fail\n{}", failures.len(), cases.len(), failures.join("\n")).into()),
    }
}

/// How a result was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// After every epoch.
    AsIs,
    /// As it closed: with EMIT CHANGES the query is another one.
    Final,
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

/// Runs `query` to its end, through kills and restores, and compares.
pub fn check_one(query: &Query, emit: Option<Emit>, seed: u64) -> Result<Checked> {
    let mut rng = StdRng::seed_from_u64(seed);
    let world = World::of(seed)?;
    let store = Store::over(Arc::new(InMemory::new()));
    let changes = plan(&world, query, emit, 1)?.0.graph.nodes.iter().any(|n| match &n.kind {
        millstream_engine::graph::NodeKind::Source(s) => world.streams.get(&s.stream).is_some_and(|s| s.is_changing()),
        _ => false,
    });
    let grouped = changes || rng.random_bool(0.7);
    let kills = rng.random_range(0..=2);
    let mut setup = Setup { rng, world, store, sink: Collector::default(), grouped, kills };
    let mut checker = Checker::new(query.clone());
    loop {
        let threads = setup.rng.random_range(1..=2);
        let runtime = match threads {
            1 => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            n => tokio::runtime::Builder::new_multi_thread().worker_threads(n).enable_all().build()?,
        };
        let ended = runtime.block_on(attempt(&mut setup, query, emit, &mut checker))?;
        drop(runtime);
        if ended {
            return checker.mode();
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

/// Runs the job until it ends or is killed; says whether it has ended.
async fn attempt(setup: &mut Setup, query: &Query, emit: Option<Emit>, checker: &mut Checker) -> Result<bool> {
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
    checker.history.push(format!("run with parallelism {parallelism}"));
    let mut config = JobConfig::new("job");
    let most = setup.rng.random_range(0..3);
    (config.min_epoch, config.max_epoch) = (Duration::ZERO, Duration::from_millis(most));
    config.every = matches!(emit, Some(Emit::Every(_))).then_some(Duration::from_millis(1));
    config.checkpoint_interval = Duration::from_millis(setup.rng.random_range(0..4));
    config.edge_bytes = if setup.rng.random_bool(0.3) { 64 } else { 1 << 20 };
    let handle = tokio::runtime::Handle::current();
    let runtime = Runtime { cpu: handle.clone(), io: handle, budget: MemoryBudget::new(1 << 30) };
    let job = runtime.start(lowered.graph, config, Some(checkpoints)).await?;
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
    let closes = lowered.emit == EmitMode::OnClose;
    let found = checker.compare(setup, schema, closes).await;
    found.map_err(|e| format!("in groups {}: {e}\n  {}", setup.grouped, checker.history.join("\n  ")))?;
    Ok(true)
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

/// Knows what every epoch accepted, through restarts.
struct Checker {
    query: Query,
    /// The ends of each stream's splits by epoch, of epochs that are in a checkpoint.
    accepted: BTreeMap<u64, BTreeMap<String, Vec<u64>>>,
    start: u64,
    closes: Option<bool>,
    /// What was run, for the report of a failure.
    history: Vec<String>,
}

type Ends = BTreeMap<String, Vec<u64>>;

impl Checker {
    fn new(query: Query) -> Self {
        Checker { query, accepted: BTreeMap::new(), start: 0, closes: None, history: vec![] }
    }

    /// A run begins after checkpoint `last`.
    fn begin(&mut self, world: &World, last: &Option<Manifest>) {
        let start = last.as_ref().map_or(0, |m| m.epoch);
        self.collect(world);
        self.accepted.retain(|epoch, _| *epoch <= start);
        self.start = start;
        for stream in world.streams.values() {
            stream.input.run.lock().cuts.clear();
        }
    }

    /// Takes in what the sources say of the present run.
    fn collect(&mut self, world: &World) {
        for (name, stream) in &world.streams {
            for (i, ends) in stream.input.run.lock().cuts.iter().enumerate() {
                self.accepted.entry(self.start + 1 + i as u64).or_default().insert(name.clone(), ends.clone());
            }
        }
    }

    async fn compare(&mut self, setup: &Setup, schema: SchemaRef, closes: bool) -> Result<()> {
        self.collect(&setup.world);
        self.closes = Some(closes);
        let all: Ends = setup.world.streams.iter().map(|(name, s)| (name.clone(), s.input.ends())).collect();
        let expected = batch(&self.query, setup.world.batch(&all)?).await?;
        let mut committed = Multiset::new(schema.clone())?;
        let published = {
            let kept = setup.sink.kept.lock();
            for changes in &kept.committed {
                committed.add(changes)?;
            }
            kept.published.clone()
        };
        equal(&expected, &committed.content().map_err(|e| format!("committed: {e}"))?)
            .map_err(|e| format!("of what was committed {e}"))?;
        let mut so_far = Multiset::new(schema.clone())?;
        let mut before: Option<&Ends> = None;
        for (epoch, said) in &published {
            for changes in &said.changes {
                if closes && changes.weights().is_some() {
                    return Err(format!("epoch {epoch} takes back what was final").into());
                }
                so_far.add(changes)?;
            }
            let accepted = self.accepted.get(epoch);
            if said.changes.is_empty() && accepted == before {
                continue;
            }
            before = accepted;
            let content = so_far.content().map_err(|e| format!("epoch {epoch}: {e}"))?;
            if closes {
                let due = closed(&expected, said.watermark);
                if due.is_some_and(|due| due != content.num_rows()) {
                    return Err(format!("epoch {epoch}: {} rows, {due:?} are closed", content.num_rows()).into());
                }
            } else if setup.grouped {
                let none = Ends::new();
                let accepted = accepted.unwrap_or(&none);
                let expected = batch(&self.query, setup.world.batch(accepted)?).await?;
                equal(&expected, &content).map_err(|e| format!("after epoch {epoch} {e}"))?;
            }
        }
        Ok(())
    }

    fn mode(&self) -> Result<Checked> {
        Ok(if self.closes == Some(true) { Checked::Final } else { Checked::AsIs })
    }
}

/// How many of the rows have closed at `watermark`, where the result has its windows' ends.
fn closed(rows: &[arrow::array::RecordBatch], watermark: EventTime) -> Option<usize> {
    let mut n = 0;
    for batch in rows {
        let ends = batch.column_by_name("window_end")?;
        if ends.data_type() != &DataType::Timestamp(TimeUnit::Microsecond, None) || ends.null_count() > 0 {
            return None;
        }
        n += ends.as_primitive::<TimestampMicrosecondType>().values().iter().filter(|e| **e <= watermark.0).count();
    }
    Some(n)
}
