//! The rows of one key, as bytes in order.
//!
//! Chunks of some rows each, none empty: a row is found by two binary searches, and what comes behind all others moves nothing.

/// A chunk has so many rows at most.
const MOST: usize = 128;
/// About what a row takes besides its bytes.
const ENTRY: usize = size_of::<Entry>() + 16;

struct Entry {
    row: Box<[u8]>,
    weight: i64,
}

/// Rows of one key.
#[derive(Default)]
pub struct Series {
    chunks: Vec<Vec<Entry>>,
    rows: usize,
    bytes: usize,
}

/// Where a row is, or the end of all. It is good until rows come or go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(usize, usize);

impl Series {
    /// The first row that does not begin with something less than `prefix`.
    pub fn seek(&self, prefix: &[u8]) -> Place {
        self.find(|row| row < prefix)
    }

    /// The first row that begins with something more than `prefix`.
    pub fn after(&self, prefix: &[u8]) -> Place {
        self.find(|row| row.get(..prefix.len()).unwrap_or(row) <= prefix)
    }

    fn find(&self, is_before: impl Fn(&[u8]) -> bool) -> Place {
        let chunk = self.chunks.partition_point(|chunk| chunk.last().is_some_and(|last| is_before(&last.row)));
        let at = self.chunks.get(chunk).map_or(0, |chunk| chunk.partition_point(|entry| is_before(&entry.row)));
        Place(chunk, at)
    }

    /// The first row.
    pub fn start(&self) -> Place {
        Place(0, 0)
    }

    /// Behind the last row.
    pub fn end(&self) -> Place {
        Place(self.chunks.len(), 0)
    }

    /// The row there.
    pub fn at(&self, place: Place) -> Option<&[u8]> {
        Some(&self.chunks.get(place.0)?.get(place.1)?.row)
    }

    /// The weight of a row, if it is there.
    pub(super) fn weight(&self, row: &[u8]) -> Option<i64> {
        let place = self.find(|other| other < row);
        let entry = self.chunks.get(place.0)?.get(place.1)?;
        (*entry.row == *row).then_some(entry.weight)
    }

    /// The row before that place.
    pub fn before(&self, place: Place) -> Option<&[u8]> {
        let entry = match place.1.checked_sub(1) {
            Some(at) => self.chunks.get(place.0)?.get(at),
            None => self.chunks.get(place.0.checked_sub(1)?)?.last(),
        };
        entry.map(|entry| &*entry.row)
    }

    /// The rows from `from` on up to `to`, with their weights.
    pub fn between(&self, from: Place, to: Place) -> impl Iterator<Item = (&[u8], i64)> {
        let last = to.0.min(self.chunks.len().saturating_sub(1));
        let chunks = (from.0..=last).take_while(move |_| from < to).filter_map(move |at| {
            let chunk = self.chunks.get(at)?;
            let start = if at == from.0 { from.1 } else { 0 };
            let end = if at == to.0 { to.1 } else { chunk.len() };
            chunk.get(start..end)
        });
        chunks.flatten().map(|entry| (&*entry.row, entry.weight))
    }

    /// Adds `weight` to that of a row. Gives what the row has now.
    pub(super) fn add(&mut self, row: &[u8], weight: i64) -> i64 {
        let place = self.find(|other| other < row);
        if let Some(entry) = self.chunks.get_mut(place.0).and_then(|chunk| chunk.get_mut(place.1))
            && *entry.row == *row
        {
            entry.weight += weight;
            let now = entry.weight;
            if now == 0 {
                self.remove(place);
            }
            return now;
        }
        self.insert(place, Entry { row: row.into(), weight });
        weight
    }

    fn insert(&mut self, place: Place, entry: Entry) {
        self.rows += 1;
        self.bytes += entry.row.len() + ENTRY;
        if place.0 == self.chunks.len() {
            match self.chunks.last_mut().filter(|chunk| chunk.len() < MOST) {
                Some(last) => last.push(entry),
                None => self.chunks.push(vec![entry]),
            }
            return;
        }
        let chunk = &mut self.chunks[place.0];
        chunk.insert(place.1, entry);
        if chunk.len() > MOST {
            let more = chunk.split_off(MOST / 2);
            self.chunks.insert(place.0 + 1, more);
        }
    }

    fn remove(&mut self, place: Place) {
        let chunk = &mut self.chunks[place.0];
        let entry = chunk.remove(place.1);
        if chunk.is_empty() {
            self.chunks.remove(place.0);
        }
        self.rows -= 1;
        self.bytes -= entry.row.len() + ENTRY;
    }

    /// Lets all rows before `place` go that `stays` does not say to stay.
    pub fn let_go(&mut self, place: Place, stays: impl Fn(&[u8]) -> bool) {
        let (mut rows, mut bytes) = (0, 0);
        for (at, chunk) in self.chunks.iter_mut().enumerate().take(place.0 + 1) {
            let end = if at == place.0 { place.1 } else { chunk.len() };
            let mut row = 0;
            chunk.retain(|entry| {
                row += 1;
                let stays = row > end || stays(&entry.row);
                if !stays {
                    rows += 1;
                    bytes += entry.row.len() + ENTRY;
                }
                stays
            });
        }
        if rows > 0 {
            self.chunks.retain(|chunk| !chunk.is_empty());
            self.chunks.iter_mut().for_each(|chunk| chunk.shrink_to(chunk.len() * 2));
        }
        self.rows -= rows;
        self.bytes -= bytes;
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
