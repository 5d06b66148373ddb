//! A batch of changes: Arrow rows, each with a signed weight.
//!
//! A stream is a multiset that changes. Weight `+1` says a row arrives, `-1` that it is taken back;
//! no weights are kept when all are `+1`. This is the algebra of Z-sets (Budiu et al., "DBSP:
//! automatic incremental view maintenance for rich query languages", VLDB 2023).

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, GenericListArray, OffsetSizeTrait, RecordBatch, RecordBatchOptions,
    UInt32Array,
};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{concat_batches, filter_record_batch, take};
use arrow::datatypes::{DataType, SchemaRef};

use crate::error::{Error, Result};

/// Rows with weights: see the module's text.
#[derive(Clone, Debug)]
pub struct Changes {
    rows: RecordBatch,
    weights: Option<ScalarBuffer<i64>>,
}

impl Changes {
    /// Rows that all arrive once.
    pub fn insertions(rows: RecordBatch) -> Self {
        Changes { rows, weights: None }
    }

    /// Rows with a weight each; weights that are all `+1` are not kept.
    ///
    /// Errors when there are not as many weights as rows.
    pub fn weighted(rows: RecordBatch, weights: ScalarBuffer<i64>) -> Result<Self> {
        if weights.len() != rows.num_rows() {
            return Err(Error::internal(format!("{} weights for {} rows", weights.len(), rows.num_rows())));
        }
        let weights = (!weights.iter().all(|w| *w == 1)).then_some(weights);
        Ok(Changes { rows, weights })
    }

    /// Rows of a changelog: the weights are kept, also if all are `+1`, for who tells them from rows that stand alone.
    ///
    /// Errors when there are not as many weights as rows.
    pub fn of_changelog(rows: RecordBatch, weights: ScalarBuffer<i64>) -> Result<Self> {
        Ok(Changes { weights: Some(weights.clone()), ..Changes::weighted(rows, weights)? })
    }

    /// Rows that arrive, or, where they have weights, those of a changelog.
    ///
    /// Errors when there are not as many weights as rows.
    pub fn of_rows(rows: RecordBatch, weights: Option<ScalarBuffer<i64>>) -> Result<Self> {
        match weights {
            Some(weights) => Changes::of_changelog(rows, weights),
            None => Ok(Changes::insertions(rows)),
        }
    }

    /// Rows that are all taken back once.
    pub fn retractions(rows: RecordBatch) -> Self {
        let weights = ScalarBuffer::from(vec![-1; rows.num_rows()]);
        Changes { rows, weights: Some(weights) }
    }

    /// No rows of `schema`.
    pub fn empty(schema: SchemaRef) -> Self {
        Changes::insertions(RecordBatch::new_empty(schema))
    }

    /// The rows, without their weights.
    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// The rows, without their weights.
    pub fn into_rows(self) -> RecordBatch {
        self.rows
    }

    /// Rows and weights.
    pub fn into_parts(self) -> (RecordBatch, Option<ScalarBuffer<i64>>) {
        (self.rows, self.weights)
    }

    /// The weights, or `None` when all are `+1`.
    pub fn weights(&self) -> Option<&ScalarBuffer<i64>> {
        self.weights.as_ref()
    }

    /// The weight of row `i`.
    pub fn weight(&self, i: usize) -> i64 {
        self.weights.as_ref().map_or(1, |w| w[i])
    }

    /// The number of rows, whatever their weights.
    pub fn num_rows(&self) -> usize {
        self.rows.num_rows()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.num_rows() == 0
    }

    /// The schema of the rows.
    pub fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    /// The same weights over other rows of the same number (a projection).
    pub fn with_rows(&self, rows: RecordBatch) -> Self {
        debug_assert_eq!(rows.num_rows(), self.rows.num_rows());
        Changes { rows, weights: self.weights.clone() }
    }

    /// The rows for which `keep` is true (null counts as false).
    pub fn filter(&self, keep: &BooleanArray) -> Result<Self> {
        let rows = filter_record_batch(&self.rows, keep)?;
        let weights = self.weights.as_ref().map(|w| {
            let kept = w.iter().zip(keep.iter()).filter(|(_, k)| *k == Some(true)).map(|(w, _)| *w);
            kept.collect::<ScalarBuffer<i64>>()
        });
        Ok(Changes { rows, weights })
    }

    /// The rows at `indices`.
    pub fn take(&self, indices: &UInt32Array) -> Result<Self> {
        let rows = rows_at(&self.rows, indices)?;
        let weights = self.weights.as_ref().map(|w| indices.values().iter().map(|i| w[*i as usize]).collect());
        Ok(Changes { rows, weights })
    }

    /// `length` rows from `offset` on, without a copy.
    pub fn slice(&self, offset: usize, length: usize) -> Self {
        Changes {
            rows: self.rows.slice(offset, length),
            weights: self.weights.as_ref().map(|w| w.slice(offset, length)),
        }
    }

    /// All batches in one.
    pub fn concat(schema: &SchemaRef, parts: &[Changes]) -> Result<Self> {
        if let [one] = parts {
            return Ok(one.clone());
        }
        let rows = concat_batches(schema, parts.iter().map(|c| &c.rows))?;
        if parts.iter().all(|c| c.weights.is_none()) {
            return Ok(Changes::insertions(rows));
        }
        let weights = parts.iter().flat_map(|c| (0..c.num_rows()).map(|i| c.weight(i))).collect();
        Ok(Changes { rows, weights: Some(weights) })
    }

    /// The bytes that the rows take, without what they share with other batches of the same buffers
    /// (string views over a large common buffer count their own lengths).
    pub fn bytes(&self) -> usize {
        let weights = self.weights.as_ref().map_or(0, |w| w.len() * 8);
        weights + row_bytes(&self.rows)
    }
}

/// The rows of `rows` at `indices`, as many as these where there is no column.
pub fn rows_at(rows: &RecordBatch, indices: &UInt32Array) -> Result<RecordBatch> {
    let columns = rows.columns().iter().map(|column| take(column, indices, None)).collect::<Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(indices.len()));
    Ok(RecordBatch::try_new_with_options(rows.schema(), columns, &options)?)
}

/// The bytes of rows: their own values, as [`array_bytes`].
pub fn row_bytes(rows: &RecordBatch) -> usize {
    rows.columns().iter().map(array_bytes).sum()
}

/// The bytes of one column: its own values, not the buffers that a slice or view only points into.
pub fn array_bytes(array: &ArrayRef) -> usize {
    let n = array.len();
    match array.data_type() {
        DataType::Utf8View => n * 16 + array.as_string_view().lengths().filter(|l| *l > 12).sum::<u32>() as usize,
        DataType::BinaryView => n * 16 + array.as_binary_view().lengths().filter(|l| *l > 12).sum::<u32>() as usize,
        DataType::Boolean => n / 8 + 1,
        DataType::List(_) => list_bytes(array.as_list::<i32>()),
        DataType::LargeList(_) => list_bytes(array.as_list::<i64>()),
        DataType::FixedSizeList(_, _) => {
            let list = array.as_fixed_size_list();
            array_bytes(&list.values().slice(list.value_offset(0) as usize, n * list.value_length() as usize))
        }
        DataType::Map(_, _) => {
            let map = array.as_map();
            let (first, last) = (map.value_offsets()[0] as usize, map.value_offsets()[n] as usize);
            let entries: ArrayRef = Arc::new(map.entries().slice(first, last - first));
            (n + 1) * size_of::<i32>() + array_bytes(&entries)
        }
        DataType::Struct(_) => array.as_struct().columns().iter().map(array_bytes).sum(),
        t => match t.primitive_width() {
            Some(width) => n * width,
            None => array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size()),
        },
    }
}

/// The bytes of lists: of the values that are in them, and where they begin.
fn list_bytes<O: OffsetSizeTrait>(lists: &GenericListArray<O>) -> usize {
    let (first, last) = (lists.value_offsets()[0].as_usize(), lists.value_offsets()[lists.len()].as_usize());
    size_of_val(lists.value_offsets()) + array_bytes(&lists.values().slice(first, last - first))
}

#[cfg(test)]
mod tests {
    use arrow::array::{FixedSizeListArray, Int64Array, LargeListArray, ListArray, MapBuilder, StructArray};
    use arrow::array::{Int64Builder, StringBuilder};
    use arrow::datatypes::{Field, Int64Type};

    use super::*;

    fn ints(values: &[i64]) -> RecordBatch {
        let array: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        RecordBatch::try_from_iter([("v", array)]).expect("one column")
    }

    #[test]
    fn a_slice_has_its_share_of_what_is_nested() {
        let lists = || (0..1000).map(|i| Some(vec![Some(i), None, Some(i)]));
        let mut map = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
        for i in 0..1000 {
            map.keys().append_value("key");
            map.values().append_value(i);
            map.append(true).expect("a pair");
        }
        let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists()));
        let field = Arc::new(Field::new("l", list.data_type().clone(), true));
        let nested: [ArrayRef; 5] = [
            list.clone(),
            Arc::new(LargeListArray::from_iter_primitive::<Int64Type, _, _>(lists())),
            Arc::new(FixedSizeListArray::from_iter_primitive::<Int64Type, _, _>(lists(), 3)),
            Arc::new(map.finish()),
            Arc::new(StructArray::from(vec![(field, list)])),
        ];
        for array in nested {
            let (all, tenth) = (array_bytes(&array), array_bytes(&array.slice(400, 100)));
            assert!(all >= 8000, "{}: {all}", array.data_type());
            assert!(tenth.abs_diff(all / 10) < 16, "{}: {tenth} of {all}", array.data_type());
            assert!(array_bytes(&array.slice(7, 0)) < 16, "{}", array.data_type());
        }
    }

    #[test]
    fn weights_follow_their_rows() {
        let c = Changes::weighted(ints(&[1, 2, 3]), vec![1, -1, 2].into()).expect("as many weights as rows");
        let kept = c.filter(&BooleanArray::from(vec![Some(false), Some(true), Some(true)])).expect("same length");
        assert_eq!(kept.weights().map(|w| w.to_vec()), Some(vec![-1, 2]));
        let taken = c.take(&UInt32Array::from(vec![2, 0])).expect("in range");
        assert_eq!((taken.weight(0), taken.weight(1)), (2, 1));
        let all = Changes::concat(&c.schema(), &[c.slice(1, 1), Changes::insertions(ints(&[9]))]).expect("same schema");
        assert_eq!(all.weights().map(|w| w.to_vec()), Some(vec![-1, 1]));
    }

    #[test]
    fn weights_of_one_are_not_kept() {
        let c = Changes::weighted(ints(&[1, 2]), vec![1, 1].into()).expect("as many weights as rows");
        assert!(c.weights().is_none());
        assert!(Changes::weighted(ints(&[1]), vec![1, 1].into()).is_err());
    }
}
