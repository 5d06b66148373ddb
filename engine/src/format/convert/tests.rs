//! What fits and what does not, by pairs of types.

use arrow::array::{
    Date64Array, Decimal128Array, Float32Array, Float64Array, Int32Array, Int64Array, ListArray, NullArray,
    StringArray, StructArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{Fields, TimeUnit};

use super::*;

fn one(column: impl Array + 'static, to: DataType) -> (ArrayRef, Vec<(usize, String)>) {
    let mut misfits = vec![];
    let field = Field::new("c", to, true);
    let array = convert(&(Arc::new(column) as ArrayRef), &field, &mut misfits).expect("convertible");
    assert_eq!(array.data_type(), field.data_type());
    (array, misfits.into_iter().map(|m| (m.row, m.reason)).collect())
}

fn a(name: &str) -> String {
    format!("{} {name}", if name.starts_with('I') { "an" } else { "a" })
}

fn reason(row: usize, value: &str, of: &str) -> (usize, String) {
    (row, format!("column \"c\": {value} is not {}", a(of)))
}

#[test]
fn fractions_and_numbers_out_of_range_are_misfits() {
    let floats = Float64Array::from(vec![Some(2.0), Some(2.999), Some(-0.0), Some(f64::NAN), Some(1e19), None]);
    let (array, misfits) = one(floats, DataType::Int64);
    let expected = Int64Array::from(vec![Some(2), None, Some(0), None, None, None]);
    assert_eq!(array.as_ref(), &expected as &dyn Array);
    assert_eq!(misfits, [reason(1, "2.999", "BIGINT"), reason(3, "NaN", "BIGINT"), reason(4, "1e19", "BIGINT")]);

    let (array, misfits) = one(Float64Array::from(vec![1.8e19, -1.0]), DataType::UInt64);
    assert_eq!(array.as_ref(), &UInt64Array::from(vec![Some(18_000_000_000_000_000_000), None]) as &dyn Array);
    assert_eq!(misfits.len(), 1);

    let (_, misfits) = one(Int64Array::from(vec![1, 1 << 40]), DataType::Int32);
    assert_eq!(misfits, [reason(1, "1099511627776", "INTEGER")]);
    let (_, misfits) = one(Int64Array::from(vec![1 << 53, (1 << 53) + 1, i64::MAX]), DataType::Float64);
    assert_eq!(misfits.iter().map(|m| m.0).collect::<Vec<_>>(), [1, 2]);
    let (_, misfits) = one(Int32Array::from(vec![0, 1, 2]), DataType::Boolean);
    assert_eq!(misfits, [reason(2, "2", "BOOLEAN")]);
    let (_, misfits) = one(Float64Array::from(vec![0.1, 1e300, f64::INFINITY]), DataType::Float32);
    assert_eq!(misfits, [reason(1, "1e300", "REAL")]);
}

#[test]
fn decimals_keep_all_digits() {
    let to = DataType::Decimal128(20, 2);
    let (array, misfits) = one(Float64Array::from(vec![0.1, 3.1234, 1e15, 1e-20]), to.clone());
    assert_eq!(array.as_primitive::<arrow::datatypes::Decimal128Type>().value(0), 10);
    assert_eq!(array.as_primitive::<arrow::datatypes::Decimal128Type>().value(2), 10i128.pow(17));
    assert_eq!(misfits, [reason(1, "3.1234", "DECIMAL(20, 2)"), reason(3, "1e-20", "DECIMAL(20, 2)")]);
    let (array, misfits) = one(Float32Array::from(vec![0.1]), to.clone());
    assert_eq!(array.as_primitive::<arrow::datatypes::Decimal128Type>().value(0), 10);
    assert_eq!(misfits, []);

    let decimals = || Decimal128Array::from(vec![31_234, 31_200]).with_precision_and_scale(20, 4).expect("fits");
    let (array, misfits) = one(decimals(), to);
    assert_eq!(array.as_primitive::<arrow::datatypes::Decimal128Type>().value(1), 312);
    assert_eq!(misfits, [reason(0, "3.1234", "DECIMAL(20, 2)")]);
    let (array, misfits) = one(decimals(), DataType::Float64);
    assert_eq!(array.as_ref(), &Float64Array::from(vec![3.1234, 3.12]) as &dyn Array);
    assert_eq!(misfits, []);
    let (_, misfits) = one(decimals(), DataType::Int64);
    assert_eq!(misfits.len(), 2);
    let (array, misfits) = one(StringArray::from(vec!["1.005", "1e-7", "x"]), DataType::Decimal128(20, 2));
    assert_eq!(array.as_primitive::<arrow::datatypes::Decimal128Type>().value(0), 101);
    assert_eq!(misfits, [reason(2, "x", "DECIMAL(20, 2)")]);
}

#[test]
fn times() {
    let noon = 43_200_000_000;
    let times = TimestampMicrosecondArray::from(vec![0, noon]);
    let (_, misfits) = one(times, DataType::Date32);
    assert_eq!(misfits.iter().map(|m| m.0).collect::<Vec<_>>(), [1]);
    let (_, misfits) = one(Date64Array::from(vec![0, 86_400_000]), DataType::Date32);
    assert_eq!(misfits, []);
    let times = TimestampMicrosecondArray::from(vec![1_500_001, i64::MAX]);
    let (array, misfits) = one(times.clone(), DataType::Timestamp(TimeUnit::Second, None));
    assert_eq!(array.as_primitive::<arrow::datatypes::TimestampSecondType>().value(0), 1);
    assert_eq!(misfits, []);
    let (_, misfits) = one(times, DataType::Timestamp(TimeUnit::Nanosecond, None));
    assert_eq!(misfits.len(), 1);
}

#[test]
fn nothing_is_null() {
    let (array, misfits) = one(NullArray::new(3), DataType::Int64);
    assert_eq!((array.null_count(), misfits.len()), (3, 0));
    let mut misfits = vec![];
    let column: ArrayRef = Arc::new(NullArray::new(2));
    convert(&column, &Field::new("c", DataType::Int64, false), &mut misfits).expect("null");
    assert_eq!(misfits.iter().map(|m| m.row).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn fields_are_found_by_name() {
    let fields: Fields =
        vec![Field::new("userId", DataType::Float64, false), Field::new("extra", DataType::Utf8, true)].into();
    let ids: ArrayRef = Arc::new(Float64Array::from(vec![7.0, 8.5, 9.0]));
    let extra: ArrayRef = Arc::new(StringArray::from(vec!["x"; 3]));
    let rows = StructArray::new(fields, vec![ids, extra], Some(NullBuffer::from(vec![true, true, false])));
    let to: Fields =
        vec![Field::new("missing", DataType::Utf8View, true), Field::new("userid", DataType::Int64, true)].into();
    let (array, misfits) = one(rows.clone(), DataType::Struct(to.clone()));
    let array = array.as_struct();
    assert_eq!(array.column(0).null_count(), 3);
    assert_eq!(array.column(1).as_ref(), &Int64Array::from(vec![Some(7), None, None]) as &dyn Array);
    assert_eq!(misfits, [(1, "column \"c.userid\": 8.5 is not a BIGINT".to_owned())]);

    // The second list has the misfit.
    let item = Arc::new(Field::new_list_field(rows.data_type().clone(), true));
    let lists = ListArray::new(item, OffsetBuffer::from_lengths([1, 2]), Arc::new(rows), None);
    let (_, misfits) = one(lists, DataType::List(Arc::new(Field::new_list_field(DataType::Struct(to), true))));
    assert_eq!(misfits, [(1, "column \"c[].userid\": 8.5 is not a BIGINT".to_owned())]);
}

#[test]
fn nested_values_as_text() {
    let fields: Fields = vec![Field::new("a", DataType::Int64, true)].into();
    let a: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let rows = StructArray::new(fields, vec![a], Some(NullBuffer::from(vec![true, false])));
    let (array, misfits) = one(rows, DataType::Utf8View);
    assert_eq!(array.as_string_view().value(0), "{\"a\":1}");
    assert!(array.is_null(1) && misfits.is_empty());
    let mut misfits = vec![];
    let field = Field::new("c", DataType::Struct(Fields::empty()), true);
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let refused = convert(&numbers, &field, &mut misfits).expect_err("no struct");
    assert!(refused.message().contains("column \"c\" is BIGINT"), "{refused}");
}
