//! Looking keys up: which rows of an arrangement have the keys of other rows.

use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;

use super::chunk::{Chunk, Run, rows_at_once};
use super::layout::Layout;
use super::merge::{Merge, gather, keep};
use crate::error::Result;

/// Rows of a probe, each with a row of the arrangement that has its key.
#[derive(Default)]
pub struct Pairs {
    /// The rows of the probe.
    pub probe: Vec<u32>,
    /// The rows of the arrangement: where they come from, and their place there.
    pub(super) places: Vec<(usize, usize)>,
    pub(super) sources: Vec<Arc<Chunk>>,
    /// The weights of the rows of the arrangement.
    pub weights: Vec<i64>,
}

impl Pairs {
    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.probe.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.probe.is_empty()
    }

    /// Leaves only the pairs that `keep` says.
    pub fn retain(&mut self, kept: &[bool]) {
        if kept.iter().all(|kept| *kept) {
            return;
        }
        keep(&mut self.probe, kept);
        keep(&mut self.places, kept);
        keep(&mut self.weights, kept);
    }

    /// Adds the weights of the rows of the arrangement to `sums`, by the row of the probe that they match.
    pub fn add_up(&self, sums: &mut [i64]) {
        self.probe.iter().zip(&self.weights).for_each(|(row, weight)| sums[*row as usize] += weight);
    }
}

/// Rows of an arrangement that were met in pairs, each once.
#[derive(Default)]
pub struct Met {
    sources: Vec<Arc<Chunk>>,
    /// The source of each chunk, by where it lies.
    known: HashMap<usize, usize, foldhash::fast::FixedState>,
    sums: HashMap<(usize, usize), i64, foldhash::fast::FixedState>,
}

impl Met {
    /// Adds `weight` of each pair to its row of the arrangement.
    pub fn add(&mut self, pairs: &Pairs, weight: impl Fn(usize) -> i64) {
        let source = |chunk: &Arc<Chunk>| {
            *self.known.entry(Arc::as_ptr(chunk) as usize).or_insert_with(|| {
                self.sources.push(chunk.clone());
                self.sources.len() - 1
            })
        };
        let of: Vec<usize> = pairs.sources.iter().map(source).collect();
        for (i, (s, row)) in pairs.places.iter().enumerate() {
            *self.sums.entry((of[*s], *row)).or_default() += weight(i);
        }
    }

    /// About what it takes.
    pub fn bytes(&self) -> usize {
        self.sums.capacity() * size_of::<((usize, usize), i64, u64)>()
    }

    /// The rows in the order of the arrangement.
    pub fn in_order(self) -> MetRows {
        let mut rows: Vec<_> = self.sums.into_iter().filter(|(_, sum)| *sum != 0).collect();
        rows.sort_unstable_by_key(|((s, row), _)| (self.sources[*s].orders[*row], *s, *row));
        MetRows { sources: self.sources, rows }
    }
}

/// [`Met`] rows in order, each with what was added to it.
pub struct MetRows {
    sources: Vec<Arc<Chunk>>,
    rows: Vec<((usize, usize), i64)>,
}

impl MetRows {
    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What was added to row `at`.
    pub fn sum(&self, at: usize) -> i64 {
        self.rows[at].1
    }

    /// Some of the rows, with their weights in the arrangement.
    pub(super) fn chunk(&self, layout: &Layout, range: Range<usize>) -> Result<Chunk> {
        let places: Vec<(usize, usize)> = self.rows[range].iter().map(|(place, _)| *place).collect();
        let orders = places.iter().map(|(s, row)| self.sources[*s].orders[*row]).collect();
        let weights = places.iter().map(|(s, row)| self.sources[*s].weight(*row)).collect();
        Ok(Chunk::new(layout, orders, gather(&self.sources, &places)?, Some(weights)))
    }
}

/// How far a probe has been looked up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    run: usize,
    /// The row of the probe.
    probe: usize,
    /// So many rows that have its key have been given.
    given: usize,
}

/// Adds to `pairs` up to `most` pairs of rows with one hash, from `cursor` on; those of the probe have the orders `probe`. Says whether
/// there are no more.
pub(super) fn candidates<'a>(
    runs: impl Iterator<Item = &'a Run>,
    probe: &[u64],
    cursor: &mut Cursor,
    most: usize,
    pairs: &mut Pairs,
) -> bool {
    for run in runs.skip(cursor.run) {
        if !in_run(run, probe, cursor, most, pairs) {
            return false;
        }
        *cursor = Cursor { run: cursor.run + 1, probe: 0, given: 0 };
    }
    true
}

fn in_run(run: &Run, probe: &[u64], cursor: &mut Cursor, most: usize, pairs: &mut Pairs) -> bool {
    let mut place = Place { chunk: 0, row: run.start };
    // The chunk that is a source already.
    let mut source = usize::MAX;
    while let Some(order) = probe.get(cursor.probe).copied() {
        if !seek(run, order, &mut place) {
            return true;
        }
        let (mut chunk, mut row, mut skip) = (place.chunk, place.row, cursor.given);
        while let Some(rows) = run.chunks.get(chunk) {
            let end = row + rows.orders[row..].iter().take_while(|o| **o == order).count();
            let passed = skip.min(end - row);
            (row, skip) = (row + passed, skip - passed);
            if row < end {
                if source != chunk {
                    pairs.sources.push(rows.clone());
                    source = chunk;
                }
                let room = (end - row).min(most.saturating_sub(pairs.probe.len()));
                let at = pairs.sources.len() - 1;
                pairs.probe.extend(std::iter::repeat_n(cursor.probe as u32, room));
                pairs.places.extend((row..row + room).map(|row| (at, row)));
                pairs.weights.extend((row..row + room).map(|row| rows.weight(row)));
                cursor.given += room;
                if row + room < end {
                    return false;
                }
            }
            if end < rows.len() {
                break;
            }
            (chunk, row) = (chunk + 1, 0);
        }
        (cursor.probe, cursor.given) = (cursor.probe + 1, 0);
    }
    true
}

/// A place in a run.
#[derive(Clone, Copy)]
struct Place {
    chunk: usize,
    row: usize,
}

/// The rows of `runs` with these orders, which ascend, as one run: what is taken back is no more in it than what takes it back.
pub(super) fn netted<'a>(layout: &Layout, runs: impl Iterator<Item = &'a Run>, orders: &[u64]) -> Result<Run> {
    let mut parts = vec![];
    for run in runs {
        let (mut part, mut cursor, mut done) = (Run::default(), Cursor::default(), false);
        while !done {
            let mut pairs = Pairs::default();
            done = candidates(std::iter::once(run), orders, &mut cursor, rows_at_once([run]), &mut pairs);
            if pairs.is_empty() {
                continue;
            }
            let of = pairs.places.iter().map(|(s, row)| pairs.sources[*s].orders[*row]).collect();
            let columns = gather(&pairs.sources, &pairs.places)?;
            part.push(layout, Chunk::new(layout, of, columns, Some(pairs.weights.into())))?;
        }
        if part.rows > 0 {
            parts.push(part);
        }
    }
    let mut merge = Merge::of(parts);
    merge.work(layout, usize::MAX)?;
    Ok(merge.out)
}

/// Goes on to the first row that is not before `order`. Says whether there is one.
fn seek(run: &Run, order: u64, place: &mut Place) -> bool {
    let ends_before = |c: &Arc<Chunk>| c.orders.last().is_none_or(|last| *last < order);
    match run.chunks.get(place.chunk) {
        None => return false,
        Some(chunk) if ends_before(chunk) => {
            let (mut low, mut high) = (place.chunk + 1, run.chunks.len());
            while low < high {
                let middle = (low + high) / 2;
                if ends_before(&run.chunks[middle]) { low = middle + 1 } else { high = middle }
            }
            (place.chunk, place.row) = (low, 0);
        }
        Some(_) => {}
    }
    let Some(chunk) = run.chunks.get(place.chunk) else { return false };
    if chunk.orders.get(place.row).is_none_or(|o| *o < order) {
        place.row = chunk.first_from(order);
    }
    true
}
