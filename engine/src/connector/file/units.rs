//! Readers of one unit each.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::sync::Arc;

use arrow::array::Int64Array;
use async_trait::async_trait;
use parking_lot::Mutex;

use super::partition::Given;
use super::print::{Print, ReadAt};
use super::queue::Queue;
use crate::changes::Changes;
use crate::connector::{DeadLetter, Read, Unit, UnitReader};
use crate::error::{Error, ErrorKind, Result};
use crate::format::ahead::Ahead;
use crate::format::blocks::{Block, Blocks, Damage, Want};
use crate::format::columnar::{Batches, ParquetFile, Rows};
use crate::format::compression::Compression;
use crate::format::{LineDecoder, Place};

/// What a reader tells others.
#[derive(Clone)]
pub(super) struct Report {
    /// Where the end of a split goes that only shows when it is read.
    pub(super) queue: Arc<Mutex<Queue>>,
    pub(super) unit: Unit,
    /// Whether a dead letter is an error.
    pub(super) fail: bool,
    /// Whether an end that is missing may still come.
    pub(super) patient: bool,
}

impl Report {
    pub(super) fn ended(&self, at: u64) {
        if self.unit.end == u64::MAX {
            self.queue.lock().set_end(&self.unit.split, at);
        }
    }

    /// Keeps the footer of the file for its next unit.
    pub(super) fn note_footer(&self, footer: ParquetFile) -> ParquetFile {
        if let Some(input) = self.queue.lock().input_mut(&self.unit.split) {
            input.parquet = Some(footer.clone());
        }
        footer
    }

    /// Whether what is wrong at `at` may be that the file is still being written: then it is read on later.
    pub(super) fn waits(&self, at: u64, error: &Error) -> bool {
        let odd = matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unsupported | ErrorKind::Internal);
        if odd || !self.patient || self.unit.end != u64::MAX {
            return false;
        }
        self.queue.lock().set_missing(&self.unit.split, at, error.message().to_owned());
        true
    }

    fn check(&self, dead: &[DeadLetter]) -> Result<()> {
        match dead.first() {
            Some(first) if self.fail => Err(failure(first)),
            _ => Ok(()),
        }
    }
}

/// The error for a dead letter that must not be.
fn failure(dead: &DeadLetter) -> Error {
    let line = dead.line.map(|n| format!(", line {n}")).unwrap_or_default();
    Error::data(format!("file \"{}\"{line}, position {}: {}", dead.split, dead.position, dead.reason))
        .with_hint("Write on_error = 'dead_letter' to set such input aside and go on.")
}

/// Opens a text file at the lines that `want` says. Blocks on the file system.
pub(super) fn open_text(file: Arc<File>, compression: Compression, want: Want, size: Option<u64>) -> Result<Blocks> {
    if compression != Compression::None {
        return Ok(Blocks::from_start(compression.reader(ReadAt { file, at: 0 })?, want));
    }
    let start = want.start.saturating_sub(1);
    let length = size.map_or(u64::MAX, |size| size.saturating_sub(start));
    let input: Box<dyn io::Read + Send> = match Arc::try_unwrap(file) {
        // A file that nobody else reads has its place itself, and needs no buffer that is cleared first.
        Ok(mut file) => {
            file.seek(SeekFrom::Start(start))?;
            Box::new(file.take(length))
        }
        Err(file) => Box::new(ReadAt { file, at: start }.take(length)),
    };
    Ok(Blocks::new(input, want))
}

/// The text of a unit.
pub(super) struct Text {
    pub(super) blocks: Blocks,
    /// What the file must still begin with once something has been read of it.
    pub(super) print: Option<(Arc<File>, Print)>,
}

/// What comes of reading on.
enum Piece {
    Lines(Block),
    /// The file is not what it was: it was cut, as when it has been copied, and may hold other lines.
    Cut,
}

impl Text {
    fn next(&mut self) -> Result<Option<Piece>> {
        let block = self.blocks.next()?;
        // Asked after reading: what holds now held then.
        if let Some((file, print)) = &self.print
            && !print.is_of(file)
        {
            self.blocks.end();
            return Ok(Some(Piece::Cut));
        }
        Ok(block.map(Piece::Lines))
    }
}

/// Reads lines.
pub(super) struct TextReader {
    text: Ahead<Text, Piece>,
    decoder: Box<dyn LineDecoder>,
    given: Given,
    /// The block being decoded, and how much of it has been.
    block: Option<(Block, usize)>,
    /// What is left of that is half of a change, if it is one line.
    is_half: bool,
    /// All before has been read.
    position: u64,
    /// The number of the next line, where known.
    line: Option<u64>,
    /// Whether the end of the file has been told.
    over: bool,
    /// Whether the rest of the unit was given back.
    cut: bool,
    report: Report,
}

impl TextReader {
    pub(super) fn new(text: Text, mut decoder: Box<dyn LineDecoder>, given: Given, report: Report) -> Self {
        if given.positions {
            decoder.keep_places();
        }
        let position = report.unit.start;
        let line = (position == 0).then_some(1);
        TextReader {
            text: Ahead::new(text, Text::next),
            decoder,
            given,
            block: None,
            is_half: false,
            position,
            line,
            over: false,
            cut: false,
            report,
        }
    }

    fn waits(&self, damage: &Damage) -> bool {
        self.report.waits(damage.position, &Error::data(damage.reason.clone()))
    }

    /// Decodes what is left of `block`, or as much as makes a batch.
    fn decode(&mut self, block: Block, used: usize) -> Result<Read> {
        let mut rows = None;
        let mut dead = vec![];
        let mut done = used;
        if used < block.bytes.len() {
            let at = Place { position: block.position + used as u64, line: self.line };
            let decoded = self.decoder.decode(&block.bytes[used..], at)?;
            self.line = self.line.map(|n| n + decoded.lines);
            done += decoded.bytes;
            self.is_half = decoded.is_half;
            dead = decoded.dead;
            let (places, weights) = (decoded.places, decoded.weights);
            let positions = || Int64Array::from_iter_values(places.iter().map(|place| place.position as i64));
            rows = Some(Changes::of_rows(self.given.rows(decoded.rows, positions)?, weights)?);
        }
        if done < block.bytes.len() {
            self.position = block.position + done as u64;
            self.block = Some((block, done));
        } else {
            self.position = block.after;
            let waits = block.ended && block.damage.as_ref().is_some_and(|d| self.waits(d));
            if let Some(d) = block.damage.as_ref().filter(|_| waits) {
                // The line that has no end yet is read again with it.
                self.position = d.position;
            } else if let Some(d) = block.damage {
                let split = self.report.unit.split.clone();
                dead.push(DeadLetter { split, position: d.position, line: self.line, reason: d.reason, raw: d.raw });
                // The line that was given up has no newline that was counted.
                self.line = self.line.map(|n| n + 1);
            }
            self.over |= block.ended;
            if block.ended && !waits {
                self.report.ended(block.after);
            }
        }
        self.report.check(&dead)?;
        let rows = rows.unwrap_or_else(|| Changes::empty(self.given.schema.clone()));
        Ok(Read { rows, position: self.position, dead, watermark: None })
    }
}

#[async_trait]
impl UnitReader for TextReader {
    async fn next(&mut self) -> Result<Option<Read>> {
        if self.cut {
            return Ok(None);
        }
        let left = self.block.take();
        if let Some((block, used)) = left.as_ref()
            && !(self.is_half && is_one_line(block, *used))
        {
            return left.map(|(block, used)| self.decode(block, used)).transpose();
        }
        let split = self.report.unit.split.clone();
        let piece = self.text.next().await.map_err(|e| e.context(format_args!("file \"{split}\"")))?;
        match (piece, left) {
            (Some(Piece::Lines(more)), Some((block, used))) => {
                let (block, used) = joined(block, used, more);
                return self.decode(block, used).map(Some);
            }
            (Some(Piece::Lines(block)), None) => return self.decode(block, 0).map(Some),
            (None, Some((block, used))) => return self.decode(block, used).map(Some),
            (Some(Piece::Cut), _) => {
                // It is looked for, and the rest is read where it is found.
                self.cut = true;
                let rest = Unit { split, start: self.position, end: self.report.unit.end };
                self.report.queue.lock().give_back(rest);
                return Ok(None);
            }
            (None, None) => {}
        }
        // No line begins in what is left of the unit.
        let end = self.report.unit.end;
        if end == u64::MAX {
            if !self.over {
                self.report.ended(self.position);
            }
        } else if self.position < end {
            self.position = end;
            return Ok(Some(Read {
                rows: Changes::empty(self.given.schema.clone()),
                position: end,
                dead: vec![],
                watermark: None,
            }));
        }
        Ok(None)
    }

    fn is_whole(&self) -> bool {
        !self.cut
    }
}

/// Whether what is left of `block` is one line, behind which more may follow.
fn is_one_line(block: &Block, used: usize) -> bool {
    let rest = block.bytes.get(used..).unwrap_or_default();
    let lines = rest.split_last().is_some_and(|(_, rest)| memchr::memchr(b'\n', rest).is_some());
    !lines && !block.ended && block.damage.is_none()
}

/// What is left of `block`, and what follows on it.
fn joined(mut block: Block, used: usize, more: Block) -> (Block, usize) {
    block.bytes.drain(..used);
    block.bytes.extend_from_slice(&more.bytes);
    (Block { position: block.position + used as u64, bytes: block.bytes, ..more }, 0)
}

/// Reads a columnar file.
pub(super) struct ColumnarReader {
    batches: Ahead<Batches, Rows>,
    given: Given,
    report: Report,
}

impl ColumnarReader {
    pub(super) fn new(batches: Batches, given: Given, report: Report) -> Self {
        ColumnarReader { batches: Ahead::new(batches, Batches::next), given, report }
    }
}

#[async_trait]
impl UnitReader for ColumnarReader {
    async fn next(&mut self) -> Result<Option<Read>> {
        let Some(read) = self.batches.next().await? else { return Ok(None) };
        if read.ended {
            self.report.ended(read.after);
        }
        self.report.check(&read.dead)?;
        let (after, dead) = (read.after, read.dead);
        let first = after - (read.rows.num_rows() + dead.len()) as u64;
        // Those that became dead letters stood between the others.
        let mut gone = dead.iter().map(|letter| letter.position).peekable();
        let kept = (first..after).filter(|at| gone.next_if_eq(at).is_none());
        let rows = self.given.rows(read.rows, || Int64Array::from_iter_values(kept.map(|at| at as i64)))?;
        Ok(Some(Read { rows: Changes::insertions(rows), position: after, dead, watermark: None }))
    }
}
