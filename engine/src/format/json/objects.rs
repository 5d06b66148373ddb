//! The fields of objects of JSON, by their keys.

use std::collections::HashMap;
use std::ops::Range;

use super::line::Line;
use crate::error::Result;
use crate::format::options::NullTexts;
use crate::format::spans::{Kind, Span};
use crate::format::tokenizer::Tokenizer;
use crate::format::values::Escapes;

/// A key that was met at some place in an object, as `"key":`, and the column it stands for.
struct Met {
    text: Vec<u8>,
    target: Option<Target>,
}

#[derive(Clone, Copy)]
struct Target {
    column: usize,
    /// Whether the key is the column's name to the letter; such a one wins over others.
    exact: bool,
}

/// Takes objects apart.
pub(super) struct Objects {
    names: Vec<String>,
    nulls: NullTexts,
    exact: HashMap<Vec<u8>, usize>,
    folded: HashMap<Vec<u8>, usize>,
    /// The keys of the last object by their place in it: the next object most likely has the same ones.
    met: Vec<Met>,
}

impl Objects {
    pub(super) fn new(names: Vec<String>, nulls: NullTexts) -> Self {
        let all = || names.iter().enumerate().rev();
        let exact = all().map(|(i, n)| (n.as_bytes().to_vec(), i)).collect();
        let folded = all().map(|(i, n)| (n.to_ascii_lowercase().into_bytes(), i)).collect();
        Objects { names, nulls, exact, folded, met: vec![] }
    }

    fn find(&self, key: &[u8]) -> Option<Target> {
        if let Some(column) = self.exact.get(key) {
            return Some(Target { column: *column, exact: true });
        }
        let column = *self.folded.get(&key.to_ascii_lowercase())?;
        Some(Target { column, exact: false })
    }

    /// Reads the key at `at`, of the object's field `place`; gives where its value begins.
    fn key(&mut self, line: &Line<'_>, at: usize, place: usize) -> Result<(Option<Target>, usize), String> {
        if let Some(met) = self.met.get(place)
            && line.bytes[at..].starts_with(&met.text)
        {
            return Ok((met.target, at + met.text.len()));
        }
        if line.at(at) != Some(b'"') {
            return Err(line.expected("a field name in quotes", at));
        }
        let (end, escaped) = line.string(at + 1)?;
        let raw = &line.bytes[at + 1..end];
        let target = if escaped {
            let mut key = vec![];
            Escapes::Json.resolve(raw, &mut key).and_then(|()| self.find(&key))
        } else {
            self.find(raw)
        };
        let colon = line.blank(end + 1);
        if line.at(colon) != Some(b':') {
            return Err(line.expected("':'", colon));
        }
        if colon == end + 1 && place <= self.met.len() && place < 1024 {
            let met = Met { text: line.bytes[at..=colon].to_vec(), target };
            match self.met.get_mut(place) {
                Some(old) => *old = met,
                None => self.met.push(met),
            }
        }
        Ok((target, colon + 1))
    }
}

impl Tokenizer for Objects {
    fn begin(&mut self, block: &[u8]) -> Result<usize> {
        Ok(if block.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 })
    }

    /// The items of an array are rows of their own.
    fn parts(&self, block: &[u8], record: Range<usize>, parts: &mut Vec<Range<usize>>) -> Result<(), String> {
        let line = Line { bytes: &block[..record.end], start: record.start };
        let at = line.blank(record.start);
        if line.at(at) != Some(b'[') {
            parts.push(record);
            return Ok(());
        }
        let array = Line { start: at, ..line };
        array.items(|item| parts.push(item.start as usize..item.end as usize))
    }

    fn row(&mut self, block: &[u8], start: usize, end: usize, row: &mut [Span]) -> Result<bool, String> {
        let line = Line { bytes: &block[..end], start };
        let mut at = line.blank(start);
        match line.at(at) {
            None => return Ok(false),
            Some(b'{') => at = line.blank(at + 1),
            Some(_) => return Err(line.expected("a JSON object", at)),
        }
        if line.at(at) == Some(b'}') {
            return line.rest(at + 1);
        }
        // Which columns have been filled by a key to the letter; columns past 64 take the last that fits.
        let mut filled = 0u64;
        for place in 0.. {
            let (target, value) = self.key(&line, at, place)?;
            let mut span = line.value(line.blank(value))?;
            at = line.after(span);
            if span.kind == Kind::Text && self.nulls.has(line.span(span)) {
                span.kind = Kind::Null;
            }
            if let Some(Target { column, exact }) = target
                && (exact || filled >> (column & 63) & 1 == 0 || column > 63)
            {
                row[column] = span;
                filled |= u64::from(exact && column < 64) << (column & 63);
            }
            match line.at(at) {
                Some(b',') => at = line.blank(at + 1),
                Some(b'}') => break,
                _ => return Err(line.expected("',' or '}'", at)),
            }
        }
        debug_assert_eq!(row.len(), self.names.len());
        line.rest(at + 1)
    }
}
