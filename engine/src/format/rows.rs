//! Text to batches: what JSON and CSV have in common, for lines and for records.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::ScalarBuffer;
use arrow::compute::filter;
use arrow::datatypes::SchemaRef;

use crate::error::Result;
use crate::format::DeadLetter;
use crate::format::content::{Content, Records, Taken};
use crate::format::json::nested::build;
use crate::format::spans::{BadRows, Dialect, Tokens};
use crate::format::tokenizer::{Found, Tokenizer};
use crate::format::{Decoded, LineDecoder, Place};

/// The rows of one batch at most, so that a block of tiny lines does not make a huge one.
const MAX_ROWS: usize = 16_384;

/// A decoder for lines, or records, that `T` takes apart.
pub(crate) struct RowDecoder<T> {
    tokenizer: T,
    dialect: Dialect,
    split: Arc<str>,
    schema: SchemaRef,
    found: Found,
    /// Where each row that was found stands.
    rows: Vec<Row>,
    keeps_places: bool,
}

/// What was found, with its types.
struct Typed {
    /// The good rows, and their weights where they have some.
    rows: RecordBatch,
    weights: Option<ScalarBuffer<i64>>,
    /// Which rows these are of those that were found; all if `None`.
    good: Option<BooleanArray>,
    /// The others, one of each record, with the reason.
    bad: BadRows,
}

/// Where a row stands in its block.
#[derive(Clone, Copy)]
struct Row {
    start: usize,
    end: usize,
    /// The line of the block, or the record, that it begins in, from 0.
    number: u64,
}

impl<T: Tokenizer> RowDecoder<T> {
    pub(crate) fn new(tokenizer: T, dialect: Dialect, split: Arc<str>, schema: SchemaRef) -> Self {
        RowDecoder { tokenizer, dialect, split, schema, found: Found::default(), rows: vec![], keeps_places: false }
    }

    fn dead(&self, block: &[u8], at: Place, row: Row, reason: String) -> DeadLetter {
        DeadLetter {
            split: self.split.clone(),
            position: at.position + row.start as u64,
            line: at.line.map(|n| n + row.number),
            reason,
            raw: block[row.start..row.end].to_vec(),
        }
    }

    /// Takes the lines of `block` apart; gives the bytes and lines taken.
    fn take_lines(&mut self, block: &[u8], valid: bool, at: Place, dead: &mut Vec<DeadLetter>) -> Result<(usize, u64)> {
        self.begin();
        let mut start = if at.position == 0 { self.tokenizer.begin(block)? } else { 0 };
        let mut line = memchr::memchr_iter(b'\n', &block[..start]).count() as u64;
        while start < block.len() && self.rows.len() < MAX_ROWS {
            let newline = self.tokenizer.record_end(block, start);
            let end = if newline > start && block[newline - 1] == b'\r' { newline - 1 } else { newline };
            let row = Row { start, end, number: line };
            let read = if valid || std::str::from_utf8(&block[start..end]).is_ok() {
                self.record(block, row)
            } else {
                Err("not valid UTF-8".to_owned())
            };
            if let Err(reason) = read {
                dead.push(self.dead(block, at, row, reason));
            }
            // A record may span lines where newlines are allowed in values.
            line += 1 + memchr::memchr_iter(b'\n', &block[start..end]).count() as u64;
            start = newline + 1;
        }
        if self.tokenizer.is_half()
            && self.rows.len() > 1
            && let Some(last) = self.rows.pop()
        {
            self.found.truncate(self.rows.len());
            (start, line) = (last.start, last.number);
        }
        Ok((start.min(block.len()), line))
    }

    /// Nothing has been found yet.
    fn begin(&mut self) {
        self.found.clear(self.schema.fields().len());
        self.rows.clear();
        self.tokenizer.forget();
    }

    /// Takes the record apart that stands at `row`; gives how many rows it says something of.
    #[inline]
    fn record(&mut self, block: &[u8], row: Row) -> Result<usize, String> {
        let before = self.found.len();
        let read = self.tokenizer.rows(block, row.start, row.end, &mut self.found);
        if let Err(reason) = read {
            self.found.truncate(before);
            return Err(reason);
        }
        // Mostly it is one.
        let rows = self.found.len() - before;
        for _ in 0..rows {
            self.rows.push(row);
        }
        Ok(rows)
    }

    /// Gives what was taken apart its types.
    fn typed(&self, block: &[u8], text: Option<&str>) -> Result<Typed> {
        let (width, rows) = (self.schema.fields().len(), self.rows.len());
        let tokens = Tokens { block, text, spans: &self.found.spans, width, rows };
        let mut bad = vec![];
        let mut columns = self.columns(tokens, &mut bad)?;
        bad.sort_by_key(|(row, _)| *row);
        let record = |row: usize| self.rows.get(row).map(|row| (row.start, row.number));
        bad.dedup_by_key(|(row, _)| record(*row));
        let mut good = None;
        if !bad.is_empty() {
            let mut mask = vec![true; rows];
            for (row, _) in &bad {
                // What a record says of several rows counts as a whole.
                let (own, at) = (|i: &usize| record(*i) == record(*row), *row);
                (0..at).rev().take_while(own).chain((at..rows).take_while(own)).for_each(|i| mask[i] = false);
            }
            let mask = BooleanArray::from(mask);
            for column in &mut columns {
                *column = filter(column, &mask)?;
            }
            good = Some(mask);
        }
        let mut weights = (!self.found.weights.is_empty()).then(|| self.found.weights.clone());
        if let (Some(weights), Some(good)) = (&mut weights, &good) {
            let mut good = good.values().iter();
            weights.retain(|_| good.next() == Some(true));
        }
        let left = good.as_ref().map_or(rows, BooleanArray::true_count);
        let options = RecordBatchOptions::new().with_row_count(Some(left));
        Ok(Typed {
            rows: RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?,
            weights: weights.map(Into::into),
            good,
            bad,
        })
    }

    fn columns(&self, tokens: Tokens<'_>, bad: &mut BadRows) -> Result<Vec<ArrayRef>> {
        let mut columns = Vec::with_capacity(tokens.width);
        for (i, field) in self.schema.fields().iter().enumerate() {
            let column = match self.tokenizer.column(field, &self.dialect, tokens, i, bad)? {
                Some(column) => column,
                None => build(field, &self.dialect, tokens, i, bad)?,
            };
            if !field.is_nullable() && column.null_count() > 0 {
                let nulls = (0..column.len()).filter(|row| column.is_null(*row));
                bad.extend(nulls.map(|row| (row, format!("column \"{}\" is null", field.name()))));
            }
            columns.push(column);
        }
        Ok(columns)
    }

    /// Where the rows stand that are `good`.
    fn good<'a>(&'a self, good: Option<&'a BooleanArray>) -> impl Iterator<Item = Row> + 'a {
        let rows = self.rows.iter().enumerate();
        rows.filter(move |(i, _)| good.is_none_or(|good| good.value(*i))).map(|(_, row)| *row)
    }
}

impl<T: Tokenizer> LineDecoder for RowDecoder<T> {
    fn decode(&mut self, block: &[u8], at: Place) -> Result<Decoded> {
        let text = std::str::from_utf8(block).ok();
        let mut dead = vec![];
        let (bytes, lines) = self.take_lines(block, text.is_some(), at, &mut dead)?;
        let Typed { rows, weights, good, bad } = self.typed(block, text)?;
        let mut places = vec![];
        if self.keeps_places {
            let place =
                |row: Row| Place { position: at.position + row.start as u64, line: at.line.map(|n| n + row.number) };
            places.extend(self.good(good.as_ref()).map(place));
        }
        if !bad.is_empty() {
            dead.extend(bad.into_iter().map(|(row, reason)| self.dead(block, at, self.rows[row], reason)));
            dead.sort_by_key(|d| d.position);
        }
        Ok(Decoded { rows, weights, dead, bytes, lines, is_half: self.tokenizer.is_half(), places })
    }

    fn keep_places(&mut self) {
        self.keeps_places = true;
    }
}

impl<T: Tokenizer> Content for RowDecoder<T> {
    fn take(&mut self, records: &Records) -> Result<Taken> {
        let values = records.values();
        let block = values.value_data();
        let text = std::str::from_utf8(block).ok();
        let mut dead = vec![];
        self.begin();
        let mut parts = vec![];
        let passes_over_empty = self.tokenizer.passes_over_empty();
        for record in 0..records.len() {
            if values.is_null(record) {
                if !passes_over_empty {
                    dead.push((record, "the record has no value".to_owned(), 0..0));
                }
                continue;
            }
            let offsets = values.value_offsets();
            let (start, end) = (offsets[record] as usize, offsets[record + 1] as usize);
            parts.clear();
            let bytes = &block[start..end];
            // A record of bytes that are text only together with those of the next is none.
            let valid = match text {
                Some(text) => text.is_char_boundary(start) && text.is_char_boundary(end),
                None => std::str::from_utf8(bytes).is_ok(),
            };
            let found = match valid {
                true => self.tokenizer.parts(block, start..trimmed(block, start, end), &mut parts),
                false => Err("not valid UTF-8".to_owned()),
            };
            if let Err(reason) = found {
                dead.push((record, reason, start..end));
                continue;
            }
            for part in &parts {
                let row = Row { start: part.start, end: part.end, number: record as u64 };
                match self.record(block, row) {
                    Ok(0) if !passes_over_empty => dead.push((record, "the record is empty".to_owned(), part.clone())),
                    Ok(_) => {}
                    Err(reason) => dead.push((record, reason, part.clone())),
                }
            }
        }
        let Typed { rows, weights, good, bad } = self.typed(block, text)?;
        let of = self.good(good.as_ref()).map(|row| row.number as u32).collect();
        let misfits = bad.into_iter().filter_map(|(i, reason)| Some((self.rows.get(i)?, reason)));
        dead.extend(misfits.map(|(row, reason)| (row.number as usize, reason, row.start..row.end)));
        dead.sort_by_key(|(record, _, bytes)| (*record, bytes.start));
        let dead = dead.into_iter().map(|(record, reason, bytes)| (record, reason, block[bytes].to_vec()));
        Ok(Taken { rows, weights, of, dead: dead.collect() })
    }
}

/// The end of a record without the line ending that it may have.
fn trimmed(block: &[u8], start: usize, end: usize) -> usize {
    match &block[start..end] {
        [.., b'\r', b'\n'] => end - 2,
        [.., b'\n'] => end - 1,
        _ => end,
    }
}
