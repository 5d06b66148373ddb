//! Where the rows of partitions lie in time: islands between which there are gaps.
//!
//! Which island a row belongs to is found without its rows. An island knows its first and its last row; with a longest length it may
//! be several sessions, of which the rows tell.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use arrow::array::ArrayRef;
use arrow::datatypes::Schema;

use crate::error::Result;
use crate::operator::gap::Sessions;
use crate::state::key_index::KeyIndex;

/// An island takes about so many bytes here.
const ISLAND_BYTES: usize = 64;
/// So many partitions without an island are not worth looking for.
const FEW: usize = 4096;

/// Rows of a partition without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Island {
    /// The number of the partition.
    pub(super) slot: u32,
    /// The times of its first and its last row.
    pub(super) first: i64,
    pub(super) last: i64,
}

/// All islands: see the module's text.
pub(super) struct Islands {
    sessions: Sessions,
    schema: Schema,
    keys: KeyIndex,
    /// The last row of each, by partition and first row.
    open: BTreeMap<(u32, i64), i64>,
    /// When to look at an island, where they close: not after it ends. It may have gone, or grown.
    due: Option<BinaryHeap<Reverse<(i64, u32, i64)>>>,
}

impl Islands {
    /// None, of partitions with the columns of `schema`.
    pub(super) fn new(schema: Schema, sessions: Sessions, closes: bool) -> Result<Self> {
        let keys = KeyIndex::new(&schema)?;
        Ok(Islands { sessions, schema, keys, open: BTreeMap::new(), due: closes.then(BinaryHeap::new) })
    }

    /// The numbers of the partitions of rows with these keys.
    pub(super) fn slots(&mut self, keys: &[ArrayRef], rows: usize) -> Result<Vec<u32>> {
        let mut slots = vec![];
        self.keys.intern(keys, rows, &mut slots)?;
        Ok(slots)
    }

    /// The keys of partitions.
    pub(super) fn keys_of(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        self.keys.gather(slots)
    }

    pub(super) fn insert(&mut self, island: Island) {
        let Island { slot, first, last } = island;
        self.open.insert((slot, first), last);
        if let Some(due) = &mut self.due {
            due.push(Reverse((self.sessions.end(first, last), slot, first)));
        }
    }

    /// Takes the island out that has a row at `time`, or ends so that such a row would belong to it.
    pub(super) fn take_before(&mut self, slot: u32, time: i64) -> Option<Island> {
        let ((_, first), last) = self.open.range((slot, i64::MIN)..=(slot, time)).next_back()?;
        let island = Island { slot, first: *first, last: *last };
        if time >= self.sessions.after(island.last) {
            return None;
        }
        self.open.remove(&(slot, island.first));
        Some(island)
    }

    /// Where the first island behind `time` begins.
    pub(super) fn next_behind(&self, slot: u32, time: i64) -> i64 {
        let next = self.open.range((slot, time)..).next().filter(|((s, _), _)| *s == slot);
        next.map_or(i64::MAX, |((_, first), _)| *first)
    }

    /// Takes the island out that begins at `first`.
    pub(super) fn take(&mut self, slot: u32, first: i64) -> Option<Island> {
        let last = self.open.remove(&(slot, first))?;
        Some(Island { slot, first, last })
    }

    /// Takes an island out of which a session ends at `until` or before.
    pub(super) fn take_due(&mut self, until: i64) -> Option<Island> {
        let due = self.due.as_mut()?;
        while let Some(Reverse((at, slot, first))) = due.peek().copied()
            && at <= until
        {
            due.pop();
            let Some(last) = self.open.get(&(slot, first)).copied() else { continue };
            let end = self.sessions.end(first, last);
            if end <= until {
                self.open.remove(&(slot, first));
                return Some(Island { slot, first, last });
            }
            due.push(Reverse((end, slot, first)));
        }
        None
    }

    /// Forgets the partitions that have no island, if these are many. Partitions get other numbers.
    pub(super) fn sweep(&mut self) -> Result<()> {
        if self.keys.len() <= 2 * self.open.len() + FEW {
            return Ok(());
        }
        let mut slots: Vec<u32> = self.open.keys().map(|(slot, _)| *slot).collect();
        slots.dedup();
        let keys = self.keys.gather(&slots)?;
        self.keys = KeyIndex::new(&self.schema)?;
        let anew = self.slots(&keys, slots.len())?;
        let open = std::mem::take(&mut self.open);
        self.due = self.due.as_ref().map(|_| BinaryHeap::new());
        for ((slot, first), last) in open {
            let place = slots.binary_search(&slot).unwrap_or_default();
            self.insert(Island { slot: anew[place], first, last });
        }
        Ok(())
    }

    /// The bytes held, about.
    pub(super) fn bytes(&self) -> usize {
        let due = self.due.as_ref().map_or(0, |due| due.capacity() * size_of::<Reverse<(i64, u32, i64)>>());
        self.keys.bytes() + self.open.len() * ISLAND_BYTES + due
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field};

    use super::*;
    use crate::operator::window::Length;

    fn islands() -> Islands {
        let schema = Schema::new(vec![Field::new("k", DataType::Int64, true)]);
        let sessions = Sessions { gap: Length::Micros(10), most: None };
        Islands::new(schema, sessions, true).expect("a key of numbers")
    }

    #[test]
    fn an_island_is_found_by_a_time_near_it() {
        let mut all = islands();
        all.insert(Island { slot: 3, first: 20, last: 35 });
        assert_eq!(all.take_before(3, 19), None);
        assert_eq!(all.take_before(3, 45), None);
        assert_eq!(all.take_before(2, 30), None);
        assert_eq!(all.next_behind(3, 12), 20);
        assert_eq!(all.next_behind(2, 12), i64::MAX);
        assert_eq!(all.take_before(3, 44), Some(Island { slot: 3, first: 20, last: 35 }));
    }

    #[test]
    fn what_has_grown_is_due_later() {
        let mut all = islands();
        all.insert(Island { slot: 0, first: 0, last: 5 });
        all.take(0, 0);
        all.insert(Island { slot: 0, first: 0, last: 12 });
        assert_eq!(all.take_due(15), None);
        assert_eq!(all.take_due(21), None);
        assert_eq!(all.take_due(22), Some(Island { slot: 0, first: 0, last: 12 }));
        assert_eq!(all.take_due(i64::MAX), None);
    }

    #[test]
    fn partitions_go_with_their_islands() {
        let mut all = islands();
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..20_000));
        let slots = all.slots(&[keys], 20_000).expect("slots");
        for slot in slots {
            all.insert(Island { slot, first: i64::from(slot), last: i64::from(slot) });
        }
        while all.take_due(19_900).is_some() {}
        let before = all.bytes();
        all.sweep().expect("swept");
        assert!(all.bytes() < before / 10, "{} of {before}", all.bytes());
        let keys: ArrayRef = Arc::new(Int64Array::from(vec![19_995]));
        let slot = all.slots(&[keys], 1).expect("a slot")[0];
        assert_eq!(all.take_before(slot, 20_000), Some(Island { slot, first: 19_995, last: 19_995 }));
    }
}
