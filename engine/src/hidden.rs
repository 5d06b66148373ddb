//! What null rows of nested arrays hide.
//!
//! A null struct may have values in its fields, and a null list or map entries between its offsets: Parquet
//! readers fill required fields below a null parent, and `CASE` and `nullif` set only the outer null. Whoever
//! takes a field without asking for the parent's null sees such values, so they are taken out where arrays
//! enter.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, GenericListArray, MapArray, OffsetSizeTrait,
    StructArray, UInt64Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{nullif, take};
use arrow::datatypes::{DataType, FieldRef};
use arrow::error::ArrowError;

/// `array` with nothing below its nulls: fields of null structs are null, null lists and maps are empty, at
/// every depth. It is the same array when nothing is hidden.
pub fn without_hidden(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    Ok(settled(array)?.unwrap_or_else(|| Arc::clone(array)))
}

/// `child` with a null wherever `parent` has one.
pub fn below(parent: &dyn Array, child: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match parent.nulls() {
        Some(nulls) if hides(nulls, child.as_ref()) => nullif(child, &BooleanArray::new(!nulls.inner(), None)),
        _ => Ok(Arc::clone(child)),
    }
}

/// Whether `child` has values where `nulls` has none.
fn hides(nulls: &NullBuffer, child: &dyn Array) -> bool {
    match child.logical_nulls() {
        _ if nulls.null_count() == 0 => false,
        None => true,
        Some(valid) => (&!nulls.inner() & valid.inner()).has_true(),
    }
}

/// The array without what is hidden; `None` when nothing is.
fn settled(array: &ArrayRef) -> Result<Option<ArrayRef>, ArrowError> {
    match array.data_type() {
        DataType::Struct(_) => structs(array.as_struct()),
        DataType::List(field) => lists::<i32>(array.as_list(), field),
        DataType::LargeList(field) => lists::<i64>(array.as_list(), field),
        DataType::FixedSizeList(field, size) => fixed_lists(array.as_fixed_size_list(), field, *size),
        DataType::Map(field, ordered) => maps(array.as_map(), field, *ordered),
        _ => Ok(None),
    }
}

fn structs(array: &StructArray) -> Result<Option<ArrayRef>, ArrowError> {
    let mut changed = false;
    let mut columns = Vec::with_capacity(array.num_columns());
    for child in array.columns() {
        let masked = below(array, child)?;
        let inner = settled(&masked)?.unwrap_or(masked);
        changed |= !Arc::ptr_eq(&inner, child);
        columns.push(inner);
    }
    if !changed {
        return Ok(None);
    }
    Ok(Some(Arc::new(StructArray::try_new(array.fields().clone(), columns, array.nulls().cloned())?)))
}

fn lists<O: OffsetSizeTrait>(array: &GenericListArray<O>, field: &FieldRef) -> Result<Option<ArrayRef>, ArrowError> {
    let (offsets, values) = match uncover(array.offsets(), array.nulls(), array.values())? {
        Some((offsets, values)) => (offsets, settled(&values)?.unwrap_or(values)),
        None => match settled(array.values())? {
            Some(values) => (array.offsets().clone(), values),
            None => return Ok(None),
        },
    };
    Ok(Some(Arc::new(GenericListArray::try_new(Arc::clone(field), offsets, values, array.nulls().cloned())?)))
}

fn maps(array: &MapArray, field: &FieldRef, ordered: bool) -> Result<Option<ArrayRef>, ArrowError> {
    let all: ArrayRef = Arc::new(array.entries().clone());
    let (offsets, entries) = match uncover(array.offsets(), array.nulls(), &all)? {
        Some((offsets, entries)) => (offsets, settled(&entries)?.unwrap_or(entries)),
        None => match settled(&all)? {
            Some(entries) => (array.offsets().clone(), entries),
            None => return Ok(None),
        },
    };
    let entries = entries.as_struct().clone();
    Ok(Some(Arc::new(MapArray::try_new(Arc::clone(field), offsets, entries, array.nulls().cloned(), ordered)?)))
}

fn fixed_lists(array: &FixedSizeListArray, field: &FieldRef, size: i32) -> Result<Option<ArrayRef>, ArrowError> {
    let values = array.values();
    let expanded = array.nulls().map(|nulls| nulls.expand(size.max(0) as usize));
    let masked = match &expanded {
        Some(nulls) if hides(nulls, values.as_ref()) && field.is_nullable() => {
            nullif(values, &BooleanArray::new(!nulls.inner(), None))?
        }
        _ => Arc::clone(values),
    };
    let inner = settled(&masked)?.unwrap_or(masked);
    if Arc::ptr_eq(&inner, values) {
        return Ok(None);
    }
    Ok(Some(Arc::new(FixedSizeListArray::try_new(Arc::clone(field), size, inner, array.nulls().cloned())?)))
}

/// Offsets and values without the entries of null rows; `None` when null rows have none.
fn uncover<O: OffsetSizeTrait>(
    offsets: &OffsetBuffer<O>,
    nulls: Option<&NullBuffer>,
    values: &ArrayRef,
) -> Result<Option<(OffsetBuffer<O>, ArrayRef)>, ArrowError> {
    let Some(nulls) = nulls.filter(|n| n.null_count() > 0) else { return Ok(None) };
    let rows = || offsets.windows(2).map(|w| w[0].as_usize()..w[1].as_usize()).zip(nulls.iter());
    if rows().all(|(entries, valid)| valid || entries.is_empty()) {
        return Ok(None);
    }
    let kept = || rows().map(|(entries, valid)| if valid { entries } else { 0..0 });
    let indices = UInt64Array::from_iter_values(kept().flatten().map(|i| i as u64));
    let offsets = OffsetBuffer::from_lengths(kept().map(|entries| entries.len()));
    Ok(Some((offsets, take(values, &indices, None)?)))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, ListArray, StringArray};
    use arrow::datatypes::{Field, Fields, Int64Type};

    use super::*;

    fn fields() -> Fields {
        vec![Field::new("a", DataType::Int64, true)].into()
    }

    /// Structs of 1, 2 and 3, of which the second is null.
    fn hiding() -> ArrayRef {
        let a: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        Arc::new(StructArray::new(fields(), vec![a], Some(NullBuffer::from(vec![true, false, true]))))
    }

    #[test]
    fn fields_of_null_structs_are_null() {
        let clean = without_hidden(&hiding()).expect("structs");
        let expected = Int64Array::from(vec![Some(1), None, Some(3)]);
        assert_eq!(clean.as_struct().column(0).as_primitive::<Int64Type>(), &expected);
        let again = without_hidden(&clean).expect("structs");
        assert!(Arc::ptr_eq(&clean, &again), "nothing is copied where nothing is hidden");
    }

    #[test]
    fn at_every_depth() {
        let inner = hiding();
        let outer_fields: Fields = vec![Field::new("s", inner.data_type().clone(), true)].into();
        let nulls = NullBuffer::from(vec![false, true, true]);
        let outer: ArrayRef = Arc::new(StructArray::new(outer_fields, vec![inner], Some(nulls)));
        let clean = without_hidden(&outer).expect("structs");
        let a = clean.as_struct().column(0).as_struct().column(0).as_primitive::<Int64Type>();
        assert_eq!(a, &Int64Array::from(vec![None, None, Some(3)]));
    }

    #[test]
    fn null_lists_and_maps_are_empty() {
        let item = Arc::new(Field::new_list_field(hiding().data_type().clone(), true));
        let nulls = NullBuffer::from(vec![false, true]);
        let list = ListArray::new(item, OffsetBuffer::from_lengths([1, 2]), hiding(), Some(nulls.clone()));
        let clean = without_hidden(&(Arc::new(list) as ArrayRef)).expect("lists");
        let list = clean.as_list::<i32>();
        assert_eq!(list.value_offsets(), &[0, 0, 2]);
        let a = list.values().as_struct().column(0).as_primitive::<Int64Type>();
        assert_eq!(a, &Int64Array::from(vec![None, Some(3)]));

        let entry: Fields =
            vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Int64, true)].into();
        let columns: Vec<ArrayRef> =
            vec![Arc::new(StringArray::from(vec!["x", "y"])), Arc::new(Int64Array::from(vec![1, 2]))];
        let entries = StructArray::new(entry.clone(), columns, None);
        let field = Arc::new(Field::new("entries", DataType::Struct(entry), false));
        let map = MapArray::new(field, OffsetBuffer::from_lengths([1, 1]), entries, Some(nulls), false);
        let clean = without_hidden(&(Arc::new(map) as ArrayRef)).expect("maps");
        assert_eq!(clean.as_map().value_offsets(), &[0, 0, 1]);
        assert_eq!(clean.as_map().keys().as_string::<i32>().value(0), "y");
    }
}
