//! A source that reads an [`Input`](crate::input::Input) in units and steps of random small sizes, with random pauses.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use millstream_engine::changes::Changes;
use millstream_engine::connector::{Intake, Opening, Read, Readers, Source, Split, Unit, UnitReader};
use millstream_engine::{Error, Result};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;

use crate::input::InputRef;

/// See the module's text. With groups each is read within one epoch, and the input is told what each epoch
/// accepted; without, epochs end anywhere.
pub struct ScriptedSource {
    input: InputRef,
    projection: Vec<usize>,
}

impl ScriptedSource {
    /// Reads columns `projection` of `input`.
    pub fn new(input: InputRef, projection: Vec<usize>) -> Self {
        ScriptedSource { input, projection }
    }

    fn name(split: usize) -> Arc<str> {
        format!("s{split}").into()
    }

    fn place(split: &str) -> usize {
        split.trim_start_matches('s').parse().unwrap_or_default()
    }
}

/// It is read.
struct Script {
    input: InputRef,
    projection: Vec<usize>,
    grouped: bool,
    state: Mutex<Handout>,
    admitted: Notify,
}

struct Handout {
    rng: StdRng,
    /// The next group to open.
    group: usize,
    /// What is still to be handed out now, by split.
    units: Vec<VecDeque<Unit>>,
    /// The end of what was handed out, by split.
    ends: Vec<u64>,
}

impl Script {
    /// Opens the next group that has rows, when the present one has been handed out.
    fn admit(&self, s: &mut Handout) {
        while s.units.iter().all(VecDeque::is_empty) && s.group < self.input.groups.len() {
            let group = &self.input.groups[s.group];
            s.group += 1;
            for (split, end) in group.iter().enumerate() {
                let start = s.ends[split];
                chop(&mut s.rng, &mut s.units[split], split, start, *end);
            }
        }
    }

    fn pop(&self, s: &mut Handout) -> Option<Unit> {
        let full: Vec<usize> = (0..s.units.len()).filter(|i| !s.units[*i].is_empty()).collect();
        let split = *full.get(s.rng.random_range(0..full.len().max(1)))?;
        let unit = s.units[split].pop_front()?;
        s.ends[split] = s.ends[split].max(unit.end);
        Some(unit)
    }
}

/// Cuts `start..end` of a split into units of random sizes.
fn chop(rng: &mut StdRng, units: &mut VecDeque<Unit>, split: usize, mut start: u64, end: u64) {
    while start < end {
        let to = (start + rng.random_range(1..=20)).min(end);
        units.push_back(Unit { split: ScriptedSource::name(split), start, end: to });
        start = to;
    }
}

async fn pause(times: usize) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}

#[async_trait]
impl Source for ScriptedSource {
    fn describe(&self) -> String {
        "scripted".to_owned()
    }

    fn bounded(&self) -> bool {
        true
    }

    fn in_groups(&self) -> bool {
        self.input.run.lock().grouped
    }

    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> {
        let seed = self.input.run.lock().seed;
        Some(Arc::new(Away { input: self.input.clone(), projection: self.projection.clone(), seed }))
    }

    async fn open(self: Arc<Self>, opening: Opening) -> Result<Arc<dyn Intake>> {
        let (seed, grouped) = {
            let mut run = self.input.run.lock();
            run.cuts.clear();
            (run.seed, run.grouped)
        };
        let units = vec![VecDeque::new(); self.input.splits.len()];
        let mut s = Handout { rng: StdRng::seed_from_u64(seed), group: 0, units, ends: vec![] };
        for (split, end) in self.input.ends().into_iter().enumerate() {
            let name = Self::name(split);
            s.ends.push(if grouped { opening.consumed.prefix(&name) } else { 0 });
            if !grouped {
                for gap in opening.consumed.gaps(&name, 0..end) {
                    chop(&mut s.rng, &mut s.units[split], split, gap.start, gap.end);
                }
            }
        }
        if grouped {
            let none = s.ends.iter().all(|e| *e == 0);
            let at = self.input.groups.iter().position(|g| *g == s.ends);
            if at.is_none() && !none {
                return Err(Error::internal(format!("a checkpoint at {:?}, within a group", s.ends)));
            }
            s.group = at.map_or(0, |at| at + 1);
        }
        let (input, projection) = (self.input.clone(), self.projection.clone());
        let script = Script { input, projection, grouped, state: Mutex::new(s), admitted: Notify::new() };
        if grouped {
            script.admit(&mut script.state.lock());
        }
        Ok(Arc::new(script))
    }
}

#[async_trait]
impl Intake for Script {
    fn splits(&self) -> Vec<Split> {
        let split = |(i, end)| Split { name: ScriptedSource::name(i), end: Some(end), min_time: None, holds: true };
        self.input.ends().into_iter().enumerate().map(split).collect()
    }

    async fn next_unit(&self) -> Result<Option<Unit>> {
        let times = self.state.lock().rng.random_range(0..3);
        pause(times).await;
        loop {
            let admitted = self.admitted.notified();
            tokio::pin!(admitted);
            admitted.as_mut().enable();
            {
                let mut s = self.state.lock();
                if let Some(unit) = self.pop(&mut s) {
                    return Ok(Some(unit));
                }
                if s.group >= self.input.groups.len() || !self.grouped {
                    return Ok(None);
                }
            }
            admitted.await;
        }
    }

    fn try_unit(&self) -> Option<Unit> {
        self.pop(&mut self.state.lock())
    }

    fn epoch_cut(&self) {
        if !self.grouped {
            return;
        }
        let mut s = self.state.lock();
        self.input.run.lock().cuts.push(s.ends.clone());
        self.admit(&mut s);
        drop(s);
        self.admitted.notify_waiters();
    }

    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> {
        Some(self)
    }
}

#[async_trait]
impl Readers for Script {
    async fn read(&self, unit: &Unit) -> Result<Box<dyn UnitReader>> {
        let seed = self.state.lock().rng.random();
        reader(&self.input, &self.projection, unit, seed)
    }
}

/// It is read by a node that has not opened it.
struct Away {
    input: InputRef,
    projection: Vec<usize>,
    seed: u64,
}

#[async_trait]
impl Readers for Away {
    async fn read(&self, unit: &Unit) -> Result<Box<dyn UnitReader>> {
        reader(&self.input, &self.projection, unit, self.seed ^ unit.start)
    }
}

fn reader(input: &InputRef, projection: &[usize], unit: &Unit, seed: u64) -> Result<Box<dyn UnitReader>> {
    let split = ScriptedSource::place(&unit.split);
    let changes = input.splits[split].slice(unit.start as usize, (unit.end - unit.start) as usize);
    let rows = changes.rows().project(projection)?;
    let rng = StdRng::seed_from_u64(seed);
    Ok(Box::new(Reader { rows: changes.with_rows(rows), at: 0, start: unit.start, rng }))
}

struct Reader {
    rows: Changes,
    at: usize,
    start: u64,
    rng: StdRng,
}

#[async_trait]
impl UnitReader for Reader {
    async fn next(&mut self) -> Result<Option<Read>> {
        let times = self.rng.random_range(0..3);
        pause(times).await;
        let left = self.rows.num_rows() - self.at;
        if left == 0 {
            return Ok(None);
        }
        let n = self.rng.random_range(0..=left.min(9));
        let rows = self.rows.slice(self.at, n);
        self.at += n;
        Ok(Some(Read::rows(rows, self.start + self.at as u64)))
    }
}
