//! Bodies: what comes whole and once, as the body of a request does.
//!
//! A [`BodyDecoder`] reads rows from wherever the bytes come, batch by batch: lines of JSON, a JSON document that is an object or
//! an array of them, CSV with a header, or an Arrow IPC stream. A row that does not fit is a dead letter with the line it
//! begins in, from 1 (of an Arrow stream: which row it is). Lines and batches are read as they come; a document is held whole.

use std::io::{BufReader, ErrorKind as IoErrorKind, Read};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{BinaryArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{Schema, SchemaRef};

use crate::error::{Error, Result};
use crate::format::blocks::{Blocks, Cut, Want};
use crate::format::columnar::Fit;
use crate::format::convert::find_field;
use crate::format::ipc::IpcStream;
use crate::format::metadata::Layout;
use crate::format::options::{CsvOptions, JsonOptions};
use crate::format::records::{DecodedRecords, RecordDecoder, RecordFormat, RecordOptions, Records};
use crate::format::{DeadLetter, LineDecoder, Place, csv, json};
use crate::memory::MemoryAccount;

/// What errors and dead letters call the body.
const NAME: &str = "body";
/// The items of a document that are decoded at once.
const ITEMS: usize = 8_192;
/// The rows of a batch of Arrow that are fitted at once.
const AT_ONCE: usize = 1 << 16;
/// What is read of a document at once.
const PIECE: usize = 1 << 20;

/// What a body holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFormat {
    /// A JSON object a line.
    JsonLines,
    /// A JSON object, or an array of them.
    Json,
    /// CSV whose first line names the columns, some of which may be missing.
    Csv,
    /// A stream of Arrow's IPC format.
    Arrow,
}

/// Makes rows of a body.
pub struct BodyDecoder {
    schema: SchemaRef,
    kind: Kind,
}

enum Kind {
    Lines(Box<Lines>),
    Document(Box<Document>),
    Arrow(Box<ArrowStream>),
}

impl BodyDecoder {
    /// Reads `input` as rows of `schema`; what must be held of it is a part of `held`. Packed buffers of an Arrow stream unpack to
    /// at most `most` bytes.
    ///
    /// Errors when an Arrow stream has columns that `schema` has not.
    pub fn new(
        format: BodyFormat,
        schema: SchemaRef,
        input: Box<dyn Read + Send>,
        held: MemoryAccount,
        most: usize,
    ) -> Result<Self> {
        let kind = match format {
            BodyFormat::JsonLines | BodyFormat::Csv => Kind::Lines(Box::new(Lines::new(format, input))),
            BodyFormat::Json => Kind::Document(Box::new(Document::read(&schema, input, held)?)),
            BodyFormat::Arrow => Kind::Arrow(Box::new(ArrowStream::new(&schema, input, held, most)?)),
        };
        Ok(BodyDecoder { schema, kind })
    }

    /// The next rows; `None` at the end.
    ///
    /// Errors where the body as a whole cannot be read.
    pub fn next_rows(&mut self) -> Result<Option<DecodedRecords>> {
        match &mut self.kind {
            Kind::Lines(lines) => lines.next(&self.schema),
            Kind::Document(document) => document.next(),
            Kind::Arrow(stream) => stream.next(),
        }
    }
}

/// A body of lines.
struct Lines {
    blocks: Blocks,
    /// `None` for JSON.
    csv: Option<CsvOptions>,
    /// Made when the header is there.
    decoder: Option<LineRows>,
    block: Vec<u8>,
    /// How much of the block is decoded.
    at: usize,
    place: (u64, u64),
}

impl Lines {
    fn new(format: BodyFormat, input: Box<dyn Read + Send>) -> Self {
        let csv = (format == BodyFormat::Csv).then(|| CsvOptions { newlines_in_values: true, ..CsvOptions::default() });
        let cut = csv.clone().map_or(Cut::Newline, Cut::Record);
        let want = Want { start: 0, end: u64::MAX, cut, eager: false, fragile: None };
        let blocks = Blocks::from_start(input, want);
        Lines { blocks, csv, decoder: None, block: vec![], at: 0, place: (0, 1) }
    }

    fn next(&mut self, schema: &SchemaRef) -> Result<Option<DecodedRecords>> {
        loop {
            if let Some(rest) = self.block.get(self.at..).filter(|rest| !rest.is_empty()) {
                let decoder = match &mut self.decoder {
                    Some(decoder) => decoder,
                    None => self.decoder.insert(LineRows::new(schema, self.csv.as_ref(), rest)?),
                };
                let (position, line) = self.place;
                let decoded = decoder.decoder.decode(rest, Place { position, line: Some(line) })?;
                self.at += decoded.bytes;
                self.place = (position + decoded.bytes as u64, line + decoded.lines);
                let rows = decoder.whole(schema, decoded.rows)?;
                return Ok(Some(DecodedRecords { rows, weights: None, dead: decoded.dead }));
            }
            let Some(block) = self.blocks.next()? else { return Ok(None) };
            (self.block, self.at) = (block.bytes, 0);
            if let Some(damage) = block.damage {
                let (position, line) = (damage.position, Some(self.place.1));
                self.place = (block.after, self.place.1 + 1);
                let letter = DeadLetter { split: NAME.into(), position, line, reason: damage.reason, raw: damage.raw };
                let rows = RecordBatch::new_empty(schema.clone());
                return Ok(Some(DecodedRecords { rows, weights: None, dead: vec![letter] }));
            }
        }
    }
}

/// Decodes lines to those columns that they can have.
struct LineRows {
    decoder: Box<dyn LineDecoder>,
    /// Where each column of the stream is among those that are decoded; `None` for all.
    places: Option<Vec<Option<usize>>>,
}

impl LineRows {
    fn new(schema: &SchemaRef, csv: Option<&CsvOptions>, first: &[u8]) -> Result<Self> {
        let Some(csv) = csv else {
            let decoder = json::decoder(schema.clone(), &JsonOptions::default(), &[], NAME.into());
            return Ok(LineRows { decoder, places: None });
        };
        let header = csv::whole_header(first, csv).unwrap_or_else(|| csv::header_names(first, csv));
        let is_there = |name: &str| header.iter().any(|h| h.eq_ignore_ascii_case(name));
        let (mut found, mut places) = (vec![], vec![]);
        for (i, field) in schema.fields().iter().enumerate() {
            let there = is_there(field.name());
            if !there && !field.is_nullable() {
                return Err(Error::invalid(format!(
                    "the header lacks column \"{}\", which must not be null",
                    field.name()
                ))
                .with_hint(format!("Its first line has: {}.", header.join(", "))));
            }
            places.push(there.then_some(found.len()));
            found.extend(there.then_some(i));
        }
        if found.is_empty() {
            let names: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            return Err(Error::invalid("the first line of the CSV names no column of the stream")
                .with_hint(format!("Begin with a header. The columns are: {}.", names.join(", "))));
        }
        let decoded = schema.project(&found)?;
        let all: Vec<usize> = (0..found.len()).collect();
        let decoder = csv::decoder(&decoded, &all, csv, NAME.into(), None)?;
        Ok(LineRows { decoder, places: (found.len() < places.len()).then_some(places) })
    }

    /// `rows` with nulls where a column is missing.
    fn whole(&self, schema: &SchemaRef, rows: RecordBatch) -> Result<RecordBatch> {
        let Some(places) = &self.places else { return Ok(rows) };
        let column = |(field, place): (&Arc<arrow::datatypes::Field>, &Option<usize>)| match place {
            Some(at) => rows.column(*at).clone(),
            None => new_null_array(field.data_type(), rows.num_rows()),
        };
        let columns = schema.fields().iter().zip(places).map(column).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
    }
}

/// A JSON document, held whole.
struct Document {
    text: Vec<u8>,
    /// Where its rows stand.
    items: std::vec::IntoIter<Range<usize>>,
    decoder: RecordDecoder,
    /// A place in it, and the line there.
    at: (usize, u64),
    /// Why it cannot be taken apart.
    broken: Option<String>,
    schema: SchemaRef,
    _held: MemoryAccount,
}

impl Document {
    fn read(schema: &SchemaRef, mut input: Box<dyn Read + Send>, mut held: MemoryAccount) -> Result<Self> {
        let mut text = vec![];
        loop {
            held.resize_large(text.len() + PIECE)?;
            if (&mut input).take(PIECE as u64).read_to_end(&mut text)? == 0 {
                break;
            }
        }
        let (items, broken) = match json::items(&text) {
            Ok(items) => (items, None),
            Err(reason) => (vec![], Some(reason)),
        };
        held.resize_large(text.len() + items.len() * size_of::<Range<usize>>())?;
        let all: Vec<usize> = (0..schema.fields().len()).collect();
        let layout = Layout::new(schema, &all, &Default::default())?;
        let options = RecordOptions { format: RecordFormat::Json(JsonOptions::default()), fail: false };
        let decoder = RecordDecoder::new(&options, layout, NAME.into())?;
        Ok(Document {
            text,
            items: items.into_iter(),
            decoder,
            at: (0, 1),
            broken,
            schema: schema.clone(),
            _held: held,
        })
    }

    fn next(&mut self) -> Result<Option<DecodedRecords>> {
        if let Some(reason) = self.broken.take() {
            let letter = DeadLetter {
                split: NAME.into(),
                position: 0,
                line: Some(1),
                reason,
                raw: std::mem::take(&mut self.text),
            };
            let rows = RecordBatch::new_empty(self.schema.clone());
            return Ok(Some(DecodedRecords { rows, weights: None, dead: vec![letter] }));
        }
        let some: Vec<_> = self.items.by_ref().take(ITEMS).collect();
        if some.is_empty() {
            return Ok(None);
        }
        let values = BinaryArray::from_iter_values(some.iter().map(|item| &self.text[item.clone()]));
        let positions = some.iter().map(|item| item.start as u64).collect();
        let mut decoded = self.decoder.decode(&Records::new(values, positions)?)?;
        for letter in &mut decoded.dead {
            let (from, line) = self.at;
            let upto = (letter.position as usize).max(from);
            let line = line + memchr::memchr_iter(b'\n', &self.text[from..upto]).count() as u64;
            (self.at, letter.line) = ((upto, line), Some(line));
        }
        Ok(Some(decoded))
    }
}

/// A stream of Arrow batches.
struct ArrowStream {
    batches: IpcStream<BufReader<Box<dyn Read + Send>>>,
    order: Vec<Option<usize>>,
    fit: Fit,
    rows: u64,
    /// What has come and is not given.
    rest: Option<RecordBatch>,
    held: MemoryAccount,
}

impl ArrowStream {
    fn new(schema: &SchemaRef, input: Box<dyn Read + Send>, held: MemoryAccount, most: usize) -> Result<Self> {
        let batches = IpcStream::new(BufReader::with_capacity(PIECE, input), most).map_err(unreadable)?;
        let given: &Schema = &batches.schema();
        if let Some(unknown) = given.fields().iter().find(|f| find_field(schema.fields(), f.name()).is_none()) {
            let names: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            return Err(Error::invalid(format!("the stream has no column \"{}\"", unknown.name()))
                .with_hint(format!("Its columns are: {}.", names.join(", "))));
        }
        let fit = Fit { schema: schema.clone(), split: NAME.into() };
        let order = fit.columns(given);
        Ok(ArrowStream { batches, order, fit, rows: 0, rest: None, held })
    }

    fn next(&mut self) -> Result<Option<DecodedRecords>> {
        let room = |bytes| self.held.resize_large(bytes).map_err(Failed::Memory);
        let whole = match self.rest.take() {
            Some(rest) => Some(rest),
            None => self.batches.next_with(room)?,
        };
        let Some(whole) = whole else { return Ok(None) };
        // A few at a time: columns that are missing, or of another type, take room of their own.
        let batch = whole.slice(0, whole.num_rows().min(AT_ONCE));
        self.rest = (whole.num_rows() > AT_ONCE).then(|| whole.slice(AT_ONCE, whole.num_rows() - AT_ONCE));
        let columns = self.order.iter().map(|i| i.and_then(|i| batch.columns().get(i)).cloned()).collect();
        let (rows, mut dead) = self.fit.apply(columns, batch.num_rows(), self.rows)?;
        self.rows += batch.num_rows() as u64;
        dead.iter_mut().for_each(|letter| letter.line = Some(letter.position + 1));
        Ok(Some(DecodedRecords { rows, weights: None, dead }))
    }
}

/// Why the next batch is not there.
enum Failed {
    Stream(arrow::error::ArrowError),
    Memory(Error),
}

impl From<arrow::error::ArrowError> for Failed {
    fn from(e: arrow::error::ArrowError) -> Self {
        Failed::Stream(e)
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Stream(e) => unreadable(e),
            Failed::Memory(e) => e,
        }
    }
}

/// What is wrong with an Arrow stream; that its bytes could not be read stays what it is.
fn unreadable(e: arrow::error::ArrowError) -> Error {
    match e {
        arrow::error::ArrowError::IoError(_, e) if e.kind() != IoErrorKind::UnexpectedEof => Error::from(e),
        e => Error::data(format!("the body cannot be read as an Arrow stream: {e}")),
    }
}

#[cfg(test)]
mod tests;
