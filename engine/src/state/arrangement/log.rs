//! The rows of an arrangement as they came, in blocks, and for each the row of the same key that came before it.
//!
//! A row has a number by which it is known as long as it is kept: that of its block, and its place there. Nothing is moved when
//! rows are taken back: a block of which less than half is left is emptied by who keeps the log.

use std::sync::Arc;

use super::chunk::{Chunk, gather, gather_column, orders};
use super::index::NONE;
use super::layout::Layout;
use crate::changes::Changes;
use crate::error::{Error, ErrorKind, Result};

/// The bits of a row's number that say its place in a block.
const PLACE_BITS: u32 = 16;
/// A block has so many rows at most, and about so many bytes.
pub(super) const MOST_ROWS: usize = 1 << PLACE_BITS;
const MOST_BYTES: usize = 16 << 20;
/// Parts of an open block of so many rows stay as they are until it is full.
const LARGE: usize = 1 << 12;

/// Rows, by their numbers.
#[derive(Default)]
pub(super) struct Log {
    blocks: Vec<Option<Block>>,
    free: Vec<usize>,
    /// The block that takes what comes.
    open: Option<usize>,
    /// The rows that are there.
    pub(super) rows: usize,
    /// Those of them with a weight below 0.
    pub(super) owed: usize,
    bytes: usize,
    /// Whether one has had another weight than 1.
    weighted: bool,
}

/// Up to 65,536 rows.
pub(super) struct Block {
    /// The rows: one part when the block is full.
    parts: Vec<Arc<Chunk>>,
    /// Where each begins.
    starts: Vec<u32>,
    /// For each row the one of the same key that came before.
    next: Vec<u32>,
    /// The weight of each, where one is not 1; 0 for those that are gone.
    weights: Option<Vec<i64>>,
    gone: usize,
    bytes: usize,
}

impl Block {
    fn len(&self) -> usize {
        self.next.len()
    }

    fn weight(&self, place: usize) -> i64 {
        self.weights.as_ref().map_or(1, |weights| weights[place])
    }

    /// In which part the row at `place` is, and where there.
    fn part(&self, place: usize) -> (usize, usize) {
        match self.parts.len() {
            1 => (0, place),
            _ => {
                let part = self.starts.partition_point(|start| *start as usize <= place) - 1;
                (part, place - self.starts[part] as usize)
            }
        }
    }

    fn count(&self) -> usize {
        let rows: usize = self.parts.iter().map(|part| part.bytes).sum();
        rows + self.len() * size_of::<u32>() + self.weights.as_ref().map_or(0, |w| w.len() * size_of::<i64>())
    }

    fn push(&mut self, layout: &Layout, chunk: Arc<Chunk>, weights: Option<&[i64]>) -> Result<()> {
        let (from, to) = (self.len(), self.len() + chunk.len());
        if weights.is_some() || self.weights.is_some() {
            let all = self.weights.get_or_insert_with(|| vec![1; from]);
            match weights {
                Some(weights) => all.extend_from_slice(weights),
                None => all.resize(to, 1),
            }
        }
        self.next.resize(to, NONE);
        self.starts.push(from as u32);
        self.parts.push(chunk);
        while let [.., a, b] = &self.parts[..]
            && a.len() <= 2 * b.len()
            && a.len() + b.len() <= LARGE
        {
            self.join(layout, self.parts.len() - 2)?;
        }
        Ok(())
    }

    /// Makes one of the parts from the one at `from` on.
    fn join(&mut self, layout: &Layout, from: usize) -> Result<()> {
        if self.parts.len() - from > 1 {
            let joined = Chunk::joined(layout, &self.parts[from..])?;
            self.parts.truncate(from);
            self.starts.truncate(from + 1);
            self.parts.push(Arc::new(joined));
        }
        Ok(())
    }
}

/// Rows, with their weights where one is not 1.
pub(super) type Piece = (Arc<Chunk>, Option<Vec<i64>>);

/// The block of a row, and its place there.
fn split(id: u32) -> (usize, usize) {
    ((id >> PLACE_BITS) as usize, id as usize & (MOST_ROWS - 1))
}

fn id_of(block: usize, place: usize) -> u32 {
    (block << PLACE_BITS | place) as u32
}

impl Log {
    fn block(&self, id: u32) -> (&Block, usize) {
        let (block, place) = split(id);
        match &self.blocks[block] {
            Some(block) => (block, place),
            None => unreachable!("a row of a block that is gone"),
        }
    }

    fn block_mut(&mut self, id: u32) -> (&mut Block, usize) {
        let (block, place) = split(id);
        match &mut self.blocks[block] {
            Some(block) => (block, place),
            None => unreachable!("a row of a block that is gone"),
        }
    }

    /// The row of the same key that came before.
    pub(super) fn next(&self, id: u32) -> u32 {
        let (block, place) = self.block(id);
        block.next[place]
    }

    pub(super) fn set_next(&mut self, id: u32, next: u32) {
        let (block, place) = self.block_mut(id);
        block.next[place] = next;
    }

    /// The weight of a row; 0 where it is gone.
    pub(super) fn weight(&self, id: u32) -> i64 {
        if !self.weighted {
            return 1;
        }
        let (block, place) = self.block(id);
        block.weight(place)
    }

    /// Gives a row another weight. One with the weight 0 is gone.
    pub(super) fn set_weight(&mut self, id: u32, weight: i64) {
        let (block, place) = self.block_mut(id);
        let (rows, mut more) = (block.len(), 0);
        let weights = block.weights.get_or_insert_with(|| {
            more = rows * size_of::<i64>();
            vec![1; rows]
        });
        let old = std::mem::replace(&mut weights[place], weight);
        block.gone = block.gone + usize::from(weight == 0) - usize::from(old == 0);
        block.bytes += more;
        self.bytes += more;
        self.weighted = true;
        self.rows = self.rows + usize::from(weight != 0) - usize::from(old != 0);
        self.owed = self.owed + usize::from(weight < 0) - usize::from(old < 0);
    }

    /// Puts rows behind all others, in pieces of those that get consecutive numbers: `each` is told the first number, and where
    /// in `chunk` the rows are.
    pub(super) fn append(
        &mut self,
        layout: &Layout,
        chunk: &Arc<Chunk>,
        weights: Option<&[i64]>,
        mut each: impl FnMut(&mut Log, u32, std::ops::Range<usize>),
    ) -> Result<()> {
        let most = (MOST_BYTES / (chunk.bytes / chunk.len().max(1)).max(1)).clamp(1, MOST_ROWS);
        let mut from = 0;
        while from < chunk.len() {
            let rows = (chunk.len() - from).min(most);
            let part = match rows == chunk.len() {
                true => chunk.clone(),
                false => Arc::new(chunk.slice(layout, from, rows)),
            };
            let weights = weights.map(|w| &w[from..from + rows]).filter(|w| w.iter().any(|w| *w != 1));
            let first = self.push(layout, part, weights)?;
            each(self, first, from..from + rows);
            from += rows;
        }
        Ok(())
    }

    fn push(&mut self, layout: &Layout, chunk: Arc<Chunk>, weights: Option<&[i64]>) -> Result<u32> {
        let fits = |block: &Block| block.len() + chunk.len() <= MOST_ROWS && block.bytes + chunk.bytes <= MOST_BYTES;
        if self.open.and_then(|open| self.blocks[open].as_ref()).is_none_or(|block| !fits(block)) {
            self.seal(layout)?;
            self.begin_block()?;
        }
        self.rows += chunk.len();
        self.owed += weights.map_or(0, |w| w.iter().filter(|w| **w < 0).count());
        self.weighted |= weights.is_some();
        let Some((open, block)) = self.open.and_then(|open| Some((open, self.blocks[open].as_mut()?))) else {
            return Err(Error::internal("an arrangement without a block"));
        };
        let (before, first) = (block.bytes, block.len());
        block.push(layout, chunk, weights)?;
        block.bytes = block.count();
        self.bytes = self.bytes + block.bytes - before;
        Ok(id_of(open, first))
    }

    /// Makes one chunk of the open block.
    fn seal(&mut self, layout: &Layout) -> Result<()> {
        if let Some(block) = self.open.take().and_then(|open| self.blocks[open].as_mut()) {
            block.join(layout, 0)?;
            block.next.shrink_to_fit();
            let before = std::mem::replace(&mut block.bytes, 0);
            block.bytes = block.count();
            self.bytes = self.bytes + block.bytes - before;
        }
        Ok(())
    }

    fn begin_block(&mut self) -> Result<()> {
        let block = Block { parts: vec![], starts: vec![], next: vec![], weights: None, gone: 0, bytes: 0 };
        let at = match self.free.pop() {
            Some(at) => at,
            None => {
                self.blocks.push(None);
                self.blocks.len() - 1
            }
        };
        // The last number is none.
        if at >= (NONE >> PLACE_BITS) as usize {
            return Err(Error::new(ErrorKind::Exhausted, "a state has more rows than can be numbered in one task")
                .with_hint("Raise WITH (parallelism = …), so that more tasks share them."));
        }
        self.blocks[at] = Some(block);
        self.open = Some(at);
        Ok(())
    }

    /// Lets a block go, whose rows are all gone.
    pub(super) fn remove(&mut self, at: usize) {
        let Some(block) = self.blocks[at].take() else { return };
        self.free.push(at);
        self.open = self.open.filter(|open| *open != at);
        self.bytes -= block.bytes;
        self.weighted &= self.rows > 0;
    }

    /// The numbers of the blocks.
    pub(super) fn blocks(&self) -> impl Iterator<Item = usize> + use<> {
        (0..self.blocks.len()).filter(|at| self.blocks[*at].is_some()).collect::<Vec<_>>().into_iter()
    }

    /// Whether so many rows of the block of `id` are gone that the others should be moved.
    pub(super) fn is_sparse(&self, at: usize) -> bool {
        let of = self.blocks[at].as_ref();
        of.is_some_and(|block| block.gone > block.len() / 2 && (self.open != Some(at) || block.len() > LARGE))
            || of.is_some_and(|block| block.gone == block.len())
    }

    /// Whether more than half of a block has expired when all before `bound` has.
    pub(super) fn is_due(&self, at: usize, bound: i64) -> bool {
        self.blocks[at].as_ref().is_some_and(|block| {
            let expired: usize = block.parts.iter().map(|part| part.expired(bound)).sum();
            expired > block.len() / 2
        })
    }

    /// The rows of a block that are there.
    pub(super) fn rows_of(&self, at: usize) -> Vec<u32> {
        let Some(block) = &self.blocks[at] else { return vec![] };
        (0..block.len()).filter(|place| block.weight(*place) != 0).map(|place| id_of(at, place)).collect()
    }

    /// The rows that take others back.
    pub(super) fn owing(&self) -> Vec<u32> {
        let mut owing = vec![];
        for (at, block) in self.blocks.iter().enumerate() {
            let weights = block.as_ref().and_then(|block| block.weights.as_deref()).unwrap_or_default();
            let below = weights.iter().enumerate().filter(|(_, weight)| **weight < 0);
            owing.extend(below.map(|(place, _)| id_of(at, place)));
        }
        owing
    }

    /// The block of a row.
    pub(super) fn block_of(id: u32) -> usize {
        split(id).0
    }

    /// Where rows are.
    pub(super) fn places(&self, ids: &[u32]) -> (Vec<Arc<Chunk>>, Vec<(usize, usize)>) {
        let mut sources = vec![];
        if ids.is_empty() {
            return (sources, vec![]);
        }
        let mut firsts = vec![usize::MAX; self.blocks.len()];
        let places = ids.iter().map(|id| {
            let (at, _) = split(*id);
            let (block, place) = self.block(*id);
            if firsts[at] == usize::MAX {
                firsts[at] = sources.len();
                sources.extend(block.parts.iter().cloned());
            }
            let (part, row) = block.part(place);
            (firsts[at] + part, row)
        });
        let places = places.collect();
        (sources, places)
    }

    /// What rows are looked up by.
    pub(super) fn orders(&self, layout: &Layout, ids: &[u32]) -> Result<Vec<u64>> {
        let (sources, places) = self.places(ids);
        let key = layout.key.iter().map(|k| gather_column(layout, &sources, &places, *k));
        orders(layout, &key.collect::<Result<Vec<_>>>()?, ids.len())
    }

    /// The rows of a block that are there: those that have expired, and the others.
    pub(super) fn expired(&self, layout: &Layout, at: usize) -> (Vec<u32>, Vec<u32>) {
        let Some(block) = &self.blocks[at] else { return (vec![], vec![]) };
        let times: Vec<_> = block.parts.iter().map(|part| layout.times(&part.columns)).collect();
        let expired = |id: &u32| {
            let (part, row) = block.part(split(*id).1);
            times[part].as_ref().is_some_and(|times| times.is_before(row, layout.expired))
        };
        self.rows_of(at).into_iter().partition(expired)
    }

    /// Rows as a chunk of their own.
    pub(super) fn gather(&self, layout: &Layout, ids: &[u32]) -> Result<Chunk> {
        let (sources, places) = self.places(ids);
        gather(layout, &sources, &places)
    }

    /// All rows that are there, some at a time, with their weights where one is not 1.
    pub(super) fn all<'a>(&'a self, layout: &'a Layout) -> impl Iterator<Item = Result<Piece>> + 'a {
        self.blocks().flat_map(move |at| self.pieces(layout, at))
    }

    fn pieces(&self, layout: &Layout, at: usize) -> Vec<Result<Piece>> {
        let Some(block) = &self.blocks[at] else { return vec![] };
        if block.gone > 0 {
            let ids = self.rows_of(at);
            let weights = ids.iter().map(|id| self.weight(*id)).collect();
            return match ids.is_empty() {
                true => vec![],
                false => vec![self.gather(layout, &ids).map(|chunk| (Arc::new(chunk), Some(weights)))],
            };
        }
        let of = |(part, start): (&Arc<Chunk>, &u32)| {
            let range = *start as usize..*start as usize + part.len();
            Ok((part.clone(), block.weights.as_ref().map(|w| w[range].to_vec())))
        };
        block.parts.iter().zip(&block.starts).map(of).collect()
    }

    /// The bytes of the rows that are there, about.
    pub(super) fn row_bytes(&self) -> usize {
        let of = |block: &Block| {
            let bytes: usize = block.parts.iter().map(|part| part.bytes).sum();
            bytes * (block.len() - block.gone) / block.len().max(1)
        };
        self.blocks.iter().flatten().map(of).sum()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Rows with their weights as changes, as they came.
pub(super) fn changes(layout: &Layout, chunk: &Chunk, weights: Option<Vec<i64>>) -> Result<Changes> {
    let given = chunk.columns.iter().enumerate().map(|(at, c)| layout.given_as(at, c));
    let rows = layout.given(given.collect::<Result<Vec<_>>>()?, chunk.len())?;
    Changes::weighted(rows, weights.unwrap_or_else(|| vec![1; chunk.len()]).into())
}
