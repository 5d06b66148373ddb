//! Chunks and runs: immutable rows in the order of their keys' hashes.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{concat, take};

use super::layout::Layout;
use crate::changes::{Changes, array_bytes};
use crate::error::Result;
use crate::key::hash_rows;

/// A chunk has about so many rows at most, and about so many bytes.
const MOST_ROWS: usize = 1 << 16;
const MOST_BYTES: usize = 16 << 20;

/// Rows in order, with their weights.
pub(super) struct Chunk {
    /// What rows are ordered by: the hash of their key, its key group first.
    pub(super) orders: Vec<u64>,
    /// The rows, as they are kept.
    pub(super) columns: Vec<ArrayRef>,
    /// Their weights, where one is not 1.
    pub(super) weights: Option<ScalarBuffer<i64>>,
    /// Whether one of them is below 0.
    pub(super) takes_back: bool,
    /// What it takes.
    pub(super) bytes: usize,
    /// The first and the last time at which its rows expire, where they do.
    pub(super) times: Option<(i64, i64)>,
    fences: Option<Fences>,
}

/// Where to look for an order: the range from the first to the last is cut into even parts, each of which holds about so many
/// rows, since hashes lie evenly.
struct Fences {
    first: u64,
    /// Parts for each unit of order, as a fraction of 2^64.
    scale: u64,
    /// The first row of each part, and the end.
    rows: Vec<u32>,
}

/// A part has about so many rows.
const PART: usize = 16;
/// In so few rows nothing is gained.
const FEW: usize = 256;

impl Fences {
    fn of(orders: &[u64]) -> Option<Self> {
        let (first, last) = (*orders.first()?, *orders.last()?);
        let parts = orders.len() / PART;
        let span = u128::from(last - first) + 1;
        if orders.len() < FEW || span <= parts as u128 {
            return None;
        }
        let scale = (((parts as u128) << 64) / span) as u64;
        let mut fences = Fences { first, scale, rows: Vec::with_capacity(parts + 1) };
        for (row, order) in orders.iter().enumerate() {
            let part = fences.part(*order);
            while fences.rows.len() <= part {
                fences.rows.push(row as u32);
            }
        }
        fences.rows.push(orders.len() as u32);
        Some(fences)
    }

    fn part(&self, order: u64) -> usize {
        ((u128::from(order - self.first) * u128::from(self.scale)) >> 64) as usize
    }
}

impl Chunk {
    /// Rows that are in order.
    pub(super) fn new(
        layout: &Layout,
        orders: Vec<u64>,
        columns: Vec<ArrayRef>,
        weights: Option<ScalarBuffer<i64>>,
    ) -> Self {
        let times = layout.times(&columns).and_then(|times| times.range());
        let weights = weights.filter(|w| w.iter().any(|w| *w != 1));
        let takes_back = weights.as_ref().is_some_and(|w| w.iter().any(|w| *w < 0));
        let bytes = orders.len() * size_of::<u64>()
            + columns.iter().map(array_bytes).sum::<usize>()
            + weights.as_ref().map_or(0, |w| w.len() * size_of::<i64>());
        let fences = Fences::of(&orders);
        let bytes = bytes + fences.as_ref().map_or(0, |f| f.rows.len() * size_of::<u32>());
        Chunk { orders, columns, weights, takes_back, bytes, times, fences }
    }

    /// Brings `changes` into order. `key` are the columns of their key.
    pub(super) fn sorted(layout: &Layout, key: &[usize], changes: &Changes) -> Result<Self> {
        let keys: Vec<ArrayRef> = key.iter().map(|k| changes.rows().column(*k).clone()).collect();
        let mut hashes = vec![];
        hash_rows(&keys, changes.num_rows(), &mut hashes)?;
        Chunk::ordered(layout, &hashes, layout.stored(changes.rows())?, changes.weights().cloned())
    }

    /// Brings rows whose keys have these hashes into order; `columns` are as they are kept.
    pub(super) fn ordered(
        layout: &Layout,
        hashes: &[u64],
        columns: Vec<ArrayRef>,
        weights: Option<ScalarBuffer<i64>>,
    ) -> Result<Self> {
        let mut places: Vec<(u64, u32)> = hashes.iter().enumerate().map(|(i, h)| (order(*h), i as u32)).collect();
        if places.is_sorted() {
            let orders = places.into_iter().map(|(order, _)| order).collect();
            return Ok(Chunk::new(layout, orders, columns, weights));
        }
        places.sort_unstable();
        let rows: UInt32Array = places.iter().map(|(_, row)| *row).collect();
        let columns = columns.iter().map(|c| take(c, &rows, None)).collect::<Result<Vec<_>, _>>()?;
        let weights = weights.map(|w| rows.values().iter().map(|row| w[*row as usize]).collect());
        Ok(Chunk::new(layout, places.into_iter().map(|(order, _)| order).collect(), columns, weights))
    }

    /// The first row that is not before `order`.
    pub(super) fn first_from(&self, order: u64) -> usize {
        let (from, to) = match &self.fences {
            Some(fences) if order >= fences.first => {
                let part = fences.part(order);
                match (fences.rows.get(part), fences.rows.get(part + 1)) {
                    (Some(from), Some(to)) => (*from as usize, *to as usize),
                    _ => return self.orders.len(),
                }
            }
            Some(_) => return 0,
            None => (0, self.orders.len()),
        };
        from + self.orders[from..to].partition_point(|o| *o < order)
    }

    /// The number of rows.
    pub(super) fn len(&self) -> usize {
        self.orders.len()
    }

    pub(super) fn weight(&self, row: usize) -> i64 {
        self.weights.as_ref().map_or(1, |w| w[row])
    }

    /// The rows from `start` on, as they came.
    pub(super) fn changes(&self, layout: &Layout, start: usize) -> Result<Changes> {
        let rows = self.len() - start;
        let given = |(at, c): (usize, &ArrayRef)| layout.given_as(at, &c.slice(start, rows));
        let columns = self.columns.iter().enumerate().map(given).collect::<Result<Vec<_>>>()?;
        let weights = (start..self.len()).map(|row| self.weight(row)).collect();
        Changes::weighted(layout.given(columns, rows)?, weights)
    }

    /// The rows from `start` on, as a snapshot has them.
    pub(super) fn snapshot(&self, layout: &Layout, start: usize) -> Result<RecordBatch> {
        let rows = self.len() - start;
        let mut columns: Vec<ArrayRef> = self.columns.iter().map(|c| c.slice(start, rows)).collect();
        let weights = match &self.weights {
            Some(weights) => weights.slice(start, rows),
            None => vec![1; rows].into(),
        };
        columns.push(Arc::new(Int64Array::new(weights, None)));
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(layout.snapshot_schema(), columns, &options)?)
    }
}

/// By what rows with this hash of their key are ordered: what says their key group comes first.
pub(super) fn order(hash: u64) -> u64 {
    hash.rotate_right(8)
}

/// Rows in order, in chunks. Those that have been moved elsewhere are gone from its front.
#[derive(Clone, Default)]
pub(super) struct Run {
    pub(super) chunks: VecDeque<Arc<Chunk>>,
    /// So many rows of the first chunk are gone.
    pub(super) start: usize,
    /// The rows that are left.
    pub(super) rows: usize,
}

impl Run {
    pub(super) fn of(chunk: Arc<Chunk>) -> Self {
        let rows = chunk.len();
        Run { chunks: VecDeque::from([chunk]), start: 0, rows }
    }

    /// Adds rows behind all others; small chunks become one.
    pub(super) fn push(&mut self, layout: &Layout, chunk: Chunk) -> Result<()> {
        self.rows += chunk.len();
        let whole = self.chunks.len() > 1 || self.start == 0;
        let small =
            |last: &Arc<Chunk>| last.len() + chunk.len() <= MOST_ROWS / 2 && last.bytes + chunk.bytes <= MOST_BYTES / 2;
        let chunk = match self.chunks.pop_back_if(|last| whole && small(last)) {
            Some(last) => joined(layout, &last, &chunk)?,
            None => chunk,
        };
        self.chunks.push_back(Arc::new(chunk));
        Ok(())
    }

    /// Takes `rows` rows of the first chunk away.
    pub(super) fn skip(&mut self, rows: usize) {
        self.start += rows;
        self.rows -= rows;
        while self.chunks.front().is_some_and(|first| self.start >= first.len()) {
            self.start -= self.chunks.pop_front().map_or(0, |c| c.len());
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.chunks.iter().map(|c| c.bytes).sum()
    }

    /// Whether a row has another weight than 1.
    pub(super) fn is_weighted(&self) -> bool {
        self.chunks.iter().any(|c| c.weights.is_some())
    }

    /// Whether it takes rows back of which others may still be kept.
    pub(super) fn takes_back(&self) -> bool {
        self.chunks.iter().any(|c| c.takes_back)
    }

    /// About how many rows have expired when all before `bound` has.
    pub(super) fn expired(&self, bound: i64) -> usize {
        let of = |chunk: &Arc<Chunk>| match chunk.times {
            None => chunk.len(),
            Some((_, last)) if last < bound => chunk.len(),
            Some((first, _)) if first >= bound => 0,
            Some((first, last)) => {
                let share = (bound as f64 - first as f64) / (last as f64 - first as f64 + 1.0);
                (chunk.len() as f64 * share) as usize
            }
        };
        self.chunks.iter().map(of).sum()
    }

    /// By what its last row is ordered.
    pub(super) fn last(&self) -> Option<u64> {
        self.chunks.back().and_then(|c| c.orders.last().copied())
    }
}

fn joined(layout: &Layout, a: &Chunk, b: &Chunk) -> Result<Chunk> {
    let orders = [a.orders.as_slice(), &b.orders].concat();
    let columns = a.columns.iter().zip(&b.columns).map(|(a, b)| concat(&[a, b])).collect::<Result<Vec<_>, _>>()?;
    let weights = (a.weights.is_some() || b.weights.is_some())
        .then(|| [a, b].into_iter().flat_map(|c| (0..c.len()).map(|row| c.weight(row))).collect());
    Ok(Chunk::new(layout, orders, columns, weights))
}

/// How many rows a chunk of rows like these may have.
pub(super) fn rows_at_once<'a>(runs: impl IntoIterator<Item = &'a Run>) -> usize {
    let first = runs.into_iter().filter_map(|run| run.chunks.front());
    let (bytes, rows) = first.fold((0, 0), |(bytes, rows), c| (bytes + c.bytes, rows + c.len()));
    (MOST_BYTES / (bytes / rows.max(1)).max(1)).clamp(1, MOST_ROWS)
}
