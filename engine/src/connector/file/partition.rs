//! Columns whose values the names of folders tell.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;

use super::hive::{Key, constant};
use super::listing::FoundFile;
use super::options::FileOptions;
use crate::connector::{Read, UnitReader};
use crate::error::{Error, Result};
use crate::format::convert::find_field;
use crate::format::infer::type_of_texts;

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

/// The columns of a file, parted into those of its folders and those that it has itself.
pub(super) struct Partition {
    /// All that are wanted.
    schema: SchemaRef,
    /// The values of those of folders, by place among the wanted.
    constants: Vec<Option<ArrayRef>>,
    /// The stream's columns without those of folders.
    pub(super) declared: SchemaRef,
    /// Those of them that are wanted.
    pub(super) projection: Vec<usize>,
    pub(super) projected: SchemaRef,
}

impl Partition {
    /// For a file whose folders say `keys`, of a stream with the columns `declared`.
    pub(super) fn new(keys: &[Key], declared: &SchemaRef, projection: &[usize], projected: &SchemaRef) -> Result<Self> {
        let mut values: Vec<Option<&Key>> = vec![None; declared.fields().len()];
        for key in keys {
            if let Some(i) = find_field(declared.fields(), &key.0) {
                values[i] = Some(key);
            }
        }
        let own: Vec<usize> = (0..values.len()).filter(|i| values[*i].is_none()).collect();
        let (mut constants, mut inner) = (vec![], vec![]);
        for i in projection {
            constants.push(match values[*i] {
                Some((_, value)) => Some(constant(declared.field(*i), value.as_deref())?),
                None => {
                    inner.extend(own.binary_search(i));
                    None
                }
            });
        }
        let declared = Arc::new(declared.project(&own)?);
        let wanted = Arc::new(declared.project(&inner)?);
        Ok(Partition { schema: projected.clone(), constants, declared, projection: inner, projected: wanted })
    }

    /// `reader`, which gives the file's own columns, with those of its folders.
    pub(super) fn complete(self, reader: Box<dyn UnitReader>) -> Box<dyn UnitReader> {
        if self.constants.iter().all(Option::is_none) {
            return reader;
        }
        Box::new(Completed { reader, partition: self })
    }

    fn rows(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let n = rows.num_rows();
        let first = UInt32Array::from(vec![0; n]);
        let mut own = rows.columns().iter();
        let mut columns = Vec::with_capacity(self.constants.len());
        for constant in &self.constants {
            columns.push(match constant {
                Some(value) => take(value, &first, None)?,
                None => own.next().cloned().ok_or_else(|| Error::internal("a file gave too few columns"))?,
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(n));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
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
