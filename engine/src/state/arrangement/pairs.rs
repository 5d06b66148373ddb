//! Looking keys up: which rows of an arrangement have the keys of other rows.

use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;

use super::chunk::{Chunk, gather};
use super::index::{Index, NONE};
use super::layout::Layout;
use super::log::Log;
use crate::error::Result;

/// So many keys are looked up at once, so that they wait for memory together.
pub(super) const GROUP: usize = 64;

/// Rows of a probe, each with a row of the arrangement that has its key.
#[derive(Default)]
pub struct Pairs {
    /// The rows of the probe.
    pub probe: Vec<u32>,
    /// The rows of the arrangement: their numbers, where they come from, and their place there.
    pub(super) ids: Vec<u32>,
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
        keep(&mut self.ids, kept);
        keep(&mut self.places, kept);
        keep(&mut self.weights, kept);
    }

    /// Adds the weights of the rows of the arrangement to `sums`, by the row of the probe that they match.
    pub fn add_up(&self, sums: &mut [i64]) {
        self.probe.iter().zip(&self.weights).for_each(|(row, weight)| sums[*row as usize] += weight);
    }
}

/// Leaves only those of `all` that `kept` says.
fn keep<T>(all: &mut Vec<T>, kept: &[bool]) {
    let mut kept = kept.iter();
    all.retain(|_| kept.next() == Some(&true));
}

/// Rows of an arrangement that were met in pairs, each once.
#[derive(Default)]
pub struct Met {
    sources: Vec<Arc<Chunk>>,
    /// The source of each chunk, by where it lies.
    known: HashMap<usize, usize, foldhash::fast::FixedState>,
    /// What was added to each, and its own weight.
    sums: HashMap<(usize, usize), (i64, i64), foldhash::fast::FixedState>,
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
            self.sums.entry((of[*s], *row)).or_insert((0, pairs.weights[i])).0 += weight(i);
        }
    }

    /// About what it takes.
    pub fn bytes(&self) -> usize {
        self.sums.capacity() * size_of::<((usize, usize), (i64, i64), u64)>()
    }

    /// The rows in the order in which they lie.
    pub fn in_order(self) -> MetRows {
        let mut rows: Vec<_> = self.sums.into_iter().filter(|(_, (sum, _))| *sum != 0).collect();
        rows.sort_unstable_by_key(|(place, _)| *place);
        MetRows { sources: self.sources, rows }
    }
}

/// [`Met`] rows in order, each with what was added to it.
pub struct MetRows {
    sources: Vec<Arc<Chunk>>,
    rows: Vec<((usize, usize), (i64, i64))>,
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
        self.rows[at].1.0
    }

    /// Some of the rows, and their weights in the arrangement.
    pub(super) fn part(&self, layout: &Layout, range: Range<usize>) -> Result<(Chunk, Vec<i64>)> {
        let places: Vec<(usize, usize)> = self.rows[range.clone()].iter().map(|(place, _)| *place).collect();
        let weights = self.rows[range].iter().map(|(_, (_, weight))| *weight).collect();
        Ok((gather(layout, &self.sources, &places)?, weights))
    }
}

/// How far a probe has been looked up.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    /// The first row of the probe with which nothing has begun.
    probe: usize,
    /// Rows of the probe that have been, each with the next row of its key, and whether others follow that.
    open: Vec<(u32, u32, bool)>,
}

/// Adds to `pairs` up to `most` pairs of rows that may have one key, from `cursor` on; those of the probe have these `orders`. Says
/// whether there are no more.
pub(super) fn candidates(
    (log, index): (&Log, &Index),
    orders: &[u64],
    cursor: &mut Cursor,
    most: usize,
    pairs: &mut Pairs,
) -> bool {
    let room = most.min(orders.len() - cursor.probe + cursor.open.len());
    pairs.probe.reserve(room);
    pairs.ids.reserve(room);
    pairs.weights.reserve(room);
    let push = |pairs: &mut Pairs, row: u32, id: u32| {
        pairs.probe.push(row);
        pairs.ids.push(id);
        pairs.weights.push(log.weight(id));
    };
    while pairs.probe.len() < most {
        if cursor.open.is_empty() {
            let Some(group) = orders.get(cursor.probe..).filter(|left| !left.is_empty()) else { break };
            let group = &group[..group.len().min(GROUP)];
            index.touch(group);
            for (row, order) in (cursor.probe as u32..).zip(group) {
                match index.find(*order) {
                    Some(found) if found.many || pairs.probe.len() == most => {
                        cursor.open.push((row, found.head, found.many));
                    }
                    Some(found) => push(pairs, row, found.head),
                    None => {}
                }
            }
            cursor.probe += group.len();
        }
        let now = cursor.open.len().min(most - pairs.probe.len());
        let mut later = vec![];
        for (row, id, many) in cursor.open.drain(..now) {
            pairs.probe.push(row);
            pairs.ids.push(id);
            pairs.weights.push(log.weight(id));
            if many
                && let next = log.next(id)
                && next != NONE
            {
                later.push((row, next, true));
            }
        }
        cursor.open.append(&mut later);
    }
    (pairs.sources, pairs.places) = log.places(&pairs.ids);
    cursor.open.is_empty() && cursor.probe == orders.len()
}
