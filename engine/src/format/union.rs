//! The columns of several files that hold Arrow types already: those that any has, each of a type that all of
//! them can be read as.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, IntervalUnit, Schema, TimeUnit};

use super::convert::find_field;

/// The columns of all of `schemas`, in the order in which they are met. Any may be null, since another file may
/// lack it.
pub fn union_schema(schemas: &[Schema]) -> Schema {
    let all = schemas.iter().fold(Fields::empty(), |known, schema| union_fields(&known, schema.fields()));
    let fields = all.iter().map(|f| Field::new(f.name(), settled(f.data_type()), true));
    Schema::new(fields.collect::<Vec<_>>())
}

fn union_fields(known: &Fields, others: &Fields) -> Fields {
    let mut fields: Vec<FieldRef> = known.iter().cloned().collect();
    for other in others {
        match find_field(known, other.name()) {
            None => fields.push(other.clone()),
            Some(i) => {
                // Where no type holds both, the first stays; the file with the other cannot be read.
                if let Some(data_type) = union_type(fields[i].data_type(), other.data_type()) {
                    fields[i] = Arc::new(fields[i].as_ref().clone().with_data_type(data_type));
                }
            }
        }
    }
    fields.into()
}

/// A type to which values of both can be converted, if there is one.
fn union_type(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType as T;
    let item = |a: &FieldRef, b: &FieldRef| {
        union_type(a.data_type(), b.data_type()).map(|t| Arc::new(Field::new_list_field(t, true)))
    };
    if a == b {
        return Some(a.clone());
    }
    Some(match (a, b) {
        (T::Null, t) | (t, T::Null) => t.clone(),
        (a, b) if a.is_integer() && b.is_integer() => union_whole(a, b),
        (a, b) if a.is_decimal() && b.is_decimal() => union_decimal(a, b)?,
        (a, b) if a.is_integer() && b.is_decimal() => union_decimal(&whole_decimal(a), b)?,
        (a, b) if a.is_decimal() && b.is_integer() => union_decimal(a, &whole_decimal(b))?,
        (a, b) if a.is_decimal() || b.is_decimal() => plain_text(a, b)?,
        (a, b) if a.is_numeric() && b.is_numeric() => T::Float64,
        (T::Timestamp(a, zone), T::Timestamp(b, other)) => {
            T::Timestamp((*a).max(*b), zone.clone().or_else(|| other.clone()))
        }
        (t @ T::Timestamp(_, _), T::Date32 | T::Date64) | (T::Date32 | T::Date64, t @ T::Timestamp(_, _)) => t.clone(),
        (T::Time32(_) | T::Time64(_), T::Time32(_) | T::Time64(_)) => T::Time64(TimeUnit::Nanosecond),
        (T::Struct(a), T::Struct(b)) => T::Struct(union_fields(a, b)),
        (a, b) if a.is_list() && b.is_list() => T::List(item(item_of(a)?, item_of(b)?)?),
        (T::Map(a, ordered), T::Map(b, _)) => T::Map(union_entries(a, b)?, *ordered),
        (a, b) => plain_text(a, b)?,
    })
}

fn item_of(list: &DataType) -> Option<&FieldRef> {
    match list {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => Some(item),
        _ => None,
    }
}

/// Text, which all but bytes can be read as.
fn plain_text(a: &DataType, b: &DataType) -> Option<DataType> {
    let bytes = |t: &DataType| t.is_binary() || matches!(t, DataType::FixedSizeBinary(_));
    (!bytes(a) && !bytes(b)).then_some(DataType::Utf8View)
}

fn union_whole(a: &DataType, b: &DataType) -> DataType {
    let bits = |t: &DataType| 8 * t.primitive_width().unwrap_or(8);
    let signed = |t: &DataType| t.is_signed_integer();
    let wide = match (signed(a), signed(b)) {
        (true, true) | (false, false) => bits(a).max(bits(b)),
        (true, false) => bits(a).max(2 * bits(b)),
        (false, true) => bits(b).max(2 * bits(a)),
    };
    match (signed(a) || signed(b), wide) {
        (true, 16) => DataType::Int16,
        (true, 32) => DataType::Int32,
        (true, 64) => DataType::Int64,
        (true, _) => DataType::Decimal128(20, 0),
        (false, 16) => DataType::UInt16,
        (false, 32) => DataType::UInt32,
        (false, _) => DataType::UInt64,
    }
}

/// A decimal for all values of a whole type.
fn whole_decimal(t: &DataType) -> DataType {
    let digits = match t.primitive_width() {
        Some(1) => 3,
        Some(2) => 5,
        Some(4) => 10,
        _ => 20,
    };
    DataType::Decimal128(digits, 0)
}

fn union_decimal(a: &DataType, b: &DataType) -> Option<DataType> {
    let parts = |t: &DataType| match t {
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => Some((i16::from(*p) - i16::from(*s), i16::from(*s))),
        _ => None,
    };
    let ((whole_a, scale_a), (whole_b, scale_b)) = (parts(a)?, parts(b)?);
    let scale = scale_a.max(scale_b);
    let precision = whole_a.max(whole_b) + scale;
    let (p, s) = (u8::try_from(precision).ok()?, i8::try_from(scale).ok()?);
    match precision {
        ..=38 => Some(DataType::Decimal128(p, s)),
        39..=76 => Some(DataType::Decimal256(p, s)),
        _ => plain_text(a, b),
    }
}

fn union_entries(a: &FieldRef, b: &FieldRef) -> Option<FieldRef> {
    let (DataType::Struct(a_pair), DataType::Struct(b_pair)) = (a.data_type(), b.data_type()) else { return None };
    let both = a_pair
        .iter()
        .zip(b_pair)
        .map(|(a, b)| Some(Arc::new(a.as_ref().clone().with_data_type(union_type(a.data_type(), b.data_type())?))));
    let fields = both.collect::<Option<Vec<FieldRef>>>()?;
    Some(Arc::new(a.as_ref().clone().with_data_type(DataType::Struct(fields.into()))))
}

/// The type as it can be declared: columns of nothing are text, and there is one type of each kind.
fn settled(t: &DataType) -> DataType {
    use DataType as T;
    let field = |f: &FieldRef| Arc::new(Field::new(f.name(), settled(f.data_type()), true));
    match t {
        T::Null => T::Utf8View,
        T::Float16 => T::Float32,
        T::Date64 => T::Date32,
        T::FixedSizeBinary(_) => T::BinaryView,
        T::Decimal32(p, s) | T::Decimal64(p, s) => T::Decimal128(*p, *s),
        T::Interval(_) => T::Interval(IntervalUnit::MonthDayNano),
        T::List(item) | T::LargeList(item) | T::FixedSizeList(item, _) | T::ListView(item) | T::LargeListView(item) => {
            T::List(Arc::new(Field::new_list_field(settled(item.data_type()), true)))
        }
        T::Struct(fields) => T::Struct(fields.iter().map(field).collect()),
        T::Map(entries, ordered) => {
            let T::Struct(pair) = entries.data_type() else { return t.clone() };
            let inner = |f: &FieldRef| Arc::new(f.as_ref().clone().with_data_type(settled(f.data_type())));
            let pair = T::Struct(pair.iter().map(inner).collect());
            T::Map(Arc::new(entries.as_ref().clone().with_data_type(pair)), *ordered)
        }
        T::Utf8 | T::LargeUtf8 => T::Utf8View,
        T::Binary | T::LargeBinary => T::BinaryView,
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(a: DataType, b: DataType) -> DataType {
        let schema = |t| Schema::new(vec![Field::new("v", t, false)]);
        let forth = union_schema(&[schema(a.clone()), schema(b.clone())]).field(0).data_type().clone();
        let back = union_schema(&[schema(b), schema(a)]).field(0).data_type().clone();
        assert_eq!(forth, back, "the order of the files does not matter");
        forth
    }

    #[test]
    fn the_wider_type() {
        use DataType as T;
        assert_eq!(both(T::Int32, T::Int64), T::Int64);
        assert_eq!(both(T::UInt8, T::Int8), T::Int16);
        assert_eq!(both(T::UInt64, T::Int8), T::Decimal128(20, 0));
        assert_eq!(both(T::Int32, T::Float32), T::Float64);
        assert_eq!(both(T::Decimal128(10, 2), T::Decimal128(12, 4)), T::Decimal128(12, 4));
        assert_eq!(both(T::Decimal128(38, 0), T::Int64), T::Decimal128(38, 0));
        assert_eq!(both(T::Null, T::Int8), T::Int8);
        assert_eq!(both(T::Null, T::Null), T::Utf8View);
        assert_eq!(both(T::Utf8View, T::Int8), T::Utf8View);
        let ms = T::Timestamp(TimeUnit::Millisecond, None);
        assert_eq!(both(T::Date32, ms.clone()), ms);
        assert_eq!(both(ms, T::Timestamp(TimeUnit::Nanosecond, None)), T::Timestamp(TimeUnit::Nanosecond, None));
    }

    #[test]
    fn columns_and_fields_that_one_lacks() {
        let pair =
            |names: &[&str]| DataType::Struct(names.iter().map(|n| Field::new(*n, DataType::Int64, false)).collect());
        let first = Schema::new(vec![Field::new("a", DataType::Int64, false), Field::new("s", pair(&["x"]), false)]);
        let second = Schema::new(vec![Field::new("b", DataType::Utf8, true), Field::new("s", pair(&["y", "X"]), true)]);
        let all = union_schema(&[first, second]);
        let names: Vec<&str> = all.fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names, ["a", "s", "b"]);
        assert!(all.fields().iter().all(|f| f.is_nullable()));
        let expected = ["x", "y"].map(|n| Field::new(n, DataType::Int64, true));
        assert_eq!(all.field(1).data_type(), &DataType::Struct(expected.to_vec().into()));
    }
}
