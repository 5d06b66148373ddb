//! The pieces of a line of JSON: where its values begin and end.

use crate::format::spans::{Kind, Span};

/// A line being read: `bytes` end with it; it begins at `start`.
pub(super) struct Line<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) start: usize,
}

impl<'a> Line<'a> {
    #[inline]
    pub(super) fn at(&self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    /// The first place from `at` on that is not blank. A record that is not a line may have newlines.
    #[inline]
    pub(super) fn blank(&self, mut at: usize) -> usize {
        while matches!(self.at(at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            at += 1;
        }
        at
    }

    pub(super) fn expected(&self, what: &str, at: usize) -> String {
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
    pub(super) fn rest(&self, at: usize) -> Result<bool, String> {
        let at = self.blank(at);
        if at < self.bytes.len() { Err(self.expected("the end of the line", at)) } else { Ok(true) }
    }

    /// The end of a string whose characters begin at `at`, and whether it has escapes.
    #[inline]
    pub(super) fn string(&self, mut at: usize) -> Result<(usize, bool), String> {
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
    // A result that is handed over in memory costs more than finding most values.
    #[inline(always)]
    pub(super) fn value(&self, at: usize) -> Result<Span, String> {
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

    /// The bytes of `span`.
    #[inline]
    pub(super) fn span(&self, span: Span) -> &'a [u8] {
        self.bytes.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    /// The first place behind the value of `span` that is not blank.
    #[inline]
    pub(super) fn after(&self, span: Span) -> usize {
        self.blank(span.end as usize + usize::from(matches!(span.kind, Kind::Text | Kind::Escaped)))
    }

    /// Gives `take` the values of the array that this line is.
    pub(super) fn items(&self, mut take: impl FnMut(Span)) -> Result<(), String> {
        let mut at = self.blank(self.start + 1);
        if self.at(at) == Some(b']') {
            return self.rest(at + 1).map(drop);
        }
        loop {
            let span = self.value(at)?;
            take(span);
            at = self.after(span);
            match self.at(at) {
                Some(b',') => at = self.blank(at + 1),
                Some(b']') => return self.rest(at + 1).map(drop),
                _ => return Err(self.expected("',' or ']'", at)),
            }
        }
    }

    /// Gives `take` the keys and values of the object that this line is.
    pub(super) fn entries(&self, mut take: impl FnMut(Span, Span) -> Result<(), String>) -> Result<(), String> {
        let mut at = self.blank(self.start + 1);
        if self.at(at) == Some(b'}') {
            return self.rest(at + 1).map(drop);
        }
        loop {
            if self.at(at) != Some(b'"') {
                return Err(self.expected("a field name in quotes", at));
            }
            let key = self.value(at)?;
            let colon = self.after(key);
            if self.at(colon) != Some(b':') {
                return Err(self.expected("':'", colon));
            }
            let value = self.value(self.blank(colon + 1))?;
            take(key, value)?;
            at = self.after(value);
            match self.at(at) {
                Some(b',') => at = self.blank(at + 1),
                Some(b'}') => return self.rest(at + 1).map(drop),
                _ => return Err(self.expected("',' or '}'", at)),
            }
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
