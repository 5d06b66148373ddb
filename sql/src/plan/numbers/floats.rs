//! Floats, lists of them, and what becomes one beside them.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};

fn element(data_type: &DataType) -> Option<&FieldRef> {
    match data_type {
        DataType::List(f) | DataType::LargeList(f) | DataType::FixedSizeList(f, _) => Some(f),
        _ => None,
    }
}

/// A float, or a list of them.
pub(super) fn is_float(data_type: &DataType) -> bool {
    data_type.is_floating() || element(data_type).is_some_and(|f| is_float(f.data_type()))
}

/// What a decimal, or a list of them, is as a float.
pub(super) fn doubled(data_type: &DataType) -> Option<DataType> {
    if data_type.is_decimal() {
        return Some(DataType::Float64);
    }
    let of = |f: &FieldRef| Some(Arc::new(f.as_ref().clone().with_data_type(doubled(f.data_type())?)));
    Some(match data_type {
        DataType::List(f) => DataType::List(of(f)?),
        DataType::LargeList(f) => DataType::LargeList(of(f)?),
        DataType::FixedSizeList(f, n) => DataType::FixedSizeList(of(f)?, *n),
        _ => return None,
    })
}
