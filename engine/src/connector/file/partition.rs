//! Columns whose values a file does not have in itself: the names of its folders tell them, or they are metadata.

use std::fs::File;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use arrow::array::{
    ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringViewArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;

use super::hive::{Key, constant};
use super::listing::FoundFile;
use super::options::FileOptions;
use crate::connector::{Read, UnitReader};
use crate::error::{Error, Result};
use crate::format::convert::find_field;
use crate::format::infer::type_of_texts;
use crate::format::metadata::Layout;

/// The metadata of a row: the name of its file, its place there, and when the file was written to.
pub(super) const NAME: &str = "file";
pub(super) const POSITION: &str = "position";
pub(super) const MODIFIED: &str = "modified";

/// `schema` with the columns that the folders of `files` name: they count for what the files themselves have of such
/// names.
pub(super) fn with_keys(options: &FileOptions, files: &[FoundFile], schema: Schema) -> Schema {
    let mut found: Vec<(String, Vec<String>)> = vec![];
    for (name, value) in files.iter().flat_map(|file| options.keys_of(&file.path)) {
        match found.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.extend(value),
            None => found.push((name, value.into_iter().collect())),
        }
    }
    let mut fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone()).collect();
    for (name, values) in found {
        let data_type = type_of_texts(values.iter().map(String::as_str));
        match find_field(schema.fields(), &name).and_then(|i| fields.get_mut(i)) {
            Some(field) => *field = Field::new(field.name(), data_type, true),
            None => fields.push(Field::new(name, data_type, true)),
        }
    }
    Schema::new(fields)
}

/// What a reader of a file gives.
#[derive(Clone)]
pub(super) struct Given {
    /// The columns that the file has itself, and behind them the position of each row where that is read.
    pub(super) schema: SchemaRef,
    /// Whether it is.
    pub(super) positions: bool,
}

impl Given {
    /// `rows` of the file's own columns with their `positions`, where those are read.
    pub(super) fn rows(&self, rows: RecordBatch, positions: impl FnOnce() -> Int64Array) -> Result<RecordBatch> {
        if !self.positions {
            return Ok(rows);
        }
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(positions()));
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}

/// Where a column that is wanted comes from.
enum Part {
    /// A column of what the reader gives.
    Given(usize),
    /// The same for all rows of the file.
    Constant(ArrayRef),
}

/// The columns of a file, parted into those that it has itself, those of its folders, and those of metadata.
pub(super) struct Partition {
    /// All that are wanted.
    schema: SchemaRef,
    parts: Vec<Part>,
    /// The columns of the stream that the file has itself.
    pub(super) declared: SchemaRef,
    /// Those of them that are wanted.
    pub(super) projection: Vec<usize>,
    pub(super) projected: SchemaRef,
    pub(super) given: Given,
}

impl Partition {
    /// For `file`, which is called `name` and whose folders say `keys`, of a stream with the columns of `layout`.
    pub(super) fn new(keys: &[Key], layout: &Layout, name: &str, file: &File) -> Result<Self> {
        let mut values: Vec<Option<&Key>> = vec![None; layout.declared.fields().len()];
        for key in keys {
            if let Some(i) = find_field(layout.declared.fields(), &key.0) {
                values[i] = Some(key);
            }
        }
        let own: Vec<usize> = (0..values.len()).filter(|i| values[*i].is_none()).collect();
        let (mut content, mut projection) = (vec![], vec![]);
        for i in &layout.projection {
            content.push(match values[*i] {
                Some((_, value)) => Part::Constant(constant(layout.declared.field(*i), value.as_deref())?),
                None => {
                    projection.extend(own.binary_search(i));
                    Part::Given(projection.len().saturating_sub(1))
                }
            });
        }
        let declared = Arc::new(layout.declared.project(&own)?);
        let projected: SchemaRef = Arc::new(declared.project(&projection)?);
        let positions = layout.reads(POSITION);
        let mut given = Given { schema: projected.clone(), positions };
        if positions {
            let mut fields = projected.fields().to_vec();
            fields.push(Arc::new(Field::new(POSITION, DataType::Int64, false)));
            given.schema = Arc::new(Schema::new(fields));
        }
        let mut content = content.into_iter();
        let mut parts = vec![];
        for (column, field) in layout.columns() {
            parts.push(match column {
                None => content.next().ok_or_else(|| Error::internal("a file has too few columns"))?,
                Some(POSITION) => Part::Given(projection.len()),
                Some(key) => Part::Constant(of_file(key, field, name, file)?),
            });
        }
        Ok(Partition { schema: layout.schema().clone(), parts, declared, projection, projected, given })
    }

    /// `reader`, which gives what the file has itself, with the other columns.
    pub(super) fn complete(self, reader: Box<dyn UnitReader>) -> Box<dyn UnitReader> {
        let same = self.parts.iter().enumerate().all(|(i, part)| matches!(part, Part::Given(place) if *place == i));
        if same && !self.given.positions {
            return reader;
        }
        Box::new(Completed { reader, partition: self })
    }

    fn rows(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let n = rows.num_rows();
        let first = UInt32Array::from(vec![0; n]);
        let mut columns = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            columns.push(match part {
                Part::Constant(value) => take(value, &first, None)?,
                Part::Given(i) => {
                    let given = rows.columns().get(*i).cloned();
                    given.ok_or_else(|| Error::internal("a file gave too few columns"))?
                }
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(n));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

/// The metadata `key` of `file`, which is called `name`, as the column `field`, of one row.
fn of_file(key: &str, field: &Field, name: &str, file: &File) -> Result<ArrayRef> {
    let value: ArrayRef = match key {
        NAME => Arc::new(StringViewArray::from(vec![name])),
        MODIFIED => {
            let modified = file.metadata()?.modified()?;
            let micros = match modified.duration_since(UNIX_EPOCH) {
                Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
                Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |n| -n),
            };
            Arc::new(TimestampMicrosecondArray::from(vec![micros]).with_timezone("UTC"))
        }
        _ => return Err(Error::internal(format!("files have no metadata '{key}'"))),
    };
    Ok(cast(&value, field.data_type())?)
}

struct Completed {
    reader: Box<dyn UnitReader>,
    partition: Partition,
}

#[async_trait]
impl UnitReader for Completed {
    async fn next(&mut self) -> Result<Option<Read>> {
        let Some(read) = self.reader.next().await? else { return Ok(None) };
        let rows = read.rows.with_rows(self.partition.rows(read.rows.rows())?);
        Ok(Some(Read { rows, ..read }))
    }

    fn is_whole(&self) -> bool {
        self.reader.is_whole()
    }
}
