//! An arrangement: rows by key, each with a weight.
//!
//! ```text
//! index    hash of a key ━▶ its newest row
//! log      ━━━━━━━━ ━━━━━━━━ ━━━━━━━━ ━━━━   blocks of immutable columns, in which each row knows the one of its key before it
//! ```
//! Rows are put behind all others as they come, and an index by the hash of the key says where the newest row of each key is. So
//! what comes is not moved again, and a key is found in one place, however many rows there are. A row that is taken back goes at
//! once; blocks of which little is left are emptied, and rows that expire go with their blocks. This is the log and the index of
//! Chandramouli et al., "FASTER" (SIGMOD 2018), for rows in columns.
//!
//! A checkpoint writes what has come since the last one; a full one writes the blocks as they lie.

mod chunk;
mod equal;
mod index;
mod layout;
mod log;
mod net;
mod pairs;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::take;
use arrow::datatypes::{Int64Type, SchemaRef};
use hashbrown::HashMap;

use super::{Owner, State, check_columns};
use crate::changes::Changes;
use crate::error::Result;
use crate::key::hash_rows;
use crate::time::EventTime;

use chunk::{Chunk, gather_column, order};
use index::{Index, NONE};
use layout::Layout;
use log::{Log, Piece, changes};
pub use pairs::{Cursor, Met, MetRows, Pairs};

/// So many rows that may have expired are looked at for each row that comes.
const EFFORT: usize = 8;
/// And so many when time goes on.
const MUCH: usize = 1 << 17;
/// So many pairs are looked at at once, where nothing is said of them.
const AT_ONCE: usize = 1 << 16;
/// So few bytes are no more than a snapshot of all.
const SMALL: usize = 1 << 20;

/// Rows by key: see the module's text.
pub struct Arrangement {
    layout: Layout,
    log: Log,
    index: Index,
    /// Rows that take others back which did not come.
    owed_for_good: usize,
    /// Blocks of which much may have expired.
    due: Vec<usize>,
    /// What has come since the last snapshot, and the weights of that.
    fresh: Vec<(Arc<Chunk>, Option<ScalarBuffer<i64>>)>,
    fresh_bytes: usize,
    /// More has come than a snapshot of all would be, or there has been none.
    much: bool,
}

/// Rows as an arrangement keeps them, each with the hash of its key: what is to be put into one, or looked up in another.
pub struct Keyed {
    chunk: Arc<Chunk>,
    /// By what they are looked up.
    orders: Vec<u64>,
    /// Their weights, where one is not 1.
    weights: Option<ScalarBuffer<i64>>,
    key: Vec<usize>,
}

impl Keyed {
    fn new(layout: &Layout, chunk: Chunk, orders: Vec<u64>, weights: Option<ScalarBuffer<i64>>) -> Self {
        let weights = weights.filter(|w| w.iter().any(|w| *w != 1));
        Keyed { chunk: Arc::new(chunk), orders, weights, key: layout.key.clone() }
    }

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
        self.weights.as_ref().map_or(1, |w| w[row])
    }

    /// Whether a row is not simply there: it takes others back, or is nothing.
    fn takes_back(&self) -> bool {
        self.weights.as_ref().is_some_and(|w| w.iter().any(|w| *w <= 0))
    }

    /// Those at `rows`, of rows of arrangement `of`.
    pub fn only(&self, of: &Arrangement, rows: &[u32]) -> Result<Keyed> {
        let orders = rows.iter().map(|row| self.orders[*row as usize]).collect();
        let weights = self.weights.as_ref().map(|w| rows.iter().map(|row| w[*row as usize]).collect());
        let at = UInt32Array::from(rows.to_vec());
        let columns = self.chunk.columns.iter().map(|c| take(c, &at, None)).collect::<Result<Vec<_>, _>>()?;
        Ok(Keyed::new(&of.layout, Chunk::new(&of.layout, columns, rows.len()), orders, weights))
    }

    /// The bytes of the rows.
    pub fn bytes(&self) -> usize {
        self.chunk.bytes
    }
}

impl Arrangement {
    /// An empty one for rows of `schema` by the columns `key`.
    pub fn new(schema: SchemaRef, key: Vec<usize>) -> Result<Self> {
        Ok(Arrangement::of(Layout::new(schema, key)?))
    }

    fn of(layout: Layout) -> Self {
        let (log, index) = (Log::default(), Index::default());
        Arrangement { layout, log, index, owed_for_good: 0, due: vec![], fresh: vec![], fresh_bytes: 0, much: true }
    }

    /// The same, of rows that [expire](Arrangement::expire) by their column `time`.
    pub fn expiring(mut self, time: Option<usize>) -> Self {
        self.layout.time = time;
        self
    }

    /// The same, where rows are spread over tasks by the hash of `columns`, not of the whole key.
    pub fn owned_by(mut self, columns: Vec<usize>) -> Self {
        self.layout.owners = Some(columns);
        self
    }

    /// All rows before `bound` in the column by which they expire, and those where it is null, will not be looked for any
    /// more. They may still be found.
    pub fn expire(&mut self, bound: i64) -> Result<()> {
        if bound <= self.layout.expired {
            return Ok(());
        }
        self.layout.expired = bound;
        self.due = self.log.blocks().filter(|at| self.log.is_due(*at, bound)).collect();
        self.let_go(MUCH)
    }

    /// Goes on with letting rows go that have expired.
    fn let_go(&mut self, mut rows: usize) -> Result<()> {
        while rows > 0
            && let Some(at) = self.due.pop()
        {
            rows = rows.saturating_sub(self.expire_block(at)?);
        }
        Ok(())
    }

    /// `changes` of its rows, with the hashes of their keys.
    pub fn keyed(&self, changes: &Changes) -> Result<Keyed> {
        let keys: Vec<ArrayRef> = self.layout.key.iter().map(|k| changes.rows().column(*k).clone()).collect();
        let mut orders = vec![];
        hash_rows(&keys, changes.num_rows(), &mut orders)?;
        orders.iter_mut().for_each(|hash| *hash = order(*hash));
        let chunk = Chunk::new(&self.layout, self.layout.stored(changes.rows())?, changes.num_rows());
        Ok(Keyed::new(&self.layout, chunk, orders, changes.weights().cloned()))
    }

    /// The same, so that rows of one key lie together, as far as its hash tells keys apart.
    pub fn grouped(&self, changes: &Changes) -> Result<Keyed> {
        let rows = self.keyed(changes)?;
        let mut places: Vec<(u64, u32)> = rows.orders.iter().copied().zip(0..).collect();
        if places.is_sorted() {
            return Ok(rows);
        }
        places.sort_unstable();
        let places: Vec<u32> = places.into_iter().map(|(_, row)| row).collect();
        rows.only(self, &places)
    }

    /// Takes `rows` in.
    pub fn insert(&mut self, rows: &Keyed) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        if !self.much {
            self.fresh_bytes += rows.chunk.bytes;
            self.fresh.push((rows.chunk.clone(), rows.weights.clone()));
            if self.fresh_bytes > SMALL && self.fresh_bytes > self.log.bytes() {
                self.much = true;
                self.fresh.clear();
                self.fresh_bytes = 0;
            }
        }
        self.take_in(rows)?;
        self.let_go(rows.len() * EFFORT)
    }

    /// The hashes of `columns` of rows as they are kept.
    fn hashes(&self, rows: &RecordBatch, columns: &[usize]) -> Result<Vec<u64>> {
        // Rows were routed by the columns as they come, and some types have another hash as they are kept.
        let columns = columns.iter().map(|column| self.layout.given_as(*column, rows.column(*column)));
        let mut hashes = vec![];
        hash_rows(&columns.collect::<Result<Vec<_>>>()?, rows.num_rows(), &mut hashes)?;
        Ok(hashes)
    }

    fn take_in(&mut self, rows: &Keyed) -> Result<()> {
        match rows.takes_back() || self.log.owed > 0 {
            true => self.take_in_netted(rows),
            false => self.append(rows),
        }
    }

    /// Puts rows behind all others.
    fn append(&mut self, rows: &Keyed) -> Result<()> {
        let index = &mut self.index;
        let link = |log: &mut Log, mut id: u32, range: Range<usize>| {
            for group in rows.orders[range].chunks(pairs::GROUP) {
                index.touch(group);
                for order in group {
                    let before = index.link(*order, id);
                    if before != NONE {
                        log.set_next(id, before);
                    }
                    id += 1;
                }
            }
        };
        self.log.append(&self.layout, &rows.chunk, rows.weights.as_deref(), link)
    }

    /// The bytes of the rows that are kept.
    pub fn kept_bytes(&self) -> usize {
        self.log.bytes() + self.index.bytes()
    }

    /// The rows that are kept; those that are taken back count until they meet what they take back.
    pub fn rows(&self) -> usize {
        self.log.rows
    }

    /// All rows, with their weights, in pieces: what is taken back may lie in another than what it takes back.
    pub fn all(&self) -> Result<Vec<Changes>> {
        let of = |part: Result<Piece>| {
            let (chunk, weights) = part?;
            changes(&self.layout, &chunk, weights)
        };
        self.log.all(&self.layout).map(of).collect()
    }

    /// The rows that have the keys of `probe`, from `cursor` on, in pairs; about `most` of them. Says whether that was all.
    /// Nothing may be put in between.
    pub fn pairs(&self, probe: &Keyed, cursor: &mut Cursor, most: usize) -> Result<(Pairs, bool)> {
        let mut pairs = Pairs::default();
        let done = pairs::candidates((&self.log, &self.index), &probe.orders, cursor, most, &mut pairs);
        equal::verify(&self.layout, &probe.chunk, &probe.key, &mut pairs)?;
        Ok((pairs, done))
    }

    /// Those of its rows that may have the keys of `probe`, without any that has been taken back; nothing where none has.
    pub fn netted(&self, probe: &Keyed) -> Result<Option<Arrangement>> {
        if self.log.owed == 0 {
            return Ok(None);
        }
        let mut orders = probe.orders.clone();
        orders.sort_unstable();
        orders.dedup();
        let mut of = Arrangement::of(self.layout.again()?);
        let (mut cursor, mut done) = (Cursor::default(), false);
        while !done {
            let mut pairs = Pairs::default();
            done = pairs::candidates((&self.log, &self.index), &orders, &mut cursor, AT_ONCE, &mut pairs);
            let chunk = chunk::gather(&self.layout, &pairs.sources, &pairs.places)?;
            let orders = pairs.probe.iter().map(|row| orders[*row as usize]).collect();
            of.append(&Keyed::new(&self.layout, chunk, orders, Some(pairs.weights.into())))?;
        }
        of.net()?;
        Ok(Some(of))
    }

    /// The sum of the weights of the rows that have the key of each row of `probe`.
    pub fn sums(&self, probe: &Keyed) -> Result<Vec<i64>> {
        let (mut sums, mut cursor) = (vec![0; probe.len()], Cursor::default());
        loop {
            let (pairs, done) = self.pairs(probe, &mut cursor, AT_ONCE)?;
            pairs.add_up(&mut sums);
            if done {
                return Ok(sums);
            }
        }
    }

    /// The first row of `rows`, which are of this arrangement's, that has the key of each.
    pub fn heads(&self, rows: &Keyed) -> Result<Vec<u32>> {
        let mut heads: Vec<u32> = (0..rows.len() as u32).collect();
        let mut left = heads.clone();
        while !left.is_empty() {
            // The first of those with one hash is the head of those that have its key; the others have another.
            let mut first: HashMap<u64, u32, foldhash::fast::FixedState> = HashMap::default();
            left.iter().for_each(|row| heads[*row as usize] = *first.entry(rows.orders[*row as usize]).or_insert(*row));
            left.retain(|row| heads[*row as usize] != *row);
            let mut pairs = Pairs { sources: vec![rows.chunk.clone()], probe: left.clone(), ..Pairs::default() };
            pairs.places = left.iter().map(|row| (0, heads[*row as usize] as usize)).collect();
            (pairs.ids, pairs.weights) = (left.clone(), vec![1; left.len()]);
            equal::verify(&self.layout, &rows.chunk, &rows.key, &mut pairs)?;
            let mut found = pairs.probe.iter().peekable();
            left.retain(|row| found.next_if_eq(&row).is_none());
        }
        Ok(heads)
    }

    /// Some of the rows `met`, which are of this arrangement.
    pub fn met(&self, met: &MetRows, range: Range<usize>) -> Result<Keyed> {
        let (chunk, weights) = met.part(&self.layout, range)?;
        let orders = chunk.orders(&self.layout)?;
        Ok(Keyed::new(&self.layout, chunk, orders, Some(weights.into())))
    }

    /// Columns of the rows `rows` of `probe`, which are of this arrangement's.
    pub fn columns_of(&self, probe: &Keyed, rows: &[u32], columns: &[usize]) -> Result<Vec<ArrayRef>> {
        let all = rows.len() == probe.len() && rows.iter().zip(0..).all(|(row, at)| *row == at);
        let at = if all { UInt32Array::new_null(0) } else { UInt32Array::from(rows.to_vec()) };
        let of = columns.iter().map(|column| {
            let kept = &probe.chunk.columns[*column];
            let some = if all { kept.clone() } else { take(kept, &at, None)? };
            self.layout.given_as(*column, &some)
        });
        of.collect()
    }

    /// Columns of the rows of this arrangement in `pairs`.
    pub fn columns_in(&self, pairs: &Pairs, columns: &[usize]) -> Result<Vec<ArrayRef>> {
        let of = columns.iter().map(|column| {
            let kept = gather_column(&self.layout, &pairs.sources, &pairs.places, *column)?;
            self.layout.given_as(*column, &kept)
        });
        of.collect()
    }
}

impl State for Arrangement {
    fn snapshot(&mut self, full: bool) -> Result<Vec<RecordBatch>> {
        let fresh = std::mem::take(&mut self.fresh);
        self.fresh_bytes = 0;
        if !full {
            return fresh.iter().map(|(chunk, weights)| chunk.snapshot(&self.layout, weights.as_ref())).collect();
        }
        self.much = false;
        let of = |part: Result<Piece>| {
            let (chunk, weights) = part?;
            chunk.snapshot(&self.layout, weights.map(ScalarBuffer::from).as_ref())
        };
        let pieces = self.log.all(&self.layout).map(of).collect::<Result<Vec<_>>>()?;
        match pieces.is_empty() {
            true => Ok(vec![RecordBatch::new_empty(self.layout.snapshot_schema())]),
            false => Ok(pieces),
        }
    }

    fn restore(&mut self, rows: &RecordBatch, owner: Owner) -> Result<()> {
        check_columns(&rows.schema(), &self.layout.snapshot_schema())?;
        let mut rows = rows.clone();
        if let Some(owners) = self.layout.owners.as_ref().filter(|owners| !owners.is_empty()) {
            rows = owner.part_of(&rows, &self.hashes(&rows, owners)?)?;
        }
        let mut hashes = self.hashes(&rows, &self.layout.key)?;
        if self.layout.owners.is_none() && !self.layout.key.is_empty() {
            rows = owner.part_of(&rows, &hashes)?;
            hashes.retain(|hash| owner.owns(*hash));
        }
        let (columns, weights) = rows.columns().split_at(self.layout.columns());
        let weights = weights[0].as_primitive::<Int64Type>().values().clone();
        hashes.iter_mut().for_each(|hash| *hash = order(*hash));
        let chunk = Chunk::new(&self.layout, columns.to_vec(), rows.num_rows());
        self.take_in(&Keyed::new(&self.layout, chunk, hashes, Some(weights)))
    }

    fn restored(&mut self, _watermark: EventTime) -> Result<()> {
        Ok(())
    }

    fn needs_full(&self) -> bool {
        self.much
    }

    fn written_whole(&self) -> Option<usize> {
        Some(self.log.row_bytes() + self.log.rows * size_of::<i64>())
    }

    fn bytes(&self) -> usize {
        self.kept_bytes() + self.fresh_bytes
    }
}
