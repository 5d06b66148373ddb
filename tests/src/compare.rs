//! What every epoch accepted, and whether what it published is the batch answer over that.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Int32Type, SchemaRef, TimeUnit, TimestampMicrosecondType};
use millstream_engine::checkpoint::Manifest;
use millstream_engine::time::EventTime;
use millstream_sql::statement::Query;

use crate::Result;
use crate::case::query;
use crate::late::{Closing, bounds, kept};
use crate::oracle::{Multiset, batch, equal};
use crate::sink::{Collector, Published};
use crate::world::{Content, World, tables};

/// What is expected of a run.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The query whose batch answer is right.
    pub query: Query,
    /// Whether the rows whose `p` is 0 do not count.
    pub poisoned: bool,
    /// What closes, where rows of stream `tardy` may be late.
    pub closings: Vec<Closing>,
}

/// The stream with late rows, and how far its watermark is behind.
const TARDY: (&str, i64) = ("tardy", 5_000_000);

type Ends = BTreeMap<String, Vec<u64>>;

/// Knows what every epoch accepted, through restarts.
pub struct Checker {
    expected: Expected,
    /// The streams that the query reads.
    reads: Vec<String>,
    /// Whether rows of one are taken back.
    changing: bool,
    /// The ends of each stream's splits by epoch, of epochs that are in a checkpoint.
    accepted: BTreeMap<u64, Ends>,
    start: u64,
    /// The epochs after which a run began.
    starts: Vec<u64>,
    /// What was run, for the report of a failure.
    pub history: Vec<String>,
}

impl Checker {
    /// Nothing has been run yet.
    pub fn new(world: &World, expected: Expected) -> Self {
        let read = world.streams.iter().filter(|(name, _)| expected.query.text.contains(*name));
        let changing = read.clone().any(|(_, stream)| stream.is_changing());
        let reads = read.map(|(name, _)| name.clone()).collect();
        Checker { expected, reads, changing, accepted: BTreeMap::new(), start: 0, starts: vec![], history: vec![] }
    }

    /// A run begins after checkpoint `last`.
    pub fn begin(&mut self, world: &World, last: &Option<Manifest>) {
        let start = last.as_ref().map_or(0, |m| m.epoch);
        self.collect(world);
        self.accepted.retain(|epoch, _| *epoch <= start);
        self.start = start;
        self.starts.push(start);
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

    /// The rows that count, of what lies before `ends`, which epoch `until` accepted.
    fn content(&self, world: &World, ends: &Ends, until: u64, marks: &BTreeMap<u64, EventTime>) -> Result<Content> {
        let mut content = world.content(&self.reads, ends)?;
        if !self.expected.closings.is_empty() {
            let stream = world.streams.get(TARDY.0).ok_or("no stream with late rows")?;
            let rows = kept(&stream.input, &self.accepted_of(TARDY.0), marks, until, &self.expected.closings)?.rows;
            content.insert(TARDY.0.to_owned(), rows);
        }
        if self.expected.poisoned {
            for rows in content.values_mut() {
                *rows = healthy(rows)?;
            }
        }
        Ok(content)
    }

    /// Whether the answer changes as time passes.
    fn passes(&self) -> bool {
        let text = &self.expected.query.text;
        text.contains("now()") && !text.contains("AS OF now()")
    }

    /// The query as it is when the clock shows `now`.
    fn query_at(&self, now: EventTime) -> Result<Query> {
        if !self.passes() {
            return Ok(self.expected.query.clone());
        }
        query(&self.expected.query.text.replace("now()", &format!("TIMESTAMPTZ '{now}+00:00'")))
    }

    fn accepted_of(&self, stream: &str) -> BTreeMap<u64, Vec<u64>> {
        let ends = |(epoch, ends): (&u64, &Ends)| Some((*epoch, ends.get(stream)?.clone()));
        self.accepted.iter().filter_map(ends).collect()
    }

    /// Compares all that was published and committed with the batch answers; gives the last of them, with the rows
    /// that it is over.
    pub async fn compare(
        &mut self,
        world: &World,
        sink: &Collector,
        grouped: bool,
        schema: SchemaRef,
        closes: bool,
    ) -> Result<(Content, Vec<RecordBatch>)> {
        self.collect(world);
        let all: Ends = world.streams.iter().map(|(name, s)| (name.clone(), s.input.ends())).collect();
        let mut committed = Multiset::new(schema.clone())?;
        let published = {
            let kept = sink.kept.lock();
            for changes in &kept.committed {
                committed.add(changes)?;
            }
            kept.published.clone()
        };
        let marks: BTreeMap<u64, EventTime> = published.iter().map(|(epoch, p)| (*epoch, p.watermark)).collect();
        let content = self.content(world, &all, u64::MAX, &marks)?;
        let last = published.values().next_back().map_or(EventTime::MIN, |said| said.now);
        let expected = batch(&self.query_at(last)?, tables(&content)?).await?;
        equal(&expected, &committed.content().map_err(|e| format!("committed: {e}"))?)
            .map_err(|e| format!("of what was committed {e}"))?;
        let mut so_far = Multiset::new(schema.clone())?;
        let mut before: Option<&Ends> = None;
        for (epoch, said) in &published {
            // Beside what closes there may be changes that pass: of both together only the end is known.
            take_in(&mut so_far, *epoch, said, closes && !self.changing)?;
            let accepted = self.accepted.get(epoch);
            if said.changes.is_empty() && accepted == before && !self.passes() {
                continue;
            }
            before = accepted;
            let found = so_far.content().map_err(|e| format!("epoch {epoch}: {e}"))?;
            if closes && self.changing {
                continue;
            } else if closes {
                let due = closed(&expected, said.watermark);
                if due.is_some_and(|due| due != found.num_rows()) {
                    return Err(format!("epoch {epoch}: {} rows, {due:?} are closed", found.num_rows()).into());
                }
            } else if grouped {
                let none = Ends::new();
                let content = self.content(world, accepted.unwrap_or(&none), *epoch, &marks)?;
                let expected = batch(&self.query_at(said.now)?, tables(&content)?).await?;
                equal(&expected, &found).map_err(|e| format!("after epoch {epoch} {e}"))?;
            }
        }
        Ok((content, expected))
    }

    /// Compares the number of late rows, and the watermark of every epoch, with those of the model.
    pub fn lateness(&self, world: &World, sink: &Collector, late: u64) -> Result<()> {
        if self.expected.closings.is_empty() {
            return if late == 0 { Ok(()) } else { Err(format!("{late} rows were counted as late, none is").into()) };
        }
        let stream = world.streams.get(TARDY.0).ok_or("no stream with late rows")?;
        let accepted = self.accepted_of(TARDY.0);
        let marks: BTreeMap<u64, EventTime> =
            sink.kept.lock().published.iter().map(|(epoch, p)| (*epoch, p.watermark)).collect();
        let model = kept(&stream.input, &accepted, &marks, u64::MAX, &self.expected.closings)?;
        if model.late != late {
            return Err(format!("{late} rows were counted as late, {} are", model.late).into());
        }
        let bounds = bounds(&stream.input, &accepted, TARDY.1)?;
        for (epoch, mark) in marks.iter().filter(|(_, mark)| **mark != EventTime::MAX) {
            let due = bounds.get(&(epoch - 1)).copied().unwrap_or(EventTime::MIN);
            // The first epoch of a run has the watermark of its checkpoint.
            if *mark > due || (*mark < due && !self.starts.contains(&(epoch - 1))) {
                return Err(format!("the watermark of epoch {epoch} is {mark}, not {due}").into());
            }
        }
        Ok(())
    }
}

fn take_in(so_far: &mut Multiset, epoch: u64, said: &Published, closes: bool) -> Result<()> {
    for changes in &said.changes {
        if closes && changes.weights().is_some() {
            return Err(format!("epoch {epoch} takes back what was final").into());
        }
        so_far.add(changes)?;
    }
    Ok(())
}

/// The rows whose `p` is not 0.
fn healthy(rows: &RecordBatch) -> Result<RecordBatch> {
    let p = rows.column_by_name("p").ok_or("a stream without p")?.as_primitive::<Int32Type>().clone();
    let healthy: BooleanArray = p.iter().map(|p| Some(p != Some(0))).collect();
    Ok(filter_record_batch(rows, &healthy)?)
}

/// How many of the rows have closed at `watermark`, where the result has its windows' ends.
fn closed(rows: &[RecordBatch], watermark: EventTime) -> Option<usize> {
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
