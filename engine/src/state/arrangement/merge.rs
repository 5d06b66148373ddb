//! Merging: several runs become one, some rows at a time.
//!
//! Rows that have been merged are in the new run, the others still in the old ones, so all of them together say at any time
//! what they said before. Equal rows become one with the sum of their weights, or none, where one of them has been taken
//! back.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::interleave;
use hashbrown::HashMap;

use super::chunk::{Chunk, Run, rows_at_once};
use super::layout::Layout;
use crate::error::Result;

/// Runs that become one.
pub(super) struct Merge {
    /// What is still to be merged, older runs first.
    pub(super) inputs: Vec<Run>,
    /// What has been.
    pub(super) out: Run,
}

impl Merge {
    pub(super) fn of(inputs: Vec<Run>) -> Self {
        Merge { inputs, out: Run::default() }
    }

    /// Merges `fuel` rows, or a few more. Gives what is left of it.
    pub(super) fn work(&mut self, layout: &Layout, mut fuel: usize) -> Result<usize> {
        while fuel > 0 && !self.is_done() {
            let most = fuel.max(1 << 12).min(rows_at_once(&self.inputs));
            let before: usize = self.inputs.iter().map(|run| run.rows).sum();
            let chunk = step(&mut self.inputs, layout, most)?;
            self.out.push(layout, chunk)?;
            self.inputs.retain(|run| run.rows > 0);
            fuel = fuel.saturating_sub(before - self.inputs.iter().map(|run| run.rows).sum::<usize>());
        }
        Ok(fuel)
    }

    pub(super) fn is_done(&self) -> bool {
        self.inputs.is_empty()
    }

    /// All runs: their rows together are those of the inputs.
    pub(super) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.inputs.iter().chain(std::iter::once(&self.out))
    }
}

/// Where rows come from, in the order in which they are to be.
struct Picked {
    sources: Vec<Arc<Chunk>>,
    places: Vec<(usize, usize)>,
    orders: Vec<u64>,
    /// The places of rows with one hash of which one has another weight than 1.
    doubtful: Vec<(usize, usize)>,
}

/// A run while rows are picked from it.
struct Head {
    run: usize,
    /// The chunk at hand: its number in the run, and among the sources.
    chunk: usize,
    source: usize,
    row: usize,
    order: u64,
}

/// Takes the first `most` rows of `inputs`, and those that have the same hash as the last of them.
fn step(inputs: &mut [Run], layout: &Layout, most: usize) -> Result<Chunk> {
    let weighted = inputs.iter().any(Run::is_weighted);
    let picked = pick(inputs, most, weighted);
    let Picked { sources, mut places, mut orders, doubtful } = picked;
    let mut weights: Option<Vec<i64>> = None;
    if layout.time.is_some() && layout.expired > i64::MIN {
        // What has expired counts for nothing.
        let times: Vec<_> = sources.iter().map(|s| layout.times(&s.columns)).collect();
        let gone = |(s, row): &(usize, usize)| times[*s].as_ref().is_some_and(|t| t.is_before(*row, layout.expired));
        let weight = |place: &(usize, usize)| if gone(place) { 0 } else { sources[place.0].weight(place.1) };
        weights = Some(places.iter().map(weight).collect());
    }
    if weighted || weights.is_some() {
        let all = || places.iter().map(|(s, row)| sources[*s].weight(*row)).collect();
        let mut of: Vec<i64> = weights.take().unwrap_or_else(all);
        net(layout, &sources, &places, &doubtful, &mut of)?;
        let left: Vec<bool> = of.iter().map(|w| *w != 0).collect();
        keep(&mut places, &left);
        keep(&mut orders, &left);
        of.retain(|w| *w != 0);
        weights = Some(of);
    }
    let columns = gather(&sources, &places)?;
    Ok(Chunk::new(layout, orders, columns, weights.map(Into::into)))
}

/// Leaves only those of `all` that `kept` says.
pub(super) fn keep<T>(all: &mut Vec<T>, kept: &[bool]) {
    let mut kept = kept.iter();
    all.retain(|_| kept.next() == Some(&true));
}

/// The rows at `places` of `sources`, a column each.
pub(super) fn gather(sources: &[Arc<Chunk>], places: &[(usize, usize)]) -> Result<Vec<ArrayRef>> {
    let columns = sources.first().map_or(0, |s| s.columns.len());
    (0..columns).map(|column| gather_column(sources, places, column)).collect()
}

/// One column of them; there is a source.
pub(super) fn gather_column(sources: &[Arc<Chunk>], places: &[(usize, usize)], column: usize) -> Result<ArrayRef> {
    let arrays: Vec<&dyn Array> = sources.iter().map(|s| s.columns[column].as_ref()).collect();
    Ok(interleave(&arrays, places)?)
}

fn pick(inputs: &mut [Run], most: usize, weighted: bool) -> Picked {
    let mut sources = vec![];
    let mut heads: Vec<Head> = vec![];
    for (run, input) in inputs.iter().enumerate() {
        if let Some(first) = input.chunks.front() {
            sources.push(first.clone());
            let (source, row, order) = (sources.len() - 1, input.start, first.orders[input.start]);
            heads.push(Head { run, chunk: 0, source, row, order });
        }
    }
    let (mut places, mut orders): (Vec<(usize, usize)>, Vec<u64>) =
        (Vec::with_capacity(most), Vec::with_capacity(most));
    let mut taken = vec![0; inputs.len()];
    let mut doubtful = vec![];
    // Where rows with the hash of the last one begin, and whether one of them has a weight.
    let (mut group, mut in_doubt) = (0, false);
    while let Some(at) = least(&heads) {
        let next = heads.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, h)| h.order).min().unwrap_or(u64::MAX);
        let head = &mut heads[at];
        let chunk = sources[head.source].clone();
        if places.len() >= most && !(weighted && orders.last() == Some(&head.order)) {
            break;
        }
        let from = head.row;
        // All that comes before the other heads; without weights, no further than asked.
        while head.row < chunk.len() && chunk.orders[head.row] <= next {
            let order = chunk.orders[head.row];
            if orders.last() != Some(&order) {
                if in_doubt && orders.len() - group > 1 {
                    doubtful.push((group, orders.len()));
                }
                (group, in_doubt) = (orders.len(), false);
                if places.len() >= most {
                    break;
                }
            } else if places.len() >= most && !weighted {
                break;
            }
            in_doubt |= weighted && chunk.weight(head.row) != 1;
            places.push((head.source, head.row));
            orders.push(order);
            head.row += 1;
        }
        taken[head.run] += head.row - from;
        let stopped = head.row == from;
        if head.row == chunk.len() {
            match inputs[head.run].chunks.get(head.chunk + 1) {
                Some(following) => {
                    sources.push(following.clone());
                    (head.chunk, head.source, head.row) = (head.chunk + 1, sources.len() - 1, 0);
                }
                None => {
                    heads.swap_remove(at);
                    continue;
                }
            }
        }
        if stopped {
            break;
        }
        let head = &mut heads[at];
        head.order = sources[head.source].orders[head.row];
    }
    if in_doubt && orders.len() - group > 1 {
        doubtful.push((group, orders.len()));
    }
    inputs.iter_mut().zip(taken).for_each(|(run, rows)| run.skip(rows));
    Picked { sources, places, orders, doubtful }
}

/// The head with the least order; of several, that of the oldest run.
fn least(heads: &[Head]) -> Option<usize> {
    heads.iter().enumerate().min_by_key(|(_, h)| (h.order, h.run)).map(|(i, _)| i)
}

/// Gives the first of equal rows in `doubtful` ranges the sum of their weights, the others none.
fn net(
    layout: &Layout,
    sources: &[Arc<Chunk>],
    places: &[(usize, usize)],
    doubtful: &[(usize, usize)],
    weights: &mut [i64],
) -> Result<()> {
    if doubtful.is_empty() {
        return Ok(());
    }
    let of: Vec<(usize, usize)> = doubtful.iter().flat_map(|(from, to)| &places[*from..*to]).copied().collect();
    let rows = layout.encoded(&gather(sources, &of)?)?;
    let mut first: HashMap<&[u8], usize, foldhash::fast::FixedState> = HashMap::default();
    let mut row = 0;
    for (from, to) in doubtful {
        first.clear();
        for at in *from..*to {
            // Rows without columns are all alike.
            let bytes = if layout.columns() == 0 { &[][..] } else { rows.row(row).data() };
            let one = *first.entry(bytes).or_insert(at);
            if one != at {
                weights[one] += weights[at];
                weights[at] = 0;
            }
            row += 1;
        }
    }
    Ok(())
}
