//! Receipts: what was handed in under a key, so that nothing goes in twice.
//!
//! A receipt goes in with rows and is committed by the manifest that commits them. The book of receipts is a part of each
//! manifest. It may know of rows that are not consumed yet when it is written, so each receipt says the position behind its
//! rows, and a start forgets those beyond what was consumed.
//!
//! ```text
//! taken: a -> 5, b -> 9    consumed up to 5    crash    found again: a
//! ```
//!
//! Most receipts are forgotten, the oldest first: after an hour, or when there are 65,536 younger ones. A lasting one stays until
//! another takes its place, of which the last that is committed counts after a crash.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};

/// How many receipts are kept that are forgotten some day.
pub const MOST_RECEIPTS: usize = 65_536;
/// For how long, in seconds.
pub const RECEIPT_SECONDS: i64 = 3_600;
/// How many lasting keys there may be.
const MOST_LASTING: usize = 4_096;

/// What is noted under a key when rows go in.
#[derive(Clone, Debug, PartialEq)]
pub struct Receipt {
    /// The key.
    pub key: String,
    /// What is found under it later.
    pub value: Value,
    /// For how long.
    pub kept: Kept,
}

/// How long a receipt is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// For [`RECEIPT_SECONDS`], while it is among the last [`MOST_RECEIPTS`].
    Hour,
    /// Until another one of its key takes its place.
    Lasting,
}

/// What is known of a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Known {
    /// Nothing.
    Never,
    /// It was handed in and is not committed yet.
    UnderWay(Value),
    /// It is committed.
    Committed(Value),
}

/// All receipts of a stream. Those that are forgotten stand in a text, one after the other, so that writing them all with each
/// manifest costs a copy.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// The position up to which all is committed.
    committed: u64,
    /// `distance from the receipt before, seconds since then, key, value`, in JSON, and a line end.
    text: String,
    /// How many bytes were cut off its beginning, of what is forgotten.
    cut: u64,
    /// The position and the time from which the first line counts.
    base: (u64, i64),
    lines: VecDeque<Line>,
    /// How many lines were forgotten before the first.
    before: u64,
    /// Where each key stands, counted with those before.
    places: HashMap<Arc<str>, u64>,
    /// The last that is committed and those after it, by key.
    lasting: BTreeMap<String, VecDeque<(u64, Value)>>,
}

#[derive(Debug)]
struct Line {
    key: Arc<str>,
    /// The position behind its rows.
    end: u64,
    /// When it came: seconds since 1970.
    at: i64,
    /// Where its text begins, counted with what was cut off.
    from: u64,
}

/// A book as a manifest keeps it.
#[derive(Serialize, Deserialize)]
struct Saved {
    #[serde(default, skip_serializing_if = "is_start")]
    base: (u64, i64),
    #[serde(default, skip_serializing_if = "String::is_empty")]
    text: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    lasting: BTreeMap<String, VecDeque<(u64, Value)>>,
}

fn is_start(base: &(u64, i64)) -> bool {
    *base == (0, 0)
}

impl Book {
    /// Notes `receipt` for rows up to `end`, at a time in seconds since 1970.
    ///
    /// Errors with `Exhausted` when there are too many lasting keys.
    pub(super) fn note(&mut self, receipt: Receipt, end: u64, at: i64) -> Result<()> {
        let Receipt { key, value, kept } = receipt;
        if kept == Kept::Hour {
            self.append(key.into(), &value.to_string(), end, at)?;
            self.forget(at);
            return Ok(());
        }
        if self.lasting.len() >= MOST_LASTING && !self.lasting.contains_key(&key) {
            return Err(Error::new(ErrorKind::Exhausted, format!("a stream takes rows of {MOST_LASTING} writers"))
                .with_hint("Let fewer writers share it, or make the stream anew."));
        }
        self.lasting.entry(key).or_default().push_back((end, value));
        Ok(())
    }

    fn append(&mut self, key: Arc<str>, value: &str, end: u64, at: i64) -> Result<()> {
        let (last_end, last_at) = self.lines.back().map_or(self.base, |line| (line.end, line.at));
        // A clock that goes back makes nothing younger.
        let at = at.max(last_at);
        let from = self.cut + self.text.len() as u64;
        let quoted = serde_json::to_string(&*key).map_err(|e| Error::internal(e.to_string()))?;
        writeln!(self.text, "{} {} {quoted} {value}", end - last_end, at - last_at)
            .map_err(|e| Error::internal(e.to_string()))?;
        self.places.insert(key.clone(), self.before + self.lines.len() as u64);
        self.lines.push_back(Line { key, end, at, from });
        Ok(())
    }

    /// What is known of `key`.
    pub(super) fn known(&self, key: &str, at: i64) -> Known {
        let told = |end: u64, value: Value| match end <= self.committed {
            true => Known::Committed(value),
            false => Known::UnderWay(value),
        };
        if let Some((end, value)) = self.lasting.get(key).and_then(|all| all.back()) {
            return told(*end, value.clone());
        }
        let place = self.places.get(key).and_then(|place| usize::try_from(place - self.before).ok());
        let Some(place) = place else { return Known::Never };
        let Some(line) = self.lines.get(place).filter(|line| at - line.at < RECEIPT_SECONDS) else {
            return Known::Never;
        };
        let text = self.text.get((line.from - self.cut) as usize..).unwrap_or_default();
        let value = text.splitn(3, ' ').nth(2).and_then(|rest| {
            let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
            values.nth(1)?.ok()
        });
        told(line.end, value.unwrap_or_default())
    }

    /// All up to `position` is committed; the time is given in seconds since 1970.
    pub(super) fn commit(&mut self, position: u64, at: i64) {
        self.committed = self.committed.max(position);
        for all in self.lasting.values_mut() {
            while all.get(1).is_some_and(|(end, _)| *end <= self.committed) {
                all.pop_front();
            }
        }
        self.forget(at);
    }

    /// Forgets what is old, or one too many, and committed.
    fn forget(&mut self, at: i64) {
        while let Some(first) = self.lines.front() {
            let old = at - first.at >= RECEIPT_SECONDS || self.lines.len() > MOST_RECEIPTS;
            if !old || first.end > self.committed {
                break;
            }
            self.base = (first.end, first.at);
            if self.places.get(&first.key) == Some(&self.before) {
                self.places.remove(&first.key);
            }
            self.before += 1;
            self.lines.pop_front();
        }
        if self.gone() > self.text.len() / 2 {
            let gone = self.gone();
            self.text.drain(..gone);
            self.cut += gone as u64;
        }
    }

    /// How many bytes at the beginning of the text are forgotten.
    fn gone(&self) -> usize {
        self.lines.front().map_or(self.text.len(), |first| (first.from - self.cut) as usize)
    }

    /// What a manifest keeps of it; nothing of an empty one.
    pub(super) fn save(&self) -> Result<Value> {
        if self.lines.is_empty() && self.lasting.is_empty() {
            return Ok(Value::Null);
        }
        let text = self.text.get(self.gone()..).unwrap_or_default().to_owned();
        let saved = Saved { base: self.base, text, lasting: self.lasting.clone() };
        serde_json::to_value(saved).map_err(|e| Error::internal(e.to_string()))
    }

    /// The book that `saved` is of, without what lies beyond `consumed`.
    pub(super) fn restore(saved: &Value, consumed: u64) -> Result<Self> {
        let unreadable =
            |e: serde_json::Error| Error::data(format!("the receipts of a checkpoint cannot be read: {e}"));
        let saved = Saved::deserialize(saved).map_err(unreadable)?;
        let mut book = Book { committed: consumed, base: saved.base, ..Book::default() };
        let (mut end, mut at) = book.base;
        for line in saved.text.lines() {
            let mut parts = line.splitn(3, ' ');
            let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok());
            let (Some(distance), Some(seconds), Some(rest)) = (number(), number(), parts.next()) else {
                return Err(Error::data(format!("the receipts of a checkpoint cannot be read at \"{line}\"")));
            };
            (end, at) = (end + distance, at + seconds as i64);
            if end > consumed {
                break;
            }
            let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
            let (key, value) = (values.next().transpose(), values.next().transpose());
            let (Some(Value::String(key)), Some(value)) = (key.map_err(unreadable)?, value.map_err(unreadable)?) else {
                return Err(Error::data(format!("the receipts of a checkpoint cannot be read at \"{line}\"")));
            };
            book.append(key.into(), &value.to_string(), end, at)?;
        }
        book.lasting = saved.lasting;
        book.lasting.retain(|_, all| {
            all.retain(|(end, _)| *end <= consumed);
            !all.is_empty()
        });
        book.commit(consumed, at);
        Ok(book)
    }

    /// The memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        let line = size_of::<Line>() + size_of::<(Arc<str>, u64)>() * 2 + 64;
        self.text.capacity() + self.lines.len() * line + self.lasting.len() * 256
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: i64 = 1_800_000_000;

    fn hour(key: &str, value: i64) -> Receipt {
        Receipt { key: key.to_owned(), value: json!([value, "a b"]), kept: Kept::Hour }
    }

    fn lasting(value: i64) -> Receipt {
        Receipt { key: "link/a".to_owned(), value: json!(value), kept: Kept::Lasting }
    }

    #[test]
    fn a_receipt_is_under_way_until_its_rows_are_committed() {
        let mut book = Book::default();
        assert_eq!(book.known("a", NOW), Known::Never);
        book.note(hour("a", 1), 10, NOW).expect("fits");
        book.note(hour("b \"\n", 2), 20, NOW).expect("fits");
        assert_eq!(book.known("a", NOW), Known::UnderWay(json!([1, "a b"])));
        book.commit(10, NOW);
        assert_eq!(book.known("a", NOW), Known::Committed(json!([1, "a b"])));
        assert_eq!(book.known("b \"\n", NOW), Known::UnderWay(json!([2, "a b"])));
        book.commit(20, NOW);
        assert_eq!(book.known("b \"\n", NOW), Known::Committed(json!([2, "a b"])));
    }

    #[test]
    fn a_start_forgets_what_was_not_consumed() {
        let mut book = Book::default();
        for (i, key) in ["a", "b", "c"].iter().enumerate() {
            book.note(hour(key, i as i64), 10 * (i as u64 + 1), NOW + i as i64).expect("fits");
            book.note(lasting(i as i64), 10 * (i as u64 + 1), NOW).expect("fits");
        }
        book.commit(10, NOW);
        let saved = book.save().expect("saves");
        for (consumed, found) in [(0, 0), (9, 0), (10, 1), (29, 2), (30, 3)] {
            let again = Book::restore(&saved, consumed).expect("is read");
            for (i, key) in ["a", "b", "c"].iter().enumerate() {
                let expected = if i < found { Known::Committed(json!([i, "a b"])) } else { Known::Never };
                assert_eq!(again.known(key, NOW), expected, "{key} at {consumed}");
            }
            let last = found.checked_sub(1).map_or(Known::Never, |last| Known::Committed(json!(last)));
            assert_eq!(again.known("link/a", NOW), last, "at {consumed}");
            if found == 3 {
                assert_eq!(
                    Book::restore(&again.save().expect("saves"), 30).expect("is read").known("b", NOW),
                    again.known("b", NOW)
                );
            }
        }
        assert_eq!(Book::default().save().expect("saves"), Value::Null);
        assert!(Book::restore(&json!({ "text": "1 x" }), 5).is_err());
    }

    #[test]
    fn an_hour_is_an_hour() {
        let mut book = Book::default();
        book.note(hour("a", 1), 1, NOW).expect("fits");
        book.note(hour("b", 2), 2, NOW + 100).expect("fits");
        book.note(lasting(7), 2, NOW).expect("fits");
        book.commit(2, NOW + 100);
        let later = NOW + RECEIPT_SECONDS;
        assert_eq!(book.known("a", later), Known::Never, "nobody had to come by");
        assert_eq!(book.known("a", later - 1), Known::Committed(json!([1, "a b"])));
        book.commit(2, later);
        assert_eq!(book.lines.len(), 1);
        assert_eq!(book.known("b", later), Known::Committed(json!([2, "a b"])));
        let again = Book::restore(&book.save().expect("saves"), 2).expect("is read");
        assert_eq!(again.known("b", later), Known::Committed(json!([2, "a b"])));
        assert_eq!(again.known("b", later + 100), Known::Never);
        assert_eq!(again.known("link/a", later + 1_000_000), Known::Committed(json!(7)), "it lasts");
        // The same key again, after its time.
        book.note(hour("a", 3), 3, later).expect("fits");
        assert_eq!(book.known("a", later), Known::UnderWay(json!([3, "a b"])));
    }

    #[test]
    fn the_book_is_bounded_and_never_forgets_what_is_under_way() {
        let mut book = Book::default();
        let most = MOST_RECEIPTS as u64;
        for i in 1..=most + 10 {
            book.note(hour(&format!("k{i}"), i as i64), i, NOW).expect("fits");
        }
        assert_eq!(book.lines.len(), MOST_RECEIPTS + 10, "none is committed");
        book.commit(5, NOW);
        assert_eq!(book.lines.len(), MOST_RECEIPTS + 5);
        book.commit(most + 10, NOW);
        assert_eq!((book.lines.len(), book.places.len()), (MOST_RECEIPTS, MOST_RECEIPTS));
        assert_eq!(book.known("k10", NOW), Known::Never);
        assert_eq!(book.known("k11", NOW), Known::Committed(json!([11, "a b"])));
        let text = book.save().expect("saves").to_string();
        assert!(text.len() < 40 * MOST_RECEIPTS, "{} bytes", text.len());
        for i in 0..MOST_LASTING {
            book.note(Receipt { key: format!("link/{i}"), ..lasting(0) }, most + 11, NOW).expect("fits");
        }
        assert_eq!(book.note(lasting(0), most + 11, NOW).expect_err("one too many").kind(), ErrorKind::Exhausted);
    }
}
