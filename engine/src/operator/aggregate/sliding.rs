//! Windows made of panes (`HOP`, `CUMULATE`): each closed window is the sum of its panes.
//!
//! Adding up all panes of every window would cost size/slide times the panes. Instead two stacks are
//! kept, as for a queue that can be summed in constant time (Tangwongsan, Hirzel, Schneider, "Low-latency
//! sliding-window aggregation in worst-case constant time", DEBS 2017): *front* holds, for each pane of
//! the older half, the sum of it and all later ones of that half; *back* is the running sum of the panes
//! since. A window is its front entry plus back. When the front is used up, the panes of back become the
//! new front. Every pane is thus added about three times, whatever size/slide is.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;

use super::Aggregate;
use super::tables::Tables;
use crate::error::Result;
use crate::operator::window::WindowSpec;
use crate::state::group_table::GroupTable;
use crate::time::EventTime;

pub(super) struct Sliding {
    spec: Arc<Aggregate>,
    windows: WindowSpec,
    /// (pane, states of that pane and all later ones before `split`), oldest last.
    front: Vec<(i64, RecordBatch)>,
    /// Panes before this are in `front` (or gone), those from it up to `end` in `back`.
    split: i64,
    back: Option<GroupTable>,
    end: i64,
    /// Panes that were summed already and then got rows: what was summed is void.
    stale: BTreeSet<i64>,
    /// The end of the window that was closed last, while windows are being closed.
    closed: Option<i64>,
}

impl Sliding {
    pub(super) fn new(spec: Arc<Aggregate>, windows: WindowSpec) -> Self {
        let (front, back, stale, closed) = (vec![], None, BTreeSet::new(), None);
        Sliding { spec, windows, front, split: i64::MIN, back, end: i64::MIN, stale, closed }
    }

    /// A pane got rows.
    pub(super) fn touched(&mut self, pane: i64) {
        if pane < self.end {
            self.stale.insert(pane);
        }
    }

    fn reset(&mut self) {
        self.front.clear();
        self.back = None;
        (self.split, self.end) = (i64::MIN, i64::MIN);
        self.stale.clear();
    }

    /// The next window that ends after the tables' watermark and not after `watermark`, with its groups. When there are no more,
    /// the tables' watermark is `watermark`.
    pub(super) fn next_closed(
        &mut self,
        tables: &mut Tables,
        watermark: EventTime,
    ) -> Result<Option<(i64, GroupTable)>> {
        if self.closed.is_none() && !self.stale.is_empty() {
            self.reset();
        }
        let mut after = self.closed.unwrap_or(tables.watermark.0);
        // Jump over time without rows: the next window that can hold any is one of the oldest pane's.
        while let Some(oldest) = tables.open.keys().next().copied() {
            let Some(mut end) = self.windows.next_end(oldest) else { break };
            if end <= after {
                let Some(next) = self.windows.next_end(after) else { break };
                end = next;
            }
            if end > watermark.0 {
                break;
            }
            let start = self.windows.start_of(end);
            let sum = self.sum(tables, start, end)?;
            after = end;
            self.closed = Some(end);
            let next_start = self.windows.next_end(end).map_or(i64::MAX, |e| self.windows.start_of(e));
            let gone: Vec<i64> = tables.open.range(..next_start).map(|(p, _)| *p).collect();
            for pane in gone {
                tables.open.remove(&pane);
            }
            if let Some(table) = sum {
                return Ok(Some((end, table)));
            }
        }
        self.closed = None;
        tables.advance(watermark)?;
        let closed: Vec<i64> = tables.open.keys().copied().filter(|p| tables.is_closed(*p)).collect();
        for pane in closed {
            tables.open.remove(&pane);
        }
        Ok(None)
    }

    /// The sum of the panes in `[start, end)`, or `None` when none has rows.
    fn sum(&mut self, tables: &mut Tables, start: i64, end: i64) -> Result<Option<GroupTable>> {
        while self.front.last().is_some_and(|(pane, _)| *pane < start) {
            self.front.pop();
        }
        if self.split < start && self.front.is_empty() {
            // Panes that left the window are in `back`: it becomes the new front.
            self.flip(tables, start, self.end.max(start))?;
        }
        for (_, pane) in tables.open.range_mut(self.end.max(start)..end) {
            add(&self.spec, &mut self.back, pane)?;
        }
        self.end = self.end.max(end);
        let mut sum = None;
        if let Some((_, states)) = self.front.last() {
            merge(&self.spec, &mut sum, states)?;
        }
        if let Some(back) = &mut self.back {
            add(&self.spec, &mut sum, back)?;
        }
        Ok(sum)
    }

    /// Makes `front` of the panes in `[start, end)` and empties `back`.
    fn flip(&mut self, tables: &mut Tables, start: i64, end: i64) -> Result<()> {
        self.front.clear();
        self.back = None;
        (self.split, self.end) = (end, end);
        let mut running = None;
        for (pane, table) in tables.open.range_mut(start..end).rev() {
            add(&self.spec, &mut running, table)?;
            if let Some(running) = &mut running {
                self.front.push((*pane, running.state(&running.all())?));
            }
        }
        Ok(())
    }
}

/// Adds the states of `table` to `sum`.
fn add(spec: &Aggregate, sum: &mut Option<GroupTable>, table: &mut GroupTable) -> Result<()> {
    let states = table.state(&table.all())?;
    merge(spec, sum, &states)
}

fn merge(spec: &Aggregate, sum: &mut Option<GroupTable>, states: &RecordBatch) -> Result<()> {
    let table = match sum {
        Some(table) => table,
        none => none.insert(spec.table()?),
    };
    let mut slots = vec![];
    table.intern_states(states, &mut slots)?;
    table.merge(states, &slots)
}
