//! Where the slots of keys are found: hash tables side by side, each with a part of the hashes.
//!
//! A table that grows moves all of its entries, for which it holds both places; of one for tens of millions of keys that
//! takes a second and a multiple of its memory. Here the parts of a large one grow one after the other, well before the last
//! of them has to: the idea of W. Litwin, "Linear Hashing: A New Tool for File and Table Addressing", 1980, with whole
//! tables in the place of pages.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Found;

/// Parts of a large table.
const PARTS: usize = 64;
/// The parts of hashes: bits that tables do not go by.
const PART_BIT: u32 = 48;
/// As many keys are not worth parts.
const FEW: usize = 1 << 16;
/// Parts grow when they are filled to between so much, in hundredths of what they can hold,…
const FIRST: usize = 80;
/// …and so much.
const LAST: usize = 100;

/// An entry. The hash lies in two halves, the way it would as a whole, so that no bytes lie between entries.
#[derive(Clone, Copy)]
#[repr(C)]
struct Entry {
    low: u32,
    high: u32,
    slot: u32,
}

impl Entry {
    fn new(hash: u64, slot: u32) -> Self {
        Entry { low: hash as u32, high: (hash >> 32) as u32, slot }
    }

    #[inline]
    fn hash(&self) -> u64 {
        u64::from(self.high) << 32 | u64::from(self.low)
    }

    /// By what a table places it.
    #[inline]
    fn place(&self) -> u64 {
        place(self.hash())
    }
}

/// By what a table places `hash`: its low bits say which task has the key, so all keys of one have some of them in common.
#[inline]
fn place(hash: u64) -> u64 {
    hash.rotate_right(16)
}

/// Slots by hash; no two of one hash.
pub(super) struct Places {
    /// One, or [`PARTS`].
    parts: Vec<HashTable<Entry>>,
}

impl Places {
    pub(super) fn new() -> Self {
        Places { parts: vec![HashTable::new()] }
    }

    /// The slots of `hashes`, into `slots`, which is as long; the row of one that has none goes to `new`, which gives it one.
    #[inline]
    pub(super) fn find_all(&mut self, hashes: &[u64], slots: &mut [u32], mut new: impl FnMut(u32) -> u32) {
        let rows = hashes.iter().zip(slots).enumerate();
        match &mut self.parts[..] {
            [one] => rows.for_each(|(row, (hash, slot))| *slot = find(one, *hash, || new(row as u32))),
            parts => rows.for_each(|(row, (hash, slot))| {
                let part = part_of(*hash, parts.len());
                *slot = find(&mut parts[part], *hash, || new(row as u32));
            }),
        }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.parts.iter().map(bytes_of).sum()
    }

    /// Lets parts grow whose turn it is, before up to `keys` keys come.
    pub(super) fn make_room(&mut self, keys: usize) {
        if self.parts.len() == 1 {
            if self.parts[0].len() > FEW {
                self.split(0);
            }
            return;
        }
        for at in self.due(keys) {
            let part = &mut self.parts[at];
            part.reserve(part.capacity() + 1 - part.len(), Entry::place);
        }
    }

    /// What is held besides, while room for up to `keys` keys is made and after that.
    pub(super) fn growth(&self, keys: usize) -> usize {
        match &self.parts[..] {
            [one] if one.len() + keys > one.capacity() => 2 * bytes_of(one),
            [_] => 0,
            parts => {
                let due = self.due(keys).into_iter().map(|at| bytes_of(&parts[at]));
                let (sum, most) = due.fold((0, 0), |(sum, most), bytes| (sum + bytes, bytes.max(most)));
                sum + most
            }
        }
    }

    /// Makes room for `keys` keys in an empty table.
    pub(super) fn reserve(&mut self, keys: usize) {
        if keys > FEW && self.parts.len() == 1 {
            self.split(keys);
        } else if let [one] = &mut self.parts[..] {
            one.reserve(keys, Entry::place);
        }
    }

    /// The parts that are to grow.
    fn due(&self, keys: usize) -> Vec<usize> {
        let each = keys / self.parts.len();
        let is_due = |(at, part): (usize, &HashTable<Entry>)| part.len() + each > part.capacity() / 100 * fill(at);
        self.parts.iter().enumerate().filter(|p| is_due(*p)).map(|(at, _)| at).collect()
    }

    /// Makes parts, with room for `keys` keys.
    fn split(&mut self, keys: usize) {
        let whole = std::mem::take(&mut self.parts);
        let keys = keys.max(whole.iter().map(HashTable::len).sum());
        // Hashes are not spread quite evenly.
        let each = |at| (keys / PARTS + keys / PARTS / 16) * 100 / fill(at);
        self.parts = (0..PARTS).map(|at| HashTable::with_capacity(each(at))).collect();
        for e in whole.into_iter().flatten() {
            let hash = e.hash();
            find(&mut self.parts[part_of(hash, PARTS)], hash, || e.slot);
        }
    }
}

/// Which of `parts` has `hash`.
#[inline]
fn part_of(hash: u64, parts: usize) -> usize {
    (hash >> PART_BIT) as usize & (parts - 1)
}

#[inline]
fn find(part: &mut HashTable<Entry>, hash: u64, new: impl FnOnce() -> u32) -> u32 {
    match part.entry(place(hash), |e| e.hash() == hash, Entry::place) {
        Found::Occupied(e) => e.get().slot,
        Found::Vacant(e) => e.insert(Entry::new(hash, new())).get().slot,
    }
}

/// How full part `at` is when it grows, in hundredths.
fn fill(at: usize) -> usize {
    FIRST + (LAST - FIRST) * (at + 1) / PARTS
}

/// An entry and a byte for each place; one in eight stays free.
fn bytes_of(part: &HashTable<Entry>) -> usize {
    part.capacity() / 7 * 8 * (size_of::<Entry>() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::mix;

    /// The slots of `keys`, which are their own where they are new.
    fn slots(places: &mut Places, keys: std::ops::Range<u64>) -> Vec<u32> {
        let hashes: Vec<u64> = keys.clone().map(mix).collect();
        let mut slots = vec![0; hashes.len()];
        places.find_all(&hashes, &mut slots, |row| keys.start as u32 + row);
        slots
    }

    #[test]
    fn parts_grow_one_after_the_other() {
        let (mut places, mut most, mut held) = (Places::new(), 0, 0);
        let batch = 1 << 12;
        for from in (0..3_000_000u64).step_by(batch) {
            let (before, announced) = (places.bytes(), places.growth(batch));
            places.make_room(batch);
            slots(&mut places, from..from + batch as u64);
            let grown = places.bytes() - before;
            if from > 1 << 18 {
                assert!(grown <= announced, "{grown} of {announced} at {from}");
                most = most.max(grown * 100 / before);
            }
            held = held.max(places.bytes() / (from as usize + batch));
        }
        assert!(most <= 15, "it grew by {most} % at once");
        assert!(held < 2 * 13 * 8 / 7 + 60, "{held} bytes a key");
        let hashes: Vec<u64> = (0..3_000_000).map(mix).collect();
        let mut found = vec![0; hashes.len()];
        places.find_all(&hashes, &mut found, |row| panic!("key {row} is known"));
        assert!(found.into_iter().eq(0..3_000_000));
    }

    #[test]
    fn what_is_reserved_does_not_grow() {
        for keys in [100, 1 << 17, 1_000_000] {
            let mut places = Places::new();
            places.reserve(keys);
            let bytes = places.bytes();
            assert!(slots(&mut places, 0..keys as u64).into_iter().eq(0..keys as u32), "all are new");
            places.make_room(0);
            assert_eq!(places.bytes(), bytes, "{keys}");
        }
    }
}
