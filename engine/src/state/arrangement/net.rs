//! Netting: a row that is taken back goes, with what takes it back.
//!
//! Rows that come are looked for among those that they take back, or that take them back, and both are let go at once. Where a key
//! has very many rows those that take others back are kept beside them, and the key is netted when they are many.

use hashbrown::HashMap;

use super::index::{Found, NONE};
use super::log::Log;
use super::pairs::{Cursor, Pairs, candidates};
use super::{AT_ONCE, Arrangement, Keyed, equal};
use crate::error::Result;

/// So many rows are compared for each row that comes, and this many besides.
const FOR_EACH: usize = 16;
const BESIDES: usize = 1 << 14;
/// So few rows that take others back may be kept without a thought.
const FEW: usize = 1 << 10;

impl Arrangement {
    /// Takes rows in of which some take others back, or are taken back by such.
    pub(super) fn take_in_netted(&mut self, rows: &Keyed) -> Result<()> {
        let sign = |row: &u32| rows.weight(*row as usize) > 0;
        let (come, gone): (Vec<u32>, Vec<u32>) = (0..rows.len() as u32).partition(sign);
        let come = rows.only(self, &come)?;
        match self.log.owed {
            0 => self.append(&come)?,
            _ => self.settle(&come)?,
        }
        self.settle(&rows.only(self, &gone)?)?;
        if self.log.owed > FEW + 2 * self.owed_for_good + self.log.rows / 4 {
            self.net()?;
        }
        Ok(())
    }

    /// Takes in rows whose weights have one sign: each goes with a row that is equal and has the other sign, if there is one.
    fn settle(&mut self, rows: &Keyed) -> Result<()> {
        let mut left: Vec<i64> = (0..rows.len()).map(|row| rows.weight(row)).collect();
        let (mut cursor, mut done, mut asked) = (Cursor::default(), rows.is_empty(), 0);
        let (mut emptied, mut blocks) = (vec![], vec![]);
        while !done && asked < rows.len() * FOR_EACH + BESIDES {
            let mut pairs = Pairs::default();
            done = candidates((&self.log, &self.index), &rows.orders, &mut cursor, AT_ONCE, &mut pairs);
            asked += pairs.len();
            equal::same_rows(&self.layout, &rows.chunk, &mut pairs)?;
            for (row, id) in pairs.probe.iter().map(|p| *p as usize).zip(pairs.ids) {
                let (mine, theirs) = (left[row], self.log.weight(id));
                if mine.signum() * theirs.signum() != -1 {
                    continue;
                }
                let both = mine.abs().min(theirs.abs());
                left[row] -= both * mine.signum();
                self.log.set_weight(id, theirs - both * theirs.signum());
                if both == theirs.abs() {
                    emptied.push(rows.orders[row]);
                    blocks.push(Log::block_of(id));
                }
            }
        }
        self.sweep(emptied);
        let rest: Vec<u32> = (0..rows.len() as u32).filter(|row| left[*row as usize] != 0).collect();
        let mut rest_rows = rows.only(self, &rest)?;
        let weights: Vec<i64> = rest.iter().map(|row| left[*row as usize]).collect();
        rest_rows.weights = weights.iter().any(|w| *w != 1).then(|| weights.into());
        self.append(&rest_rows)?;
        self.tidy(blocks)
    }

    /// Nets all keys of which rows are kept that take others back.
    pub(super) fn net(&mut self) -> Result<()> {
        let mut orders = self.log.orders(&self.layout, &self.log.owing())?;
        orders.sort_unstable();
        orders.dedup();
        let (mut ids, mut from, mut blocks) = (vec![], 0, vec![]);
        for to in 1..=orders.len() {
            let mut at = self.index.find(orders[to - 1]).map_or(NONE, |found| found.head);
            while at != NONE {
                ids.push(at);
                at = self.log.next(at);
            }
            if ids.len() >= AT_ONCE || to == orders.len() {
                self.net_rows(&ids)?;
                self.sweep(orders[from..to].to_vec());
                blocks.extend(ids.drain(..).map(Log::block_of));
                blocks.dedup();
                from = to;
            }
        }
        self.owed_for_good = self.log.owed;
        self.tidy(blocks)
    }

    /// Gives the first of equal rows the sum of their weights, the others none.
    fn net_rows(&mut self, ids: &[u32]) -> Result<()> {
        let chunk = self.log.gather(&self.layout, ids)?;
        let rows = self.layout.encoded(&chunk.columns)?;
        let mut first: HashMap<&[u8], (usize, i64), foldhash::fast::FixedState> = HashMap::default();
        for (at, id) in ids.iter().enumerate() {
            // Rows without columns are all alike.
            let bytes = if self.layout.columns() == 0 { &[][..] } else { rows.row(at).data() };
            first.entry(bytes).or_insert((at, 0)).1 += self.log.weight(*id);
        }
        for (at, id) in ids.iter().enumerate() {
            let bytes = if self.layout.columns() == 0 { &[][..] } else { rows.row(at).data() };
            let sum = first.get(bytes).filter(|(one, _)| *one == at).map_or(0, |(_, sum)| *sum);
            if sum != self.log.weight(*id) {
                self.log.set_weight(*id, sum);
            }
        }
        Ok(())
    }

    /// Leaves the rows that are gone out of those of their keys.
    pub(super) fn sweep(&mut self, mut orders: Vec<u64>) {
        orders.sort_unstable();
        orders.dedup();
        for order in orders {
            let Some(found) = self.index.find(order) else { continue };
            let (mut at, mut head, mut last, mut kept) = (found.head, NONE, NONE, 0);
            while at != NONE {
                let next = self.log.next(at);
                if self.log.weight(at) != 0 {
                    match last {
                        NONE => head = at,
                        last => self.log.set_next(last, at),
                    }
                    (last, kept) = (at, kept + 1);
                }
                at = next;
            }
            if last != NONE {
                self.log.set_next(last, NONE);
            }
            self.index.put(order, (head != NONE).then_some(Found { head, many: kept > 1 }));
        }
    }

    /// Moves what is left of blocks of which much is gone.
    fn tidy(&mut self, mut blocks: Vec<usize>) -> Result<()> {
        blocks.sort_unstable();
        blocks.dedup();
        blocks.retain(|at| self.log.is_sparse(*at));
        blocks.into_iter().try_for_each(|at| self.empty(at))
    }

    /// Moves the rows of a block that are there behind all others.
    pub(super) fn empty(&mut self, at: usize) -> Result<()> {
        let ids = self.log.rows_of(at);
        if !ids.is_empty() {
            let chunk = self.log.gather(&self.layout, &ids)?;
            let weights: Vec<i64> = ids.iter().map(|id| self.log.weight(*id)).collect();
            let orders = chunk.orders(&self.layout)?;
            ids.iter().for_each(|id| self.log.set_weight(*id, 0));
            self.sweep(orders.clone());
            self.log.remove(at);
            return self.append(&Keyed::new(&self.layout, chunk, orders, Some(weights.into())));
        }
        self.log.remove(at);
        Ok(())
    }

    /// Lets the rows go that have expired of a block, if these are many. Gives how many rows it has looked at.
    pub(super) fn expire_block(&mut self, at: usize) -> Result<usize> {
        if !self.log.is_due(at, self.layout.expired) {
            return Ok(0);
        }
        let (gone, left) = self.log.expired(&self.layout, at);
        let orders = self.log.orders(&self.layout, &gone)?;
        gone.iter().for_each(|id| self.log.set_weight(*id, 0));
        self.sweep(orders);
        self.empty(at)?;
        Ok(gone.len() + 2 * left.len())
    }
}
