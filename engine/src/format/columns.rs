//! Spans of text to Arrow columns.
//!
//! A tokenizer notes for each row where the value of each wanted column stands; here each column is then
//! built on its own, in one loop that knows its type. A value that does not fit leaves a null and marks
//! its row as bad; bad rows are filtered out at the end, which good blocks never pay for.

use std::sync::Arc;

use arrow::array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanBuilder, NullBufferBuilder, PrimitiveArray, StringViewBuilder,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{ArrowTimestampType, DataType, Field, FieldRef, Schema, TimeUnit};
use arrow::json::ReaderBuilder;

use crate::error::Result;
use crate::format::sql_name;
use crate::format::timestamp::TimeFormat;
use crate::format::values::{Escapes, is_json_number, read_bool, read_f64, read_loose_bool, read_whole};

/// How a value was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Absent or null.
    Null,
    /// Without quotes; in CSV all values, since its quotes say nothing of the type.
    Bare,
    /// A quoted string whose characters stand for themselves.
    Text,
    /// A quoted string with escapes in it.
    Escaped,
    /// A JSON object or array.
    Nested,
}

/// Where a value stands in its block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) kind: Kind,
}

impl Span {
    /// No value.
    pub(crate) const NULL: Span = Span { start: 0, end: 0, kind: Kind::Null };
}

/// What the format lays down about values.
#[derive(Clone, Debug)]
pub(crate) struct Dialect {
    /// How escapes are written.
    pub(crate) escapes: Escapes,
    /// How timestamps are written as quoted text (in CSV: at all).
    pub(crate) text_time: TimeFormat,
    /// How timestamps are written as bare numbers; `None` in CSV.
    pub(crate) number_time: Option<TimeUnit>,
}

/// A block's rows before they have types: `spans` holds `width` spans for each of `rows` rows.
#[derive(Clone, Copy)]
pub(crate) struct Tokens<'a> {
    pub(crate) block: &'a [u8],
    /// The block as text, where all of it is UTF-8.
    pub(crate) text: Option<&'a str>,
    pub(crate) spans: &'a [Span],
    pub(crate) width: usize,
    pub(crate) rows: usize,
}

impl<'a> Tokens<'a> {
    fn column(&self, column: usize) -> impl Iterator<Item = Span> + use<'a> {
        self.spans.iter().skip(column).step_by(self.width).copied()
    }

    fn bytes(&self, span: Span) -> &'a [u8] {
        self.block.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    fn str(&self, span: Span) -> Option<&'a str> {
        match self.text {
            Some(text) => text.get(span.start as usize..span.end as usize),
            None => std::str::from_utf8(self.bytes(span)).ok(),
        }
    }
}

/// The rows that do not fit, with the reason; in no order, a row perhaps more than once.
pub(crate) type BadRows = Vec<(usize, String)>;

/// Builds column `column` of `tokens` as `field`'s type.
pub(crate) fn build(
    field: &FieldRef,
    dialect: &Dialect,
    tokens: Tokens<'_>,
    column: usize,
    bad: &mut BadRows,
) -> Result<ArrayRef> {
    let mut c = Column { field, dialect, tokens, column, bad };
    let whole = |bytes: &[u8], kind: Kind| if kind == Kind::Bare { read_whole(bytes) } else { None };
    let float = |bytes: &[u8], kind: Kind| if kind == Kind::Bare { read_f64(bytes) } else { None };
    Ok(match field.data_type() {
        DataType::Int8 => c.numbers::<Int8Type>(|b, k| whole(b, k)?.try_into().ok()),
        DataType::Int16 => c.numbers::<Int16Type>(|b, k| whole(b, k)?.try_into().ok()),
        DataType::Int32 => c.numbers::<Int32Type>(|b, k| whole(b, k)?.try_into().ok()),
        DataType::Int64 => c.numbers::<Int64Type>(whole),
        DataType::UInt8 => c.numbers::<UInt8Type>(|b, k| whole(b, k)?.try_into().ok()),
        DataType::UInt16 => c.numbers::<UInt16Type>(|b, k| whole(b, k)?.try_into().ok()),
        DataType::UInt32 => c.numbers::<UInt32Type>(|b, k| whole(b, k)?.try_into().ok()),
        DataType::UInt64 => c.numbers::<UInt64Type>(|b, k| match whole(b, k) {
            Some(n) => n.try_into().ok(),
            None if k == Kind::Bare => std::str::from_utf8(b).ok()?.parse().ok(),
            None => None,
        }),
        DataType::Float32 => c.numbers::<Float32Type>(|b, k| Some(float(b, k)? as f32)),
        DataType::Float64 => c.numbers::<Float64Type>(float),
        DataType::Boolean => c.booleans(),
        DataType::Utf8View => c.texts(),
        DataType::Timestamp(TimeUnit::Second, zone) => c.times::<TimestampSecondType>(zone),
        DataType::Timestamp(TimeUnit::Millisecond, zone) => c.times::<TimestampMillisecondType>(zone),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => c.times::<TimestampMicrosecondType>(zone),
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => c.times::<TimestampNanosecondType>(zone),
        t if t.is_nested() && dialect.escapes == Escapes::Json => c.nested()?,
        _ => c.other()?,
    })
}

/// One column being built.
struct Column<'a, 'b> {
    field: &'a FieldRef,
    dialect: &'a Dialect,
    tokens: Tokens<'a>,
    column: usize,
    bad: &'b mut BadRows,
}

impl Column<'_, '_> {
    fn reject(&mut self, row: usize, span: Span) {
        let bytes = self.tokens.bytes(span);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
        let dots = if bytes.len() > 60 { "…" } else { "" };
        let quote = if matches!(span.kind, Kind::Text | Kind::Escaped) { "\"" } else { "" };
        let (name, wanted) = (self.field.name(), sql_name(self.field.data_type()));
        self.bad.push((row, format!("column \"{name}\": {quote}{shown}{dots}{quote} is not a {wanted}")));
    }

    fn numbers<T: ArrowPrimitiveType>(&mut self, read: impl Fn(&[u8], Kind) -> Option<T::Native>) -> ArrayRef {
        Arc::new(self.primitive::<T>(read))
    }

    #[inline]
    fn primitive<T: ArrowPrimitiveType>(
        &mut self,
        mut read: impl FnMut(&[u8], Kind) -> Option<T::Native>,
    ) -> PrimitiveArray<T> {
        let mut values = Vec::with_capacity(self.tokens.rows);
        let mut nulls = NullBufferBuilder::new(self.tokens.rows);
        for (row, span) in self.tokens.column(self.column).enumerate() {
            let value = match span.kind {
                Kind::Null => None,
                kind => {
                    let value = read(self.tokens.bytes(span), kind);
                    if value.is_none() {
                        self.reject(row, span);
                    }
                    value
                }
            };
            nulls.append(value.is_some());
            values.push(value.unwrap_or_default());
        }
        PrimitiveArray::new(values.into(), nulls.finish())
    }

    fn times<T: ArrowTimestampType>(&mut self, zone: &Option<Arc<str>>) -> ArrayRef {
        let Dialect { text_time, number_time, escapes } = self.dialect;
        let mut scratch = vec![];
        let read = |bytes: &[u8], kind: Kind| match (kind, number_time) {
            (Kind::Bare, Some(unit)) => TimeFormat::Epoch(*unit).read(bytes, T::UNIT),
            (Kind::Escaped, _) => {
                scratch.clear();
                escapes.resolve(bytes, &mut scratch)?;
                text_time.read(scratch.trim_ascii(), T::UNIT)
            }
            (Kind::Nested | Kind::Null, _) => None,
            _ => text_time.read(bytes.trim_ascii(), T::UNIT),
        };
        Arc::new(self.primitive::<T>(read).with_timezone_opt(zone.clone()))
    }

    fn booleans(&mut self) -> ArrayRef {
        let loose = self.dialect.escapes != Escapes::Json;
        let mut values = BooleanBuilder::with_capacity(self.tokens.rows);
        for (row, span) in self.tokens.column(self.column).enumerate() {
            let bytes = self.tokens.bytes(span);
            let value = match span.kind {
                Kind::Bare if loose => read_loose_bool(bytes),
                Kind::Bare => read_bool(bytes),
                _ => None,
            };
            if value.is_none() && span.kind != Kind::Null {
                self.reject(row, span);
            }
            values.append_option(value);
        }
        Arc::new(values.finish())
    }

    fn texts(&mut self) -> ArrayRef {
        let json = self.dialect.escapes == Escapes::Json;
        let mut values = StringViewBuilder::with_capacity(self.tokens.rows);
        let mut scratch = vec![];
        for (row, span) in self.tokens.column(self.column).enumerate() {
            if span.kind == Kind::Null {
                values.append_null();
                continue;
            }
            let text = if span.kind == Kind::Escaped {
                scratch.clear();
                let resolved = self.dialect.escapes.resolve(self.tokens.bytes(span), &mut scratch);
                resolved.and_then(|()| std::str::from_utf8(&scratch).ok())
            } else if span.kind == Kind::Bare && json && !is_json_literal(self.tokens.bytes(span)) {
                None
            } else {
                self.tokens.str(span)
            };
            match text {
                Some(text) => values.append_value(text),
                None => {
                    values.append_null();
                    self.reject(row, span);
                }
            }
        }
        Arc::new(values.finish())
    }

    /// Types without a loop of their own go through Arrow's casts from text.
    fn other(&mut self) -> Result<ArrayRef> {
        let texts = self.texts();
        let options = CastOptions { safe: true, ..CastOptions::default() };
        let values = cast_with_options(&texts, self.field.data_type(), &options)?;
        if values.null_count() > texts.null_count() {
            for (row, span) in self.tokens.column(self.column).enumerate() {
                if values.is_null(row) && texts.is_valid(row) {
                    self.reject(row, span);
                }
            }
        }
        Ok(values)
    }

    /// Objects and arrays go through Arrow's own JSON decoder, as the one field of an object each.
    fn nested(&mut self) -> Result<ArrayRef> {
        let field = Field::new("v", self.field.data_type().clone(), true);
        let schema = Arc::new(Schema::new(vec![field]));
        let line = |tokens: &Tokens<'_>, span: Span, out: &mut Vec<u8>| {
            out.extend_from_slice(b"{\"v\":");
            match span.kind {
                Kind::Null => out.extend_from_slice(b"null"),
                Kind::Text | Kind::Escaped => {
                    out.push(b'"');
                    out.extend_from_slice(tokens.bytes(span));
                    out.push(b'"');
                }
                Kind::Bare | Kind::Nested => out.extend_from_slice(tokens.bytes(span)),
            }
            out.extend_from_slice(b"}\n");
        };
        let decode = |lines: &[u8], rows: usize| -> Result<ArrayRef> {
            let mut decoder = ReaderBuilder::new(schema.clone()).with_batch_size(rows + 1).build_decoder()?;
            decoder.decode(lines)?;
            let batch = decoder.flush()?.filter(|b| b.num_rows() == rows);
            let batch = batch.ok_or_else(|| crate::Error::data("a nested value ended early"))?;
            Ok(batch.column(0).clone())
        };
        if self.tokens.rows == 0 {
            return Ok(arrow::array::new_empty_array(self.field.data_type()));
        }
        let mut lines = vec![];
        self.tokens.column(self.column).for_each(|span| line(&self.tokens, span, &mut lines));
        if let Ok(array) = decode(&lines, self.tokens.rows) {
            return Ok(array);
        }
        let mut parts = Vec::with_capacity(self.tokens.rows);
        for (row, span) in self.tokens.column(self.column).enumerate() {
            lines.clear();
            line(&self.tokens, span, &mut lines);
            parts.push(decode(&lines, 1).unwrap_or_else(|_| {
                self.reject(row, span);
                arrow::array::new_null_array(self.field.data_type(), 1)
            }));
        }
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        Ok(arrow::compute::concat(&parts)?)
    }
}

fn is_json_literal(text: &[u8]) -> bool {
    matches!(text, b"true" | b"false") || is_json_number(text)
}
