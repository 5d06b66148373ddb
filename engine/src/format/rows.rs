//! Lines to batches: what JSON and CSV have in common.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter;
use arrow::datatypes::SchemaRef;

use crate::error::Result;
use crate::format::DeadLetter;
use crate::format::json::nested::build;
use crate::format::spans::{BadRows, Dialect, Span, Tokens};
use crate::format::tokenizer::Tokenizer;
use crate::format::{Decoded, LineDecoder, Place};

/// The rows of one batch at most, so that a block of tiny lines does not make a huge one.
const MAX_ROWS: usize = 16_384;

/// A decoder for lines that `T` takes apart.
pub(crate) struct RowDecoder<T> {
    tokenizer: T,
    dialect: Dialect,
    split: Arc<str>,
    schema: SchemaRef,
    spans: Vec<Span>,
    records: Vec<Record>,
}

/// Where a row stands in its block, and which line of it that is (from 0).
#[derive(Clone, Copy)]
struct Record {
    start: usize,
    end: usize,
    line: u64,
}

impl<T: Tokenizer> RowDecoder<T> {
    pub(crate) fn new(tokenizer: T, dialect: Dialect, split: Arc<str>, schema: SchemaRef) -> Self {
        RowDecoder { tokenizer, dialect, split, schema, spans: vec![], records: vec![] }
    }

    fn dead(&self, block: &[u8], at: Place, record: Record, reason: String) -> DeadLetter {
        DeadLetter {
            split: self.split.clone(),
            position: at.position + record.start as u64,
            line: at.line.map(|n| n + record.line),
            reason,
            raw: block[record.start..record.end].to_vec(),
        }
    }

    /// Takes `block` apart; gives the bytes and lines taken.
    fn tokenize(&mut self, block: &[u8], valid: bool, at: Place, dead: &mut Vec<DeadLetter>) -> Result<(usize, u64)> {
        let width = self.schema.fields().len();
        self.spans.clear();
        self.records.clear();
        let mut start = if at.position == 0 { self.tokenizer.begin(block)? } else { 0 };
        let mut line = memchr::memchr_iter(b'\n', &block[..start]).count() as u64;
        while start < block.len() && self.records.len() < MAX_ROWS {
            let newline = self.tokenizer.record_end(block, start);
            let end = if newline > start && block[newline - 1] == b'\r' { newline - 1 } else { newline };
            let record = Record { start, end, line };
            let first = self.spans.len();
            self.spans.resize(first + width, Span::NULL);
            let read = if valid || std::str::from_utf8(&block[start..end]).is_ok() {
                self.tokenizer.row(block, start, end, &mut self.spans[first..])
            } else {
                Err("not valid UTF-8".to_owned())
            };
            match read {
                Ok(true) => self.records.push(record),
                Ok(false) => self.spans.truncate(first),
                Err(reason) => {
                    self.spans.truncate(first);
                    dead.push(self.dead(block, at, record, reason));
                }
            }
            // A record may span lines where newlines are allowed in values.
            line += 1 + memchr::memchr_iter(b'\n', &block[start..end]).count() as u64;
            start = newline + 1;
        }
        Ok((start.min(block.len()), line))
    }

    fn columns(&self, tokens: Tokens<'_>, bad: &mut BadRows) -> Result<Vec<ArrayRef>> {
        let mut columns = Vec::with_capacity(tokens.width);
        for (i, field) in self.schema.fields().iter().enumerate() {
            let column = build(field, &self.dialect, tokens, i, bad)?;
            if !field.is_nullable() && column.null_count() > 0 {
                let nulls = (0..column.len()).filter(|row| column.is_null(*row));
                bad.extend(nulls.map(|row| (row, format!("column \"{}\" is null", field.name()))));
            }
            columns.push(column);
        }
        Ok(columns)
    }
}

impl<T: Tokenizer> LineDecoder for RowDecoder<T> {
    fn decode(&mut self, block: &[u8], at: Place) -> Result<Decoded> {
        let text = std::str::from_utf8(block).ok();
        let mut dead = vec![];
        let (bytes, lines) = self.tokenize(block, text.is_some(), at, &mut dead)?;
        let (width, rows) = (self.schema.fields().len(), self.records.len());
        let tokens = Tokens { block, text, spans: &self.spans, width, rows };
        let mut bad = vec![];
        let mut columns = self.columns(tokens, &mut bad)?;
        let mut kept = rows;
        if !bad.is_empty() {
            bad.sort_by_key(|(row, _)| *row);
            bad.dedup_by_key(|(row, _)| *row);
            let mut good = vec![true; rows];
            for (row, reason) in bad {
                good[row] = false;
                kept -= 1;
                dead.push(self.dead(block, at, self.records[row], reason));
            }
            let good = BooleanArray::from(good);
            for column in &mut columns {
                *column = filter(column, &good)?;
            }
            dead.sort_by_key(|d| d.position);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(kept));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        Ok(Decoded { rows, dead, bytes, lines })
    }
}
