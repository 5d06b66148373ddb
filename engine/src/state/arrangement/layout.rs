//! How the rows of an arrangement are kept: in which columns, and when two keys or two rows are one.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, new_empty_array};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use arrow::row::{RowConverter, Rows, SortField};

use crate::error::Result;

/// The column of a snapshot that holds weights.
const WEIGHT: &str = "_weight";

/// How rows are kept.
pub(super) struct Layout {
    /// The columns of the key.
    pub(super) key: Vec<usize>,
    /// Those by whose hash rows are spread over tasks, if these are others.
    pub(super) owners: Option<Vec<usize>>,
    /// The rows, as they come.
    schema: SchemaRef,
    /// The rows, as they are kept.
    stored: SchemaRef,
    converter: RowConverter,
    /// The column that says when rows expire.
    pub(super) time: Option<usize>,
    /// What is before this in that column has expired, and so has null.
    pub(super) expired: i64,
}

impl Layout {
    /// Of rows of `schema` by the columns `key`.
    pub(super) fn new(schema: SchemaRef, key: Vec<usize>) -> Result<Self> {
        let stored = Schema::new(schema.fields().iter().map(stored_field).collect::<Fields>());
        let fields = stored.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        let converter = RowConverter::new(fields)?;
        let stored = Arc::new(stored);
        Ok(Layout { key, owners: None, schema, stored, converter, time: None, expired: i64::MIN })
    }

    /// The same for some of the rows.
    pub(super) fn again(&self) -> Result<Self> {
        let of = Layout::new(self.schema.clone(), self.key.clone())?;
        Ok(Layout { time: self.time, expired: self.expired, ..of })
    }

    /// The column that says when rows expire, of rows as they are kept.
    pub(super) fn times<'a>(&self, columns: &'a [ArrayRef]) -> Option<Times<'a>> {
        let column = columns.get(self.time?)?;
        let ticks: &[i64] = match column.data_type() {
            DataType::Timestamp(TimeUnit::Second, _) => column.as_primitive::<TimestampSecondType>().values(),
            DataType::Timestamp(TimeUnit::Millisecond, _) => column.as_primitive::<TimestampMillisecondType>().values(),
            DataType::Timestamp(TimeUnit::Microsecond, _) => column.as_primitive::<TimestampMicrosecondType>().values(),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => column.as_primitive::<TimestampNanosecondType>().values(),
            _ => return None,
        };
        Some(Times { ticks, nulls: column.nulls() })
    }

    /// `rows` in the columns in which they are kept.
    pub(super) fn stored(&self, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        rows.columns().iter().zip(self.stored.fields()).map(|(c, f)| as_type(c, f.data_type())).collect()
    }

    /// A kept column `at` as it came.
    pub(super) fn given_as(&self, at: usize, column: &ArrayRef) -> Result<ArrayRef> {
        as_type(column, self.schema.field(at).data_type())
    }

    /// `rows` rows of all columns, as they came.
    pub(super) fn given(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }

    /// How many columns rows have.
    pub(super) fn columns(&self) -> usize {
        self.stored.fields().len()
    }

    /// Column `at` of no rows, as it is kept.
    pub(super) fn none(&self, at: usize) -> ArrayRef {
        new_empty_array(self.stored.field(at).data_type())
    }

    /// Rows as bytes that are equal where rows are.
    pub(super) fn encoded(&self, columns: &[ArrayRef]) -> Result<Rows> {
        Ok(self.converter.convert_columns(columns)?)
    }

    /// The columns of a snapshot: those kept, and the weight.
    pub(super) fn snapshot_schema(&self) -> SchemaRef {
        let mut fields: Vec<FieldRef> = self.stored.fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new(WEIGHT, DataType::Int64, false)));
        Arc::new(Schema::new(fields))
    }
}

/// When rows expire.
pub(super) struct Times<'a> {
    ticks: &'a [i64],
    nulls: Option<&'a NullBuffer>,
}

impl Times<'_> {
    /// Whether row `row` has expired when all before `bound` has.
    pub(super) fn is_before(&self, row: usize, bound: i64) -> bool {
        self.ticks[row] < bound || self.nulls.is_some_and(|nulls| nulls.is_null(row))
    }

    /// The first and the last that is not null.
    pub(super) fn range(&self) -> Option<(i64, i64)> {
        let valid = (0..self.ticks.len()).filter(|row| self.nulls.is_none_or(|nulls| nulls.is_valid(*row)));
        valid.map(|row| self.ticks[row]).fold(None, |range, t| match range {
            None => Some((t, t)),
            Some((first, last)) => Some((first.min(t), last.max(t))),
        })
    }
}

fn stored_field(field: &FieldRef) -> FieldRef {
    Arc::new(Field::new(field.name(), stored_type(field.data_type()), true))
}

/// The type in which values are kept: views point into buffers of which each may hold much else.
fn stored_type(data_type: &DataType) -> DataType {
    let inner = |f: &FieldRef| Arc::new(f.as_ref().clone().with_data_type(stored_type(f.data_type())));
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(f) => DataType::List(inner(f)),
        DataType::LargeList(f) => DataType::LargeList(inner(f)),
        DataType::FixedSizeList(f, n) => DataType::FixedSizeList(inner(f), *n),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        DataType::Map(f, sorted) => DataType::Map(inner(f), *sorted),
        other => other.clone(),
    }
}

fn as_type(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    if column.data_type() == data_type {
        return Ok(column.clone());
    }
    Ok(cast(column, data_type)?)
}
