//! Which casts have a value for every value.

use arrow::datatypes::DataType;

/// Whether each value of type `from` is one of type `to`.
pub(super) fn always_casts(from: &DataType, to: &DataType) -> bool {
    use DataType::*;
    let wider = |from: &DataType, to: &DataType| match (from, to) {
        (Int8, Int16 | Int32 | Int64) | (Int16, Int32 | Int64) | (Int32, Int64) => true,
        (UInt8, UInt16 | UInt32 | UInt64 | Int16 | Int32 | Int64) => true,
        (UInt16, UInt32 | UInt64 | Int32 | Int64) | (UInt32, UInt64 | Int64) => true,
        (_, Float32 | Float64) => from.is_numeric(),
        (Date32, Date64) => true,
        _ => false,
    };
    from == to || wider(from, to) || (to.is_string() && !from.is_nested() && !from.is_binary())
}
