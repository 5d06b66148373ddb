//! Where the values of a block stand, before they have types: a span for each row and wanted column.

use arrow::datatypes::{DataType, TimeUnit};

use crate::format::a_sql_name;
use crate::format::options::NullTexts;
use crate::format::timestamp::TimeFormat;
use crate::format::values::Escapes;

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
    /// Texts inside nested values that are null; the tokenizer knows them for columns.
    pub(crate) nulls: NullTexts,
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
    #[inline]
    pub(crate) fn column(&self, column: usize) -> impl Iterator<Item = Span> + use<'a> {
        self.spans.iter().skip(column).step_by(self.width).copied()
    }

    #[inline]
    pub(crate) fn bytes(&self, span: Span) -> &'a [u8] {
        self.block.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn str(&self, span: Span) -> Option<&'a str> {
        match self.text {
            Some(text) => text.get(span.start as usize..span.end as usize),
            None => std::str::from_utf8(self.bytes(span)).ok(),
        }
    }
}

/// The rows that do not fit, with the reason; in no order, a row perhaps more than once.
pub(crate) type BadRows = Vec<(usize, String)>;

/// What a column, or a part of one, is to be.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) data_type: &'a DataType,
    /// The name for messages; of a part with the way to it, like `order.items[].price`.
    pub(crate) name: &'a str,
    /// Of the items of lists: the row that each belongs to.
    pub(crate) owners: Option<&'a [u32]>,
}

impl Target<'_> {
    /// The row of the batch that value `row` belongs to.
    pub(crate) fn owner(&self, row: usize) -> u32 {
        self.owners.and_then(|owners| owners.get(row).copied()).unwrap_or(row as u32)
    }

    /// Says that value `row` cannot be read.
    pub(crate) fn reject(&self, row: usize, reason: &str, bad: &mut BadRows) {
        bad.push((self.owner(row) as usize, format!("column \"{}\": {reason}", self.name)));
    }

    /// Says that value `row`, which is written as `bytes`, is not of the type.
    pub(crate) fn reject_value(&self, row: usize, bytes: &[u8], kind: Kind, bad: &mut BadRows) {
        let shown = String::from_utf8_lossy(bytes.get(..60).unwrap_or(bytes));
        let dots = if bytes.len() > 60 { "…" } else { "" };
        let quote = if matches!(kind, Kind::Text | Kind::Escaped) { "\"" } else { "" };
        self.reject(row, &format!("{quote}{shown}{dots}{quote} is not {}", a_sql_name(self.data_type)), bad);
    }
}
