//! Where the rows of a key are: the newest one, by the hash of the key.
//!
//! Open addressing with linear probing, in a table for each key group once there are many keys, so that one grows in a short
//! time. What is looked up by is an order: the key group in its first 8 bits says the table, the next 23 where to look
//! there, and nothing tells keys apart that have these in common: who finds rows compares their keys.

use std::hint::black_box;

/// No row.
pub(super) const NONE: u32 = u32::MAX;

/// The tables of many keys, and what is many.
const SHARDS: usize = 1 << SHARD_BITS;
const SHARD_BITS: u32 = 8;
const MANY_KEYS: usize = 1 << 12;
const MARK_BITS: u32 = 31;
const HOME_BITS: u32 = MARK_BITS - SHARD_BITS;
/// Set in the mark of a slot whose row is followed by another.
const MANY: u32 = 1 << MARK_BITS;
/// A table is never fuller than so many parts of 16: then a key is found in a few steps.
const FULL: usize = 13;
const SMALLEST: usize = 4;
/// A table of fewer slots doubles; a larger one grows by less, since memory counts then.
const LARGE: usize = 1 << 14;

/// The newest row of each key.
#[derive(Default)]
pub(super) struct Index {
    /// None while it is empty, one of few keys.
    shards: Vec<Shard>,
    used: usize,
    slots: usize,
}

#[derive(Clone, Default)]
struct Shard {
    slots: Vec<Slot>,
    used: usize,
}

#[derive(Clone, Copy)]
struct Slot {
    mark: u32,
    head: u32,
}

const EMPTY: Slot = Slot { mark: 0, head: NONE };

/// What is found of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The newest of its rows.
    pub(super) head: u32,
    /// Whether that is followed by others.
    pub(super) many: bool,
}

fn mark_of(order: u64) -> u32 {
    (order >> (64 - MARK_BITS)) as u32
}

impl Shard {
    fn home(&self, mark: u32) -> usize {
        let part = u64::from(mark & ((1 << HOME_BITS) - 1));
        ((part * self.slots.len() as u64) >> HOME_BITS) as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    /// The slot of `mark`, or else the empty one where it would be. There are slots.
    fn find(&self, mark: u32) -> usize {
        let mut at = self.home(mark);
        while self.slots[at].head != NONE && self.slots[at].mark & !MANY != mark {
            at = self.after(at);
        }
        at
    }

    /// Moves all into `slots` slots.
    fn resize(&mut self, slots: usize) {
        let before = std::mem::replace(&mut self.slots, vec![EMPTY; slots]);
        for slot in before.into_iter().filter(|slot| slot.head != NONE) {
            let at = self.find(slot.mark & !MANY);
            self.slots[at] = slot;
        }
    }

    /// Empties slot `at` and moves those up that would not be found any more.
    fn empty(&mut self, at: usize) {
        let far = |from: usize, to: usize| if to >= from { to - from } else { to + self.slots.len() - from };
        let (mut hole, mut next, mut moves) = (at, self.after(at), vec![]);
        while self.slots[next].head != NONE && next != at {
            if far(self.home(self.slots[next].mark), next) >= far(hole, next) {
                moves.push((next, hole));
                hole = next;
            }
            next = self.after(next);
        }
        for (from, to) in moves {
            self.slots[to] = self.slots[from];
        }
        self.slots[hole] = EMPTY;
        self.used -= 1;
    }
}

impl Index {
    fn shard_of(&self, mark: u32) -> usize {
        if self.shards.len() == SHARDS { ((mark & !MANY) >> HOME_BITS) as usize } else { 0 }
    }

    /// Makes room for one key more in the table of `mark`. Gives the number of that.
    fn grow(&mut self, mark: u32) -> usize {
        if self.shards.is_empty() {
            self.shards.push(Shard::default());
        }
        if self.shards.len() == 1 && self.used == MANY_KEYS {
            let one = std::mem::replace(&mut self.shards, vec![Shard::default(); SHARDS]);
            (self.used, self.slots) = (0, 0);
            for slot in one.into_iter().flat_map(|shard| shard.slots).filter(|slot| slot.head != NONE) {
                let shard = self.grow(slot.mark);
                let shard = &mut self.shards[shard];
                let at = shard.find(slot.mark & !MANY);
                shard.slots[at] = slot;
                shard.used += 1;
                self.used += 1;
            }
        }
        let at = self.shard_of(mark);
        let shard = &mut self.shards[at];
        if (shard.used + 1) * 16 > shard.slots.len() * FULL {
            // They begin with other sizes, so that they do not all grow at one time.
            let more = match shard.slots.len() {
                0 => SMALLEST + at % 16,
                few if few < LARGE => few,
                many => many * 3 / 8,
            };
            let slots = shard.slots.len() + more;
            self.slots += slots - shard.slots.len();
            shard.resize(slots);
        }
        at
    }

    /// Makes `id` the newest row of the key with this order. Gives the one before.
    pub(super) fn link(&mut self, order: u64, id: u32) -> u32 {
        let mark = mark_of(order);
        let shard = self.grow(mark);
        let shard = &mut self.shards[shard];
        let at = shard.find(mark);
        let slot = &mut shard.slots[at];
        let before = std::mem::replace(&mut slot.head, id);
        if before == NONE {
            slot.mark = mark;
            shard.used += 1;
            self.used += 1;
        } else {
            slot.mark |= MANY;
        }
        before
    }

    /// What there is of the key with this order.
    pub(super) fn find(&self, order: u64) -> Option<Found> {
        let mark = mark_of(order);
        let shard = self.shards.get(self.shard_of(mark)).filter(|shard| shard.used > 0)?;
        let slot = shard.slots[shard.find(mark)];
        (slot.head != NONE).then_some(Found { head: slot.head, many: slot.mark & MANY != 0 })
    }

    /// Says that the key with this order, which has rows, has these now.
    pub(super) fn put(&mut self, order: u64, found: Option<Found>) {
        let mark = mark_of(order);
        let shard = self.shard_of(mark);
        let shard = &mut self.shards[shard];
        let at = shard.find(mark);
        match found {
            Some(found) => {
                let many = if found.many { MANY } else { 0 };
                shard.slots[at] = Slot { mark: mark | many, head: found.head };
            }
            None => {
                shard.empty(at);
                self.used -= 1;
                let before = shard.slots.len();
                match shard.used {
                    0 => shard.slots = vec![],
                    used if used * 4 < before && before > 16 * SMALLEST => shard.resize(before / 2),
                    _ => {}
                }
                self.slots -= before - shard.slots.len();
                if self.used == 0 {
                    self.shards = vec![];
                }
            }
        }
    }

    /// Asks for the memory in which `orders` are looked for, all at once.
    pub(super) fn touch(&self, orders: &[u64]) {
        if self.shards.is_empty() {
            return;
        }
        let seen = orders.iter().fold(0, |seen, order| {
            let mark = mark_of(*order);
            let shard = &self.shards[self.shard_of(mark)];
            seen ^ shard.slots.get(shard.home(mark)).map_or(0, |slot| slot.head)
        });
        black_box(seen);
    }

    pub(super) fn bytes(&self) -> usize {
        self.slots * size_of::<Slot>() + self.shards.len() * size_of::<Shard>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn keys_that_come_and_go_are_found_like_those_of_a_map() {
        let mut rng = StdRng::seed_from_u64(5);
        for (keys, spread) in [(300_u64, 1_u64 << 44), (300, 1 << 58), (300, u64::MAX), (20_000, u64::MAX)] {
            let (mut index, mut all) = (Index::default(), BTreeMap::new());
            for round in 0..100_000_u32 {
                let order = (rng.random_range(0..keys) * (spread / keys)) & !((1 << 33) - 1);
                if rng.random_bool(if round < 40_000 { 0.7 } else { 0.4 }) {
                    assert_eq!(index.link(order, round), all.insert(order, round).unwrap_or(NONE), "round {round}");
                } else if all.remove(&order).is_some() {
                    index.put(order, None);
                }
                let asked = (rng.random_range(0..keys) * (spread / keys)) & !((1 << 33) - 1);
                assert_eq!(index.find(asked).map(|f| f.head), all.get(&asked).copied(), "round {round}");
            }
            let orders: Vec<u64> = all.into_keys().collect();
            orders.iter().for_each(|order| index.put(*order, None));
            assert_eq!(index.bytes(), 0, "it is empty");
        }
    }
}
