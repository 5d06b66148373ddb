//! Spans of text to Arrow columns of numbers, texts and times.
//!
//! A tokenizer notes for each row where the value of each wanted column stands; here each column is then
//! built on its own, in one loop that knows its type. A value that does not fit leaves a null and marks
//! its row as bad; bad rows are filtered out at the end, which good blocks never pay for.

use std::sync::Arc;

use arrow::array::types::{
    Decimal128Type, Decimal256Type, DecimalType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanBuilder, NullBufferBuilder, PrimitiveArray, StringViewBuilder,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{ArrowTimestampType, DataType, TimeUnit};

use crate::error::Result;
use crate::format::digits::{Digits, read_unsigned, read_whole};
use crate::format::spans::{BadRows, Dialect, Kind, Span, Target, Tokens};
use crate::format::timestamp::TimeFormat;
use crate::format::values::{Escapes, is_json_number, read_bool, read_float, read_loose_bool};

/// Builds column `column` of `tokens` as `target`, which is not of a nested type.
pub(crate) fn build_scalar(
    target: &Target<'_>,
    dialect: &Dialect,
    tokens: Tokens<'_>,
    column: usize,
    bad: &mut BadRows,
) -> Result<ArrayRef> {
    let mut c = Column { target, dialect, tokens, column, bad };
    let whole = |bytes: &[u8], kind: Kind| if kind == Kind::Bare { read_whole(bytes) } else { None };
    Ok(match target.data_type {
        DataType::Int8 => c.numbers::<Int8Type>(|b, k| whole(b, k)?.try_into().ok()),
        DataType::Int16 => c.numbers::<Int16Type>(|b, k| whole(b, k)?.try_into().ok()),
        DataType::Int32 => c.numbers::<Int32Type>(|b, k| whole(b, k)?.try_into().ok()),
        DataType::Int64 => c.numbers::<Int64Type>(whole),
        DataType::UInt8 => c.numbers::<UInt8Type>(|b, k| whole(b, k)?.try_into().ok()),
        DataType::UInt16 => c.numbers::<UInt16Type>(|b, k| whole(b, k)?.try_into().ok()),
        DataType::UInt32 => c.numbers::<UInt32Type>(|b, k| whole(b, k)?.try_into().ok()),
        DataType::UInt64 => c.numbers::<UInt64Type>(|b, k| if k == Kind::Bare { read_unsigned(b) } else { None }),
        DataType::Float32 => c.numbers::<Float32Type>(|b, k| if k == Kind::Bare { read_float(b) } else { None }),
        DataType::Float64 => c.numbers::<Float64Type>(|b, k| if k == Kind::Bare { read_float(b) } else { None }),
        DataType::Decimal128(precision, scale) => c.decimals::<Decimal128Type>(*precision, *scale)?,
        DataType::Decimal256(precision, scale) => c.decimals::<Decimal256Type>(*precision, *scale)?,
        DataType::Boolean => c.booleans(),
        DataType::Utf8View => c.texts(),
        DataType::Timestamp(TimeUnit::Second, zone) => c.times::<TimestampSecondType>(zone),
        DataType::Timestamp(TimeUnit::Millisecond, zone) => c.times::<TimestampMillisecondType>(zone),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => c.times::<TimestampMicrosecondType>(zone),
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => c.times::<TimestampNanosecondType>(zone),
        _ => c.other()?,
    })
}

/// One column being built.
struct Column<'a, 'b> {
    target: &'a Target<'a>,
    dialect: &'a Dialect,
    tokens: Tokens<'a>,
    column: usize,
    bad: &'b mut BadRows,
}

impl Column<'_, '_> {
    fn reject(&mut self, row: usize, span: Span) {
        self.target.reject_value(row, self.tokens.bytes(span), span.kind, self.bad);
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
        let Dialect { text_time, number_time, escapes, .. } = self.dialect;
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

    /// Decimals are read digit by digit. Digits behind the scale are rounded, half away from zero.
    fn decimals<T: DecimalType>(&mut self, precision: u8, scale: i8) -> Result<ArrayRef> {
        let escapes = self.dialect.escapes;
        let mut scratch = vec![];
        let read = |bytes: &[u8], kind: Kind| {
            let digits = match kind {
                Kind::Escaped => {
                    scratch.clear();
                    escapes.resolve(bytes, &mut scratch)?;
                    Digits::read(scratch.trim_ascii())?
                }
                Kind::Nested | Kind::Null => return None,
                _ => Digits::read(bytes.trim_ascii())?,
            };
            digits.scaled(scale, false).filter(|n| T::is_valid_decimal_precision(*n, precision))
        };
        Ok(Arc::new(self.primitive::<T>(read).with_data_type(T::TYPE_CONSTRUCTOR(precision, scale))))
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
            } else if json && !is_json_value(span.kind, self.tokens.bytes(span)) {
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
        let values = cast_with_options(&texts, self.target.data_type, &options)?;
        if values.null_count() > texts.null_count() {
            for (row, span) in self.tokens.column(self.column).enumerate() {
                if values.is_null(row) && texts.is_valid(row) {
                    self.reject(row, span);
                }
            }
        }
        Ok(values)
    }
}

/// Whether `text` is JSON, where that was not looked at when its end was found.
fn is_json_value(kind: Kind, text: &[u8]) -> bool {
    match kind {
        Kind::Bare => matches!(text, b"true" | b"false") || is_json_number(text),
        Kind::Nested => serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok(),
        Kind::Null | Kind::Text | Kind::Escaped => true,
    }
}
