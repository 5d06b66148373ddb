//! A source that reads an [`Input`](crate::input::Input) in units and steps of random small sizes, with random pauses.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use millstream_engine::changes::Changes;
use millstream_engine::connector::{Offsets, Read, Source, Split, Unit, UnitReader};
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

impl ScriptedSource {
    /// Reads columns `projection` of `input`.
    pub fn new(input: InputRef, projection: Vec<usize>) -> Self {
        let units = vec![VecDeque::new(); input.splits.len()];
        let ends = vec![0; input.splits.len()];
        let state = Handout { rng: StdRng::seed_from_u64(0), group: 0, units, ends };
        ScriptedSource { input, projection, state: Mutex::new(state), admitted: Notify::new() }
    }

    fn name(split: usize) -> Arc<str> {
        format!("s{split}").into()
    }

    fn place(split: &str) -> usize {
        split.trim_start_matches('s').parse().unwrap_or_default()
    }

    fn is_grouped(&self) -> bool {
        self.input.run.lock().grouped
    }

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
    async fn start(&self, consumed: &Offsets) -> Result<()> {
        let (seed, grouped) = {
            let mut run = self.input.run.lock();
            run.cuts.clear();
            (run.seed, run.grouped)
        };
        let mut s = self.state.lock();
        s.rng = StdRng::seed_from_u64(seed);
        for (split, end) in self.input.ends().into_iter().enumerate() {
            s.units[split].clear();
            let name = ScriptedSource::name(split);
            s.ends[split] = if grouped { consumed.prefix(&name) } else { 0 };
            if !grouped {
                for gap in consumed.gaps(&name, 0..end) {
                    let s = &mut *s;
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
            self.admit(&mut s);
        }
        Ok(())
    }

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
                if s.group >= self.input.groups.len() || !self.is_grouped() {
                    return Ok(None);
                }
            }
            admitted.await;
        }
    }

    async fn open(&self, unit: &Unit) -> Result<Box<dyn UnitReader>> {
        let split = ScriptedSource::place(&unit.split);
        let changes = self.input.splits[split].slice(unit.start as usize, (unit.end - unit.start) as usize);
        let rows = changes.rows().project(&self.projection)?;
        let rng = StdRng::seed_from_u64(self.state.lock().rng.random());
        Ok(Box::new(Reader { rows: changes.with_rows(rows), at: 0, start: unit.start, rng }))
    }

    fn in_groups(&self) -> bool {
        self.is_grouped()
    }

    fn try_unit(&self) -> Option<Unit> {
        self.pop(&mut self.state.lock())
    }

    fn epoch_cut(&self) {
        if !self.is_grouped() {
            return;
        }
        let mut s = self.state.lock();
        self.input.run.lock().cuts.push(s.ends.clone());
        self.admit(&mut s);
        drop(s);
        self.admitted.notify_waiters();
    }

    fn bounded(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        "scripted".to_owned()
    }
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
