//! The formats of results: which one a request asks for, and how rows are written in it.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::StreamWriter;
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use millstream_engine::format::Format;
use millstream_engine::format::options::CsvOptions;
use millstream_engine::format::write::{write_header, write_json_lines, write_lines};
use millstream_sql::Result;

use super::answer::Answer;
use crate::wire::{cast_batch, wire_schema};

/// A format of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// An array of objects.
    Json,
    /// An object a line.
    JsonLines,
    /// With a header.
    Csv,
    /// A stream of Arrow's IPC format.
    Arrow,
}

/// The values of parameter `format`.
pub(super) const NAMES: [&str; 4] = ["json", "ndjson", "csv", "arrow"];

const ALL: [Shape; 4] = [Shape::Json, Shape::JsonLines, Shape::Csv, Shape::Arrow];

impl Shape {
    /// The format that the parameter `format` names, or else the one of those in `Accept` that is liked best.
    pub(super) fn asked(format: Option<&str>, headers: &HeaderMap) -> Result<Self, Answer> {
        if let Some(at) = format.and_then(|format| NAMES.iter().position(|name| *name == format)) {
            return Ok(ALL[at]);
        }
        let said = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges: Vec<_> = said.flat_map(|value| value.split(',')).filter_map(range).collect();
        if ranges.is_empty() {
            return Ok(Shape::Json);
        }
        let mut best: Option<(f32, Shape)> = None;
        for (range, liked) in ranges {
            let found = ALL.into_iter().find(|shape| shape.fits(&range));
            if let Some(shape) = found.filter(|_| liked > best.map_or(0.0, |(liked, _)| liked)) {
                best = Some((liked, shape));
            }
        }
        best.map(|(_, shape)| shape).ok_or_else(|| {
            Answer::new(StatusCode::NOT_ACCEPTABLE, "unsupported", "none of the formats that are accepted can be had")
                .hint("Accept application/json, application/x-ndjson, text/csv or application/vnd.apache.arrow.stream.")
        })
    }

    /// The media type.
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Shape::Json => "application/json",
            Shape::JsonLines => "application/x-ndjson",
            Shape::Csv => "text/csv; charset=utf-8",
            Shape::Arrow => "application/vnd.apache.arrow.stream",
        }
    }

    fn fits(self, range: &str) -> bool {
        let own = self.media_type().split(';').next().unwrap_or_default();
        match range.strip_suffix("/*") {
            Some("*") => true,
            Some(kind) => own.split('/').next() == Some(kind),
            None => own == range,
        }
    }
}

/// A media range of `Accept` and how much it is liked.
fn range(text: &str) -> Option<(String, f32)> {
    let mut parts = text.split(';').map(str::trim);
    let range = parts.next().filter(|range| !range.is_empty())?.to_ascii_lowercase();
    let liked = parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse().ok())?;
    Some((range, liked))
}

/// Writes rows in a format, piece by piece.
pub(super) struct Writer {
    shape: Shape,
    csv: CsvOptions,
    schema: SchemaRef,
    arrow: Option<StreamWriter<Vec<u8>>>,
    /// No row has been written.
    empty: bool,
}

impl Writer {
    pub(super) fn new(shape: Shape, schema: &SchemaRef) -> Result<Self> {
        let schema = wire_schema(schema);
        let arrow = match shape {
            Shape::Arrow => Some(StreamWriter::try_new(vec![], &schema)?),
            _ => None,
        };
        Ok(Writer { shape, csv: CsvOptions::default(), schema, arrow, empty: true })
    }

    /// What stands before all rows.
    pub(super) fn begin(&mut self) -> Bytes {
        let mut out = vec![];
        match self.shape {
            Shape::Json => out.push(b'['),
            Shape::JsonLines => {}
            Shape::Csv => write_header(&self.csv, &self.schema, &mut out),
            Shape::Arrow => out = self.written(),
        }
        out.into()
    }

    /// Rows.
    pub(super) fn rows(&mut self, rows: &RecordBatch) -> Result<Bytes> {
        if rows.num_rows() == 0 {
            return Ok(Bytes::new());
        }
        let mut out = vec![];
        match self.shape {
            Shape::Json => {
                if !self.empty {
                    out.push(b',');
                }
                write_json_lines(rows, &mut out)?;
                // A newline stands nowhere but behind a row.
                out.pop();
                out.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b',');
            }
            Shape::JsonLines => write_json_lines(rows, &mut out)?,
            Shape::Csv => write_lines(Format::Csv, &self.csv, rows, &mut out)?,
            Shape::Arrow => {
                let rows = cast_batch(rows, &self.schema)?;
                if let Some(arrow) = &mut self.arrow {
                    arrow.write(&rows)?;
                }
                out = self.written();
            }
        }
        self.empty = false;
        Ok(out.into())
    }

    /// What stands behind all rows.
    pub(super) fn end(&mut self) -> Result<Bytes> {
        Ok(match self.shape {
            Shape::Json => Bytes::from_static(b"]\n"),
            Shape::JsonLines | Shape::Csv => Bytes::new(),
            Shape::Arrow => {
                if let Some(arrow) = &mut self.arrow {
                    arrow.finish()?;
                }
                self.written().into()
            }
        })
    }

    fn written(&mut self) -> Vec<u8> {
        self.arrow.as_mut().map(|arrow| std::mem::take(arrow.get_mut())).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringViewArray};
    use arrow::ipc::reader::StreamReader;

    use super::*;

    fn asked(accept: &'static str) -> Option<Shape> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        Shape::asked(None, &headers).ok()
    }

    #[test]
    fn the_format_that_is_liked_best() {
        assert_eq!(Shape::asked(None, &HeaderMap::new()).unwrap(), Shape::Json);
        assert_eq!(asked("*/*"), Some(Shape::Json));
        assert_eq!(asked("text/html, text/csv;q=0.9, */*;q=0.1"), Some(Shape::Csv));
        assert_eq!(asked("application/json;q=0.5, Application/X-NDJSON"), Some(Shape::JsonLines));
        assert_eq!(asked("text/*"), Some(Shape::Csv));
        assert_eq!(asked("application/vnd.apache.arrow.stream"), Some(Shape::Arrow));
        assert_eq!(asked("text/html"), None);
        assert_eq!(asked("text/csv;q=0"), None);
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, "text/html".parse().unwrap());
        assert_eq!(Shape::asked(Some("arrow"), &headers).unwrap(), Shape::Arrow);
    }

    fn batch(n: i64) -> RecordBatch {
        let t: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a\nb"), None]));
        let f: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, 0.5]));
        let n: ArrayRef = Arc::new(Int64Array::from(vec![n, i64::MAX]));
        RecordBatch::try_from_iter([("n", n), ("t", t), ("f", f)]).unwrap()
    }

    fn written(shape: Shape, batches: &[RecordBatch]) -> Vec<u8> {
        let mut writer = Writer::new(shape, &batch(0).schema()).unwrap();
        let mut all = writer.begin().to_vec();
        batches.iter().for_each(|rows| all.extend(writer.rows(rows).unwrap()));
        all.extend(writer.end().unwrap());
        all
    }

    #[test]
    fn each_format_is_whole() {
        let batches = [batch(1), batch(0).slice(0, 0), batch(2)];
        let text = String::from_utf8(written(Shape::Json, &batches)).unwrap();
        let rows: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(rows[2], serde_json::json!({ "n": 2, "t": "a\nb", "f": "NaN" }));
        assert_eq!(rows[3]["n"], i64::MAX);
        assert_eq!(written(Shape::Json, &[]), b"[]\n");
        let text = String::from_utf8(written(Shape::JsonLines, &batches)).unwrap();
        assert_eq!(text.lines().count(), 4);
        let text = String::from_utf8(written(Shape::Csv, &batches)).unwrap();
        assert!(text.starts_with("n,t,f\n1,\"a\nb\","), "{text}");
        let arrow = StreamReader::try_new(Cursor::new(written(Shape::Arrow, &batches)), None).unwrap();
        assert_eq!(arrow.map(|b| b.unwrap().num_rows()).collect::<Vec<_>>(), [2, 2]);
        assert_eq!(StreamReader::try_new(Cursor::new(written(Shape::Arrow, &[])), None).unwrap().count(), 0);
    }
}
