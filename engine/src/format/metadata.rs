//! Metadata: what a connector knows of a record besides its content, as columns of a stream.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, SchemaRef, TimeUnit};

use crate::error::Result;

/// One thing that a connector knows of each record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataKey {
    /// What `METADATA FROM '…'` calls it.
    pub name: &'static str,
    /// Its type, as a column of a statement has it: text and bytes are views, instants have `UTC`.
    pub data_type: DataType,
    /// Whether a record may be without it.
    pub nullable: bool,
    /// What it is, in a line.
    pub help: &'static str,
}

impl MetadataKey {
    /// One that each record has.
    pub fn new(name: &'static str, data_type: DataType, help: &'static str) -> Self {
        MetadataKey { name, data_type, nullable: false, help }
    }

    /// One that a record may be without.
    pub fn nullable(self) -> Self {
        MetadataKey { nullable: true, ..self }
    }

    /// Whether a column of type `declared` can hold it. An instant may also be told in UTC without saying so.
    pub fn fits(&self, declared: &DataType) -> bool {
        let is_instant = |t: &DataType| match t {
            DataType::Timestamp(TimeUnit::Microsecond, zone) => zone.as_deref().is_none_or(is_utc),
            _ => false,
        };
        *declared == self.data_type || (is_instant(declared) && is_instant(&self.data_type))
    }
}

fn is_utc(zone: &str) -> bool {
    matches!(zone, "UTC" | "+00:00")
}

/// Where a column that is read comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// A column of [`Layout::content`].
    Content(usize),
    /// The metadata of this name.
    Metadata(Arc<str>),
}

/// The columns of a scan, parted into those of the content and those of metadata.
#[derive(Clone, Debug)]
pub struct Layout {
    /// All columns that the content has.
    pub declared: SchemaRef,
    /// Those of them that are read.
    pub projection: Vec<usize>,
    /// The same, as a schema.
    pub content: SchemaRef,
    /// The names of the columns by which a row replaces another.
    pub key: Vec<String>,
    schema: SchemaRef,
    parts: Vec<Part>,
}

impl Layout {
    /// That of a scan of `projection` of a stream with the columns `declared`, of which `metadata`, by place, are
    /// metadata.
    pub fn new(declared: &SchemaRef, projection: &[usize], metadata: &BTreeMap<usize, String>) -> Result<Self> {
        let own: Vec<usize> = (0..declared.fields().len()).filter(|i| !metadata.contains_key(i)).collect();
        let (mut parts, mut inner) = (vec![], vec![]);
        for column in projection {
            parts.push(match metadata.get(column) {
                Some(key) => Part::Metadata(key.as_str().into()),
                None => {
                    inner.extend(own.binary_search(column));
                    Part::Content(inner.len().saturating_sub(1))
                }
            });
        }
        let schema = Arc::new(declared.project(projection)?);
        let declared = Arc::new(declared.project(&own)?);
        let content = Arc::new(declared.project(&inner)?);
        Ok(Layout { declared, projection: inner, content, key: vec![], schema, parts })
    }

    /// The columns that are read.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The columns that are read, in order, each with the name of its metadata if it is that.
    pub fn columns(&self) -> impl Iterator<Item = (Option<&str>, &FieldRef)> {
        let key = |part| match part {
            &Part::Content(_) => None,
            Part::Metadata(key) => Some(key.as_ref()),
        };
        self.parts.iter().map(key).zip(self.schema.fields())
    }

    /// Whether the metadata `key` is read.
    pub fn reads(&self, key: &str) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Metadata(k) if **k == *key))
    }

    /// Rows of [`Layout::content`] with the columns of metadata, which `metadata` gives by their names.
    pub fn compose(
        &self,
        content: RecordBatch,
        mut metadata: impl FnMut(&str) -> Result<ArrayRef>,
    ) -> Result<RecordBatch> {
        if !self.parts.iter().any(|part| matches!(part, Part::Metadata(_))) {
            return Ok(content);
        }
        let mut columns = Vec::with_capacity(self.parts.len());
        for (part, field) in self.parts.iter().zip(self.schema.fields()) {
            columns.push(match part {
                Part::Content(i) => content.column(*i).clone(),
                Part::Metadata(key) => {
                    let column = metadata(key)?;
                    let same = column.data_type() == field.data_type();
                    if same { column } else { cast(&column, field.data_type())? }
                }
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(content.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray as _, Int64Array};
    use arrow::datatypes::{Field, Int64Type, Schema};

    use super::*;

    #[test]
    fn columns_come_from_where_they_are() {
        let fields: Vec<_> = ["a", "k", "b", "p"].iter().map(|n| Field::new(*n, DataType::Int64, true)).collect();
        let metadata = BTreeMap::from([(1, "key".to_owned()), (3, "position".to_owned())]);
        let layout = Layout::new(&Arc::new(Schema::new(fields)), &[3, 2, 1], &metadata).expect("columns");
        assert_eq!((layout.projection.as_slice(), layout.declared.fields().len()), (&[1][..], 2));
        assert!(layout.reads("key") && layout.reads("position") && !layout.reads("time"));
        let column = |n: i64| Arc::new(Int64Array::from(vec![n])) as ArrayRef;
        let rows = RecordBatch::try_new(layout.content.clone(), vec![column(20)]).expect("rows");
        let rows = layout.compose(rows, |key| Ok(column(key.len() as i64))).expect("columns");
        let values: Vec<i64> = rows.columns().iter().map(|c| c.as_primitive::<Int64Type>().value(0)).collect();
        assert_eq!(values, [8, 20, 3]);
        let none = Layout::new(layout.schema(), &[1], &metadata).expect("columns");
        let rows = RecordBatch::new_empty(none.content.clone());
        let rows = none.compose(rows, |_| Ok(column(1).slice(0, 0))).expect("no rows");
        assert_eq!((rows.num_columns(), rows.num_rows()), (1, 0));
    }

    #[test]
    fn an_instant_fits_both_kinds_of_timestamp() {
        let time = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
        let key = MetadataKey::new("timestamp", time(Some("UTC")), "when");
        assert!(key.fits(&time(None)) && key.fits(&time(Some("+00:00"))) && !key.fits(&time(Some("Asia/Tokyo"))));
        assert!(!key.fits(&DataType::Timestamp(TimeUnit::Second, None)) && !key.fits(&DataType::Int64));
        assert!(!MetadataKey::new("key", DataType::Binary, "what").fits(&DataType::Utf8View));
    }
}
