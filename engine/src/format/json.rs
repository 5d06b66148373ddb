//! JSON lines: one object a line.
//!
//! A missing field is null and an unknown one is skipped. A value of the wrong type makes a dead letter
//! of its line, but numbers, truth values, objects and arrays may go to a TEXT column as they are written.
//! Keys are matched exactly, else without regard to case (SQL folds names that are not quoted).

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::error::Result;
use crate::format::LineDecoder;
use crate::format::columns::{Dialect, Kind, Span};
use crate::format::options::JsonOptions;
use crate::format::rows::{RowDecoder, Tokenizer};
use crate::format::values::Escapes;

/// A decoder of JSON lines to the columns of `schema`; `split` goes into dead letters.
pub fn decoder(schema: SchemaRef, options: &JsonOptions, split: Arc<str>) -> Box<dyn LineDecoder> {
    let dialect = Dialect {
        escapes: Escapes::Json,
        text_time: options.text_time.clone(),
        number_time: Some(options.number_time),
    };
    let names = schema.fields().iter().map(|f| f.name().clone()).collect();
    Box::new(RowDecoder::new(Objects::new(names), dialect, split, schema))
}

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
struct Objects {
    names: Vec<String>,
    exact: HashMap<Vec<u8>, usize>,
    folded: HashMap<Vec<u8>, usize>,
    /// The keys of the last object by their place in it: the next object most likely has the same ones.
    met: Vec<Met>,
}

impl Objects {
    fn new(names: Vec<String>) -> Self {
        let all = || names.iter().enumerate().rev();
        let exact = all().map(|(i, n)| (n.as_bytes().to_vec(), i)).collect();
        let folded = all().map(|(i, n)| (n.to_ascii_lowercase().into_bytes(), i)).collect();
        Objects { names, exact, folded, met: vec![] }
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
            let span = line.value(line.blank(value))?;
            at = line.blank(span.end as usize + usize::from(matches!(span.kind, Kind::Text | Kind::Escaped)));
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

/// A line being read: `bytes` end with it; it begins at `start`.
struct Line<'a> {
    bytes: &'a [u8],
    start: usize,
}

impl Line<'_> {
    #[inline]
    fn at(&self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    /// The first place from `at` on that is not blank.
    #[inline]
    fn blank(&self, mut at: usize) -> usize {
        while matches!(self.at(at), Some(b' ' | b'\t' | b'\r')) {
            at += 1;
        }
        at
    }

    fn expected(&self, what: &str, at: usize) -> String {
        let place = at.min(self.bytes.len()) - self.start + 1;
        match self.at(at) {
            Some(_) => {
                let rest = String::from_utf8_lossy(&self.bytes[at..]);
                let found: String = rest.chars().take(20).collect();
                format!("expected {what} at character {place}, found '{found}'")
            }
            None => format!("expected {what} at character {place}, found the end of the line"),
        }
    }

    /// Nothing but blanks from `at` on.
    fn rest(&self, at: usize) -> Result<bool, String> {
        let at = self.blank(at);
        if at < self.bytes.len() { Err(self.expected("the end of the line", at)) } else { Ok(true) }
    }

    /// The end of a string whose characters begin at `at`, and whether it has escapes.
    #[inline]
    fn string(&self, mut at: usize) -> Result<(usize, bool), String> {
        let begin = at;
        let mut escaped = false;
        loop {
            match self.bytes.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
                Some(i) if self.bytes[at + i] == b'"' => return Ok((at + i, escaped)),
                Some(i) => {
                    escaped = true;
                    at += i + 2;
                }
                None => return Err(format!("the string at character {} has no end", begin - self.start)),
            }
        }
    }

    /// The value at `at`; for strings without the quotes.
    #[inline]
    fn value(&self, at: usize) -> Result<Span, String> {
        let span = |start: usize, end: usize, kind| Ok(Span { start: start as u32, end: end as u32, kind });
        match self.at(at) {
            Some(b'"') => {
                let (end, escaped) = self.string(at + 1)?;
                span(at + 1, end, if escaped { Kind::Escaped } else { Kind::Text })
            }
            Some(b'-' | b'0'..=b'9') => {
                let number = |b: &u8| matches!(b, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E');
                let length = self.bytes[at..].iter().take_while(|b| number(b)).count();
                span(at, at + length, Kind::Bare)
            }
            Some(b'{' | b'[') => span(at, self.nested(at)?, Kind::Nested),
            Some(b't') if self.bytes[at..].starts_with(b"true") => span(at, at + 4, Kind::Bare),
            Some(b'f') if self.bytes[at..].starts_with(b"false") => span(at, at + 5, Kind::Bare),
            Some(b'n') if self.bytes[at..].starts_with(b"null") => span(at, at + 4, Kind::Null),
            _ => Err(self.expected("a value", at)),
        }
    }

    /// Where the object or array at `at` ends; what is in it is looked at when it is decoded.
    fn nested(&self, mut at: usize) -> Result<usize, String> {
        let begin = at;
        let mut depth = 0usize;
        while let Some(byte) = self.at(at) {
            match byte {
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                b'"' => at = self.string(at + 1)?.0,
                _ => {}
            }
            at += 1;
            if depth == 0 {
                return Ok(at);
            }
        }
        Err(format!("the object or array at character {} has no end", begin - self.start + 1))
    }
}
