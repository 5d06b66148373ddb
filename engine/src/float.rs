//! Floats as values: NaN is one value, larger than all others, and -0.0 is 0.0.
//!
//! Bits, hashes, row forms and total orders tell more apart: 0/0 makes another NaN than text does, and -0.0
//! sorts before 0.0. Columns by which rows are grouped, joined, ordered or compared take their canonical
//! form first; what is only passed on stays as it is. Statistics of Parquet files leave NaN out and say
//! nothing of the kind, so those of float columns are neither written nor read.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, make_array};
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type, Schema};
use arrow::error::ArrowError;
use parquet::arrow::ArrowSchemaConverter;
use parquet::basic::{LogicalType, Type as Physical};
use parquet::file::properties::{EnabledStatistics, WriterPropertiesBuilder};
use parquet::schema::types::{ColumnDescriptor, ColumnPath};

use crate::error::Result;

/// Whether values of this type are floats or hold some.
pub fn has_floats(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(f)
        | DataType::LargeList(f)
        | DataType::ListView(f)
        | DataType::LargeListView(f)
        | DataType::FixedSizeList(f, _)
        | DataType::Map(f, _) => has_floats(f.data_type()),
        DataType::Struct(fields) => fields.iter().any(|f| has_floats(f.data_type())),
        DataType::Union(fields, _) => fields.iter().any(|(_, f)| has_floats(f.data_type())),
        DataType::Dictionary(_, value) => has_floats(value),
        DataType::RunEndEncoded(_, values) => has_floats(values.data_type()),
        other => other.is_floating(),
    }
}

/// What counts as one value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum One {
    NanAndZero,
    Nan,
}

/// `array` with one NaN and one zero, at any depth: what is equal in SQL has equal bits.
pub fn canonical(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    made(array, One::NanAndZero)
}

/// `array` with one NaN, at any depth; zeros keep their signs.
pub fn with_one_nan(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    made(array, One::Nan)
}

/// [`canonical`] for each of `columns`.
pub fn canonical_columns(columns: &[ArrayRef]) -> Result<Vec<ArrayRef>, ArrowError> {
    columns.iter().map(canonical).collect()
}

/// The canonical form of one number.
pub fn canonical_value(v: f64) -> f64 {
    if v.is_nan() {
        f64::NAN
    } else if v == 0.0 {
        0.0
    } else {
        v
    }
}

fn made(array: &ArrayRef, one: One) -> Result<ArrayRef, ArrowError> {
    if !has_floats(array.data_type()) {
        return Ok(array.clone());
    }
    Ok(match array.data_type() {
        DataType::Float64 => {
            let fix = |b: u64| fixed(b, 1 << 63, f64::INFINITY.to_bits(), f64::NAN.to_bits(), one);
            let a = array.as_primitive::<Float64Type>();
            mended(array, a, |v| fix(v.to_bits()) != v.to_bits(), |v| f64::from_bits(fix(v.to_bits())))
        }
        DataType::Float32 => {
            let (inf, nan) = (u64::from(f32::INFINITY.to_bits()), u64::from(f32::NAN.to_bits()));
            let fix = |b: u32| fixed(u64::from(b), 1 << 31, inf, nan, one) as u32;
            let a = array.as_primitive::<Float32Type>();
            mended(array, a, |v| fix(v.to_bits()) != v.to_bits(), |v| f32::from_bits(fix(v.to_bits())))
        }
        DataType::Float16 => {
            type Half = <Float16Type as ArrowPrimitiveType>::Native;
            let fix = |b: u16| fixed(u64::from(b), 1 << 15, 0x7c00, 0x7e00, one) as u16;
            let a = array.as_primitive::<Float16Type>();
            mended(array, a, |v| fix(v.to_bits()) != v.to_bits(), |v| Half::from_bits(fix(v.to_bits())))
        }
        _ => {
            let data = array.to_data();
            let children = data.child_data().iter().map(|c| Ok(made(&make_array(c.clone()), one)?.to_data()));
            let children = children.collect::<Result<Vec<_>, ArrowError>>()?;
            make_array(data.into_builder().child_data(children).build()?)
        }
    })
}

/// The canonical bits of a number with these bits, where `sign` is the sign bit.
#[inline]
fn fixed(bits: u64, sign: u64, infinity: u64, nan: u64, one: One) -> u64 {
    if bits & !sign > infinity {
        nan
    } else if bits == sign && one == One::NanAndZero {
        0
    } else {
        bits
    }
}

/// `a` with each value that is `off` replaced; nothing is copied where none is.
fn mended<T: ArrowPrimitiveType>(
    array: &ArrayRef,
    a: &PrimitiveArray<T>,
    off: impl Fn(T::Native) -> bool,
    fix: impl Fn(T::Native) -> T::Native,
) -> ArrayRef {
    // No early exit: the loop is then done many values at a time.
    if !a.values().iter().fold(false, |any, v| any | off(*v)) {
        return array.clone();
    }
    Arc::new(a.unary::<_, T>(fix))
}

/// Whether a column of a Parquet file holds floats.
pub fn is_float_column(column: &ColumnDescriptor) -> bool {
    matches!(column.physical_type(), Physical::FLOAT | Physical::DOUBLE)
        || matches!(column.logical_type_ref(), Some(LogicalType::Float16))
}

/// The float columns, at any depth, of Parquet files with rows of `schema`.
pub fn float_columns(schema: &Schema) -> Result<Vec<ColumnPath>> {
    if !schema.fields().iter().any(|f| has_floats(f.data_type())) {
        return Ok(vec![]);
    }
    let columns = ArrowSchemaConverter::new().convert(schema)?;
    Ok(columns.columns().iter().filter(|c| is_float_column(c)).map(|c| c.path().clone()).collect())
}

/// Properties of a Parquet writer that writes no statistics of the float columns of `schema`.
pub fn without_float_statistics(builder: WriterPropertiesBuilder, schema: &Schema) -> Result<WriterPropertiesBuilder> {
    let none = |b: WriterPropertiesBuilder, path| b.set_column_statistics_enabled(path, EnabledStatistics::None);
    Ok(float_columns(schema)?.into_iter().fold(builder, none))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float32Array, Float64Array, ListArray, StructArray};
    use arrow::datatypes::Field;

    use super::*;

    fn odd() -> f64 {
        f64::from_bits(f64::NAN.to_bits() | 1 << 63 | 7)
    }

    #[test]
    fn there_is_one_nan_and_one_zero() {
        let a: ArrayRef = Arc::new(Float64Array::from(vec![Some(-0.0), None, Some(odd()), Some(-1.5)]));
        let bits =
            |a: &ArrayRef| a.as_primitive::<Float64Type>().iter().map(|v| v.map(f64::to_bits)).collect::<Vec<_>>();
        let nan = f64::NAN.to_bits();
        let all = bits(&canonical(&a).expect("canonical"));
        assert_eq!(all, [Some(0), None, Some(nan), Some((-1.5f64).to_bits())]);
        assert_eq!(bits(&with_one_nan(&a).expect("canonical"))[0], Some((-0.0f64).to_bits()));
        let small: ArrayRef = Arc::new(Float32Array::from(vec![-0.0, -f32::NAN, f32::NEG_INFINITY]));
        let small = canonical(&small).expect("canonical");
        let bits: Vec<u32> = small.as_primitive::<Float32Type>().values().iter().map(|v| v.to_bits()).collect();
        assert_eq!(bits, [0, f32::NAN.to_bits(), f32::NEG_INFINITY.to_bits()]);
    }

    #[test]
    fn also_within_lists_and_structs() {
        let values: ArrayRef = Arc::new(Float64Array::from(vec![-0.0, odd()]));
        let field = Arc::new(Field::new("v", DataType::Float64, true));
        let inner: ArrayRef = Arc::new(StructArray::from(vec![(field, values)]));
        let item = Arc::new(Field::new("item", inner.data_type().clone(), true));
        let offsets = arrow::buffer::OffsetBuffer::from_lengths([1, 1]);
        let list: ArrayRef = Arc::new(ListArray::try_new(item, offsets, inner, None).expect("a list"));
        let list = canonical(&list.slice(1, 1)).expect("canonical");
        let row = list.as_list::<i32>().value(0);
        let v = row.as_struct().column(0).as_primitive::<Float64Type>().value(0);
        assert_eq!(v.to_bits(), f64::NAN.to_bits());
    }

    #[test]
    fn float_columns_are_found_at_any_depth() {
        let of = |t| Field::new("v", t, true);
        let inner = DataType::Struct(vec![of(DataType::Float32), Field::new("n", DataType::Int64, true)].into());
        let list = Field::new("l", DataType::List(Arc::new(Field::new("item", inner, true))), true);
        let schema = Schema::new(vec![Field::new("id", DataType::Int64, true), of(DataType::Float64), list]);
        let paths: Vec<String> = float_columns(&schema).expect("paths").iter().map(|p| p.string()).collect();
        assert_eq!(paths, ["v", "l.list.item.v"]);
    }
}
