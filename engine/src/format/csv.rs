//! Comma-separated values (RFC 4180, with the usual freedoms).
//!
//! Columns are found by the header's names, without regard to case; without a header by position. An empty
//! field without quotes is null, and so are the ones that `null_values` lists. A line with another number of
//! fields than the header is a dead letter; an empty line is passed over, but of one field it is null. Structs and lists are read from JSON in a field.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};

use crate::changelog::op_schema;
use crate::error::{Error, Result};
use crate::format::LineDecoder;
use crate::format::content::Content;
use crate::format::form::Form;
use crate::format::ops::Ops;
use crate::format::options::{CsvOptions, NullTexts};
use crate::format::rows::RowDecoder;
use crate::format::spans::{Dialect, Kind, Span};
use crate::format::tokenizer::Tokenizer;

/// A decoder of CSV for one file.
///
/// `declared` are all columns of the stream, `projection` the ones to read, `split` goes into dead letters and
/// errors. `header` is the file's first line where the decoder does not meet it itself because reading
/// begins further on.
pub fn decoder(
    declared: &Schema,
    projection: &[usize],
    options: &CsvOptions,
    split: Arc<str>,
    header: Option<&[u8]>,
) -> Result<Box<dyn LineDecoder>> {
    Ok(match options.form {
        Form::Ops => Box::new(op_decoder(declared, projection, options, split, header)?),
        _ => Box::new(row_decoder(declared, projection, options, split, header)?),
    })
}

/// A reader of records, each of which is a row of `declared`, as [`decoder`] is of lines.
pub(super) fn content(
    declared: &Schema,
    projection: &[usize],
    options: &CsvOptions,
    split: Arc<str>,
) -> Result<Box<dyn Content>> {
    Ok(match options.form {
        Form::Ops => Box::new(op_decoder(declared, projection, options, split, None)?),
        _ => Box::new(row_decoder(declared, projection, options, split, None)?),
    })
}

fn row_decoder(
    declared: &Schema,
    projection: &[usize],
    options: &CsvOptions,
    split: Arc<str>,
    header: Option<&[u8]>,
) -> Result<RowDecoder<Fields>> {
    let schema: SchemaRef = Arc::new(declared.project(projection)?);
    let fields = fields(declared, projection, options, &split, header)?;
    Ok(RowDecoder::new(fields, dialect(options), split, schema))
}

/// As [`row_decoder`], of records with an operation: where no header names it, it stands first.
fn op_decoder(
    declared: &Schema,
    projection: &[usize],
    options: &CsvOptions,
    split: Arc<str>,
    header: Option<&[u8]>,
) -> Result<RowDecoder<Ops<Fields>>> {
    let schema: SchemaRef = Arc::new(declared.project(projection)?);
    let all: Vec<usize> = projection.iter().map(|column| column + 1).chain([0]).collect();
    let fields = fields(&op_schema(declared), &all, options, &split, header)?;
    let ops = Ops::new(fields, options.escapes(), projection.len());
    Ok(RowDecoder::new(ops, dialect(options), split, schema))
}

fn dialect(options: &CsvOptions) -> Dialect {
    let (escapes, nulls) = (options.escapes(), options.null_values.clone());
    Dialect { escapes, text_time: options.time.clone(), number_time: None, nulls }
}

/// What takes records of `declared` apart, for the columns of `projection`.
fn fields(
    declared: &Schema,
    projection: &[usize],
    options: &CsvOptions,
    split: &Arc<str>,
    header: Option<&[u8]>,
) -> Result<Fields> {
    let schema = declared.project(projection)?;
    let mut fields = Fields {
        options: options.clone(),
        names: schema.fields().iter().map(|f| f.name().clone()).collect(),
        file: split.clone(),
        expected: declared.fields().len(),
        targets: vec![],
    };
    fields.point(projection);
    if let (true, Some(header)) = (options.header, header) {
        fields.bind(header)?;
    }
    Ok(fields)
}

/// The names in a header line.
pub(crate) fn header_names(line: &[u8], options: &CsvOptions) -> Vec<String> {
    let plain = CsvOptions { null_values: NullTexts::default(), ..options.clone() };
    let values = values(line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line), &plain).into_iter();
    values.map(|v| String::from_utf8_lossy(v.unwrap_or_default().trim_ascii()).into_owned()).collect()
}

/// The names in the header that the file `bytes` begins with; `None` when it does not end in them.
pub(crate) fn whole_header(bytes: &[u8], options: &CsvOptions) -> Option<Vec<String>> {
    let end = if options.newlines_in_values { record_end(bytes, 0, options)? } else { memchr::memchr(b'\n', bytes)? };
    Some(header_names(&bytes[..end], options))
}

/// The place of column `name` in the header of `file`, without regard to case.
pub(crate) fn find(header: &[String], name: &str, file: &str) -> Result<usize> {
    let exact = header.iter().position(|h| h == name);
    exact.or_else(|| header.iter().position(|h| h.eq_ignore_ascii_case(name))).ok_or_else(|| {
        Error::invalid(format!("file \"{file}\" has no column \"{name}\"")).with_hint(format!(
            "Its header has: {}. Write header = false if its first line is data.",
            header.join(", ")
        ))
    })
}

/// The values of one record, `None` for nulls: for headers and samples, not for speed.
pub(crate) fn values(record: &[u8], options: &CsvOptions) -> Vec<Option<Vec<u8>>> {
    let record = record.strip_suffix(b"\n").unwrap_or(record);
    let record = record.strip_suffix(b"\r").unwrap_or(record);
    let mut values = vec![];
    let mut at = 0;
    while let Some(field) = field(record, at, options) {
        at = field.next;
        let raw = &record[field.span.start as usize..field.span.end as usize];
        let mut value = vec![];
        let read = match field.span.kind {
            Kind::Null => None,
            Kind::Escaped => options.escapes().resolve(raw, &mut value),
            _ if !field.quoted && options.null_values.has(raw) => None,
            _ => {
                value.extend_from_slice(raw);
                Some(())
            }
        };
        values.push(read.map(|()| value));
    }
    values
}

/// The end of the record that starts at `start`, where newlines may stand in quoted values: the index of
/// its newline, or `None` when the block ends first.
pub(crate) fn record_end(block: &[u8], start: usize, options: &CsvOptions) -> Option<usize> {
    let escape = options.escape.unwrap_or(options.quote);
    let mut at = start;
    let mut field_start = start;
    loop {
        if block.get(field_start) == Some(&options.quote) && at == field_start {
            at += 1;
            loop {
                let i = at + memchr::memchr2(options.quote, escape, block.get(at..)?)?;
                if block[i] == escape && (escape != options.quote || block.get(i + 1) == Some(&escape)) {
                    at = i + 2;
                } else {
                    at = i + 1;
                    break;
                }
            }
        }
        let i = at + memchr::memchr2(options.delimiter, b'\n', block.get(at..)?)?;
        if block[i] == b'\n' {
            return Some(i);
        }
        at = i + 1;
        field_start = at;
    }
}

/// One field of a record and where the next begins (past the end after the last).
struct FieldAt {
    span: Span,
    quoted: bool,
    next: usize,
    /// A quoted field that does not end as it should.
    broken: bool,
}

/// The field at `at`, or `None` past the last. `record` ends with the record.
#[inline]
fn field(record: &[u8], at: usize, options: &CsvOptions) -> Option<FieldAt> {
    let rest = record.get(at..)?;
    let quoted = rest.first() == Some(&options.quote);
    if quoted {
        return Some(quoted_field(record, at, options));
    }
    let length = memchr::memchr(options.delimiter, rest).unwrap_or(rest.len());
    let kind = if length == 0 { Kind::Null } else { Kind::Bare };
    let span = Span { start: at as u32, end: (at + length) as u32, kind };
    Some(FieldAt { span, quoted: false, next: at + length + 1, broken: false })
}

fn quoted_field(record: &[u8], at: usize, options: &CsvOptions) -> FieldAt {
    let escape = options.escape.unwrap_or(options.quote);
    let start = at + 1;
    let mut end = start;
    let mut kind = Kind::Bare;
    let closed = loop {
        let Some(i) = record.get(end..).and_then(|r| memchr::memchr2(options.quote, escape, r)) else {
            end = record.len();
            break false;
        };
        end += i;
        if record[end] == escape && (escape != options.quote || record.get(end + 1) == Some(&escape)) {
            kind = Kind::Escaped;
            end += 2;
        } else {
            break true;
        }
    };
    let end = end.min(record.len());
    let span = Span { start: start.min(end) as u32, end: end as u32, kind };
    let after = record.get(end + 1);
    let broken = !closed || after.is_some_and(|b| *b != options.delimiter);
    FieldAt { span, quoted: true, next: end + 2, broken }
}

/// Takes records apart.
struct Fields {
    options: CsvOptions,
    /// The wanted columns.
    names: Vec<String>,
    file: Arc<str>,
    /// The fields that a record must have.
    expected: usize,
    /// By field, up to the last wanted one: the columns that it fills, as a place in the row.
    targets: Vec<Option<usize>>,
}

impl Fields {
    /// Column `i` of a row is field `fields[i]`.
    fn point(&mut self, fields: &[usize]) {
        let width = fields.iter().map(|f| f + 1).max().unwrap_or(0);
        self.targets = vec![None; width];
        for (column, field) in fields.iter().enumerate() {
            self.targets[*field] = Some(column);
        }
    }

    fn bind(&mut self, line: &[u8]) -> Result<()> {
        let header = header_names(line, &self.options);
        let fields = self.names.iter().map(|name| find(&header, name, &self.file)).collect::<Result<Vec<_>>>()?;
        self.expected = header.len();
        self.point(&fields);
        Ok(())
    }
}

impl Tokenizer for Fields {
    fn begin(&mut self, block: &[u8]) -> Result<usize> {
        if !self.options.header {
            return Ok(if block.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 });
        }
        let end = self.record_end(block, 0);
        self.bind(&block[..end])?;
        Ok((end + 1).min(block.len()))
    }

    fn record_end(&self, block: &[u8], start: usize) -> usize {
        if self.options.newlines_in_values {
            return record_end(block, start, &self.options).unwrap_or(block.len());
        }
        memchr::memchr(b'\n', &block[start..]).map_or(block.len(), |i| start + i)
    }

    fn row(&mut self, block: &[u8], start: usize, end: usize, row: &mut [Span]) -> Result<bool, String> {
        if start == end {
            // Of records with one field, it is one without a value.
            return Ok(self.expected == 1);
        }
        let record = &block[..end];
        let (mut at, mut count) = (start, 0);
        while let Some(mut found) = field(record, at, &self.options) {
            if found.broken {
                return Err(format!("field {}: its quotes do not close", count + 1));
            }
            if let Some(Some(column)) = self.targets.get(count) {
                if !found.quoted
                    && self.options.null_values.has(&record[found.span.start as usize..found.span.end as usize])
                {
                    found.span.kind = Kind::Null;
                }
                row[*column] = found.span;
            }
            count += 1;
            at = found.next;
        }
        if count != self.expected {
            return Err(format!("expected {} fields, found {count}", self.expected));
        }
        Ok(true)
    }
}
