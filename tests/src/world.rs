//! The streams that cases read, with random rows.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray, UInt32Array, new_null_array};
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::{DFSchema, TableReference};
use datafusion::datasource::{MemTable, TableProvider, provider_as_source};
use datafusion::logical_expr::TableSource;
use datafusion::physical_expr::PhysicalExpr;
use millstream_engine::changes::Changes;
use millstream_engine::connector::Source;
use millstream_engine::time::now;
use millstream_sql::plan::lower::{Replaces, SourceTable, StreamScan};
use millstream_sql::plan::{TableResolver, expression, session_state};
use millstream_sql::statement::{CreateStream, Statement, parse};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use crate::Result;
use crate::input::{Input, InputRef};
use crate::rows::{column, event_times, tardy_times};
use crate::source::ScriptedSource;

/// The streams: one with every type, one to join it in unions, one over two years, an empty one, one with times
/// that no clock shows, one whose rows come too late, one of these very moments, two whose rows are taken back (with a key, and with
/// weights beyond 1), and one whose rows replace each other as they are read. What the names of columns mean says `rows.rs`.
const STREAMS: &str = "
CREATE STREAM bids (id BIGINT, k INT, name TEXT, price BIGINT, small SMALLINT, x DOUBLE, f DOUBLE, r REAL,
    d DECIMAL(12, 2), b BOOLEAN, day DATE, at TIMESTAMPTZ, ts TIMESTAMP, bin BYTEA, s STRUCT<a BIGINT, t TEXT>,
    l BIGINT[], ls STRUCT<v BIGINT, o STRUCT<c INT>>[], wb BIGINT, wt TINYINT, wu BIGINT UNSIGNED, wf DOUBLE, wr REAL,
    wd DECIMAL(38, 10), wday DATE, wts TIMESTAMP, p INT,
    WATERMARK FOR ts AS ts - INTERVAL '5 seconds');
CREATE STREAM clicks (id BIGINT, k INT, name TEXT, ts TIMESTAMP, p INT,
    WATERMARK FOR ts AS ts - INTERVAL '2 seconds');
CREATE STREAM visits (id BIGINT, name TEXT, amount DECIMAL(10, 2), ts TIMESTAMP, p INT,
    WATERMARK FOR ts AS ts - INTERVAL '10 days');
CREATE STREAM nothing (id BIGINT, k INT, x DOUBLE, ts TIMESTAMP, p INT,
    WATERMARK FOR ts AS ts - INTERVAL '5 seconds');
CREATE STREAM far (id BIGINT, k INT, ts TIMESTAMP, p INT, WATERMARK FOR ts AS ts - INTERVAL '5 seconds');
CREATE STREAM tardy (id BIGINT, k INT, ts TIMESTAMP, p INT, WATERMARK FOR ts AS ts - INTERVAL '5 seconds');
CREATE STREAM moments (id BIGINT, k INT, name TEXT, ts TIMESTAMP, p INT, WATERMARK FOR ts AS ts - INTERVAL '5 seconds');
CREATE STREAM accounts (id BIGINT, k INT, name TEXT, price BIGINT, x DOUBLE, f DOUBLE, d DECIMAL(12, 2), day DATE,
    s STRUCT<a BIGINT, t TEXT>, wb BIGINT, wf DOUBLE, p INT, PRIMARY KEY (id));
CREATE STREAM loose (k INT, name TEXT, price BIGINT, x DOUBLE, f DOUBLE, b BOOLEAN, l BIGINT[], wf DOUBLE,
    wd DECIMAL(38, 10), p INT);
CREATE STREAM profiles (id BIGINT, k INT, name TEXT, price BIGINT, x DOUBLE, d DECIMAL(12, 2), ts TIMESTAMP, p INT,
    WATERMARK FOR ts AS ts - INTERVAL '200 seconds', PRIMARY KEY (id));
";

/// Those of which rows are taken back.
const CHANGING: [&str; 3] = ["accounts", "loose", "profiles"];

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// A stream of the world.
pub struct Stream {
    name: String,
    /// Its rows.
    pub input: InputRef,
    changelog: bool,
    key: Option<Vec<usize>>,
    replaces: bool,
    event_time: Option<(usize, Option<Arc<dyn PhysicalExpr>>)>,
}

impl Stream {
    /// Whether rows are taken back.
    pub fn is_changing(&self) -> bool {
        self.changelog
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({})", self.name)
    }
}

impl StreamScan for Stream {
    fn name(&self) -> &str {
        &self.name
    }

    fn schema(&self) -> SchemaRef {
        self.input.schema.clone()
    }

    fn is_changelog(&self) -> bool {
        self.changelog
    }

    fn key(&self) -> Option<Vec<usize>> {
        self.key.clone()
    }

    fn event_time(&self) -> Option<(usize, Option<Arc<dyn PhysicalExpr>>)> {
        self.event_time.clone()
    }

    fn replaces(&self) -> Option<Replaces> {
        let key = self.key.clone().filter(|_| self.replaces)?;
        Some(Replaces { key, beside: vec![] })
    }

    fn idle_timeout(&self) -> Duration {
        Duration::from_secs(3600)
    }

    fn source(&self, projection: Vec<usize>, _parallelism: usize) -> millstream_sql::Result<Arc<dyn Source>> {
        Ok(Arc::new(ScriptedSource::new(self.input.clone(), projection)))
    }
}

/// All streams.
#[derive(Clone, Debug)]
pub struct World {
    /// By name.
    pub streams: BTreeMap<String, Arc<Stream>>,
}

impl World {
    /// The world of a seed.
    pub fn of(seed: u64) -> Result<Self> {
        let mut streams = BTreeMap::new();
        for parsed in parse(STREAMS)? {
            let Statement::CreateStream(create) = parsed.statement else { return Err("not a stream".into()) };
            let name = create.name.name.clone();
            let mut rng = StdRng::seed_from_u64(seed ^ name.bytes().fold(7, |h, b| h * 31 + u64::from(b)));
            streams.insert(name, Arc::new(stream(&mut rng, &create)?));
        }
        Ok(World { streams })
    }

    /// Finds the streams for a query that is to run continuously.
    pub fn resolver(&self) -> Arc<dyn TableResolver> {
        let table = |s: &Arc<Stream>| provider_as_source(Arc::new(SourceTable(s.clone())));
        Arc::new(Tables(self.streams.iter().map(|(name, s)| (name.clone(), table(s))).collect()))
    }

    /// What lies before `ends`, of some streams.
    pub fn content(&self, streams: &[String], ends: &BTreeMap<String, Vec<u64>>) -> Result<Content> {
        let rows = |name: &String| {
            let stream = self.streams.get(name).ok_or_else(|| format!("no stream {name}"))?;
            let rows = match ends.get(name) {
                Some(ends) => stream.input.content(ends)?,
                None => RecordBatch::new_empty(stream.schema()),
            };
            Ok((name.clone(), rows))
        };
        streams.iter().map(rows).collect()
    }
}

/// The rows of each stream.
pub type Content = BTreeMap<String, RecordBatch>;

/// Finds the streams for a batch query over their rows.
pub fn tables(content: &Content) -> Result<Arc<dyn TableResolver>> {
    let mut tables = BTreeMap::new();
    for (name, rows) in content {
        let table: Arc<dyn TableProvider> = Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows.clone()]])?);
        tables.insert(name.clone(), provider_as_source(table));
    }
    Ok(Arc::new(Tables(tables)))
}

struct Tables(BTreeMap<String, Arc<dyn TableSource>>);

impl TableResolver for Tables {
    fn table(&self, name: &TableReference) -> millstream_sql::Result<Option<Arc<dyn TableSource>>> {
        Ok(self.0.get(name.table()).cloned())
    }

    fn version_time(&self, name: &TableReference) -> millstream_sql::Result<Option<String>> {
        let table = self.0.get(name.table()).filter(|_| !CHANGING.contains(&name.table()));
        Ok(table.filter(|table| table.schema().index_of("ts").is_ok()).map(|_| "ts".to_owned()))
    }
}

fn stream(rng: &mut StdRng, create: &CreateStream) -> Result<Stream> {
    let name = create.name.name.clone();
    let fields: Vec<_> = create.columns.iter().map(|c| c.field()).collect();
    let schema = Arc::new(Schema::new(fields));
    let n = match name.as_str() {
        "nothing" => 0,
        _ if rng.random_bool(0.1) => rng.random_range(0..5),
        _ => rng.random_range(100..350),
    };
    let event_time = match &create.watermark {
        None => None,
        Some(watermark) => {
            let df_schema = DFSchema::try_from_qualified_schema(name.as_str(), &schema)?;
            let state = session_state();
            let expr = expression(&state, Arc::new(Tables(BTreeMap::new())), &watermark.expr, &df_schema)?;
            Some((schema.index_of(&watermark.column)?, Some(state.create_physical_expr(expr, &df_schema)?)))
        }
    };
    let (changelog, replaces) = (CHANGING.contains(&name.as_str()), name == "profiles");
    let key = matches!(name.as_str(), "accounts" | "profiles").then(|| vec![0]);
    let (splits, atoms) = match changelog {
        true if replaces => replacing(rng, &schema, n)?,
        true => changing(rng, &schema, n, key.is_some())?,
        false => growing(rng, &name, &schema, n)?,
    };
    let input = Input::new(rng, schema, splits, &atoms);
    let input = Arc::new(Input { replaces: if replaces { Some(0) } else { None }, ..input });
    Ok(Stream { name, input, changelog, key, replaces, event_time })
}

type Splits = (Vec<Changes>, Vec<Vec<u64>>);

/// Rows that only arrive, dealt out to splits.
fn growing(rng: &mut StdRng, name: &str, schema: &SchemaRef, n: usize) -> Result<Splits> {
    let (span, bound) = if name == "visits" { (700 * DAY, 10 * DAY) } else { (90 * SECOND, 2 * SECOND) };
    // Across 1970, where rounding down is not rounding to zero, or in our days.
    let start = if rng.random_bool(0.5) { -span / 3 } else { 1_704_067_200 * SECOND + 500 };
    let mut times = match name {
        "tardy" => tardy_times(rng, n, start, 5 * SECOND),
        "moments" => event_times(rng, n, now() - SECOND / 20, SECOND / 4, SECOND / 100),
        _ => event_times(rng, n, start, span, bound),
    };
    if name == "far" {
        let edge = i64::MAX / 4;
        for time in &mut times {
            if rng.random_bool(0.1) {
                *time = [i64::MIN, -edge - 1, edge + 1, i64::MAX].choose(rng).copied();
            }
        }
    }
    let mut columns: Vec<ArrayRef> = vec![];
    for field in schema.fields() {
        columns.push(match field.name().as_str() {
            "ts" => Arc::new(TimestampMicrosecondArray::from(times.clone())),
            _ => column(rng, field, n)?,
        });
    }
    let all = Changes::insertions(RecordBatch::try_new(schema.clone(), columns)?);
    let mut of: Vec<Vec<u32>> = vec![vec![]; rng.random_range(1..=4)];
    for row in 0..n as u32 {
        let split = rng.random_range(0..of.len());
        of[split].push(row);
    }
    let atoms = of.iter().map(|rows| (1..=rows.len() as u64).collect()).collect();
    let splits = of.into_iter().map(|rows| all.take(&UInt32Array::from(rows))).collect::<Result<_, _>>()?;
    Ok((splits, atoms))
}

/// Rows that arrive and are taken back. With a key each key has one row at most; without, rows have weights.
fn changing(rng: &mut StdRng, schema: &SchemaRef, n: usize, keyed: bool) -> Result<Splits> {
    let columns = schema.fields().iter().map(|f| column(rng, f, n)).collect::<Result<Vec<_>>>()?;
    let mut rows = RecordBatch::try_new(schema.clone(), columns)?;
    if keyed && n > 0 {
        let ids = arrow::array::Int64Array::from_iter_values((0..n).map(|_| rng.random_range(0..20)));
        let mut columns = rows.columns().to_vec();
        columns[0] = Arc::new(ids);
        rows = RecordBatch::try_new(schema.clone(), columns)?;
    }
    let splits = rng.random_range(1..=3);
    let (mut all, mut atoms) = (vec![], vec![]);
    for split in 0..splits {
        let mine: Vec<usize> = (0..n).filter(|row| key_of(&rows, *row, keyed) % splits == split).collect();
        let (taken, weights, ends) = transactions(rng, &rows, &mine, keyed);
        let part = rows_at(&rows, taken)?;
        all.push(Changes::weighted(part, weights.into())?);
        atoms.push(ends);
    }
    Ok((all, atoms))
}

/// Rows that replace each other by their ids, and some that go, by all that they had or by the id alone. The rows of an id are
/// in one split.
fn replacing(rng: &mut StdRng, schema: &SchemaRef, n: usize) -> Result<Splits> {
    let mut columns = schema.fields().iter().map(|f| column(rng, f, n)).collect::<Result<Vec<_>>>()?;
    let ids = Int64Array::from_iter_values((0..n).map(|_| rng.random_range(0..20)));
    columns[0] = Arc::new(ids.clone());
    let times = event_times(rng, n, 500 * SECOND, 90 * SECOND, 90 * SECOND);
    columns[schema.index_of("ts")?] = Arc::new(TimestampMicrosecondArray::from(times));
    let rows = RecordBatch::try_new(schema.clone(), columns)?;
    let bare = schema.fields().iter().skip(1).map(|f| new_null_array(f.data_type(), n));
    let bare = RecordBatch::try_new(schema.clone(), std::iter::once(rows.column(0).clone()).chain(bare).collect())?;
    let both = concat_batches(schema, [&rows, &bare])?;
    let count = rng.random_range(1..=3);
    let (mut splits, mut atoms) = (vec![], vec![]);
    for split in 0..count {
        let (mut taken, mut weights, mut last) = (vec![], vec![], BTreeMap::new());
        for row in (0..n).filter(|row| ids.value(*row) as usize % count == split) {
            match last.remove(&ids.value(row)) {
                Some(there) if rng.random_bool(0.2) => {
                    taken.push(if rng.random_bool(0.5) { there } else { n + row } as u32);
                    weights.push(-1);
                }
                _ => {
                    last.insert(ids.value(row), row);
                    taken.push(row as u32);
                    weights.push(1);
                }
            }
        }
        atoms.push((1..=taken.len() as u64).collect());
        splits.push(Changes::of_changelog(rows_at(&both, taken)?, weights.into())?);
    }
    Ok((splits, atoms))
}

fn key_of(rows: &RecordBatch, row: usize, keyed: bool) -> usize {
    use arrow::array::AsArray;
    if !keyed {
        return row;
    }
    rows.column(0).as_primitive::<arrow::datatypes::Int64Type>().value(row) as usize
}

fn rows_at(rows: &RecordBatch, taken: Vec<u32>) -> Result<RecordBatch> {
    Ok(arrow::compute::take_record_batch(rows, &UInt32Array::from(taken))?)
}

/// The rows to take with their weights, and where each change is whole.
fn transactions(rng: &mut StdRng, rows: &RecordBatch, mine: &[usize], keyed: bool) -> (Vec<u32>, Vec<i64>, Vec<u64>) {
    let (mut taken, mut weights, mut ends) = (vec![], vec![], vec![]);
    let mut live: Vec<(usize, i64)> = vec![];
    for row in mine {
        let same = live.iter().position(|(r, _)| keyed && key_of(rows, *r, true) == key_of(rows, *row, true));
        let victim =
            same.or_else(|| (!live.is_empty() && rng.random_bool(0.4)).then(|| rng.random_range(0..live.len())));
        let mut change = vec![];
        if let Some(at) = victim {
            let (old, weight) = live[at];
            let back = if rng.random_bool(0.5) { weight } else { 1 };
            change.push((old, -back));
            live[at].1 -= back;
            live.retain(|l| l.1 > 0);
        }
        if rng.random_bool(0.8) || victim.is_none() {
            let weight = if keyed { 1 } else { rng.random_range(1..=2) };
            change.push((*row, weight));
            live.push((*row, weight));
        }
        change.shuffle(rng);
        taken.extend(change.iter().map(|c| c.0 as u32));
        weights.extend(change.iter().map(|c| c.1));
        ends.push(taken.len() as u64);
    }
    (taken, weights, ends)
}
