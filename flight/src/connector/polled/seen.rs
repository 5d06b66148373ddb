//! Keys that were seen, so that a row that is offered again is dropped. The last ones are remembered, and committed with the
//! rows that had them.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

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
    /// How often each is in the order.
    known: HashMap<Mark, u32>,
    /// In the order in which they were offered, with the position behind their rows.
    order: VecDeque<(u64, Mark)>,
}

impl Seen {
    /// Remembers `most`.
    pub(crate) fn new(most: usize) -> Self {
        Seen { most, known: HashMap::new(), order: VecDeque::new() }
    }

    pub(crate) fn has(&self, mark: Mark) -> bool {
        self.known.contains_key(&mark)
    }

    /// Notes the keys of an answer whose rows end at `end`, those that were known as well: what is offered again and again
    /// stays known.
    pub(crate) fn note(&mut self, marks: impl IntoIterator<Item = Mark>, end: u64) {
        for mark in marks {
            *self.known.entry(mark).or_default() += 1;
            self.order.push_back((end, mark));
        }
        while self.order.len() > self.most {
            let Some((_, oldest)) = self.order.pop_front() else { break };
            if let Entry::Occupied(mut times) = self.known.entry(oldest) {
                *times.get_mut() -= 1;
                if *times.get() == 0 {
                    times.remove();
                }
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
    fn what_is_offered_again_and_again_stays_known() {
        let mut seen = Seen::new(5);
        for new in 100..120 {
            seen.note([1, 2, 3, new], u64::try_from(new).expect("small"));
            assert!([1, 2, 3, new].iter().all(|mark| seen.has(*mark)) && !seen.has(new - 2), "at {new}");
        }
    }

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
