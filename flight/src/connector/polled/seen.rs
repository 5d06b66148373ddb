//! Keys that were seen, so that a row that is offered again is dropped. The last ones are remembered, and committed with the
//! rows that had them.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};

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
    known: HashMap<Mark, Known>,
    /// In the order in which they were offered, also again.
    order: VecDeque<Mark>,
}

#[derive(Debug)]
struct Known {
    /// The position behind the rows that were taken with it.
    end: u64,
    /// How often it is in the order.
    times: u32,
}

impl Seen {
    /// Remembers `most`.
    pub(crate) fn new(most: usize) -> Self {
        Seen { most, known: HashMap::new(), order: VecDeque::new() }
    }

    pub(crate) fn has(&self, mark: Mark) -> bool {
        self.known.contains_key(&mark)
    }

    /// Notes the keys of an answer whose rows end at `end`. What is offered again and again stays known, of the rows that were
    /// taken.
    pub(crate) fn note(&mut self, marks: impl IntoIterator<Item = Mark>, end: u64) {
        for mark in marks {
            self.known.entry(mark).or_insert(Known { end, times: 0 }).times += 1;
            self.order.push_back(mark);
        }
        while self.order.len() > self.most {
            let Some(Entry::Occupied(mut oldest)) = self.order.pop_front().map(|mark| self.known.entry(mark)) else {
                break;
            };
            oldest.get_mut().times -= 1;
            if oldest.get().times == 0 {
                oldest.remove();
            }
        }
    }

    /// What a manifest keeps: `[end, marks]` for each page, the marks in hexadecimal without a gap.
    pub(crate) fn save(&self) -> Value {
        let mut pages: Vec<(u64, String)> = vec![];
        for (mark, end) in self.order.iter().filter_map(|mark| Some((mark, self.known.get(mark)?.end))) {
            match pages.last_mut().filter(|(last, _)| *last == end) {
                Some((_, marks)) => marks.push_str(&format!("{mark:032x}")),
                None => pages.push((end, format!("{mark:032x}"))),
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

/// The keys of an answer, as its rows are looked at.
#[derive(Debug, Default)]
pub(crate) struct Offered {
    met: HashSet<Mark>,
    /// All of them, each once.
    pub(crate) marks: Vec<Mark>,
}

impl Offered {
    /// Whether a row with this key is new: neither `seen` nor offered before by this answer.
    pub(crate) fn is_new(&mut self, mark: Mark, seen: &Seen) -> bool {
        let is_first = self.met.insert(mark);
        if is_first {
            self.marks.push(mark);
        }
        is_first && !seen.has(mark)
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
        // Also where the last answer was not committed: the rows of these were.
        let mut again = Seen::new(5);
        again.restore(&seen.save(), 118);
        assert!([1, 2, 3].iter().all(|mark| again.has(*mark)) && !again.has(119));
    }

    #[test]
    fn a_row_is_new_once() {
        let (mut seen, mut offered) = (Seen::new(5), Offered::default());
        seen.note([1], 1);
        assert_eq!([1, 2, 2, 3, 1].map(|mark| offered.is_new(mark, &seen)), [false, true, false, true, false]);
        assert_eq!(offered.marks, [1, 2, 3], "those that were seen are told as well");
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
