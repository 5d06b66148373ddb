//! Keys that were seen, so that a row that is offered again is dropped. The last ones are remembered, and committed with the
//! rows that had them.

use std::collections::{HashSet, VecDeque};

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

/// A key, or what stands for it: 128 bits of its hash.
pub(crate) type Mark = u128;

/// The mark of a key as it is written.
pub(crate) fn mark(key: &[u8]) -> Mark {
    let hash = digest(&SHA256, key);
    hash.as_ref().iter().take(16).fold(0, |mark, byte| mark << 8 | u128::from(*byte))
}

/// The keys that were seen.
#[derive(Debug)]
pub(crate) struct Seen {
    most: usize,
    known: HashSet<Mark>,
    /// In the order in which they came, with the position behind their rows.
    order: VecDeque<(u64, Mark)>,
}

impl Seen {
    /// Remembers `most`.
    pub(crate) fn new(most: usize) -> Self {
        Seen { most, known: HashSet::new(), order: VecDeque::new() }
    }

    pub(crate) fn has(&self, mark: Mark) -> bool {
        self.known.contains(&mark)
    }

    /// Notes the keys of rows that end at `end`.
    pub(crate) fn note(&mut self, marks: impl IntoIterator<Item = Mark>, end: u64) {
        for mark in marks {
            if self.known.insert(mark) {
                self.order.push_back((end, mark));
            }
        }
        while self.order.len() > self.most {
            if let Some((_, oldest)) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    /// What a manifest keeps: `[end, marks]` for each page, the marks in hexadecimal without a gap.
    pub(crate) fn save(&self) -> Value {
        let mut pages: Vec<(u64, String)> = vec![];
        for (end, mark) in &self.order {
            match pages.last_mut().filter(|(last, _)| last == end) {
                Some((_, marks)) => marks.push_str(&format!("{mark:032x}")),
                None => pages.push((*end, format!("{mark:032x}"))),
            }
        }
        json!(pages)
    }

    /// Takes back what [`Seen::save`] gave, without what lies beyond `consumed`.
    pub(crate) fn restore(&mut self, saved: &Value, consumed: u64) {
        let pages: Vec<(u64, String)> = serde_json::from_value(saved.clone()).unwrap_or_default();
        for (end, marks) in pages.iter().filter(|(end, _)| *end <= consumed) {
            let marks = marks.as_bytes().chunks(32).filter_map(|mark| std::str::from_utf8(mark).ok());
            self.note(marks.filter_map(|mark| Mark::from_str_radix(mark, 16).ok()), *end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_keys_are_known_also_after_a_restart() {
        let marks: Vec<_> = ["1", "2", "\"x\"", "4", "5"].iter().map(|key| mark(key.as_bytes())).collect();
        let mut seen = Seen::new(4);
        seen.note(marks[..3].iter().copied(), 3);
        seen.note(marks[3..].iter().copied(), 5);
        let known = |seen: &Seen| marks.iter().map(|mark| seen.has(*mark)).collect::<Vec<_>>();
        assert_eq!(known(&seen), [false, true, true, true, true]);
        for (consumed, expected) in [(5, [false, true, true, true, true]), (4, [false, true, true, false, false])] {
            let mut again = Seen::new(4);
            again.restore(&seen.save(), consumed);
            assert_eq!(known(&again), expected);
        }
    }
}
