//! Columns whose values the names of folders tell, and files that a query need not read for what those say.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringViewArray, UInt32Array, new_null_array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::utils::collect_columns;

use super::hive::{self, Key};
use super::options::{FileOptions, FoundFile};
use super::place::parts;
use crate::connector::{Read, UnitReader};
use crate::error::{Error, Result};
use crate::format::convert::{convert, find_field};
use crate::format::infer::type_of_texts;

impl FileOptions {
    /// What the names of the folders of the file at `path` say, below what the path of the options means.
    pub(crate) fn keys_of(&self, path: &Path) -> Vec<Key> {
        if !self.partitions {
            return vec![];
        }
        let whole = Path::new(&self.path);
        let roots = if whole.exists() { vec![whole.to_owned()] } else { parts(&self.path).map(root).collect() };
        let nearest = roots.iter().filter(|root| path.starts_with(root)).max_by_key(|root| root.as_os_str().len());
        nearest.map(|root| hive::keys(path, root)).unwrap_or_default()
    }
}

/// The folder that a path begins with, up to the first part that is a pattern.
fn root(path: &str) -> PathBuf {
    let is_plain = |part: &std::path::Component<'_>| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']);
    Path::new(path).components().take_while(is_plain).collect()
}

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

/// The value of a key as the column that it is, of one row.
fn constant(field: &Field, value: Option<&str>) -> Result<ArrayRef> {
    let text: ArrayRef = Arc::new(StringViewArray::from(vec![value]));
    let mut misfits = vec![];
    let made = convert(&text, field, &mut misfits)?;
    match misfits.pop() {
        Some(misfit) => Err(Error::data(format!("{}, as the name of its folder has it", misfit.reason))),
        None => Ok(made),
    }
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

/// Conditions over the columns of a stream; a row must meet all those of one reader.
#[derive(Clone, Debug)]
pub(crate) struct Pruning {
    pub(crate) schema: SchemaRef,
    pub(crate) readers: Vec<Vec<Arc<dyn PhysicalExpr>>>,
}

impl Pruning {
    /// Whether a file whose folders say `keys` may have such rows.
    pub(crate) fn keeps(&self, keys: &[Key]) -> bool {
        let known = |(name, _): &Key| find_field(self.schema.fields(), name);
        if keys.is_empty() || keys.iter().all(|key| known(key).is_none()) {
            return true;
        }
        let mut columns: Vec<ArrayRef> =
            self.schema.fields().iter().map(|f| new_null_array(f.data_type(), 1)).collect();
        let mut places = vec![];
        for key in keys {
            let Some(i) = known(key) else { continue };
            // What does not fit is told of when the file is read.
            let Ok(value) = constant(self.schema.field(i), key.1.as_deref()) else { return true };
            columns[i] = value;
            places.push(i);
        }
        let loose = self.schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true));
        let loose = Arc::new(Schema::new(loose.collect::<Vec<_>>()));
        let Ok(row) = RecordBatch::try_new(loose, columns) else { return true };
        let is_decided = |f: &&Arc<dyn PhysicalExpr>| {
            let columns = collect_columns(f);
            !columns.is_empty() && columns.iter().all(|c| places.contains(&c.index()))
        };
        // A condition that fails is told of when it meets a row.
        let may_hold = |f: &Arc<dyn PhysicalExpr>| {
            let value = f.evaluate(&row).and_then(|v| v.into_array(1));
            value.map_or(true, |value| !is_false(&value))
        };
        self.readers.iter().any(|filters| filters.iter().filter(is_decided).all(may_hold))
    }
}

/// Whether a condition of this value keeps no row.
fn is_false(value: &ArrayRef) -> bool {
    value.data_type() == &DataType::Boolean && (value.is_null(0) || !value.as_boolean().value(0))
}
