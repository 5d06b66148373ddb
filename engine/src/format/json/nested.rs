//! Columns of any type: objects and arrays in them are taken apart into the columns of their fields and items.
//!
//! The spans of all rows' fields lie in one table like the columns of lines do, and are built the same way; so
//! what holds for a column holds for a field: which keys it has, which values a TEXT takes, how times are
//! written. A value that does not fit makes its whole row bad.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, GenericListArray, MapArray, NullBufferBuilder, OffsetSizeTrait, StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::filter;
use arrow::datatypes::{DataType, FieldRef, Fields, TimeUnit};

use super::line::Line;
use super::objects::Objects;
use crate::error::{Error, Result};
use crate::format::columns::build_scalar;
use crate::format::spans::{BadRows, Dialect, Kind, Span, Target, Tokens};
use crate::format::timestamp::TimeFormat;
use crate::format::tokenizer::Tokenizer;
use crate::format::values::Escapes;

/// Builds column `column` of `tokens` as `field`'s type.
pub(in crate::format) fn build(
    field: &FieldRef,
    dialect: &Dialect,
    tokens: Tokens<'_>,
    column: usize,
    bad: &mut BadRows,
) -> Result<ArrayRef> {
    let target = Target { data_type: field.data_type(), name: field.name(), owners: None };
    build_as(&target, dialect, tokens, column, bad)
}

/// Builds column `column` of `tokens` as `target`.
fn build_as(
    target: &Target<'_>,
    dialect: &Dialect,
    tokens: Tokens<'_>,
    column: usize,
    bad: &mut BadRows,
) -> Result<ArrayRef> {
    if !target.data_type.is_nested() {
        return build_scalar(target, dialect, tokens, column, bad);
    }
    match dialect.escapes {
        Escapes::Json => build_nested(target, dialect, tokens, column, bad),
        Escapes::Csv(_) => build_from_text(target, dialect, tokens, column, bad),
    }
}

/// Builds column `column` of `tokens`, where JSON stands, as the nested type of `target`.
fn build_nested(
    target: &Target<'_>,
    dialect: &Dialect,
    tokens: Tokens<'_>,
    column: usize,
    bad: &mut BadRows,
) -> Result<ArrayRef> {
    let mut nested = Nested { target, dialect, tokens, column, bad };
    match target.data_type {
        DataType::Struct(fields) => nested.structs(fields),
        DataType::List(item) => nested.lists::<i32>(item),
        DataType::LargeList(item) => nested.lists::<i64>(item),
        DataType::Map(entries, ordered) => nested.maps(entries, *ordered),
        other => Err(Error::unsupported(format!("column \"{}\": JSON cannot be read as {other}", target.name))),
    }
}

/// As [`build_nested`], where the values are texts that hold JSON, as in CSV.
fn build_from_text(
    target: &Target<'_>,
    dialect: &Dialect,
    tokens: Tokens<'_>,
    column: usize,
    bad: &mut BadRows,
) -> Result<ArrayRef> {
    let number_time = match dialect.text_time {
        TimeFormat::Epoch(unit) => unit,
        _ => TimeUnit::Millisecond,
    };
    let inside = Dialect { escapes: Escapes::Json, number_time: Some(number_time), ..dialect.clone() };
    let mut block = vec![];
    let mut spans = Vec::with_capacity(tokens.rows);
    for (row, span) in tokens.column(column).enumerate() {
        let start = block.len();
        let raw = tokens.bytes(span);
        let read = match span.kind {
            Kind::Null => Ok(Span::NULL),
            Kind::Escaped if dialect.escapes.resolve(raw, &mut block).is_none() => Err("not text".to_owned()),
            kind => {
                if kind != Kind::Escaped {
                    block.extend_from_slice(raw);
                }
                let line = Line { bytes: &block, start };
                line.value(line.blank(start)).and_then(|value| line.rest(line.after(value)).map(|_| value))
            }
        };
        spans.push(read.unwrap_or_else(|reason| {
            target.reject(row, &reason, bad);
            Span::NULL
        }));
    }
    let text = std::str::from_utf8(&block).ok();
    build_nested(target, &inside, Tokens { block: &block, text, spans: &spans, width: 1, rows: tokens.rows }, 0, bad)
}

/// A nested column being built.
struct Nested<'a, 'b> {
    target: &'a Target<'a>,
    dialect: &'a Dialect,
    tokens: Tokens<'a>,
    column: usize,
    bad: &'b mut BadRows,
}

impl<'a> Nested<'a, '_> {
    /// The object or array at `span`, if it begins with `open`; a null and, for another value, a bad row otherwise.
    fn open(&mut self, row: usize, span: Span, open: u8) -> Option<Line<'a>> {
        let start = span.start as usize;
        if span.kind == Kind::Nested && self.tokens.block.get(start) == Some(&open) {
            return Some(Line { bytes: self.tokens.block.get(..span.end as usize)?, start });
        }
        if span.kind != Kind::Null {
            self.target.reject_value(row, self.tokens.bytes(span), span.kind, self.bad);
        }
        None
    }

    fn structs(&mut self, fields: &Fields) -> Result<ArrayRef> {
        let Tokens { block, rows, .. } = self.tokens;
        let width = fields.len();
        let names = fields.iter().map(|f| f.name().clone()).collect();
        let mut objects = Objects::new(names, self.dialect.nulls.clone());
        let mut spans = Vec::with_capacity(rows * width);
        let mut nulls = NullBufferBuilder::new(rows);
        for (row, span) in self.tokens.column(self.column).enumerate() {
            let first = spans.len();
            spans.resize(first + width, Span::NULL);
            let read = self.open(row, span, b'{');
            let read = read.map(|line| objects.row(block, line.start, line.bytes.len(), &mut spans[first..]));
            if let Some(Err(reason)) = &read {
                spans.truncate(first);
                spans.resize(first + width, Span::NULL);
                self.target.reject(row, reason, self.bad);
            }
            nulls.append(matches!(read, Some(Ok(_))));
        }
        let nulls = nulls.finish();
        if width == 0 {
            return Ok(Arc::new(StructArray::new_empty_fields(rows, nulls)));
        }
        let inner = Tokens { spans: &spans, width, ..self.tokens };
        let mut columns = Vec::with_capacity(width);
        for (i, field) in fields.iter().enumerate() {
            let name = format!("{}.{}", self.target.name, field.name());
            let target = Target { data_type: field.data_type(), name: &name, owners: self.target.owners };
            columns.push(build_as(&target, self.dialect, inner, i, self.bad)?);
        }
        Ok(Arc::new(StructArray::try_new(fields.clone(), columns, nulls)?))
    }

    /// The items of all arrays, behind one another, with how many each row has; rows that are null have none.
    fn items(&mut self, item: &FieldRef) -> Result<Items> {
        let mut spans = vec![];
        let mut owners = vec![];
        let mut items = Items { lengths: Vec::with_capacity(self.tokens.rows), valid: vec![], values: None };
        for (row, span) in self.tokens.column(self.column).enumerate() {
            let first = spans.len();
            let line = self.open(row, span, b'[');
            let read = line.map(|line| {
                line.items(|mut item| {
                    if item.kind == Kind::Text && self.dialect.nulls.has(line.span(item)) {
                        item.kind = Kind::Null;
                    }
                    spans.push(item);
                })
            });
            if let Some(Err(reason)) = &read {
                spans.truncate(first);
                self.target.reject(row, reason, self.bad);
            }
            items.valid.push(matches!(read, Some(Ok(()))));
            items.lengths.push(spans.len() - first);
            owners.resize(spans.len(), self.target.owner(row));
        }
        let rows = spans.len();
        let inner = Tokens { spans: &spans, width: 1, rows, ..self.tokens };
        let name = format!("{}[]", self.target.name);
        let target = Target { data_type: item.data_type(), name: &name, owners: Some(&owners) };
        items.values = Some(build_as(&target, self.dialect, inner, 0, self.bad)?);
        Ok(items)
    }

    fn lists<O: OffsetSizeTrait>(&mut self, item: &FieldRef) -> Result<ArrayRef> {
        let items = self.items(item)?;
        let (offsets, valid) = (OffsetBuffer::from_lengths(items.lengths), items.valid.into());
        let values = items.values.ok_or_else(|| Error::internal("a list without items"))?;
        Ok(Arc::new(GenericListArray::<O>::try_new(item.clone(), offsets, values, Some(valid))?))
    }

    fn maps(&mut self, entries: &FieldRef, ordered: bool) -> Result<ArrayRef> {
        let no_pairs = || Error::internal("a map whose entries are no pairs");
        let DataType::Struct(pair) = entries.data_type() else { return Err(no_pairs()) };
        let [key, value] = &pair[..] else { return Err(no_pairs()) };
        let mut spans: Vec<Span> = vec![];
        let (mut owners, mut lengths, mut valid) = (vec![], vec![], vec![]);
        for (row, span) in self.tokens.column(self.column).enumerate() {
            let first = spans.len();
            let line = self.open(row, span, b'{');
            let read = line.map(|line| self.entries(&line, key.data_type(), first, &mut spans));
            if let Some(Err(reason)) = &read {
                spans.truncate(first);
                self.target.reject(row, reason, self.bad);
            }
            valid.push(matches!(read, Some(Ok(()))));
            lengths.push((spans.len() - first) / 2);
            owners.resize(spans.len() / 2, self.target.owner(row));
        }
        let inner = Tokens { spans: &spans, width: 2, rows: owners.len(), ..self.tokens };
        let name = format!("{}[]", self.target.name);
        let mut columns = vec![];
        for (i, field) in [key, value].into_iter().enumerate() {
            let target = Target { data_type: field.data_type(), name: &name, owners: Some(&owners) };
            columns.push(build_as(&target, self.dialect, inner, i, self.bad)?);
        }
        without_null_keys(&mut columns, &mut lengths)?;
        let pairs = StructArray::try_new(pair.clone(), columns, None)?;
        let offsets = OffsetBuffer::from_lengths(lengths);
        Ok(Arc::new(MapArray::try_new(entries.clone(), offsets, pairs, Some(valid.into()), ordered)?))
    }

    /// Adds the keys and values of the object `line` to `spans`, in which its own begin at `first`.
    fn entries(&self, line: &Line<'_>, key: &DataType, first: usize, spans: &mut Vec<Span>) -> Result<(), String> {
        // Keys are strings in JSON; ones of another type are read from what stands in the quotes.
        let bare = !matches!(key, DataType::Utf8View | DataType::Utf8 | DataType::LargeUtf8);
        line.entries(|mut key, mut value| {
            if bare && key.kind == Kind::Text {
                key.kind = Kind::Bare;
            }
            if value.kind == Kind::Text && self.dialect.nulls.has(line.span(value)) {
                value.kind = Kind::Null;
            }
            // Of equal keys the last counts.
            let own = spans.get_mut(first..).unwrap_or_default();
            match own.chunks_exact_mut(2).find(|e| line.span(e[0]) == line.span(key)) {
                Some(old) => old[1] = value,
                None => spans.extend([key, value]),
            }
            Ok(())
        })
    }
}

/// Takes out the pairs whose key could not be read; their rows are bad and go.
fn without_null_keys(columns: &mut [ArrayRef], lengths: &mut [usize]) -> Result<()> {
    let Some(nulls) = columns.first().and_then(|keys| keys.logical_nulls()).filter(|n| n.null_count() > 0) else {
        return Ok(());
    };
    let mut at = 0;
    for length in lengths {
        let kept = nulls.slice(at, *length).iter().filter(|valid| *valid).count();
        at += *length;
        *length = kept;
    }
    let kept = BooleanArray::new(nulls.inner().clone(), None);
    for column in columns {
        *column = filter(column, &kept)?;
    }
    Ok(())
}

/// See [`Nested::items`].
struct Items {
    lengths: Vec<usize>,
    valid: Vec<bool>,
    values: Option<ArrayRef>,
}
