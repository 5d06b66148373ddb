//! The columns of a nexmark stream as it was declared: which to make, under which name, as which type.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StructArray, UInt32Array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};

use super::columns::{Column, DATE_TIME, EVENT_TYPE, Events};
use super::run::Kind;
use crate::error::{Error, Result};

const KINDS: [(&str, Kind); 3] = [("person", Kind::Person), ("auction", Kind::Auction), ("bid", Kind::Bid)];

/// The schema of one kind, or of all in one stream.
pub(super) fn schema(table: Option<Kind>) -> SchemaRef {
    let field = |c: &Column| Field::new(c.name, c.data_type.clone(), true);
    let fields = |kind: Kind| kind.columns().iter().map(field).collect::<Fields>();
    Arc::new(Schema::new(match table {
        Some(kind) => fields(kind),
        None => {
            let structs = KINDS.map(|(name, kind)| Field::new_struct(name, fields(kind), true));
            [field(&EVENT_TYPE)].into_iter().chain(structs).chain([field(&DATE_TIME)]).collect()
        }
    }))
}

/// What a stream yields.
#[derive(Debug)]
pub(super) struct Output {
    schema: SchemaRef,
    wanted: Vec<Wanted>,
}

#[derive(Debug)]
enum Wanted {
    Value(Value),
    /// All about one kind; null in the rows of the others.
    Record(Kind, Fields, Vec<Value>),
}

/// A column to make, and the type to cast it to where another was declared.
struct Value {
    column: &'static Column,
    cast: Option<DataType>,
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.column.name)
    }
}

impl Output {
    /// The columns `projection` of the declared `schema`. Errors name the columns of `owner` that there
    /// are not, or not as the declared type.
    pub(super) fn new(owner: &str, table: Option<Kind>, schema: &Schema, projection: &[usize]) -> Result<Self> {
        // All declared columns are checked, so that an error does not wait for a query that reads one.
        for field in schema.fields() {
            wanted(owner, table, field)?;
        }
        let pick = |i: &usize| wanted(owner, table, schema.field(*i));
        Ok(Output {
            schema: Arc::new(schema.project(projection)?),
            wanted: projection.iter().map(pick).collect::<Result<_>>()?,
        })
    }

    /// The events `numbers`, all of one kind.
    pub(super) fn table(&self, events: &Events, numbers: &[u64]) -> Result<RecordBatch> {
        let column = |wanted: &Wanted| match wanted {
            Wanted::Value(value) => value.make(events, numbers),
            Wanted::Record(..) => Err(Error::internal("a table of one kind has no records")),
        };
        self.batch(self.wanted.iter().map(column).collect::<Result<_>>()?, numbers.len())
    }

    /// The events `numbers` of all kinds.
    pub(super) fn combined(&self, events: &Events, numbers: &[u64]) -> Result<RecordBatch> {
        let column = |wanted: &Wanted| match wanted {
            Wanted::Value(value) => value.make(events, numbers),
            Wanted::Record(kind, fields, values) => {
                let (own, indices) = select(*kind, numbers);
                let spread = |value: &Value| Ok(take(&value.make(events, &own)?, &indices, None)?);
                let children = values.iter().map(spread).collect::<Result<Vec<_>>>()?;
                let nulls = indices.nulls().cloned();
                let made: ArrayRef = match children.is_empty() {
                    true => Arc::new(StructArray::new_empty_fields(numbers.len(), nulls)),
                    false => Arc::new(StructArray::try_new(fields.clone(), children, nulls)?),
                };
                Ok(made)
            }
        };
        self.batch(self.wanted.iter().map(column).collect::<Result<_>>()?, numbers.len())
    }

    fn batch(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        // The row count is said, as there may be no columns.
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

impl Value {
    fn make(&self, events: &Events, numbers: &[u64]) -> Result<ArrayRef> {
        let made = (self.column.make)(events, numbers)?;
        let Some(to) = &self.cast else { return Ok(made) };
        let options = CastOptions { safe: false, ..Default::default() };
        cast_with_options(&made, to, &options)
            .map_err(|e| Error::from(e).context(format!("column \"{}\"", self.column.name)))
    }
}

/// The events of `kind` among `numbers`, and for each of `numbers` which of them it is, or null.
fn select(kind: Kind, numbers: &[u64]) -> (Vec<u64>, UInt32Array) {
    let mut own = Vec::with_capacity(numbers.len());
    let of_kind = BooleanBuffer::collect_bool(numbers.len(), |i| Kind::of(numbers[i]) == kind);
    // A null row's index is out of range, so that its value is zero whatever is made.
    let index = |(i, n): (usize, &u64)| {
        if !of_kind.value(i) {
            return u32::MAX;
        }
        own.push(*n);
        own.len() as u32 - 1
    };
    let indices = numbers.iter().enumerate().map(index).collect::<Vec<u32>>();
    (own, UInt32Array::new(indices.into(), Some(NullBuffer::new(of_kind))))
}

/// Finds what the declared `field` asks for.
fn wanted(owner: &str, table: Option<Kind>, field: &Field) -> Result<Wanted> {
    if let Some(kind) = table {
        return value(owner, kind.columns(), "", field).map(Wanted::Value);
    }
    let name = plain(field.name());
    let Some((_, kind)) = KINDS.iter().find(|(n, _)| *n == name) else {
        let column = [&EVENT_TYPE, &DATE_TIME].into_iter().find(|c| plain(c.name) == name);
        return match column {
            Some(column) => as_declared(owner, column, "", field).map(Wanted::Value),
            None => Err(no_column(owner, field.name(), schema(None).fields().iter().map(|f| f.name().as_str()))),
        };
    };
    let DataType::Struct(fields) = field.data_type() else {
        let what = format!("column \"{}\" of {owner} cannot be {}", field.name(), field.data_type());
        return Err(Error::invalid(what).with_hint("Connector 'nexmark' makes it a STRUCT."));
    };
    let values = fields.iter().map(|f| value(owner, kind.columns(), &format!("{}.", field.name()), f));
    Ok(Wanted::Record(*kind, fields.clone(), values.collect::<Result<_>>()?))
}

fn value(owner: &str, columns: &'static [Column], within: &str, field: &Field) -> Result<Value> {
    let name = plain(field.name());
    match columns.iter().find(|c| plain(c.name) == name) {
        Some(column) => as_declared(owner, column, within, field),
        None => Err(no_column(owner, &format!("{within}{}", field.name()), columns.iter().map(|c| c.name))),
    }
}

fn as_declared(owner: &str, column: &'static Column, within: &str, field: &Field) -> Result<Value> {
    let to = field.data_type();
    let (fits, natural) = match column.data_type {
        DataType::Timestamp(..) => (matches!(to, DataType::Timestamp(..)), "TIMESTAMP"),
        DataType::Utf8View => (matches!(to, DataType::Utf8View | DataType::Utf8 | DataType::LargeUtf8), "TEXT"),
        DataType::Int32 => (to.is_numeric(), "INT"),
        _ => (to.is_numeric(), "BIGINT"),
    };
    if !fits {
        let what = format!("column \"{within}{}\" of {owner} cannot be {to}", field.name());
        return Err(Error::invalid(what).with_hint(format!("Connector 'nexmark' makes it a {natural}.")));
    }
    Ok(Value { column, cast: (*to != column.data_type).then(|| to.clone()) })
}

fn no_column<'a>(owner: &str, name: &str, there_are: impl Iterator<Item = &'a str>) -> Error {
    let there_are: Vec<_> = there_are.collect();
    Error::invalid(format!("connector 'nexmark' has no column \"{name}\" for {owner}"))
        .with_hint(format!("Its columns are: {}.", there_are.join(", ")))
}

/// A name without case and underscores: `dateTime` is `date_time`.
fn plain(name: &str) -> String {
    name.replace('_', "").to_ascii_lowercase()
}
