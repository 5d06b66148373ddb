//! JSON lines: one object a line.
//!
//! A missing field is null and an unknown one is skipped. A value of the wrong type makes a dead letter
//! of its line, but numbers, truth values, objects and arrays may go to a TEXT column as they are written.
//! Keys are matched exactly, else without regard to case (SQL folds names that are not quoted). All of this holds
//! at every depth: fields of objects in columns are read as columns are.

mod infer;
mod line;
pub(super) mod nested;
mod objects;
mod pointer;

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::format::LineDecoder;
use crate::format::content::Content;
use crate::format::options::JsonOptions;
use crate::format::rows::RowDecoder;
use crate::format::spans::Dialect;
use crate::format::tokenizer::Tokenizer;
use crate::format::values::Escapes;

pub use infer::json_schema;
use objects::Objects;
pub use pointer::find;

/// A decoder of JSON lines to the columns of `schema`; `split` goes into dead letters.
pub fn decoder(schema: SchemaRef, options: &JsonOptions, split: Arc<str>) -> Box<dyn LineDecoder> {
    Box::new(row_decoder(schema, options, split))
}

/// A reader of records of JSON, as [`decoder`] is of lines.
pub(super) fn content(schema: SchemaRef, options: &JsonOptions, split: Arc<str>) -> Box<dyn Content> {
    Box::new(row_decoder(schema, options, split))
}

/// Where the rows of `document` stand in it: the items of an array, or itself. Otherwise why it cannot be taken apart.
pub fn items(document: &[u8]) -> Result<Vec<Range<usize>>, String> {
    let mut items = vec![];
    let objects = Objects::new(vec![], Default::default());
    objects.parts(document, 0..document.len(), &mut items).map(|()| items)
}

fn row_decoder(schema: SchemaRef, options: &JsonOptions, split: Arc<str>) -> RowDecoder<Objects> {
    let dialect = Dialect {
        escapes: Escapes::Json,
        text_time: options.text_time.clone(),
        number_time: Some(options.number_time),
        nulls: options.nulls.clone(),
    };
    let names = schema.fields().iter().map(|f| f.name().clone()).collect();
    RowDecoder::new(Objects::new(names, options.nulls.clone()), dialect, split, schema)
}
