//! An arrangement: rows by key, each with a weight, as immutable sorted chunks.
//!
//! ```text
//! layers   oldest: ━━━━━━━━━━━━━━━━━━━   ━━━━━━━━   ━━━   newest: ━
//! ```
//! What comes is sorted by the hash of its key and becomes a layer. Once the newer layers hold as much as half of the next
//! older one they are merged with it, some rows for each row that comes, so no step takes long; what has been merged is
//! let go at once, so not much more is held than there is. A lookup takes the keys of many rows, sorted likewise, and goes
//! through each layer once. This is the trace of McSherry et al., "Shared Arrangements" (VLDB 2020), for one version.
//!
//! A checkpoint writes what has come since the last one; a full one writes the chunks as they lie, without a copy.

mod chunk;
mod equal;
mod layout;
mod merge;
mod pairs;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};

use super::{Owner, State, check_columns};
use crate::changes::Changes;
use crate::error::Result;
use crate::key::hash_rows;
use crate::time::EventTime;

use chunk::{Chunk, Run};
use layout::Layout;
use merge::Merge;
pub use pairs::{Cursor, Met, MetRows, Pairs};

/// A layer is merged with the newer ones when it has at most so many times their rows.
const FACTOR: usize = 2;
/// So many rows are merged for each row that comes.
const EFFORT: usize = 8;
/// So many rows are not worth a merge of their own.
const FEW: usize = 1 << 10;
/// Merges of so many rows are done at once.
const SMALL: usize = 1 << 16;

/// Rows by key: see the module's text.
pub struct Arrangement {
    layout: Layout,
    /// Oldest first.
    layers: Vec<Layer>,
    /// What has come since the last snapshot.
    fresh: Vec<Arc<Chunk>>,
    fresh_bytes: usize,
    /// More has come than a snapshot of all would be.
    much: bool,
}

enum Layer {
    Whole(Run),
    Merging(Merge),
}

/// Rows in the order of an arrangement: what is to be put into one, or looked up in another.
pub struct Sorted {
    chunk: Arc<Chunk>,
    key: Vec<usize>,
}

impl Sorted {
    /// The number of rows.
    pub fn len(&self) -> usize {
        self.chunk.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The weight of row `row`.
    pub fn weight(&self, row: usize) -> i64 {
        self.chunk.weight(row)
    }

    /// Those at `rows`, which are in order, of rows of arrangement `of`.
    pub fn only(&self, of: &Arrangement, rows: &[u32]) -> Result<Sorted> {
        let places: Vec<(usize, usize)> = rows.iter().map(|row| (0, *row as usize)).collect();
        let orders = rows.iter().map(|row| self.chunk.orders[*row as usize]).collect();
        let weights = rows.iter().map(|row| self.weight(*row as usize)).collect();
        let columns = merge::gather(std::slice::from_ref(&self.chunk), &places)?;
        let chunk = Chunk::new(&of.layout, orders, columns, Some(weights));
        Ok(Sorted { chunk: Arc::new(chunk), key: self.key.clone() })
    }

    /// The bytes of the rows.
    pub fn bytes(&self) -> usize {
        self.chunk.bytes
    }
}

impl Layer {
    fn runs(&self) -> Box<dyn Iterator<Item = &Run> + '_> {
        match self {
            Layer::Whole(run) => Box::new(std::iter::once(run)),
            Layer::Merging(merge) => Box::new(merge.runs()),
        }
    }
}

impl Arrangement {
    /// An empty one for rows of `schema` by the columns `key`, of which `nulls` says whether they may be null.
    pub fn new(schema: SchemaRef, key: Vec<usize>, nulls: bool) -> Result<Self> {
        let layout = Layout::new(schema, key, nulls)?;
        Ok(Arrangement { layout, layers: vec![], fresh: vec![], fresh_bytes: 0, much: false })
    }

    /// The same, of rows that [expire](Arrangement::expire) by their column `time`.
    pub fn expiring(mut self, time: Option<usize>) -> Self {
        self.layout.time = time;
        self
    }

    /// All rows before `bound` in the column by which they expire, and those where it is null, will not be looked for any
    /// more. They may still be found.
    pub fn expire(&mut self, bound: i64) -> Result<()> {
        if bound <= self.layout.expired {
            return Ok(());
        }
        self.layout.expired = bound;
        for layer in &mut self.layers {
            if let Layer::Whole(run) = layer
                && run.rows > FEW
                && run.expired(bound) > run.rows / 2
            {
                *layer = Layer::Merging(Merge::of(vec![std::mem::take(run)]));
            }
        }
        self.work(SMALL)
    }

    /// `changes` of its rows, in its order.
    pub fn sorted(&self, changes: &Changes) -> Result<Sorted> {
        let chunk = Arc::new(Chunk::sorted(&self.layout, &self.layout.key, changes)?);
        Ok(Sorted { chunk, key: self.layout.key.clone() })
    }

    /// Takes `rows` in.
    pub fn insert(&mut self, rows: &Sorted) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        if !self.much {
            self.fresh_bytes += rows.chunk.bytes;
            self.fresh.push(rows.chunk.clone());
            if self.fresh_bytes > SMALL * 16 && self.fresh_bytes > self.kept_bytes() / 2 {
                self.much = true;
                self.fresh.clear();
                self.fresh_bytes = 0;
            }
        }
        self.add(Run::of(rows.chunk.clone()))
    }

    fn add(&mut self, run: Run) -> Result<()> {
        let rows = run.rows;
        self.layers.push(Layer::Whole(run));
        self.begin_merge()?;
        self.work(rows * EFFORT)
    }

    /// Merges the newest layers, if they have become large beside the next older one.
    fn begin_merge(&mut self) -> Result<()> {
        let (mut from, mut rows) = (self.layers.len(), 0);
        while let Some(Layer::Whole(run)) = from.checked_sub(1).and_then(|at| self.layers.get(at)) {
            if from < self.layers.len() && run.rows > FACTOR * rows {
                break;
            }
            rows += run.rows;
            from -= 1;
        }
        if self.layers.len() - from < 2 {
            return Ok(());
        }
        let whole = |layer| match layer {
            Layer::Whole(run) => Some(run),
            Layer::Merging(_) => None,
        };
        let merge = Merge::of(self.layers.drain(from..).filter_map(whole).collect());
        self.layers.push(Layer::Merging(merge));
        if rows <= SMALL { self.finish(from) } else { Ok(()) }
    }

    fn finish(&mut self, at: usize) -> Result<()> {
        if let Layer::Merging(merge) = &mut self.layers[at] {
            merge.work(&self.layout, usize::MAX)?;
            self.settle(at);
        }
        Ok(())
    }

    /// Makes a layer whole that has been merged.
    fn settle(&mut self, at: usize) {
        if let Layer::Merging(merge) = &mut self.layers[at]
            && merge.is_done()
        {
            let out = std::mem::take(&mut merge.out);
            if out.rows > 0 {
                self.layers[at] = Layer::Whole(out);
            } else {
                self.layers.remove(at);
            }
        }
    }

    /// Goes on with merges, the newest first, since they are the smallest.
    fn work(&mut self, mut fuel: usize) -> Result<()> {
        for at in (0..self.layers.len()).rev() {
            if let Layer::Merging(merge) = &mut self.layers[at] {
                fuel = merge.work(&self.layout, fuel)?;
                self.settle(at);
            }
        }
        Ok(())
    }

    fn runs(&self) -> impl Iterator<Item = &Run> {
        self.layers.iter().flat_map(Layer::runs)
    }

    /// The bytes of the rows that are kept.
    pub fn kept_bytes(&self) -> usize {
        self.runs().map(Run::bytes).sum()
    }

    /// The rows that are kept; those that are taken back count until they meet what they take back.
    pub fn rows(&self) -> usize {
        self.runs().map(|run| run.rows).sum()
    }

    /// All rows, with their weights, in pieces: what is taken back may lie in another than what it takes back.
    pub fn all(&self) -> Result<Vec<Changes>> {
        let mut pieces = vec![];
        for run in self.runs() {
            for (i, chunk) in run.chunks.iter().enumerate() {
                pieces.push(chunk.changes(&self.layout, if i == 0 { run.start } else { 0 })?);
            }
        }
        Ok(pieces)
    }

    /// The rows that have the keys of `probe`, from `cursor` on, in pairs; about `most` of them. Says whether that was all.
    /// Nothing may be put in between.
    pub fn pairs(&self, probe: &Sorted, cursor: &mut Cursor, most: usize) -> Result<(Pairs, bool)> {
        let mut pairs = Pairs::default();
        let done = pairs::candidates(self.runs(), &probe.chunk.orders, cursor, most, &mut pairs);
        equal::verify(&self.layout, &probe.chunk, &probe.key, &mut pairs)?;
        Ok((pairs, done))
    }

    /// Those of its rows that may have the keys of `probe`, without any that has been taken back; nothing where none has.
    pub fn netted(&self, probe: &Sorted) -> Result<Option<Arrangement>> {
        if !self.runs().any(Run::takes_back) {
            return Ok(None);
        }
        let mut orders = probe.chunk.orders.clone();
        orders.dedup();
        let run = pairs::netted(&self.layout, self.runs(), &orders)?;
        let (layout, layers) = (self.layout.again()?, vec![Layer::Whole(run)]);
        Ok(Some(Arrangement { layout, layers, fresh: vec![], fresh_bytes: 0, much: false }))
    }

    /// The sum of the weights of the rows that have the key of each row of `probe`.
    pub fn sums(&self, probe: &Sorted) -> Result<Vec<i64>> {
        let (mut sums, mut cursor) = (vec![0; probe.len()], Cursor::default());
        loop {
            let (pairs, done) = self.pairs(probe, &mut cursor, SMALL)?;
            pairs.add_up(&mut sums);
            if done {
                return Ok(sums);
            }
        }
    }

    /// The first row of `rows`, which are of this arrangement's, that has the key of each.
    pub fn heads(&self, rows: &Sorted) -> Result<Vec<u32>> {
        let orders = &rows.chunk.orders;
        let mut heads: Vec<u32> = (0..rows.len() as u32).collect();
        for row in 1..orders.len() {
            if orders[row] == orders[row - 1] {
                heads[row] = heads[row - 1];
            }
        }
        // Rows that have only the hash of their head; the first of them is the head of those that have its key.
        let mut left: Vec<u32> = (0..rows.len() as u32).filter(|row| heads[*row as usize] != *row).collect();
        while !self.layout.exact && !left.is_empty() {
            let mut pairs = Pairs { sources: vec![rows.chunk.clone()], ..Pairs::default() };
            pairs.places = left.iter().map(|row| (0, heads[*row as usize] as usize)).collect();
            (pairs.weights, pairs.probe) = (vec![1; left.len()], left.clone());
            equal::verify(&self.layout, &rows.chunk, &rows.key, &mut pairs)?;
            let mut found = pairs.probe.iter().peekable();
            left.retain(|row| found.next_if_eq(&row).is_none());
            let mut head: Option<u32> = None;
            for row in &left {
                let same = head.filter(|head| orders[*head as usize] == orders[*row as usize]);
                heads[*row as usize] = same.unwrap_or(*row);
                head = Some(heads[*row as usize]);
            }
            left.retain(|row| heads[*row as usize] != *row);
        }
        Ok(heads)
    }

    /// Some of the rows `met`, which are of this arrangement.
    pub fn met(&self, met: &MetRows, range: Range<usize>) -> Result<Sorted> {
        Ok(Sorted { chunk: Arc::new(met.chunk(&self.layout, range)?), key: self.layout.key.clone() })
    }

    /// Columns of the rows `rows` of `probe`, which are of this arrangement's.
    pub fn columns_of(&self, probe: &Sorted, rows: &[u32], columns: &[usize]) -> Result<Vec<ArrayRef>> {
        let places: Vec<(usize, usize)> = rows.iter().map(|row| (0, *row as usize)).collect();
        self.gather(std::slice::from_ref(&probe.chunk), &places, columns)
    }

    /// Columns of the rows of this arrangement in `pairs`.
    pub fn columns_in(&self, pairs: &Pairs, columns: &[usize]) -> Result<Vec<ArrayRef>> {
        self.gather(&pairs.sources, &pairs.places, columns)
    }

    fn gather(&self, sources: &[Arc<Chunk>], places: &[(usize, usize)], columns: &[usize]) -> Result<Vec<ArrayRef>> {
        let gathered = columns.iter().map(|column| {
            let kept = match places.is_empty() {
                true => self.layout.none(*column),
                false => merge::gather_column(sources, places, *column)?,
            };
            self.layout.given_as(*column, &kept)
        });
        gathered.collect()
    }
}

impl State for Arrangement {
    fn snapshot(&mut self, full: bool) -> Result<Vec<RecordBatch>> {
        let fresh = std::mem::take(&mut self.fresh);
        self.fresh_bytes = 0;
        if !full {
            return fresh.iter().map(|chunk| chunk.snapshot(&self.layout, 0)).collect();
        }
        self.much = false;
        let mut pieces = vec![];
        for run in self.runs() {
            for (i, chunk) in run.chunks.iter().enumerate() {
                pieces.push(chunk.snapshot(&self.layout, if i == 0 { run.start } else { 0 })?);
            }
        }
        if pieces.is_empty() {
            pieces.push(RecordBatch::new_empty(self.layout.snapshot_schema()));
        }
        Ok(pieces)
    }

    fn restore(&mut self, rows: &RecordBatch, owner: Owner) -> Result<()> {
        check_columns(&rows.schema(), &self.layout.snapshot_schema())?;
        // Rows were routed by the keys as they come, and some types have another hash as they are kept.
        let key = self.layout.key.iter().map(|k| self.layout.given_as(*k, rows.column(*k)));
        let mut hashes = vec![];
        hash_rows(&key.collect::<Result<Vec<_>>>()?, rows.num_rows(), &mut hashes)?;
        let mut rows = rows.clone();
        if !self.layout.key.is_empty() {
            rows = owner.part_of(&rows, &hashes)?;
            hashes.retain(|hash| owner.owns(*hash));
        }
        let (columns, weights) = rows.columns().split_at(self.layout.columns());
        let weights = weights[0].as_primitive::<Int64Type>().values().clone();
        let chunk = Chunk::ordered(&self.layout, &hashes, columns.to_vec(), Some(weights))?;
        // Most of what is read back was written in order.
        if let Some(Layer::Whole(last)) = self.layers.last_mut()
            && chunk.orders.first().is_some_and(|first| last.last().is_some_and(|last| last < *first))
        {
            return last.push(&self.layout, chunk);
        }
        if chunk.len() > 0 { self.add(Run::of(Arc::new(chunk))) } else { Ok(()) }
    }

    fn restored(&mut self, _watermark: EventTime) -> Result<()> {
        Ok(())
    }

    fn needs_full(&self) -> bool {
        self.much
    }

    fn bytes(&self) -> usize {
        self.kept_bytes() + self.fresh_bytes
    }
}
