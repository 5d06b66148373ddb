//! Envelopes of Debezium: what has become of a row, with the row before and after it.
//!
//! ```text
//! {"before": {…}, "after": {…}, "op": "u", "source": {…}, "ts_ms": …}      alone, or as the payload that goes with a schema
//!
//!            without a key       by a key
//! op c, r    +after              +after
//! op u       -before +after      +after, and -before where that has another key
//! op d       -before             -before
//! ```
//! By a key, a row that goes is told by its key alone, since a database may leave the rest out (`REPLICA IDENTITY DEFAULT`). A
//! record without a value, `null` and an empty payload are tombstones, which say nothing more. What is in the images is read as
//! columns of JSON are, but for values that Debezium writes in a form of its own: see [`encoding`]. Columns may also be what the
//! envelope says besides: `op`, `ts_ms` and its like, and the fields of `source`.

mod encoding;
mod schema;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, FieldRef, Schema, TimeUnit};

use self::encoding::{Encoding, rewritten};
use super::line::Line;
use super::objects::Objects;
use super::pointer::find;
use crate::error::Result;
use crate::format::form::from;
use crate::format::json::nested::build;
use crate::format::options::{JsonOptions, NullTexts};
use crate::format::spans::{BadRows, Dialect, Kind, Span, Tokens};
use crate::format::timestamp::TimeFormat;
use crate::format::tokenizer::{Found, Tokenizer};

pub(super) use schema::columns;

/// The fields of an envelope, and those of what may stand around it.
const FIELDS: [&str; 9] = ["before", "after", "op", "source", "ts_ms", "ts_us", "ts_ns", "schema", "payload"];
/// How many of them are the envelope's own.
const OWN: usize = 7;
const BEFORE: usize = 0;
const AFTER: usize = 1;
const OP: usize = 2;
const SOURCE: usize = 3;
const SCHEMA: usize = 7;
const PAYLOAD: usize = 8;

/// What stands for a value that the database did not tell, since it has not changed.
const UNAVAILABLE: &[u8] = b"__debezium_unavailable_value";

const KEY_OR_FULL: &str = "declare a PRIMARY KEY, or set REPLICA IDENTITY FULL for its table";

/// Takes envelopes apart.
pub(super) struct Envelopes {
    /// What a record is, what its payload is, an image, and `source`.
    outer: Objects,
    inner: Objects,
    image: Part,
    source: Part,
    /// Columns that are fields of the envelope: which, and their places.
    said: Vec<(usize, usize)>,
    /// The places of the columns by which rows replace each other.
    key: Vec<usize>,
    names: Vec<String>,
    /// The rows before and after.
    before: Vec<Span>,
    after: Vec<Span>,
    forms: Forms,
    /// By row, which of the forms are its.
    of_row: Vec<usize>,
}

/// An object that is a part of an envelope, and the places of the columns that are its fields.
struct Part {
    objects: Objects,
    places: Vec<usize>,
    spans: Vec<Span>,
}

/// How values are written, by column.
struct Forms {
    /// The first holds where there is no schema.
    known: Vec<Vec<Encoding>>,
    /// What the last record with a schema began with, up to its payload, and which forms it gave.
    prefix: (Vec<u8>, usize),
}

impl Part {
    fn new(fields: Vec<(String, usize)>, nulls: &NullTexts) -> Self {
        let (names, places): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
        Part { objects: Objects::new(names, nulls.clone()), spans: vec![Span::NULL; places.len()], places }
    }

    /// Writes the spans of the object at `span` to their places in `row`.
    fn read(&mut self, block: &[u8], span: Span, row: &mut [Span]) -> Result<(), String> {
        self.spans.fill(Span::NULL);
        self.objects.row(block, span.start as usize, span.end as usize, &mut self.spans)?;
        self.places.iter().zip(&self.spans).for_each(|(place, span)| row[*place] = *span);
        Ok(())
    }
}

impl Envelopes {
    /// Of rows with the columns of `schema`, which replace each other by those of `key`.
    pub(super) fn new(schema: &Schema, key: &[String], options: &JsonOptions) -> Self {
        let names =
            |n: usize| Objects::new(FIELDS[..n].iter().map(|f| (*f).to_owned()).collect(), NullTexts::default());
        let (mut image, mut source, mut said, mut usual) = (vec![], vec![], vec![], vec![]);
        for (place, field) in schema.fields().iter().enumerate() {
            usual.push(Encoding::usual(field.data_type(), &options.text_time));
            let Some(told) = from(field) else {
                image.push((field.name().clone(), place));
                continue;
            };
            let instant =
                [("ts_ms", TimeUnit::Millisecond), ("ts_us", TimeUnit::Microsecond), ("ts_ns", TimeUnit::Nanosecond)];
            let instant = instant.into_iter().find(|(name, _)| told.rsplit('.').next() == Some(name));
            usual[place] = instant.map_or(Encoding::AsIs, |(_, unit)| Encoding::Epoch(unit));
            match (told.strip_prefix("source."), FIELDS[..OWN].iter().position(|f| *f == told)) {
                (Some(name), _) => source.push((name.to_owned(), place)),
                (None, Some(which)) => said.push((which, place)),
                (None, None) => {}
            }
        }
        let width = schema.fields().len();
        let place = |name: &String| schema.index_of(name).ok();
        Envelopes {
            outer: names(FIELDS.len()),
            inner: names(OWN),
            image: Part::new(image, &options.nulls),
            source: Part::new(source, &NullTexts::default()),
            said,
            key: key.iter().filter_map(place).collect(),
            names: schema.fields().iter().map(|f| f.name().clone()).collect(),
            before: vec![Span::NULL; width],
            after: vec![Span::NULL; width],
            forms: Forms { known: vec![usual], prefix: (vec![], 0) },
            of_row: vec![],
        }
    }

    /// The spans of the envelope in the record that ends with `line`, and which forms its values have; none where there is no
    /// envelope.
    fn open(&mut self, line: &Line<'_>, at: usize) -> Result<Option<([Span; FIELDS.len()], usize)>, String> {
        let (block, end) = (line.bytes, line.bytes.len());
        let mut spans = [Span::NULL; FIELDS.len()];
        let (prefix, forms) = (&self.forms.prefix.0, self.forms.prefix.1);
        if !prefix.is_empty() && block[at..].starts_with(prefix) {
            let payload = line.value(at + prefix.len())?;
            let close = line.after(payload);
            if payload.kind == Kind::Nested && line.at(close) == Some(b'}') && line.blank(close + 1) == end {
                self.inner.row(block, payload.start as usize, payload.end as usize, &mut spans[..OWN])?;
                return Ok(Some((spans, forms)));
            }
        }
        self.outer.row(block, at, end, &mut spans)?;
        let (schema, payload) = (spans[SCHEMA], spans[PAYLOAD]);
        if payload.kind == Kind::Nested {
            let forms = match schema.kind {
                Kind::Nested => self.learn(line, at, schema, payload),
                _ => 0,
            };
            self.inner.row(block, payload.start as usize, payload.end as usize, &mut spans[..OWN])?;
            return Ok(Some((spans, forms)));
        }
        let said = spans[..OWN].iter().any(|span| span.kind != Kind::Null);
        if !said && (line.at(line.blank(at + 1)) == Some(b'}') || find(&block[at..], "/payload")?.is_some()) {
            return Ok(None);
        }
        Ok(Some((spans, 0)))
    }

    /// Which forms the values of a payload have that goes with `schema`.
    fn learn(&mut self, line: &Line<'_>, at: usize, schema: Span, payload: Span) -> usize {
        let Some(usual) = self.forms.known.first() else { return 0 };
        let found = schema::encodings(line.span(schema), &self.names, usual);
        let forms = match self.forms.known.iter().position(|known| *known == found) {
            Some(known) => known,
            None => {
                self.forms.known.push(found);
                self.forms.known.len() - 1
            }
        };
        if schema.end < payload.start {
            self.forms.prefix = (line.bytes[at..payload.start as usize].to_vec(), forms);
        }
        forms
    }

    /// Reads the image at `span` as the row before, or after.
    fn read(&mut self, line: &Line<'_>, span: Span, is_after: bool) -> Result<(), String> {
        let row = if is_after { &mut self.after } else { &mut self.before };
        row.fill(Span::NULL);
        self.image.read(line.bytes, span, row)?;
        let untold = |span: &Span| span.kind == Kind::Text && line.span(*span) == UNAVAILABLE;
        match row.iter().position(untold) {
            Some(column) if is_after || self.key.is_empty() => Err(format!(
                "column \"{}\" has not changed and was not told: set REPLICA IDENTITY FULL for its table",
                self.names[column]
            )),
            _ => Ok(()),
        }
    }

    /// Adds the row after, with what the envelope says besides.
    fn arrives(&mut self, line: &Line<'_>, spans: &[Span], forms: usize, found: &mut Found) -> Result<(), String> {
        self.said.iter().for_each(|(which, place)| self.after[*place] = spans[*which]);
        if !self.source.places.is_empty() && spans[SOURCE].kind == Kind::Nested {
            self.source.read(line.bytes, spans[SOURCE], &mut self.after)?;
        }
        found.push_weighted(&self.after, 1);
        self.of_row.push(forms);
        Ok(())
    }

    /// Adds the row before as one that goes.
    fn goes(&mut self, forms: usize, found: &mut Found) {
        if !self.key.is_empty() {
            let others = self.before.iter_mut().enumerate().filter(|(column, _)| !self.key.contains(column));
            others.for_each(|(_, span)| *span = Span::NULL);
        }
        found.push_weighted(&self.before, -1);
        self.of_row.push(forms);
    }

    /// Whether the row before has a key, and another one than the row after.
    fn has_another_key(&self, line: &Line<'_>) -> bool {
        let told = self.key.iter().all(|column| self.before[*column].kind != Kind::Null);
        let same = |column: &usize| line.span(self.before[*column]) == line.span(self.after[*column]);
        !self.key.is_empty() && told && !self.key.iter().all(same)
    }

    fn say(&mut self, line: &Line<'_>, spans: &[Span], forms: usize, found: &mut Found) -> Result<(), String> {
        let op = spans[OP];
        let image = |which: usize| Some(spans[which]).filter(|span| span.kind == Kind::Nested);
        let needs = |which: usize, name: &str| {
            image(which).ok_or_else(|| format!("op '{}' comes without {name}", String::from_utf8_lossy(line.span(op))))
        };
        match (op.kind, line.span(op)) {
            (Kind::Text, b"c" | b"r") => {
                self.read(line, needs(AFTER, "the row after")?, true)?;
                self.arrives(line, spans, forms, found)
            }
            (Kind::Text, b"u") => {
                self.read(line, needs(AFTER, "the row after")?, true)?;
                match image(BEFORE) {
                    Some(before) => {
                        self.read(line, before, false)?;
                        if self.key.is_empty() || self.has_another_key(line) {
                            self.goes(forms, found);
                        }
                    }
                    None if self.key.is_empty() => {
                        return Err(format!("op 'u' comes without the row before: {KEY_OR_FULL}"));
                    }
                    None => {}
                }
                self.arrives(line, spans, forms, found)
            }
            (Kind::Text, b"d") => {
                let before = image(BEFORE).ok_or(format!("op 'd' comes without the row before: {KEY_OR_FULL}"))?;
                self.read(line, before, false)?;
                self.goes(forms, found);
                Ok(())
            }
            (Kind::Text, b"t") => {
                Err("op 't' has emptied a table, and does not say of which rows: read it anew, or have \
                                       Debezium leave it out (skipped.operations)"
                    .to_owned())
            }
            (Kind::Null, _) => Err("it has no op, as an envelope of Debezium has".to_owned()),
            (_, other) => {
                let shown = String::from_utf8_lossy(other.get(..20).unwrap_or(other)).into_owned();
                Err(format!("its op is \"{shown}\", not one of c, r, u and d"))
            }
        }
    }
}

impl Tokenizer for Envelopes {
    fn begin(&mut self, block: &[u8]) -> Result<usize> {
        self.outer.begin(block)
    }

    fn parts(
        &self,
        block: &[u8],
        record: std::ops::Range<usize>,
        parts: &mut Vec<std::ops::Range<usize>>,
    ) -> Result<(), String> {
        self.outer.parts(block, record, parts)
    }

    fn row(&mut self, _block: &[u8], _start: usize, _end: usize, _row: &mut [Span]) -> Result<bool, String> {
        Err("an envelope is no row".to_owned())
    }

    fn rows(&mut self, block: &[u8], start: usize, end: usize, found: &mut Found) -> Result<(), String> {
        // Rows of a record that could not be read were taken out again.
        self.of_row.truncate(found.len());
        let line = Line { bytes: &block[..end], start };
        let at = line.blank(start);
        if at == end || block[at..end].trim_ascii_end() == b"null" {
            return Ok(());
        }
        let Some((spans, forms)) = self.open(&Line { start: at, ..line }, at)? else { return Ok(()) };
        self.say(&Line { bytes: &block[..end], start: at }, &spans, forms, found)
    }

    fn passes_over_empty(&self) -> bool {
        true
    }

    fn forget(&mut self) {
        self.of_row.clear();
    }

    fn column(
        &self,
        field: &FieldRef,
        dialect: &Dialect,
        tokens: Tokens<'_>,
        column: usize,
        bad: &mut BadRows,
    ) -> Result<Option<ArrayRef>> {
        let encoding = |row: usize| {
            let forms = self.of_row.get(row).and_then(|forms| self.forms.known.get(*forms));
            forms.and_then(|forms| forms.get(column)).copied().unwrap_or(Encoding::AsIs)
        };
        let first = encoding(0);
        // Texts of time may stand where numbers do.
        let text_time = match &dialect.text_time {
            TimeFormat::Epoch(_) => TimeFormat::Iso,
            other => other.clone(),
        };
        let dialect = Dialect { text_time, ..dialect.clone() };
        if (1..tokens.rows).all(|row| encoding(row) == first) {
            match first.on(field.data_type()) {
                Encoding::AsIs => return build(field, &dialect, tokens, column, bad).map(Some),
                Encoding::Epoch(unit) if matches!(field.data_type(), DataType::Timestamp(..)) => {
                    let dialect = Dialect { number_time: Some(unit), ..dialect };
                    return build(field, &dialect, tokens, column, bad).map(Some);
                }
                _ => {}
            }
        }
        rewritten(field, &dialect, tokens, column, encoding, bad).map(Some)
    }
}

#[cfg(test)]
mod tests;
