//! JSON lines: one object a line.
//!
//! A missing field is null and an unknown one is skipped. A value of the wrong type makes a dead letter
//! of its line, but numbers, truth values, objects and arrays may go to a TEXT column as they are written.
//! Keys are matched exactly, else without regard to case (SQL folds names that are not quoted). All of this holds
//! at every depth: fields of objects in columns are read as columns are.

mod envelope;
mod infer;
mod line;
pub(super) mod nested;
mod objects;
mod pointer;

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};

use crate::changelog::OP;
use crate::format::LineDecoder;
use crate::format::content::Content;
use crate::format::form::Form;
use crate::format::ops::Ops;
use crate::format::options::JsonOptions;
use crate::format::rows::RowDecoder;
use crate::format::spans::Dialect;
use crate::format::tokenizer::Tokenizer;
use crate::format::values::Escapes;

use envelope::Envelopes;
pub use infer::json_schema;
use objects::Objects;
pub use pointer::find;

/// A decoder of JSON lines to the columns of `schema`, where rows replace each other by those of `key`; `split` goes into
/// dead letters.
pub fn decoder(schema: SchemaRef, options: &JsonOptions, key: &[String], split: Arc<str>) -> Box<dyn LineDecoder> {
    match options.form {
        Form::Rows => Box::new(row_decoder(schema, options, split)),
        Form::Ops => Box::new(op_decoder(schema, options, split)),
        Form::Debezium => Box::new(envelope_decoder(&schema, options, key, split)),
    }
}

/// A reader of records of JSON, as [`decoder`] is of lines.
pub(super) fn content(schema: SchemaRef, options: &JsonOptions, key: &[String], split: Arc<str>) -> Box<dyn Content> {
    match options.form {
        Form::Rows => Box::new(row_decoder(schema, options, split)),
        Form::Ops => Box::new(op_decoder(schema, options, split)),
        Form::Debezium => Box::new(envelope_decoder(&schema, options, key, split)),
    }
}

/// Where the rows of `document` stand in it: the items of an array, or itself. Otherwise why it cannot be taken apart.
pub fn items(document: &[u8]) -> Result<Vec<Range<usize>>, String> {
    let mut items = vec![];
    let objects = Objects::new(vec![], Default::default());
    objects.parts(document, 0..document.len(), &mut items).map(|()| items)
}

fn row_decoder(schema: SchemaRef, options: &JsonOptions, split: Arc<str>) -> RowDecoder<Objects> {
    let names = schema.fields().iter().map(|f| f.name().clone()).collect();
    RowDecoder::new(Objects::new(names, options.nulls.clone()), dialect(options), split, schema)
}

fn op_decoder(schema: SchemaRef, options: &JsonOptions, split: Arc<str>) -> RowDecoder<Ops<Objects>> {
    let names = schema.fields().iter().map(|f| f.name().clone()).chain([OP.to_owned()]).collect();
    let objects = Objects::new(names, options.nulls.clone());
    RowDecoder::new(Ops::new(objects, Escapes::Json, schema.fields().len()), dialect(options), split, schema)
}

fn envelope_decoder(
    schema: &SchemaRef,
    options: &JsonOptions,
    key: &[String],
    split: Arc<str>,
) -> RowDecoder<Envelopes> {
    let plain = schema.fields().iter().map(|f| f.as_ref().clone().with_metadata(Default::default()));
    let plain = Arc::new(Schema::new(plain.collect::<Vec<_>>()));
    RowDecoder::new(Envelopes::new(schema, key, options), dialect(options), split, plain)
}

fn dialect(options: &JsonOptions) -> Dialect {
    Dialect {
        escapes: Escapes::Json,
        text_time: options.text_time.clone(),
        number_time: Some(options.number_time),
        nulls: options.nulls.clone(),
    }
}
